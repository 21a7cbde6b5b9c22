//! What waits for each connection of a core.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    base::Monotonic,
    host::Notify,
    propose::{Call, Method, Reply, Request, Ticket},
};

/// The open connections by their places.
#[derive(Default)]
pub(super) struct Outboxes {
    pub(super) places: Vec<Option<Rc<Outbox>>>,
    /// Places that are free, below the highest in use.
    pub(super) free: Vec<u32>,
    pub(super) open: usize,
}

/// Connections of a front that have something for it, and what wakes who carries it there.
#[derive(Default)]
pub struct Woken {
    pub(super) outboxes: RefCell<Vec<Rc<Outbox>>>,
    /// Raised when there is one, and whenever else the front is to be told something.
    pub notify: Notify,
}

/// What waits for one connection.
pub struct Outbox {
    pub(super) place: u32,
    pub(super) incarnation: u32,
    /// Of a front's connection, at home: who carries its answers.
    pub(super) carrier: Option<Rc<Woken>>,
    pub(super) is_woken: Cell<bool>,
    pub(super) is_closed: Cell<bool>,
    pub(super) replies: RefCell<Vec<Reply>>,
    /// Calls that wait until the connection has got rid of answers that it has.
    pub(super) deferred: RefCell<Vec<Call>>,
    /// Bytes of what these ask.
    pub(super) deferred_bytes: Cell<usize>,
    pub(super) notify: Notify,
    /// When the connection wants to be woken for its own timers.
    pub(super) deadline: Cell<Option<Monotonic>>,
    /// Bytes of answers that the connection has not got rid of yet.
    pub(super) unsent_bytes: Cell<usize>,
    /// Bytes of answers that it was handed in all, and that a front has told home to be sent.
    pub(super) handed_bytes: Cell<u64>,
    pub(super) told_bytes: Cell<u64>,
    /// Bytes of answers that are made and will be handed over at the end of the replica's turn.
    pub(super) coming_bytes: Cell<usize>,
    /// A long answer waits until less is unsent.
    pub(super) awaits_room: Cell<bool>,
    /// When it was first seen that nothing of these bytes leaves.
    pub(super) stuck_since: Cell<Option<Monotonic>>,
    pub(super) is_given_up: Cell<bool>,
    pub(super) closing: Cell<bool>,
}

impl Outboxes {
    pub(super) fn put(&mut self, outbox: Outbox) -> Rc<Outbox> {
        let (place, outbox) = (outbox.place as usize, Rc::new(outbox));
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        if self.places[place].replace(outbox.clone()).is_none() {
            self.open += 1;
        }
        outbox
    }

    pub(super) fn get(&self, place: u32, incarnation: u32) -> Option<&Rc<Outbox>> {
        let outbox = self.places.get(place as usize)?.as_ref()?;
        (outbox.incarnation == incarnation).then_some(outbox)
    }

    /// Bytes of answers that none of them has got rid of, and that are on their way to them.
    pub(super) fn unsent_bytes(&self) -> usize {
        let bytes = |outbox: &Rc<Outbox>| outbox.unsent_bytes.get() + outbox.coming_bytes.get();
        self.places.iter().flatten().map(bytes).sum()
    }
}

impl Woken {
    /// The connections that were woken since the last time, each once.
    pub fn take(&self) -> Vec<Rc<Outbox>> {
        let woken = self.outboxes.take();
        for outbox in &woken {
            outbox.is_woken.set(false);
        }
        woken
    }
}

impl Outbox {
    pub(super) fn new(place: u32, incarnation: u32, carrier: Option<Rc<Woken>>) -> Outbox {
        Outbox {
            place,
            incarnation,
            carrier,
            is_woken: Cell::new(false),
            is_closed: Cell::new(false),
            replies: RefCell::default(),
            deferred: RefCell::default(),
            deferred_bytes: Cell::new(0),
            notify: Notify::new(),
            deadline: Cell::new(None),
            unsent_bytes: Cell::new(0),
            handed_bytes: Cell::new(0),
            told_bytes: Cell::new(0),
            coming_bytes: Cell::new(0),
            awaits_room: Cell::new(false),
            stuck_since: Cell::new(None),
            is_given_up: Cell::new(false),
            closing: Cell::new(false),
        }
    }

    /// The connection is to look at what it has: its own task, or who carries it to the connection's core.
    pub fn wake(self: &Rc<Self>) {
        let Some(carrier) = &self.carrier else {
            return self.notify.notify();
        };
        if !self.is_woken.replace(true) {
            carrier.outboxes.borrow_mut().push(self.clone());
            carrier.notify.notify();
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// A ticket for a call of this connection.
    pub fn ticket(&self, stream: u32, method: Method) -> Ticket {
        Ticket {
            connection: self.place,
            incarnation: self.incarnation,
            stream,
            method,
        }
    }

    /// A call of this connection.
    pub fn call(&self, stream: u32, method: Method, request: Request) -> Call {
        Call {
            ticket: self.ticket(stream, method),
            request,
        }
    }

    /// What has been answered since the last time. `replies` comes back empty but with its memory.
    pub fn take_replies(&self, replies: &mut Vec<Reply>) {
        debug_assert!(replies.is_empty());
        std::mem::swap(&mut *self.replies.borrow_mut(), replies);
    }

    /// What wakes the connection's task.
    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// Calls that were put aside and may go on now that `unsent_bytes_max` is kept.
    pub(super) fn take_deferred(&self, unsent_bytes_max: usize) -> Vec<Call> {
        if self.unsent_bytes.get() > unsent_bytes_max {
            return Vec::new();
        }
        self.deferred_bytes.set(0);
        std::mem::take(&mut *self.deferred.borrow_mut())
    }

    /// Whether the connection shall end at once: it does not take its answers.
    pub fn is_given_up(&self) -> bool {
        self.is_given_up.get()
    }

    /// Whether the connection shall end gracefully.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }
}
