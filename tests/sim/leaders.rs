//! Who leads, as the members' own messages tell: a term has one leader at most.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use raft::eraftpb::{Message, MessageType};
use ringd::base::MemberId;

use crate::history::Recorder;

/// What has been heard on the links.
pub struct Leaders {
    recorder: Recorder,
    /// By member, its place.
    places: RefCell<BTreeMap<u64, usize>>,
    /// By term, who has spoken as its leader.
    by_term: RefCell<BTreeMap<u64, u64>>,
    changes: Cell<u64>,
}

impl Leaders {
    /// Nothing has been heard.
    pub fn new(recorder: &Recorder) -> Leaders {
        Leaders {
            recorder: recorder.clone(),
            places: RefCell::default(),
            by_term: RefCell::default(),
            changes: Cell::new(0),
        }
    }

    /// A member begins a life.
    pub fn begins(&self, member: MemberId, place: usize) {
        self.places.borrow_mut().insert(member.0, place);
    }

    /// A message is about to leave its sender, whatever becomes of it.
    pub fn hear(&self, message: &Message) {
        let is_leaders = matches!(
            message.msg_type,
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot | MessageType::MsgTimeoutNow
        );
        if !is_leaders {
            return;
        }
        let mut by_term = self.by_term.borrow_mut();
        let leader = *by_term.entry(message.term).or_insert_with(|| {
            self.changes.set(self.changes.get() + 1);
            message.from
        });
        if leader != message.from {
            self.recorder.accuse(format!(
                "term {} is led by {leader:x} and by {:x}: {:?}",
                message.term, message.from, message.msg_type
            ));
        }
    }

    /// The leader of the newest term in which anybody has led: its id and place.
    pub fn newest(&self) -> Option<(MemberId, usize)> {
        let by_term = self.by_term.borrow();
        let (_, leader) = by_term.last_key_value()?;
        let place = *self.places.borrow().get(leader)?;
        Some((MemberId(*leader), place))
    }

    /// The member of a place, if it has begun.
    pub fn member(&self, place: usize) -> Option<MemberId> {
        let places = self.places.borrow();
        let found = places.iter().find(|(_, of)| **of == place);
        found.map(|(member, _)| MemberId(*member))
    }
}
