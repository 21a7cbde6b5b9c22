//! Whether a history can be one of etcd's: one order of all changes, each acknowledged one in it once, every answer what
//! the model gives at its revision, every watcher told all of its changes once and in order, leases kept to their time.

use std::collections::{BTreeMap, BTreeSet};

use ringd::{
    testing::Clock,
    wire::{
        proto::{
            etcdserverpb::{RangeRequest, ResponseOp, response_op::Response},
            mvccpb::{Event, event::EventType},
        },
        status::Code,
    },
};

use crate::{
    history::{Answer, History, Op, Outcome, Request, Session, Told, header_of, is_change},
    linear,
    model::{self, View},
};

/// Clocks of the server's machine run at most so much faster or slower.
pub const DRIFT_PPM_MAX: i32 = 20_000;

/// What a run came to, for the summary.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Requests whose fate nobody told.
    pub unknown: usize,
    /// Of them, those that turned out to have happened.
    pub unknown_kept: usize,
    /// The last revision.
    pub revision: i64,
    /// Events that watchers were told.
    pub events: usize,
    /// Revisions that are the end of a lease.
    pub expiries: usize,
}

/// The events and the views that they lead to.
struct Truth<'a> {
    history: &'a History,
    /// By revision; the first two are empty.
    views: Vec<View>,
    /// Who claims a revision.
    claims: BTreeMap<i64, usize>,
    leases: BTreeMap<i64, LeaseFacts>,
    summary: Summary,
}

/// What is known of a lease from the requests about it.
#[derive(Default)]
struct LeaseFacts {
    granted: Option<usize>,
    /// Renewals that were answered with a time: operation and seconds.
    renewals: Vec<(usize, i64)>,
    revokes: Vec<usize>,
}

/// Checks a whole history.
///
/// # Errors
/// What cannot be.
pub fn check(history: &History) -> Result<Summary, String> {
    let mut truth = Truth {
        history,
        views: vec![View::new(), View::new()],
        claims: BTreeMap::new(),
        leases: leases_of(history),
        summary: Summary::default(),
    };
    truth.build_views()?;
    truth.claim_acknowledged()?;
    truth.claim_rest()?;
    for op in &history.ops {
        match &op.outcome {
            Outcome::Answered(answer) => truth.check_answer(op, answer)?,
            Outcome::Refused(status) => truth.check_refusal(op, status.code, &status.message)?,
            Outcome::Pending | Outcome::NotSent | Outcome::Unknown => {}
        }
    }
    for session in &history.sessions {
        truth.check_session(session)?;
    }
    linear::check(history)?;
    truth.count();
    Ok(truth.summary)
}

fn leases_of(history: &History) -> BTreeMap<i64, LeaseFacts> {
    let mut leases: BTreeMap<i64, LeaseFacts> = BTreeMap::new();
    for (number, op) in history.ops.iter().enumerate() {
        if matches!(op.outcome, Outcome::NotSent | Outcome::Refused(_)) {
            continue;
        }
        match (&op.request, &op.outcome) {
            (Request::Grant(grant), outcome) => {
                let facts = leases.entry(grant.id).or_default();
                facts.granted = Some(number);
                if let Outcome::Answered(Answer::Grant(answer)) = outcome {
                    facts.renewals.push((number, answer.ttl));
                }
            }
            (Request::KeepAlive(id), Outcome::Answered(Answer::KeepAlive(answer))) if answer.ttl > 0 => {
                leases.entry(*id).or_default().renewals.push((number, answer.ttl));
            }
            (Request::Revoke(revoke), _) => leases.entry(revoke.id).or_default().revokes.push(number),
            _ => {}
        }
    }
    leases
}

/// The least time, in nanoseconds of the simulation, that a machine's clock needs for so many seconds.
fn least_nanos(seconds: i64) -> u64 {
    let nanos = seconds as u64 * 1_000_000_000;
    nanos - nanos / 1_000_000 * DRIFT_PPM_MAX as u64
}

/// A clock as far off as the checks allow for.
pub fn clock(drift_ppm: i32, wall_offset_nanos: i64) -> Clock {
    assert!(drift_ppm.abs() <= DRIFT_PPM_MAX);
    Clock {
        drift_ppm,
        wall_offset_nanos,
    }
}

impl Truth<'_> {
    fn last(&self) -> i64 {
        self.views.len() as i64 - 1
    }

    fn view(&self, revision: i64) -> &View {
        &self.views[revision as usize]
    }

    /// Each revision's events must be what the keys before it allow.
    fn build_views(&mut self) -> Result<(), String> {
        for (expected, (revision, events)) in (2..).zip(&self.history.events) {
            if expected != *revision {
                return Err(format!("no change was ever told for revision {expected}"));
            }
            let mut view = self.view(revision - 1).clone();
            for event in events {
                apply_event(&mut view, event, *revision)?;
            }
            self.views.push(view);
        }
        if self.history.floor > self.last() {
            return Err(format!(
                "revision {} was shown, but history ends at {}",
                self.history.floor,
                self.last()
            ));
        }
        Ok(())
    }

    fn events(&self, revision: i64) -> &[Event] {
        self.history.events.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// What a request does to the keys before a revision.
    fn foresee(&self, request: &Request, revision: i64) -> (Vec<Event>, Option<Answer>) {
        let mut events = Vec::new();
        if revision < 2 {
            return (events, None);
        }
        let mut view = self.view(revision - 1).clone();
        let answer = match request {
            Request::Put(put) => Answer::Put(model::put(&mut view, put, revision, &mut events)),
            Request::Delete(delete) => Answer::Delete(model::delete(&mut view, delete, revision, &mut events)),
            Request::Txn(txn) => Answer::Txn(model::txn(&mut view, txn, revision, &mut events)),
            Request::Revoke(revoke) => {
                model::revoke(&mut view, revoke.id, revision, &mut events);
                return (events, None);
            }
            _ => return (events, None),
        };
        (events, Some(answer))
    }

    fn claim_acknowledged(&mut self) -> Result<(), String> {
        for (number, op) in self.history.ops.iter().enumerate() {
            let Outcome::Answered(answer) = &op.outcome else {
                continue;
            };
            if !is_change(answer) {
                continue;
            }
            let revision = header_of(answer).map_or(0, |header| header.revision);
            let (events, expected) = self.foresee(&op.request, revision);
            if self.events(revision) != events {
                return Err(format!(
                    "{:?} was acknowledged at revision {revision}, which holds {:?} instead of {events:?}",
                    op.request,
                    self.events(revision)
                ));
            }
            let Some(expected) = expected else {
                return Err(format!(
                    "{:?} was acknowledged at revision {revision}, where no change can be",
                    op.request
                ));
            };
            if without_headers(answer) != without_headers(&expected) {
                return Err(format!(
                    "{:?} was answered {answer:?} instead of {expected:?}",
                    op.request
                ));
            }
            if let Some(other) = self.claims.insert(revision, number) {
                return Err(format!(
                    "revision {revision} was given to {:?} and to {:?}",
                    self.history.ops[other].request, op.request
                ));
            }
        }
        Ok(())
    }

    /// What nobody acknowledged is a request without an answer, or the end of a lease. Of several requests that would have done
    /// the same, each takes the revision that leaves one for the others.
    fn claim_rest(&mut self) -> Result<(), String> {
        let claimed: BTreeSet<usize> = self.claims.values().copied().collect();
        let mut candidates: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        let mut takers: BTreeMap<usize, i64> = BTreeMap::new();
        for revision in 2..=self.last() {
            if self.claims.contains_key(&revision) {
                continue;
            }
            let found = self.open_requests_of(revision, &claimed);
            let is_revoked = |number: &&usize| matches!(self.history.ops[**number].outcome, Outcome::Answered(_));
            // The end of a lease goes before a request of unknown outcome, which may be another revision's.
            match (found.iter().find(is_revoked), self.check_expiry(revision)) {
                (Some(number), _) if !takers.contains_key(number) => {
                    takers.insert(*number, revision);
                }
                (_, Ok(())) => self.summary.expiries += 1,
                (_, Err(why)) => {
                    candidates.insert(revision, found);
                    if !find_taker(revision, &candidates, &mut takers, &mut BTreeSet::new()) {
                        return Err(why);
                    }
                    self.summary.unknown_kept += 1;
                }
            }
        }
        self.claims
            .extend(takers.into_iter().map(|(number, revision)| (revision, number)));
        Ok(())
    }

    /// Requests without an answer, and leases that were revoked, that may have made a revision.
    fn open_requests_of(&self, revision: i64, claimed: &BTreeSet<usize>) -> Vec<usize> {
        let seen = self.history.first_seen(revision);
        let could = |op: &Op| {
            let is_open = matches!(
                (&op.request, &op.outcome),
                (Request::Revoke(_), Outcome::Answered(_)) | (_, Outcome::Unknown | Outcome::Pending)
            );
            is_open && op.floor < revision && seen.is_none_or(|(place, _)| op.invoked < place)
        };
        let is_it = |(number, op): &(usize, &Op)| {
            could(op) && !claimed.contains(number) && {
                let (events, _) = self.foresee(&op.request, revision);
                !events.is_empty() && events == self.events(revision)
            }
        };
        let found = self.history.ops.iter().enumerate().filter(is_it);
        found.map(|(number, _)| number).collect()
    }

    /// A revision that nobody asked for must be the end of a lease, and not too early.
    fn check_expiry(&self, revision: i64) -> Result<(), String> {
        let events = self.events(revision);
        let before = self.view(revision - 1);
        let of_first = events[0].kv.as_ref().and_then(|kv| before.get(&kv.key));
        let lease_id = of_first.map_or(0, |kv| kv.lease);
        let mut expected = Vec::new();
        model::revoke(&mut before.clone(), lease_id, revision, &mut expected);
        let is_put = events.iter().any(|event| event.r#type == EventType::Put as i32);
        if lease_id == 0 || is_put || expected != events {
            return Err(format!("nobody asked for what revision {revision} holds: {events:?}"));
        }
        let seen_nanos = self.history.first_seen(revision).map_or(u64::MAX, |(_, nanos)| nanos);
        let facts = self.leases.get(&lease_id);
        for (number, seconds) in facts.into_iter().flat_map(|facts| &facts.renewals) {
            let due = self.history.ops[*number].invoked_nanos + least_nanos(*seconds);
            if seen_nanos < due {
                return Err(format!(
                    "lease {lease_id} had ended with revision {revision} at {seen_nanos} ns, {} ns early",
                    due - seen_nanos
                ));
            }
        }
        Ok(())
    }

    fn check_answer(&self, op: &Op, answer: &Answer) -> Result<(), String> {
        let now = header_of(answer).map_or(0, |header| header.revision);
        let wrong = |expected: &dyn std::fmt::Debug| {
            Err(format!(
                "{:?} at revision {now} was answered {answer:?} instead of {expected:?}",
                op.request
            ))
        };
        match (&op.request, answer) {
            _ if is_change(answer) => {}
            (Request::Range(request), Answer::Range(_)) => {
                let expected = self.expected_range(op, request, now)?;
                if without_headers(answer) != without_headers(&expected) {
                    return wrong(&expected);
                }
            }
            (Request::Delete(_) | Request::Txn(_), _) => {
                // Nothing changed: it happened on the keys as of `now`.
                let (events, expected) = self.foresee(&op.request, now + 1);
                if !events.is_empty() || expected.as_ref().map(without_headers) != Some(without_headers(answer)) {
                    return wrong(&expected);
                }
            }
            (Request::Compact(request), _) if request.revision > now => {
                return wrong(&"a refusal: it is yet to come");
            }
            (Request::Revoke(request), _) => {
                if let Some(kv) = self.view(now).values().find(|kv| kv.lease == request.id) {
                    return wrong(&format!("the end of {kv:?}"));
                }
            }
            (Request::KeepAlive(id), Answer::KeepAlive(answer)) if answer.ttl == 0 => {
                self.check_may_be_gone(op, *id)?
            }
            (Request::TimeToLive(request), Answer::TimeToLive(answer)) => {
                if answer.ttl < 0 {
                    self.check_may_be_gone(op, request.id)?;
                } else if request.keys {
                    let keys = self.view(now).values().filter(|kv| kv.lease == request.id);
                    let expected: Vec<_> = keys.map(|kv| kv.key.clone()).collect();
                    let mut found = answer.keys.clone();
                    found.sort();
                    if found != expected {
                        return wrong(&expected);
                    }
                }
            }
            (Request::HashKv(request), Answer::HashKv(answer)) => {
                let revision = if request.revision == 0 { now } else { request.revision };
                let compacted = answer.compact_revision;
                let hash = model::hash_kv(&self.history.events, self.view(revision), revision, compacted);
                // -1 stands for no compaction.
                // At a revision that was compacted to, the compaction's own hash may be told: it was taken with the
                // compaction before.
                let is_remembered = compacted < revision && revision <= op.compacted_maybe;
                let is_possible =
                    is_remembered || (compacted.max(0) >= op.compacted && compacted <= op.compacted_maybe);
                // With no key left etcd leaves nothing out, so that the hash depends on how far the compaction has come.
                let is_settled = !self.view(revision).is_empty() || compacted < 1;
                let is_right = answer.hash == hash || !is_settled;
                if answer.hash_revision != revision || !is_right || !is_possible {
                    return wrong(&(hash, revision, op.compacted..=op.compacted_maybe));
                }
            }
            (Request::Snapshot, Answer::Snapshot(records)) => self.check_snapshot(op, records)?,
            _ => {}
        }
        Ok(())
    }

    fn expected_range(&self, op: &Op, request: &RangeRequest, now: i64) -> Result<Answer, String> {
        let at = if request.revision > 0 { request.revision } else { now };
        if at > now || (request.revision > 0 && at < op.compacted) {
            return Err(format!(
                "{request:?} was answered at revision {now}, compacted at {}",
                op.compacted
            ));
        }
        Ok(Answer::Range(model::range(self.view(at), request)))
    }

    /// A snapshot holds every change that had been shown before it was asked for, and nothing that is not one.
    fn check_snapshot(&self, op: &Op, records: &[(ringd::base::Revision, bool, bytes::Bytes)]) -> Result<(), String> {
        let mut found: BTreeMap<(i64, i64), &bytes::Bytes> = BTreeMap::new();
        for (revision, _, record) in records {
            let event = self.events(revision.main).get(revision.sub as usize);
            if event.is_none_or(|event| model::record(event) != record[..]) {
                return Err(format!(
                    "a snapshot holds {revision:?} as {record:?} instead of {event:?}"
                ));
            }
            found.insert((revision.main, revision.sub), record);
        }
        for revision in op.compacted_maybe + 1..=op.floor {
            for sub in 0..self.events(revision).len() as i64 {
                if !found.contains_key(&(revision, sub)) {
                    return Err(format!(
                        "a snapshot lacks revision {revision}.{sub}; {} had been shown before",
                        op.floor
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a lease could be gone when a request about it ended.
    fn check_may_be_gone(&self, op: &Op, lease_id: i64) -> Result<(), String> {
        let Some(facts) = self.leases.get(&lease_id) else {
            return Ok(());
        };
        let ops = &self.history.ops;
        let is_known = facts.granted.is_some_and(|granted| ops[granted].returned < op.invoked)
            && facts
                .granted
                .is_some_and(|granted| matches!(ops[granted].outcome, Outcome::Answered(_)));
        let is_revoked = facts.revokes.iter().any(|revoke| ops[*revoke].invoked < op.returned);
        if !is_known || is_revoked {
            return Ok(());
        }
        for (number, seconds) in &facts.renewals {
            let renewal = &ops[*number];
            if renewal.returned < op.invoked && op.returned_nanos < renewal.invoked_nanos + least_nanos(*seconds) {
                return Err(format!(
                    "{:?} found lease {lease_id} gone at {} ns, renewed at {} ns for {seconds} s",
                    op.request, op.returned_nanos, renewal.invoked_nanos
                ));
            }
        }
        Ok(())
    }

    fn check_refusal(&self, op: &Op, code: Code, message: &str) -> Result<(), String> {
        let wrong = || Err(format!("{:?} was refused: {code:?} {message}: {op:?}", op.request));
        let revision = match &op.request {
            Request::Range(request) => request.revision,
            Request::HashKv(request) => request.revision,
            Request::Compact(request) => request.revision,
            _ => 0,
        };
        let is_compact = matches!(op.request, Request::Compact(_));
        if message.ends_with("has been compacted") {
            let bound = op.compacted_maybe + i64::from(is_compact);
            return if revision > 0 && revision < bound {
                Ok(())
            } else {
                wrong()
            };
        }
        if message.ends_with("is a future revision") {
            return if revision > op.floor { Ok(()) } else { wrong() };
        }
        if message.ends_with("requested lease not found") {
            let lease_id = match &op.request {
                Request::Put(put) => put.lease,
                Request::Revoke(revoke) => revoke.id,
                Request::TimeToLive(request) => request.id,
                Request::Txn(_) => return Ok(()),
                _ => return wrong(),
            };
            return self.check_may_be_gone(op, lease_id);
        }
        match code {
            Code::ResourceExhausted => Ok(()),
            Code::InvalidArgument if message.ends_with("request is too large") => Ok(()),
            _ => wrong(),
        }
    }

    fn check_session(&self, session: &Session) -> Result<(), String> {
        let spec = &session.spec;
        let mut next = spec.start_revision;
        let mut expected: Option<Box<dyn Iterator<Item = (i64, &Event)>>> = None;
        let mut pending: Option<(i64, &Event)> = None;
        for told in &session.told {
            let wrong = |what: String| Err(format!("watcher {spec:?}: {what}; it was told {:?}", session.told));
            if let Told::Created { revision } = told {
                if next == 0 {
                    next = revision + 1;
                }
                let mut events = self.wanted(spec, next);
                pending = events.next();
                expected = Some(events);
                continue;
            }
            let Some(expected) = &mut expected else {
                if matches!(told, Told::Canceled { .. }) {
                    return Ok(());
                }
                return wrong(format!("told {told:?} before it was created"));
            };
            match told {
                Told::Created { .. } => unreachable!("seen above"),
                Told::Progress { revision } => {
                    if let Some((next, event)) = pending.filter(|(next, _)| next <= revision) {
                        return wrong(format!("progress {revision} before {event:?} of {next}"));
                    }
                }
                Told::Events {
                    events,
                    is_fragment,
                    compacted_maybe,
                } => {
                    for event in events {
                        let Some((revision, wanted)) = pending else {
                            return wrong(format!("told {event:?}, and nothing was to come"));
                        };
                        if event.r#type != wanted.r#type || event.kv != wanted.kv {
                            return wrong(format!("told {event:?} instead of {wanted:?}"));
                        }
                        self.check_previous(spec.prev_kv, event, revision, *compacted_maybe)?;
                        pending = expected.next();
                    }
                    let last = events.last().map(crate::history::revision_of);
                    if let Some((revision, event)) = pending
                        && Some(revision) == last
                        && !is_fragment
                    {
                        return wrong(format!("revision {revision} was split before {event:?}"));
                    }
                }
                Told::Canceled {
                    compact_revision,
                    compacted_maybe,
                    reason,
                } => {
                    let is_possible = *compact_revision > 0
                        && compact_revision <= compacted_maybe
                        && spec.start_revision < *compact_revision;
                    if !is_possible {
                        return wrong(format!("cancelled at {compact_revision}: {reason}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The events that a watcher is to be told, from a revision on.
    fn wanted<'a>(
        &'a self,
        spec: &'a ringd::wire::proto::etcdserverpb::WatchCreateRequest,
        from: i64,
    ) -> Box<dyn Iterator<Item = (i64, &'a Event)> + 'a> {
        let events = self.history.events.range(from..);
        let events = events.flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)));
        Box::new(events.filter(|(_, event)| {
            let is_filtered = spec.filters.contains(&event.r#type);
            let key = event.kv.as_ref().map_or(&b""[..], |kv| &kv.key);
            !is_filtered && model::is_in(key, &spec.key, &spec.range_end)
        }))
    }

    /// The previous record must be the right one. Only a compaction may have taken it.
    fn check_previous(&self, is_wanted: bool, event: &Event, revision: i64, compacted: i64) -> Result<(), String> {
        let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        let expected = self.view(revision - 1).get(&key).filter(|_| is_wanted);
        let is_lost = event.prev_kv.is_none() && revision - 1 < compacted;
        if event.prev_kv.as_ref() != expected && !is_lost {
            return Err(format!(
                "{event:?} was told with the wrong previous record: {expected:?}"
            ));
        }
        Ok(())
    }

    fn count(&mut self) {
        let outcomes = || self.history.ops.iter().map(|op| &op.outcome);
        let summary = Summary {
            unknown: outcomes().filter(|outcome| matches!(outcome, Outcome::Unknown)).count(),
            revision: self.last(),
            events: self
                .history
                .sessions
                .iter()
                .flat_map(|session| &session.told)
                .map(|told| match told {
                    Told::Events { events, .. } => events.len(),
                    _ => 0,
                })
                .sum(),
            ..self.summary.clone()
        };
        self.summary = summary;
    }
}

/// An event on the keys before its revision.
/// Finds a request for a revision; one that another revision has taken may be had if that finds another.
fn find_taker(
    revision: i64,
    candidates: &BTreeMap<i64, Vec<usize>>,
    takers: &mut BTreeMap<usize, i64>,
    tried: &mut BTreeSet<usize>,
) -> bool {
    for number in candidates.get(&revision).into_iter().flatten() {
        if !tried.insert(*number) {
            continue;
        }
        let other = takers.get(number).copied();
        if other.is_none_or(|other| find_taker(other, candidates, takers, tried)) {
            takers.insert(*number, revision);
            return true;
        }
    }
    false
}

fn apply_event(view: &mut View, event: &Event, revision: i64) -> Result<(), String> {
    let kv = event.kv.clone().unwrap_or_default();
    let before = view.get(&kv.key);
    if event.r#type == EventType::Delete as i32 {
        return match view.remove(&kv.key) {
            Some(_) => Ok(()),
            None => Err(format!("revision {revision} deletes what is not there: {kv:?}")),
        };
    }
    let created = before.map_or(revision, |before| before.create_revision);
    let version = before.map_or(0, |before| before.version) + 1;
    if (kv.create_revision, kv.mod_revision, kv.version) != (created, revision, version) {
        return Err(format!("revision {revision} holds {kv:?} after {before:?}"));
    }
    view.insert(kv.key.clone(), kv);
    Ok(())
}

/// An answer without what tells it apart from others with the same content.
pub fn without_headers(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    match &mut answer {
        Answer::Range(answer) => answer.header = None,
        Answer::Put(answer) => answer.header = None,
        Answer::Delete(answer) => answer.header = None,
        Answer::Txn(answer) => {
            answer.header = None;
            answer.responses.iter_mut().for_each(clear_header);
        }
        _ => {}
    }
    answer
}

fn clear_header(op: &mut ResponseOp) {
    match &mut op.response {
        Some(Response::ResponseRange(response)) => response.header = None,
        Some(Response::ResponsePut(response)) => response.header = None,
        Some(Response::ResponseDeleteRange(response)) => response.header = None,
        _ => {}
    }
}
