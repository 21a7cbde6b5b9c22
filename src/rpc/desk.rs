//! Where the connections of one core and the replica meet: calls gather here until the replica's next turn, answers
//! until their connection's next. Nothing here crosses cores: a front has a desk of its own, whose calls are carried to
//! home's, where each of its connections has an outbox, too, under the same ticket ([`super::front`]).

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    base::Monotonic,
    host::Notify,
    limits::Limits,
    ops::{Counters, Counts, Gauges, health::Answer},
    propose::{Call, Method, Reply, Request, Ticket},
    rpc::{front::Word, http::MemberView},
};

/// The calls and answers of one core.
pub struct Desk {
    calls: RefCell<Vec<Call>>,
    replica: Rc<Notify>,
    outboxes: RefCell<Outboxes>,
    incarnation: Cell<u32>,
    view: RefCell<MemberView>,
    /// Grows with each change of the view.
    view_version: Cell<u64>,
    counters: Rc<Counters>,
    gauges: RefCell<Gauges>,
    /// What other cores have counted, as each has told last.
    counts_of_others: RefCell<Vec<Option<Box<Counts>>>>,
    fronts: RefCell<Vec<Rc<Woken>>>,
    /// On a front: what home is to be told besides calls.
    words: Option<RefCell<Vec<Word>>>,
    /// Kind, name, and whether it passed, of each health check's last run.
    health_checks: RefCell<Vec<(&'static str, &'static str, bool)>>,
    /// Whether a connection has room again that a long answer waits for.
    room_made: Cell<bool>,
    limits: Limits,
}

/// The open connections by their places.
#[derive(Default)]
struct Outboxes {
    places: Vec<Option<Rc<Outbox>>>,
    /// Places that are free, below the highest in use.
    free: Vec<u32>,
    open: usize,
}

/// Connections of a front that have something for it, and what wakes who carries it there.
#[derive(Default)]
pub struct Woken {
    outboxes: RefCell<Vec<Rc<Outbox>>>,
    /// Raised when there is one, and whenever else the front is to be told something.
    pub notify: Notify,
}

/// What waits for one connection.
pub struct Outbox {
    place: u32,
    incarnation: u32,
    /// Of a front's connection, at home: who carries its answers.
    carrier: Option<Rc<Woken>>,
    is_woken: Cell<bool>,
    is_closed: Cell<bool>,
    replies: RefCell<Vec<Reply>>,
    /// Calls that wait until the connection has got rid of answers that it has.
    deferred: RefCell<Vec<Call>>,
    notify: Notify,
    /// When the connection wants to be woken for its own timers.
    deadline: Cell<Option<Monotonic>>,
    /// Bytes of answers that the connection has not got rid of yet.
    unsent_bytes: Cell<usize>,
    /// Bytes of answers that it was handed in all, and that a front has told home to be sent.
    handed_bytes: Cell<u64>,
    told_bytes: Cell<u64>,
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
        Desk::with_words(limits, None)
    }

    /// The desk of a front.
    pub fn of_front(limits: Limits) -> Desk {
        Desk::with_words(limits, Some(RefCell::default()))
    }

    fn with_words(limits: Limits, words: Option<RefCell<Vec<Word>>>) -> Desk {
        Desk {
            calls: RefCell::default(),
            replica: Rc::default(),
            outboxes: RefCell::default(),
            incarnation: Cell::new(0),
            view: RefCell::default(),
            view_version: Cell::new(0),
            counters: Rc::default(),
            gauges: RefCell::default(),
            counts_of_others: RefCell::default(),
            fronts: RefCell::default(),
            words,
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
        let mut known = self.view.borrow_mut();
        if *known != view {
            *known = view;
            self.view_version.set(self.view_version.get() + 1);
            for front in self.fronts.borrow().iter() {
                front.notify.notify();
            }
        }
    }

    /// A front is to be woken when the view changes.
    pub fn tell_views_to(&self, front: Rc<Woken>) {
        self.fronts.borrow_mut().push(front);
    }

    /// Which view it is: a later one has a greater number.
    pub fn view_version(&self) -> u64 {
        self.view_version.get()
    }

    /// What this core counts.
    pub fn counters(&self) -> &Rc<Counters> {
        &self.counters
    }

    /// What the replica last told of itself for a scrape.
    pub fn gauges(&self) -> std::cell::Ref<'_, Gauges> {
        self.gauges.borrow()
    }

    /// What all cores have counted, as far as this one knows.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counters.counts();
        for other in self.counts_of_others.borrow().iter().flatten() {
            counts.merge(other);
        }
        counts
    }

    /// What all cores but this other one have counted.
    pub fn counts_without(&self, core: usize) -> Counts {
        let mut counts = self.counters.counts();
        for (other, told) in self.counts_of_others.borrow().iter().enumerate() {
            if let Some(told) = told.as_ref().filter(|_| other != core) {
                counts.merge(told);
            }
        }
        counts
    }

    /// Another core has told what it has counted.
    pub fn set_counts_of(&self, core: usize, counts: Box<Counts>) {
        let mut others = self.counts_of_others.borrow_mut();
        if others.len() <= core {
            others.resize_with(core + 1, || None);
        }
        others[core] = Some(counts);
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
        for check in &answer.checks {
            let is_ok = check.result.is_ok();
            let status = if is_ok { "success" } else { "error" };
            self.counters.health_checks.increment([check.name, status, check.kind]);
            self.note_health_check(check.kind, check.name, is_ok);
        }
    }

    /// A health check has ended so, on this core or on a front.
    pub fn note_health_check(&self, kind: &'static str, name: &'static str, is_ok: bool) {
        self.tell(|| Word::HealthCheck(kind, name, is_ok));
        let mut last = self.health_checks.borrow_mut();
        match last.iter_mut().find(|known| (known.0, known.1) == (kind, name)) {
            Some((_, _, was_ok)) => *was_ok = is_ok,
            None => last.push((kind, name, is_ok)),
        }
    }

    /// The last outcome of each health check: kind, name, whether it passed.
    pub fn health_checks(&self) -> Vec<(&'static str, &'static str, bool)> {
        self.health_checks.borrow().clone()
    }

    /// A connection comes.
    pub fn open(&self) -> Rc<Outbox> {
        self.open_for(None)
    }

    /// A connection comes and is given to a front, of which `carrier` takes what is for it.
    pub fn open_for_front(&self, carrier: Rc<Woken>) -> Rc<Outbox> {
        self.open_for(Some(carrier))
    }

    fn open_for(&self, carrier: Option<Rc<Woken>>) -> Rc<Outbox> {
        let incarnation = self.incarnation.get().wrapping_add(1);
        self.incarnation.set(incarnation);
        let mut outboxes = self.outboxes.borrow_mut();
        let place = outboxes.free.pop().unwrap_or(outboxes.places.len() as u32);
        outboxes.put(Outbox::new(place, incarnation, carrier))
    }

    /// A connection comes from home, which knows it by this ticket.
    pub fn adopt(&self, place: u32, incarnation: u32) -> Rc<Outbox> {
        self.outboxes.borrow_mut().put(Outbox::new(place, incarnation, None))
    }

    /// A connection goes. Answers that are still to come for it are dropped.
    pub fn close(&self, outbox: &Outbox) {
        let mut outboxes = self.outboxes.borrow_mut();
        let is_front = self.words.is_some();
        let place = &mut outboxes.places[outbox.place as usize];
        if place.take_if(|open| open.incarnation == outbox.incarnation).is_some() {
            outboxes.open -= 1;
            // Of a front's places home disposes.
            if !is_front {
                outboxes.free.push(outbox.place);
            }
        }
        drop(outboxes);
        outbox.is_closed.set(true);
        outbox.notify.notify();
        outbox.unsent_bytes.set(0);
        self.make_room(outbox);
        self.tell(|| Word::Closed(outbox.place, outbox.incarnation));
    }

    /// On a front: home is to be told.
    fn tell(&self, word: impl FnOnce() -> Word) {
        if let Some(words) = &self.words {
            words.borrow_mut().push(word());
            self.replica.notify();
        }
    }

    /// On a front: home is to be told this. At home it is nobody's.
    pub fn tell_word(&self, word: Word) {
        self.tell(|| word);
    }

    /// On a front: what home is to be told since the last time.
    pub fn take_words(&self) -> Vec<Word> {
        self.words.as_ref().map(RefCell::take).unwrap_or_default()
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

    /// The connection that a ticket is of, if it is still there.
    pub fn outbox_of(&self, ticket: &Ticket) -> Option<Rc<Outbox>> {
        self.outboxes
            .borrow()
            .get(ticket.connection, ticket.incarnation)
            .cloned()
    }

    /// Hands an answer to the connection that waits for it, if it is still there.
    pub fn reply(&self, ticket: Ticket, reply: Reply) {
        let outboxes = self.outboxes.borrow();
        let Some(outbox) = outboxes.get(ticket.connection, ticket.incarnation) else {
            return;
        };
        // Of a far watch stream what is on its way is bounded by itself.
        if let Ok(message) = &reply.outcome
            && reply.method != Method::Watch
        {
            let bytes = message.len();
            outbox.unsent_bytes.set(outbox.unsent_bytes.get() + bytes);
            outbox.handed_bytes.set(outbox.handed_bytes.get() + bytes as u64);
        }
        outbox.coming_bytes.set(0);
        outbox.replies.borrow_mut().push(reply);
        outbox.wake();
    }

    /// An answer is made that [`Desk::reply`] will hand over before the turn ends. Calls that came in the same read as its
    /// own are still to be answered, and must find it counted.
    pub fn expect(&self, ticket: Ticket, bytes: usize) {
        let outboxes = self.outboxes.borrow();
        if let Some(outbox) = outboxes.get(ticket.connection, ticket.incarnation) {
            outbox.coming_bytes.set(outbox.coming_bytes.get() + bytes);
        }
    }

    /// Puts a call whose answer may be large aside if its connection has more than `bytes_max` unsent, `under_way_bytes`
    /// included: it is submitted again when those are gone, so that a client that asks faster than it reads does not fill
    /// the memory. Gives the call back if it may go on.
    pub fn defer_if_choked(&self, call: Call, under_way_bytes: usize, bytes_max: usize) -> Option<Call> {
        let outboxes = self.outboxes.borrow();
        let Some(outbox) = outboxes.get(call.ticket.connection, call.ticket.incarnation) else {
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
        let outbox = outboxes.get(ticket.connection, ticket.incarnation)?;
        Some(outbox.unsent_bytes.get() + outbox.coming_bytes.get())
    }

    /// A long answer rests: the replica wants to know when its connection has room ([`Desk::take_room_made`]).
    pub fn await_room(&self, ticket: &Ticket) {
        if let Some(outbox) = self.outboxes.borrow().get(ticket.connection, ticket.incarnation) {
            outbox.awaits_room.set(true);
        }
    }

    /// The connection says when it wants to be woken, and how much it still has to send. What was put aside until less
    /// is unsent is submitted again.
    pub fn report(&self, outbox: &Outbox, deadline: Option<Monotonic>, unsent_bytes: usize) {
        outbox.deadline.set(deadline);
        outbox.unsent_bytes.set(unsent_bytes);
        if self.words.is_none() {
            return self.resume(outbox);
        }
        let sent = outbox.handed_bytes.get().saturating_sub(unsent_bytes as u64);
        let untold = sent.saturating_sub(outbox.told_bytes.get());
        // Not for each: what home waits for is a good deal more.
        if untold > self.limits.list_unsent_bytes_max as u64 / 4 {
            outbox.told_bytes.set(sent);
            self.tell(|| Word::Sent(outbox.place, outbox.incarnation, untold as usize));
        }
    }

    /// A front's connection has got rid of so much.
    pub fn sent(&self, place: u32, incarnation: u32, bytes: usize) {
        let outbox = self.outboxes.borrow().get(place, incarnation).cloned();
        if let Some(outbox) = outbox {
            outbox.unsent_bytes.set(outbox.unsent_bytes.get().saturating_sub(bytes));
            self.resume(&outbox);
        }
    }

    fn resume(&self, outbox: &Outbox) {
        for call in outbox.take_deferred(self.limits.connection_unsent_bytes_max / 2) {
            self.submit(call);
        }
        self.make_room(outbox);
    }

    /// A connection has sent what it could, or is gone: wakes the replica if that is what a long answer waits for.
    fn make_room(&self, outbox: &Outbox) {
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
        for outbox in self.outboxes.borrow().places.iter().flatten() {
            if outbox.deadline.get().is_some_and(|deadline| deadline <= now) {
                outbox.wake();
            }
        }
    }

    /// Asks every connection to end gracefully.
    pub fn close_all(&self) {
        for outbox in self.outboxes.borrow().places.iter().flatten() {
            outbox.closing.set(true);
            outbox.wake();
        }
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.outboxes.borrow().open
    }
}

impl Outboxes {
    fn put(&mut self, outbox: Outbox) -> Rc<Outbox> {
        let (place, outbox) = (outbox.place as usize, Rc::new(outbox));
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        if self.places[place].replace(outbox.clone()).is_none() {
            self.open += 1;
        }
        outbox
    }

    fn get(&self, place: u32, incarnation: u32) -> Option<&Rc<Outbox>> {
        let outbox = self.places.get(place as usize)?.as_ref()?;
        (outbox.incarnation == incarnation).then_some(outbox)
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

impl Default for Desk {
    fn default() -> Self {
        Desk::new()
    }
}

impl Outbox {
    fn new(place: u32, incarnation: u32, carrier: Option<Rc<Woken>>) -> Outbox {
        Outbox {
            place,
            incarnation,
            carrier,
            is_woken: Cell::new(false),
            is_closed: Cell::new(false),
            replies: RefCell::default(),
            deferred: RefCell::default(),
            notify: Notify::new(),
            deadline: Cell::new(None),
            unsent_bytes: Cell::new(0),
            handed_bytes: Cell::new(0),
            told_bytes: Cell::new(0),
            coming_bytes: Cell::new(0),
            awaits_room: Cell::new(false),
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
    fn take_deferred(&self, unsent_bytes_max: usize) -> Vec<Call> {
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
        outbox.unsent_bytes.set(0);
        assert_eq!(outbox.take_deferred(5).len(), 1);
        assert!(desk.defer_if_choked(call(), 0, 5).is_some());
    }
}
