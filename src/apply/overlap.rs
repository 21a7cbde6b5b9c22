//! No key may be put twice in one branch of a transaction, nor put and deleted: the order of operations would decide
//! what the revision holds. The two branches of a nested transaction exclude each other; nested transactions that stand
//! side by side do not.
//!
//! Which deletes count against which puts is etcd's choice, oddities included: a put is held against the deletes of its
//! own list and of the lists around it, and against those of nested transactions before its own (or, if it stands beside
//! them, of all). A delete of everything from a key on (`range_end` a zero byte) counts against nothing: etcd takes its
//! end literally here, so that it is empty.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::base::Reject;
use crate::wire::proto::etcdserverpb::{DeleteRangeRequest, RequestOp, request_op::Request};

type Keys<'a> = BTreeSet<&'a [u8]>;

/// Keys that deletes take away: half-open intervals that neither overlap nor touch, by their start. However a request
/// stacks its intervals, asking takes logarithmic time.
#[derive(Default)]
struct Deletes<'a>(BTreeMap<&'a [u8], Cow<'a, [u8]>>);

impl<'a> Deletes<'a> {
    fn add(&mut self, request: &'a DeleteRangeRequest) {
        let end = match request.range_end.is_empty() {
            true => Cow::Owned([&request.key[..], &[0]].concat()),
            false => Cow::Borrowed(&request.range_end[..]),
        };
        self.insert(&request.key, end);
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: Cow<'a, [u8]>) {
        if start >= &end[..] {
            return;
        }
        // Whatever begins at or before the new end and does not end before the new start melts into it.
        while let Some((&other, other_end)) = self.up_to(&end) {
            if &other_end[..] < start {
                break;
            }
            start = start.min(other);
            let other_end = self.0.remove(other).expect("just found");
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    fn extend(&mut self, other: Deletes<'a>) {
        for (start, end) in other.0 {
            self.insert(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.up_to(key).is_some_and(|(_, end)| key < &end[..])
    }

    /// The last interval that does not begin behind `key`.
    fn up_to(&self, key: &[u8]) -> Option<(&&'a [u8], &Cow<'a, [u8]>)> {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
    }
}

/// Checks one list of operations, and what is nested in it. The number of operations is bounded before.
pub(super) fn check(ops: &[RequestOp]) -> Result<(), Reject> {
    list(ops)?;
    check_kept(ops, None).map(|_| ())
}

/// A put that keeps the value or lease of its key fails if the key is gone by then. The only way left to that is an
/// open-ended delete before it, and etcd's members would all end with a panic on such an entry: it must not reach a log
/// that they share with us. `open_from` is where the lowest such delete so far begins, on any branch; so is the answer.
fn check_kept<'a>(ops: &'a [RequestOp], mut open_from: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, Reject> {
    for op in ops {
        match &op.request {
            Some(Request::RequestDeleteRange(request)) if request.range_end[..] == [0] => {
                let start = &request.key[..];
                open_from = Some(open_from.map_or(start, |lowest| lowest.min(start)));
            }
            Some(Request::RequestPut(request))
                if (request.ignore_value || request.ignore_lease)
                    && open_from.is_some_and(|from| from <= &request.key[..]) =>
            {
                return Err(Reject::KeyNotFound);
            }
            Some(Request::RequestTxn(request)) => {
                let branches = [
                    check_kept(&request.success, open_from)?,
                    check_kept(&request.failure, open_from)?,
                ];
                open_from = branches.into_iter().flatten().min();
            }
            _ => {}
        }
    }
    Ok(open_from)
}

/// Keys put and keys deleted by a list, whichever branches are taken within.
fn list(ops: &[RequestOp]) -> Result<(Keys<'_>, Deletes<'_>), Reject> {
    let mut deletes = Deletes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            deletes.add(request);
        }
    }
    let mut puts = Keys::new();
    for op in ops {
        let Some(Request::RequestTxn(request)) = &op.request else {
            continue;
        };
        let (then_puts, then_deletes) = list(&request.success)?;
        let (else_puts, else_deletes) = list(&request.failure)?;
        for key in then_puts.union(&else_puts) {
            add_put(&mut puts, &deletes, key)?;
        }
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request {
            add_put(&mut puts, &deletes, &request.key)?;
        }
    }
    Ok((puts, deletes))
}

fn add_put<'a>(puts: &mut Keys<'a>, deletes: &Deletes<'_>, key: &'a [u8]) -> Result<(), Reject> {
    match puts.insert(key) && !deletes.contains(key) {
        true => Ok(()),
        false => Err(Reject::DuplicateKey),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::proto::etcdserverpb::{PutRequest, TxnRequest};

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: &str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..PutRequest::default()
        }))
    }

    fn delete(key: &str, range_end: &str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(range_end.as_bytes()),
            prev_kv: false,
        }))
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest {
            success,
            failure,
            ..TxnRequest::default()
        }))
    }

    #[test]
    fn key_is_put_once_and_not_deleted() {
        let duplicate = Err(Reject::DuplicateKey);
        assert_eq!(check(&[put("a"), put("b"), delete("c", "")]), Ok(()));
        assert_eq!(check(&[put("a"), put("a")]), duplicate);
        assert_eq!(check(&[put("a"), delete("a", "")]), duplicate);
        assert_eq!(check(&[delete("a", "c"), put("b")]), duplicate);
        assert_eq!(check(&[delete("a", "c"), put("c")]), Ok(()));
        assert_eq!(check(&[delete("c", "a"), put("b")]), Ok(()));
        assert_eq!(
            check(&[delete("a", "c"), delete("b", "d")]),
            Ok(()),
            "deletes may overlap"
        );
        assert_eq!(
            check(&[delete("a", "\0"), put("b")]),
            Ok(()),
            "an open end counts against nothing"
        );
    }

    #[test]
    fn branches_exclude_each_other_but_neighbours_do_not() {
        let duplicate = Err(Reject::DuplicateKey);
        assert_eq!(check(&[txn(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(&[txn(vec![put("a")], vec![delete("a", "")])]), Ok(()));
        assert_eq!(
            check(&[txn(vec![put("a")], vec![]), txn(vec![], vec![put("a")])]),
            duplicate
        );
        assert_eq!(check(&[txn(vec![put("a")], vec![]), put("a")]), duplicate);
        assert_eq!(check(&[txn(vec![put("b")], vec![]), delete("a", "c")]), duplicate);
        assert_eq!(check(&[txn(vec![], vec![delete("a", "c")]), put("b")]), duplicate);
        let (deletes, puts) = (txn(vec![delete("a", "c")], vec![]), txn(vec![put("b")], vec![]));
        assert_eq!(check(&[deletes.clone(), puts.clone()]), duplicate);
        assert_eq!(
            check(&[puts, deletes]),
            Ok(()),
            "deletes of later neighbours do not count"
        );
    }

    #[test]
    fn put_that_keeps_a_value_may_not_follow_an_open_ended_delete() {
        let keeping = |key: &str| {
            op(Request::RequestPut(PutRequest {
                key: Bytes::copy_from_slice(key.as_bytes()),
                ignore_value: true,
                ..PutRequest::default()
            }))
        };
        let gone = Err(Reject::KeyNotFound);
        assert_eq!(check(&[delete("b", "\0"), keeping("b")]), gone);
        assert_eq!(check(&[delete("b", "\0"), keeping("a")]), Ok(()));
        assert_eq!(check(&[keeping("b"), delete("b", "\0")]), Ok(()));
        assert_eq!(check(&[delete("b", "\0"), put("b")]), Ok(()));
        assert_eq!(check(&[txn(vec![], vec![delete("b", "\0")]), keeping("c")]), gone);
        assert_eq!(check(&[delete("b", "\0"), txn(vec![keeping("c")], vec![])]), gone);
        assert_eq!(check(&[txn(vec![delete("b", "\0")], vec![keeping("c")])]), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn intervals_agree_with_a_list(intervals in prop::collection::vec((0u8..20, 0u8..20), 0..12)) {
            let requests: Vec<_> = intervals.iter().map(|(start, end)| DeleteRangeRequest {
                key: Bytes::copy_from_slice(&[*start + 1]),
                range_end: match end {
                    0 => Bytes::new(),
                    end => Bytes::copy_from_slice(&[*end + 1]),
                },
                prev_kv: false,
            }).collect();
            let mut deletes = Deletes::default();
            requests.iter().for_each(|request| deletes.add(request));
            for key in 0u8..25 {
                let expected = requests.iter().any(|request| match request.range_end.first() {
                    None => request.key[0] == key,
                    Some(end) => request.key[0] <= key && key < *end,
                });
                prop_assert_eq!(deletes.contains(&[key]), expected);
            }
        }
    }
}
