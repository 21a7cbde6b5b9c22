//! What a turn of the replica comes to: plain data that the driver carries out, in the order of the fields.

use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Message;

use crate::{
    apply::{Answer, Effect},
    base::{Monotonic, Reject},
    limits::Limits,
    mvcc::Commit,
    propose::{Call, Method, Reply, Ticket},
    rpc::status::{self, Status},
};

/// Effects of a turn. Reused from turn to turn, so that its vectors keep their memory.
#[derive(Default)]
pub struct Outputs {
    /// Messages that may leave before the log is durable.
    pub messages: Vec<Message>,
    /// Changes of the store, for the watchers; each entry is one revision.
    pub commits: Vec<Commit>,
    /// Answers. Events leave before them: who has an answer finds that watchers were told.
    pub replies: Vec<(Ticket, Reply)>,
    /// Bytes of those to writes.
    pub answer_bytes: usize,
    /// Reads that may be answered now from the store as it is.
    pub reads: Vec<Call>,
    /// Calls that only the leader can answer.
    pub for_leader: Vec<Call>,
    /// What entries ask for besides.
    pub effects: Vec<Requested>,
    /// How long entries took to be applied.
    pub stopwatch: Stopwatch,
    /// Whether the leader, or this member's role, changed.
    pub role_changed: bool,
}

/// Measures what is applied. Without a clock it measures nothing: who replays a turn wants no time in it.
#[derive(Default)]
pub struct Stopwatch {
    clock: Option<Box<dyn Fn() -> Monotonic>>,
    slow_after: Duration,
    last: Monotonic,
    operation: Option<(Method, bool)>,
    /// What clients asked for and was applied: what, whether it succeeded, how long it took.
    pub laps: Vec<(Method, bool, Duration)>,
    /// Entries that took longer than they should have.
    pub slow: Vec<SlowEntry>,
    /// Time that the entries of this turn took together; zero if there were none.
    pub total: Duration,
}

/// An entry that took long to apply.
pub struct SlowEntry {
    /// The entry.
    pub data: Bytes,
    /// How long it took.
    pub took: Duration,
}

impl Stopwatch {
    /// Measures with a clock; what takes longer than `slow_after` is kept in [`Stopwatch::slow`].
    pub fn new(clock: Box<dyn Fn() -> Monotonic>, slow_after: Duration) -> Stopwatch {
        Stopwatch {
            clock: Some(clock),
            slow_after,
            ..Stopwatch::default()
        }
    }

    /// Entries are about to be applied.
    #[inline]
    pub fn start(&mut self) {
        if let Some(clock) = &self.clock {
            self.last = clock();
        }
    }

    /// The entry that is being applied answers a client's call.
    #[inline]
    pub fn operation(&mut self, method: Method, is_ok: bool) {
        self.operation = Some((method, is_ok));
    }

    /// An entry is applied.
    #[inline]
    pub fn lap(&mut self, data: &Bytes) {
        let Some(clock) = &self.clock else {
            self.operation = None;
            return;
        };
        let now = clock();
        let took = now.since(self.last);
        self.last = now;
        self.total += took;
        if let Some((method, is_ok)) = self.operation.take() {
            self.laps.push((method, is_ok, took));
        }
        if took > self.slow_after {
            let data = data.clone();
            self.slow.push(SlowEntry { data, took });
        }
    }
}

/// An effect, with the entry that asks for it.
pub struct Requested {
    /// What is to be done.
    pub effect: Effect,
    /// The answer to hold back until it is done, and for whom.
    pub held: Option<(Ticket, Reply)>,
}

impl Outputs {
    /// A call has this answer.
    pub fn answer(&mut self, ticket: Ticket, outcome: Result<Bytes, impl Into<Status>>) {
        self.replies.push((ticket, Reply::whole(ticket, outcome)));
    }

    /// A call has no answer, for this reason.
    pub fn refuse(&mut self, ticket: Ticket, why: impl Into<Status>) {
        self.replies.push((ticket, Reply::refusal(ticket, why)));
    }

    /// Bytes of the answers that have come since there were so many.
    pub fn bytes_since(&self, answered: usize) -> usize {
        self.replies[answered..]
            .iter()
            .map(|(_, reply)| reply.message_bytes())
            .sum()
    }

    /// Bytes that the answer to one more write of this turn may have.
    pub fn answer_room(&self, limits: &Limits) -> usize {
        let left = limits.turn_answers_bytes_max.saturating_sub(self.answer_bytes);
        left.max(limits.unsent_bytes_free).min(limits.answer_bytes_max)
    }

    /// An answer to a write, or why there is none: a large one is dropped, or was not even made, where those of this turn are
    /// too many bytes already.
    pub fn take_answer(&mut self, outcome: Answer, limits: &Limits) -> Result<Bytes, Status> {
        let message = match outcome {
            Ok(message) => message,
            Err(Reject::AnswerTooLarge) if self.answer_room(limits) < limits.answer_bytes_max => {
                return Err(status::unread());
            }
            Err(reject) => return Err(reject.into()),
        };
        let answer_bytes = self.answer_bytes + message.len();
        if answer_bytes > limits.turn_answers_bytes_max && message.len() > limits.unsent_bytes_free {
            return Err(status::unread());
        }
        self.answer_bytes = answer_bytes;
        Ok(message)
    }

    /// Whether there is nothing to carry out.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.commits.is_empty()
            && self.replies.is_empty()
            && self.reads.is_empty()
            && self.for_leader.is_empty()
            && self.effects.is_empty()
            && !self.role_changed
    }
}
