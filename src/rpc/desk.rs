//! Where the connections of one core and the replica meet: calls gather here until the replica's next turn, answers
//! until their connection's next. Nothing here crosses cores: a front has a desk of its own, whose calls are carried to
//! home's, where each of its connections has an outbox, too, under the same ticket ([`super::front`]).

mod outbox;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use outbox::Outboxes;
pub use outbox::{Outbox, Woken};

use crate::{
    base::Monotonic,
    host::Notify,
    limits::Limits,
    ops::{Counters, Counts, Gauges, health::Answer},
    propose::{Admission, Call, Method, Part, Reply, Ticket},
    rpc::{front::Word, http::MemberView, status},
};

/// How long a connection may take nothing of its answers when the memory for them is needed.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Bytes of answers that all connections have not got rid of, and of those on their way to them.
    unsent_bytes: Cell<usize>,
    limits: Limits,
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
            unsent_bytes: Cell::new(0),
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
        self.set_unsent(outbox, 0);
        self.forget_coming(outbox);
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

    /// Hands an answer to the connection that waits for it, if it is still there. A large one is dropped where far too many
    /// bytes wait already, and its call fails.
    pub fn reply(&self, ticket: Ticket, mut reply: Reply) {
        let outboxes = self.outboxes.borrow();
        let Some(outbox) = outboxes.get(ticket.connection, ticket.incarnation) else {
            return;
        };
        if let Ok(message) = &reply.outcome
            && reply.part == Part::Whole
            && !reply.method.is_streaming()
            && message.len() > self.limits.unsent_bytes_free
            && outbox.unsent_bytes.get() > self.answers_bytes_max()
        {
            reply.outcome = Err(status::unread());
        }
        // Of a far watch stream what is on its way is bounded by itself.
        if let Ok(message) = &reply.outcome
            && reply.method != Method::Watch
        {
            let bytes = message.len();
            self.set_unsent(outbox, outbox.unsent_bytes.get() + bytes);
            outbox.handed_bytes.set(outbox.handed_bytes.get() + bytes as u64);
        }
        self.forget_coming(outbox);
        outbox.replies.borrow_mut().push(reply);
        outbox.wake();
    }

    /// An answer is made that [`Desk::reply`] will hand over before the turn ends. Calls that came in the same read as its
    /// own are still to be answered, and must find it counted.
    pub fn expect(&self, ticket: Ticket, bytes: usize) {
        let outboxes = self.outboxes.borrow();
        if let Some(outbox) = outboxes.get(ticket.connection, ticket.incarnation) {
            outbox.coming_bytes.set(outbox.coming_bytes.get() + bytes);
            self.unsent_bytes.set(self.unsent_bytes.get() + bytes);
        }
    }

    /// Puts a call aside whose connection has too many bytes of answers unsent, `under_way_bytes` included: it is submitted
    /// again when those are gone, so that a client that asks faster than it reads does not fill the memory. What is put aside
    /// is bounded, too.
    pub fn admit(&self, call: Call, under_way_bytes: usize) -> Admission {
        let outboxes = self.outboxes.borrow();
        let Some(outbox) = outboxes.get(call.ticket.connection, call.ticket.incarnation) else {
            return Admission::Now(call);
        };
        let unsent = outbox.unsent_bytes.get() + outbox.coming_bytes.get() + under_way_bytes;
        // With twice the bytes that all may have, not even one large answer for each goes.
        let has_room = self.unsent_bytes.get() <= 2 * self.limits.all_unsent_bytes_max;
        if unsent <= self.unsent_bytes_max() && (has_room || !call.request.may_answer_much()) {
            return Admission::Now(call);
        }
        let deferred_bytes = outbox.deferred_bytes.get() + call.request.message_bytes();
        if deferred_bytes > self.limits.connection_unsent_bytes_max {
            return Admission::Refused(call);
        }
        outbox.deferred_bytes.set(deferred_bytes);
        outbox.deferred.borrow_mut().push(call);
        Admission::Held
    }

    /// Bytes of answers that a connection may have unsent before its next call waits.
    fn unsent_bytes_max(&self) -> usize {
        match self.is_full() {
            true => self.limits.unsent_bytes_free,
            false => self.limits.connection_unsent_bytes_max,
        }
    }

    /// Bytes of answers that a connection may have unsent before further ones are dropped.
    fn answers_bytes_max(&self) -> usize {
        match self.is_full() {
            true => self.limits.connection_unsent_bytes_max,
            false => self.limits.connection_answers_bytes_max,
        }
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
        self.set_unsent(outbox, unsent_bytes);
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
            self.set_unsent(&outbox, outbox.unsent_bytes.get().saturating_sub(bytes));
            self.resume(&outbox);
        }
    }

    fn set_unsent(&self, outbox: &Outbox, bytes: usize) {
        let bytes = if outbox.is_closed() { 0 } else { bytes };
        let before = outbox.unsent_bytes.replace(bytes);
        if bytes < before {
            outbox.stuck_since.set(None);
        }
        self.unsent_bytes.set(self.unsent_bytes.get() - before + bytes);
    }

    fn forget_coming(&self, outbox: &Outbox) {
        let coming = outbox.coming_bytes.take();
        self.unsent_bytes.set(self.unsent_bytes.get() - coming);
    }

    /// Whether all connections together have more unsent than they may.
    pub fn is_full(&self) -> bool {
        self.unsent_bytes.get() > self.limits.all_unsent_bytes_max
    }

    fn resume(&self, outbox: &Outbox) {
        for call in outbox.take_deferred(self.unsent_bytes_max() / 2) {
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

    /// Wakes the connections whose own timers are due, and lets calls go on that waited for others to take answers. While all
    /// together have too much unsent, those are given up that have answers and have taken nothing of them for a while.
    pub fn wake_due(&self, now: Monotonic) {
        let is_full = self.is_full();
        debug_assert_eq!(self.unsent_bytes.get(), self.outboxes.borrow().unsent_bytes());
        for outbox in self.outboxes.borrow().places.iter().flatten() {
            if !is_full && !outbox.deferred.borrow().is_empty() {
                self.resume(outbox);
            }
            if is_full && outbox.unsent_bytes.get() > self.limits.unsent_bytes_free {
                let since = outbox.stuck_since.get().unwrap_or(now);
                outbox.stuck_since.set(Some(since));
                if now.since(since) >= PATIENCE {
                    outbox.is_given_up.set(true);
                    outbox.wake();
                }
            }
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

impl Default for Desk {
    fn default() -> Self {
        Desk::new()
    }
}

#[cfg(test)]
mod tests;
