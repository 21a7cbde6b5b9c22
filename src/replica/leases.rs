//! What a leader does of its own accord: it takes leases over when its term begins, revokes those that have ended, notes
//! what is left of long ones, and tells the cluster who it is.

use std::time::Duration;

use super::{
    cycle::{Publication, Replica},
    outputs::Outputs,
};
use crate::{
    apply::Tree,
    base::{
        MemberId, Monotonic,
        planted::{Planted, is_planted},
    },
    lease::{CHECKPOINTS_PER_PROPOSAL, REVOKES_PER_TICK},
    propose::Write,
    wire::proto::{
        etcdserverpb::LeaseCheckpointRequest,
        membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest},
    },
};

/// What a member tells of itself, and when.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member.
    pub member_id: MemberId,
    /// Its name.
    pub name: String,
    /// Where clients reach it (`--advertise-client-urls`).
    pub client_urls: Vec<String>,
    /// The cluster version that a leader sets where there is none, e.g. `3.5.0`.
    pub cluster_version: String,
    /// Added to all leases when a term begins: a renewal may have reached the former leader just before it fell.
    pub election_timeout: Duration,
}

/// A term's first entry is applied: nothing of an earlier one is outstanding.
pub fn begin_term<T: Tree>(replica: &mut Replica<T>, identity: &Identity, now: Monotonic) {
    // An entry of an earlier term may be meant, which this leader has only just committed: its own is to come.
    if !replica.consensus().has_committed_in_term() {
        return;
    }
    replica.state_mut().lessor_mut().promote(identity.election_timeout, now);
    if replica.publication() == Publication::Due {
        publish(replica, identity, now);
    }
    if replica.state().members().version().is_none() {
        let version = ClusterVersionSetRequest {
            ver: identity.cluster_version.clone(),
        };
        replica.propose_own(&Write::ClusterVersionSet(version), now);
    }
}

/// Tells the cluster this member's name and where clients reach it.
pub fn publish<T: Tree>(replica: &mut Replica<T>, identity: &Identity, now: Monotonic) {
    let attributes = Attributes {
        name: identity.name.clone(),
        client_urls: identity.client_urls.clone(),
    };
    let request = ClusterMemberAttrSetRequest {
        member_id: identity.member_id.0,
        member_attributes: Some(attributes),
    };
    replica.publish(&Write::ClusterMemberAttrSet(request), now);
}

/// A member that leads no longer does not know when leases end.
pub fn follow_role<T: Tree>(replica: &mut Replica<T>) {
    let is_kept = is_planted(Planted::LeaseByFollower);
    if !replica.consensus().is_leader() && replica.state().lessor().is_primary() && !is_kept {
        replica.state_mut().lessor_mut().demote();
    }
}

/// The leader's look at the leases, every [`crate::lease::EXPIRY_TICK`]. Returns how many have ended.
pub fn tick<T: Tree>(replica: &mut Replica<T>, now: Monotonic, outputs: &mut Outputs) -> usize {
    replica.retry_renewals(outputs);
    follow_role(replica);
    if !replica.state().lessor().is_primary() {
        return 0;
    }
    let lessor = replica.state_mut().lessor_mut();
    let early = Duration::from_secs(u64::from(is_planted(Planted::LeaseEarly)));
    let expired = lessor.expired(now + early, REVOKES_PER_TICK);
    let checkpoints = lessor.checkpoints_due(now, CHECKPOINTS_PER_PROPOSAL);
    for lease_id in &expired {
        replica.revoke_lease(*lease_id, now);
    }
    if !checkpoints.is_empty() {
        replica.propose_own(&Write::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }), now);
    }
    expired.len()
}
