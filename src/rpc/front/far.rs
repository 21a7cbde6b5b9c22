//! A watch stream whose watchers are at home and whose client is on this core.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use bytes::Bytes;

use super::{WatchWord, Word};
use crate::{propose::Ticket, rpc::desk::Desk, wire::proto::etcdserverpb::WatchRequest};

/// One client's watch stream. Dropping it makes home forget its watchers.
pub struct FarStream {
    desk: Rc<Desk>,
    ticket: Ticket,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    responses: VecDeque<Bytes>,
    /// Bytes that left and home has not been told of.
    taken_bytes: usize,
}

impl FarStream {
    /// Opens a stream for the call of that ticket.
    pub fn open(desk: Rc<Desk>, ticket: Ticket) -> FarStream {
        desk.tell_word(Word::Watch(ticket, WatchWord::Open));
        FarStream {
            desk,
            ticket,
            waiting: RefCell::default(),
        }
    }

    /// Takes a message of the client.
    pub fn take(&self, request: WatchRequest) {
        self.tell(WatchWord::Message(request));
    }

    /// A response has come from home.
    pub fn arrive(&self, response: Bytes) {
        self.waiting.borrow_mut().responses.push_back(response);
    }

    /// The next response, encoded.
    pub fn pop(&self) -> Option<Bytes> {
        let mut waiting = self.waiting.borrow_mut();
        let response = waiting.responses.pop_front()?;
        waiting.taken_bytes += response.len();
        // Home is told before it would have to wait, and not for each.
        if waiting.taken_bytes >= self.desk.limits().watch_credit_bytes / 4 {
            self.tell(WatchWord::Taken(std::mem::take(&mut waiting.taken_bytes)));
        }
        Some(response)
    }

    fn tell(&self, word: WatchWord) {
        self.desk.tell_word(Word::Watch(self.ticket, word));
    }
}

impl Drop for FarStream {
    fn drop(&mut self) {
        self.tell(WatchWord::Close);
    }
}
