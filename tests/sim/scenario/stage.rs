//! The cluster on which a scenario is played: its members, their machines, and what is seen of them.

use std::{collections::BTreeMap, path::Path, rc::Rc, time::Duration};

use ringd::{
    host::{Disk, Host},
    testing::{Clock, DiskFaults, Faults, Links, Sim, SimHost, Unsynced},
    wire::proto::etcdserverpb::{HashKvRequest, HashKvResponse, StatusRequest, StatusResponse},
};

use super::{
    actor::{Client, Watcher, look},
    steps::{Condition, DiskState, Scenario},
};
use crate::{
    history::Recorder,
    leaders::Leaders,
    server::{Server, ServerOptions, check_directory, member_address},
    transport::{Mail, SimTransport},
    workload::within,
};

const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long one look at a member may take.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
/// A disk without room: no file may grow.
const FULL: u64 = 1;
const DATABASE_PAGE_BYTES: u64 = 4096;

/// A member and its machine.
pub struct Member {
    /// Its machine, in its present or last life.
    pub host: SimHost,
    /// `None` while it is down.
    pub server: Option<Server>,
    /// Its id, once it has said it.
    id: Option<u64>,
    clock: Clock,
    /// Whether its disk is such that it may end by itself.
    may_fail: bool,
}

/// Everything that a scenario acts on.
pub struct Stage {
    pub sim: Rc<Sim>,
    pub members: Vec<Member>,
    pub clients: BTreeMap<String, Client>,
    pub watchers: BTreeMap<String, Watcher>,
    pub auditor: SimHost,
    /// Puts of the last `fill` that were acknowledged.
    pub acknowledged: i64,
    links: Rc<Links<Mail>>,
    /// Notes what may not be, whoever sees it.
    recorder: Recorder,
    leaders: Rc<Leaders>,
    options: ServerOptions,
    names: BTreeMap<String, usize>,
}

impl Stage {
    /// Machines with empty disks, nothing running.
    pub fn new(sim: &Rc<Sim>, scenario: &Scenario) -> Stage {
        let members = (0..scenario.members).map(|place| Member {
            host: sim.host(&format!("m{place}")),
            server: None,
            id: None,
            clock: Clock::default(),
            may_fail: false,
        });
        let recorder = Recorder::new(sim);
        Stage {
            leaders: Rc::new(Leaders::new(&recorder)),
            recorder,
            members: members.collect(),
            links: Links::new(sim),
            auditor: sim.host("auditor"),
            acknowledged: 0,
            sim: sim.clone(),
            clients: BTreeMap::new(),
            watchers: BTreeMap::new(),
            options: ServerOptions::fixed(&scenario.flags, scenario.segment_bytes),
            names: (0..scenario.members)
                .map(|place| (format!("m{place}"), place))
                .collect(),
        }
    }

    /// The place of a member of that name.
    pub fn place(&self, name: &str) -> Result<usize, String> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| format!("nobody is called {name}"))
    }

    /// The places of members of these names; `all` stands for all.
    pub fn places(&self, names: &[String]) -> Result<Vec<usize>, String> {
        match names {
            [all] if all == "all" => Ok((0..self.members.len()).collect()),
            names => names.iter().map(|name| self.place(name)).collect(),
        }
    }

    pub fn name(&mut self, name: &str, place: usize) {
        self.names.insert(name.to_owned(), place);
    }

    pub async fn pause(&self, duration: Duration) {
        self.auditor.sleep_until(self.auditor.now() + duration).await;
    }

    /// A client's machine, which it has for itself.
    pub fn client(&mut self, name: &str) -> &mut Client {
        let host = self.sim.host(&format!("client {name}"));
        self.clients.entry(name.to_owned()).or_insert_with(|| Client::new(host))
    }

    /// Starts a member on its disk, as it is.
    pub fn start(&mut self, place: usize) -> Result<(), String> {
        let member = &mut self.members[place];
        if let Some(server) = member.server.take()
            && server.host.is_alive()
        {
            if server.outcome().is_none() {
                return Err(format!("m{place} runs already"));
            }
            self.sim.kill(&member.host);
        }
        if !member.host.is_alive() {
            member.host = self.sim.restart(&member.host);
        }
        let config = self.options.config_of_member(place, self.members.len());
        let transport = SimTransport {
            links: self.links.clone(),
            leaders: self.leaders.clone(),
            place,
            has_started: Rc::default(),
        };
        let member = &mut self.members[place];
        member.server = Some(Server::start_with(&member.host, &self.options, config, transport));
        Ok(())
    }

    /// Stops a member in peace.
    pub async fn stop(&mut self, place: usize) -> Result<(), String> {
        let server = self.members[place].server.take().ok_or("it is down")?;
        server.request_stop();
        if within(&self.auditor, STOP_LIMIT, server.ended()).await.is_none() {
            return Err(format!("m{place} did not stop"));
        }
        if let Some(Err(error)) = server.outcome() {
            return Err(format!("m{place} did not stop in peace: {error}"));
        }
        self.sim.kill(&server.host);
        Ok(())
    }

    /// Kills a member's process, or with a word about what was not synced cuts its machine's power.
    pub fn end(&mut self, place: usize, unsynced: Option<Unsynced>) -> Result<(), String> {
        let server = self.members[place].server.take().ok_or("it is down")?;
        match unsynced {
            None => self.sim.kill(&server.host),
            Some(unsynced) => self.sim.crash_with(&server.host, unsynced),
        }
        Ok(())
    }

    pub fn set_disk(&mut self, place: usize, state: DiskState) {
        let mut disk = DiskFaults::default();
        match state {
            DiskState::Sound => {}
            DiskState::Fails => (disk.write_error, disk.sync_error) = (1.0, 1.0),
            DiskState::SyncFails => disk.sync_error = 1.0,
            DiskState::Stalls(duration) => (disk.stall, disk.stall_for) = (1.0, duration),
            DiskState::Full => disk.capacity_bytes = Some(FULL),
        }
        let member = &mut self.members[place];
        member.may_fail |= matches!(state, DiskState::Fails | DiskState::SyncFails | DiskState::Full);
        let faults = Faults {
            disk,
            ..Faults::default()
        };
        self.sim.set_faults(&member.host, faults);
    }

    pub fn change_clock(&mut self, place: usize, change: impl FnOnce(&mut Clock)) {
        let member = &mut self.members[place];
        change(&mut member.clock);
        self.sim.set_clock(&member.host, member.clock);
    }

    pub fn isolate(&self, place: usize) {
        for other in 0..self.members.len() {
            if other != place {
                self.sim.partition(&self.members[place].host, &self.members[other].host);
            }
        }
    }

    pub fn heal(&self) {
        for one in &self.members {
            for two in &self.members {
                if one.host.machine() != two.host.machine() {
                    self.sim.mend(&one.host, &two.host);
                }
            }
        }
    }

    /// A process that has ended takes its connections with it.
    pub fn bury(&mut self) {
        for member in &self.members {
            let has_ended = |server: &Server| server.outcome().is_some() && server.host.is_alive();
            if member.server.as_ref().is_some_and(has_ended) {
                self.sim.kill(&member.host);
            }
        }
    }

    /// Turns a bit over in the database of a member that is down.
    pub fn rot(&mut self, place: usize, page: u64) -> Result<(), String> {
        self.members[place].may_fail = true;
        let path = Path::new("/data/member/snap/db");
        let offset = page * DATABASE_PAGE_BYTES + 20;
        let flipped = self.sim.flip(&self.members[place].host, path, offset, 1);
        flipped.map_err(|error| error.to_string())
    }

    /// A server that ended although its machine is sound is a finding.
    pub fn look_after(&self) -> Result<(), String> {
        if let Some(fault) = self.recorder.fault() {
            return Err(fault);
        }
        for (place, member) in self.members.iter().enumerate() {
            if let Some(outcome) = member.server.as_ref().and_then(Server::outcome)
                && !member.may_fail
            {
                return Err(format!("m{place} ended by itself: {outcome:?}"));
            }
        }
        Ok(())
    }

    /// What a member says of itself, if it says anything.
    pub async fn status(&mut self, place: usize) -> Option<StatusResponse> {
        let path = "/etcdserverpb.Maintenance/Status";
        let address = member_address(place);
        let status: Option<StatusResponse> = look(&self.auditor, address, path, &StatusRequest {}, LOOK_LIMIT).await;
        let id = status.as_ref().and_then(|status| status.header.as_ref());
        if let Some(header) = id {
            self.members[place].id = Some(header.member_id);
        }
        status
    }

    /// Who leads, as a member sees it: a place, or `None` for nobody. The outer `None`: it does not say.
    async fn leader_at(&mut self, place: usize) -> Option<Option<usize>> {
        let leader = self.status(place).await?.leader;
        if leader == 0 {
            return Some(None);
        }
        let known = self.members.iter().position(|member| member.id == Some(leader));
        known.map(Some)
    }

    /// The leader that all members who are up agree on.
    pub async fn common_leader(&mut self) -> Option<usize> {
        let mut leaders = Vec::new();
        for place in 0..self.members.len() {
            if self.members[place].server.is_some() {
                leaders.push(self.status(place).await?.leader);
            }
        }
        leaders.dedup();
        match leaders[..] {
            [leader] => self.members.iter().position(|member| member.id == Some(leader)),
            _ => None,
        }
    }

    /// Whether a condition holds; if not, what is seen instead.
    pub async fn holds(&mut self, condition: &Condition) -> Result<Result<(), String>, String> {
        let is_met = |is_met: bool, seen: String| if is_met { Ok(()) } else { Err(seen) };
        Ok(match condition {
            Condition::Leader { leader, at } => {
                let (leader, at) = (self.place(leader)?, self.place(at)?);
                let seen = self.leader_at(at).await;
                is_met(seen == Some(Some(leader)), format!("leader {seen:?}"))
            }
            Condition::OtherLeader { than, at } => {
                let (than, at) = (self.place(than)?, self.place(at)?);
                let seen = self.leader_at(at).await;
                let is_other = matches!(seen, Some(Some(leader)) if leader != than);
                is_met(is_other, format!("leader {seen:?}"))
            }
            Condition::NoLeader(at) => {
                let at = self.place(at)?;
                let seen = self.leader_at(at).await;
                is_met(seen == Some(None), format!("leader {seen:?}"))
            }
            Condition::Revision(at, wanted) => {
                let at = self.place(at)?;
                let status = self.status(at).await;
                let seen = status.and_then(|status| Some(status.header?.revision));
                is_met(seen == Some(*wanted), format!("revision {seen:?}"))
            }
            Condition::Down(name, words) => {
                let outcome = self.members[self.place(name)?]
                    .server
                    .as_ref()
                    .and_then(Server::outcome);
                let is_down = matches!(&outcome, Some(Err(error)) if error.contains(words.as_str()));
                is_met(is_down, format!("{outcome:?}"))
            }
            Condition::Crashed(name) => {
                let is_alive = self.members[self.place(name)?].host.is_alive();
                is_met(!is_alive, "it lives".to_owned())
            }
            Condition::EqualHash => {
                let seen = self.hashes().await;
                let is_equal = seen.windows(2).all(|pair| pair[0] == pair[1]);
                is_met(is_equal && seen.iter().all(Option::is_some), format!("{seen:?}"))
            }
            Condition::Sound(name) => {
                let place = self.place(name)?;
                let findings = self.findings(place).await;
                is_met(findings.is_empty(), findings)
            }
            Condition::HasFile(name, ending) => {
                let place = self.place(name)?;
                let files = self.files(place).await;
                is_met(
                    files.iter().any(|file| file.ends_with(ending.as_str())),
                    format!("{files:?}"),
                )
            }
        })
    }

    /// Of each member that is up: applied index, revision and hash.
    async fn hashes(&mut self) -> Vec<Option<(u64, i64, u32)>> {
        let mut seen = Vec::new();
        for place in 0..self.members.len() {
            if self.members[place].server.is_none() {
                continue;
            }
            let status = self.status(place).await;
            let path = "/etcdserverpb.Maintenance/HashKV";
            let request = HashKvRequest { revision: 0 };
            let hash: Option<HashKvResponse> =
                look(&self.auditor, member_address(place), path, &request, LOOK_LIMIT).await;
            seen.push(status.zip(hash).map(|(status, hash)| {
                let revision = hash.header.map_or(0, |header| header.revision);
                (status.raft_applied_index, revision, hash.hash)
            }));
        }
        seen
    }

    /// What `ringd check` says of a member that is down, when nobody holds its files any more.
    pub async fn findings(&mut self, place: usize) -> String {
        let member = &mut self.members[place];
        if member.server.is_some() && member.host.is_alive() {
            return "it is up".to_owned();
        }
        if !member.host.is_alive() {
            member.host = self.sim.restart(&member.host);
            member.server = None;
        }
        let host = member.host.clone();
        for _ in 0..64 {
            let findings = check_directory(&host).await;
            if !findings.contains(" is in use: ") {
                return findings;
            }
            self.pause(Duration::from_millis(200)).await;
        }
        "its files are held by nobody who lives".to_owned()
    }

    async fn files(&self, place: usize) -> Vec<String> {
        let disk = self.members[place].host.disk();
        let mut files = Vec::new();
        for directory in ["/data/member/snap", "/data/member/wal"] {
            files.extend(disk.list(Path::new(directory)).await.unwrap_or_default());
        }
        files
    }
}
