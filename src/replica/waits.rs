//! Those who wait, and for how long: a proposal or a read that has no outcome in time is told so, as at the end of the
//! server.

use super::{
    cycle::{Publication, Replica, Waiter},
    outputs::Outputs,
};
use crate::{
    apply::Tree,
    base::{Monotonic, Reject},
};

impl<T: Tree> Replica<T> {
    /// A heartbeat interval has passed: raft's clock moves, and those who waited too long are told.
    pub fn tick(&mut self, now: Monotonic, outputs: &mut Outputs) {
        self.consensus.tick();
        self.proposals.expire(now);
        let reject = self.timeout_reason(now);
        while let Some(waiter) = self.waiters.expire(now) {
            self.give_up(waiter, reject, outputs);
        }
        let timeout = u64::try_from(self.options.request_timeout.as_nanos()).unwrap_or(u64::MAX);
        let earliest = Monotonic(now.0.saturating_sub(timeout));
        while let Some(call) = self.reads.pop_expired(earliest) {
            self.reads_bytes -= call.memory_bytes();
            self.refused.reads += 1;
            outputs.refuse(call.ticket, Reject::Timeout);
        }
    }

    /// Why proposals whose time ends now had no outcome, as etcd tells it: their leader may have been lost.
    fn timeout_reason(&self, now: Monotonic) -> Reject {
        let proposed_at = now.0.saturating_sub(self.options.request_timeout.as_nanos() as u64);
        let lost_after = self
            .led_since
            .0
            .saturating_sub(2 * self.options.election_timeout.as_nanos() as u64);
        match lost_after < proposed_at && proposed_at < self.led_since.0 {
            true => Reject::TimeoutLeaderFail,
            false => Reject::Timeout,
        }
    }

    /// Ends all waits: the server stops.
    pub fn stop(&mut self, outputs: &mut Outputs) {
        for waiter in self.waiters.drain() {
            self.give_up(waiter, Reject::Stopped, outputs);
        }
        while let Some(call) = self.reads.pop_expired(Monotonic(u64::MAX)) {
            self.reads_bytes -= call.memory_bytes();
            outputs.refuse(call.ticket, Reject::Stopped);
        }
    }

    pub(super) fn give_up(&mut self, waiter: Waiter, reject: Reject, outputs: &mut Outputs) {
        self.refused.proposals += 1;
        match waiter {
            Waiter::Client { ticket, entry_bytes } => {
                self.waiting_bytes -= entry_bytes;
                outputs.refuse(ticket, reject);
            }
            Waiter::Held(ticket, reply) => outputs.replies.push((ticket, reply)),
            Waiter::Read(call) => outputs.refuse(call.ticket, reject),
            Waiter::Publication => self.publication = Publication::Due,
            Waiter::Own => {}
        }
    }
}
