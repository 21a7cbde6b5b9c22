//! The state of a member: the store, its leases, its members and alarms, over one tree; and how far it has come.

use bytes::Bytes;

use super::{
    alarm::Alarms,
    outcome::{Applied, EntryAt},
    tree::Tree,
};
use crate::base::{ClusterId, MemberId, Term};
use crate::lease::{Lessor, LessorConfig};
use crate::member::Membership;
use crate::mvcc::Store;

/// What a state is opened with.
#[derive(Clone, Debug)]
pub struct StateConfig {
    /// The cluster, for headers.
    pub cluster_id: ClusterId,
    /// This member, for headers and to notice its own removal.
    pub member_id: MemberId,
    /// Bytes that the database may occupy; `None` for no quota. See [`super::quota::quota_bytes`].
    pub quota_bytes: Option<u64>,
    /// Leases.
    pub lease: LessorConfig,
}

/// The replicated state machine of one member.
pub struct State<T: Tree> {
    pub(super) tree: T,
    pub(super) store: Store,
    pub(super) lessor: Lessor,
    pub(super) members: Membership,
    pub(super) alarms: Alarms,
    pub(super) config: StateConfig,
    pub(super) raft_term: Term,
    pub(super) applied: EntryAt,
}
