//! Watches on what happens from now on: creation, ids, cancellation, what events say, filters, and many on one stream.

use bytes::Bytes;
use ringd::wire::proto::{
    etcdserverpb::{self as pb, watch_create_request::FilterType},
    mvccpb,
};

use crate::{
    fixture::Fixture,
    support::{
        call::Call,
        calls::{always, delete_op, put_op},
        world::Target,
    },
};

bodies! {
    standing {
        created_comes_first_with_the_current_revision,
        ids_are_chosen_from_zero_and_kept_apart_by_stream,
        a_chosen_id_is_kept_and_skipped_by_later_ones,
        a_taken_id_is_refused_and_the_watch_that_has_it_goes_on,
        a_range_that_ends_before_it_begins_is_refused,
        a_negative_start_is_refused_as_compacted,
        a_put_event_is_the_record,
        a_delete_event_has_the_key_and_its_revision_alone,
        a_deleted_range_comes_as_one_response_in_key_order,
        a_txn_comes_as_one_response_in_operation_order,
        a_watch_of_one_key_sees_no_other,
        a_watch_of_a_range_is_half_open,
        a_watch_to_the_zero_byte_sees_everything_from_the_key_on,
        a_watch_without_key_and_to_the_zero_byte_sees_everything,
        a_watch_without_key_alone_sees_the_zero_key_alone,
        prev_kv_comes_with_changes_and_not_with_creations,
        noput_leaves_deletes_and_nodelete_leaves_puts,
        both_filters_leave_nothing,
        cancel_is_confirmed_and_nothing_follows,
        cancel_of_an_unknown_id_is_silence,
        an_id_can_be_used_again_after_its_cancel,
    }
}

/// A created watch over all keys of the body, and its stream.
pub async fn watch_all(f: &Fixture, options: pb::WatchCreateRequest) -> Call {
    let mut stream = f.watch().await;
    let (key, range_end) = f.all();
    stream.create(pb::WatchCreateRequest {
        key,
        range_end,
        ..options
    });
    let created = stream.watched().await;
    assert!(
        created.created && !created.canceled && created.events.is_empty(),
        "{created:?}"
    );
    stream
}

/// A watch of one key, options left alone.
pub fn watch_one(key: impl Into<Bytes>) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// The next response must be the answer to a progress request: nothing else was on its way.
pub async fn nothing_is_pending(f: &Fixture, stream: &mut Call, revision: i64) {
    stream.progress();
    let expected = pb::WatchResponse {
        header: f.header(revision),
        watch_id: -1,
        ..Default::default()
    };
    assert_eq!(stream.watched().await, expected);
}

pub fn events(f: &Fixture, revision: i64, events: Vec<mvccpb::Event>) -> pb::WatchResponse {
    pb::WatchResponse {
        header: f.header(revision),
        events,
        ..Default::default()
    }
}

async fn created_comes_first_with_the_current_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(watch_one(t.key("a")));
    let created = stream.watched().await;
    assert_eq!(
        created,
        pb::WatchResponse {
            header: f.header(f.base),
            created: true,
            ..Default::default()
        }
    );
    f.put_at("a", "1", 1).await;
    assert_eq!(
        stream.watched().await,
        events(&f, f.base + 1, vec![f.put_event(f.kv("a", "1", 1, 1, 1))])
    );
}

async fn ids_are_chosen_from_zero_and_kept_apart_by_stream(t: Target) {
    let f = Fixture::new(&t).await;
    for _ in 0..2 {
        let mut stream = f.watch().await;
        for expected in 0..3 {
            stream.create(watch_one(t.key("a")));
            assert_eq!(stream.watched().await.watch_id, expected);
        }
    }
}

async fn a_chosen_id_is_kept_and_skipped_by_later_ones(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    for (asked, expected) in [(1, 1), (0, 0), (0, 2), (77, 77), (0, 3), (-5, -5), (i64::MAX, i64::MAX)] {
        stream.create(pb::WatchCreateRequest {
            watch_id: asked,
            ..watch_one(t.key("a"))
        });
        let created = stream.watched().await;
        assert_eq!(
            (created.watch_id, created.created, created.canceled),
            (expected, true, false)
        );
    }
    f.put_at("a", "1", 1).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(stream.watched().await.watch_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [-5, 0, 1, 2, 3, 77, i64::MAX]);
}

async fn a_taken_id_is_refused_and_the_watch_that_has_it_goes_on(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(pb::WatchCreateRequest {
        watch_id: 5,
        ..watch_one(t.key("a"))
    });
    assert_eq!(stream.watched().await.watch_id, 5);
    stream.create(pb::WatchCreateRequest {
        watch_id: 5,
        ..watch_one(t.key("b"))
    });
    let expected = pb::WatchResponse {
        header: f.header(f.base),
        watch_id: -1,
        created: true,
        canceled: true,
        cancel_reason: "mvcc: duplicate watch ID provided on the WatchStream".into(),
        ..Default::default()
    };
    assert_eq!(stream.watched().await, expected);
    f.put_at("b", "1", 1).await;
    f.put_at("a", "1", 2).await;
    let mut event = events(&f, f.base + 2, vec![f.put_event(f.kv("a", "1", 2, 2, 1))]);
    event.watch_id = 5;
    assert_eq!(stream.watched().await, event);
}

async fn a_range_that_ends_before_it_begins_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    for (key, end) in [("b", "a"), ("a", "a")] {
        stream.create(pb::WatchCreateRequest {
            range_end: t.key(end),
            ..watch_one(t.key(key))
        });
        let expected = pb::WatchResponse {
            header: f.header(f.base),
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason: "mvcc: watcher range is empty".into(),
            ..Default::default()
        };
        assert_eq!(stream.watched().await, expected);
    }
    stream.create(watch_one(t.key("a")));
    assert_eq!(stream.watched().await.watch_id, 0, "a refused watch takes no id");
}

async fn a_negative_start_is_refused_as_compacted(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(pb::WatchCreateRequest {
        start_revision: -1,
        watch_id: 9,
        ..watch_one(t.key("a"))
    });
    let expected = pb::WatchResponse {
        header: f.header(f.base),
        watch_id: -1,
        created: true,
        canceled: true,
        cancel_reason: "etcdserver: mvcc: required revision has been compacted".into(),
        ..Default::default()
    };
    assert_eq!(stream.watched().await, expected);
}

async fn a_put_event_is_the_record(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    assert_eq!(
        stream.watched().await,
        events(&f, f.base + 1, vec![f.put_event(f.kv("a", "1", 1, 1, 1))])
    );
    assert_eq!(
        stream.watched().await,
        events(&f, f.base + 2, vec![f.put_event(f.kv("a", "2", 1, 2, 2))])
    );
    nothing_is_pending(&f, &mut stream, f.base + 2).await;
}

async fn a_delete_event_has_the_key_and_its_revision_alone(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let mut stream = watch_all(&f, Default::default()).await;
    f.delete(t.key("a")).await;
    assert_eq!(
        stream.watched().await,
        events(&f, f.base + 2, vec![f.delete_event("a", 2)])
    );
    f.delete(t.key("a")).await;
    nothing_is_pending(&f, &mut stream, f.base + 2).await;
}

async fn a_deleted_range_comes_as_one_response_in_key_order(t: Target) {
    let f = Fixture::new(&t).await;
    for (step, key) in ["c", "a", "b"].into_iter().enumerate() {
        f.put_at(key, "v", step as i64 + 1).await;
    }
    let mut stream = watch_all(&f, Default::default()).await;
    let (key, range_end) = t.all();
    f.try_delete(pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    })
    .await
    .unwrap();
    let deletes = ["a", "b", "c"].map(|key| f.delete_event(key, 4)).to_vec();
    assert_eq!(stream.watched().await, events(&f, f.base + 4, deletes));
}

async fn a_txn_comes_as_one_response_in_operation_order(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("m", "v", 1).await;
    let mut stream = watch_all(&f, Default::default()).await;
    let ops = vec![
        put_op(t.key("z"), "1"),
        delete_op(t.key("m"), ""),
        put_op(t.key("a"), "2"),
    ];
    f.txn(always(ops)).await;
    let expected = vec![
        f.put_event(f.kv("z", "1", 2, 2, 1)),
        f.delete_event("m", 2),
        f.put_event(f.kv("a", "2", 2, 2, 1)),
    ];
    assert_eq!(stream.watched().await, events(&f, f.base + 2, expected));
}

async fn a_watch_of_one_key_sees_no_other(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(watch_one(t.key("b")));
    stream.watched().await;
    for (step, key) in ["a", "b", "ba", "b\u{0}", "c"].into_iter().enumerate() {
        f.put_at(key, "v", step as i64 + 1).await;
    }
    assert_eq!(
        stream.watched().await,
        events(&f, f.base + 2, vec![f.put_event(f.kv("b", "v", 2, 2, 1))])
    );
    nothing_is_pending(&f, &mut stream, f.base + 5).await;
}

async fn a_watch_of_a_range_is_half_open(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(pb::WatchCreateRequest {
        range_end: t.key("d"),
        ..watch_one(t.key("b"))
    });
    stream.watched().await;
    for (step, key) in ["a", "b", "cz", "d"].into_iter().enumerate() {
        f.put_at(key, "v", step as i64 + 1).await;
    }
    assert_eq!(stream.watched().await.events, [f.put_event(f.kv("b", "v", 2, 2, 1))]);
    assert_eq!(stream.watched().await.events, [f.put_event(f.kv("cz", "v", 3, 3, 1))]);
    nothing_is_pending(&f, &mut stream, f.base + 4).await;
}

async fn a_watch_to_the_zero_byte_sees_everything_from_the_key_on(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(pb::WatchCreateRequest {
        range_end: Bytes::from_static(b"\0"),
        ..watch_one(t.key("m"))
    });
    stream.watched().await;
    f.put_at("a", "v", 1).await;
    f.put_at("m", "v", 2).await;
    f.put_at("z", "v", 3).await;
    f.put("zzzzzz", "v").await;
    for expected in [t.key("m"), t.key("z"), "zzzzzz".into()] {
        assert_eq!(stream.watched().await.events[0].kv.as_ref().unwrap().key, expected);
    }
}

async fn a_watch_without_key_and_to_the_zero_byte_sees_everything(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(pb::WatchCreateRequest {
        range_end: Bytes::from_static(b"\0"),
        ..watch_one("")
    });
    stream.watched().await;
    for key in [
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\0\0"),
        t.key("x"),
        Bytes::from_static(b"\xff\xff\xff\xff"),
    ] {
        f.put(key.clone(), "v").await;
        assert_eq!(stream.watched().await.events[0].kv.as_ref().unwrap().key, key);
        f.delete(key.clone()).await;
        assert_eq!(
            stream.watched().await.events[0].r#type,
            mvccpb::event::EventType::Delete as i32
        );
    }
}

async fn a_watch_without_key_alone_sees_the_zero_key_alone(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(watch_one(""));
    stream.watched().await;
    f.put_at("a", "v", 1).await;
    let zero = Bytes::from_static(b"\0");
    f.put(zero.clone(), "v").await;
    assert_eq!(stream.watched().await.events[0].kv.as_ref().unwrap().key, zero);
    f.delete(zero).await;
}

async fn prev_kv_comes_with_changes_and_not_with_creations(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            prev_kv: true,
            ..Default::default()
        },
    )
    .await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.delete(t.key("a")).await;
    f.put_at("a", "3", 4).await;
    let mut changed = f.put_event(f.kv("a", "2", 1, 2, 2));
    changed.prev_kv = Some(f.kv("a", "1", 1, 1, 1));
    let mut deleted = f.delete_event("a", 3);
    deleted.prev_kv = Some(f.kv("a", "2", 1, 2, 2));
    let created = |step| f.put_event(f.kv("a", if step == 1 { "1" } else { "3" }, step, step, 1));
    for (step, event) in [created(1), changed, deleted, created(4)].into_iter().enumerate() {
        assert_eq!(
            stream.watched().await,
            events(&f, f.base + step as i64 + 1, vec![event])
        );
    }
}

async fn noput_leaves_deletes_and_nodelete_leaves_puts(t: Target) {
    let f = Fixture::new(&t).await;
    let filter = |filter: FilterType| pb::WatchCreateRequest {
        filters: vec![filter as i32],
        ..Default::default()
    };
    let mut deletes = watch_all(&f, filter(FilterType::Noput)).await;
    let mut puts = watch_all(&f, filter(FilterType::Nodelete)).await;
    f.put_at("a", "1", 1).await;
    f.delete(t.key("a")).await;
    f.put_at("a", "2", 3).await;
    assert_eq!(
        deletes.watched().await,
        events(&f, f.base + 2, vec![f.delete_event("a", 2)])
    );
    assert_eq!(
        puts.watched().await,
        events(&f, f.base + 1, vec![f.put_event(f.kv("a", "1", 1, 1, 1))])
    );
    assert_eq!(
        puts.watched().await,
        events(&f, f.base + 3, vec![f.put_event(f.kv("a", "2", 3, 3, 1))])
    );
    // A transaction is thinned out, not dropped.
    f.txn(always(vec![delete_op(t.key("a"), ""), put_op(t.key("b"), "1")]))
        .await;
    assert_eq!(
        deletes.watched().await,
        events(&f, f.base + 4, vec![f.delete_event("a", 4)])
    );
    assert_eq!(
        puts.watched().await,
        events(&f, f.base + 4, vec![f.put_event(f.kv("b", "1", 4, 4, 1))])
    );
    nothing_is_pending(&f, &mut deletes, f.base + 4).await;
    nothing_is_pending(&f, &mut puts, f.base + 4).await;
}

async fn both_filters_leave_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    let filters = vec![
        FilterType::Noput as i32,
        FilterType::Nodelete as i32,
        FilterType::Noput as i32,
    ];
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            filters,
            ..Default::default()
        },
    )
    .await;
    f.put_at("a", "1", 1).await;
    f.delete(t.key("a")).await;
    nothing_is_pending(&f, &mut stream, f.base + 2).await;
}

async fn cancel_is_confirmed_and_nothing_follows(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    stream.create(watch_one(t.key("other")));
    stream.watched().await;
    f.put_at("a", "1", 1).await;
    assert_eq!(stream.watched().await.events.len(), 1);
    stream.cancel(0);
    let canceled = pb::WatchResponse {
        header: f.header(f.base + 1),
        canceled: true,
        ..Default::default()
    };
    assert_eq!(stream.watched().await, canceled);
    f.put_at("a", "2", 2).await;
    nothing_is_pending(&f, &mut stream, f.base + 2).await;
    stream.cancel(0);
    nothing_is_pending(&f, &mut stream, f.base + 2).await;
}

async fn cancel_of_an_unknown_id_is_silence(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    for id in [1, -1, i64::MAX] {
        stream.cancel(id);
    }
    nothing_is_pending(&f, &mut stream, f.base).await;
}

async fn an_id_can_be_used_again_after_its_cancel(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    for key in ["a", "b"] {
        stream.create(pb::WatchCreateRequest {
            watch_id: 8,
            ..watch_one(t.key(key))
        });
        let created = stream.watched().await;
        assert_eq!((created.watch_id, created.canceled), (8, false));
        if key == "a" {
            stream.cancel(8);
            assert!(stream.watched().await.canceled);
        }
    }
    f.put_at("a", "1", 1).await;
    f.put_at("b", "1", 2).await;
    let response = stream.watched().await;
    assert_eq!(
        (response.watch_id, response.events),
        (8, vec![f.put_event(f.kv("b", "1", 2, 2, 1))])
    );
}
