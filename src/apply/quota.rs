//! What a request costs of the space quota: an estimate of the bytes that it adds to the file, by etcd's formula, since
//! clients see where it draws the line.

use crate::wire::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};

/// Bytes for what the tree keeps beside a key and its value.
const KEY_VALUE_OVERHEAD_BYTES: u64 = 256;
/// Bytes for a lease.
pub const LEASE_COST: u64 = 64;
/// The quota when none is given.
pub const DEFAULT_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// A quota above this works, but deserves a warning.
pub const QUOTA_BYTES_ADVISED_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// The quota that a configuration means: none for a negative number, the default for 0.
pub fn quota_bytes(configured: i64) -> Option<u64> {
    match configured {
        0 => Some(DEFAULT_QUOTA_BYTES),
        _ => u64::try_from(configured).ok(),
    }
}

/// Cost of a put.
#[inline]
pub fn put_cost(put: &PutRequest) -> u64 {
    KEY_VALUE_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// Cost of a transaction: of its costlier branch. 0 if it puts nothing.
pub fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    }
}

/// Whether a request of this cost fits: what is free costs nothing and always does.
#[inline]
pub fn fits(cost: u64, allocated_bytes: u64, quota_bytes: Option<u64>) -> bool {
    cost == 0 || quota_bytes.is_none_or(|quota| allocated_bytes.saturating_add(cost) < quota)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::proto::etcdserverpb::RangeRequest;

    #[test]
    fn transaction_costs_its_costlier_branch() {
        let put = PutRequest {
            key: Bytes::from_static(b"abc"),
            value: Bytes::from_static(b"12345"),
            ..PutRequest::default()
        };
        assert_eq!(put_cost(&put), 264);
        let op = |request| RequestOp { request: Some(request) };
        let put_op = || op(Request::RequestPut(put.clone()));
        let inner = TxnRequest {
            success: vec![put_op(), put_op()],
            ..TxnRequest::default()
        };
        let txn = TxnRequest {
            success: vec![put_op(), op(Request::RequestRange(RangeRequest::default()))],
            failure: vec![op(Request::RequestTxn(inner)), RequestOp { request: None }],
            ..TxnRequest::default()
        };
        assert_eq!(txn_cost(&txn), 528);
        assert_eq!(txn_cost(&TxnRequest::default()), 0);
    }

    #[test]
    fn last_byte_of_the_quota_is_not_given_away() {
        assert!(fits(10, 89, Some(100)));
        assert!(!fits(10, 90, Some(100)));
        assert!(fits(0, 1000, Some(100)));
        assert!(fits(10, u64::MAX, None));
        assert_eq!(quota_bytes(0), Some(DEFAULT_QUOTA_BYTES));
        assert_eq!(quota_bytes(-1), None);
        assert_eq!(quota_bytes(5), Some(5));
    }
}
