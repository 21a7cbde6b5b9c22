//! Transactions.

use bytes::Bytes;
use prost::Message;

use crate::apply::{StateConfig, testing::*};
use crate::base::Reject;
use crate::mvcc::EventKind;
use crate::wire::proto::etcdserverpb::{
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
    *,
};
use crate::wire::proto::mvccpb::KeyValue;

fn range_op(request: RangeRequest) -> RequestOp {
    op(Request::RequestRange(request))
}

fn put_op(request: PutRequest) -> RequestOp {
    op(Request::RequestPut(request))
}

fn delete_op(request: DeleteRangeRequest) -> RequestOp {
    op(Request::RequestDeleteRange(request))
}

fn txn_op(request: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(request))
}

fn success(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

fn nested_header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..ResponseHeader::default()
    })
}

fn response(response: Response) -> ResponseOp {
    ResponseOp {
        response: Some(response),
    }
}

fn kv(key: &str, value: &str, revision: i64) -> KeyValue {
    KeyValue {
        key: bytes(key),
        value: bytes(value),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    }
}

/// The bytes that etcd 3.5.30 answers, shown by its JSON gateway, for the same requests.
#[test]
fn headers_within_a_transaction_are_those_of_etcd() {
    let mut rig = Rig::new();
    rig.put("a", "1").unwrap();
    rig.put("b", "2").unwrap();
    let inner = success(vec![
        range_op(range_request("a")),
        delete_op(DeleteRangeRequest {
            prev_kv: true,
            ..delete_request("a", "")
        }),
    ]);
    let request = success(vec![
        range_op(range_request("a")),
        put_op(PutRequest {
            prev_kv: true,
            ..put_request("c", "3")
        }),
        delete_op(delete_request("zz", "")),
        range_op(range_request("c")),
        txn_op(inner),
    ]);
    let found = |key, value, at, revision| {
        response(Response::ResponseRange(RangeResponse {
            header: nested_header(at),
            kvs: vec![kv(key, value, revision)],
            more: false,
            count: 1,
        }))
    };
    let inner = TxnResponse {
        header: nested_header(0),
        succeeded: true,
        responses: vec![
            found("a", "1", 4, 2),
            response(Response::ResponseDeleteRange(DeleteRangeResponse {
                header: nested_header(4),
                deleted: 1,
                prev_kvs: vec![kv("a", "1", 2)],
            })),
        ],
    };
    let expected = TxnResponse {
        header: header(4),
        succeeded: true,
        responses: vec![
            found("a", "1", 3, 2),
            response(Response::ResponsePut(PutResponse {
                header: nested_header(4),
                prev_kv: None,
            })),
            response(Response::ResponseDeleteRange(DeleteRangeResponse {
                header: nested_header(4),
                ..DeleteRangeResponse::default()
            })),
            found("c", "3", 4, 4),
            response(Response::ResponseTxn(inner)),
        ],
    };
    let answer = rig.apply(txn(request)).answer.unwrap().unwrap();
    assert_eq!(TxnResponse::decode(answer.clone()).unwrap(), expected);
    assert_eq!(answer[..], expected.encode_to_vec());
}

#[test]
fn transaction_that_changes_nothing_makes_no_revision() {
    let mut rig = Rig::new();
    rig.put("a", "1").unwrap();
    let request = success(vec![delete_op(delete_request("zz", "")), txn_op(TxnRequest::default())]);
    let applied = rig.apply(txn(request));
    assert!(applied.commit.is_none());
    let response = TxnResponse::decode(applied.answer.unwrap().unwrap()).unwrap();
    assert_eq!(response.header, header(2));
    assert_eq!(rig.revision(), 2);
}

#[test]
fn changes_of_a_transaction_share_a_revision() {
    let mut rig = Rig::new();
    rig.put("a", "1").unwrap();
    let request = success(vec![
        put_op(put_request("b", "2")),
        delete_op(delete_request("a", "")),
        txn_op(success(vec![put_op(put_request("c", "3"))])),
    ]);
    let commit = rig.apply(txn(request)).commit.unwrap();
    let changes: Vec<_> = commit
        .events
        .iter()
        .map(|event| (event.kind, &event.key[..], event.revision.main, event.revision.sub))
        .collect();
    let expected = [
        (EventKind::Put, &b"b"[..], 3, 0),
        (EventKind::Delete, b"a", 3, 1),
        (EventKind::Put, b"c", 3, 2),
    ];
    assert_eq!(changes, expected);
}

#[test]
fn within_a_transaction_a_missing_key_is_noticed_before_an_unknown_lease() {
    let mut rig = Rig::new();
    let both = PutRequest {
        lease: 77,
        ignore_value: true,
        ..put_request("k", "")
    };
    let unknown = PutRequest {
        lease: 77,
        ..put_request("k", "v")
    };
    let check = |rig: &mut Rig, request: PutRequest, expected: Reject| {
        // What comes before the failing operation is not carried out either.
        let request = success(vec![put_op(put_request("first", "1")), put_op(request)]);
        assert_eq!(rig.answer::<TxnResponse>(txn(request)), Err(expected));
        assert_eq!(rig.revision(), 1);
    };
    check(&mut rig, both, Reject::KeyNotFound);
    check(&mut rig, unknown.clone(), Reject::LeaseNotFound);
    // A branch that is not taken is not checked.
    let other = TxnRequest {
        failure: vec![put_op(unknown)],
        ..success(vec![put_op(put_request("k", "v"))])
    };
    assert!(rig.answer::<TxnResponse>(txn(other)).is_ok());
}

#[test]
fn ranges_of_a_transaction_may_look_back_but_not_ahead() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value).unwrap();
    }
    rig.apply(compact(3));
    let at = |revision| RangeRequest {
        revision,
        ..range_request("k")
    };
    let ask = |rig: &mut Rig, revision| {
        let request = success(vec![put_op(put_request("x", "1")), range_op(at(revision))]);
        rig.answer::<TxnResponse>(txn(request)).map(|_| ())
    };
    assert_eq!(ask(&mut rig, 2), Err(Reject::Compacted));
    assert_eq!(ask(&mut rig, -1), Err(Reject::Compacted));
    assert_eq!(
        ask(&mut rig, 5),
        Err(Reject::FutureRevision),
        "not even at the transaction's own revision"
    );
    assert_eq!(ask(&mut rig, 3), Ok(()));
    let read = success(vec![range_op(at(3)), range_op(at(9))]);
    assert_eq!(rig.state.read_txn(&read), Err(Reject::FutureRevision));
}

#[test]
fn read_only_transaction_is_answered_without_the_log() {
    let mut rig = Rig::new();
    rig.put("k", "v").unwrap();
    let request = TxnRequest {
        compare: vec![compare(
            "k",
            CompareResult::Equal,
            CompareTarget::Version,
            Some(TargetUnion::Version(2)),
        )],
        success: vec![],
        failure: vec![range_op(range_request("k"))],
    };
    let direct = rig.state.read_txn(&request).unwrap();
    let logged = rig.apply(txn(request)).answer.unwrap().unwrap();
    assert_eq!(direct, logged);
    let response = TxnResponse::decode(direct).unwrap();
    assert_eq!((response.header, response.succeeded), (header(2), false));
    assert_eq!(response.responses.len(), 1);
}

#[test]
fn put_after_an_open_ended_delete_of_its_key_has_nothing_to_keep() {
    let mut rig = Rig::new();
    rig.put("k", "v").unwrap();
    let request = success(vec![
        delete_op(delete_request("a", "\0")),
        put_op(PutRequest {
            ignore_value: true,
            ignore_lease: true,
            prev_kv: true,
            ..put_request("k", "")
        }),
    ]);
    // Not proposed by us, but a log may hold anything.
    assert_eq!(crate::apply::check::txn(&request, 128), Err(Reject::KeyNotFound));
    let response: TxnResponse = rig.answer(txn(request)).unwrap();
    let Some(Response::ResponsePut(put)) = &response.responses[1].response else {
        panic!("the second operation is a put");
    };
    assert_eq!(put.prev_kv, None);
    assert_eq!(rig.value("k").as_deref(), Some(""));
}

fn compare(key: &str, result: CompareResult, target: CompareTarget, given: Option<TargetUnion>) -> Compare {
    Compare {
        result: result as i32,
        target: target as i32,
        key: bytes(key),
        range_end: Bytes::new(),
        target_union: given,
    }
}

fn holds(rig: &Rig, compare: Compare) -> bool {
    let request = TxnRequest {
        compare: vec![compare],
        ..TxnRequest::default()
    };
    let answer = rig.state.read_txn(&request).unwrap();
    TxnResponse::decode(answer).unwrap().succeeded
}

#[test]
fn comparison_looks_at_what_it_says() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let mut rig = Rig::new();
    rig.grant(9, 60).unwrap();
    rig.put("k", "a").unwrap();
    let leased = PutRequest {
        lease: 9,
        ..put_request("k", "m")
    };
    let _: PutResponse = rig.answer(put(leased)).unwrap();
    let value = |text| Some(TargetUnion::Value(bytes(text)));
    let cases = [
        (Equal, CompareTarget::Version, Some(TargetUnion::Version(2)), true),
        (Greater, CompareTarget::Version, Some(TargetUnion::Version(1)), true),
        (Less, CompareTarget::Version, Some(TargetUnion::Version(2)), false),
        (Equal, CompareTarget::Create, Some(TargetUnion::CreateRevision(2)), true),
        (
            NotEqual,
            CompareTarget::Create,
            Some(TargetUnion::CreateRevision(2)),
            false,
        ),
        (Equal, CompareTarget::Mod, Some(TargetUnion::ModRevision(3)), true),
        (Less, CompareTarget::Mod, Some(TargetUnion::ModRevision(4)), true),
        (Equal, CompareTarget::Value, value("m"), true),
        (Greater, CompareTarget::Value, value("l"), true),
        (Less, CompareTarget::Value, value("n"), true),
        (Equal, CompareTarget::Value, value("n"), false),
        (Equal, CompareTarget::Lease, Some(TargetUnion::Lease(9)), true),
        (Greater, CompareTarget::Lease, Some(TargetUnion::Lease(9)), false),
        // Nothing given, or given for another target, counts as zero.
        (Equal, CompareTarget::Version, None, false),
        (
            Greater,
            CompareTarget::Version,
            Some(TargetUnion::ModRevision(100)),
            true,
        ),
        (Greater, CompareTarget::Value, None, true),
    ];
    for (result, target, given, expected) in cases {
        let compare = compare("k", result, target, given);
        assert_eq!(holds(&rig, compare.clone()), expected, "{compare:?}");
    }
}

#[test]
fn missing_key_compares_as_zero_but_never_by_value() {
    use CompareResult::{Equal, Greater, NotEqual};
    let rig = Rig::new();
    assert!(holds(
        &rig,
        compare("k", Equal, CompareTarget::Version, Some(TargetUnion::Version(0)))
    ));
    assert!(holds(&rig, compare("k", Equal, CompareTarget::Create, None)));
    assert!(holds(&rig, compare("k", Equal, CompareTarget::Lease, None)));
    assert!(!holds(
        &rig,
        compare("k", Greater, CompareTarget::Mod, Some(TargetUnion::ModRevision(0)))
    ));
    for result in [Equal, NotEqual, Greater, CompareResult::Less] {
        assert!(!holds(&rig, compare("k", result, CompareTarget::Value, None)));
    }
}

#[test]
fn range_compares_if_every_key_does() {
    use CompareResult::{Equal, Less};
    let mut rig = Rig::new();
    for key in ["a", "b", "c"] {
        rig.put(key, "same").unwrap();
    }
    rig.put("c", "other").unwrap();
    let over = |end: &str, compare: Compare| Compare {
        range_end: bytes(end),
        ..compare
    };
    let same = compare(
        "a",
        Equal,
        CompareTarget::Value,
        Some(TargetUnion::Value(bytes("same"))),
    );
    assert!(holds(&rig, over("c", same.clone())));
    assert!(!holds(&rig, over("d", same.clone())));
    assert!(!holds(&rig, over("\0", same)));
    let early = compare("a", Less, CompareTarget::Mod, Some(TargetUnion::ModRevision(6)));
    assert!(holds(&rig, over("\0", early)));
    let nothing = compare("x", Equal, CompareTarget::Version, Some(TargetUnion::Version(0)));
    assert!(
        holds(&rig, over("z", nothing)),
        "an empty range compares as a missing key"
    );
}

#[test]
fn unknown_results_hold_and_unknown_targets_are_equal() {
    let mut rig = Rig::new();
    rig.put("k", "v").unwrap();
    let odd = |result, target| Compare {
        result,
        target,
        ..compare("k", CompareResult::Equal, CompareTarget::Version, None)
    };
    assert!(holds(&rig, odd(9, 0)));
    assert!(holds(&rig, odd(0, 9)));
    assert!(!holds(&rig, odd(1, 9)));
}

#[test]
fn an_answer_that_would_be_too_large_is_not_made_and_all_else_is_done() {
    let mut rig = Rig::with(StateConfig {
        answer_bytes_max: 1_000,
        ..config()
    });
    for key in ["a", "b", "c"] {
        rig.put(key, &"v".repeat(200)).unwrap();
    }
    let all = || RangeRequest {
        range_end: bytes("z"),
        ..range_request("a")
    };
    let too_large = Err(Reject::AnswerTooLarge);
    let within = success(vec![put_op(put_request("n", "1")), range_op(all())]);
    assert!(rig.answer::<TxnResponse>(txn(within)).is_ok());
    let beyond = success(vec![put_op(put_request("n", "2")), range_op(all()), range_op(all())]);
    assert_eq!(rig.answer::<TxnResponse>(txn(beyond)), too_large);
    assert_eq!(rig.value("n").as_deref(), Some("2"));
    let reads = success(vec![range_op(all()), range_op(all())]);
    assert_eq!(rig.state.read_txn(&reads).map(drop), Err(Reject::AnswerTooLarge));
    let nested = success(vec![
        put_op(put_request("n", "3")),
        txn_op(success(vec![txn_op(success(vec![range_op(all())]))])),
    ]);
    assert_eq!(
        rig.answer::<TxnResponse>(txn(nested)),
        too_large,
        "each level is a copy"
    );
    rig.put("d", &"v".repeat(500)).unwrap();
    let deletion = DeleteRangeRequest {
        prev_kv: true,
        ..delete_request("a", "z")
    };
    assert_eq!(
        rig.answer::<DeleteRangeResponse>(delete(deletion)),
        Err(Reject::AnswerTooLarge)
    );
    assert_eq!(rig.value("d"), None);
}
