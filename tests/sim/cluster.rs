//! One seed of a cluster: one, three or five members on machines of their own, clients that may ask any of them, crashes,
//! cuts and stalls; then everything is mended, and all members must come to the same state within bounded time, with
//! every acknowledged write in it.
//!
//! * `trouble`: what happens to it.
//! * `disks`: of that, what happens to disks.
//! * `rest`: how it comes to rest, and what is demanded of it then.

mod disks;
mod rest;
mod trouble;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use ringd::{
    host::Host,
    testing::{Links, Random, Sim, SimHost},
};

use crate::{
    check::{self, DRIFT_PPM_MAX},
    history::Recorder,
    leaders::Leaders,
    menu::{self, Menu},
    rot::Rot,
    scene::{Report, Watched, judge, plan, timing},
    server::{Server, ServerOptions, member_address},
    transport::{Mail, SimTransport},
    watcher::{self, Reached},
    workload::{Client, Plan},
};

struct Member {
    host: SimHost,
    /// `None` while it is down.
    server: Option<Server>,
    is_paused: bool,
    /// Whether any of its lives has made its files, synced, and begun to speak to others.
    is_born: Rc<Cell<bool>>,
    /// Its disk fails, now or in this life of its server: it may end by itself, and says why.
    is_disk_bad: bool,
    /// Damage on its disk.
    rot: Vec<Rot>,
}

struct Cluster {
    sim: Rc<Sim>,
    random: Random,
    menu: Menu,
    options: ServerOptions,
    links: Rc<Links<Mail>>,
    leaders: Rc<Leaders>,
    members: Vec<Member>,
    recorder: Recorder,
    auditor: SimHost,
    plan: Rc<Plan>,
    everything: Rc<Reached>,
    /// Of each stream of watchers, where they began and what they are to be told next.
    watchers: Vec<Watched>,
    /// How much of the trouble is the leader's.
    leader_share: f64,
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
            is_born: Rc::default(),
            is_disk_bad: false,
            rot: Vec::new(),
        })
        .collect();
    sim.set_timing(timing(&mut random));
    let options = ServerOptions::draw(&mut random).with_limits(menu::limits(&mut random));
    let plan = Plan {
        is_plain: random.chance(0.5),
        ..plan(&mut random)
    };
    let menu = Menu::draw(&mut random);
    let rounds = 4 + random.below(if is_small { 8 } else { 30 });
    let leader_share = [0.0, 0.5, 0.9][random.index(3)];
    let mut cluster = Cluster {
        links: Links::new(&sim),
        leaders: Rc::new(Leaders::new(&recorder)),
        auditor: sim.host("auditor"),
        sim: sim.clone(),
        random,
        menu,
        options,
        members,
        recorder: recorder.clone(),
        plan: Rc::new(plan),
        everything: Rc::default(),
        watchers: Vec::new(),
        leader_share,
        lives: 0,
        rounds,
    };
    let report = judge(&sim, &recorder, cluster.run());
    Report {
        fault: report.fault.map(|fault| format!("of {count}: {fault}")),
        lives: cluster.lives,
        ..report
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
        self.begin_watchers();
        self.begin_clients();
        let millis = self.random.below(3_000);
        self.pause(Duration::from_millis(millis)).await;
        for _ in 0..self.rounds {
            self.trouble().await?;
            self.look()?;
        }
        self.mend().await;
        self.pause(Duration::from_secs(2)).await;
        self.plan.is_open.set(false);
        self.rest().await?;
        self.close().await
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.members.len()).map(member_address).collect()
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
                members: self.addresses(),
            };
            machine.spawn(client.run());
        }
    }

    fn begin_watchers(&mut self) {
        let machine = self.sim.host("watchers");
        machine.spawn(watcher::watch_everything(
            machine.clone(),
            self.recorder.clone(),
            self.plan.clone(),
            self.everything.clone(),
            self.addresses(),
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
                self.addresses(),
            ));
        }
    }

    fn start(&mut self, place: usize) {
        self.lives += 1;
        let config = self.options.config_of_member(place, self.members.len());
        let transport = SimTransport {
            links: self.links.clone(),
            leaders: self.leaders.clone(),
            place,
            has_started: self.members[place].is_born.clone(),
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
                Some(Err(why)) if member.may_end(&why) => self.lose_machine(place),
                Some(outcome) => return Err(format!("member {place} ended by itself: {outcome:?}")),
            }
        }
        Ok(())
    }
}
