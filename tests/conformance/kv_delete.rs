//! DeleteRange: what goes, what the answer tells of it, and when the revision moves.

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::{Fixture, invalid, keys},
    support::{
        calls::{one, span},
        world::Target,
    },
};

bodies! {
    standing {
        delete_of_one_key_moves_the_revision_once,
        delete_of_nothing_does_not_move_the_revision,
        delete_of_a_span_is_one_revision,
        delete_with_prev_kv_answers_with_the_records_in_key_order,
        delete_to_the_zero_byte_takes_everything_from_the_key_on,
        delete_of_an_empty_span_takes_nothing,
        delete_of_a_deleted_key_takes_nothing,
        delete_leaves_history_readable,
        delete_detaches_the_lease,
        delete_without_a_key_is_refused,
    }
}

async fn delete_of_one_key_moves_the_revision_once(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("b", "1", 2).await;
    let answer = f.delete(t.key("a")).await;
    assert_eq!(
        answer,
        pb::DeleteRangeResponse {
            header: f.header(f.base + 3),
            deleted: 1,
            prev_kvs: vec![]
        }
    );
    assert_eq!(keys(&f.range(span(t.all())).await.kvs), ["b"]);
}

async fn delete_of_nothing_does_not_move_the_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f.delete(t.key("none")).await;
    assert_eq!(
        answer,
        pb::DeleteRangeResponse {
            header: f.header(f.base),
            ..Default::default()
        }
    );
    assert_eq!(f.revision().await, f.base);
}

async fn delete_of_a_span_is_one_revision(t: Target) {
    let f = Fixture::new(&t).await;
    for (step, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        f.put_at(key, "1", step as i64 + 1).await;
    }
    let request = pb::DeleteRangeRequest {
        key: t.key("b"),
        range_end: t.key("d"),
        prev_kv: false,
    };
    let answer = f.try_delete(request).await.unwrap();
    assert_eq!(
        answer,
        pb::DeleteRangeResponse {
            header: f.header(f.base + 5),
            deleted: 2,
            prev_kvs: vec![]
        }
    );
    let left = f.range(span(t.all())).await;
    assert_eq!((keys(&left.kvs), left.count), (vec!["a", "d"], 2));
    assert_eq!(left.header, f.header(f.base + 5));
}

async fn delete_with_prev_kv_answers_with_the_records_in_key_order(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("b", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.put_at("b", "3", 3).await;
    let (key, range_end) = t.all();
    let answer = f
        .try_delete(pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: true,
        })
        .await
        .unwrap();
    let prev_kvs = vec![f.kv("a", "2", 2, 2, 1), f.kv("b", "3", 1, 3, 2)];
    assert_eq!(
        answer,
        pb::DeleteRangeResponse {
            header: f.header(f.base + 4),
            deleted: 2,
            prev_kvs
        }
    );
}

async fn delete_to_the_zero_byte_takes_everything_from_the_key_on(t: Target) {
    let f = Fixture::new(&t).await;
    for key in [&b"\xff\xff\xff/1"[..], b"\xff\xff\xff/2", b"\xff\xff\xff/3"] {
        f.put(Bytes::from_static(key), "v").await;
    }
    let key = Bytes::from_static(b"\xff\xff\xff/2");
    let request = pb::DeleteRangeRequest {
        key,
        range_end: Bytes::from_static(b"\0"),
        prev_kv: false,
    };
    assert_eq!(f.try_delete(request.clone()).await.unwrap().deleted, 2);
    let first = Bytes::from_static(b"\xff\xff\xff/1");
    assert_eq!(f.get(first.clone()).await.count, 1);
    assert_eq!(
        f.try_delete(pb::DeleteRangeRequest { key: first, ..request })
            .await
            .unwrap()
            .deleted,
        1
    );
}

async fn delete_of_an_empty_span_takes_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("b", "1", 1).await;
    for (key, range_end) in [("b", "b"), ("c", "a")] {
        let request = pb::DeleteRangeRequest {
            key: t.key(key),
            range_end: t.key(range_end),
            prev_kv: true,
        };
        let answer = f.try_delete(request).await.unwrap();
        assert_eq!(
            answer,
            pb::DeleteRangeResponse {
                header: f.header(f.base + 1),
                ..Default::default()
            }
        );
    }
    assert_eq!(f.get(t.key("b")).await.count, 1);
}

async fn delete_of_a_deleted_key_takes_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    assert_eq!(f.delete(t.key("a")).await.deleted, 1);
    assert_eq!(
        f.delete(t.key("a")).await,
        pb::DeleteRangeResponse {
            header: f.header(f.base + 2),
            ..Default::default()
        }
    );
}

async fn delete_leaves_history_readable(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.delete(t.key("a")).await;
    let then = f
        .range(pb::RangeRequest {
            revision: f.base + 1,
            ..one(t.key("a"))
        })
        .await;
    assert_eq!(then.kvs, [f.kv("a", "1", 1, 1, 1)]);
    let gone = f
        .range(pb::RangeRequest {
            revision: f.base + 2,
            ..one(t.key("a"))
        })
        .await;
    assert_eq!(
        gone,
        pb::RangeResponse {
            header: f.header(f.base + 2),
            ..Default::default()
        }
    );
}

async fn delete_detaches_the_lease(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    f.put_leased("a", "1", lease).await;
    f.delete(t.key("a")).await;
    assert_eq!(f.time_to_live(lease, true).await.keys, Vec::<Bytes>::new());
    let answer = f.revoke(lease).await;
    assert_eq!(answer.header, f.header(f.base + 2), "nothing is left to delete");
}

async fn delete_without_a_key_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let (_, range_end) = t.all();
    for request in [
        pb::DeleteRangeRequest::default(),
        pb::DeleteRangeRequest {
            range_end,
            ..Default::default()
        },
    ] {
        assert_eq!(f.try_delete(request).await, Err(invalid("key is not provided")));
    }
    assert_eq!(f.revision().await, f.base);
}
