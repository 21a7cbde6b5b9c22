//! Put: what it answers, its options, and what it refuses.

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::{Fixture, invalid, no_lease},
    support::{calls::put, world::Target},
};

bodies! {
    standing {
        put_moves_the_revision_by_one_and_answers_with_a_full_header,
        put_counts_versions_and_keeps_the_create_revision,
        put_after_a_delete_begins_a_new_life,
        put_of_an_empty_value_is_a_value,
        put_keeps_binary_keys_and_values_as_they_are,
        put_with_prev_kv_answers_with_the_record_before,
        put_with_prev_kv_on_a_missing_key_answers_without_one,
        put_without_a_key_is_refused,
        put_with_ignore_value_keeps_the_value,
        put_with_ignore_value_and_a_value_is_refused,
        put_with_ignore_value_on_a_missing_key_is_refused,
        put_with_ignore_lease_keeps_the_lease,
        put_with_ignore_lease_and_a_lease_is_refused,
        put_with_ignore_lease_on_a_missing_key_is_refused,
        put_with_both_ignored_still_makes_a_new_version,
        put_with_an_unknown_lease_is_refused_and_changes_nothing,
        put_without_a_lease_detaches_the_key,
        refusals_of_put_have_an_order,
        a_refused_put_does_not_move_the_revision,
        many_puts_on_one_connection_each_have_their_own_revision,
    }
}

async fn put_moves_the_revision_by_one_and_answers_with_a_full_header(t: Target) {
    let f = Fixture::new(&t).await;
    let status = f.status().await;
    let answer = f.put(t.key("a"), "1").await;
    assert_eq!(
        answer,
        pb::PutResponse {
            header: f.header(f.base + 1),
            prev_kv: None
        }
    );
    let header = status.header.expect("status has a header");
    assert_eq!(header.member_id, f.member_id());
    assert_eq!(status.raft_term, f.raft_term());
    assert_eq!(status.leader, f.member_id());
}

async fn put_counts_versions_and_keeps_the_create_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "1", 1, 1, 1)]);
    f.put_at("a", "2", 2).await;
    f.put_at("b", "other", 3).await;
    f.put_at("a", "3", 4).await;
    let expected = pb::RangeResponse {
        header: f.header(f.base + 4),
        kvs: vec![f.kv("a", "3", 1, 4, 3)],
        more: false,
        count: 1,
    };
    assert_eq!(f.get(t.key("a")).await, expected);
}

async fn put_after_a_delete_begins_a_new_life(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.delete(t.key("a")).await;
    f.put_at("a", "3", 4).await;
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "3", 4, 4, 1)]);
}

async fn put_of_an_empty_value_is_a_value(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "", 1).await;
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "", 1, 1, 1)]);
}

async fn put_keeps_binary_keys_and_values_as_they_are(t: Target) {
    let f = Fixture::new(&t).await;
    let key = Bytes::from([t.key("").as_ref(), &[0, 0xff, 0x80, b'\n', 0]].concat());
    let value = Bytes::from((0..=255).chain(0..=255).collect::<Vec<u8>>());
    f.put(key.clone(), value.clone()).await;
    let got = f.get(key.clone()).await.kvs;
    assert_eq!(got.len(), 1);
    assert_eq!((&got[0].key, &got[0].value), (&key, &value));
}

async fn put_with_prev_kv_answers_with_the_record_before(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    f.put_leased("a", "1", lease).await;
    f.put_leased("a", "2", lease).await;
    let answer = f
        .try_put(pb::PutRequest {
            prev_kv: true,
            ..put(t.key("a"), "3")
        })
        .await
        .unwrap();
    let mut previous = f.kv("a", "2", 1, 2, 2);
    previous.lease = lease;
    assert_eq!(
        answer,
        pb::PutResponse {
            header: f.header(f.base + 3),
            prev_kv: Some(previous)
        }
    );
    f.revoke(lease).await;
}

async fn put_with_prev_kv_on_a_missing_key_answers_without_one(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f
        .try_put(pb::PutRequest {
            prev_kv: true,
            ..put(t.key("a"), "1")
        })
        .await
        .unwrap();
    assert_eq!(
        answer,
        pb::PutResponse {
            header: f.header(f.base + 1),
            prev_kv: None
        }
    );
    f.delete(t.key("a")).await;
    let answer = f
        .try_put(pb::PutRequest {
            prev_kv: true,
            ..put(t.key("a"), "1")
        })
        .await
        .unwrap();
    assert_eq!(answer.prev_kv, None, "a deleted key has no record");
}

async fn put_without_a_key_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    assert_eq!(f.try_put(put("", "1")).await, Err(invalid("key is not provided")));
}

async fn put_with_ignore_value_keeps_the_value(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "kept", 1).await;
    let lease = f.grant(0, 3600).await.id;
    let request = pb::PutRequest {
        ignore_value: true,
        lease,
        ..put(t.key("a"), "")
    };
    let answer = f.try_put(request).await.unwrap();
    assert_eq!(
        answer,
        pb::PutResponse {
            header: f.header(f.base + 2),
            prev_kv: None
        }
    );
    let mut expected = f.kv("a", "kept", 1, 2, 2);
    expected.lease = lease;
    assert_eq!(f.get(t.key("a")).await.kvs, [expected]);
    f.revoke(lease).await;
}

async fn put_with_ignore_value_and_a_value_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let request = pb::PutRequest {
        ignore_value: true,
        ..put(t.key("a"), "2")
    };
    assert_eq!(f.try_put(request).await, Err(invalid("value is provided")));
}

async fn put_with_ignore_value_on_a_missing_key_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let request = pb::PutRequest {
        ignore_value: true,
        ..put(t.key("a"), "")
    };
    assert_eq!(f.try_put(request).await, Err(invalid("key not found")));
}

async fn put_with_ignore_lease_keeps_the_lease(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    f.put_leased("a", "1", lease).await;
    let request = pb::PutRequest {
        ignore_lease: true,
        ..put(t.key("a"), "2")
    };
    f.try_put(request).await.unwrap();
    let mut expected = f.kv("a", "2", 1, 2, 2);
    expected.lease = lease;
    assert_eq!(f.get(t.key("a")).await.kvs, [expected]);
    assert_eq!(f.time_to_live(lease, true).await.keys, [t.key("a")]);
    f.revoke(lease).await;
    assert_eq!(f.get(t.key("a")).await.kvs, []);
}

async fn put_with_ignore_lease_and_a_lease_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let request = pb::PutRequest {
        ignore_lease: true,
        lease: 77,
        ..put(t.key("a"), "2")
    };
    assert_eq!(f.try_put(request).await, Err(invalid("lease is provided")));
}

async fn put_with_ignore_lease_on_a_missing_key_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let request = pb::PutRequest {
        ignore_lease: true,
        ..put(t.key("a"), "2")
    };
    assert_eq!(f.try_put(request).await, Err(invalid("key not found")));
    assert_eq!(f.revision().await, f.base);
}

async fn put_with_both_ignored_still_makes_a_new_version(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "same", 1).await;
    let request = pb::PutRequest {
        ignore_lease: true,
        ignore_value: true,
        prev_kv: true,
        ..put(t.key("a"), "")
    };
    let answer = f.try_put(request).await.unwrap();
    let expected = pb::PutResponse {
        header: f.header(f.base + 2),
        prev_kv: Some(f.kv("a", "same", 1, 1, 1)),
    };
    assert_eq!(answer, expected);
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "same", 1, 2, 2)]);
}

async fn put_with_an_unknown_lease_is_refused_and_changes_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    let request = pb::PutRequest {
        lease: 4711,
        ..put(t.key("a"), "1")
    };
    assert_eq!(f.try_put(request).await, Err(no_lease()));
    let negative = pb::PutRequest {
        lease: -1,
        ..put(t.key("a"), "1")
    };
    assert_eq!(f.try_put(negative).await, Err(no_lease()));
    let after = f.get(t.key("a")).await;
    assert_eq!(
        after,
        pb::RangeResponse {
            header: f.header(f.base),
            ..Default::default()
        }
    );
}

async fn put_without_a_lease_detaches_the_key(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    f.put_leased("a", "1", lease).await;
    f.put_at("a", "2", 2).await;
    assert_eq!(f.time_to_live(lease, true).await.keys, Vec::<Bytes>::new());
    f.revoke(lease).await;
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "2", 1, 2, 2)]);
}

async fn refusals_of_put_have_an_order(t: Target) {
    let f = Fixture::new(&t).await;
    let everything = pb::PutRequest {
        ignore_value: true,
        ignore_lease: true,
        lease: 1,
        ..put("", "v")
    };
    assert_eq!(f.try_put(everything.clone()).await, Err(invalid("key is not provided")));
    let keyed = pb::PutRequest {
        key: t.key("a"),
        ..everything
    };
    assert_eq!(f.try_put(keyed.clone()).await, Err(invalid("value is provided")));
    let valued = pb::PutRequest {
        value: Bytes::new(),
        ..keyed
    };
    assert_eq!(f.try_put(valued.clone()).await, Err(invalid("lease is provided")));
    let unleased = pb::PutRequest {
        ignore_lease: false,
        lease: 4711,
        ..valued
    };
    assert_eq!(
        f.try_put(unleased).await,
        Err(no_lease()),
        "the lease is looked up before the key"
    );
}

async fn a_refused_put_does_not_move_the_revision(t: Target) {
    let f = Fixture::new(&t).await;
    for request in [
        put("", "v"),
        pb::PutRequest {
            ignore_value: true,
            ..put(t.key("a"), "v")
        },
        pb::PutRequest {
            ignore_value: true,
            ..put(t.key("a"), "")
        },
        pb::PutRequest {
            lease: 4711,
            ..put(t.key("a"), "v")
        },
    ] {
        f.try_put(request).await.expect_err("the put is refused");
    }
    f.put_at("a", "1", 1).await;
}

async fn many_puts_on_one_connection_each_have_their_own_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let mut puts = Vec::new();
    for index in 0..200 {
        let client = f.client().clone();
        let key = t.key(&format!("{index:03}"));
        puts.push(tokio::task::spawn_local(async move {
            client.put(key, "v").await.header.unwrap().revision
        }));
    }
    let mut revisions = Vec::new();
    for put in puts {
        revisions.push(put.await.expect("the put ends"));
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (f.base + 1..=f.base + 200).collect::<Vec<_>>());
}
