//! The primary's part of leases: taking them over when a term begins, revoking those that have ended, and checkpoints.

use std::time::Duration;

use super::{answer::Facts, cycle::Replica};
use crate::{
    apply::Tree,
    base::Monotonic,
    lease::{REVOKES_PENDING_MAX, REVOKES_PER_TICK},
};

/// This leader's first entry is applied: nothing of an earlier term is outstanding, so it may decide about leases.
pub fn begin_term<T: Tree>(replica: &mut Replica<T>, election_timeout: Duration, now: Monotonic) {
    if replica.consensus().is_leader() {
        replica.state_mut().lessor_mut().promote(election_timeout, now);
    }
}
