//! What only the primary does: it knows when leases end, renews them, and hands those that ended out for revocation.

use crate::base::planted::{Planted, is_planted};
use std::time::Duration;

use super::queue::Queue;
use super::{CHECKPOINT_INTERVAL, Lease, Leases, Lessor, REVOKE_RETRY, REVOKES_PER_SECOND};
use crate::base::{LeaseId, Monotonic};

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Renewed, for this many seconds.
    Renewed {
        /// The lease's TTL in seconds.
        ttl: i64,
    },
    /// A checkpoint has to be taken back first: propose one with nothing remaining for this lease, wait until it is
    /// applied, and renew again.
    ClearCheckpoint,
    /// The lease has ended and waits for its revocation: ask again when it is gone, or this member is not primary.
    AwaitRevocation,
    /// There is no such lease.
    NotFound,
    /// Another member is primary: ask it.
    NotPrimary,
}

/// What is known of a lease's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// Seconds left, whole ones; may be negative while a revocation is under way. `None` where this member is not
    /// primary and does not know.
    pub remaining: Option<i64>,
    /// The TTL that was granted, in seconds.
    pub granted: i64,
}

#[derive(Debug, Default)]
pub(super) struct Primary {
    pub(super) expiries: Queue,
    pub(super) checkpoints: Queue,
    pub(super) writes_checkpoints: bool,
}

impl Primary {
    /// Lets a lease run from now on.
    pub(super) fn admit(&mut self, id: LeaseId, lease: &mut Lease, now: Monotonic, extension: Duration) {
        let expiry = expiry_after(now, extension, lease.remaining_seconds());
        lease.expiry = Some(expiry);
        lease.queued_at = expiry;
        self.expiries.push(expiry, id);
    }

    pub(super) fn schedule_checkpoint(&mut self, id: LeaseId, lease: &mut Lease, now: Monotonic) {
        if self.writes_checkpoints && lease.remaining_seconds() > CHECKPOINT_INTERVAL.as_secs() as i64 {
            let at = now + CHECKPOINT_INTERVAL;
            // Replaces an earlier appointment, whose entry is skipped when it comes up, within the interval.
            lease.checkpoint_at = Some(at);
            self.checkpoints.push(at, id);
        }
    }

    pub(super) fn forget(&mut self, lease: &Lease, leases: &Leases) {
        self.expiries
            .note_stale(|at, id| leases.get(&id.0).is_some_and(|lease| lease.queued_at == at));
        if lease.checkpoint_at.is_some() {
            self.checkpoints
                .note_stale(|at, id| leases.get(&id.0).is_some_and(|lease| lease.checkpoint_at == Some(at)));
        }
    }
}

fn expiry_after(now: Monotonic, extension: Duration, seconds: i64) -> Monotonic {
    now + extension + Duration::from_secs(seconds.max(0) as u64)
}

impl Lessor {
    /// Whether this member decides when leases end.
    pub fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// Becomes primary. Every lease runs anew from now, `extension` (the election timeout) on top: a renewal may have
    /// reached the former primary just before it fell. Leases that would end together are spread, so that revoking them
    /// leaves a quarter of the revocation rate to others.
    pub fn promote(&mut self, extension: Duration, now: Monotonic) {
        let mut primary = Primary {
            writes_checkpoints: self.config.checkpoints,
            ..Primary::default()
        };
        for lease in self.leases.values_mut() {
            lease.expiry = Some(expiry_after(now, extension, lease.remaining_seconds()));
        }
        if self.leases.len() >= REVOKES_PER_SECOND {
            self.promote_spread(extension, now);
        }
        let mut entries = Vec::with_capacity(self.leases.len());
        for (id, lease) in &mut self.leases {
            lease.queued_at = lease.expiry.expect("the primary's leases have an expiry");
            lease.checkpoint_at = None;
            primary.schedule_checkpoint(LeaseId(*id), lease, now);
            entries.push((lease.queued_at, *id));
        }
        primary.expiries.fill(entries);
        self.primary = Some(primary);
    }

    /// Walks the leases in the order in which they end. Within a window (which begins as one second) the first 750 keep
    /// their time; the others are put off in proportion to how many there were, and the window grows with them.
    fn promote_spread(&mut self, extension: Duration, now: Monotonic) {
        const SECOND: i128 = 1_000_000_000;
        let per_second = (3 * REVOKES_PER_SECOND / 4) as i128;
        let remaining = |lease: &Lease| lease.expiry.map_or(u64::MAX, |expiry| expiry.0.saturating_sub(now.0)) as i128;
        let mut order: Vec<(i128, i64)> = self.leases.iter().map(|(id, lease)| (remaining(lease), *id)).collect();
        order.sort_unstable();

        let mut base = order[0].0;
        let mut window_end = base + SECOND;
        let mut count = 0;
        for (remaining, id) in order {
            if remaining > window_end {
                base = remaining;
                window_end = base + SECOND;
                count = 1;
                continue;
            }
            count += 1;
            if count <= per_second {
                continue;
            }
            // A lease that ends n seconds behind the window's base has its n seconds already.
            let delay = (SECOND * count / per_second - (remaining - base)).max(0);
            window_end = base + delay;
            let lease = self.leases.get_mut(&id).expect("listed from this table");
            let delay = Duration::from_nanos(u64::try_from(delay).unwrap_or(u64::MAX));
            lease.expiry = Some(expiry_after(now, extension + delay, lease.remaining_seconds()));
        }
    }

    /// Is no longer primary: leases end only when a revocation is applied.
    pub fn demote(&mut self) {
        self.primary = None;
        for lease in self.leases.values_mut() {
            lease.expiry = None;
            lease.checkpoint_at = None;
        }
    }

    /// Renews a lease for its whole TTL.
    #[inline]
    pub fn renew(&mut self, id: LeaseId, now: Monotonic) -> Renewal {
        let Some(primary) = &mut self.primary else {
            return Renewal::NotPrimary;
        };
        let Some(lease) = self.leases.get_mut(&id.0) else {
            return Renewal::NotFound;
        };
        if lease.expiry.is_some_and(|expiry| expiry <= now) {
            return Renewal::AwaitRevocation;
        }
        if lease.remaining > 0 && primary.writes_checkpoints {
            return Renewal::ClearCheckpoint;
        }
        let ttl = lease.ttl;
        let expiry = expiry_after(now, Duration::ZERO, ttl);
        lease.expiry = Some(expiry);
        // Almost always later than the entry in the queue, which then finds out when it comes up. Earlier only after a
        // promotion, whose extension a renewal takes back.
        if expiry < lease.queued_at {
            lease.queued_at = expiry;
            primary.expiries.push(expiry, id);
            let leases = &self.leases;
            primary
                .expiries
                .note_stale(|at, id| leases.get(&id.0).is_some_and(|lease| lease.queued_at == at));
        }
        self.totals.renewed += 1;
        Renewal::Renewed { ttl }
    }

    /// Hands out leases that have ended, `limit` at most, for their revocation to be proposed. One that is still there
    /// after [`REVOKE_RETRY`] is handed out again. Nothing on a member that is not primary.
    pub fn expired(&mut self, now: Monotonic, limit: usize) -> Vec<LeaseId> {
        if is_planted(Planted::LeaseImmortal) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        let Some(primary) = &mut self.primary else {
            return expired;
        };
        while expired.len() < limit {
            let Some((at, id)) = primary.expiries.pop_due(now) else {
                break;
            };
            let Some(lease) = self.leases.get_mut(&id.0).filter(|lease| lease.queued_at == at) else {
                primary.expiries.forget_stale();
                continue;
            };
            let expiry = lease.expiry.expect("the primary's leases have an expiry");
            let next = if expiry > now { expiry } else { now + REVOKE_RETRY };
            lease.queued_at = next;
            primary.expiries.push(next, id);
            if expiry <= now {
                expired.push(id);
            }
        }
        expired
    }

    /// When [`Lessor::expired`] may next have something to say; `None` if never as things stand.
    pub fn next_expiry(&self) -> Option<Monotonic> {
        self.primary.as_ref()?.expiries.first()
    }

    /// What is left of a lease; `None` if there is none of this id.
    pub fn time_to_live(&self, id: LeaseId, now: Monotonic) -> Option<TimeToLive> {
        let lease = self.leases.get(&id.0)?;
        let remaining = lease.expiry.map(|expiry| {
            let nanos = i128::from(expiry.0) - i128::from(now.0);
            // Towards zero, as a duration's whole seconds are taken.
            i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX)
        });
        Some(TimeToLive {
            remaining,
            granted: lease.ttl,
        })
    }

    /// Entries in the primary's queues, live and stale, for its memory to be judged.
    pub fn queued(&self) -> usize {
        self.primary
            .as_ref()
            .map_or(0, |primary| primary.expiries.len() + primary.checkpoints.len())
    }
}
