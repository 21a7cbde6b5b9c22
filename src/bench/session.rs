//! One connection's part of the load: its clients, its streams, when the next request is due. Bytes in, bytes out; the
//! driver moves them and wakes it.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;

use super::{
    crew::{Crew, Flight, Follow, Method, PATHS, Phase, Purpose},
    keepalive::{self, KeepAlive},
    pace::Pace,
    plan::Workload,
    tally::Operation,
    watching::{self, Told},
};
use crate::{
    base::Monotonic,
    wire::{
        client::{ClientConnection, ClientEvent, ClientOptions, MethodId},
        server::StreamId,
        status::{Code, Status},
    },
};

/// How an overloaded server refuses, and how long a client then waits.
const REFUSAL: &str = "etcdserver: too many requests";
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);

const WATCH_PATH: &str = "/etcdserverpb.Watch/Watch";

/// What a stream is for.
enum Use {
    Unary(Flight),
    KeepAlive { client: u32 },
    Watch { at: usize },
}

/// A watch stream of this connection.
struct WatchStream {
    stream: StreamId,
    /// When watchers were asked for.
    created_at: Monotonic,
    /// When progress was asked for, and has not been answered.
    progress_asked: Option<Monotonic>,
    next_progress: Monotonic,
}

/// One connection's part.
pub(super) struct Session {
    connection: ClientConnection,
    crew: Rc<RefCell<Crew>>,
    /// Its number among all connections, and how many there are.
    number: u32,
    connections: u32,
    methods: [Option<MethodId>; PATHS.len()],
    uses: HashMap<u32, Use, foldhash::fast::FixedState>,
    /// Clients without a request, and since when; the longest first.
    free: VecDeque<(u32, Monotonic)>,
    /// Clients whose request was refused: when it is sent again, and when it was to start.
    refused: VecDeque<(Monotonic, u32, Monotonic)>,
    keepalives: HashMap<u32, KeepAlive, foldhash::fast::FixedState>,
    watches: Vec<WatchStream>,
    are_streams_open: bool,
    pace: Option<Pace>,
    message: BytesMut,
}

impl Session {
    /// A connection of `crew` for its clients `clients`.
    pub fn new(
        crew: Rc<RefCell<Crew>>,
        number: u32,
        clients: impl Iterator<Item = u32>,
        authority: &str,
        now: Monotonic,
    ) -> Session {
        let options = ClientOptions {
            authority: authority.to_owned(),
            ..ClientOptions::default()
        };
        let connections = crew.borrow().plan.connections;
        Session {
            connection: ClientConnection::new(options, now),
            crew,
            number,
            connections,
            methods: [None; PATHS.len()],
            uses: HashMap::default(),
            free: clients.map(|client| (client, now)).collect(),
            refused: VecDeque::new(),
            keepalives: HashMap::default(),
            watches: Vec::new(),
            are_streams_open: false,
            pace: None,
            message: BytesMut::new(),
        }
    }

    /// Takes bytes that the server sent.
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic) {
        self.connection.receive(input, now);
        self.turn(now);
    }

    /// The connection is lost.
    pub fn lost(&mut self, reason: &str) {
        self.connection.receive_end();
        let mut crew = self.crew.borrow_mut();
        if crew.phase != Phase::Over {
            crew.fail(format!("the server ended a connection: {reason}"));
        }
    }

    /// Takes what happened, and sends what is due.
    pub fn turn(&mut self, now: Monotonic) {
        let crew = self.crew.clone();
        let crew = &mut *crew.borrow_mut();
        while let Some(event) = self.connection.next_event() {
            if let Err(text) = self.take(event, crew, now) {
                crew.fail(text);
            }
        }
        if crew.failure.is_some() {
            return;
        }
        match crew.phase {
            Phase::Connect | Phase::Ready | Phase::Drain | Phase::Over => {}
            Phase::Load => self.send_jobs(crew, now),
            Phase::Watch => self.open_streams(crew, now),
            Phase::Run => self.send_load(crew, now),
        }
    }

    /// What is to be written now.
    pub fn output(&mut self) -> &mut BytesMut {
        self.connection.output()
    }

    /// Whether the connection is of no more use.
    pub fn is_finished(&self) -> bool {
        self.connection.is_finished()
    }

    /// When `turn` is to be called, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let crew = self.crew.borrow();
        if crew.phase != Phase::Run || crew.failure.is_some() {
            return None;
        }
        let due = self.pace.as_ref().map(Pace::next);
        let due = due.filter(|due| !self.free.is_empty() && *due < crew.end && crew.remaining != Some(0));
        let progress = self.watches.iter().map(|watch| watch.next_progress).min();
        let refused = self.refused.front().map(|(due, ..)| *due);
        due.into_iter().chain(progress).chain(refused).min()
    }

    fn take(&mut self, event: ClientEvent, crew: &mut Crew, now: Monotonic) -> Result<(), String> {
        match event {
            ClientEvent::Message { stream, message } => self.take_message(stream, message, crew, now),
            ClientEvent::Finished { stream, status, .. } => match self.uses.remove(&stream.0) {
                Some(Use::Unary(flight)) => self.take_end(flight, &status, crew, now),
                Some(_) if crew.phase != Phase::Over => Err(format!("a stream ended: {}", status_text(&status))),
                _ => Ok(()),
            },
            ClientEvent::GoAway { debug, .. } => {
                let debug = String::from_utf8_lossy(&debug);
                Err(format!("the server takes no more calls on a connection {debug:?}"))
            }
            ClientEvent::Writable { .. } => Ok(()),
        }
    }

    fn take_message(
        &mut self,
        stream: StreamId,
        message: Bytes,
        crew: &mut Crew,
        now: Monotonic,
    ) -> Result<(), String> {
        match self.uses.get_mut(&stream.0) {
            Some(Use::Unary(flight)) => match flight.answer.replace(message) {
                Some(_) => Err("the server sent two messages for one".to_owned()),
                None => Ok(()),
            },
            Some(&mut Use::KeepAlive { client }) => {
                keepalive::check(message, crew.clients[client as usize].lease)?;
                let keepalive = self.keepalives.get_mut(&client).expect("its stream is open");
                let intended = keepalive.intended.take().ok_or("an answer that was not asked for")?;
                crew.in_flight -= 1;
                crew.record(Operation::KeepAlive, intended, now);
                self.free.push_back((client, now));
                Ok(())
            }
            Some(&mut Use::Watch { at }) => take_told(&mut self.watches[at], &message, crew, now),
            None => Ok(()),
        }
    }

    fn take_end(&mut self, flight: Flight, status: &Status, crew: &mut Crew, now: Monotonic) -> Result<(), String> {
        crew.in_flight -= 1;
        if flight.method == Method::Status && status.code != Code::Ok {
            return Err(format!(
                "the server does not answer as an etcd: {}",
                status_text(status)
            ));
        }
        if status.message == REFUSAL && crew.plan.retries_refused && flight.purpose == Purpose::Load {
            crew.tally.refusals += 1;
            // It is still to be answered.
            crew.in_flight += 1;
            self.refused
                .push_back((now + REFUSAL_PAUSE, flight.client, flight.intended));
            return Ok(());
        }
        if status.code != Code::Ok {
            return Err(format!("{} failed: {}", flight.operation.name(), status_text(status)));
        }
        let client = flight.client;
        let follow = crew
            .answered(&flight, now)
            .map_err(|text| format!("{}: {text}", flight.operation.name()))?;
        match follow {
            Follow::Again => self.send_request(crew, client, now),
            Follow::Free => self.free.push_back((client, now)),
        }
        Ok(())
    }

    fn send_jobs(&mut self, crew: &mut Crew, now: Monotonic) {
        while let Some(&(client, _)) = self.free.front()
            && !crew.are_jobs_sent()
        {
            self.message.clear();
            let Some(flight) = crew.next_job(client, now, &mut self.message) else {
                return;
            };
            self.free.pop_front();
            self.send(crew, flight);
        }
    }

    /// Watch streams with their watchers, or the streams that keep leases alive.
    fn open_streams(&mut self, crew: &mut Crew, now: Monotonic) {
        if self.are_streams_open {
            return;
        }
        self.are_streams_open = true;
        let progress_interval = match &crew.plan.workload {
            Workload::Kubernetes(kubernetes) => Some(kubernetes.progress_interval),
            _ => None,
        };
        let mut method = None;
        for number in crew.watching.streams_of(self.number, self.connections) {
            let method = *method.get_or_insert_with(|| self.connection.method(WATCH_PATH, &[]));
            let Some(stream) = self.connection.open(method, None) else {
                return crew.fail("the server allows too few streams on a connection".to_owned());
            };
            let creations: Vec<BytesMut> = crew.watching.creations(number, &crew.keys).collect();
            crew.watching.unmade += creations.len() as u64;
            for creation in creations {
                self.connection.send_message(stream, creation.freeze());
            }
            let at = self.watches.len();
            self.uses.insert(stream.0, Use::Watch { at });
            self.watches.push(WatchStream {
                stream,
                created_at: now,
                progress_asked: None,
                next_progress: progress_interval.map_or(Monotonic(u64::MAX), |interval| now + interval),
            });
        }
        if let Workload::LeaseKeepAlive { .. } = crew.plan.workload {
            let method = self.connection.method(keepalive::PATH, &[]);
            for &(client, _) in &self.free {
                let Some(stream) = self.connection.open(method, None) else {
                    return crew.fail("the server allows too few streams on a connection".to_owned());
                };
                self.uses.insert(stream.0, Use::KeepAlive { client });
                let keepalive = KeepAlive { stream, intended: None };
                self.keepalives.insert(client, keepalive);
            }
        }
    }

    fn send_load(&mut self, crew: &mut Crew, now: Monotonic) {
        while let Some(&(due, client, intended)) = self.refused.front()
            && due <= now
        {
            self.refused.pop_front();
            crew.in_flight -= 1;
            self.send_request(crew, client, intended);
        }
        self.ask_progress(crew, now);
        if let Some(rate) = crew.plan.load.rate
            && self.pace.is_none()
        {
            let (arrivals, seed) = (crew.plan.load.arrivals, crew.random.next());
            let start = crew.start();
            let (number, all) = (u64::from(self.number), u64::from(self.connections));
            let pace = Pace::new(start, rate, number, all, arrivals, seed);
            crew.schedules_open += u32::from(pace.next() < crew.end);
            self.pace = Some(pace);
        }
        while let Some(&(client, free_since)) = self.free.front() {
            if crew.is_exhausted(now) {
                return;
            }
            let end = crew.end;
            let intended = match &mut self.pace {
                None => now,
                Some(pace) => {
                    let intended = pace.next();
                    if intended > now || intended >= end {
                        return;
                    }
                    pace.advance();
                    crew.schedules_open -= u32::from(pace.next() >= end);
                    intended
                }
            };
            self.free.pop_front();
            crew.sent(intended, free_since, now);
            self.send_request(crew, client, intended);
            if crew.failure.is_some() {
                return;
            }
        }
    }

    fn send_request(&mut self, crew: &mut Crew, client: u32, intended: Monotonic) {
        if let Some(keepalive) = self.keepalives.get_mut(&client) {
            keepalive.intended = Some(intended);
            let request = keepalive::request(crew.clients[client as usize].lease);
            self.connection.send_message(keepalive.stream, request.freeze());
            crew.in_flight += 1;
            return;
        }
        self.message.clear();
        let flight = crew.next_request(client, intended, &mut self.message);
        self.send(crew, flight);
    }

    fn send(&mut self, crew: &mut Crew, flight: Flight) {
        let method = self.method(flight.method);
        match self.connection.call(method, None, &self.message[..]) {
            Some(stream) => {
                self.uses.insert(stream.0, Use::Unary(flight));
                crew.in_flight += 1;
            }
            None => crew.fail(format!(
                "the server allows only {} streams on a connection: use more connections (--conns)",
                self.connection.calls_max()
            )),
        }
    }

    fn method(&mut self, method: Method) -> MethodId {
        let index = method as usize;
        match self.methods[index] {
            Some(known) => known,
            None => *self.methods[index].insert(self.connection.method(PATHS[index], &[])),
        }
    }

    fn ask_progress(&mut self, crew: &Crew, now: Monotonic) {
        let Workload::Kubernetes(kubernetes) = &crew.plan.workload else {
            return;
        };
        for watch in &mut self.watches {
            if now < watch.next_progress {
                continue;
            }
            watch.next_progress = now + kubernetes.progress_interval;
            if watch.progress_asked.is_none() && now < crew.end {
                watch.progress_asked = Some(now);
                let request = watching::progress_request();
                self.connection.send_message(watch.stream, request.freeze());
            }
        }
    }
}

fn take_told(watch: &mut WatchStream, message: &Bytes, crew: &mut Crew, now: Monotonic) -> Result<(), String> {
    let start = match crew.phase {
        Phase::Run | Phase::Drain => crew.start(),
        _ => Monotonic(u64::MAX),
    };
    let mut count = 0;
    let told = watching::told(message, |stamp| {
        // What others put has no stamp of this run.
        if (start..=now).contains(&stamp) {
            count += 1;
            crew.record_only(Operation::Event, stamp, now);
        }
    });
    crew.watching.count(count);
    match told? {
        Told::Events => {}
        Told::Created => {
            let unmade = crew.watching.unmade.checked_sub(1);
            crew.watching.unmade = unmade.ok_or("a watcher too many was made")?;
            let nanos = now.0.saturating_sub(watch.created_at.0);
            crew.tally.record(Operation::Watch, nanos, 0);
        }
        Told::Progress => {
            if let Some(asked) = watch.progress_asked.take() {
                crew.record_only(Operation::Progress, asked, now);
            }
        }
    }
    Ok(())
}

fn status_text(status: &Status) -> String {
    format!("{:?}: {}", status.code, status.message)
}
