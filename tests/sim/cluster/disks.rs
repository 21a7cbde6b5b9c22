//! What happens to the disks of a cluster's members: they fail, fill up, and what is on them is damaged.

use ringd::testing::{Faults, Unsynced};

use super::{Cluster, Member};
use crate::{menu, rot};

impl Member {
    /// Whether its disk is a reason to end for, and the words say so.
    pub(super) fn may_end(&self, why: &str) -> bool {
        self.is_disk_bad && menu::is_clear(why) || !self.rot.is_empty() && rot::is_precise(why)
    }
}

impl Cluster {
    /// Some of what a member that is down has on its disk is damaged. Of several members a minority may be so at a time:
    /// what a majority lost nobody has.
    pub(super) async fn damage(&mut self, place: usize) {
        let damaged = self.members.iter().filter(|member| !member.rot.is_empty()).count();
        let is_minority = 2 * (damaged + 1) < self.members.len();
        if self.menu.damage && is_minority && self.random.chance(0.15) {
            let host = self.members[place].host.clone();
            self.members[place].rot = rot::draw(&self.sim, &host, &mut self.random).await;
        }
    }

    /// Something that a member's disk cannot do any more. The member ends when it notices; others go on without it.
    pub(super) fn break_disk(&mut self, place: usize) {
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
    pub(super) fn lose_machine(&mut self, place: usize) {
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
    pub(super) async fn mend_disk(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.is_disk_bad = false;
        self.sim.set_faults(&member.host, Faults::default());
        rot::undo(&self.sim, &member.host, &mut member.rot).await;
    }
}
