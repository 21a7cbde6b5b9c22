//! Compaction: which revisions it takes, what stays readable, and what the hashes of a history are.

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::{Fixture, compacted, future, keys},
    support::{
        calls::{always, delete_op, one, put_op, span},
        world::{Stop, Target},
    },
};

bodies! {
    standing {
        compaction_answers_with_the_current_revision,
        compaction_at_or_below_the_last_is_refused,
        compaction_of_the_future_is_refused,
        compaction_keeps_the_newest_version_of_each_key,
        compaction_forgets_keys_that_were_deleted,
        compaction_at_the_revision_of_a_delete_keeps_the_key_gone,
        compaction_without_physical_hides_history_at_once,
        hash_kv_checks_its_revision,
        hash_kv_at_a_compaction_is_the_one_that_the_compaction_found,
        hash_kv_of_an_old_revision_does_not_change_with_later_writes,
        hash_changes_with_a_write_and_not_without,
    }
    fresh {
        a_new_store_begins_at_revision_one_and_uncompacted,
        compaction_of_a_new_store_at_zero_is_done_once,
        the_same_history_has_the_same_hashes_everywhere,
        compaction_outlives_a_kill,
    }
}

async fn compaction_answers_with_the_current_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.put_at("a", "3", 3).await;
    let answer = f.compact(f.base + 2).await;
    assert_eq!(
        answer,
        pb::CompactionResponse {
            header: f.header(f.base + 3)
        }
    );
    assert_eq!(f.revision().await, f.base + 3, "compaction is no change of keys");
}

async fn compaction_at_or_below_the_last_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.compact(f.base + 2).await;
    for revision in [f.base + 2, f.base + 1, 1, 0, -1, i64::MIN] {
        for physical in [false, true] {
            let request = pb::CompactionRequest { revision, physical };
            assert_eq!(f.try_compact(request).await, Err(compacted()), "{request:?}");
        }
    }
}

async fn compaction_of_the_future_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    for revision in [f.base + 1, i64::MAX] {
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        assert_eq!(f.try_compact(request).await, Err(future()));
    }
}

async fn compaction_keeps_the_newest_version_of_each_key(t: Target) {
    let f = Fixture::new(&t).await;
    for (step, (key, value)) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("a", "3")]
        .into_iter()
        .enumerate()
    {
        f.put_at(key, value, step as i64 + 1).await;
    }
    f.compact(f.base + 4).await;
    let at = |step: i64| pb::RangeRequest {
        revision: f.base + step,
        ..span(t.all())
    };
    let kvs = f.range(at(4)).await.kvs;
    assert_eq!(
        kvs,
        [
            f.kv("a", "2", 1, 3, 2),
            f.kv("b", "1", 2, 2, 1),
            f.kv("c", "1", 4, 4, 1)
        ]
    );
    assert_eq!(f.range(at(5)).await.kvs[0], f.kv("a", "3", 1, 5, 3));
    assert_eq!(f.try_range(at(3)).await, Err(compacted()));
}

async fn compaction_forgets_keys_that_were_deleted(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.delete(t.key("a")).await;
    f.put_at("b", "1", 3).await;
    f.compact(f.base + 3).await;
    let answer = f
        .range(pb::RangeRequest {
            revision: f.base + 3,
            ..span(t.all())
        })
        .await;
    assert_eq!((keys(&answer.kvs), answer.count), (vec!["b"], 1));
    f.put_at("a", "2", 4).await;
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "2", 4, 4, 1)]);
}

async fn compaction_at_the_revision_of_a_delete_keeps_the_key_gone(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.delete(t.key("a")).await;
    f.compact(f.base + 2).await;
    let answer = f
        .range(pb::RangeRequest {
            revision: f.base + 2,
            ..one(t.key("a"))
        })
        .await;
    assert_eq!(
        answer,
        pb::RangeResponse {
            header: f.header(f.base + 2),
            ..Default::default()
        }
    );
}

async fn compaction_without_physical_hides_history_at_once(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    let request = pb::CompactionRequest {
        revision: f.base + 2,
        physical: false,
    };
    assert_eq!(f.try_compact(request).await.unwrap().header, f.header(f.base + 2));
    let old = pb::RangeRequest {
        revision: f.base + 1,
        ..one(t.key("a"))
    };
    assert_eq!(f.try_range(old).await, Err(compacted()));
}

async fn hash_kv_checks_its_revision(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.put_at("a", "3", 3).await;
    f.compact(f.base + 2).await;
    let hash = |revision| pb::HashKvRequest { revision };
    assert_eq!(f.try_hash_kv(hash(f.base + 4)).await, Err(future()));
    assert_eq!(f.try_hash_kv(hash(f.base + 1)).await, Err(compacted()));
    let now = f.try_hash_kv(hash(0)).await.unwrap();
    assert_eq!(now.header, f.header(f.base + 3));
    assert_eq!(now.compact_revision, f.base + 2);
    assert_eq!(now.hash_revision, if f.is_36().await { f.base + 3 } else { 0 });
    assert_eq!(f.try_hash_kv(hash(f.base + 3)).await.unwrap(), now);
}

async fn hash_kv_at_a_compaction_is_the_one_that_the_compaction_found(t: Target) {
    let f = Fixture::new(&t).await;
    for step in 1..=6 {
        f.put_at("a", "v", step).await;
    }
    let hash = async |step| {
        f.try_hash_kv(pb::HashKvRequest {
            revision: f.base + step,
        })
        .await
    };
    f.compact(f.base + 2).await;
    let computed = hash(4).await.unwrap();
    assert_eq!(computed.compact_revision, f.base + 2);
    f.compact(f.base + 4).await;
    // What the compaction kept and what lies between the two compactions: as if it had not run yet.
    let remembered = hash(4).await.unwrap();
    assert_eq!(
        (remembered.hash, remembered.compact_revision),
        (computed.hash, f.base + 2)
    );
    f.compact(f.base + 6).await;
    // Remembered hashes are answered even below the newest compaction; other revisions are gone.
    assert_eq!(
        hash(4).await.unwrap(),
        pb::HashKvResponse {
            header: f.header(f.base + 6),
            ..remembered
        }
    );
    assert_eq!(hash(5).await, Err(compacted()));
}

async fn hash_kv_of_an_old_revision_does_not_change_with_later_writes(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let request = pb::HashKvRequest { revision: f.base + 1 };
    let before = f.try_hash_kv(request).await.unwrap();
    f.put_at("a", "2", 2).await;
    f.delete(t.key("a")).await;
    let after = f.try_hash_kv(request).await.unwrap();
    assert_eq!(
        (after.hash, after.compact_revision),
        (before.hash, before.compact_revision)
    );
    assert_eq!(after.header, f.header(f.base + 3), "the header is the current one");
    let current = f.try_hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap();
    assert_ne!(current.hash, before.hash);
}

async fn hash_changes_with_a_write_and_not_without(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let first = f.try_hash(pb::HashRequest {}).await.unwrap();
    assert_eq!(first.header, f.header(f.base + 1));
    f.get(t.key("a")).await;
    assert_eq!(f.try_hash(pb::HashRequest {}).await.unwrap().hash, first.hash);
    f.put_at("a", "2", 2).await;
    let second = f.try_hash(pb::HashRequest {}).await.unwrap();
    assert_ne!(second.hash, first.hash);
    assert_eq!(second.header, f.header(f.base + 2));
}

async fn a_new_store_begins_at_revision_one_and_uncompacted(t: Target) {
    let f = Fixture::new(&t).await;
    assert_eq!(f.base, 1);
    let hash = f.try_hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap();
    assert_eq!(hash.header, f.header(1));
    assert_eq!(hash.compact_revision, -1);
    let zero = Bytes::from_static(b"\0");
    let everything = f.range(span((zero.clone(), zero))).await;
    assert_eq!(
        everything,
        pb::RangeResponse {
            header: f.header(1),
            ..Default::default()
        }
    );
    let first = f
        .range(pb::RangeRequest {
            revision: 1,
            ..one("a")
        })
        .await;
    assert_eq!(first.header, f.header(1));
    f.put_at("a", "1", 1).await;
}

async fn compaction_of_a_new_store_at_zero_is_done_once(t: Target) {
    let f = Fixture::new(&t).await;
    let request = pb::CompactionRequest {
        revision: 0,
        physical: true,
    };
    assert_eq!(f.try_compact(request).await.unwrap().header, f.header(1));
    assert_eq!(f.try_compact(request).await, Err(compacted()));
    assert_eq!(
        f.try_compact(pb::CompactionRequest {
            revision: -1,
            physical: true
        })
        .await,
        Err(compacted())
    );
    f.compact(1).await;
    assert_eq!(
        f.try_compact(pb::CompactionRequest {
            revision: 1,
            physical: true
        })
        .await,
        Err(compacted())
    );
}

/// Writes a history of its own keys, the same on every server: lives, deletes, transactions and leases.
async fn write_history(f: &Fixture) {
    let lease = f.grant(0x5eed, 3600).await.id;
    for index in 0..30 {
        f.put(format!("hash/{:02}", index % 7), format!("value {index}")).await;
        if index % 5 == 0 {
            f.delete(format!("hash/{:02}", index % 3)).await;
        }
        if index % 10 == 0 {
            let ops = vec![
                put_op("hash/t1", "t"),
                put_op(format!("hash/t{index}"), ""),
                delete_op("hash/06", "hash/08"),
            ];
            f.txn(always(ops)).await;
        }
    }
    let request = pb::PutRequest {
        key: "hash/leased".into(),
        value: "l".into(),
        lease,
        ..Default::default()
    };
    f.try_put(request).await.expect("a put with a lease");
}

/// Captured from etcd 3.5.30 by this very body (`ETCD_BIN=... cargo test --test conformance on_etcd::the_same_history`).
const HASH_WHOLE: u32 = 3_157_457_819;
const HASH_AT_20: u32 = 301_254_362;
const HASH_AT_20_COMPACTED_AT_15: u32 = 3_169_158_291;
const HASH_COMPACTED_AT_30: u32 = 2_005_557_422;
const HASH_AT_30_AFTER_RESTART: u32 = 2_374_867_820;
const HASH_COMPACTED_AT_30_THEN_WRITTEN: u32 = 3_031_155_767;

async fn the_same_history_has_the_same_hashes_everywhere(t: Target) {
    let f = Fixture::new(&t).await;
    write_history(&f).await;
    let hash = async |revision| f.try_hash_kv(pb::HashKvRequest { revision }).await.unwrap();
    let whole = hash(0).await;
    let at_20 = hash(20).await;
    assert_eq!((whole.compact_revision, at_20.compact_revision), (-1, -1));
    f.compact(15).await;
    let at_20_compacted = hash(20).await;
    assert_eq!(at_20_compacted.compact_revision, 15);
    f.compact(30).await;
    let compacted = hash(30).await;
    f.put("hash/last", "1").await;
    let later = hash(0).await;
    assert_eq!(
        (compacted.compact_revision, later.compact_revision),
        (15, 30),
        "the first is remembered"
    );
    let got = [whole.hash, at_20.hash, at_20_compacted.hash, compacted.hash, later.hash];
    let expected = [
        HASH_WHOLE,
        HASH_AT_20,
        HASH_AT_20_COMPACTED_AT_15,
        HASH_COMPACTED_AT_30,
        HASH_COMPACTED_AT_30_THEN_WRITTEN,
    ];
    assert_eq!(got, expected);
    t.restart(Stop::Kill).await;
    let again = t.client().await;
    let hash = async |revision| again.try_hash_kv(pb::HashKvRequest { revision }).await.unwrap();
    let whole = hash(0).await;
    assert_eq!((whole.hash, whole.compact_revision), (later.hash, 30), "after a kill");
    let at_30 = hash(30).await;
    assert_eq!(
        (at_30.hash, at_30.compact_revision),
        (HASH_AT_30_AFTER_RESTART, 30),
        "nothing is remembered"
    );
}

async fn compaction_outlives_a_kill(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.delete(t.key("a")).await;
    f.compact(f.base + 3).await;
    for stop in [Stop::Kill, Stop::Clean] {
        t.restart(stop).await;
        let again = Fixture::new(&t).await;
        assert_eq!(
            again.base,
            f.base + 3,
            "the revision does not fall back though every record is compacted"
        );
        let old = pb::RangeRequest {
            revision: f.base + 2,
            ..one(t.key("a"))
        };
        assert_eq!(again.try_range(old).await, Err(compacted()));
        let request = pb::CompactionRequest {
            revision: f.base + 3,
            physical: true,
        };
        assert_eq!(again.try_compact(request).await, Err(compacted()));
    }
}
