//! A front's side: takes what its desk has gathered home, and what comes from there to its connections.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{Arrival, Inward, Outward, Word};
use crate::{
    host::{Host, Receiver, Sender},
    propose::{Read, Request},
    rpc::desk::Desk,
};

/// How often a front looks at its connections' timers.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two tellings of what the front has counted, and between two windows of its distributions.
const TICKS_PER_COUNTS: u32 = 10;
const TICKS_PER_WINDOW: u32 = 600;

/// A front's way home.
pub struct Link<C> {
    desk: Rc<Desk>,
    to_home: Sender<Inward>,
    from_home: Receiver<Outward<C>>,
    inward: Option<Inward>,
}

impl<C> Link<C> {
    /// The way home of a front that has this desk.
    pub fn new(desk: Rc<Desk>, to_home: Sender<Inward>, from_home: Receiver<Outward<C>>) -> Link<C> {
        Link {
            desk,
            to_home,
            from_home,
            inward: None,
        }
    }

    /// Carries both ways until home is gone. `begin` is given each connection that comes.
    pub async fn run(mut self, mut begin: impl FnMut(Arrival<C>)) {
        poll_fn(|context| self.poll(context, &mut begin)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>, begin: &mut impl FnMut(Arrival<C>)) -> Poll<()> {
        loop {
            while let Poll::Ready(outward) = self.from_home.poll_receive(context) {
                let Some(outward) = outward else {
                    return Poll::Ready(());
                };
                self.take(outward, begin);
            }
            if self.inward.is_none() {
                self.inward = self.gather();
            }
            if self.inward.is_some() {
                if ready!(self.to_home.poll_send(&mut self.inward, context)).is_err() {
                    return Poll::Ready(());
                }
                continue;
            }
            ready!(self.desk.replica_notify().poll_notified(context));
        }
    }

    fn take(&mut self, outward: Outward<C>, begin: &mut impl FnMut(Arrival<C>)) {
        if let Some(view) = outward.view {
            self.desk.set_view(view);
        }
        if let Some(scrape) = outward.scrape {
            let (gauges, counts) = *scrape;
            self.desk.set_gauges(gauges);
            self.desk.set_counts_of(0, Box::new(counts));
        }
        for arrival in outward.connections {
            begin(arrival);
        }
        for (ticket, reply) in outward.replies {
            self.desk.reply(ticket, reply);
        }
    }

    fn gather(&mut self) -> Option<Inward> {
        let mut inward = Inward::default();
        self.desk.take_calls(&mut inward.calls);
        inward.words = self.desk.take_words();
        let is_scrape = |request: &Request| matches!(request, Request::Read(Read::Gauges));
        if inward.calls.iter().any(|call| is_scrape(&call.request)) {
            inward.words.push(counted(&self.desk));
        }
        let is_empty = inward.calls.is_empty() && inward.words.is_empty();
        (!is_empty).then_some(inward)
    }
}

fn counted(desk: &Desk) -> Word {
    Word::Counts(Box::new(desk.counters().counts()))
}

/// Wakes connections whose timers are due, and tells home now and then what was counted. For as long as the core lives.
pub async fn tick<H: Host>(host: H, desk: Rc<Desk>) {
    let counters = desk.counters().clone();
    let traffic = || (counters.grpc_received_bytes.value(), counters.grpc_sent_bytes.value());
    let mut told = traffic();
    for ticks in 1u32.. {
        host.sleep_until(host.now() + TICK).await;
        desk.wake_due(host.now());
        if ticks.is_multiple_of(TICKS_PER_WINDOW) {
            counters.roll();
        }
        if ticks.is_multiple_of(TICKS_PER_COUNTS) && told != traffic() {
            told = traffic();
            desk.tell_word(counted(&desk));
        }
    }
}
