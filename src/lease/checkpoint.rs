//! Checkpoints: what is left of long leases is written to the log now and then, so that a new primary does not grant
//! them their whole TTL again.

use super::{CHECKPOINT_INTERVAL, Lessor};
use crate::base::Monotonic;
use crate::wire::proto::etcdserverpb::LeaseCheckpoint;

impl Lessor {
    /// What is to be proposed now, `limit` leases at most. Each comes up again after [`CHECKPOINT_INTERVAL`], whether or
    /// not its proposal gets through.
    pub fn checkpoints_due(&mut self, now: Monotonic, limit: usize) -> Vec<LeaseCheckpoint> {
        let mut due = Vec::new();
        let Some(primary) = &mut self.primary else {
            return due;
        };
        while due.len() < limit {
            let Some((at, id)) = primary.checkpoints.pop_due(now) else {
                break;
            };
            let Some(lease) = self
                .leases
                .get_mut(&id.0)
                .filter(|lease| lease.checkpoint_at == Some(at))
            else {
                primary.checkpoints.forget_stale();
                continue;
            };
            let next = now + CHECKPOINT_INTERVAL;
            lease.checkpoint_at = Some(next);
            primary.checkpoints.push(next, id);
            let left = lease.expiry.map_or(0, |expiry| expiry.0.saturating_sub(now.0));
            let remaining_ttl = left.div_ceil(1_000_000_000) as i64;
            // One that has ended is revoked instead; one that was just renewed has its whole TTL.
            if left > 0 && remaining_ttl < lease.ttl {
                due.push(LeaseCheckpoint {
                    id: id.0,
                    remaining_ttl,
                });
            }
        }
        due
    }
}
