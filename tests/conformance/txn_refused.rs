//! Transactions that are refused: before anything is done, with etcd's texts.

use ringd::wire::proto::etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request};

use crate::{
    fixture::{Fixture, compacted, future, invalid, no_lease},
    support::{
        calls::{always, delete_op, get_op, one, op, put, put_op, span, txn_op},
        world::Target,
    },
};

bodies! {
    standing {
        a_txn_of_128_operations_is_carried_out,
        a_txn_of_129_operations_is_refused,
        a_txn_of_129_comparisons_is_refused,
        nested_operations_spend_what_the_outer_ones_left,
        two_puts_to_a_key_are_refused,
        a_put_inside_a_deleted_range_is_refused,
        a_put_beside_a_delete_to_the_zero_byte_slips_through,
        a_put_in_a_nested_txn_to_a_key_of_the_outer_is_refused,
        a_nested_put_inside_an_outer_delete_is_refused,
        an_outer_put_inside_a_nested_delete_is_refused,
        then_and_else_of_a_nested_txn_may_put_the_same_key,
        two_nested_txns_may_not_put_the_same_key,
        both_branches_are_checked_whatever_the_comparison,
        then_and_else_of_the_outer_txn_may_put_the_same_key,
        an_operation_without_a_request_is_refused,
        keys_must_be_given_everywhere,
        put_options_are_checked_inside_a_txn,
        an_unknown_lease_inside_a_txn_is_refused_and_nothing_is_written,
        ignore_on_a_missing_key_inside_a_txn_is_refused,
        ignore_on_a_missing_key_in_the_branch_not_taken_is_ignored,
        revisions_of_ranges_inside_a_txn_are_checked,
        an_unknown_sort_option_inside_a_txn_is_refused,
    }
    fresh {
        max_txn_ops_is_a_flag => ["--max-txn-ops=2"],
    }
}

/// A refused transaction leaves the revision where it was.
async fn refused(f: &Fixture, request: pb::TxnRequest, status: crate::support::status::Status) {
    let before = f.revision().await;
    assert_eq!(f.try_txn(request).await, Err(status));
    assert_eq!(f.revision().await, before);
}

fn too_many() -> crate::support::status::Status {
    invalid("too many operations in txn request")
}

fn duplicate() -> crate::support::status::Status {
    invalid("duplicate key given in txn request")
}

fn puts(t: &Target, count: usize) -> Vec<pb::RequestOp> {
    (0..count)
        .map(|index| put_op(t.key(&format!("{index:03}")), "v"))
        .collect()
}

async fn a_txn_of_128_operations_is_carried_out(t: Target) {
    let f = Fixture::new(&t).await;
    let version = pb::Compare {
        key: t.key("x"),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let failure = (0..128).map(|_| get_op(t.key("000"))).collect();
    let request = pb::TxnRequest {
        compare: vec![version; 128],
        success: puts(&t, 128),
        failure,
    };
    let answer = f.txn(request).await;
    assert!(answer.succeeded);
    assert_eq!(answer.responses.len(), 128);
    assert_eq!(
        f.range(pb::RangeRequest {
            count_only: true,
            ..span(t.all())
        })
        .await
        .count,
        128
    );
    assert_eq!(f.revision().await, f.base + 1);
}

async fn a_txn_of_129_operations_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    refused(&f, always(puts(&t, 129)), too_many()).await;
    refused(
        &f,
        pb::TxnRequest {
            failure: puts(&t, 129),
            ..Default::default()
        },
        too_many(),
    )
    .await;
    let reads = (0..129).map(|_| get_op(t.key("a"))).collect();
    refused(&f, always(reads), too_many()).await;
}

async fn a_txn_of_129_comparisons_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let compare = vec![
        pb::Compare {
            key: t.key("a"),
            ..Default::default()
        };
        129
    ];
    refused(
        &f,
        pb::TxnRequest {
            compare,
            ..Default::default()
        },
        too_many(),
    )
    .await;
}

async fn nested_operations_spend_what_the_outer_ones_left(t: Target) {
    let f = Fixture::new(&t).await;
    assert!(f.txn(always(vec![txn_op(always(puts(&t, 127)))])).await.succeeded);
    refused(&f, always(vec![txn_op(always(puts(&t, 128)))]), too_many()).await;
    // Each nested transaction has the whole rest for itself.
    let others: Vec<_> = (0..126)
        .map(|index| put_op(t.key(&format!("other/{index}")), "v"))
        .collect();
    let two = vec![txn_op(always(puts(&t, 126))), txn_op(always(others))];
    assert!(f.txn(always(two)).await.succeeded);
    // The rest is what the largest list leaves, and it shrinks with each level.
    let compare = vec![
        pb::Compare {
            key: t.key("x"),
            ..Default::default()
        };
        100
    ];
    let wide = |count| pb::TxnRequest {
        compare: compare.clone(),
        failure: vec![txn_op(always(puts(&t, count)))],
        ..Default::default()
    };
    assert!(f.try_txn(wide(28)).await.is_ok());
    refused(&f, wide(29), too_many()).await;
    let deep = |count| always(vec![txn_op(always(vec![txn_op(always(puts(&t, count)))]))]);
    assert!(f.try_txn(deep(126)).await.is_ok());
    refused(&f, deep(127), too_many()).await;
}

async fn max_txn_ops_is_a_flag(t: Target) {
    let f = Fixture::new(&t).await;
    assert!(f.txn(always(puts(&t, 2))).await.succeeded);
    refused(&f, always(puts(&t, 3)), too_many()).await;
}

async fn two_puts_to_a_key_are_refused(t: Target) {
    let f = Fixture::new(&t).await;
    refused(
        &f,
        always(vec![put_op(t.key("a"), "1"), put_op(t.key("a"), "2")]),
        duplicate(),
    )
    .await;
    refused(
        &f,
        always(vec![
            put_op(t.key("a"), "1"),
            put_op(t.key("b"), "2"),
            put_op(t.key("a"), "1"),
        ]),
        duplicate(),
    )
    .await;
}

async fn a_put_inside_a_deleted_range_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let ranged = delete_op(t.key("b"), t.key("d"));
    for ops in [
        vec![delete_op(t.key("a"), ""), put_op(t.key("a"), "1")],
        vec![put_op(t.key("a"), "1"), delete_op(t.key("a"), "")],
        vec![ranged.clone(), put_op(t.key("c"), "1")],
        vec![ranged.clone(), put_op(t.key("b"), "1")],
    ] {
        refused(&f, always(ops), duplicate()).await;
    }
    assert!(
        f.txn(always(vec![ranged, put_op(t.key("d"), "1"), put_op(t.key("a"), "1")]))
            .await
            .succeeded
    );
}

async fn a_put_beside_a_delete_to_the_zero_byte_slips_through(t: Target) {
    let f = Fixture::new(&t).await;
    // etcd's check takes the zero byte literally, as an end before the key.
    let [old, new] = [&b"\xff\xff/check/1"[..], &b"\xff\xff/check/2"[..]].map(bytes::Bytes::from_static);
    f.put(old.clone(), "1").await;
    let answer = f
        .txn(always(vec![delete_op(old.clone(), vec![0]), put_op(new.clone(), "2")]))
        .await;
    assert_eq!(answer.header, f.header(f.base + 2));
    assert_eq!((f.get(old).await.count, f.get(new.clone()).await.count), (0, 1));
    f.delete(new).await;
}

async fn a_put_in_a_nested_txn_to_a_key_of_the_outer_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let nested = txn_op(always(vec![put_op(t.key("a"), "2")]));
    refused(&f, always(vec![put_op(t.key("a"), "1"), nested.clone()]), duplicate()).await;
    refused(&f, always(vec![nested, put_op(t.key("a"), "1")]), duplicate()).await;
}

async fn a_nested_put_inside_an_outer_delete_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let nested = txn_op(always(vec![put_op(t.key("a"), "2")]));
    refused(&f, always(vec![nested, delete_op(t.key("a"), "")]), duplicate()).await;
}

async fn an_outer_put_inside_a_nested_delete_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let nested = txn_op(always(vec![delete_op(t.key("a"), t.key("c"))]));
    refused(&f, always(vec![put_op(t.key("b"), "1"), nested]), duplicate()).await;
}

async fn then_and_else_of_a_nested_txn_may_put_the_same_key(t: Target) {
    let f = Fixture::new(&t).await;
    let nested = pb::TxnRequest {
        success: vec![put_op(t.key("a"), "then")],
        failure: vec![put_op(t.key("a"), "else")],
        ..Default::default()
    };
    assert!(f.txn(always(vec![txn_op(nested)])).await.succeeded);
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "then", 1, 1, 1)]);
}

async fn two_nested_txns_may_not_put_the_same_key(t: Target) {
    let f = Fixture::new(&t).await;
    let then = txn_op(always(vec![put_op(t.key("a"), "1")]));
    let otherwise = txn_op(pb::TxnRequest {
        failure: vec![put_op(t.key("a"), "2")],
        ..Default::default()
    });
    refused(&f, always(vec![then.clone(), then.clone()]), duplicate()).await;
    refused(&f, always(vec![then, otherwise]), duplicate()).await;
}

async fn both_branches_are_checked_whatever_the_comparison(t: Target) {
    let f = Fixture::new(&t).await;
    let twice = vec![put_op(t.key("a"), "1"), put_op(t.key("a"), "2")];
    refused(
        &f,
        pb::TxnRequest {
            failure: twice,
            ..Default::default()
        },
        duplicate(),
    )
    .await;
    let keyless = pb::TxnRequest {
        failure: vec![get_op("")],
        ..Default::default()
    };
    refused(&f, keyless, invalid("key is not provided")).await;
}

async fn then_and_else_of_the_outer_txn_may_put_the_same_key(t: Target) {
    let f = Fixture::new(&t).await;
    let request = pb::TxnRequest {
        success: vec![put_op(t.key("a"), "1")],
        failure: vec![put_op(t.key("a"), "2")],
        ..Default::default()
    };
    assert!(f.txn(request).await.succeeded);
}

async fn an_operation_without_a_request_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    refused(
        &f,
        always(vec![pb::RequestOp { request: None }]),
        invalid("key not found"),
    )
    .await;
    let nested = always(vec![
        put_op(t.key("a"), "1"),
        txn_op(always(vec![pb::RequestOp { request: None }])),
    ]);
    refused(&f, nested, invalid("key not found")).await;
}

async fn keys_must_be_given_everywhere(t: Target) {
    let f = Fixture::new(&t).await;
    for request in [
        pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            ..Default::default()
        },
        always(vec![get_op("")]),
        always(vec![put_op("", "v")]),
        always(vec![delete_op("", t.key("z"))]),
        always(vec![txn_op(always(vec![put_op("", "v")]))]),
        always(vec![txn_op(pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            ..Default::default()
        })]),
    ] {
        refused(&f, request, invalid("key is not provided")).await;
    }
}

async fn put_options_are_checked_inside_a_txn(t: Target) {
    let f = Fixture::new(&t).await;
    let valued = pb::PutRequest {
        ignore_value: true,
        ..put(t.key("a"), "v")
    };
    refused(
        &f,
        always(vec![op(Request::RequestPut(valued))]),
        invalid("value is provided"),
    )
    .await;
    let leased = pb::PutRequest {
        ignore_lease: true,
        lease: 5,
        ..put(t.key("a"), "v")
    };
    refused(
        &f,
        always(vec![op(Request::RequestPut(leased))]),
        invalid("lease is provided"),
    )
    .await;
}

async fn an_unknown_lease_inside_a_txn_is_refused_and_nothing_is_written(t: Target) {
    let f = Fixture::new(&t).await;
    let leased = pb::PutRequest {
        lease: 4711,
        ..put(t.key("b"), "v")
    };
    refused(
        &f,
        always(vec![put_op(t.key("a"), "1"), op(Request::RequestPut(leased))]),
        no_lease(),
    )
    .await;
    assert_eq!(f.range(span(t.all())).await.count, 0);
}

async fn ignore_on_a_missing_key_inside_a_txn_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let value = pb::PutRequest {
        ignore_value: true,
        ..put(t.key("none"), "")
    };
    let lease = pb::PutRequest {
        ignore_lease: true,
        ..put(t.key("none"), "v")
    };
    for request in [value, lease] {
        let ops = vec![put_op(t.key("a"), "1"), op(Request::RequestPut(request))];
        refused(&f, always(ops), invalid("key not found")).await;
    }
    assert_eq!(f.range(span(t.all())).await.count, 0);
}

async fn ignore_on_a_missing_key_in_the_branch_not_taken_is_ignored(t: Target) {
    let f = Fixture::new(&t).await;
    let ignoring = pb::PutRequest {
        ignore_value: true,
        ..put(t.key("none"), "")
    };
    let failure = vec![op(Request::RequestPut(ignoring))];
    let answer = f
        .txn(pb::TxnRequest {
            success: vec![put_op(t.key("a"), "1")],
            failure,
            ..Default::default()
        })
        .await;
    assert!(answer.succeeded);
}

async fn revisions_of_ranges_inside_a_txn_are_checked(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.compact(f.base + 2).await;
    let at = |revision| {
        op(Request::RequestRange(pb::RangeRequest {
            revision,
            ..one(t.key("a"))
        }))
    };
    refused(&f, always(vec![at(f.base + 1)]), compacted()).await;
    refused(&f, always(vec![at(f.base + 3)]), future()).await;
    refused(&f, always(vec![put_op(t.key("a"), "3"), at(f.base + 1)]), compacted()).await;
    // The transaction's own revision is not yet there when it is checked.
    refused(&f, always(vec![put_op(t.key("a"), "3"), at(f.base + 3)]), future()).await;
    assert!(f.txn(always(vec![at(f.base + 2)])).await.succeeded);
}

async fn an_unknown_sort_option_inside_a_txn_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let odd = op(Request::RequestRange(pb::RangeRequest {
        sort_order: 99,
        ..one(t.key("a"))
    }));
    if f.is_36().await {
        refused(&f, always(vec![odd]), invalid("invalid sort option")).await;
    } else {
        assert!(f.txn(always(vec![odd])).await.succeeded);
    }
}
