//! Leases: who may hold keys for how long. Every member keeps the same leases with the same keys, by applying the same
//! entries; only the *primary* (the leader's lessor) knows when they end, and asks for the revocation of those that
//! did. Time is an argument everywhere.
//!
//! ```text
//!            grant                    keys: attach, detach, taken back in sorted order by a revocation
//!              │
//!              ▼
//!   ┌──── not primary ────┐ promote: now + extension + TTL (or what a checkpoint left of it)
//!   │  expiry = never     │ ──────────────────────────────────▶ primary: expiry in the queue, renewals move it
//!   └─────────────────────┘ ◀────────────────────────────────── demote
//! ```
//!
//! Knows nothing of the tree (what is to be stored comes back as bytes, see [`record`]), of proposals, or of streams.
//! Invariants: a key is attached to one lease at most; on the primary every lease has exactly one live entry in the
//! expiry queue, on others none.

mod attachments;
mod checkpoint;
mod primary;
mod queue;
pub mod record;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::{LeaseId, Monotonic, Reject};
use crate::wire::proto::leasepb;

use attachments::Attachments;
use primary::Primary;
pub use primary::{Renewal, TimeToLive};

/// Longest TTL in seconds (about 285 years; etcd's bound).
pub const TTL_MAX_SECONDS: i64 = 9_000_000_000;
/// How often the primary looks for leases that have ended.
pub const EXPIRY_TICK: Duration = Duration::from_millis(500);
/// Leases that may be revoked per second.
pub const REVOKES_PER_SECOND: usize = 1000;
/// Leases that one tick may hand out for revocation.
pub const REVOKES_PER_TICK: usize = REVOKES_PER_SECOND / 2;
/// Revocations that may be proposed and not yet applied.
pub const REVOKES_PENDING_MAX: usize = 16;
/// A lease that was handed out and is still there after this time is handed out again.
pub const REVOKE_RETRY: Duration = Duration::from_secs(3);
/// How often what is left of a long lease is written to the log.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Checkpoints in one proposal.
pub const CHECKPOINTS_PER_PROPOSAL: usize = 1000;
/// Proposals of checkpoints per tick.
pub const CHECKPOINT_PROPOSALS_PER_TICK: usize = 500;

const _: () = assert!(REVOKES_PER_TICK * 2 == REVOKES_PER_SECOND);

/// The shortest TTL that is granted, in seconds: one and a half election timeouts, rounded up.
pub fn ttl_floor_seconds(election_ticks: u32, heartbeat: Duration) -> i64 {
    let floor = heartbeat * (3 * election_ticks / 2);
    i64::try_from(floor.as_nanos().div_ceil(1_000_000_000)).unwrap_or(TTL_MAX_SECONDS)
}

/// What the operator decides about leases.
#[derive(Clone, Copy, Debug)]
pub struct LessorConfig {
    /// The shortest TTL, in seconds; shorter ones are raised to it. See [`ttl_floor_seconds`].
    pub ttl_floor_seconds: i64,
    /// Whether the primary writes checkpoints.
    pub checkpoints: bool,
    /// Whether checkpoints are stored. From cluster version 3.6 on they always are, whatever is said here.
    pub checkpoints_persist: bool,
    /// Seed of the hash tables, from the host's entropy: lease ids and keys are chosen by clients.
    pub hash_seed: u64,
}

impl Default for LessorConfig {
    fn default() -> LessorConfig {
        LessorConfig {
            ttl_floor_seconds: ttl_floor_seconds(10, Duration::from_millis(100)),
            checkpoints: false,
            checkpoints_persist: false,
            hash_seed: 0,
        }
    }
}

/// A lease as every member has it.
#[derive(Clone, Debug)]
struct Lease {
    ttl: i64,
    /// What was left at the last checkpoint, in seconds; 0 for no checkpoint: the whole TTL counts.
    remaining: i64,
    /// When it ends, on the primary.
    expiry: Option<Monotonic>,
    /// The time of its live entry in the expiry queue.
    queued_at: Monotonic,
    /// The time of its live entry in the checkpoint queue.
    checkpoint_at: Option<Monotonic>,
    keys: Vec<Arc<[u8]>>,
}

impl Lease {
    fn new(ttl: i64, remaining: i64) -> Lease {
        Lease {
            ttl,
            remaining,
            expiry: None,
            queued_at: Monotonic(0),
            checkpoint_at: None,
            keys: Vec::new(),
        }
    }

    /// What a renewal or promotion grants, in seconds.
    fn remaining_seconds(&self) -> i64 {
        match self.remaining {
            1.. => self.remaining,
            _ => self.ttl,
        }
    }
}

type Leases = HashMap<i64, Lease, FixedState>;

/// All leases of a member.
#[derive(Debug)]
pub struct Lessor {
    config: LessorConfig,
    leases: Leases,
    attachments: Attachments,
    primary: Option<Primary>,
    totals: Totals,
}

/// A lease that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The TTL after it was raised to the floor, in seconds.
    pub ttl: i64,
    /// What is to be stored under [`record::key`].
    pub record: Bytes,
}

/// What a lessor has done, as etcd counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Leases granted.
    pub granted: u64,
    /// Leases revoked, on demand or because they ended.
    pub revoked: u64,
    /// Renewals.
    pub renewed: u64,
    granted_ttls: Vec<i64>,
}

impl Lessor {
    /// A lessor without leases, not primary.
    pub fn new(config: LessorConfig) -> Lessor {
        let hasher = FixedState::with_seed(config.hash_seed);
        Lessor {
            config,
            leases: HashMap::with_hasher(hasher.clone()),
            attachments: Attachments::new(hasher),
            primary: None,
            totals: Totals::default(),
        }
    }

    /// What was done since the lessor was made.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// TTLs granted since this was asked last, in seconds.
    pub fn take_granted_ttls(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.totals.granted_ttls)
    }

    /// Takes a stored lease in, at start-up, before any key is attached.
    pub fn restore(&mut self, stored: leasepb::Lease) {
        let ttl = stored.ttl.max(self.config.ttl_floor_seconds);
        self.leases.insert(stored.id, Lease::new(ttl, stored.remaining_ttl));
    }

    /// Grants a lease. `now` counts only on the primary.
    ///
    /// Refuses id 0 ([`Reject::LeaseNotFound`]: the proposer replaces it), a TTL above [`TTL_MAX_SECONDS`], and an id
    /// that is taken, in this order.
    pub fn grant(&mut self, id: LeaseId, ttl: i64, now: Monotonic) -> Result<Granted, Reject> {
        if id.0 == 0 {
            return Err(Reject::LeaseNotFound);
        }
        if ttl > TTL_MAX_SECONDS {
            return Err(Reject::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id.0) {
            return Err(Reject::LeaseExists);
        }
        let ttl = ttl.max(self.config.ttl_floor_seconds);
        let mut lease = Lease::new(ttl, 0);
        if let Some(primary) = &mut self.primary {
            primary.admit(id, &mut lease, now, Duration::ZERO);
            primary.schedule_checkpoint(id, &mut lease, now);
        }
        self.leases.insert(id.0, lease);
        self.totals.granted += 1;
        self.totals.granted_ttls.push(ttl);
        Ok(Granted {
            ttl,
            record: record::encode(id, ttl, 0),
        })
    }

    /// The keys that a revocation deletes, sorted. Refuses with [`Reject::LeaseNotFound`].
    pub fn keys_sorted(&self, id: LeaseId) -> Result<Vec<Arc<[u8]>>, Reject> {
        let lease = self.leases.get(&id.0).ok_or(Reject::LeaseNotFound)?;
        let mut keys = lease.keys.clone();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Forgets a lease. Its keys must have been deleted, and detached with that.
    pub fn remove(&mut self, id: LeaseId) {
        let lease = self.leases.remove(&id.0).expect("only leases that exist are removed");
        assert!(lease.keys.is_empty(), "a lease is removed after its keys");
        self.totals.revoked += 1;
        if let Some(primary) = &mut self.primary {
            primary.forget(&lease, &self.leases);
        }
    }

    /// Notes what was left of a lease, in seconds. What is to be stored comes back, if anything is: that depends on
    /// the configuration and on the cluster's version (`cluster_stores`, from 3.6 on). A lease that is gone is ignored.
    pub fn checkpoint(&mut self, id: LeaseId, remaining: i64, cluster_stores: bool, now: Monotonic) -> Option<Bytes> {
        let lease = self.leases.get_mut(&id.0)?;
        lease.remaining = remaining;
        if let Some(primary) = &mut self.primary {
            primary.schedule_checkpoint(id, lease, now);
        }
        let is_stored = self.config.checkpoints_persist || cluster_stores;
        is_stored.then(|| record::encode(id, lease.ttl, remaining))
    }

    /// Whether the lease exists.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id.0)
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// How many keys are attached to leases.
    pub fn attached_keys(&self) -> usize {
        self.attachments.len()
    }

    /// The lease that a key is attached to; 0 for none.
    pub fn lease_of(&self, key: &[u8]) -> LeaseId {
        self.attachments.lease_of(key)
    }

    /// A key was written with this lease (0 for none): it leaves the lease that it had, and joins this one. A lease
    /// that does not exist takes no keys, as etcd has it when it restores.
    #[inline]
    pub fn attach(&mut self, key: &[u8], id: LeaseId) {
        if id.0 == 0 && self.attachments.is_empty() {
            return;
        }
        self.attachments.attach(&mut self.leases, key, id);
    }

    /// A key was deleted.
    #[inline]
    pub fn detach(&mut self, key: &[u8]) {
        if !self.attachments.is_empty() {
            self.attachments.detach(&mut self.leases, key);
        }
    }

    /// All leases, those that end first at the front; by id where that says nothing (on members that are not primary).
    pub fn leases(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> = self.leases.iter().map(|(id, lease)| (lease.expiry, *id)).collect();
        // Without an expiry a lease never ends, so it sorts behind those that do.
        leases.sort_unstable_by_key(|(expiry, id)| (expiry.unwrap_or(Monotonic(u64::MAX)), *id));
        leases.into_iter().map(|(_, id)| LeaseId(id)).collect()
    }
}
