//! Alarms, the gates that they close, and the quota.

use crate::apply::testing::*;
use crate::apply::{Effect, StateConfig};
use crate::backend::Bucket;
use crate::base::{MemberId, Reject};
use crate::wire::proto::etcdserverpb::{alarm_request::AlarmAction, request_op::Request, *};

const ACTIVATE: i32 = AlarmAction::Activate as i32;
const DEACTIVATE: i32 = AlarmAction::Deactivate as i32;
const LIST: i32 = AlarmAction::Get as i32;

fn put_txn() -> InternalRaftRequest {
    txn(TxnRequest {
        success: vec![op(Request::RequestPut(put_request("t", "1")))],
        ..TxnRequest::default()
    })
}

fn delete_txn() -> InternalRaftRequest {
    txn(TxnRequest {
        success: vec![op(Request::RequestDeleteRange(delete_request("t", "")))],
        ..TxnRequest::default()
    })
}

#[test]
fn alarm_is_stored_as_its_own_key_and_survives() {
    let mut rig = Rig::new();
    let applied = rig.apply(alarm(ACTIVATE, 5, AlarmType::Nospace));
    let Some(Effect::AlarmChanged {
        alarm: 1,
        member: MemberId(5),
        is_raised: true,
    }) = applied.effect
    else {
        panic!("an alarm was raised");
    };
    let key = (Bucket::Alarm, vec![0x08, 5, 0x10, 1]);
    assert_eq!(rig.state.tree().buckets[&key], bytes(""));
    let again = rig.apply(alarm(ACTIVATE, 5, AlarmType::Nospace));
    assert!(again.effect.is_none(), "it is raised already");
    let mut rig = rig.reopen();
    let listed: AlarmResponse = rig.answer(alarm(LIST, 0, AlarmType::None)).unwrap();
    let member = AlarmMember { member_id: 5, alarm: 1 };
    assert_eq!((listed.header, listed.alarms), (header(1), vec![member]));
    let other: AlarmResponse = rig.answer(alarm(DEACTIVATE, 6, AlarmType::Nospace)).unwrap();
    assert_eq!(other.alarms, []);
    let gone: AlarmResponse = rig.answer(alarm(DEACTIVATE, 5, AlarmType::Nospace)).unwrap();
    assert_eq!(gone.alarms, [member]);
    assert!(!rig.state.tree().buckets.contains_key(&key));
    assert!(rig.put("k", "v").is_ok());
}

#[test]
fn alarm_of_no_kind_is_not_raised() {
    let mut rig = Rig::new();
    let response: AlarmResponse = rig.answer(alarm(ACTIVATE, 5, AlarmType::None)).unwrap();
    assert_eq!(response.alarms, []);
    assert!(rig.state.alarms().list(0).is_empty());
}

#[test]
fn without_space_only_what_takes_space_is_refused() {
    let mut rig = Rig::new();
    rig.put("t", "0").unwrap();
    rig.grant(1, 60).unwrap();
    rig.apply(alarm(ACTIVATE, 5, AlarmType::Nospace));
    assert_eq!(rig.put("k", "v"), Err(Reject::NoSpace));
    assert_eq!(rig.grant(2, 60), Err(Reject::NoSpace));
    assert_eq!(rig.answer::<TxnResponse>(put_txn()), Err(Reject::NoSpace));
    assert!(rig.answer::<TxnResponse>(delete_txn()).is_ok());
    assert!(rig.answer::<LeaseRevokeResponse>(revoke(1)).is_ok());
    assert!(
        rig.answer::<DeleteRangeResponse>(delete(delete_request("t", "")))
            .is_ok()
    );
    assert!(rig.answer::<CompactionResponse>(compact(2)).is_ok());
    // Another member's alarm keeps the gate closed.
    rig.apply(alarm(ACTIVATE, 6, AlarmType::Nospace));
    rig.apply(alarm(DEACTIVATE, 5, AlarmType::Nospace));
    assert_eq!(rig.put("k", "v"), Err(Reject::NoSpace));
    rig.apply(alarm(DEACTIVATE, 6, AlarmType::Nospace));
    assert!(rig.put("k", "v").is_ok());
}

#[test]
fn corrupt_cluster_refuses_keys_and_leases_before_it_looks_for_space() {
    let mut rig = Rig::new();
    rig.grant(1, 60).unwrap();
    rig.apply(alarm(ACTIVATE, 5, AlarmType::Nospace));
    rig.apply(alarm(ACTIVATE, 5, AlarmType::Corrupt));
    let range = InternalRaftRequest {
        range: Some(range_request("k")),
        ..InternalRaftRequest::default()
    };
    let requests = [
        put(put_request("k", "v")),
        delete(delete_request("k", "")),
        put_txn(),
        delete_txn(),
        compact(1),
        grant(2, 60),
        revoke(1),
        range,
    ];
    for request in requests {
        let applied = rig.apply(request);
        assert_eq!(applied.answer, Some(Err(Reject::Corrupt)));
        assert!(applied.commit.is_none() && applied.effect.is_none());
    }
    rig.apply(alarm(DEACTIVATE, 5, AlarmType::Corrupt));
    assert_eq!(rig.put("k", "v"), Err(Reject::NoSpace));
}

#[test]
fn write_beyond_the_quota_is_made_but_refused_and_raises_the_alarm() {
    let mut rig = Rig::with(StateConfig {
        quota_bytes: Some(1000),
        ..config()
    });
    rig.state.tree_mut().allocated_bytes = 700;
    assert!(rig.put("k", "v").is_ok());
    for request in [put(put_request("key", &"v".repeat(50))), put_txn(), grant(7, 60)] {
        rig.state.tree_mut().allocated_bytes = 950;
        let applied = rig.apply(request);
        assert_eq!(applied.answer, Some(Err(Reject::NoSpace)));
        assert!(matches!(applied.effect, Some(Effect::RaiseAlarm(AlarmType::Nospace))));
    }
    assert_eq!(rig.revision(), 4, "both puts were made");
    assert!(rig.state.lessor().contains(crate::base::LeaseId(7)));
    assert!(
        rig.answer::<TxnResponse>(delete_txn()).is_ok(),
        "what is free always fits"
    );
    // A refusal for another reason says nothing of space.
    let unknown = PutRequest {
        lease: 99,
        ..put_request("k", "v")
    };
    let applied = rig.apply(put(unknown));
    assert_eq!(applied.answer, Some(Err(Reject::LeaseNotFound)));
    assert!(applied.effect.is_none());
}
