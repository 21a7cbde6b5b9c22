//! etcd's calls by name, and small builders for their requests.

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use super::{call::Call, client::Client, status::Status};

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident, $path:literal, $request:ident => $response:ident;)*) => {
        impl Client {
            $($(#[$doc])* pub async fn $name(&self, request: pb::$request) -> Result<pb::$response, Status> {
                self.unary(concat!("/etcdserverpb.", $path), &request).await
            })*
        }
    };
}

calls! {
    try_range, "KV/Range", RangeRequest => RangeResponse;
    try_put, "KV/Put", PutRequest => PutResponse;
    try_delete, "KV/DeleteRange", DeleteRangeRequest => DeleteRangeResponse;
    try_txn, "KV/Txn", TxnRequest => TxnResponse;
    try_compact, "KV/Compact", CompactionRequest => CompactionResponse;
    try_grant, "Lease/LeaseGrant", LeaseGrantRequest => LeaseGrantResponse;
    try_revoke, "Lease/LeaseRevoke", LeaseRevokeRequest => LeaseRevokeResponse;
    try_time_to_live, "Lease/LeaseTimeToLive", LeaseTimeToLiveRequest => LeaseTimeToLiveResponse;
    try_leases, "Lease/LeaseLeases", LeaseLeasesRequest => LeaseLeasesResponse;
    try_status, "Maintenance/Status", StatusRequest => StatusResponse;
    try_alarm, "Maintenance/Alarm", AlarmRequest => AlarmResponse;
    try_defragment, "Maintenance/Defragment", DefragmentRequest => DefragmentResponse;
    try_hash, "Maintenance/Hash", HashRequest => HashResponse;
    try_hash_kv, "Maintenance/HashKV", HashKvRequest => HashKvResponse;
    try_move_leader, "Maintenance/MoveLeader", MoveLeaderRequest => MoveLeaderResponse;
    try_downgrade, "Maintenance/Downgrade", DowngradeRequest => DowngradeResponse;
    try_member_list, "Cluster/MemberList", MemberListRequest => MemberListResponse;
    try_member_add, "Cluster/MemberAdd", MemberAddRequest => MemberAddResponse;
    try_member_remove, "Cluster/MemberRemove", MemberRemoveRequest => MemberRemoveResponse;
    try_member_update, "Cluster/MemberUpdate", MemberUpdateRequest => MemberUpdateResponse;
    try_member_promote, "Cluster/MemberPromote", MemberPromoteRequest => MemberPromoteResponse;
}

fn must<T>(what: &str, result: Result<T, Status>) -> T {
    result.unwrap_or_else(|status| panic!("{what} failed with {status:?}"))
}

impl Client {
    /// A put that must succeed.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::PutResponse {
        must("put", self.try_put(put(key, value)).await)
    }

    /// A range that must succeed.
    pub async fn range(&self, request: pb::RangeRequest) -> pb::RangeResponse {
        must("range", self.try_range(request).await)
    }

    /// One key at the current revision, linearizable.
    pub async fn get(&self, key: impl Into<Bytes>) -> pb::RangeResponse {
        self.range(one(key)).await
    }

    /// A delete of one key that must succeed.
    pub async fn delete(&self, key: impl Into<Bytes>) -> pb::DeleteRangeResponse {
        must(
            "delete",
            self.try_delete(pb::DeleteRangeRequest {
                key: key.into(),
                ..Default::default()
            })
            .await,
        )
    }

    /// A transaction that must succeed.
    pub async fn txn(&self, request: pb::TxnRequest) -> pb::TxnResponse {
        must("txn", self.try_txn(request).await)
    }

    /// A physical compaction that must succeed.
    pub async fn compact(&self, revision: i64) -> pb::CompactionResponse {
        must(
            "compact",
            self.try_compact(pb::CompactionRequest {
                revision,
                physical: true,
            })
            .await,
        )
    }

    /// A lease that must be granted; `id` 0 lets the server choose.
    pub async fn grant(&self, id: i64, ttl: i64) -> pb::LeaseGrantResponse {
        must("grant", self.try_grant(pb::LeaseGrantRequest { ttl, id }).await)
    }

    /// A revoke that must succeed.
    pub async fn revoke(&self, id: i64) -> pb::LeaseRevokeResponse {
        must("revoke", self.try_revoke(pb::LeaseRevokeRequest { id }).await)
    }

    /// What is left of a lease.
    pub async fn time_to_live(&self, id: i64, keys: bool) -> pb::LeaseTimeToLiveResponse {
        must(
            "time to live",
            self.try_time_to_live(pb::LeaseTimeToLiveRequest { id, keys }).await,
        )
    }

    /// The member's status.
    pub async fn status(&self) -> pb::StatusResponse {
        must("status", self.try_status(pb::StatusRequest {}).await)
    }

    /// The store's present revision.
    pub async fn revision(&self) -> i64 {
        revision_of(&self.get("any").await.header)
    }

    /// A watch stream.
    pub async fn watch(&self) -> Call {
        self.stream("/etcdserverpb.Watch/Watch").await
    }

    /// A lease keep-alive stream.
    pub async fn keep_alive(&self) -> Call {
        self.stream("/etcdserverpb.Lease/LeaseKeepAlive").await
    }
}

impl Call {
    /// Asks for a watch.
    pub fn create(&mut self, create: pb::WatchCreateRequest) {
        self.send(&watch_request(pb::watch_request::RequestUnion::CreateRequest(create)));
    }

    /// Asks for the end of a watch.
    pub fn cancel(&mut self, watch_id: i64) {
        let cancel = pb::WatchCancelRequest { watch_id };
        self.send(&watch_request(pb::watch_request::RequestUnion::CancelRequest(cancel)));
    }

    /// Asks for progress of the stream.
    pub fn progress(&mut self) {
        let progress = pb::WatchProgressRequest {};
        self.send(&watch_request(pb::watch_request::RequestUnion::ProgressRequest(
            progress,
        )));
    }

    /// The next watch response, which must come.
    pub async fn watched(&mut self) -> pb::WatchResponse {
        self.expect_next().await
    }
}

fn watch_request(union: pb::watch_request::RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(union),
    }
}

/// Revision of a header, which must be there.
pub fn revision_of(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("the answer has a header").revision
}

/// A plain put.
pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

/// A range of one key.
pub fn one(key: impl Into<Bytes>) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// A range over a span.
pub fn span((key, range_end): (Bytes, Bytes)) -> pb::RangeRequest {
    pb::RangeRequest {
        key,
        range_end,
        ..Default::default()
    }
}

/// A put as part of a transaction.
pub fn put_op(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::RequestOp {
    op(pb::request_op::Request::RequestPut(put(key, value)))
}

/// A range of one key as part of a transaction.
pub fn get_op(key: impl Into<Bytes>) -> pb::RequestOp {
    op(pb::request_op::Request::RequestRange(one(key)))
}

/// A delete as part of a transaction; an empty `range_end` names one key.
pub fn delete_op(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: false,
    };
    op(pb::request_op::Request::RequestDeleteRange(delete))
}

/// A transaction inside a transaction.
pub fn txn_op(txn: pb::TxnRequest) -> pb::RequestOp {
    op(pb::request_op::Request::RequestTxn(txn))
}

/// Any operation.
pub fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// A transaction without comparisons.
pub fn always(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success,
        ..Default::default()
    }
}
