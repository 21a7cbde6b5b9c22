//! What a request must look like before it is proposed: etcd's checks in etcd's order, since the first one that fails
//! gives the error.

use bytes::Bytes;

use super::overlap;
use crate::base::Reject;
use crate::wire::proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

/// Checks a Range.
pub fn range(request: &RangeRequest) -> Result<(), Reject> {
    check_key(&request.key)?;
    let is_known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if is_known {
        Ok(())
    } else {
        Err(Reject::InvalidSortOption)
    }
}

/// Checks a Put.
#[inline]
pub fn put(request: &PutRequest) -> Result<(), Reject> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Reject::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Reject::LeaseProvided);
    }
    Ok(())
}

/// Checks a DeleteRange.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Reject> {
    check_key(&request.key)
}

/// Checks a Txn. `ops_max` bounds the longest of its lists; a nested one may use what that leaves.
pub fn txn(request: &TxnRequest, ops_max: u32) -> Result<(), Reject> {
    check_txn_ops(request, ops_max as usize)?;
    // Afterwards, so that the number of operations that are compared is bounded.
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

fn check_key(key: &Bytes) -> Result<(), Reject> {
    if key.is_empty() { Err(Reject::EmptyKey) } else { Ok(()) }
}

fn check_txn_ops(request: &TxnRequest, ops_max: usize) -> Result<(), Reject> {
    let lists = [request.compare.len(), request.success.len(), request.failure.len()];
    let ops = lists.into_iter().max().unwrap_or(0);
    let ops_left = ops_max.checked_sub(ops).ok_or(Reject::TooManyOps)?;
    for compare in &request.compare {
        check_key(&compare.key)?;
    }
    let mut ops = request.success.iter().chain(&request.failure);
    ops.try_for_each(|op| check_op(op, ops_left))
}

fn check_op(op: &RequestOp, ops_left: usize) -> Result<(), Reject> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => check_txn_ops(request, ops_left),
        None => Err(Reject::KeyNotFound),
    }
}

/// Whether a Txn changes nothing whatever happens: its operations are all ranges. A nested transaction counts as a
/// change. Such a Txn need not pass the log.
pub fn is_txn_read_only(request: &TxnRequest) -> bool {
    all_ranges(request, |_| true)
}

/// Whether a Txn that is read-only may also be answered from this member alone: all its ranges may.
pub fn is_txn_serializable(request: &TxnRequest) -> bool {
    all_ranges(request, |range| range.serializable)
}

fn all_ranges(request: &TxnRequest, is_wanted: impl Fn(&RangeRequest) -> bool) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if is_wanted(range)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::etcdserverpb::Compare;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_of(key: &str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..PutRequest::default()
        }))
    }

    fn range_of(serializable: bool) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: Bytes::from_static(b"r"),
            serializable,
            ..RangeRequest::default()
        }))
    }

    fn success(success: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success,
            ..TxnRequest::default()
        }
    }

    #[test]
    fn range_needs_a_key_and_known_sort_options() {
        let key = Bytes::from_static(b"k");
        let of = |sort_order, sort_target| RangeRequest {
            key: key.clone(),
            sort_order,
            sort_target,
            ..RangeRequest::default()
        };
        assert_eq!(range(&RangeRequest::default()), Err(Reject::EmptyKey));
        assert_eq!(range(&of(2, 4)), Ok(()));
        assert_eq!(range(&of(3, 0)), Err(Reject::InvalidSortOption));
        assert_eq!(range(&of(0, 5)), Err(Reject::InvalidSortOption));
        assert_eq!(range(&of(-1, 0)), Err(Reject::InvalidSortOption));
    }

    #[test]
    fn put_may_not_give_what_it_ignores() {
        let request = PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            lease: 1,
            ignore_value: true,
            ignore_lease: true,
            ..PutRequest::default()
        };
        assert_eq!(put(&request), Err(Reject::ValueProvided));
        let request = PutRequest {
            value: Bytes::new(),
            ..request
        };
        assert_eq!(put(&request), Err(Reject::LeaseProvided));
        let request = PutRequest { lease: 0, ..request };
        assert_eq!(put(&request), Ok(()));
        let request = PutRequest {
            key: Bytes::new(),
            ..request
        };
        assert_eq!(put(&request), Err(Reject::EmptyKey));
        assert_eq!(delete_range(&DeleteRangeRequest::default()), Err(Reject::EmptyKey));
    }

    #[test]
    fn longest_list_is_bounded_and_nested_transactions_get_what_is_left() {
        let keys: Vec<String> = (0..5).map(|at| format!("k{at}")).collect();
        let puts = |count: usize| keys[..count].iter().map(|key| put_of(key)).collect::<Vec<_>>();
        assert_eq!(txn(&success(puts(4)), 4), Ok(()));
        assert_eq!(txn(&success(puts(5)), 4), Err(Reject::TooManyOps));
        let nested = |inner: usize| op(Request::RequestTxn(success(puts(inner))));
        assert_eq!(txn(&success(vec![nested(3)]), 4), Ok(()));
        assert_eq!(txn(&success(vec![nested(4)]), 4), Err(Reject::TooManyOps));
        let compares = TxnRequest {
            compare: vec![Compare::default(); 5],
            ..TxnRequest::default()
        };
        assert_eq!(
            txn(&compares, 4),
            Err(Reject::TooManyOps),
            "the number is looked at before the keys"
        );
        assert_eq!(txn(&compares, 5), Err(Reject::EmptyKey));
    }

    #[test]
    fn operation_without_a_request_is_a_key_not_found() {
        assert_eq!(
            txn(&success(vec![RequestOp { request: None }]), 9),
            Err(Reject::KeyNotFound)
        );
    }

    #[test]
    fn nested_transaction_counts_as_a_write() {
        assert!(is_txn_read_only(&TxnRequest::default()));
        assert!(is_txn_serializable(&TxnRequest::default()));
        assert!(is_txn_read_only(&success(vec![range_of(true), range_of(false)])));
        assert!(!is_txn_serializable(&success(vec![range_of(true), range_of(false)])));
        assert!(is_txn_serializable(&success(vec![range_of(true)])));
        let nested = op(Request::RequestTxn(TxnRequest::default()));
        assert!(!is_txn_read_only(&success(vec![nested])));
        assert!(!is_txn_read_only(&success(vec![put_of("k")])));
    }
}
