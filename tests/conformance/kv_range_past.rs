//! Range at another revision than the current one.

use ringd::wire::proto::etcdserverpb::{self as pb};

use crate::{
    fixture::{Fixture, compacted, future, keys},
    kv_range::five,
    support::{
        calls::{one, span},
        world::Target,
    },
};

bodies! {
    standing {
        a_historic_range_sees_what_was_then_under_the_current_header,
        a_historic_range_counts_what_was_then,
        a_negative_revision_is_the_current_one,
        a_future_revision_is_refused,
        a_compacted_revision_is_refused_and_the_compaction_itself_is_readable,
    }
}

async fn a_historic_range_sees_what_was_then_under_the_current_header(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    f.delete(t.key("b")).await;
    let at = |step: i64| pb::RangeRequest {
        revision: f.base + step,
        ..span(t.all())
    };
    let then = f.range(at(3)).await;
    let kvs = vec![
        f.kv("a", "m", 1, 1, 1),
        f.kv("b", "z", 2, 2, 1),
        f.kv("c", "k", 3, 3, 1),
    ];
    assert_eq!(
        then,
        pb::RangeResponse {
            header: f.header(f.base + 9),
            kvs,
            more: false,
            count: 3
        }
    );
    assert_eq!(keys(&f.range(at(8)).await.kvs), ["a", "b", "c", "d", "e"]);
    assert_eq!(keys(&f.range(at(9)).await.kvs), ["a", "c", "d", "e"]);
    let a = f
        .range(pb::RangeRequest {
            revision: f.base + 7,
            ..one(t.key("a"))
        })
        .await;
    assert_eq!(a.kvs, [f.kv("a", "m", 1, 7, 2)]);
    let unborn = f
        .range(pb::RangeRequest {
            revision: f.base + 4,
            ..one(t.key("e"))
        })
        .await;
    assert_eq!(
        unborn,
        pb::RangeResponse {
            header: f.header(f.base + 9),
            ..Default::default()
        }
    );
}

async fn a_historic_range_counts_what_was_then(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let at = pb::RangeRequest {
        revision: f.base + 4,
        ..span(t.all())
    };
    let limited = f.range(pb::RangeRequest { limit: 1, ..at.clone() }).await;
    assert_eq!((keys(&limited.kvs), limited.more, limited.count), (vec!["a"], true, 4));
    let counted = f.range(pb::RangeRequest { count_only: true, ..at }).await;
    assert_eq!(
        counted,
        pb::RangeResponse {
            header: f.header(f.base + 8),
            kvs: vec![],
            more: false,
            count: 4
        }
    );
}

async fn a_negative_revision_is_the_current_one(t: Target) {
    let f = Fixture::new(&t).await;
    let all = five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            revision: -5,
            ..span(t.all())
        })
        .await;
    assert_eq!(answer.kvs, all);
}

async fn a_future_revision_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let at = |revision| pb::RangeRequest {
        revision,
        ..one(t.key("a"))
    };
    assert_eq!(f.try_range(at(f.base + 1)).await, Err(future()));
    assert_eq!(
        f.try_range(pb::RangeRequest {
            serializable: true,
            ..at(f.base + 1)
        })
        .await,
        Err(future())
    );
    assert_eq!(f.try_range(at(i64::MAX)).await, Err(future()));
    assert!(f.try_range(at(f.base)).await.is_ok());
}

async fn a_compacted_revision_is_refused_and_the_compaction_itself_is_readable(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    f.compact(f.base + 7).await;
    let at = |step: i64| pb::RangeRequest {
        revision: f.base + step,
        ..one(t.key("a"))
    };
    assert_eq!(f.try_range(at(6)).await, Err(compacted()));
    assert_eq!(
        f.try_range(pb::RangeRequest {
            count_only: true,
            ..at(6)
        })
        .await,
        Err(compacted())
    );
    assert_eq!(f.range(at(7)).await.kvs, [f.kv("a", "m", 1, 7, 2)]);
    assert_eq!(f.range(at(8)).await.kvs, [f.kv("a", "n", 1, 8, 3)]);
}
