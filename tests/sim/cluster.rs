//! One seed of a cluster: one, three or five members on machines of their own, clients that may ask any of them, crashes,
//! cuts and stalls; then everything is mended, and all members must come to the same state within bounded time, with
//! every acknowledged write in it.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use prost::Message;
use ringd::{
    host::Host,
    testing::{Faults, LinkFaults, Links, Random, Sim, SimHost, Unsynced},
    wire::{proto::etcdserverpb::*, status::Code},
};

use crate::{
    check::{self, DRIFT_PPM_MAX, Summary},
    client::Channel,
    history::{Answer, Failure, Op, Outcome, Recorder, Request},
    menu::{self, Menu},
    rot::{self, Rot},
    scene::{Report, plan, timing},
    server::{Server, ServerOptions, check_directory, member_address},
    transport::{Mail, SimTransport},
    watcher::{self, Reached},
    workload::{Plan, within},
};

/// After everything is mended, members must agree within this time.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

struct Member {
    host: SimHost,
    /// `None` while it is down.
    server: Option<Server>,
    is_paused: bool,
    /// Its disk fails, now or in this life of its server: it may end by itself, and says why.
    is_disk_bad: bool,
    /// Damage on its disk.
    rot: Vec<Rot>,
}

/// What all members must come to tell alike, without leases that could still end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    applied: u64,
    revision: i64,
    hash: u32,
    leases: usize,
}

struct Cluster {
    sim: Rc<Sim>,
    random: Random,
    menu: Menu,
    options: ServerOptions,
    links: Rc<Links<Mail>>,
    members: Vec<Member>,
    recorder: Recorder,
    auditor: SimHost,
    plan: Rc<Plan>,
    everything: Rc<Reached>,
    lives: u64,
    rounds: u64,
}

/// Plays a seed.
pub fn play(seed: u64, is_small: bool) -> Report {
    let sim = Rc::new(Sim::new(seed));
    let recorder = Recorder::new(&sim);
    let mut random = sim.random(1);
    let count = [1, 3, 3, 3, 5][random.index(5)];
    let members = (0..count)
        .map(|place| Member {
            host: sim.host(&format!("m{place}")),
            server: None,
            is_paused: false,
            is_disk_bad: false,
            rot: Vec::new(),
        })
        .collect();
    sim.set_timing(timing(&mut random));
    let options = ServerOptions::draw(&mut random);
    let plan = plan(&mut random);
    let menu = Menu::draw(&mut random);
    let rounds = 4 + random.below(if is_small { 8 } else { 30 });
    let mut cluster = Cluster {
        links: Links::new(&sim),
        auditor: sim.host("auditor"),
        sim: sim.clone(),
        random,
        menu,
        options,
        members,
        recorder: recorder.clone(),
        plan: Rc::new(plan),
        everything: Rc::default(),
        lives: 0,
        rounds,
    };
    let trace_path = std::env::var_os("RINGD_SIM_TRACE");
    if trace_path.is_some() {
        sim.keep_log();
    }
    let result = sim.run_until(cluster.run());
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
        Err(fault) => (Some(format!("of {count}: {fault}")), Summary::default()),
    };
    Report {
        fault,
        summary,
        trace: sim.trace_hash(),
        nanos: sim.now().0,
        lives: cluster.lives,
        operations: recorder.history().ops.len() as u64,
        injected: sim.injected(),
    }
}

impl Cluster {
    async fn run(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            let host = &self.members[place].host;
            Server::prepare(host).await;
            if self.menu.clocks && self.random.chance(0.5) {
                let drift = self.random.below(2 * DRIFT_PPM_MAX as u64) as i32 - DRIFT_PPM_MAX;
                self.sim.set_clock(host, check::clock(drift, 0));
            }
            self.start(place);
        }
        let machine = self.sim.host("clients");
        self.begin_watchers();
        for number in 0..2 + self.random.below(4) {
            let client = Client {
                number,
                count: 0,
                host: machine.clone(),
                recorder: self.recorder.clone(),
                random: self.sim.random(100 + number),
                members: self.members.len(),
                plan: self.plan.clone(),
                leases: Vec::new(),
            };
            machine.spawn(client.run());
        }
        let millis = self.random.below(3_000);
        self.pause(Duration::from_millis(millis)).await;
        for _ in 0..self.rounds {
            self.trouble().await?;
            self.look()?;
        }
        self.mend().await;
        self.pause(Duration::from_secs(2)).await;
        self.plan.is_open.set(false);
        self.await_clients().await?;
        self.agree().await?;
        self.learn().await?;
        self.close().await
    }

    fn begin_watchers(&mut self) {
        let machine = self.sim.host("watchers");
        let members: Vec<SocketAddr> = (0..self.members.len()).map(member_address).collect();
        machine.spawn(watcher::watch_everything(
            machine.clone(),
            self.recorder.clone(),
            self.plan.clone(),
            self.everything.clone(),
            members.clone(),
        ));
        for number in 0..self.random.below(4) {
            machine.spawn(watcher::watch_some(
                machine.clone(),
                self.recorder.clone(),
                self.plan.clone(),
                self.sim.random(200 + number),
                Rc::default(),
                members.clone(),
            ));
        }
    }

    fn start(&mut self, place: usize) {
        self.lives += 1;
        let config = self.options.config_of_member(place, self.members.len());
        let transport = SimTransport {
            links: self.links.clone(),
        };
        let member = &mut self.members[place];
        member.server = Some(Server::start_with(&member.host, &self.options, config, transport));
    }

    async fn pause(&self, duration: Duration) {
        self.auditor.sleep_until(self.auditor.now() + duration).await;
    }

    /// A server that ended although its machine is sound is a finding. One that was started while its predecessor's files
    /// were held, for what that had begun to write, is started again.
    fn look(&mut self) -> Result<(), String> {
        if let Some(fault) = self.recorder.fault() {
            return Err(fault);
        }
        for place in 0..self.members.len() {
            let member = &mut self.members[place];
            match member.server.as_ref().and_then(Server::outcome) {
                None => {}
                Some(Err(why)) if why.contains(" by another process") => {
                    self.sim.kill(&member.host);
                    member.host = self.sim.restart(&member.host);
                    self.start(place);
                }
                Some(Err(why)) if member.is_disk_bad && menu::is_clear(&why) => self.lose_machine(place),
                Some(Err(why)) if !member.rot.is_empty() && rot::is_precise(&why) => self.lose_machine(place),
                Some(outcome) => return Err(format!("member {place} ended by itself: {outcome:?}")),
            }
        }
        Ok(())
    }

    /// What `ringd check` says of a member that is down, as soon as nobody holds its files.
    async fn look_at(&self, host: &SimHost) -> String {
        for _ in 0..64 {
            let findings = check_directory(host).await;
            if !findings.contains(" is in use: ") {
                return findings;
            }
            self.pause(Duration::from_millis(200)).await;
        }
        "its files are held by nobody who lives".to_owned()
    }

    /// Something happens, and time passes.
    async fn trouble(&mut self) -> Result<(), String> {
        let place = self.random.index(self.members.len());
        let other = self.random.index(self.members.len());
        match self.random.below(17) {
            0..=2 => self.end(place).await?,
            3 => self.restart_all().await,
            4..=5 if place != other => {
                let (one, two) = (&self.members[place].host, &self.members[other].host);
                if self.random.chance(0.5) {
                    self.sim.cut(one, two);
                } else {
                    self.sim.partition(one, two);
                }
            }
            6 => self.isolate(place),
            7..=8 => self.mend_ways(),
            9 if self.menu.pauses => self.pause_machine(place),
            10 => {
                let faults = self.menu.spell(&mut self.random);
                self.sim.set_faults(&self.members[place].host, faults);
            }
            12 => self.break_disk(place),
            13 if self.menu.clocks => {
                let drift = self.random.below(2 * DRIFT_PPM_MAX as u64) as i32 - DRIFT_PPM_MAX;
                let jump = self.random.below(20_000_000_000) as i64 - 10_000_000_000;
                self.sim.set_clock(&self.members[place].host, check::clock(drift, jump));
            }
            11 => {
                let faults = LinkFaults {
                    loss: [0.0, 0.02, 0.2][self.random.index(3)],
                    delay: [0.0, 0.05, 0.5][self.random.index(3)],
                    delay_for: Duration::from_millis(1 + self.random.below(1_000)),
                    is_unordered: self.random.chance(0.5),
                };
                self.links.set_faults(faults);
            }
            _ => {}
        }
        let limit = [50, 500, 3_000][self.random.index(3)];
        let millis = self.random.below(limit);
        self.pause(Duration::from_millis(millis)).await;
        for place in 0..self.members.len() {
            if self.members[place].server.is_none() && self.random.chance(0.4) {
                if self.random.chance(0.5) {
                    self.mend_disk(place).await;
                }
                self.start(place);
            }
        }
        Ok(())
    }

    /// Ends a member's life, in one of the ways in which lives end.
    async fn end(&mut self, place: usize) -> Result<(), String> {
        self.resume(place);
        let Some(server) = self.members[place].server.take() else {
            return Ok(());
        };
        let way = self.random.below(4);
        if way == 0 {
            // A start on a disk that stalls can take longer than anybody would wait here.
            self.sim.set_faults(&server.host, Faults::default());
            server.request_stop();
            if within(&self.auditor, STOP_LIMIT, server.ended()).await.is_none() {
                return Err(format!("member {place} did not stop"));
            }
            let is_disk_bad = self.members[place].is_disk_bad;
            let is_damaged = !self.members[place].rot.is_empty();
            let is_held = |error: &String| {
                error.contains(" by another process")
                    || is_disk_bad && menu::is_clear(error)
                    || is_damaged && rot::is_precise(error)
            };
            if let Some(Err(error)) = server.outcome().filter(|outcome| !outcome.as_ref().is_err_and(is_held)) {
                return Err(format!("member {place} did not stop in peace: {error}"));
            }
        }
        // Its disk is given the time to end what it has begun.
        self.sim.set_faults(&server.host, Faults::default());
        match way {
            0 | 1 => self.sim.kill(&server.host),
            2 => self.sim.crash_with(&server.host, Unsynced::Torn),
            _ => {
                let unsynced = [Unsynced::Lost, Unsynced::Kept][self.random.index(2)];
                self.sim.crash_with(&server.host, unsynced);
            }
        }
        self.pause(Duration::from_millis(700)).await;
        self.members[place].host = self.sim.restart(&server.host);
        self.mend_disk(place).await;
        let findings = self.look_at(&self.members[place].host).await;
        // Its first life ended before the log's first segment had its name.
        let is_unborn = ["no log", "No such file", "wal: file not found"]
            .iter()
            .any(|words| findings.contains(words));
        if !findings.is_empty() && !is_unborn {
            return Err(format!("member {place} left a damaged directory: {findings}"));
        }
        if findings.is_empty() {
            self.damage(place).await;
        }
        Ok(())
    }

    /// Some of what a member that is down has on its disk is damaged. Of several members a minority may be so at a time:
    /// what a majority lost nobody has.
    async fn damage(&mut self, place: usize) {
        let damaged = self.members.iter().filter(|member| !member.rot.is_empty()).count();
        let is_minority = 2 * (damaged + 1) < self.members.len();
        if self.menu.damage && is_minority && self.random.chance(0.15) {
            let host = self.members[place].host.clone();
            self.members[place].rot = rot::draw(&self.sim, &host, &mut self.random).await;
        }
    }

    /// Something that a member's disk cannot do any more. The member ends when it notices; others go on without it.
    fn break_disk(&mut self, place: usize) {
        let host = &self.members[place].host;
        let used_bytes = self.sim.used_bytes(host);
        if let Some(disk) = self.menu.bad_disk(&mut self.random, used_bytes) {
            let faults = Faults {
                disk,
                ..Faults::default()
            };
            self.sim.set_faults(host, faults);
            self.members[place].is_disk_bad = true;
        }
    }

    /// A member ended on its disk: the machine is started again, for when it has a better one. What the system counts as
    /// written and is not would come to light only later.
    fn lose_machine(&mut self, place: usize) {
        self.resume(place);
        let member = &mut self.members[place];
        if let Some(server) = member.server.take() {
            self.sim.set_faults(&server.host, Faults::default());
            let is_bad = std::mem::take(&mut member.is_disk_bad);
            let unsynced = if is_bad { Unsynced::Torn } else { Unsynced::Kept };
            self.sim.crash_with(&server.host, unsynced);
            member.host = self.sim.restart(&server.host);
        }
    }

    /// A member that is down has a sound disk again, with the content that it should have.
    async fn mend_disk(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.is_disk_bad = false;
        self.sim.set_faults(&member.host, Faults::default());
        rot::undo(&self.sim, &member.host, &mut member.rot).await;
    }

    /// The power of all machines fails at once.
    async fn restart_all(&mut self) {
        for place in 0..self.members.len() {
            self.resume(place);
            if let Some(server) = self.members[place].server.take() {
                self.sim.crash_with(&server.host, Unsynced::Torn);
                self.members[place].host = self.sim.restart(&server.host);
            }
        }
    }

    fn isolate(&self, place: usize) {
        for member in &self.members {
            if member.host.machine() != self.members[place].host.machine() {
                self.sim.partition(&member.host, &self.members[place].host);
            }
        }
    }

    fn mend_ways(&self) {
        for one in &self.members {
            for two in &self.members {
                if one.host.machine() != two.host.machine() {
                    self.sim.mend(&one.host, &two.host);
                }
            }
        }
    }

    fn pause_machine(&mut self, place: usize) {
        if self.members[place].is_paused {
            self.resume(place);
        } else if self.members[place].server.is_some() {
            self.members[place].is_paused = true;
            self.sim.pause(&self.members[place].host);
        }
    }

    fn resume(&mut self, place: usize) {
        if std::mem::take(&mut self.members[place].is_paused) {
            self.sim.resume(&self.members[place].host);
        }
    }

    async fn mend(&mut self) {
        self.links.set_faults(LinkFaults::default());
        self.mend_ways();
        for place in 0..self.members.len() {
            self.resume(place);
            self.sim.set_faults(&self.members[place].host, Faults::default());
            if self.members[place].is_disk_bad || !self.members[place].rot.is_empty() {
                self.lose_machine(place);
                self.mend_disk(place).await;
            }
            if self.members[place].server.is_none() {
                self.start(place);
            }
        }
    }

    /// All members have applied the same, and have the same hash.
    async fn agree(&mut self) -> Result<(), String> {
        let until = self.auditor.now() + AGREEMENT_LIMIT;
        let mut seen = Vec::new();
        while self.auditor.now() < until {
            self.look()?;
            seen.clear();
            for place in 0..self.members.len() {
                seen.push(self.state_of(place).await);
            }
            let first = seen[0];
            // What a lease that ends later would change, nobody would be told.
            if first.is_some_and(|state| state.leases == 0) && seen.iter().all(|state| *state == first) {
                return Ok(());
            }
            self.pause(Duration::from_millis(500)).await;
        }
        Err(format!("members do not agree after everything was mended: {seen:?}"))
    }

    /// What a member tells of its store.
    async fn state_of(&self, place: usize) -> Option<State> {
        let limit = Duration::from_secs(5);
        let channel = Channel::connect(&self.auditor, member_address(place), limit).await?;
        let asked = async {
            let status: StatusResponse = channel
                .unary("/etcdserverpb.Maintenance/Status", &StatusRequest {}, limit)
                .await?;
            let hash: HashKvResponse = channel
                .unary(
                    "/etcdserverpb.Maintenance/HashKV",
                    &HashKvRequest { revision: 0 },
                    limit,
                )
                .await?;
            let leases: LeaseLeasesResponse = channel
                .unary("/etcdserverpb.Lease/LeaseLeases", &LeaseLeasesRequest {}, limit)
                .await?;
            Ok::<_, Failure>(State {
                applied: status.raft_applied_index,
                revision: hash.hash_revision,
                hash: hash.hash,
                leases: leases.leases.len(),
            })
        };
        let state = asked.await.ok();
        channel.close();
        state
    }

    /// Every request has an answer, or its client has given up: one that is answered late is shown a revision late.
    async fn await_clients(&self) -> Result<(), String> {
        for _ in 0..600 {
            let is_pending = |op: &Op| matches!(op.outcome, Outcome::Pending);
            if !self.recorder.history().ops.iter().any(is_pending) {
                return Ok(());
            }
            self.pause(Duration::from_millis(100)).await;
        }
        Err("a client waits for more than a minute".to_owned())
    }

    /// The watcher of everything has been told everything.
    async fn learn(&mut self) -> Result<(), String> {
        for _ in 0..300 {
            let floor = self.recorder.history().floor;
            if self.recorder.history().known() >= floor {
                self.plan.is_watched.set(false);
                return Ok(());
            }
            self.pause(Duration::from_millis(100)).await;
        }
        let history = self.recorder.history();
        Err(format!(
            "of revisions up to {} the watcher of everything knows those up to {}",
            history.floor,
            history.known()
        ))
    }

    /// All stop in peace, and leave sound directories.
    async fn close(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            self.end_soundly(place).await?;
        }
        Ok(())
    }

    async fn end_soundly(&mut self, place: usize) -> Result<(), String> {
        let server = self.members[place].server.take().expect("all are up");
        server.request_stop();
        if within(&self.auditor, STOP_LIMIT, server.ended()).await.is_none() {
            return Err(format!("member {place} did not stop"));
        }
        if let Some(Err(error)) = server.outcome() {
            return Err(format!("member {place} did not stop in peace: {error}"));
        }
        self.sim.kill(&server.host);
        let host = self.sim.restart(&server.host);
        let findings = self.look_at(&host).await;
        match findings.is_empty() {
            true => Ok(()),
            false => Err(format!("member {place} left a damaged directory: {findings}")),
        }
    }
}

/// A client: asks one member after the other.
struct Client {
    number: u64,
    count: u64,
    host: SimHost,
    recorder: Recorder,
    random: Random,
    members: usize,
    plan: Rc<Plan>,
    /// Leases that it was granted.
    leases: Vec<i64>,
}

impl Client {
    async fn run(mut self) {
        let mut channel: Option<Channel> = None;
        while self.plan.is_open.get() {
            let pause = self.random.below(self.plan.pause.as_nanos() as u64 + 1);
            self.host
                .sleep_until(self.host.now() + Duration::from_nanos(pause))
                .await;
            let usable = match channel.take().filter(|channel| !channel.is_lost()) {
                Some(channel) => Some(channel),
                None => {
                    let place = self.random.index(self.members);
                    Channel::connect(&self.host, member_address(place), Duration::from_millis(500)).await
                }
            };
            let Some(usable) = usable.filter(|_| self.plan.is_open.get()) else {
                continue;
            };
            self.count += 1;
            let request = self.draw();
            let is_sound = self.call(&usable, request).await;
            if is_sound && !self.random.chance(0.02) {
                channel = Some(usable);
            } else {
                usable.close();
            }
        }
        if let Some(channel) = channel {
            channel.close();
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{:03}", self.random.below(self.plan.keys)))
    }

    fn draw(&mut self) -> Request {
        if self.random.chance(self.plan.lease_share) {
            return self.draw_lease();
        }
        if self.random.chance(self.plan.compact_share) {
            // What the watcher of everything has not seen must stay readable for it.
            let known = self.recorder.history().known();
            let back = self.random.below(12) as i64;
            return Request::Compact(CompactionRequest {
                revision: (known - back).max(1),
                physical: self.random.chance(0.5),
            });
        }
        let key = self.key();
        match self.random.below(10) {
            0..=4 => {
                let mut value = format!("v{}-{}", self.number, self.count).into_bytes();
                if self.random.chance(0.1) {
                    value.resize(self.random.within(100..=8_000) as usize, b'.');
                }
                Request::Put(PutRequest {
                    key,
                    value: value.into(),
                    lease: if self.random.chance(self.plan.lease_share) {
                        self.lease()
                    } else {
                        0
                    },
                    ..PutRequest::default()
                })
            }
            5 => Request::Delete(DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            }),
            6..=8 => Request::Range(RangeRequest {
                key,
                ..RangeRequest::default()
            }),
            _ => Request::Range(RangeRequest {
                key: Bytes::from_static(b"k"),
                range_end: Bytes::from_static(b"l"),
                ..RangeRequest::default()
            }),
        }
    }

    /// One of the newest leases; 0 if there is none.
    fn lease(&mut self) -> i64 {
        match self.leases.len() {
            0 => 0,
            count => self.leases[count - 1 - self.random.index(count.min(3))],
        }
    }

    fn draw_lease(&mut self) -> Request {
        let lease = self.lease();
        match self.random.below(8) {
            0..=1 => Request::Grant(LeaseGrantRequest {
                ttl: 1 + self.random.below(6) as i64,
                id: (self.number * 1_000_000 + self.count) as i64 + 1,
            }),
            2..=5 if lease != 0 => Request::KeepAlive(lease),
            6 if lease != 0 => Request::TimeToLive(LeaseTimeToLiveRequest {
                id: lease,
                keys: self.random.chance(0.5),
            }),
            7 if lease != 0 && self.random.chance(0.3) => Request::Revoke(LeaseRevokeRequest { id: lease }),
            _ => Request::Leases,
        }
    }

    /// Carries a request out and notes it. Whether the connection is still of use.
    async fn call(&mut self, channel: &Channel, request: Request) -> bool {
        let op = self.recorder.invoke(request.clone());
        let timeout = Duration::from_millis(200 + self.random.below(8_000));
        let result = match &request {
            Request::Put(put) => {
                let answer = channel.unary("/etcdserverpb.KV/Put", put, timeout).await;
                answer.map(Answer::Put)
            }
            Request::Delete(delete) => {
                let answer = channel.unary("/etcdserverpb.KV/DeleteRange", delete, timeout).await;
                answer.map(Answer::Delete)
            }
            Request::Range(range) => {
                let answer = channel.unary("/etcdserverpb.KV/Range", range, timeout).await;
                answer.map(Answer::Range)
            }
            Request::Compact(compact) => {
                let answer = channel.unary("/etcdserverpb.KV/Compact", compact, timeout).await;
                answer.map(Answer::Compact)
            }
            Request::Grant(grant) => {
                let answer = channel.unary("/etcdserverpb.Lease/LeaseGrant", grant, timeout).await;
                if answer.is_ok() {
                    self.leases.push(grant.id);
                }
                answer.map(Answer::Grant)
            }
            Request::Revoke(revoke) => {
                let answer = channel.unary("/etcdserverpb.Lease/LeaseRevoke", revoke, timeout).await;
                answer.map(Answer::Revoke)
            }
            Request::TimeToLive(request) => {
                let answer = channel
                    .unary("/etcdserverpb.Lease/LeaseTimeToLive", request, timeout)
                    .await;
                answer.map(Answer::TimeToLive)
            }
            Request::Leases => {
                let request = LeaseLeasesRequest {};
                let answer = channel
                    .unary("/etcdserverpb.Lease/LeaseLeases", &request, timeout)
                    .await;
                answer.map(Answer::Leases)
            }
            Request::KeepAlive(lease) => keep_alive(channel, *lease, timeout).await.map(Answer::KeepAlive),
            _ => unreachable!("not drawn"),
        };
        // Of what had no outcome in time nobody knows whether it happens yet.
        let result = result.map_err(|failure| match failure {
            Failure::Refused(status) if status.code == Code::Unavailable => {
                Failure::Unknown(status.message.to_string())
            }
            failure => failure,
        });
        let is_sound = result.is_ok();
        self.recorder.finish(op, result);
        is_sound
    }
}

/// Renews a lease on a stream of its own.
async fn keep_alive(channel: &Channel, lease: i64, timeout: Duration) -> Result<LeaseKeepAliveResponse, Failure> {
    let call = channel
        .open("/etcdserverpb.Lease/LeaseKeepAlive")
        .ok_or(Failure::NotSent)?;
    call.send(&LeaseKeepAliveRequest { id: lease });
    let answer = call.next(timeout).await?;
    let answer = answer.ok_or_else(|| Failure::Unknown("no answer".to_owned()))?;
    Ok(LeaseKeepAliveResponse::decode(answer).expect("a server's answer can be read"))
}
