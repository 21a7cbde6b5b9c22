//! Watches on what happens from now on: creation, ids, cancellation, what events say, filters, and many on one stream.

use std::time::Duration;

use bytes::Bytes;
use ringd::wire::proto::{
    etcdserverpb::{self as pb, watch_create_request::FilterType},
    mvccpb,
};

use crate::{
    fixture::Fixture,
    support::{
        call::Call,
        calls::{always, delete_op, put, put_op},
        status::{Code, Status},
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
        a_request_without_content_is_ignored,
        two_watches_of_a_key_each_get_the_event,
        five_hundred_watches_on_a_stream_each_get_their_own,
        events_of_one_stream_come_in_revision_order_per_watch,
        a_half_closed_stream_still_gets_events,
        a_reset_stream_leaves_its_connection_in_order,
        a_slow_stream_does_not_hold_up_another,
        revoking_a_lease_tells_the_watchers_in_key_order,
        a_leased_record_shows_its_lease_in_the_event,
        a_stream_that_requires_a_leader_works_where_there_is_one,
        a_stream_with_a_deadline_ends_with_it,
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

fn events(f: &Fixture, revision: i64, events: Vec<mvccpb::Event>) -> pb::WatchResponse {
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

async fn a_request_without_content_is_ignored(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.send(&pb::WatchRequest { request_union: None });
    stream.progress();
    stream.create(watch_one(t.key("a")));
    let created = stream.watched().await;
    assert!(
        created.created,
        "a stream without watches has no progress to tell: {created:?}"
    );
}

async fn two_watches_of_a_key_each_get_the_event(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(watch_one(t.key("a")));
    stream.watched().await;
    stream.create(pb::WatchCreateRequest {
        prev_kv: true,
        range_end: t.key("b"),
        ..watch_one(t.key("a"))
    });
    stream.watched().await;
    f.put_at("a", "1", 1).await;
    let mut got = [stream.watched().await, stream.watched().await];
    got.sort_by_key(|response| response.watch_id);
    for (id, response) in got.iter().enumerate() {
        let mut expected = events(&f, f.base + 1, vec![f.put_event(f.kv("a", "1", 1, 1, 1))]);
        expected.watch_id = id as i64;
        assert_eq!(response, &expected);
    }
}

async fn five_hundred_watches_on_a_stream_each_get_their_own(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    for index in 0..500 {
        stream.create(watch_one(t.key(&format!("{index:03}"))));
    }
    let mut ids: Vec<i64> = Vec::new();
    for _ in 0..500 {
        ids.push(stream.watched().await.watch_id);
    }
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
    for batch in 0..5 {
        let puts = (0..100)
            .map(|index| put_op(t.key(&format!("{:03}", batch * 100 + index)), "v"))
            .collect();
        f.txn(always(puts)).await;
    }
    let mut seen = vec![0; 500];
    for _ in 0..500 {
        let response = stream.watched().await;
        let [event] = &response.events[..] else {
            panic!("{response:?}")
        };
        let id = response.watch_id as usize;
        assert_eq!(event.kv.as_ref().unwrap().key, t.key(&format!("{id:03}")));
        assert_eq!(response.header, f.header(f.base + 1 + id as i64 / 100));
        seen[id] += 1;
    }
    assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
}

async fn events_of_one_stream_come_in_revision_order_per_watch(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let (client, t) = (t.client().await, t.clone());
        writers.push(tokio::task::spawn_local(async move {
            for index in 0..50 {
                client.put(t.key(&format!("{writer}")), format!("{index}")).await;
            }
        }));
    }
    let mut next = f.base + 1;
    while next <= f.base + 200 {
        let response = stream.watched().await;
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, next);
            next += 1;
        }
        assert!(response.header.unwrap().revision >= next - 1);
    }
    for writer in writers {
        writer.await.expect("the writer ends");
    }
}

async fn a_half_closed_stream_still_gets_events(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    stream.half_close();
    f.put_at("a", "1", 1).await;
    assert_eq!(stream.watched().await.events, [f.put_event(f.kv("a", "1", 1, 1, 1))]);
    f.put_at("a", "2", 2).await;
    assert_eq!(stream.watched().await.events, [f.put_event(f.kv("a", "2", 1, 2, 2))]);
}

async fn a_reset_stream_leaves_its_connection_in_order(t: Target) {
    let f = Fixture::new(&t).await;
    let mut doomed = watch_all(&f, Default::default()).await;
    let mut other = watch_all(&f, Default::default()).await;
    doomed.reset();
    for step in 1..=50 {
        f.put_at("a", "v", step).await;
        assert_eq!(other.watched().await.header, f.header(f.base + step));
    }
}

async fn a_slow_stream_does_not_hold_up_another(t: Target) {
    const PUTS: i64 = 2_000;
    let f = Fixture::new(&t).await;
    let slow = Fixture::new(&t).await;
    let narrow = t.client_with_window(65_535).await;
    let mut behind = narrow.watch().await;
    let (key, range_end) = t.all();
    behind.create(pb::WatchCreateRequest {
        key,
        range_end,
        ..Default::default()
    });
    assert!(behind.watched().await.created);
    let mut quick = watch_all(&slow, Default::default()).await;
    let value = "v".repeat(1_000);
    for step in 1..=PUTS {
        f.put_at(&format!("{:02}", step % 50), &value, step).await;
        if step % 100 == 0 {
            let mut last = 0;
            while last < f.base + step {
                let response = t
                    .within(Duration::from_secs(5), "event of the quick stream", quick.watched())
                    .await;
                last = response.events.last().unwrap().kv.as_ref().unwrap().mod_revision;
            }
        }
    }
    // The slow one lost nothing.
    let mut next = f.base + 1;
    while next <= f.base + PUTS {
        let response = t
            .within(Duration::from_secs(10), "event of the slow stream", behind.watched())
            .await;
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, next);
            next += 1;
        }
    }
}

async fn revoking_a_lease_tells_the_watchers_in_key_order(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    for key in ["c", "a", "d", "b"] {
        f.put_leased(key, "v", lease).await;
    }
    let mut stream = watch_all(&f, Default::default()).await;
    f.revoke(lease).await;
    let deletes = ["a", "b", "c", "d"].map(|key| f.delete_event(key, 5)).to_vec();
    assert_eq!(stream.watched().await, events(&f, f.base + 5, deletes));
}

async fn a_leased_record_shows_its_lease_in_the_event(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    let mut stream = watch_all(&f, Default::default()).await;
    f.try_put(pb::PutRequest {
        lease,
        ..put(t.key("a"), "1")
    })
    .await
    .unwrap();
    let mut kv = f.kv("a", "1", 1, 1, 1);
    kv.lease = lease;
    assert_eq!(stream.watched().await.events, [f.put_event(kv)]);
    f.revoke(lease).await;
}

async fn a_stream_that_requires_a_leader_works_where_there_is_one(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.with_metadata("hasleader", "true").watch().await;
    stream.create(watch_one(t.key("a")));
    assert!(stream.watched().await.created);
    f.put_at("a", "1", 1).await;
    assert_eq!(stream.watched().await.events.len(), 1);
}

async fn a_stream_with_a_deadline_ends_with_it(t: Target) {
    let f = Fixture::new(&t).await;
    let before = t.now();
    let mut stream = f.with_deadline(Duration::from_millis(200)).watch().await;
    stream.create(watch_one(t.key("a")));
    assert!(stream.watched().await.created);
    let ended = t
        .within(
            Duration::from_secs(3),
            "end of the stream",
            stream.next::<pb::WatchResponse>(),
        )
        .await;
    assert!(t.now() - before >= Duration::from_millis(190), "not early");
    let Err(Status { code, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(code, Code::DeadlineExceeded);
}
