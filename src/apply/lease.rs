//! Leases: granting, revoking, noting what is left of them; and what can be asked of them without the log.

use bytes::Bytes;
use prost::Message;

use super::{
    outcome::{Answer, Applied},
    quota, respond,
    state::State,
    tree::Tree,
};
use crate::backend::Bucket;
use crate::base::{LeaseId, Monotonic, Reject};
use crate::lease::record;
use crate::mvcc::Span;
use crate::wire::proto::etcdserverpb::{
    AlarmType, LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

impl<T: Tree> State<T> {
    pub(super) fn apply_lease_grant(&mut self, request: &LeaseGrantRequest, now: Monotonic) -> Applied {
        if let Some(reject) = self.write_gate() {
            return Applied::refused(reject);
        }
        let fits = self.fits(quota::LEASE_COST);
        let id = LeaseId(request.id);
        let granted = match self.lessor.grant(id, request.ttl, now) {
            Ok(granted) => granted,
            Err(reject) => return Applied::refused(reject),
        };
        self.tree.put(Bucket::Lease, &record::key(id), granted.record);
        let response = LeaseGrantResponse {
            header: Some(self.header_message()),
            id: id.0,
            ttl: granted.ttl,
            error: String::new(),
        };
        self.written(Ok(response.encode_to_vec().into()), None, fits)
    }

    /// The keys go in one revision, in their order, so that all members number the deletions alike; and the lease goes
    /// with them, in one batch.
    pub(super) fn apply_lease_revoke(&mut self, request: &LeaseRevokeRequest) -> Applied {
        if self.alarms.is_raised(AlarmType::Corrupt) {
            return Applied::refused(Reject::Corrupt);
        }
        let id = LeaseId(request.id);
        let keys = match self.lessor.keys_sorted(id) {
            Ok(keys) => keys,
            Err(reject) => return Applied::refused(reject),
        };
        let mut txn = self.store.begin(&mut self.tree, self.previous_records);
        for key in keys {
            txn.delete_range(Span::key(&key));
            self.lessor.detach(&key);
        }
        let commit = txn.end();
        self.lessor.remove(id);
        self.tree.delete(Bucket::Lease, &record::key(id));
        let header = self.header.at(self.store.current_revision());
        self.written(Ok(respond::header_only(&header)), commit, true)
    }

    pub(super) fn apply_lease_checkpoint(&mut self, request: &LeaseCheckpointRequest, now: Monotonic) -> Applied {
        let cluster_stores = self.members.version().is_some_and(|version| version.is_at_least(3, 6));
        for checkpoint in &request.checkpoints {
            let id = LeaseId(checkpoint.id);
            if let Some(stored) = self
                .lessor
                .checkpoint(id, checkpoint.remaining_ttl, cluster_stores, now)
            {
                self.tree.put(Bucket::Lease, &record::key(id), stored);
            }
        }
        let header = self.header.at(self.store.current_revision());
        self.written(Ok(respond::header_only(&header)), None, true)
    }

    /// Answers LeaseTimeToLive on the primary. A lease that does not exist has -1 seconds left, which is no error. Refuses
    /// with [`Reject::LeaderChanged`] on other members: the primary knows, and the client asks again.
    pub fn lease_time_to_live(&self, request: &LeaseTimeToLiveRequest, now: Monotonic) -> Answer {
        let id = LeaseId(request.id);
        let mut response = LeaseTimeToLiveResponse {
            header: Some(self.header_message()),
            id: id.0,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some(known) = self.lessor.time_to_live(id, now) {
            response.ttl = known.remaining.ok_or(Reject::LeaderChanged)?;
            response.granted_ttl = known.granted;
            if request.keys {
                let keys = self.lessor.keys_sorted(id)?;
                response.keys = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
            }
        }
        Ok(response.encode_to_vec().into())
    }

    /// Answers LeaseLeases: on the primary those first that end first.
    pub fn lease_leases(&self) -> Bytes {
        let leases = self.lessor.leases().into_iter();
        let response = LeaseLeasesResponse {
            header: Some(self.header_message()),
            leases: leases.map(|lease| LeaseStatus { id: lease.0 }).collect(),
        };
        response.encode_to_vec().into()
    }

    /// An answer of LeaseKeepAlive. The revision is to be read before the lease is renewed: a client that sees a
    /// renewal must not be shown a revision at which the lease was gone. `ttl` is in seconds, 0 for a lease that does
    /// not exist.
    pub fn lease_keep_alive_response(&self, id: LeaseId, revision: i64, ttl: i64) -> Bytes {
        let response = LeaseKeepAliveResponse {
            header: Some(self.header.message(revision)),
            id: id.0,
            ttl,
        };
        response.encode_to_vec().into()
    }
}
