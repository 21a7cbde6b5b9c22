//! What happens to a cluster: ends of lives, cuts, stalls, and leaders that are moved, cut off or stopped while clients go
//! on asking them.

use std::time::Duration;

use raft::eraftpb::{Message, MessageType};
use ringd::{
    host::Host,
    testing::{DiskFaults, Faults, LinkFaults, SimHost, Unsynced},
};

use super::Cluster;
use crate::{
    check::{self, DRIFT_PPM_MAX},
    founding::is_unfounded,
    server::check_directory,
    transport::Mail,
    workload::within,
};

pub(super) const STOP_LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Something happens, and time passes.
    pub(super) async fn trouble(&mut self) -> Result<(), String> {
        let place = self.victim();
        let other = self.random.index(self.members.len());
        match self.random.below(26) {
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
            6..=7 => self.isolate(place),
            8..=9 => self.mend_ways(),
            10 if self.menu.pauses => self.pause_machine(place),
            11 => {
                let faults = self.menu.spell(&mut self.random);
                self.sim.set_faults(&self.members[place].host, faults);
            }
            12..=13 => self.draw_link_faults(),
            14 if self.menu.clocks => self.move_clock(place),
            15..=16 => self.move_leader(other).await,
            17 => self.depose().await,
            18 => self.depose_twice().await,
            19 => self.fail_while_stalled(place).await,
            20 => self.break_disk(place),
            21..=23 => self.strand(place).await,
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

    /// Whom it happens to: anybody, or the leader.
    fn victim(&mut self) -> usize {
        let place = self.random.index(self.members.len());
        match self.leaders.newest() {
            Some((_, leader)) if self.random.chance(self.leader_share) => leader,
            _ => place,
        }
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
            let is_due = |error: &String| error.contains(" by another process") || self.members[place].may_end(error);
            if let Some(Err(error)) = server.outcome().filter(|outcome| !outcome.as_ref().is_err_and(is_due)) {
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
        if !findings.is_empty() {
            let member = &self.members[place];
            // Its first life was cut short. That it begins again by itself is what the end of the story demands.
            if !member.is_born.get() && is_unfounded(&member.host).await {
                return Ok(());
            }
            return Err(format!("member {place} left a damaged directory: {findings}"));
        }
        self.damage(place).await;
        Ok(())
    }

    /// What `ringd check` says of a member that is down, as soon as nobody holds its files.
    pub(super) async fn look_at(&self, host: &SimHost) -> String {
        for _ in 0..64 {
            let findings = check_directory(host).await;
            if !findings.contains(" is in use: ") {
                return findings;
            }
            self.pause(Duration::from_millis(200)).await;
        }
        "its files are held by nobody who lives".to_owned()
    }

    /// The power of a machine fails, and is back at once.
    fn restart(&mut self, place: usize, unsynced: Unsynced) {
        self.resume(place);
        if let Some(server) = self.members[place].server.take() {
            self.sim.crash_with(&server.host, unsynced);
            self.members[place].host = self.sim.restart(&server.host);
        }
    }

    /// The power of all machines fails at once.
    async fn restart_all(&mut self) {
        for place in 0..self.members.len() {
            self.restart(place, Unsynced::Torn);
        }
    }

    /// A member is cut off from the others: both ways, or one, so that it speaks and does not hear, or hears only.
    fn isolate(&mut self, place: usize) {
        let way = self.random.below(4);
        let victim = &self.members[place].host;
        for member in &self.members {
            if member.host.machine() == victim.machine() {
                continue;
            }
            match way {
                0 => self.sim.cut(&member.host, victim),
                1 => self.sim.cut(victim, &member.host),
                _ => self.sim.partition(&member.host, victim),
            }
        }
    }

    pub(super) fn mend_ways(&self) {
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

    pub(super) fn resume(&mut self, place: usize) {
        if std::mem::take(&mut self.members[place].is_paused) {
            self.sim.resume(&self.members[place].host);
        }
    }

    fn draw_link_faults(&mut self) {
        let longest = [50, 1_000, 4_000][self.random.index(3)];
        let faults = LinkFaults {
            loss: [0.0, 0.02, 0.2][self.random.index(3)],
            delay: [0.0, 0.05, 0.5][self.random.index(3)],
            delay_for: Duration::from_millis(1 + self.random.below(longest)),
            is_unordered: self.random.chance(0.5),
        };
        self.links.set_faults(faults);
    }

    /// A machine's clock runs otherwise from now on, and its time of day jumps.
    fn move_clock(&mut self, place: usize) {
        let drift = self.random.below(2 * DRIFT_PPM_MAX as u64) as i32 - DRIFT_PPM_MAX;
        let jump = self.random.below(20_000_000_000) as i64 - 10_000_000_000;
        self.sim.set_clock(&self.members[place].host, check::clock(drift, jump));
    }

    /// The leader is asked to hand over, and may be cut off before, or soon after it has begun.
    async fn move_leader(&mut self, place: usize) {
        let Some(((leader, from), target)) = self.leaders.newest().zip(self.leaders.member(place)) else {
            return;
        };
        let message = Message {
            msg_type: MessageType::MsgTransferLeader,
            from: target.0,
            to: leader.0,
            ..Message::default()
        };
        let auditor = self.auditor.clone();
        self.links
            .send(&auditor, leader.0, Mail::Message(message), leader.0, || {});
        let limit = [1_000, 20_000][self.random.index(2)];
        let micros = self.random.below(limit);
        self.pause(Duration::from_micros(micros)).await;
        match self.random.below(4) {
            0 => self.isolate(from),
            1 => self.pause_machine(from),
            _ => {}
        }
    }

    /// A member is cut off from the others, not from its clients, for long enough that another leads if it did; then it hears
    /// all at once what it has missed.
    async fn strand(&mut self, place: usize) {
        self.isolate(place);
        let millis = (1 + self.random.below(3)) * self.options.election_timeout().as_millis() as u64;
        self.pause(Duration::from_millis(millis)).await;
        self.mend_ways();
    }

    /// The leader is cut off, and while another is elected the power of a third one fails.
    async fn depose(&mut self) {
        let Some((_, leader)) = self.leaders.newest() else {
            return;
        };
        self.isolate(leader);
        let patience = 2 * self.options.election_timeout().as_millis() as u64;
        for _ in 0..1 + self.random.below(3) {
            let millis = self.random.below(patience);
            self.pause(Duration::from_millis(millis)).await;
            let place = self.random.index(self.members.len());
            if place != leader && self.members[place].server.is_some() {
                self.restart(place, Unsynced::Torn);
                self.start(place);
            }
        }
    }

    /// The leader is cut off, another is elected by members whose disks are slow, and cut off in its turn, while the power
    /// of those who elected it fails: what they have promised it must be there when the first one is back and asks them.
    async fn depose_twice(&mut self) {
        let Some((_, first)) = self.leaders.newest() else {
            return;
        };
        self.mend_ways();
        self.isolate(first);
        let stalls = Faults {
            disk: DiskFaults {
                stall: 1.0,
                stall_for: Duration::from_millis(1 + self.random.below(1_000)),
                ..DiskFaults::default()
            },
            ..Faults::default()
        };
        self.set_faults_of_all(&stalls);
        let until = self.auditor.now() + 6 * self.options.election_timeout() + Duration::from_secs(3);
        let second = loop {
            match self.leaders.newest() {
                Some((_, leader)) if leader != first => break Some(leader),
                _ if self.auditor.now() > until => break None,
                _ => self.pause(Duration::from_millis(2)).await,
            }
        };
        self.set_faults_of_all(&Faults::default());
        let Some(second) = second else {
            return;
        };
        self.mend_ways();
        self.isolate(second);
        for place in 0..self.members.len() {
            if place != first && place != second && self.members[place].server.is_some() {
                let unsynced = [Unsynced::Lost, Unsynced::Torn][self.random.index(2)];
                self.restart(place, unsynced);
                self.start(place);
            }
        }
    }

    fn set_faults_of_all(&self, faults: &Faults) {
        for member in &self.members {
            self.sim.set_faults(&member.host, faults.clone());
        }
    }

    /// The power of a machine fails while its disk takes long for all that it was given.
    async fn fail_while_stalled(&mut self, place: usize) {
        let stalls = Faults {
            disk: DiskFaults {
                stall: [0.3, 1.0][self.random.index(2)],
                stall_for: Duration::from_millis(100 + self.random.below(1_000)),
                ..DiskFaults::default()
            },
            ..Faults::default()
        };
        self.sim.set_faults(&self.members[place].host, stalls);
        let millis = self.random.below(600);
        self.pause(Duration::from_millis(millis)).await;
        self.sim.set_faults(&self.members[place].host, Faults::default());
        if self.members[place].server.is_some() {
            let unsynced = [Unsynced::Lost, Unsynced::Torn][self.random.index(2)];
            self.restart(place, unsynced);
            self.start(place);
        }
    }

    pub(super) async fn end_soundly(&mut self, place: usize) -> Result<(), String> {
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
