//! What waits for one member: in order, within bounds of number and bytes. A member that does not take what is meant
//! for it loses what comes when the bounds are reached; what is older goes first.
//!
//! Of a follower's answers that say how much of the log it has, the newest says all: it takes the place of one before
//! it that nobody has taken yet.

use std::collections::VecDeque;

use raft::eraftpb::{Message, MessageType};

use super::{Parcel, Question};
use crate::limits::Limits;

/// What is sent to a member.
pub enum Letter {
    /// A message of raft's.
    Message(Message),
    /// A snapshot.
    Snapshot(Parcel),
    /// A question, with the number that its answer comes with.
    Question(u64, Question),
}

/// What waits for one member.
pub struct Outbox {
    limits: Limits,
    messages: VecDeque<Message>,
    bytes: usize,
    questions: VecDeque<(u64, Question)>,
    /// Raft sends a follower one snapshot at a time. It goes past the messages: it takes long, and they are worth
    /// nothing to a member that needs it.
    snapshot: Option<Parcel>,
}

/// Bytes that a message is counted with: its entries', and something for the rest.
pub(super) fn weight(message: &Message) -> usize {
    let entries: usize = message.entries.iter().map(|entry| entry.data.len() + ENTRY_BYTES).sum();
    MESSAGE_BYTES + entries + message.context.len() + message.get_snapshot().data.len()
}

impl Outbox {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Outbox {
        Outbox {
            limits,
            messages: VecDeque::new(),
            bytes: 0,
            questions: VecDeque::new(),
            snapshot: None,
        }
    }

    /// Takes a message in; `false` if there is no room, and it is dropped.
    pub fn push(&mut self, message: Message) -> bool {
        if let Some(last) = self.messages.back_mut()
            && supersedes(&message, last)
        {
            *last = message;
            return true;
        }
        let weight = weight(&message);
        let has_room = self.messages.len() < self.limits.peer_queue_messages_max
            && (self.messages.is_empty() || self.bytes + weight <= self.limits.peer_queue_bytes_max);
        if has_room {
            self.bytes += weight;
            self.messages.push_back(message);
        }
        has_room
    }

    /// Takes a snapshot in; one that waits already comes back, and is not sent.
    pub fn push_snapshot(&mut self, parcel: Parcel) -> Option<Parcel> {
        self.snapshot.replace(parcel)
    }

    /// Takes a question in; `false` if there is no room, and it is dropped.
    pub fn push_question(&mut self, number: u64, question: Question) -> bool {
        let has_room = self.questions.len() < self.limits.questions_pending_max;
        if has_room {
            self.questions.push_back((number, question));
        }
        has_room
    }

    /// The next to be sent.
    pub fn pop(&mut self) -> Option<Letter> {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= weight(&message);
            return Some(Letter::Message(message));
        }
        if let Some((number, question)) = self.questions.pop_front() {
            return Some(Letter::Question(number, question));
        }
        self.snapshot.take().map(Letter::Snapshot)
    }

    /// How many messages wait, how many bytes they count, and how many questions.
    pub fn waiting(&self) -> (usize, usize, usize) {
        (self.messages.len(), self.bytes, self.questions.len())
    }

    /// Whether a snapshot waits.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.questions.is_empty() && self.snapshot.is_none()
    }
}

/// Whether `newer` says all that `older` says: both tell how much of the log a follower has, in one term.
fn supersedes(newer: &Message, older: &Message) -> bool {
    let is_progress = |message: &Message| message.msg_type == MessageType::MsgAppendResponse && !message.reject;
    is_progress(newer) && is_progress(older) && newer.term == older.term && newer.index >= older.index
}

/// What a message and an entry count with beside their data.
const MESSAGE_BYTES: usize = 64;
const ENTRY_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;
    use crate::host::mailbox;

    fn append(data_bytes: usize) -> Message {
        let entry = Entry {
            data: vec![0; data_bytes].into(),
            ..Entry::default()
        };
        Message {
            msg_type: MessageType::MsgAppend,
            entries: vec![entry].into(),
            ..Message::default()
        }
    }

    fn progress(term: u64, index: u64, reject: bool) -> Message {
        Message {
            msg_type: MessageType::MsgAppendResponse,
            term,
            index,
            reject,
            ..Message::default()
        }
    }

    fn popped(outbox: &mut Outbox) -> Vec<Message> {
        std::iter::from_fn(|| outbox.pop())
            .map(|letter| match letter {
                Letter::Message(message) => message,
                Letter::Snapshot(parcel) => parcel.message,
                Letter::Question(..) => unreachable!("none was asked"),
            })
            .collect()
    }

    #[test]
    fn what_a_slow_member_does_not_take_is_dropped_at_the_bounds() {
        let mut outbox = Outbox::new(Limits::DEFAULT);
        for _ in 0..Limits::DEFAULT.peer_queue_messages_max {
            assert!(outbox.push(append(1)));
        }
        assert!(!outbox.push(append(1)));
        assert_eq!(popped(&mut outbox).len(), Limits::DEFAULT.peer_queue_messages_max);
        assert!(outbox.is_empty() && outbox.bytes == 0);

        assert!(
            outbox.push(append(2 * Limits::DEFAULT.peer_queue_bytes_max)),
            "one is always taken"
        );
        assert!(!outbox.push(append(1)));
    }

    #[test]
    fn the_newest_progress_takes_the_place_of_the_one_before() {
        let mut outbox = Outbox::new(Limits::DEFAULT);
        for message in [
            progress(1, 5, false),
            progress(1, 6, false),
            progress(1, 4, true),
            progress(1, 7, false),
            progress(2, 8, false),
        ] {
            assert!(outbox.push(message));
        }
        let indexes: Vec<_> = popped(&mut outbox).iter().map(|message| message.index).collect();
        assert_eq!(indexes, [6, 4, 7, 8]);
    }

    #[test]
    fn a_snapshot_waits_behind_the_messages_and_alone() {
        let mut outbox = Outbox::new(Limits::DEFAULT);
        let parcel = |index| Parcel {
            message: progress(1, index, false),
            database: mailbox(1).1,
        };
        assert!(outbox.push_snapshot(parcel(1)).is_none());
        assert!(
            outbox
                .push_snapshot(parcel(2))
                .is_some_and(|parcel| parcel.message.index == 1)
        );
        outbox.push(append(1));
        let indexes: Vec<_> = popped(&mut outbox).iter().map(|message| message.index).collect();
        assert_eq!(indexes, [0, 2]);
    }
}
