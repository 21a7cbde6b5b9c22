//! Home's side of a front: takes its calls to the desk, and what the desk and the watch hub have for its connections to it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{Arrival, Inward, Outward, WatchWord, Word};
use crate::{
    host::{Host, Receiver, Sender},
    propose::{Method, Reply, Ticket},
    rpc::{
        desk::{Desk, Outbox, Woken},
        http::Port,
        watch::{WatchStream, Watches},
    },
    wire::status::Status,
};

/// Time that fronts have to take what home tells them last.
const FAREWELL: Duration = Duration::from_secs(1);

/// The fronts of a member.
pub struct Fronts<C> {
    desk: Rc<Desk>,
    bridges: Vec<Rc<Bridge<C>>>,
    home_connections: usize,
}

impl<C> Fronts<C> {
    /// Fronts behind these bridges; none is fine. So many connections stay at home.
    pub fn new(desk: Rc<Desk>, bridges: Vec<Rc<Bridge<C>>>, home_connections: usize) -> Fronts<C> {
        Fronts {
            desk,
            bridges,
            home_connections,
        }
    }

    /// Whose connection a new one shall be: home's while those are few (`None`), else of the front that has fewest.
    pub fn choose(&self) -> Option<&Rc<Bridge<C>>> {
        let elsewhere: usize = self.bridges.iter().map(|bridge| bridge.connections()).sum();
        if self.desk.connections() - elsewhere < self.home_connections {
            return None;
        }
        self.bridges.iter().min_by_key(|bridge| bridge.connections())
    }

    /// Home ends: what there is for the fronts still goes to them, and then they learn that nothing more comes.
    pub async fn end<H: Host>(&self, host: &H) {
        for bridge in &self.bridges {
            bridge.is_ending.set(true);
            bridge.woken.notify.notify();
        }
        let until = host.now() + FAREWELL;
        while self.bridges.iter().any(|bridge| !bridge.is_over.get()) && host.now() < until {
            host.yield_now().await;
        }
    }
}

/// The way to one front.
pub struct Bridge<C> {
    /// Its number among the cores; home is 0.
    core: usize,
    desk: Rc<Desk>,
    watches: Rc<Watches>,
    woken: Rc<Woken>,
    arrivals: RefCell<Vec<Arrival<C>>>,
    connections: Cell<usize>,
    is_ending: Cell<bool>,
    is_over: Cell<bool>,
}

/// A watch stream of a front's client.
struct FarWatch {
    ticket: Ticket,
    stream: WatchStream,
    /// Bytes of responses that may be sent to the front before it has said that earlier ones have left. One response may
    /// be more than is left.
    credit_bytes: i64,
}

/// A front's watch streams by connection and stream.
type FarWatches = BTreeMap<(u32, u32), FarWatch>;

impl<C> Bridge<C> {
    /// The way to the front of that number, from 1.
    pub fn new(core: usize, desk: Rc<Desk>, watches: Rc<Watches>) -> Rc<Bridge<C>> {
        assert!(core > 0);
        let woken = Rc::new(Woken::default());
        desk.tell_views_to(woken.clone());
        Rc::new(Bridge {
            core,
            desk,
            watches,
            woken,
            arrivals: RefCell::default(),
            connections: Cell::new(0),
            is_ending: Cell::new(false),
            is_over: Cell::new(false),
        })
    }

    /// Connections of the front.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Gives it a connection, which counts from now on; the future waits until that is gone.
    pub fn give(&self, connection: C, port: Port) -> impl Future<Output = ()> + use<C> {
        let outbox = self.desk.open_for_front(self.woken.clone());
        let ticket = outbox.ticket(0, Method::Status);
        self.arrivals.borrow_mut().push(Arrival {
            connection,
            port,
            place: ticket.connection,
            incarnation: ticket.incarnation,
        });
        self.connections.set(self.connections.get() + 1);
        self.woken.notify.notify();
        async move {
            while !outbox.is_closed() {
                outbox.notify().notified().await;
            }
        }
    }

    /// Carries both ways until the front is gone.
    pub async fn run<H: Host>(self: Rc<Self>, host: H, to_front: Sender<Outward<C>>, from_front: Receiver<Inward>) {
        let mut carrier = Carrier {
            host,
            bridge: self.clone(),
            to_front,
            from_front,
            outward: None,
            watches: FarWatches::new(),
            view_version: 0,
        };
        poll_fn(|context| carrier.poll(context)).await;
        drop(carrier);
        self.is_over.set(true);
    }
}

struct Carrier<H, C> {
    host: H,
    bridge: Rc<Bridge<C>>,
    to_front: Sender<Outward<C>>,
    from_front: Receiver<Inward>,
    /// What waits for room in the mailbox. Nothing more is gathered meanwhile.
    outward: Option<Outward<C>>,
    watches: FarWatches,
    view_version: u64,
}

impl<H: Host, C> Carrier<H, C> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(inward) = self.from_front.poll_receive(context) {
                let Some(inward) = inward else {
                    return Poll::Ready(());
                };
                self.take(inward);
            }
            if self.outward.is_none() {
                self.outward = self.gather();
            }
            if self.outward.is_some() {
                if ready!(self.to_front.poll_send(&mut self.outward, context)).is_err() {
                    return Poll::Ready(());
                }
                continue;
            }
            if self.bridge.is_ending.get() {
                return Poll::Ready(());
            }
            ready!(self.bridge.woken.notify.poll_notified(context));
        }
    }

    fn take(&mut self, inward: Inward) {
        let desk = self.bridge.desk.clone();
        for word in inward.words {
            match word {
                Word::Closed(place, incarnation) => self.close(place, incarnation),
                Word::Sent(place, incarnation, bytes) => desk.sent(place, incarnation, bytes),
                Word::HealthCheck(kind, name, is_ok) => desk.note_health_check(kind, name, is_ok),
                Word::Counts(counts) => desk.set_counts_of(self.bridge.core, counts),
                Word::Watch(ticket, word) => self.take_watch(ticket, word),
            }
        }
        for call in inward.calls {
            desk.submit(call);
        }
    }

    fn close(&mut self, place: u32, incarnation: u32) {
        let ticket = Ticket {
            connection: place,
            incarnation,
            stream: 0,
            method: Method::Status,
        };
        self.watches
            .retain(|(of, _), watch| *of != place || watch.ticket.incarnation != incarnation);
        if let Some(outbox) = self.bridge.desk.outbox_of(&ticket) {
            self.bridge.desk.close(&outbox);
            self.bridge.connections.set(self.bridge.connections.get() - 1);
        }
    }

    fn take_watch(&mut self, ticket: Ticket, word: WatchWord) {
        let Some(outbox) = self.bridge.desk.outbox_of(&ticket) else {
            return;
        };
        let place = (ticket.connection, ticket.stream);
        match word {
            WatchWord::Open => {
                let stream = self.bridge.watches.open(outbox, self.host.now());
                let watch = FarWatch {
                    ticket,
                    stream,
                    credit_bytes: self.bridge.desk.limits().watch_credit_bytes as i64,
                };
                self.watches.insert(place, watch);
            }
            WatchWord::Close => drop(self.watches.remove(&place)),
            WatchWord::Message(request) => {
                let taken = self.watches.get(&place).map(|watch| watch.stream.take(request));
                if let Some(Err(status)) = taken {
                    self.watches.remove(&place);
                    let reply = Reply::refusal(ticket, status);
                    self.bridge.desk.reply(ticket, reply);
                } else {
                    // What is refused at once is told at once.
                    outbox.wake();
                }
            }
            WatchWord::Taken(bytes) => {
                if let Some(watch) = self.watches.get_mut(&place) {
                    watch.credit_bytes += bytes as i64;
                    outbox.wake();
                }
            }
        }
    }

    /// What there is for the front.
    fn gather(&mut self) -> Option<Outward<C>> {
        let desk = &self.bridge.desk;
        let mut outward = Outward {
            connections: self.bridge.arrivals.take(),
            ..Outward::default()
        };
        if desk.view_version() != self.view_version {
            self.view_version = desk.view_version();
            outward.view = Some(desk.view().clone());
        }
        let woken = self.bridge.woken.take();
        // Who has an answer finds that watchers were told.
        for outbox in &woken {
            pop_responses(&mut self.watches, outbox, &mut outward.replies);
        }
        let mut replies = Vec::new();
        for outbox in &woken {
            outbox.take_replies(&mut replies);
            for reply in replies.drain(..) {
                if reply.method == Method::HealthCheck && outward.scrape.is_none() {
                    let counts = desk.counts_without(self.bridge.core);
                    outward.scrape = Some(Box::new((desk.gauges().clone(), counts)));
                }
                let ticket = outbox.ticket(reply.stream, reply.method);
                outward.replies.push((ticket, reply));
            }
        }
        (!outward.is_empty()).then_some(outward)
    }
}

/// What the hub has for the watch streams of a connection, as far as their credit goes.
fn pop_responses(watches: &mut FarWatches, outbox: &Outbox, replies: &mut Vec<(Ticket, Reply)>) {
    let place = outbox.ticket(0, Method::Watch).connection;
    for (_, watch) in watches.range_mut((place, 0)..=(place, u32::MAX)) {
        while watch.credit_bytes > 0
            && let Some(response) = watch.stream.pop()
        {
            watch.credit_bytes -= response.len() as i64;
            replies.push((watch.ticket, Reply::whole(watch.ticket, Ok::<_, Status>(response))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::Limits,
        watch::{ResponseIdentity, WatchHub, WatchLimits},
    };

    #[test]
    fn connections_that_come_at_once_are_spread() {
        let desk = Rc::new(Desk::new());
        let limits = WatchLimits::new(1000, &Limits::DEFAULT);
        let hub = WatchHub::new(ResponseIdentity::default(), limits, 10, 3, 1);
        let watches = Watches::new(hub, Duration::from_secs(600), desk.replica_notify().clone());
        let watches = Rc::new(watches);
        let bridges = [1, 2].map(|core| Bridge::new(core, desk.clone(), watches.clone()));
        let fronts = Fronts::new(desk.clone(), bridges.to_vec(), 2);
        let mut at_home = Vec::new();
        let mut elsewhere = Vec::new();
        for number in 0..6 {
            match fronts.choose() {
                None => at_home.push(desk.open()),
                Some(bridge) => elsewhere.push(bridge.give(number, Port::Clients)),
            }
        }
        assert_eq!((at_home.len(), elsewhere.len()), (2, 4));
        assert_eq!(bridges.each_ref().map(|bridge| bridge.connections()), [2, 2]);
        // One that goes makes room at home.
        desk.close(&at_home[0]);
        assert!(fronts.choose().is_none());
    }
}
