//! What clients asked, what they were told, and when: the evidence. What can be seen at once to be wrong is seen here,
//! the rest by `check`.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use ringd::{
    apply::check::is_txn_serializable,
    base::Revision,
    testing::Sim,
    wire::{
        proto::{
            etcdserverpb::{
                CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
                HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
                LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest,
                PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
                response_op::Response,
            },
            mvccpb::Event,
        },
        status::Status,
    },
};

/// How a call went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It never left: it has not happened and will not.
    NotSent,
    /// The server said no.
    Refused(Status),
    /// What the server does not know itself, or what the client's own side made up for a lost connection.
    Unsettled(Status),
    /// The call's orderly end, without an answer.
    NoAnswer,
    /// Nothing in time.
    TimedOut,
    /// An answer that cannot be right, and why.
    Damaged(String),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    KeepAlive(i64),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    HashKv(HashKvRequest),
    Defragment,
    Snapshot,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Answer {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    KeepAlive(LeaseKeepAliveResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    HashKv(HashKvResponse),
    Defragment,
    Snapshot(Vec<(Revision, bool, Bytes)>),
}

/// How a request ended.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Outcome {
    Pending,
    NotSent,
    Unknown,
    Refused(Status),
    Answered(Answer),
}

/// One request's story.
#[derive(Clone, Debug)]
pub struct Op {
    /// What was asked.
    pub request: Request,
    /// The place of the member that was asked, where several are told apart.
    pub place: Option<usize>,
    /// Its place in the order of all that clients did and saw.
    pub invoked: u64,
    /// The simulation's time then, in nanoseconds.
    pub invoked_nanos: u64,
    /// The newest revision that anybody had been shown then; where a member answers from what it has, by that member.
    pub floor: i64,
    /// The highest compaction that had been acknowledged then; likewise.
    pub compacted: i64,
    /// Place and time of the end.
    pub returned: u64,
    /// The simulation's time at the end, in nanoseconds.
    pub returned_nanos: u64,
    /// The highest compaction that had been asked for at the end.
    pub compacted_maybe: i64,
    /// How it ended.
    pub outcome: Outcome,
}

/// One watcher from its creation to the end of its stream.
#[derive(Clone, Debug)]
pub struct Session {
    /// What was asked for.
    pub spec: WatchCreateRequest,
    /// The place of the member that was asked, where several are told apart.
    pub place: Option<usize>,
    /// The newest revision that this member had shown anybody then; without a place, that anybody had been shown.
    pub floor: i64,
    /// What it was told.
    pub told: Vec<Told>,
}

/// One response to a watcher.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Told {
    Created {
        revision: i64,
    },
    Events {
        events: Vec<Event>,
        is_fragment: bool,
        compacted_maybe: i64,
    },
    Progress {
        revision: i64,
    },
    Canceled {
        compact_revision: i64,
        reason: String,
        compacted_maybe: i64,
    },
}

/// Everything that is known.
#[derive(Clone, Default)]
pub struct History {
    /// All requests.
    pub ops: Vec<Op>,
    /// All watchers.
    pub sessions: Vec<Session>,
    /// Each revision's changes, as one watcher of everything saw them.
    pub events: BTreeMap<i64, Vec<Event>>,
    /// The newest revision that anybody was shown.
    pub floor: i64,
    /// When that changed: (revision, place, nanoseconds).
    seen: Vec<(i64, u64, u64)>,
    /// The highest compaction acknowledged, and asked for.
    pub compacted: i64,
    /// Asked for, whatever became of it.
    pub compacted_maybe: i64,
    /// By place, what members have shown of what they have.
    members: BTreeMap<usize, Shown>,
    next: u64,
    fault: Option<String>,
}

/// What a member has shown of what it has: it may not go back behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    revision: i64,
    compacted: i64,
}

/// The history, shared by the clients of one simulation.
#[derive(Clone)]
pub struct Recorder {
    history: Rc<RefCell<History>>,
    clock: Rc<dyn Fn() -> u64>,
}

impl Recorder {
    /// An empty history; `sim` outlives all who record.
    pub fn new(sim: &Rc<Sim>) -> Recorder {
        let weak = Rc::downgrade(sim);
        Recorder::with_clock(move || weak.upgrade().map_or(0, |sim| sim.now().0))
    }

    /// An empty history; `clock` gives nanoseconds.
    pub fn with_clock(clock: impl Fn() -> u64 + 'static) -> Recorder {
        Recorder {
            history: Rc::default(),
            clock: Rc::new(clock),
        }
    }

    /// The history.
    pub fn history(&self) -> std::cell::Ref<'_, History> {
        self.history.borrow()
    }

    /// A request is about to be sent, to the member of this place where members are told apart.
    pub fn invoke(&self, place: Option<usize>, request: Request) -> usize {
        let nanos = (self.clock)();
        let mut history = self.history.borrow_mut();
        let shown = history.shown_by(place.filter(|_| is_local(&request)));
        if let Request::Compact(request) = &request {
            history.compacted_maybe = history.compacted_maybe.max(request.revision);
        }
        let op = Op {
            request,
            place,
            invoked: history.take_place(),
            invoked_nanos: nanos,
            floor: shown.revision,
            compacted: shown.compacted,
            returned: u64::MAX,
            returned_nanos: u64::MAX,
            compacted_maybe: i64::MAX,
            outcome: Outcome::Pending,
        };
        history.ops.push(op);
        history.ops.len() - 1
    }

    /// A request has ended.
    pub fn finish(&self, op: usize, result: Result<Answer, Failure>) {
        let nanos = (self.clock)();
        let mut history = self.history.borrow_mut();
        let history = &mut *history;
        let place = history.take_place();
        let maybe = history.compacted_maybe;
        let entry = &mut history.ops[op];
        (entry.returned, entry.returned_nanos, entry.compacted_maybe) = (place, nanos, maybe);
        entry.outcome = match result {
            Ok(answer) => Outcome::Answered(answer),
            Err(Failure::NotSent) => Outcome::NotSent,
            Err(Failure::Refused(status)) => Outcome::Refused(status),
            Err(_) => Outcome::Unknown,
        };
        let entry = entry.clone();
        if let Outcome::Answered(answer) = &entry.outcome
            && let Some(header) = header_of(answer)
        {
            let least = entry.floor + i64::from(is_change(answer));
            if header.revision < least {
                history.accuse(format!(
                    "{:?} was answered at revision {} although {} had been shown before: {answer:?} by {:?}",
                    entry.request, header.revision, entry.floor, entry.place
                ));
            }
            history.show(header.revision, place, nanos);
            // Of leases' times the leader tells, whoever is asked.
            if !matches!(answer, Answer::KeepAlive(_) | Answer::TimeToLive(_)) {
                history.show_by(entry.place, header.revision, 0);
            }
        }
        if let (Request::Compact(request), Outcome::Answered(_)) = (&entry.request, &entry.outcome) {
            history.compacted = history.compacted.max(request.revision);
            history.show_by(entry.place, 0, request.revision);
        }
    }

    /// A watcher is about to be created, on the member of this place where members are told apart.
    pub fn watch(&self, place: Option<usize>, spec: WatchCreateRequest) -> usize {
        let mut history = self.history.borrow_mut();
        let floor = history.shown_by(place).revision;
        history.sessions.push(Session {
            spec,
            place,
            floor,
            told: Vec::new(),
        });
        history.sessions.len() - 1
    }

    /// A watcher was told something.
    pub fn tell(&self, session: usize, told: Told) {
        let nanos = (self.clock)();
        let mut history = self.history.borrow_mut();
        let place = history.take_place();
        let (member, floor) = (history.sessions[session].place, history.sessions[session].floor);
        let revision = match &told {
            Told::Created { revision } | Told::Progress { revision } => *revision,
            Told::Events { events, .. } => events.iter().map(revision_of).max().unwrap_or(0),
            Told::Canceled { .. } => 0,
        };
        if let Told::Created { revision } = &told
            && *revision < floor
        {
            history.accuse(format!(
                "a watcher of {member:?} was created at revision {revision}, which had shown {floor} before"
            ));
        }
        history.show(revision, place, nanos);
        history.show_by(member, revision, 0);
        history.sessions[session].told.push(told);
    }

    /// The watcher of everything has seen the whole of these revisions.
    pub fn learn(&self, events: Vec<Event>) {
        let mut history = self.history.borrow_mut();
        for event in events {
            let revision = revision_of(&event);
            history.events.entry(revision).or_default().push(event);
        }
    }

    /// Something is wrong; the first finding counts.
    pub fn accuse(&self, what: String) {
        self.history.borrow_mut().accuse(what);
    }

    /// The first finding.
    pub fn fault(&self) -> Option<String> {
        self.history.borrow().fault.clone()
    }
}

impl History {
    fn take_place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What this member has shown; without one, what anybody has.
    fn shown_by(&self, place: Option<usize>) -> Shown {
        match place {
            Some(place) => self.members.get(&place).copied().unwrap_or_default(),
            None => Shown {
                revision: self.floor,
                compacted: self.compacted,
            },
        }
    }

    fn show_by(&mut self, place: Option<usize>, revision: i64, compacted: i64) {
        if let Some(place) = place {
            let shown = self.members.entry(place).or_default();
            shown.revision = shown.revision.max(revision);
            shown.compacted = shown.compacted.max(compacted);
        }
    }

    fn show(&mut self, revision: i64, place: u64, nanos: u64) {
        if revision > self.floor {
            self.floor = revision;
            self.seen.push((revision, place, nanos));
        }
    }

    fn accuse(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    /// The last revision that the watcher of everything knows, with all before it.
    pub fn known(&self) -> i64 {
        self.events.keys().next_back().copied().unwrap_or(1)
    }

    /// When anybody was first shown that a revision is there: place and nanoseconds.
    pub fn first_seen(&self, revision: i64) -> Option<(u64, u64)> {
        let at = self.seen.partition_point(|(seen, _, _)| *seen < revision);
        self.seen.get(at).map(|(_, place, nanos)| (*place, *nanos))
    }
}

/// The revision that an event belongs to.
pub fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Whether a member answers from what it has itself: such an answer may be behind others' answers, not behind its own.
pub fn is_local(request: &Request) -> bool {
    match request {
        Request::Range(request) => request.serializable,
        Request::Txn(request) => is_txn_serializable(request),
        Request::HashKv(_) | Request::Snapshot => true,
        _ => false,
    }
}

/// An answer's header, if it has one.
pub fn header_of(answer: &Answer) -> Option<&ResponseHeader> {
    match answer {
        Answer::Range(answer) => answer.header.as_ref(),
        Answer::Put(answer) => answer.header.as_ref(),
        Answer::Delete(answer) => answer.header.as_ref(),
        Answer::Txn(answer) => answer.header.as_ref(),
        Answer::Compact(answer) => answer.header.as_ref(),
        Answer::Grant(answer) => answer.header.as_ref(),
        Answer::Revoke(answer) => answer.header.as_ref(),
        Answer::KeepAlive(answer) => answer.header.as_ref(),
        Answer::TimeToLive(answer) => answer.header.as_ref(),
        Answer::Leases(answer) => answer.header.as_ref(),
        Answer::HashKv(answer) => answer.header.as_ref(),
        Answer::Defragment | Answer::Snapshot(_) => None,
    }
}

/// Whether an answer says that the store has changed, with a revision of its own.
pub fn is_change(answer: &Answer) -> bool {
    match answer {
        Answer::Put(_) => true,
        Answer::Delete(answer) => answer.deleted > 0,
        Answer::Txn(answer) => answer.responses.iter().any(|op| match &op.response {
            Some(Response::ResponsePut(_)) => true,
            Some(Response::ResponseDeleteRange(delete)) => delete.deleted > 0,
            _ => false,
        }),
        _ => false,
    }
}
