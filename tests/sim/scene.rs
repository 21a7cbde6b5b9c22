//! One seed: a machine, its server's lives, and what happens to them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use ringd::{
    host::Host,
    testing::{Faults, Random, Sim, SimHost, Timing, Unsynced},
    wire::proto::etcdserverpb::{HashKvRequest, RangeRequest},
};

use crate::{
    check::{self, DRIFT_PPM_MAX, Summary},
    client::Channel,
    history::{Answer, Op, Outcome, Recorder, Request},
    menu::{self, Menu, STALL_MS_MAX},
    rot::{self, Rot},
    server::{Server, ServerOptions, check_directory},
    watcher::{self, Reached},
    workload::{self, Client, Plan, within},
};

/// How long a server may take to start on a sound machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to stop, or to notice that its disk has failed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Leases that nobody renews are gone after their time (6 s at most), what a new term adds, and some patience.
const LEASES_LIMIT: Duration = Duration::from_secs(20);

/// What became of a seed.
pub struct Report {
    /// The first thing that is wrong.
    pub fault: Option<String>,
    /// What was done.
    pub summary: Summary,
    /// The trace hash.
    pub trace: u64,
    /// The simulation's time, in nanoseconds.
    pub nanos: u64,
    /// Lives of the server.
    pub lives: u64,
    /// What clients asked.
    pub operations: u64,
    /// How often what went wrong.
    pub injected: BTreeMap<&'static str, u64>,
}

/// How a life of the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerFailure(Unsynced),
    Kill,
    Stop,
    /// Syncs or writes begin to fail, or no file can grow: it must end by itself when it notices.
    BadDisk,
}

struct Scene {
    sim: Rc<Sim>,
    random: Random,
    menu: Menu,
    options: ServerOptions,
    recorder: Recorder,
    plan: Rc<Plan>,
    /// The machine that asks on the simulation's own behalf.
    auditor: SimHost,
    everything: Rc<Reached>,
    /// Of each stream of watchers, where they began and what they are to be told next.
    watchers: Vec<Watched>,
    lives: u64,
    is_small: bool,
    /// Bytes that have rotted on the server's disk.
    rot: Vec<Rot>,
}

/// Where a stream's watchers began, and what they are to be told next.
pub type Watched = Rc<RefCell<Vec<(i64, i64)>>>;

/// Plays a seed.
pub fn play(seed: u64, is_small: bool) -> Report {
    let sim = Rc::new(Sim::new(seed));
    let recorder = Recorder::new(&sim);
    let mut random = sim.random(1);
    let server_host = sim.host("server");
    let auditor = sim.host("auditor");
    sim.set_timing(timing(&mut random));
    let options = ServerOptions::draw(&mut random).with_limits(menu::limits(&mut random));
    let plan = Rc::new(plan(&mut random));
    let menu = Menu::draw(&mut random);
    let mut scene = Scene {
        sim: sim.clone(),
        random,
        menu,
        options,
        recorder: recorder.clone(),
        plan,
        auditor,
        everything: Rc::default(),
        watchers: Vec::new(),
        lives: 0,
        is_small,
        rot: Vec::new(),
    };
    let report = judge(&sim, &recorder, scene.run(server_host));
    Report {
        lives: scene.lives,
        ..report
    }
}

/// Plays to the end, and says what came of it; the caller knows how many lives there were.
pub fn judge(sim: &Sim, recorder: &Recorder, play: impl Future<Output = Result<(), String>>) -> Report {
    // What happened, a line for each thing: where to look first when a seed has found something.
    let trace_path = std::env::var_os("RINGD_SIM_TRACE");
    if trace_path.is_some() {
        sim.keep_log();
    }
    let result = sim.run_until(play);
    if let Some(path) = trace_path {
        std::fs::write(path, sim.take_log().join("\n")).expect("a file that can be written");
    }
    if let Err(fault) = result {
        recorder.accuse(fault);
    }
    let checked = match recorder.fault() {
        None => check::check(&recorder.history()),
        Some(fault) => Err(fault),
    };
    let (fault, summary) = match checked {
        Ok(summary) => (None, summary),
        Err(fault) => (Some(fault), Summary::default()),
    };
    Report {
        fault,
        summary,
        trace: sim.trace_hash(),
        nanos: sim.now().0,
        lives: 0,
        operations: recorder.history().ops.len() as u64,
        injected: sim.injected(),
    }
}

/// How long things take.
pub fn timing(random: &mut Random) -> Timing {
    let slow = [1, 1, 1, 10, 50][random.index(5)];
    let far = [1, 1, 10][random.index(3)];
    let plain = Timing::default();
    let times = |range: std::ops::RangeInclusive<u64>, factor: u64| range.start() * factor..=range.end() * factor;
    Timing {
        read_nanos: times(plain.read_nanos, slow),
        write_nanos: times(plain.write_nanos, slow),
        sync_nanos: times(plain.sync_nanos, slow),
        wire_nanos: times(plain.wire_nanos, far),
        pipe_bytes: [4 * 1024, 64 * 1024, 256 * 1024][random.index(3)],
        turn_nanos: [500, 2_000, 10_000][random.index(3)],
        ..plain
    }
}

/// What clients are to do.
pub fn plan(random: &mut Random) -> Plan {
    // A database that is larger than what waits for a client that reads slowly.
    let is_bulky = random.chance(0.15);
    Plan {
        keys: 2 + random.below(40),
        pause: Duration::from_millis([1, 5, 20, 60][random.index(4)]),
        value_bytes_max: [100, 3_000, 30_000][if is_bulky { 2 } else { random.index(3) }],
        long_share: if is_bulky { 0.7 } else { 0.15 },
        is_snapshot_slow: is_bulky,
        lease_share: [0.0, 0.05, 0.2][random.index(3)],
        compact_share: [0.0, 0.01, 0.05][random.index(3)],
        maintenance_share: [0.0, 0.01, 0.04][if is_bulky { 2 } else { random.index(3) }],
        timeout: Duration::from_millis(1000 + random.below(5000)),
        is_plain: false,
        is_open: Cell::new(true),
        is_watched: Cell::new(true),
        leases: RefCell::default(),
    }
}

impl Scene {
    async fn run(&mut self, host: SimHost) -> Result<(), String> {
        Server::prepare(&host).await;
        let drift = self.random.below(2 * DRIFT_PPM_MAX as u64) as i32 - DRIFT_PPM_MAX;
        if self.menu.clocks && self.random.chance(0.5) {
            self.sim.set_clock(&host, check::clock(drift, 0));
        }
        self.begin_clients();
        let mut host = host;
        let lives = if self.is_small {
            2 + self.random.below(3)
        } else {
            2 + self.random.below(7)
        };
        for _ in 0..lives {
            host = self.live(host).await?;
            if let Some(fault) = self.recorder.fault() {
                return Err(fault);
            }
        }
        self.close(host).await
    }

    fn begin_clients(&mut self) {
        let machine = self.sim.host("clients");
        for number in 0..2 + self.random.below(4) {
            let client = Client {
                number,
                host: machine.clone(),
                recorder: self.recorder.clone(),
                random: self.sim.random(100 + number),
                plan: self.plan.clone(),
                count: 0,
                members: vec![Server::address()],
            };
            machine.spawn(client.run());
        }
        let machine = self.sim.host("watchers");
        machine.spawn(watcher::watch_everything(
            machine.clone(),
            self.recorder.clone(),
            self.plan.clone(),
            self.everything.clone(),
            vec![Server::address()],
        ));
        for number in 0..self.random.below(4) {
            let reached = Rc::new(RefCell::new(Vec::new()));
            self.watchers.push(reached.clone());
            machine.spawn(watcher::watch_some(
                machine.clone(),
                self.recorder.clone(),
                self.plan.clone(),
                self.sim.random(200 + number),
                reached,
                vec![Server::address()],
            ));
        }
    }

    async fn pause(&self, duration: Duration) {
        self.auditor.sleep_until(self.auditor.now() + duration).await;
    }

    /// One life: starts the server, lets it be used, and ends it. Gives the machine, up again, with no server on it.
    async fn live(&mut self, host: SimHost) -> Result<SimHost, String> {
        let host = match self.random.chance(0.15) {
            true => self.start_on_bad_disk(host).await?,
            false => host,
        };
        self.lives += 1;
        let end = self.draw_end();
        let server = self.start(host).await?;
        if self.random.chance(0.15) {
            // Over before it has begun.
            let nanos = self.random.below(40_000_000);
            self.pause(Duration::from_nanos(nanos)).await;
            return self.end(server, End::PowerFailure(Unsynced::Torn)).await;
        }
        let used = self.use_server(&server).await;
        if !self.rot.is_empty() && server.outcome().is_some() {
            return self.replace_disk(server).await;
        }
        used?;
        self.end(server, end).await
    }

    async fn use_server(&mut self, server: &Server) -> Result<(), String> {
        self.await_ready(server).await?;
        if self.random.chance(0.5) {
            self.audit(server).await?;
        }
        self.trouble(server).await
    }

    /// A server ended on a disk that rots: it must have said where. Its disk's content is had from elsewhere.
    async fn replace_disk(&mut self, server: Server) -> Result<SimHost, String> {
        match server.outcome() {
            Some(Err(why)) if rot::is_precise(&why) => {}
            outcome => return Err(format!("the server ended on {:?} with {outcome:?}", self.rot)),
        }
        self.sim.set_faults(&server.host, Faults::default());
        self.sim.crash_with(&server.host, Unsynced::Kept);
        self.pause(Duration::from_millis(100)).await;
        let host = self.sim.restart(&server.host);
        rot::undo(&self.sim, &host, &mut self.rot).await;
        Ok(host)
    }

    /// Starts the server, again and again while the files are still held for what its predecessor had begun.
    async fn start(&mut self, mut host: SimHost) -> Result<Server, String> {
        for _ in 0..64 {
            let server = Server::start(&host, &self.options);
            let patience = Duration::from_millis(5 + self.random.below(200));
            let ended = within(&self.auditor, patience, server.ended()).await;
            let outcome = server.outcome();
            match (ended, &outcome) {
                (Some(()), Some(Err(why))) if why.contains(" by another process") => {
                    self.sim.kill(&host);
                    let nanos = self.random.below(400_000_000);
                    self.pause(Duration::from_nanos(nanos)).await;
                    host = self.sim.restart(&host);
                }
                _ => return Ok(server),
            }
        }
        Err("the server's files are held by nobody who lives".to_owned())
    }

    fn draw_end(&mut self) -> End {
        match self.random.below(10) {
            0..=3 => End::PowerFailure(Unsynced::Torn),
            4 => End::PowerFailure(Unsynced::Lost),
            5 => End::PowerFailure(Unsynced::Kept),
            6 => End::Kill,
            7 => End::Stop,
            _ => End::BadDisk,
        }
    }

    /// A life on a disk that fails from the start: the server serves, or ends and says why.
    async fn start_on_bad_disk(&mut self, host: SimHost) -> Result<SimHost, String> {
        let used_bytes = self.sim.used_bytes(&host);
        let Some(disk) = self.menu.bad_disk_at_start(&mut self.random, used_bytes) else {
            return Ok(host);
        };
        if !self.rot.is_empty() {
            return Ok(host);
        }
        self.lives += 1;
        let faults = Faults {
            disk,
            ..Faults::default()
        };
        self.sim.set_faults(&host, faults);
        let server = self.start(host).await?;
        let limit = Duration::from_millis(self.random.below(3_000));
        self.await_failure(&server, limit).await?;
        self.sim.set_faults(&server.host, Faults::default());
        self.sim.crash_with(&server.host, Unsynced::Torn);
        self.pause(Duration::from_millis(2 * STALL_MS_MAX)).await;
        Ok(self.sim.restart(&server.host))
    }

    /// Waits until the server answers.
    async fn await_ready(&self, server: &Server) -> Result<(), String> {
        let until = self.auditor.now() + START_LIMIT;
        loop {
            if let Some(outcome) = server.outcome() {
                return Err(format!("the server ended while it started: {outcome:?}"));
            }
            if self.auditor.now() > until {
                return Err("the server did not start within a minute".to_owned());
            }
            if self.read_all().await.is_some() {
                return Ok(());
            }
            self.pause(Duration::from_millis(20)).await;
        }
    }

    /// Reads all keys; the revision, if there was an answer.
    async fn read_all(&self) -> Option<i64> {
        let channel = Channel::connect(&self.auditor, Server::address(), Duration::from_secs(2)).await?;
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..RangeRequest::default()
        };
        let number = self.recorder.history().ops.len();
        // With the smallest bounds a list leaves record by record, each when the one before it was taken.
        let timeout = Duration::from_secs(50);
        workload::call(&self.recorder, &channel, Request::Range(request), timeout).await;
        channel.close();
        let history = self.recorder.history();
        // Others may have noted requests meanwhile, so ours is found by its place.
        match &history.ops[number].outcome {
            Outcome::Answered(Answer::Range(answer)) => answer.header.as_ref().map(|header| header.revision),
            _ => None,
        }
    }

    /// Everything that can be read is read again; what is noted is checked at the end.
    async fn audit(&self, server: &Server) -> Result<(), String> {
        let Some(revision) = self.read_all().await else {
            return Err(format!("no answer from a sound server: {:?}", server.outcome()));
        };
        watcher::read_history(&self.auditor, &self.recorder, &self.plan, Server::address(), revision).await
    }

    /// Lets the server be used, under faults that it must survive.
    async fn trouble(&mut self, server: &Server) -> Result<(), String> {
        let spells = if self.is_small {
            1 + self.random.below(3)
        } else {
            1 + self.random.below(6)
        };
        for _ in 0..spells {
            let nanos = match self.random.below(4) {
                0 => self.random.below(30_000_000),
                1..=2 => self.random.below(400_000_000),
                _ => self.random.below(2_500_000_000),
            };
            let faults = self.menu.spell(&mut self.random);
            self.sim.set_faults(&server.host, faults);
            if self.menu.clocks && self.random.chance(0.15) {
                let drift = self.random.below(2 * DRIFT_PPM_MAX as u64) as i32 - DRIFT_PPM_MAX;
                let jump = self.random.below(20_000_000_000) as i64 - 10_000_000_000;
                self.sim.set_clock(&server.host, check::clock(drift, jump));
            }
            if self.menu.pauses && self.random.chance(0.1) {
                self.sim.pause(&server.host);
                let nanos = self.random.below(3_000_000_000);
                self.pause(Duration::from_nanos(nanos)).await;
                self.sim.resume(&server.host);
            }
            if self.menu.cuts && self.random.chance(0.15) {
                self.cut_off(server).await;
            }
            self.pause(Duration::from_nanos(nanos)).await;
            if let Some(outcome) = server.outcome() {
                return Err(format!("the server ended by itself: {outcome:?}"));
            }
            if let Some(fault) = self.recorder.fault() {
                return Err(fault);
            }
        }
        self.sim.set_faults(&server.host, Faults::default());
        Ok(())
    }

    /// The clients or the watchers are cut off for a while, in one direction or both.
    async fn cut_off(&mut self, server: &Server) {
        let machine = self.sim.host(["clients", "watchers"][self.random.index(2)]);
        match self.random.below(3) {
            0 => self.sim.cut(&machine, &server.host),
            1 => self.sim.cut(&server.host, &machine),
            _ => self.sim.partition(&machine, &server.host),
        }
        let nanos = self.random.below(6_000_000_000);
        self.pause(Duration::from_nanos(nanos)).await;
        self.sim.heal(&machine, &server.host);
    }

    /// Ends a life, looks at what it left, and makes the machine ready for the next.
    async fn end(&mut self, server: Server, end: End) -> Result<SimHost, String> {
        let was_ready = self.recorder.history().floor > 0;
        let power_fails = match end {
            End::PowerFailure(unsynced) => Some(unsynced),
            End::Kill => None,
            End::Stop => {
                server.request_stop();
                if within(&self.auditor, STOP_LIMIT, server.ended()).await.is_none() {
                    return Err("the server did not stop".to_owned());
                }
                if let Some(Err(error)) = server.outcome() {
                    return Err(format!("the server did not stop in peace: {error}"));
                }
                self.random.chance(0.5).then_some(Unsynced::Torn)
            }
            End::BadDisk => {
                self.break_disk(&server).await?;
                // What the system counts as written and is not would come to light only later: the operator restarts
                // the machine with its disk.
                Some(Unsynced::Torn)
            }
        };
        self.sim.set_faults(&server.host, Faults::default());
        match power_fails {
            Some(unsynced) => self.sim.crash_with(&server.host, unsynced),
            None => self.sim.kill(&server.host),
        }
        // What a killed process had begun to write goes on, and its locks with it. The next one is started in the midst of
        // that, or after it.
        let is_quiet = power_fails.is_some() || self.random.chance(0.5);
        let stall_ms = if is_quiet { 2 * STALL_MS_MAX } else { 0 };
        let nanos = stall_ms * 1_000_000 + self.random.below(500_000_000);
        self.pause(Duration::from_nanos(nanos)).await;
        let host = self.sim.restart(&server.host);
        if was_ready && is_quiet && self.rot.is_empty() {
            let findings = self.look_at(&host).await?;
            if !findings.is_empty() {
                return Err(format!("after {end:?}: {findings}"));
            }
            if self.menu.damage && self.random.chance(0.1) {
                self.rot = rot::draw(&self.sim, &host, &mut self.random).await;
            }
        }
        Ok(host)
    }

    /// What `ringd check` says, as soon as nobody holds the files.
    async fn look_at(&self, host: &SimHost) -> Result<String, String> {
        for _ in 0..64 {
            let findings = check_directory(host).await;
            if !findings.contains(" is in use: ") {
                return Ok(findings);
            }
            self.pause(Duration::from_millis(200)).await;
        }
        Err("the server's files are held by nobody who lives".to_owned())
    }

    /// The disk fails for good. The server ends when it notices, and until then acknowledges only what is safe.
    async fn break_disk(&mut self, server: &Server) -> Result<(), String> {
        let used_bytes = self.sim.used_bytes(&server.host);
        let disk = self.menu.bad_disk(&mut self.random, used_bytes).unwrap_or_default();
        let faults = Faults {
            disk,
            ..Faults::default()
        };
        self.sim.set_faults(&server.host, faults);
        let limit = Duration::from_millis(500 + self.random.below(4_000));
        self.await_failure(server, limit).await
    }

    /// A server on a bad disk may go on, or end and say what the disk refused and where.
    async fn await_failure(&self, server: &Server, limit: Duration) -> Result<(), String> {
        _ = within(&self.auditor, limit, server.ended()).await;
        match server.outcome() {
            None => Ok(()),
            Some(Err(why)) if menu::is_clear(&why) || why.contains(" by another process") => Ok(()),
            Some(outcome) => Err(format!("on a bad disk the server ended with {outcome:?}")),
        }
    }

    /// The last life, on a sound machine: everything must come to rest, and be right.
    async fn close(&mut self, host: SimHost) -> Result<(), String> {
        self.lives += 1;
        self.sim.set_faults(&host, Faults::default());
        rot::undo(&self.sim, &host, &mut self.rot).await;
        let server = self.start(host).await?;
        self.await_ready(&server).await?;
        self.pause(Duration::from_millis(300)).await;
        self.plan.is_open.set(false);
        self.await_clients().await?;
        self.await_leases(&server).await?;
        self.audit(&server).await?;
        self.await_watchers().await?;
        self.plan.is_watched.set(false);
        server.request_stop();
        if within(&self.auditor, STOP_LIMIT, server.ended()).await.is_none() {
            return Err("the server did not stop".to_owned());
        }
        self.sim.kill(&server.host);
        let host = self.sim.restart(&server.host);
        let findings = self.look_at(&host).await?;
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    /// Every request has an answer, or its client has given up.
    async fn await_clients(&self) -> Result<(), String> {
        for _ in 0..600 {
            let is_pending = |op: &Op| matches!(op.outcome, Outcome::Pending);
            let pending = self.recorder.history().ops.iter().find(|op| is_pending(op)).cloned();
            if pending.is_none() {
                return Ok(());
            }
            self.pause(Duration::from_millis(100)).await;
        }
        Err("a client waits for more than a minute".to_owned())
    }

    /// Leases that nobody renews end, and their keys with them.
    async fn await_leases(&self, server: &Server) -> Result<(), String> {
        if self.plan.leases.borrow().is_empty() {
            return Ok(());
        }
        self.pause(LEASES_LIMIT).await;
        let Some(channel) = Channel::connect(&self.auditor, Server::address(), Duration::from_secs(2)).await else {
            return Err(format!("no connection to a sound server: {:?}", server.outcome()));
        };
        let timeout = Duration::from_secs(10);
        for request in [Request::Leases, Request::HashKv(HashKvRequest::default())] {
            let number = self.recorder.history().ops.len();
            workload::call(&self.recorder, &channel, request, timeout).await;
            match &self.recorder.history().ops[number].outcome {
                Outcome::Answered(Answer::Leases(answer)) if !answer.leases.is_empty() => {
                    return Err(format!("leases outlive their time: {:?}", answer.leases));
                }
                Outcome::Answered(_) => {}
                outcome => return Err(format!("no answer from a sound server: {outcome:?}")),
            }
        }
        channel.close();
        Ok(())
    }

    /// Watchers have been told everything.
    async fn await_watchers(&self) -> Result<(), String> {
        let revision = self.recorder.history().floor;
        let is_there = |watchers: &Vec<(i64, i64)>| watcher::is_told(watchers, revision);
        for _ in 0..600 {
            let is_known = self.everything.revision.get() >= revision;
            if is_known && self.watchers.iter().all(|watchers| is_there(&watchers.borrow())) {
                return Ok(());
            }
            self.pause(Duration::from_millis(100)).await;
        }
        let history = self.recorder.history();
        let tails = history.sessions.iter().rev().take(8).map(|session| {
            let told = &session.told;
            format!("{:?}: {:?}", session.spec, &told[told.len().saturating_sub(3)..])
        });
        Err(format!(
            "after a minute of rest at revision {revision} watchers are at {} and at {:?}; {}",
            self.everything.revision.get(),
            self.watchers,
            tails.collect::<Vec<_>>().join("\n")
        ))
    }
}
