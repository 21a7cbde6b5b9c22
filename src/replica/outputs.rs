//! What a turn of the replica comes to: plain data that the driver carries out, in the order of the fields.

use raft::eraftpb::Message;

use crate::{
    apply::Effect,
    mvcc::Commit,
    propose::{Call, Reply, Ticket},
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
    /// Reads that may be answered now from the store as it is.
    pub reads: Vec<Call>,
    /// What entries ask for besides.
    pub effects: Vec<Requested>,
    /// Whether the leader, or this member's role, changed.
    pub role_changed: bool,
}

/// An effect, with the entry that asks for it.
pub struct Requested {
    /// What is to be done.
    pub effect: Effect,
    /// The answer to hold back until it is done, and for whom.
    pub held: Option<(Ticket, Reply)>,
}

impl Outputs {
    /// Whether there is nothing to carry out.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.commits.is_empty()
            && self.replies.is_empty()
            && self.reads.is_empty()
            && self.effects.is_empty()
            && !self.role_changed
    }
}
