//! Histories of a store as [`ringd::testing::linear`] sees them: the whole store as one object, whose state is all keys
//! and the revision, and each key by itself, where its operations touch no other.
//!
//! Answers tell revisions, which leaves the search little choice: a change that was acknowledged has its place, and one
//! that nobody acknowledged can only be at a revision that no other has. That is how etcd's own robustness tests keep the
//! search short. The search by key does not look at revisions, and so judges them. Serializable reads promise no place in
//! time; `check` judges what they do promise.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    rc::Rc,
};

use bytes::Bytes;
use ringd::{
    testing::linear::{Model, Span, Verdict, linearize},
    wire::{
        proto::{
            etcdserverpb::{RangeRequest, TxnRequest, request_op},
            mvccpb::Event,
        },
        status::Code,
    },
};

use crate::{
    check::without_headers,
    history::{Answer, History, Op, Outcome, Request, header_of, is_change, is_local},
    model::{self, View},
};

/// Applications of the model before a search is given up. A run of the simulator needs some ten thousands, a million where
/// hundreds of requests had no answer.
pub const STEPS_MAX: u64 = 20_000_000;

/// Whether a history is linearizable: as a whole, and key by key.
///
/// # Errors
/// What cannot be placed, or that the search was too long.
pub fn check(history: &History) -> Result<(), String> {
    check_store(history)?;
    check_keys(history)
}

/// All keys at one revision.
struct Store {
    revision: i64,
    view: View,
}

/// A state: shared, since the search keeps many.
#[derive(Clone)]
struct At(Rc<Store>);

impl PartialEq for At {
    fn eq(&self, other: &At) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || (self.0.revision == other.0.revision && self.0.view == other.0.view)
    }
}

impl Eq for At {}

impl Hash for At {
    // Two states of one revision are rare, and told apart by `eq`.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.revision.hash(hasher);
    }
}

/// What may happen to the store.
#[derive(Clone, Copy)]
enum Happening<'a> {
    Asked(&'a Op),
    /// The end of a lease, which comes by itself.
    Expired(i64),
}

struct WholeStore<'a> {
    /// Revisions of changes that were acknowledged.
    claimed: BTreeSet<i64>,
    /// What watchers were told of each revision; empty if nobody watched.
    events: &'a BTreeMap<i64, Vec<Event>>,
}

impl<'a> Model for WholeStore<'a> {
    type State = At;
    type Operation = Happening<'a>;

    fn start(&self) -> At {
        At(Rc::new(Store {
            revision: 1,
            view: View::new(),
        }))
    }

    fn is_read(&self, happening: &Happening<'a>) -> bool {
        let Happening::Asked(op) = happening else {
            return false;
        };
        match &op.outcome {
            Outcome::Answered(answer) => !matches!(op.request, Request::Revoke(_)) && !is_change(answer),
            _ => false,
        }
    }

    fn rank(&self, at: &At) -> u64 {
        at.0.revision as u64
    }

    fn rank_max(&self, happening: &Happening<'a>) -> u64 {
        let Happening::Asked(op) = happening else {
            return u64::MAX;
        };
        match (&op.request, &op.outcome) {
            // Its answer may come from a member that is further than the change.
            (Request::Revoke(_), _) => u64::MAX,
            (_, Outcome::Answered(answer)) => header_of(answer).map_or(u64::MAX, |header| header.revision as u64),
            _ => u64::MAX,
        }
    }

    fn is_same(&self, left: &Happening<'a>, right: &Happening<'a>) -> bool {
        let revoked = |happening: &Happening<'a>| match happening {
            Happening::Expired(lease_id) => Some(*lease_id),
            Happening::Asked(op) => match &op.request {
                Request::Revoke(revoke) => Some(revoke.id),
                _ => None,
            },
        };
        match (left, right) {
            (Happening::Asked(left_op), Happening::Asked(right_op)) if revoked(left).is_none() => {
                left_op.request == right_op.request
            }
            _ => revoked(left).is_some() && revoked(left) == revoked(right),
        }
    }

    fn step(&self, at: &At, happening: &Happening<'a>) -> Option<At> {
        let next = at.0.revision + 1;
        let (op, answer) = match happening {
            Happening::Expired(lease_id) => {
                return self.change(at, |view, events| model::revoke(view, *lease_id, next, events));
            }
            Happening::Asked(op) => (
                op,
                match &op.outcome {
                    Outcome::Answered(answer) => Some(answer),
                    _ => None,
                },
            ),
        };
        match (&op.request, answer) {
            (Request::Revoke(revoke), _) => {
                self.change(at, |view, events| model::revoke(view, revoke.id, next, events))
            }
            (Request::Range(request), Some(answer)) => {
                let told = header_of(answer).map(|header| header.revision);
                let is_now = request.revision == 0;
                let fits = told == Some(at.0.revision)
                    && (!is_now || without_headers(answer) == Answer::Range(model::range(&at.0.view, request)));
                fits.then(|| at.clone())
            }
            (_, None) => self.change(at, |view, events| {
                foresee(view, &op.request, next, events);
            }),
            (_, Some(answer)) => {
                let told = header_of(answer).map(|header| header.revision);
                if told != Some(at.0.revision + i64::from(is_change(answer))) {
                    return None;
                }
                let (mut view, mut events) = (at.0.view.clone(), Vec::new());
                let expected = foresee(&mut view, &op.request, next, &mut events)?;
                if expected != without_headers(answer) {
                    return None;
                }
                self.after(at, view, &events)
            }
        }
    }
}

impl WholeStore<'_> {
    /// A change that nobody acknowledged with a revision, so that it cannot have one of those that somebody has.
    fn change(&self, at: &At, act: impl FnOnce(&mut View, &mut Vec<Event>)) -> Option<At> {
        let (mut view, mut events) = (at.0.view.clone(), Vec::new());
        act(&mut view, &mut events);
        let is_taken = !events.is_empty() && self.claimed.contains(&(at.0.revision + 1));
        if is_taken { None } else { self.after(at, view, &events) }
    }

    fn after(&self, at: &At, view: View, events: &[Event]) -> Option<At> {
        if events.is_empty() {
            return Some(at.clone());
        }
        let revision = at.0.revision + 1;
        let is_told = self.events.is_empty() || self.events.get(&revision).is_some_and(|told| told == events);
        is_told.then(|| At(Rc::new(Store { revision, view })))
    }
}

fn foresee(view: &mut View, request: &Request, revision: i64, events: &mut Vec<Event>) -> Option<Answer> {
    match request {
        Request::Put(put) => Some(Answer::Put(model::put(view, put, revision, events))),
        Request::Delete(delete) => Some(Answer::Delete(model::delete(view, delete, revision, events))),
        Request::Txn(txn) => Some(Answer::Txn(model::txn(view, txn, revision, events))),
        _ => None,
    }
}

/// Whether a request may have happened, and whether that is known.
fn fate(op: &Op) -> Option<bool> {
    match &op.outcome {
        Outcome::Answered(_) => Some(true),
        Outcome::NotSent => None,
        Outcome::Unknown | Outcome::Pending => Some(false),
        // What was proposed may be committed after its client was sent away.
        Outcome::Refused(status) => match status.code {
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Canceled => Some(false),
            _ => None,
        },
    }
}

fn span<O>(op: &Op, is_known: bool, operation: O) -> Span<O> {
    Span {
        invoked: op.invoked,
        returned: is_known.then_some(op.returned),
        operation,
    }
}

fn check_store(history: &History) -> Result<(), String> {
    let mut spans = Vec::new();
    let mut claimed = BTreeSet::new();
    for op in &history.ops {
        let Some(is_known) = fate(op) else { continue };
        match &op.request {
            Request::Grant(grant) => spans.push(span(op, false, Happening::Expired(grant.id))),
            Request::Range(_) if is_known && !is_local(&op.request) => spans.push(span(op, true, Happening::Asked(op))),
            request if is_local(request) => continue,
            Request::Put(_) | Request::Delete(_) | Request::Txn(_) | Request::Revoke(_) => {
                spans.push(span(op, is_known, Happening::Asked(op)));
            }
            _ => continue,
        }
        if let Outcome::Answered(answer) = &op.outcome
            && is_change(answer)
        {
            claimed.extend(header_of(answer).map(|header| header.revision));
        }
    }
    let model = WholeStore {
        claimed,
        events: &history.events,
    };
    match linearize(&model, &spans, STEPS_MAX) {
        Verdict::Linearizable(_) => Ok(()),
        Verdict::Undecided => Err(format!("{} operations are too many to judge", spans.len())),
        Verdict::Impossible { placed, stuck } => {
            let Happening::Asked(op) = spans[stuck].operation else {
                unreachable!("what is known to have returned was asked for");
            };
            let last = placed.iter().rev().find_map(|place| match spans[*place].operation {
                Happening::Asked(op) => Some(op),
                Happening::Expired(_) => None,
            });
            Err(format!(
                "not linearizable: no place for {op:?}; the last of {} that have one is {last:?}",
                placed.len()
            ))
        }
    }
}

/// What is done to one key.
#[derive(Clone, Debug, PartialEq)]
enum Access {
    Put(Bytes),
    /// Whether there was something to delete, if that is known.
    Delete(Option<bool>),
    Read(Option<Bytes>),
}

struct OneKey;

impl Model for OneKey {
    type State = Option<Bytes>;
    type Operation = Access;

    fn start(&self) -> Option<Bytes> {
        None
    }

    fn is_read(&self, access: &Access) -> bool {
        matches!(access, Access::Read(_) | Access::Delete(Some(false)))
    }

    fn step(&self, state: &Option<Bytes>, access: &Access) -> Option<Option<Bytes>> {
        match access {
            Access::Put(value) => Some(Some(value.clone())),
            Access::Delete(told) => told.is_none_or(|told| told == state.is_some()).then_some(None),
            Access::Read(value) => (value == state).then(|| state.clone()),
        }
    }

    fn is_same(&self, left: &Access, right: &Access) -> bool {
        left == right
    }
}

fn check_keys(history: &History) -> Result<(), String> {
    let entangled = entangled_keys(history);
    let mut by_key: BTreeMap<&Bytes, Vec<Span<Access>>> = BTreeMap::new();
    let keys: BTreeSet<&Bytes> = history.ops.iter().filter_map(written_key).collect();
    for op in &history.ops {
        let Some(is_known) = fate(op) else { continue };
        match (&op.request, &op.outcome) {
            (Request::Put(put), _) => {
                let access = Access::Put(put.value.clone());
                by_key.entry(&put.key).or_default().push(span(op, is_known, access));
            }
            (Request::Delete(delete), outcome) if delete.range_end.is_empty() => {
                let told = match outcome {
                    Outcome::Answered(Answer::Delete(answer)) => Some(answer.deleted > 0),
                    _ => None,
                };
                let access = Access::Delete(told);
                by_key.entry(&delete.key).or_default().push(span(op, is_known, access));
            }
            (Request::Range(range), Outcome::Answered(Answer::Range(answer))) if is_plain(range) => {
                for key in keys
                    .iter()
                    .filter(|key| model::is_in(key, &range.key, &range.range_end))
                {
                    let found = answer.kvs.iter().find(|kv| kv.key == **key);
                    let access = Access::Read(found.map(|kv| kv.value.clone()));
                    by_key.entry(key).or_default().push(span(op, true, access));
                }
            }
            _ => {}
        }
    }
    for (key, spans) in by_key.iter().filter(|(key, _)| !entangled.contains(**key)) {
        if let Verdict::Impossible { placed, stuck } = linearize(&OneKey, spans, STEPS_MAX) {
            return Err(format!(
                "not linearizable: key {key:?}: no place for {:?} behind {:?}",
                spans[stuck],
                placed.last().map(|last| &spans[*last])
            ));
        }
    }
    Ok(())
}

fn written_key(op: &Op) -> Option<&Bytes> {
    match &op.request {
        Request::Put(put) => Some(&put.key),
        Request::Delete(delete) if delete.range_end.is_empty() => Some(&delete.key),
        _ => None,
    }
}

/// Whether a range tells of every key in its span what it holds now.
fn is_plain(range: &RangeRequest) -> bool {
    range.revision == 0 && range.limit == 0 && !range.serializable && !range.keys_only && !range.count_only
}

/// Keys that something other than a request for themselves alone may have changed: those stay with the whole store.
fn entangled_keys(history: &History) -> BTreeSet<Bytes> {
    let mut entangled = BTreeSet::new();
    let of_txn = |txn: &TxnRequest, entangled: &mut BTreeSet<Bytes>| {
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(request_op::Request::RequestPut(put)) => _ = entangled.insert(put.key.clone()),
                Some(request_op::Request::RequestDeleteRange(delete)) => _ = entangled.insert(delete.key.clone()),
                _ => {}
            }
        }
    };
    let spans: Vec<_> = history
        .ops
        .iter()
        .filter_map(|op| match &op.request {
            Request::Delete(delete) if !delete.range_end.is_empty() => Some((&delete.key, &delete.range_end)),
            _ => None,
        })
        .collect();
    for op in history.ops.iter().filter(|op| fate(op).is_some()) {
        match &op.request {
            Request::Put(put) if put.lease != 0 => _ = entangled.insert(put.key.clone()),
            Request::Txn(txn) => of_txn(txn, &mut entangled),
            _ => {}
        }
        if let Some(key) = written_key(op)
            && spans.iter().any(|(first, end)| model::is_in(key, first, end))
        {
            entangled.insert(key.clone());
        }
    }
    entangled
}
