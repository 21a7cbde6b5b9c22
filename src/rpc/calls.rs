//! The calls of one connection that are under way: since when, until when, and what is expected of them; and their
//! counting, so that what is begun is always counted as ended.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{snapshot::SnapshotSender, watch::Watching};
use crate::{
    base::Monotonic,
    ops::Counters,
    propose::Method,
    wire::{server::StreamId, status::Code},
};

/// No deadline.
const NEVER: Monotonic = Monotonic(u64::MAX);

/// What is expected of a call.
pub enum CallState {
    /// Its message.
    Expecting,
    /// The replica's answer.
    Waiting,
    /// What follows of an answer of so many bytes.
    Answering(usize),
    /// Lease keepalives: answers owed, and whether the client has said all.
    #[allow(missing_docs)]
    KeepAlive { owed: usize, is_half_closed: bool },
    /// Watchers.
    Watch(Watching),
    /// A snapshot under way.
    Snapshot(Box<SnapshotSender>),
    /// Nothing: what was to be said has been, and the stream stays open.
    Open,
}

/// A call under way.
pub struct Ongoing {
    /// What was called.
    pub method: Method,
    /// What is expected of it.
    pub state: CallState,
    began: Monotonic,
    deadline: Monotonic,
    /// What was asked, for a line of the log should it take long.
    message: Bytes,
}

/// A unary call that has ended.
pub struct Ended {
    /// What was called.
    pub method: Method,
    /// Whether its deadline had passed.
    pub is_late: bool,
    /// Time since it began.
    pub elapsed: Duration,
    /// What was asked.
    pub message: Bytes,
}

/// The calls under way.
pub struct Calls {
    ongoing: HashMap<StreamId, Ongoing, FixedState>,
    /// No deadline is earlier than this.
    earliest_deadline: Monotonic,
    counters: Rc<Counters>,
}

impl Calls {
    /// None yet.
    pub fn new(counters: Rc<Counters>) -> Calls {
        Calls {
            ongoing: HashMap::with_hasher(FixedState::default()),
            earliest_deadline: NEVER,
            counters,
        }
    }

    /// A call begins; `timeout` is what its client will wait.
    pub fn begin(
        &mut self,
        stream: StreamId,
        method: Method,
        state: CallState,
        timeout: Option<Duration>,
        now: Monotonic,
    ) {
        let deadline = timeout.map_or(NEVER, |timeout| now + timeout);
        self.earliest_deadline = self.earliest_deadline.min(deadline);
        self.counters.grpc.started(method);
        let call = Ongoing {
            method,
            state,
            began: now,
            deadline,
            message: Bytes::new(),
        };
        self.ongoing.insert(stream, call);
    }

    /// A call under way.
    pub fn call(&mut self, stream: StreamId) -> Option<&mut Ongoing> {
        self.ongoing.get_mut(&stream)
    }

    /// A client's message came for a call, which is given.
    pub fn received(&mut self, stream: StreamId, message: &Bytes) -> Option<&mut Ongoing> {
        let call = self.ongoing.get_mut(&stream)?;
        if matches!(call.state, CallState::Expecting) {
            call.message = message.clone();
        }
        self.counters.grpc.received(call.method, 1);
        self.counters.grpc_received_bytes.add(message.len() as u64);
        Some(call)
    }

    /// A message leaves for a call's client.
    pub fn sent(&self, method: Method, bytes: usize) {
        self.counters.grpc.sent(method, 1);
        self.counters.grpc_sent_bytes.add(bytes as u64);
    }

    /// A call ends. Gives what it was, if it was under way.
    pub fn end(&mut self, stream: StreamId, code: Code, now: Monotonic) -> Option<Ended> {
        let call = self.ongoing.remove(&stream)?;
        let is_late = call.deadline <= now;
        let code = if is_late && code == Code::Ok {
            Code::DeadlineExceeded
        } else {
            code
        };
        self.count_end(&call, code, now);
        Some(Ended {
            method: call.method,
            is_late,
            elapsed: now.since(call.began),
            message: call.message,
        })
    }

    fn count_end(&self, call: &Ongoing, code: Code, now: Monotonic) {
        let elapsed = now.since(call.began);
        self.counters.grpc.handled(call.method, code, elapsed);
        match call.method {
            Method::Put | Method::DeleteRange | Method::Txn => self.counters.put_fine.observe(elapsed),
            Method::Range => {
                self.counters.range_fine.observe(elapsed);
                let success = if code == Code::Ok { "true" } else { "false" };
                self.counters.range_durations.observe([success], elapsed);
            }
            Method::Snapshot if code == Code::Ok => self.counters.backend_snapshot.observe(elapsed),
            _ => {}
        }
    }

    /// When the first deadline passes, or somewhat before.
    pub fn earliest_deadline(&self) -> Option<Monotonic> {
        (self.earliest_deadline != NEVER).then_some(self.earliest_deadline)
    }

    /// The calls whose deadlines have passed. They are still to be ended.
    pub fn expired(&mut self, now: Monotonic) -> Vec<StreamId> {
        if now < self.earliest_deadline {
            return Vec::new();
        }
        let mut expired = Vec::new();
        self.earliest_deadline = NEVER;
        for (stream, call) in &self.ongoing {
            if call.deadline <= now {
                expired.push(*stream);
            } else {
                self.earliest_deadline = self.earliest_deadline.min(call.deadline);
            }
        }
        // Streams end in the order in which they began, whatever the table's order is.
        expired.sort_unstable();
        expired
    }

    /// The connection is gone, and with it what was under way.
    pub fn abandon(&mut self, now: Monotonic) {
        for (_, call) in std::mem::take(&mut self.ongoing) {
            self.count_end(&call, Code::Canceled, now);
        }
    }
}
