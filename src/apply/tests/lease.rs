//! Leases through the log.

use std::time::Duration;

use prost::Message;

use crate::apply::Tree;
use crate::apply::testing::*;
use crate::backend::Bucket;
use crate::base::{LeaseId, Reject};
use crate::lease::Renewal;
use crate::mvcc::EventKind;
use crate::wire::proto::etcdserverpb::*;

fn leased(key: &str, lease: i64) -> InternalRaftRequest {
    put(PutRequest {
        lease,
        ..put_request(key, "v")
    })
}

#[test]
fn grant_is_refused_for_the_reasons_that_etcd_has() {
    let mut rig = Rig::new();
    let granted = rig.grant(123, 5).unwrap();
    assert_eq!((granted.header, granted.id, granted.ttl), (header(1), 123, 5));
    assert_eq!(rig.grant(123, 5), Err(Reject::LeaseExists));
    assert_eq!(rig.grant(0, 5), Err(Reject::LeaseNotFound));
    assert_eq!(rig.grant(123, 9_000_000_001), Err(Reject::LeaseTtlTooLarge));
    assert_eq!(rig.grant(1, 9_000_000_000).unwrap().ttl, 9_000_000_000);
    assert_eq!(rig.grant(2, 1).unwrap().ttl, 2);
    assert_eq!(rig.grant(3, -5).unwrap().ttl, 2);
    assert_eq!(rig.grant(-9, 600).unwrap().id, -9);
    let stored = rig.state.tree().value(Bucket::Lease, &123_i64.to_be_bytes());
    assert_eq!(stored.unwrap()[..], [0x08, 123, 0x10, 5]);
}

#[test]
fn revocation_deletes_keys_in_one_revision_in_their_order() {
    let mut rig = Rig::new();
    rig.grant(7, 60).unwrap();
    rig.grant(8, 60).unwrap();
    for key in ["m", "c", "x", "a", "stays"] {
        rig.apply(leased(key, 7));
    }
    rig.apply(leased("stays", 8));
    rig.apply(delete(delete_request("x", "")));
    let before = rig.revision();
    let applied = rig.apply(revoke(7));
    let commit = applied.commit.unwrap();
    let keys: Vec<_> = commit.events.iter().map(|event| (event.kind, &event.key[..])).collect();
    let expected = [b"a", b"c", b"m"].map(|key| (EventKind::Delete, &key[..]));
    assert_eq!(keys, expected);
    assert_eq!(commit.revision, before + 1);
    let response = LeaseRevokeResponse {
        header: header(before + 1),
    };
    assert_eq!(applied.answer.unwrap().unwrap()[..], response.encode_to_vec());
    assert!(rig.state.tree().value(Bucket::Lease, &7_i64.to_be_bytes()).is_none());
    assert_eq!(rig.value("stays").as_deref(), Some("v"));
    assert_eq!(rig.answer::<LeaseRevokeResponse>(revoke(7)), Err(Reject::LeaseNotFound));
    let empty = rig.apply(revoke(8));
    assert_eq!(empty.commit.unwrap().events.len(), 1);
    rig.grant(9, 60).unwrap();
    assert!(
        rig.apply(revoke(9)).commit.is_none(),
        "a lease without keys makes no revision"
    );
}

#[test]
fn attachments_and_leases_survive() {
    let mut rig = Rig::new();
    rig.grant(7, 60).unwrap();
    rig.grant(8, 60).unwrap();
    for (key, lease) in [("a", 7), ("b", 7), ("c", 8), ("a", 8), ("d", 7)] {
        rig.apply(leased(key, lease));
    }
    rig.apply(delete(delete_request("d", "")));
    let rig = rig.reopen();
    let lessor = rig.state.lessor();
    assert_eq!((lessor.len(), lessor.attached_keys()), (2, 3));
    let keys = |id| {
        let keys = lessor.keys_sorted(LeaseId(id)).unwrap();
        keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(keys(7), [b"b"]);
    assert_eq!(keys(8), [b"a", b"c"]);
}

#[test]
fn time_to_live_tells_what_the_primary_knows() {
    let mut rig = Rig::new();
    rig.grant(7, 60).unwrap();
    rig.apply(leased("b", 7));
    rig.apply(leased("a", 7));
    let ask = |rig: &Rig, id, keys| {
        let answer = rig
            .state
            .lease_time_to_live(&LeaseTimeToLiveRequest { id, keys }, rig.now);
        answer.map(|answer| LeaseTimeToLiveResponse::decode(answer).unwrap())
    };
    assert_eq!(ask(&rig, 7, true), Err(Reject::LeaderChanged));
    assert_eq!(ask(&rig, 8, true).unwrap().ttl, -1, "that it is gone everyone knows");
    let now = rig.now;
    rig.state.lessor_mut().promote(Duration::from_secs(1), now);
    rig.now = now + Duration::from_millis(10_500);
    let known = ask(&rig, 7, true).unwrap();
    assert_eq!((known.header, known.ttl, known.granted_ttl), (header(3), 50, 60));
    assert_eq!(known.keys, [&b"a"[..], b"b"]);
    assert!(ask(&rig, 7, false).unwrap().keys.is_empty());
    assert_eq!(
        rig.state.lessor_mut().renew(LeaseId(7), now),
        Renewal::Renewed { ttl: 60 }
    );
}

#[test]
fn leases_are_listed_by_their_end() {
    let mut rig = Rig::new();
    for (id, ttl) in [(1, 300), (2, 100), (3, 200)] {
        rig.grant(id, ttl).unwrap();
    }
    let ids = |rig: &Rig| {
        let response = LeaseLeasesResponse::decode(rig.state.lease_leases()).unwrap();
        assert_eq!(response.header, header(1));
        response.leases.iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&rig), [1, 2, 3]);
    let now = rig.now;
    rig.state.lessor_mut().promote(Duration::ZERO, now);
    assert_eq!(ids(&rig), [2, 3, 1]);
}

#[test]
fn checkpoint_is_stored_when_the_cluster_is_new_enough() {
    let checkpoint = || InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: [7, 99].map(|id| LeaseCheckpoint { id, remaining_ttl: 30 }).to_vec(),
        }),
        ..InternalRaftRequest::default()
    };
    let mut rig = Rig::new();
    rig.grant(7, 600).unwrap();
    let stored = |rig: &Rig| rig.state.tree().value(Bucket::Lease, &7_i64.to_be_bytes()).unwrap();
    let before = stored(&rig);
    rig.apply(checkpoint());
    assert_eq!(stored(&rig), before);
    rig.apply(InternalRaftRequest {
        cluster_version_set: Some(crate::wire::proto::membershippb::ClusterVersionSetRequest {
            ver: "3.6.0".to_owned(),
        }),
        ..InternalRaftRequest::default()
    });
    let response: LeaseCheckpointResponseBytes = rig.answer(checkpoint()).unwrap();
    assert_eq!(response.header, header(1));
    assert_eq!(stored(&rig)[..], [0x08, 7, 0x10, 0xd8, 4, 0x18, 30]);
    assert_eq!(rig.state.lessor().len(), 1, "a lease that is gone is not brought back");
}

/// A `LeaseCheckpointResponse` holds a header, as a revocation's answer does.
type LeaseCheckpointResponseBytes = LeaseRevokeResponse;

#[test]
fn keep_alive_shows_the_revision_it_is_given() {
    let mut rig = Rig::new();
    rig.state.set_raft_term(TERM);
    let answer = rig.state.lease_keep_alive_response(LeaseId(5), 1, 0);
    let expected = LeaseKeepAliveResponse {
        header: header(1),
        id: 5,
        ttl: 0,
    };
    assert_eq!(answer[..], expected.encode_to_vec());
}
