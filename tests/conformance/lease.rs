//! Leases: granting, what is left of them, keeping them alive, revoking, expiring, and the keys attached to them.

use std::time::Duration;

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::{Fixture, no_lease, refusal},
    support::{
        calls::{always, one, op, put, span},
        status::Code,
        world::{Stop, Target},
    },
    watch::watch_all,
};

bodies! {
    standing {
        a_grant_answers_with_its_id_and_ttl_and_no_new_revision,
        the_server_chooses_positive_ids_when_none_is_given,
        a_short_ttl_is_raised_to_two_seconds,
        a_ttl_beyond_the_maximum_is_refused,
        an_id_that_is_taken_is_refused,
        a_revoked_id_can_be_granted_again,
        ids_may_be_negative,
        time_to_live_tells_what_was_granted_and_what_is_left,
        time_to_live_lists_keys_when_asked,
        time_to_live_of_an_unknown_lease_is_minus_one,
        leases_lists_every_lease,
        revoke_of_an_unknown_lease_is_refused,
        revoke_deletes_all_keys_in_one_revision,
        revoke_of_a_lease_without_keys_moves_no_revision,
        keepalive_answers_with_the_granted_ttl,
        keepalive_of_an_unknown_lease_answers_with_ttl_zero,
        keepalive_serves_many_leases_on_a_stream_in_order,
        keepalive_ends_with_ok_when_the_client_has_no_more,
        a_put_moves_a_key_from_one_lease_to_another,
        a_key_of_a_txn_is_attached,
        kv_lease_aliases_do_not_exist_in_grpc,
    }
    fresh {
        an_expired_lease_deletes_its_keys_in_one_revision,
        keepalive_holds_off_expiry,
        leases_outlive_a_restart_with_their_keys,
        grants_and_revokes_outlive_a_kill,
    }
}

async fn a_grant_answers_with_its_id_and_ttl_and_no_new_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f.grant(0x1234_5678_9abc, 60).await;
    let expected = pb::LeaseGrantResponse {
        header: f.header(f.base),
        id: 0x1234_5678_9abc,
        ttl: 60,
        error: String::new(),
    };
    assert_eq!(answer, expected);
    assert_eq!(
        f.revoke(0x1234_5678_9abc).await,
        pb::LeaseRevokeResponse {
            header: f.header(f.base)
        }
    );
}

async fn the_server_chooses_positive_ids_when_none_is_given(t: Target) {
    let f = Fixture::new(&t).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let answer = f.grant(0, 60).await;
        assert!(answer.id > 0);
        ids.push(answer.id);
    }
    for id in &ids {
        f.revoke(*id).await;
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids differ");
}

async fn a_short_ttl_is_raised_to_two_seconds(t: Target) {
    let f = Fixture::new(&t).await;
    for (asked, granted) in [(1, 2), (0, 2), (-10, 2), (i64::MIN, 2), (2, 2), (3, 3)] {
        let answer = f.grant(0, asked).await;
        assert_eq!(answer.ttl, granted, "asked for {asked}");
        f.revoke(answer.id).await;
    }
}

async fn a_ttl_beyond_the_maximum_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f.grant(0, 9_000_000_000).await;
    assert_eq!(answer.ttl, 9_000_000_000);
    f.revoke(answer.id).await;
    for ttl in [9_000_000_001, i64::MAX] {
        let refused = f.try_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await;
        assert_eq!(refused, Err(refusal(Code::OutOfRange, "too large lease TTL")));
    }
}

async fn an_id_that_is_taken_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_002, 60).await;
    let refused = f.try_grant(pb::LeaseGrantRequest { ttl: 90, id: 4_002 }).await;
    assert_eq!(refused, Err(refusal(Code::FailedPrecondition, "lease already exists")));
    assert_eq!(f.time_to_live(4_002, false).await.granted_ttl, 60);
    f.revoke(4_002).await;
}

async fn a_revoked_id_can_be_granted_again(t: Target) {
    let f = Fixture::new(&t).await;
    for ttl in [60, 70] {
        assert_eq!(f.grant(4_003, ttl).await.ttl, ttl);
        f.revoke(4_003).await;
    }
}

async fn ids_may_be_negative(t: Target) {
    let f = Fixture::new(&t).await;
    assert_eq!(f.grant(-7, 60).await.id, -7);
    f.put_leased("a", "1", -7).await;
    assert_eq!(f.get(t.key("a")).await.kvs[0].lease, -7);
    f.revoke(-7).await;
    assert_eq!(f.get(t.key("a")).await.count, 0);
}

async fn time_to_live_tells_what_was_granted_and_what_is_left(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_005, 60).await;
    let answer = f.time_to_live(4_005, false).await;
    let expected = pb::LeaseTimeToLiveResponse {
        header: f.header(f.base),
        id: 4_005,
        ttl: answer.ttl,
        granted_ttl: 60,
        keys: vec![],
    };
    assert_eq!(answer, expected);
    assert!((58..=60).contains(&answer.ttl), "{} s left", answer.ttl);
    f.revoke(4_005).await;
}

async fn time_to_live_lists_keys_when_asked(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_006, 60).await;
    for key in ["b", "c", "a"] {
        f.put_leased(key, "v", 4_006).await;
    }
    let mut keys = f.time_to_live(4_006, true).await.keys;
    keys.sort();
    assert_eq!(keys, ["a", "b", "c"].map(|key| t.key(key)));
    assert_eq!(f.time_to_live(4_006, false).await.keys, Vec::<Bytes>::new());
    f.revoke(4_006).await;
}

async fn time_to_live_of_an_unknown_lease_is_minus_one(t: Target) {
    let f = Fixture::new(&t).await;
    for keys in [false, true] {
        let answer = f.time_to_live(4_711, keys).await;
        let expected = pb::LeaseTimeToLiveResponse {
            header: f.header(f.base),
            id: 4_711,
            ttl: -1,
            granted_ttl: 0,
            keys: vec![],
        };
        assert_eq!(answer, expected);
    }
}

async fn leases_lists_every_lease(t: Target) {
    let f = Fixture::new(&t).await;
    let ids = async || {
        let answer = f.try_leases(pb::LeaseLeasesRequest {}).await.unwrap();
        assert_eq!(answer.header, f.header(f.base));
        answer
            .leases
            .iter()
            .map(|lease| lease.id)
            .filter(|id| (4_100..4_110).contains(id))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids().await, [0; 0]);
    for (id, ttl) in [(4_102, 300), (4_101, 200), (4_103, 250)] {
        f.grant(id, ttl).await;
    }
    let mut listed = ids().await;
    listed.sort_unstable();
    assert_eq!(listed, [4_101, 4_102, 4_103]);
    for id in [4_101, 4_102, 4_103] {
        f.revoke(id).await;
    }
    assert_eq!(ids().await, [0; 0]);
}

async fn revoke_of_an_unknown_lease_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    for id in [4_711, 0, -4_711] {
        assert_eq!(f.try_revoke(pb::LeaseRevokeRequest { id }).await, Err(no_lease()));
    }
}

async fn revoke_deletes_all_keys_in_one_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_008, 60).await;
    for key in ["a", "b", "c"] {
        f.put_leased(key, "v", 4_008).await;
    }
    f.put_at("d", "v", 4).await;
    assert_eq!(
        f.revoke(4_008).await,
        pb::LeaseRevokeResponse {
            header: f.header(f.base + 5)
        }
    );
    let left = f.range(span(t.all())).await;
    assert_eq!(left.kvs, [f.kv("d", "v", 4, 4, 1)]);
    assert_eq!(left.header, f.header(f.base + 5));
    let before = f
        .range(pb::RangeRequest {
            revision: f.base + 4,
            ..span(t.all())
        })
        .await;
    assert_eq!(before.count, 4);
    assert_eq!(f.time_to_live(4_008, false).await.ttl, -1);
}

async fn revoke_of_a_lease_without_keys_moves_no_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_009, 60).await;
    assert_eq!(
        f.revoke(4_009).await,
        pb::LeaseRevokeResponse {
            header: f.header(f.base)
        }
    );
    assert_eq!(f.revision().await, f.base);
}

async fn keepalive_answers_with_the_granted_ttl(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_010, 60).await;
    let mut stream = f.keep_alive().await;
    for _ in 0..3 {
        stream.send(&pb::LeaseKeepAliveRequest { id: 4_010 });
        let answer: pb::LeaseKeepAliveResponse = stream.expect_next().await;
        assert_eq!(
            answer,
            pb::LeaseKeepAliveResponse {
                header: f.header(f.base),
                id: 4_010,
                ttl: 60
            }
        );
    }
    f.put_at("a", "1", 1).await;
    stream.send(&pb::LeaseKeepAliveRequest { id: 4_010 });
    assert_eq!(
        stream.expect_next::<pb::LeaseKeepAliveResponse>().await.header,
        f.header(f.base + 1)
    );
    f.revoke(4_010).await;
    stream.send(&pb::LeaseKeepAliveRequest { id: 4_010 });
    assert_eq!(stream.expect_next::<pb::LeaseKeepAliveResponse>().await.ttl, 0);
}

async fn keepalive_of_an_unknown_lease_answers_with_ttl_zero(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.keep_alive().await;
    for id in [4_711, 0, -1] {
        stream.send(&pb::LeaseKeepAliveRequest { id });
        let answer: pb::LeaseKeepAliveResponse = stream.expect_next().await;
        assert_eq!(
            answer,
            pb::LeaseKeepAliveResponse {
                header: f.header(f.base),
                id,
                ttl: 0
            }
        );
    }
}

async fn keepalive_serves_many_leases_on_a_stream_in_order(t: Target) {
    let f = Fixture::new(&t).await;
    let ids: Vec<i64> = (4_200..4_300).collect();
    for id in &ids {
        f.grant(*id, 100 + id % 7).await;
    }
    let mut stream = f.keep_alive().await;
    for id in &ids {
        stream.send(&pb::LeaseKeepAliveRequest { id: *id });
    }
    for id in &ids {
        let answer: pb::LeaseKeepAliveResponse = stream.expect_next().await;
        assert_eq!((answer.id, answer.ttl), (*id, 100 + id % 7));
    }
    for id in &ids {
        f.revoke(*id).await;
    }
}

async fn keepalive_ends_with_ok_when_the_client_has_no_more(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_011, 60).await;
    let mut stream = f.keep_alive().await;
    stream.send(&pb::LeaseKeepAliveRequest { id: 4_011 });
    stream.half_close();
    assert_eq!(stream.expect_next::<pb::LeaseKeepAliveResponse>().await.ttl, 60);
    assert_eq!(stream.end().await, Ok(()));
    f.revoke(4_011).await;
}

async fn a_put_moves_a_key_from_one_lease_to_another(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_012, 60).await;
    f.grant(4_013, 60).await;
    f.put_leased("a", "1", 4_012).await;
    f.put_leased("a", "2", 4_013).await;
    assert_eq!(f.time_to_live(4_012, true).await.keys, Vec::<Bytes>::new());
    assert_eq!(f.time_to_live(4_013, true).await.keys, [t.key("a")]);
    f.revoke(4_012).await;
    assert_eq!(f.get(t.key("a")).await.count, 1);
    f.revoke(4_013).await;
    assert_eq!(f.get(t.key("a")).await.count, 0);
}

async fn a_key_of_a_txn_is_attached(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(4_014, 60).await;
    let leased = pb::PutRequest {
        lease: 4_014,
        ..put(t.key("a"), "1")
    };
    f.txn(always(vec![op(pb::request_op::Request::RequestPut(leased))]))
        .await;
    assert_eq!(f.time_to_live(4_014, true).await.keys, [t.key("a")]);
    f.revoke(4_014).await;
    assert_eq!(f.get(t.key("a")).await.count, 0);
}

async fn kv_lease_aliases_do_not_exist_in_grpc(t: Target) {
    let f = Fixture::new(&t).await;
    let refused: Result<pb::LeaseRevokeResponse, _> = f
        .unary("/etcdserverpb.KV/LeaseRevoke", &pb::LeaseRevokeRequest { id: 1 })
        .await;
    assert_eq!(refused.unwrap_err().code, Code::Unimplemented);
}

async fn an_expired_lease_deletes_its_keys_in_one_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    let granted = t.now();
    let lease = f.grant(0, 2).await.id;
    for key in ["c", "a", "b"] {
        f.put_leased(key, "v", lease).await;
        stream.watched().await;
    }
    let response = t.within(Duration::from_secs(8), "expiry", stream.watched()).await;
    let after = t.now() - granted;
    assert!(after >= Duration::from_millis(1_950), "expired after {after:?}");
    assert!(after <= Duration::from_millis(4_500), "expired after {after:?}");
    let deletes = ["a", "b", "c"].map(|key| f.delete_event(key, 4)).to_vec();
    let expected = pb::WatchResponse {
        header: f.header(f.base + 4),
        events: deletes,
        ..Default::default()
    };
    assert_eq!(response, expected);
    assert_eq!(f.time_to_live(lease, false).await.ttl, -1);
    assert_eq!(
        f.try_put(pb::PutRequest {
            lease,
            ..put(t.key("a"), "v")
        })
        .await,
        Err(no_lease())
    );
}

async fn keepalive_holds_off_expiry(t: Target) {
    let f = Fixture::new(&t).await;
    let kept = f.grant(0, 2).await.id;
    let left = f.grant(0, 2).await.id;
    f.put_leased("kept", "v", kept).await;
    f.put_leased("left", "v", left).await;
    let mut stream = f.keep_alive().await;
    for _ in 0..10 {
        t.sleep(Duration::from_millis(450)).await;
        stream.send(&pb::LeaseKeepAliveRequest { id: kept });
        let answer: pb::LeaseKeepAliveResponse = stream.expect_next().await;
        assert_eq!((answer.id, answer.ttl), (kept, 2));
    }
    assert_eq!(f.get(t.key("kept")).await.count, 1);
    assert_eq!(f.get(t.key("left")).await.count, 0);
}

async fn leases_outlive_a_restart_with_their_keys(t: Target) {
    let f = Fixture::new(&t).await;
    f.grant(11, 500).await;
    f.grant(12, 600).await;
    f.put_leased("a", "1", 11).await;
    f.put_leased("b", "1", 11).await;
    f.put_leased("b", "2", 12).await;
    for stop in [Stop::Clean, Stop::Kill] {
        t.restart(stop).await;
        let again = Fixture::new(&t).await;
        assert_eq!(again.base, f.base + 3);
        assert_eq!(again.time_to_live(11, true).await.keys, [t.key("a")]);
        let second = again.time_to_live(12, true).await;
        assert_eq!((second.keys, second.granted_ttl), (vec![t.key("b")], 600));
        assert!((590..=600).contains(&second.ttl), "{} s left", second.ttl);
    }
    let again = t.client().await;
    again.revoke(11).await;
    assert_eq!(again.range(span(t.all())).await.count, 1);
}

async fn grants_and_revokes_outlive_a_kill(t: Target) {
    let f = Fixture::new(&t).await;
    for id in 1..=20 {
        f.grant(id, 300).await;
        f.put_leased(&format!("{id:02}"), "v", id).await;
    }
    for id in (2..=20).step_by(2) {
        f.revoke(id).await;
    }
    t.restart(Stop::Kill).await;
    let again = t.client().await;
    let mut ids: Vec<_> = again
        .try_leases(pb::LeaseLeasesRequest {})
        .await
        .unwrap()
        .leases
        .iter()
        .map(|lease| lease.id)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).step_by(2).collect::<Vec<i64>>());
    for id in 1..=20 {
        let kept = again.range(one(t.key(&format!("{id:02}")))).await.count;
        assert_eq!(kept, id % 2, "key of lease {id}");
    }
}
