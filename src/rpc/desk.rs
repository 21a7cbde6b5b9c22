//! Where the connections of one core and the replica meet: calls gather here until the replica's next turn, answers
//! until their connection's next. Nothing here crosses cores.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use slab::Slab;

use crate::{
    base::Monotonic,
    host::Notify,
    limits::Limits,
    ops::{Counters, Gauges, health::Answer},
    propose::{Call, Method, Reply, Request, Ticket},
    rpc::http::MemberView,
};

/// The calls and answers of one core.
pub struct Desk {
    calls: RefCell<Vec<Call>>,
    replica: Rc<Notify>,
    outboxes: RefCell<Slab<Rc<Outbox>>>,
    incarnation: Cell<u32>,
    view: RefCell<MemberView>,
    counters: Rc<Counters>,
    gauges: RefCell<Gauges>,
    /// Kind, name, and whether it passed, of each health check's last run.
    health_checks: RefCell<Vec<(&'static str, &'static str, bool)>>,
    /// Whether a connection has room again that a long answer waits for.
    room_made: Cell<bool>,
    limits: Limits,
}

/// What waits for one connection.
pub struct Outbox {
    place: Cell<u32>,
    incarnation: u32,
    replies: RefCell<Vec<Reply>>,
    /// Calls that wait until the connection has got rid of answers that it has.
    deferred: RefCell<Vec<Call>>,
    notify: Notify,
    /// When the connection wants to be woken for its own timers.
    deadline: Cell<Option<Monotonic>>,
    /// Bytes of answers that the connection has not got rid of yet.
    unsent_bytes: Cell<usize>,
    /// Bytes of answers that are made and will be handed over at the end of the replica's turn.
    coming_bytes: Cell<usize>,
    /// A long answer waits until less is unsent.
    awaits_room: Cell<bool>,
    closing: Cell<bool>,
}

impl Desk {
    /// A desk without connections.
    pub fn new() -> Desk {
        Desk::with_limits(Limits::DEFAULT)
    }

    /// As [`Desk::new`], with other bounds of what waits for a connection.
    pub fn with_limits(limits: Limits) -> Desk {
        Desk {
            calls: RefCell::default(),
            replica: Rc::default(),
            outboxes: RefCell::default(),
            incarnation: Cell::new(0),
            view: RefCell::default(),
            counters: Rc::default(),
            gauges: RefCell::default(),
            health_checks: RefCell::default(),
            room_made: Cell::new(false),
            limits,
        }
    }

    /// The bounds of what waits for a connection.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is known of the member as a whole.
    pub fn view(&self) -> std::cell::Ref<'_, MemberView> {
        self.view.borrow()
    }

    /// The replica tells what is known of the member as a whole.
    pub fn set_view(&self, view: MemberView) {
        *self.view.borrow_mut() = view;
    }

    /// What this core counts.
    pub fn counters(&self) -> &Rc<Counters> {
        &self.counters
    }

    /// What the replica last told of itself for a scrape.
    pub fn gauges(&self) -> std::cell::Ref<'_, Gauges> {
        self.gauges.borrow()
    }

    /// The replica tells of itself, for the scrape that asked.
    pub fn set_gauges(&self, gauges: Gauges) {
        *self.gauges.borrow_mut() = gauges;
    }

    /// A health endpoint has answered.
    pub fn count_health(&self, answer: &Answer) {
        match answer.health {
            Some(true) => self.counters.health_successes.increment(),
            Some(false) => self.counters.health_failures.increment(),
            None => {}
        }
        let mut last = self.health_checks.borrow_mut();
        for check in &answer.checks {
            let is_ok = check.result.is_ok();
            let status = if is_ok { "success" } else { "error" };
            self.counters.health_checks.increment([check.name, status, check.kind]);
            match last
                .iter_mut()
                .find(|(kind, name, _)| (*kind, *name) == (check.kind, check.name))
            {
                Some((_, _, was_ok)) => *was_ok = is_ok,
                None => last.push((check.kind, check.name, is_ok)),
            }
        }
    }

    /// The last outcome of each health check: kind, name, whether it passed.
    pub fn health_checks(&self) -> Vec<(&'static str, &'static str, bool)> {
        self.health_checks.borrow().clone()
    }

    /// A connection comes.
    pub fn open(&self) -> Rc<Outbox> {
        let incarnation = self.incarnation.get().wrapping_add(1);
        self.incarnation.set(incarnation);
        let outbox = Rc::new(Outbox {
            place: Cell::new(0),
            incarnation,
            replies: RefCell::default(),
            deferred: RefCell::default(),
            notify: Notify::new(),
            deadline: Cell::new(None),
            unsent_bytes: Cell::new(0),
            coming_bytes: Cell::new(0),
            awaits_room: Cell::new(false),
            closing: Cell::new(false),
        });
        let place = self.outboxes.borrow_mut().insert(outbox.clone());
        outbox
            .place
            .set(u32::try_from(place).expect("fewer connections than 2^32"));
        outbox
    }

    /// A connection goes. Answers that are still to come for it are dropped.
    pub fn close(&self, outbox: &Outbox) {
        self.outboxes.borrow_mut().remove(outbox.place.get() as usize);
        outbox.unsent_bytes.set(0);
        self.make_room(outbox);
    }

    /// Hands a call to the replica.
    pub fn submit(&self, call: Call) {
        self.calls.borrow_mut().push(call);
        self.replica.notify();
    }

    /// What has been handed in since the last time, in that order. `calls` comes back empty but with its memory.
    pub fn take_calls(&self, calls: &mut Vec<Call>) {
        debug_assert!(calls.is_empty());
        std::mem::swap(&mut *self.calls.borrow_mut(), calls);
    }

    /// Whether calls wait for the replica.
    pub fn has_calls(&self) -> bool {
        !self.calls.borrow().is_empty()
    }

    /// What wakes the replica.
    pub fn replica_notify(&self) -> &Rc<Notify> {
        &self.replica
    }

    /// Hands an answer to the connection that waits for it, if it is still there.
    pub fn reply(&self, ticket: Ticket, reply: Reply) {
        let outboxes = self.outboxes.borrow();
        let Some(outbox) = outboxes.get(ticket.connection as usize) else {
            return;
        };
        if outbox.incarnation == ticket.incarnation {
            if let Ok(message) = &reply.outcome {
                outbox.unsent_bytes.set(outbox.unsent_bytes.get() + message.len());
            }
            outbox.coming_bytes.set(0);
            outbox.replies.borrow_mut().push(reply);
            outbox.notify.notify();
        }
    }

    /// An answer is made that [`Desk::reply`] will hand over before the turn ends. Calls that came in the same read as its
    /// own are still to be answered, and must find it counted.
    pub fn expect(&self, ticket: Ticket, bytes: usize) {
        let outboxes = self.outboxes.borrow();
        if let Some(outbox) = outboxes.get(ticket.connection as usize)
            && outbox.incarnation == ticket.incarnation
        {
            outbox.coming_bytes.set(outbox.coming_bytes.get() + bytes);
        }
    }

    /// Puts a call whose answer may be large aside if its connection has more than `bytes_max` unsent, `under_way_bytes`
    /// included: it is submitted again when those are gone, so that a client that asks faster than it reads does not fill
    /// the memory. Gives the call back if it may go on.
    pub fn defer_if_choked(&self, call: Call, under_way_bytes: usize, bytes_max: usize) -> Option<Call> {
        let outboxes = self.outboxes.borrow();
        let outbox = outboxes.get(call.ticket.connection as usize);
        let Some(outbox) = outbox.filter(|outbox| outbox.incarnation == call.ticket.incarnation) else {
            return Some(call);
        };
        if outbox.unsent_bytes.get() + outbox.coming_bytes.get() + under_way_bytes > bytes_max {
            outbox.deferred.borrow_mut().push(call);
            return None;
        }
        Some(call)
    }

    /// Bytes of answers that the connection of a call has not got rid of; `None` if it is gone.
    pub fn unsent_bytes(&self, ticket: &Ticket) -> Option<usize> {
        let outboxes = self.outboxes.borrow();
        let outbox = outboxes.get(ticket.connection as usize)?;
        (outbox.incarnation == ticket.incarnation).then(|| outbox.unsent_bytes.get() + outbox.coming_bytes.get())
    }

    /// A long answer rests: the replica wants to know when its connection has room ([`Desk::take_room_made`]).
    pub fn await_room(&self, ticket: &Ticket) {
        if let Some(outbox) = self.outboxes.borrow().get(ticket.connection as usize) {
            outbox.awaits_room.set(true);
        }
    }

    /// A connection has sent what it could, or is gone: wakes the replica if that is what a long answer waits for.
    pub fn make_room(&self, outbox: &Outbox) {
        if outbox.awaits_room.get() && outbox.unsent_bytes.get() <= self.limits.list_unsent_bytes_max {
            outbox.awaits_room.set(false);
            self.room_made.set(true);
            self.replica.notify();
        }
    }

    /// Whether a connection has made room since the last time.
    pub fn take_room_made(&self) -> bool {
        self.room_made.take()
    }

    /// Wakes the connections whose own timers are due.
    pub fn wake_due(&self, now: Monotonic) {
        for (_, outbox) in self.outboxes.borrow().iter() {
            if outbox.deadline.get().is_some_and(|deadline| deadline <= now) {
                outbox.notify.notify();
            }
        }
    }

    /// Asks every connection to end gracefully.
    pub fn close_all(&self) {
        for (_, outbox) in self.outboxes.borrow().iter() {
            outbox.closing.set(true);
            outbox.notify.notify();
        }
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.outboxes.borrow().len()
    }
}

impl Default for Desk {
    fn default() -> Self {
        Desk::new()
    }
}

impl Outbox {
    /// A ticket for a call of this connection.
    pub fn ticket(&self, stream: u32, method: Method) -> Ticket {
        Ticket {
            connection: self.place.get(),
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

    /// What wakes the connection.
    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// The connection says when it wants to be woken, and how much it still has to send.
    pub fn report(&self, deadline: Option<Monotonic>, unsent_bytes: usize) {
        self.deadline.set(deadline);
        self.unsent_bytes.set(unsent_bytes);
    }

    /// Calls that were put aside and may go on now that `unsent_bytes_max` is kept.
    pub fn take_deferred(&self, unsent_bytes_max: usize) -> Vec<Call> {
        if self.unsent_bytes.get() > unsent_bytes_max {
            return Vec::new();
        }
        std::mem::take(&mut *self.deferred.borrow_mut())
    }

    /// Whether the connection shall end gracefully.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{propose::Read, wire::status::Status};

    fn reply() -> Reply {
        Reply {
            stream: 1,
            method: Method::Status,
            outcome: Ok("answer".into()),
            part: crate::propose::Part::Whole,
        }
    }

    #[test]
    fn an_answer_for_an_earlier_connection_in_the_same_place_is_dropped() {
        let desk = Desk::new();
        let first = desk.open();
        let ticket = first.ticket(1, Method::Status);
        desk.close(&first);
        let second = desk.open();
        assert_eq!(second.ticket(1, Method::Status).connection, ticket.connection);
        desk.reply(ticket, reply());
        let mut replies = Vec::new();
        second.take_replies(&mut replies);
        assert!(replies.is_empty());
        desk.reply(second.ticket(1, Method::Status), reply());
        second.take_replies(&mut replies);
        assert_eq!(replies.len(), 1);
    }

    #[test]
    fn calls_keep_their_order_and_unsent_answers_choke_a_connection() {
        let desk = Desk::new();
        let outbox = desk.open();
        for stream in [1, 3, 5] {
            desk.submit(outbox.call(stream, Method::Status, Request::Read(Read::Status)));
        }
        let mut calls = Vec::new();
        desk.take_calls(&mut calls);
        assert_eq!(
            calls.iter().map(|call| call.ticket.stream).collect::<Vec<_>>(),
            [1, 3, 5]
        );
        assert!(!desk.has_calls());

        let call = || outbox.call(1, Method::Range, Request::Read(Read::Status));
        assert!(desk.defer_if_choked(call(), 0, 5).is_some());
        // Answers on their way count, too: those that are made, and what is being gathered.
        desk.expect(call().ticket, 6);
        assert!(desk.defer_if_choked(call(), 0, 5).is_none());
        assert!(desk.defer_if_choked(call(), 6, 100).is_some());
        assert!(desk.defer_if_choked(call(), 95, 100).is_none());
        assert_eq!(outbox.take_deferred(5).len(), 2);
        desk.reply(call().ticket, reply());
        desk.reply(
            call().ticket,
            Reply {
                outcome: Err(Status::OK),
                ..reply()
            },
        );
        assert!(desk.defer_if_choked(call(), 0, 5).is_none());
        assert!(outbox.take_deferred(5).is_empty());
        outbox.report(None, 0);
        assert_eq!(outbox.take_deferred(5).len(), 1);
        assert!(desk.defer_if_choked(call(), 0, 5).is_some());
    }
}
