//! Transactions that are carried out: which branch, what each operation answers, and which revisions are seen.

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};

use crate::{
    fixture::{Fixture, keys},
    support::{
        calls::{always, delete_op, get_op, op, put, put_op, span, txn_op},
        world::Target,
    },
};

bodies! {
    standing {
        an_empty_txn_succeeds_at_the_current_revision,
        a_read_only_txn_does_not_move_the_revision,
        a_txn_whose_writes_change_nothing_does_not_move_the_revision,
        all_writes_of_a_txn_share_one_revision,
        inner_answers_carry_a_revision_and_nothing_else_in_their_header,
        operations_see_those_before_them,
        a_delete_sees_the_puts_before_it_in_its_answer,
        a_failed_comparison_takes_the_other_branch,
        nested_txns_choose_their_branches_before_any_write,
        nested_answers_stand_in_order,
        optimistic_put_as_kubernetes_does_it,
        put_options_work_inside_a_txn,
        delete_with_prev_kv_inside_a_txn,
        range_options_work_inside_a_txn,
        a_historic_range_inside_a_writing_txn,
        overlapping_deletes_are_allowed,
        a_serializable_read_only_txn_answers_alike,
        a_read_only_txn_of_long_ranges_answers_as_each_of_them_does,
    }
}

pub fn compare(key: impl Into<Bytes>, result: CompareResult, union: TargetUnion) -> pb::Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

/// Whether a comparison holds.
pub async fn holds(f: &Fixture, compare: pb::Compare) -> bool {
    all_hold(f, vec![compare]).await
}

pub async fn all_hold(f: &Fixture, compare: Vec<pb::Compare>) -> bool {
    let answer = f
        .txn(pb::TxnRequest {
            compare,
            ..Default::default()
        })
        .await;
    assert_eq!(answer.responses, []);
    answer.succeeded
}

/// The header of an operation inside a transaction.
fn inner(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..Default::default()
    })
}

fn answered(response: Response) -> pb::ResponseOp {
    pb::ResponseOp {
        response: Some(response),
    }
}

fn put_answered(revision: i64) -> pb::ResponseOp {
    answered(Response::ResponsePut(pb::PutResponse {
        header: inner(revision),
        prev_kv: None,
    }))
}

fn range_of(response: &pb::ResponseOp) -> &pb::RangeResponse {
    match &response.response {
        Some(Response::ResponseRange(range)) => range,
        other => panic!("not a range: {other:?}"),
    }
}

async fn an_empty_txn_succeeds_at_the_current_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f.txn(pb::TxnRequest::default()).await;
    assert_eq!(
        answer,
        pb::TxnResponse {
            header: f.header(f.base),
            succeeded: true,
            responses: vec![]
        }
    );
}

async fn a_read_only_txn_does_not_move_the_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let answer = f.txn(always(vec![get_op(t.key("a")), get_op(t.key("b"))])).await;
    let range = |kvs: Vec<_>| {
        let count = kvs.len() as i64;
        answered(Response::ResponseRange(pb::RangeResponse {
            header: inner(f.base + 1),
            kvs,
            more: false,
            count,
        }))
    };
    let responses = vec![range(vec![f.kv("a", "1", 1, 1, 1)]), range(vec![])];
    assert_eq!(
        answer,
        pb::TxnResponse {
            header: f.header(f.base + 1),
            succeeded: true,
            responses
        }
    );
}

async fn a_txn_whose_writes_change_nothing_does_not_move_the_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f.txn(always(vec![delete_op(t.key("none"), "")])).await;
    let deleted = pb::DeleteRangeResponse {
        header: inner(f.base),
        deleted: 0,
        prev_kvs: vec![],
    };
    let responses = vec![answered(Response::ResponseDeleteRange(deleted))];
    assert_eq!(
        answer,
        pb::TxnResponse {
            header: f.header(f.base),
            succeeded: true,
            responses
        }
    );
    assert_eq!(f.revision().await, f.base);
}

async fn all_writes_of_a_txn_share_one_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("gone", "0", 1).await;
    let ops = vec![
        put_op(t.key("c"), "1"),
        put_op(t.key("a"), "2"),
        delete_op(t.key("gone"), ""),
        put_op(t.key("b"), "3"),
    ];
    let answer = f.txn(always(ops)).await;
    assert_eq!(answer.header, f.header(f.base + 2));
    let kvs = f.range(span(t.all())).await.kvs;
    assert_eq!(
        kvs,
        [
            f.kv("a", "2", 2, 2, 1),
            f.kv("b", "3", 2, 2, 1),
            f.kv("c", "1", 2, 2, 1)
        ]
    );
}

async fn inner_answers_carry_a_revision_and_nothing_else_in_their_header(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("old", "0", 1).await;
    let nested = always(vec![put_op(t.key("n"), "1")]);
    let ops = vec![
        put_op(t.key("a"), "1"),
        get_op(t.key("a")),
        delete_op(t.key("old"), ""),
        txn_op(nested),
    ];
    let answer = f.txn(always(ops)).await;
    let range = pb::RangeResponse {
        header: inner(f.base + 2),
        kvs: vec![f.kv("a", "1", 2, 2, 1)],
        more: false,
        count: 1,
    };
    let deleted = pb::DeleteRangeResponse {
        header: inner(f.base + 2),
        deleted: 1,
        prev_kvs: vec![],
    };
    // The header of a nested transaction stays empty.
    let nested = pb::TxnResponse {
        header: inner(0),
        succeeded: true,
        responses: vec![put_answered(f.base + 2)],
    };
    let responses = vec![
        put_answered(f.base + 2),
        answered(Response::ResponseRange(range)),
        answered(Response::ResponseDeleteRange(deleted)),
        answered(Response::ResponseTxn(nested)),
    ];
    assert_eq!(
        answer,
        pb::TxnResponse {
            header: f.header(f.base + 2),
            succeeded: true,
            responses
        }
    );
}

async fn operations_see_those_before_them(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "0", 1).await;
    let ops = vec![
        get_op(t.key("a")),
        put_op(t.key("a"), "1"),
        get_op(t.key("a")),
        delete_op(t.key("b"), ""),
        op(Request::RequestRange(span(t.all()))),
    ];
    let answer = f.txn(always(ops)).await;
    let before = range_of(&answer.responses[0]);
    assert_eq!(before.kvs, [f.kv("a", "0", 1, 1, 1)]);
    assert_eq!(before.header, inner(f.base + 1), "nothing is written yet");
    let after = range_of(&answer.responses[2]);
    assert_eq!(after.kvs, [f.kv("a", "1", 1, 2, 2)]);
    assert_eq!(after.header, inner(f.base + 2));
    let all = range_of(&answer.responses[4]);
    assert_eq!((keys(&all.kvs), all.count), (vec!["a"], 1));
}

async fn a_delete_sees_the_puts_before_it_in_its_answer(t: Target) {
    let f = Fixture::new(&t).await;
    let ops = vec![put_op(t.key("a"), "1"), delete_op(t.key("none"), "")];
    let answer = f.txn(always(ops)).await;
    // Nothing is deleted, but the transaction has written already.
    let deleted = pb::DeleteRangeResponse {
        header: inner(f.base + 1),
        deleted: 0,
        prev_kvs: vec![],
    };
    assert_eq!(
        answer.responses,
        [
            put_answered(f.base + 1),
            answered(Response::ResponseDeleteRange(deleted))
        ]
    );
}

async fn a_failed_comparison_takes_the_other_branch(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let request = pb::TxnRequest {
        compare: vec![compare(
            t.key("a"),
            CompareResult::Equal,
            TargetUnion::Value("2".into()),
        )],
        success: vec![put_op(t.key("a"), "then")],
        failure: vec![get_op(t.key("a")), put_op(t.key("b"), "else")],
    };
    let answer = f.txn(request).await;
    assert!(!answer.succeeded);
    assert_eq!(answer.header, f.header(f.base + 2));
    assert_eq!(answer.responses.len(), 2);
    assert_eq!(range_of(&answer.responses[0]).kvs, [f.kv("a", "1", 1, 1, 1)]);
    assert_eq!(answer.responses[1], put_answered(f.base + 2));
    assert_eq!(
        f.range(span(t.all())).await.kvs,
        [f.kv("a", "1", 1, 1, 1), f.kv("b", "else", 2, 2, 1)]
    );
}

async fn nested_txns_choose_their_branches_before_any_write(t: Target) {
    let f = Fixture::new(&t).await;
    // The outer put would make the inner comparison hold, were it made late.
    let nested = pb::TxnRequest {
        compare: vec![compare(t.key("a"), CompareResult::Greater, TargetUnion::Version(0))],
        success: vec![put_op(t.key("then"), "1")],
        failure: vec![put_op(t.key("else"), "1")],
    };
    let answer = f.txn(always(vec![put_op(t.key("a"), "1"), txn_op(nested)])).await;
    let inner_answer = pb::TxnResponse {
        header: inner(0),
        succeeded: false,
        responses: vec![put_answered(f.base + 1)],
    };
    assert_eq!(
        answer.responses,
        [put_answered(f.base + 1), answered(Response::ResponseTxn(inner_answer))]
    );
    assert_eq!(keys(&f.range(span(t.all())).await.kvs), ["a", "else"]);
}

async fn nested_answers_stand_in_order(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("x", "1", 1).await;
    let yes = compare(t.key("x"), CompareResult::Equal, TargetUnion::Value("1".into()));
    let no = compare(t.key("x"), CompareResult::Equal, TargetUnion::Value("2".into()));
    let leaf = |condition: &pb::Compare, name: &str| pb::TxnRequest {
        compare: vec![condition.clone()],
        success: vec![put_op(t.key(&format!("{name}-then")), "1")],
        failure: vec![put_op(t.key(&format!("{name}-else")), "1"), get_op(t.key("x"))],
    };
    let middle = pb::TxnRequest {
        compare: vec![no.clone()],
        success: vec![],
        failure: vec![txn_op(leaf(&yes, "m1")), txn_op(leaf(&no, "m2"))],
    };
    let answer = f
        .txn(always(vec![
            txn_op(leaf(&no, "o1")),
            txn_op(middle),
            txn_op(leaf(&yes, "o2")),
        ]))
        .await;
    let succeeded = |response: &pb::ResponseOp| match &response.response {
        Some(Response::ResponseTxn(txn)) => txn.clone(),
        other => panic!("not a txn: {other:?}"),
    };
    let [first, second, third] = &answer.responses[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (succeeded(first).succeeded, succeeded(first).responses.len()),
        (false, 2)
    );
    assert_eq!(
        (succeeded(third).succeeded, succeeded(third).responses.len()),
        (true, 1)
    );
    let middle = succeeded(second);
    assert!(!middle.succeeded);
    let inner: Vec<_> = middle
        .responses
        .iter()
        .map(|response| succeeded(response).succeeded)
        .collect();
    assert_eq!(inner, [true, false]);
    let written = f.range(span(t.all())).await.kvs;
    assert_eq!(keys(&written), ["m1-then", "m2-else", "o1-else", "o2-then", "x"]);
    assert!(
        written
            .iter()
            .filter(|kv| kv.key != t.key("x"))
            .all(|kv| kv.mod_revision == f.base + 2)
    );
}

async fn optimistic_put_as_kubernetes_does_it(t: Target) {
    let f = Fixture::new(&t).await;
    let attempt = |expected: i64, value: &'static str| pb::TxnRequest {
        compare: vec![compare(
            t.key("o"),
            CompareResult::Equal,
            TargetUnion::ModRevision(expected),
        )],
        success: vec![put_op(t.key("o"), value)],
        failure: vec![get_op(t.key("o"))],
    };
    let created = f.txn(attempt(0, "1")).await;
    assert!(created.succeeded);
    assert_eq!(created.header, f.header(f.base + 1));
    let conflict = f.txn(attempt(0, "2")).await;
    assert!(!conflict.succeeded);
    assert_eq!(conflict.header, f.header(f.base + 1));
    assert_eq!(range_of(&conflict.responses[0]).kvs, [f.kv("o", "1", 1, 1, 1)]);
    let updated = f.txn(attempt(f.base + 1, "3")).await;
    assert!(updated.succeeded);
    let delete = pb::TxnRequest {
        compare: vec![compare(
            t.key("o"),
            CompareResult::Equal,
            TargetUnion::ModRevision(f.base + 2),
        )],
        success: vec![delete_op(t.key("o"), "")],
        failure: vec![get_op(t.key("o"))],
    };
    let deleted = f.txn(delete).await;
    assert!(deleted.succeeded);
    assert_eq!(deleted.header, f.header(f.base + 3));
}

async fn put_options_work_inside_a_txn(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    f.put_leased("a", "1", lease).await;
    let keep_value = pb::PutRequest {
        ignore_value: true,
        prev_kv: true,
        ..put(t.key("a"), "")
    };
    let answer = f.txn(always(vec![op(Request::RequestPut(keep_value))])).await;
    let mut previous = f.kv("a", "1", 1, 1, 1);
    previous.lease = lease;
    let expected = pb::PutResponse {
        header: inner(f.base + 2),
        prev_kv: Some(previous),
    };
    assert_eq!(answer.responses, [answered(Response::ResponsePut(expected))]);
    assert_eq!(
        f.get(t.key("a")).await.kvs,
        [f.kv("a", "1", 1, 2, 2)],
        "the lease was not kept"
    );
    let leased = pb::PutRequest {
        lease,
        ..put(t.key("a"), "3")
    };
    f.txn(always(vec![op(Request::RequestPut(leased))])).await;
    assert_eq!(f.time_to_live(lease, true).await.keys, [t.key("a")]);
    f.revoke(lease).await;
    assert_eq!(f.get(t.key("a")).await.count, 0);
}

async fn delete_with_prev_kv_inside_a_txn(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("b", "2", 2).await;
    let (key, range_end) = t.all();
    let delete = pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv: true,
    };
    let answer = f.txn(always(vec![op(Request::RequestDeleteRange(delete))])).await;
    let expected = pb::DeleteRangeResponse {
        header: inner(f.base + 3),
        deleted: 2,
        prev_kvs: vec![f.kv("a", "1", 1, 1, 1), f.kv("b", "2", 2, 2, 1)],
    };
    assert_eq!(answer.responses, [answered(Response::ResponseDeleteRange(expected))]);
}

async fn range_options_work_inside_a_txn(t: Target) {
    let f = Fixture::new(&t).await;
    for (step, key) in ["a", "b", "c"].into_iter().enumerate() {
        f.put_at(key, "v", step as i64 + 1).await;
    }
    let limited = pb::RangeRequest {
        limit: 2,
        keys_only: true,
        ..span(t.all())
    };
    let counted = pb::RangeRequest {
        count_only: true,
        ..span(t.all())
    };
    let ops = vec![op(Request::RequestRange(limited)), op(Request::RequestRange(counted))];
    let answer = f.txn(always(ops)).await;
    let first = range_of(&answer.responses[0]);
    let kvs = [f.kv("a", "", 1, 1, 1), f.kv("b", "", 2, 2, 1)];
    assert_eq!((&first.kvs[..], first.more, first.count), (&kvs[..], true, 3));
    let second = pb::RangeResponse {
        header: inner(f.base + 3),
        kvs: vec![],
        more: false,
        count: 3,
    };
    assert_eq!(range_of(&answer.responses[1]), &second);
}

async fn a_historic_range_inside_a_writing_txn(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    let historic = pb::RangeRequest {
        key: t.key("a"),
        revision: f.base + 1,
        ..Default::default()
    };
    let answer = f
        .txn(always(vec![
            put_op(t.key("a"), "3"),
            op(Request::RequestRange(historic)),
        ]))
        .await;
    let range = range_of(&answer.responses[1]);
    assert_eq!(range.kvs, [f.kv("a", "1", 1, 1, 1)]);
    assert_eq!(range.header, inner(f.base + 3));
}

async fn overlapping_deletes_are_allowed(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("b", "1", 2).await;
    let (key, end) = t.all();
    let answer = f
        .txn(always(vec![delete_op(t.key("a"), ""), delete_op(key, end)]))
        .await;
    let deleted = |deleted| {
        let response = pb::DeleteRangeResponse {
            header: inner(f.base + 3),
            deleted,
            prev_kvs: vec![],
        };
        answered(Response::ResponseDeleteRange(response))
    };
    assert_eq!(answer.responses, [deleted(1), deleted(1)]);
}

async fn a_serializable_read_only_txn_answers_alike(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let read = pb::RangeRequest {
        serializable: true,
        ..span(t.all())
    };
    let answer = f.txn(always(vec![op(Request::RequestRange(read))])).await;
    assert_eq!(answer.header, f.header(f.base + 1));
    assert_eq!(range_of(&answer.responses[0]).kvs, [f.kv("a", "1", 1, 1, 1)]);
}

/// More keys than ringd looks at in one turn, on several of its ways through the index.
async fn a_read_only_txn_of_long_ranges_answers_as_each_of_them_does(t: Target) {
    let f = Fixture::new(&t).await;
    for batch in 0..6 {
        let puts = (0..100).map(|index| {
            let value = (index * 7919 + batch) % 600;
            put_op(t.key(&format!("{batch}{index:02}")), format!("{value:03}"))
        });
        f.txn(always(puts.collect())).await;
    }
    let sorted = |target: pb::range_request::SortTarget| pb::RangeRequest {
        sort_target: target.into(),
        sort_order: pb::range_request::SortOrder::Descend.into(),
        ..span(t.all())
    };
    let ranges = [
        span(t.all()),
        pb::RangeRequest {
            limit: 300,
            ..sorted(pb::range_request::SortTarget::Value)
        },
        pb::RangeRequest {
            keys_only: true,
            ..sorted(pb::range_request::SortTarget::Mod)
        },
        pb::RangeRequest {
            revision: f.base + 4,
            ..span(t.all())
        },
        pb::RangeRequest {
            count_only: true,
            revision: f.base + 2,
            ..span(t.all())
        },
        pb::RangeRequest {
            min_mod_revision: f.base + 3,
            max_mod_revision: f.base + 5,
            ..span(t.all())
        },
        crate::support::calls::one(t.key("000")),
        span((t.key("7"), t.key("8"))),
    ];
    let ops = ranges.iter().cloned().map(|range| op(Request::RequestRange(range)));
    let answer = f.txn(always(ops.collect())).await;
    assert_eq!((answer.header, answer.succeeded), (f.header(f.base + 6), true));
    assert_eq!(answer.responses.len(), ranges.len());
    for (response, range) in answer.responses.iter().zip(ranges) {
        let alone = pb::RangeResponse {
            header: inner(f.base + 6),
            ..f.range(range.clone()).await
        };
        assert_eq!(range_of(response), &alone, "{range:?}");
    }
}
