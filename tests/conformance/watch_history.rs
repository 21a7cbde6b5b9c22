//! Watches that begin in the past or in the future, what compaction does to them, fragments, and progress.

use std::time::Duration;

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::Fixture,
    support::{
        calls::{always, put_op},
        world::{Stop, Target},
    },
    watch::{nothing_is_pending, watch_all, watch_one},
};

bodies! {
    standing {
        a_watch_from_the_past_sees_what_happened_since,
        a_watch_from_the_past_goes_on_into_the_present,
        a_watch_from_the_past_sees_prev_kv_and_filters,
        a_watch_from_the_current_revision_sees_it_again,
        a_watch_from_the_future_sees_nothing_older,
        a_watch_from_before_a_compaction_is_canceled_with_its_revision,
        a_watch_from_the_compaction_itself_works,
        a_watch_that_is_up_to_date_survives_a_compaction,
        prev_kv_is_absent_where_it_is_compacted,
        five_thousand_events_of_the_past_come_complete_and_in_order,
        a_txn_is_never_split_between_responses_of_the_past,
        progress_has_no_answer_on_a_stream_with_a_future_watch,
        progress_tells_the_current_revision_though_no_key_changed,
        progress_never_runs_ahead_of_events,
        progress_of_several_watches_is_one_answer,
        large_responses_are_fragmented_when_asked_for,
        large_responses_are_whole_otherwise,
        a_large_value_reaches_a_watcher_with_fragments,
    }
    fresh {
        progress_comes_by_itself_to_idle_watches_that_asked => ["--experimental-watch-progress-notify-interval=200ms"],
        a_watch_from_the_past_sees_what_happened_before_a_restart,
        a_stopping_server_ends_its_watch_streams,
    }
}

async fn a_watch_from_the_past_sees_what_happened_since(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("b", "1", 2).await;
    f.delete(t.key("a")).await;
    f.put_at("a", "2", 4).await;
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 2,
            ..Default::default()
        },
    )
    .await;
    let expected = pb::WatchResponse {
        header: f.header(f.base + 4),
        events: vec![
            f.put_event(f.kv("b", "1", 2, 2, 1)),
            f.delete_event("a", 3),
            f.put_event(f.kv("a", "2", 4, 4, 1)),
        ],
        ..Default::default()
    };
    assert_eq!(stream.watched().await, expected);
    nothing_is_pending(&f, &mut stream, f.base + 4).await;
}

async fn a_watch_from_the_past_goes_on_into_the_present(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 1,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(stream.watched().await.events, [f.put_event(f.kv("a", "1", 1, 1, 1))]);
    f.put_at("a", "2", 2).await;
    assert_eq!(stream.watched().await.events, [f.put_event(f.kv("a", "2", 1, 2, 2))]);
}

async fn a_watch_from_the_past_sees_prev_kv_and_filters(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.delete(t.key("a")).await;
    let options = pb::WatchCreateRequest {
        start_revision: f.base + 1,
        prev_kv: true,
        filters: vec![pb::watch_create_request::FilterType::Noput as i32],
        ..Default::default()
    };
    let mut stream = watch_all(&f, options).await;
    let mut deleted = f.delete_event("a", 3);
    deleted.prev_kv = Some(f.kv("a", "2", 1, 2, 2));
    assert_eq!(stream.watched().await.events, [deleted]);
}

async fn a_watch_from_the_current_revision_sees_it_again(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let mut now = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 1,
            ..Default::default()
        },
    )
    .await;
    let mut next = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 2,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(now.watched().await.events, [f.put_event(f.kv("a", "1", 1, 1, 1))]);
    f.put_at("a", "2", 2).await;
    assert_eq!(next.watched().await.events, [f.put_event(f.kv("a", "2", 1, 2, 2))]);
}

async fn a_watch_from_the_future_sees_nothing_older(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 3,
            ..Default::default()
        },
    )
    .await;
    for step in 1..=4 {
        f.put_at("a", "v", step).await;
    }
    for step in 3..=4 {
        let response = stream.watched().await;
        assert_eq!(response.header, f.header(f.base + step));
        assert_eq!(response.events, [f.put_event(f.kv("a", "v", 1, step, step))]);
    }
}

async fn a_watch_from_before_a_compaction_is_canceled_with_its_revision(t: Target) {
    let f = Fixture::new(&t).await;
    for step in 1..=3 {
        f.put_at("a", "v", step).await;
    }
    f.compact(f.base + 3).await;
    let mut stream = f.watch().await;
    let (key, range_end) = t.all();
    let start_revision = f.base + 2;
    stream.create(pb::WatchCreateRequest {
        key,
        range_end,
        start_revision,
        watch_id: 4,
        ..Default::default()
    });
    let created = stream.watched().await;
    assert_eq!((created.created, created.canceled, created.watch_id), (true, false, 4));
    assert_eq!(created.header, f.header(f.base + 3));
    // The header of this response has no revision, and the reason is the compaction revision alone.
    let canceled = pb::WatchResponse {
        header: f.header(0),
        watch_id: 4,
        canceled: true,
        compact_revision: f.base + 3,
        ..Default::default()
    };
    assert_eq!(stream.watched().await, canceled);
}

async fn a_watch_from_the_compaction_itself_works(t: Target) {
    let f = Fixture::new(&t).await;
    for step in 1..=3 {
        f.put_at("a", "v", step).await;
    }
    f.compact(f.base + 2).await;
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 2,
            ..Default::default()
        },
    )
    .await;
    let events = [2, 3].map(|step| f.put_event(f.kv("a", "v", 1, step, step)));
    assert_eq!(stream.watched().await.events, events);
}

async fn a_watch_that_is_up_to_date_survives_a_compaction(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.compact(f.base + 2).await;
    f.put_at("a", "3", 3).await;
    for step in 1..=3 {
        assert_eq!(stream.watched().await.header, f.header(f.base + step));
    }
    nothing_is_pending(&f, &mut stream, f.base + 3).await;
}

async fn prev_kv_is_absent_where_it_is_compacted(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    f.put_at("a", "3", 3).await;
    f.compact(f.base + 2).await;
    let options = pb::WatchCreateRequest {
        start_revision: f.base + 2,
        prev_kv: true,
        ..Default::default()
    };
    let mut stream = watch_all(&f, options).await;
    let mut second = f.put_event(f.kv("a", "3", 1, 3, 3));
    second.prev_kv = Some(f.kv("a", "2", 1, 2, 2));
    assert_eq!(
        stream.watched().await.events,
        [f.put_event(f.kv("a", "2", 1, 2, 2)), second]
    );
}

async fn five_thousand_events_of_the_past_come_complete_and_in_order(t: Target) {
    const EVENTS: i64 = 5_000;
    let f = Fixture::new(&t).await;
    let mut puts = Vec::new();
    for writer in 0..10 {
        let (client, t) = (f.client().clone(), t.clone());
        puts.push(tokio::task::spawn_local(async move {
            for index in 0..EVENTS / 10 {
                client.put(t.key(&format!("{writer}/{:02}", index % 20)), "v").await;
            }
        }));
    }
    for put in puts {
        put.await.expect("the writer ends");
    }
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 1,
            ..Default::default()
        },
    )
    .await;
    let mut next = f.base + 1;
    while next <= f.base + EVENTS {
        let response = t
            .within(Duration::from_secs(10), "event of the past", stream.watched())
            .await;
        assert!(
            !response.events.is_empty() && !response.fragment && !response.canceled,
            "{response:?}"
        );
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, next);
            next += 1;
        }
        assert_eq!(response.header, f.header(f.base + EVENTS));
    }
    nothing_is_pending(&f, &mut stream, f.base + EVENTS).await;
}

async fn a_txn_is_never_split_between_responses_of_the_past(t: Target) {
    const TXNS: i64 = 1_200;
    let f = Fixture::new(&t).await;
    for _ in 0..TXNS {
        f.txn(always(["a", "b", "c"].map(|key| put_op(t.key(key), "v")).to_vec()))
            .await;
    }
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 1,
            ..Default::default()
        },
    )
    .await;
    let mut next = f.base + 1;
    while next <= f.base + TXNS {
        let response = t
            .within(Duration::from_secs(10), "event of the past", stream.watched())
            .await;
        for events in response.events.chunks(3) {
            let revisions: Vec<_> = events
                .iter()
                .map(|event| event.kv.as_ref().unwrap().mod_revision)
                .collect();
            assert_eq!(revisions, [next; 3]);
            next += 1;
        }
    }
}

async fn progress_has_no_answer_on_a_stream_with_a_future_watch(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    stream.create(pb::WatchCreateRequest {
        start_revision: f.base + 2,
        ..watch_one(t.key("b"))
    });
    assert!(stream.watched().await.created);
    stream.progress();
    assert!(
        t.at_most(Duration::from_millis(150), stream.next_bytes())
            .await
            .is_none(),
        "too early for progress"
    );
    f.put_at("a", "1", 1).await;
    assert_eq!(stream.watched().await.events.len(), 1);
    f.put_at("a", "2", 2).await;
    assert_eq!(stream.watched().await.events.len(), 1);
    nothing_is_pending(&f, &mut stream, f.base + 2).await;
}

async fn progress_tells_the_current_revision_though_no_key_changed(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    nothing_is_pending(&f, &mut stream, f.base).await;
    for step in 1..=3 {
        f.put("elsewhere/progress", "v").await;
        nothing_is_pending(&f, &mut stream, f.base + step).await;
    }
}

async fn progress_never_runs_ahead_of_events(t: Target) {
    const PUTS: i64 = 500;
    let f = Fixture::new(&t).await;
    for step in 1..=PUTS {
        f.put_at("a", "v", step).await;
    }
    // Unsynced at first: an early request may go without an answer, a late one may not.
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 1,
            ..Default::default()
        },
    )
    .await;
    let writer = {
        let (client, key) = (t.client().await, t.key("a"));
        tokio::task::spawn_local(async move {
            for _ in 0..PUTS {
                client.put(key.clone(), "v").await;
            }
        })
    };
    let (mut seen, mut answers) = (f.base, 0);
    stream.progress();
    while seen < f.base + 2 * PUTS || answers == 0 {
        let response = t
            .within(Duration::from_secs(5), "event or progress", stream.watched())
            .await;
        let revision = response.header.unwrap().revision;
        if response.events.is_empty() {
            assert_eq!(response.watch_id, -1);
            assert_eq!(
                revision, seen,
                "every event up to the progress came before it, and none after"
            );
            answers += 1;
        }
        for event in &response.events {
            assert_eq!(event.kv.as_ref().unwrap().mod_revision, seen + 1);
            seen += 1;
        }
        stream.progress();
    }
    writer.await.expect("the writer ends");
}

async fn progress_of_several_watches_is_one_answer(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    for _ in 0..5 {
        stream.create(watch_one(t.key("x")));
        assert!(stream.watched().await.created);
    }
    nothing_is_pending(&f, &mut stream, f.base).await;
    nothing_is_pending(&f, &mut stream, f.base).await;
}

/// Five values of 700,000 bytes: more than one response may hold (1.5 MiB and gRPC's 512 KiB) when fragments are asked for.
async fn five_large_values(f: &Fixture) -> Vec<Bytes> {
    let mut values = Vec::new();
    for index in 0..5u8 {
        let value = Bytes::from(vec![b'a' + index; 700_000]);
        f.put(f.key(&format!("{index}")), value.clone()).await;
        values.push(value);
    }
    values
}

async fn large_responses_are_fragmented_when_asked_for(t: Target) {
    let f = Fixture::new(&t).await;
    let values = five_large_values(&f).await;
    let options = pb::WatchCreateRequest {
        start_revision: f.base + 1,
        fragment: true,
        ..Default::default()
    };
    let mut stream = watch_all(&f, options).await;
    let mut got = Vec::new();
    // How history is cut into responses is the server's affair; etcd makes one of it, and cuts that in three.
    while got.len() < 5 {
        let response = stream.watched().await;
        assert!(response.events.len() <= 2, "{} events", response.events.len());
        assert!(
            !response.fragment || got.len() + response.events.len() < 5,
            "a fragment has something behind it"
        );
        assert_eq!(response.header, f.header(f.base + 5));
        got.extend(response.events.into_iter().map(|event| event.kv.unwrap().value));
    }
    assert!(got == values, "values differ");
    nothing_is_pending(&f, &mut stream, f.base + 5).await;
}

async fn large_responses_are_whole_otherwise(t: Target) {
    let f = Fixture::new(&t).await;
    let values = five_large_values(&f).await;
    let mut stream = watch_all(
        &f,
        pb::WatchCreateRequest {
            start_revision: f.base + 1,
            ..Default::default()
        },
    )
    .await;
    let mut got = Vec::new();
    while got.len() < 5 {
        let response = stream.watched().await;
        assert!(!response.fragment);
        got.extend(response.events.into_iter().map(|event| event.kv.unwrap().value));
    }
    assert!(got == values, "values differ");
}

async fn a_large_value_reaches_a_watcher_with_fragments(t: Target) {
    let f = Fixture::new(&t).await;
    let options = pb::WatchCreateRequest {
        fragment: true,
        prev_kv: true,
        ..Default::default()
    };
    let mut stream = watch_all(&f, options).await;
    for fill in [b'x', b'y'] {
        f.put(t.key("a"), vec![fill; 1_400_000]).await;
    }
    let first = stream.watched().await;
    assert_eq!((first.events.len(), first.fragment), (1, false));
    // A single event is never cut, even where it and the one before it exceed what a response should hold.
    let second = stream.watched().await;
    assert_eq!((second.events.len(), second.fragment), (1, false));
    assert_eq!(second.events[0].prev_kv.as_ref().unwrap().value.len(), 1_400_000);
}

async fn progress_comes_by_itself_to_idle_watches_that_asked(t: Target) {
    let f = Fixture::new(&t).await;
    let mut asking = watch_all(
        &f,
        pb::WatchCreateRequest {
            progress_notify: true,
            ..Default::default()
        },
    )
    .await;
    let mut quiet = watch_all(&f, Default::default()).await;
    let idle = |revision| pb::WatchResponse {
        header: f.header(revision),
        ..Default::default()
    };
    let second = Duration::from_secs(2);
    for _ in 0..3 {
        assert_eq!(t.within(second, "progress", asking.watched()).await, idle(f.base));
    }
    f.put("elsewhere", "v").await;
    assert_eq!(t.within(second, "progress", asking.watched()).await, idle(f.base + 1));
    f.put_at("a", "1", 2).await;
    let mut got = t.within(second, "event", asking.watched()).await;
    if got.events.is_empty() {
        got = t.within(second, "event", asking.watched()).await;
    }
    assert_eq!(got.events, [f.put_event(f.kv("a", "1", 2, 2, 1))]);
    assert_eq!(t.within(second, "progress", asking.watched()).await, idle(f.base + 2));
    assert_eq!(
        quiet.watched().await.events.len(),
        1,
        "the other stream was told nothing but its event"
    );
    assert!(
        t.at_most(Duration::from_millis(700), quiet.next_bytes())
            .await
            .is_none(),
        "and nothing since"
    );
}

async fn a_watch_from_the_past_sees_what_happened_before_a_restart(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.delete(t.key("a")).await;
    f.txn(always(vec![put_op(t.key("c"), "1"), put_op(t.key("b"), "2")]))
        .await;
    for stop in [Stop::Kill, Stop::Clean] {
        t.restart(stop).await;
        let again = Fixture::new(&t).await;
        let options = pb::WatchCreateRequest {
            start_revision: f.base + 1,
            prev_kv: true,
            ..Default::default()
        };
        let mut stream = watch_all(&again, options).await;
        let mut deleted = f.delete_event("a", 2);
        deleted.prev_kv = Some(f.kv("a", "1", 1, 1, 1));
        let expected = [
            f.put_event(f.kv("a", "1", 1, 1, 1)),
            deleted,
            f.put_event(f.kv("c", "1", 3, 3, 1)),
            f.put_event(f.kv("b", "2", 3, 3, 1)),
        ];
        assert_eq!(stream.watched().await.events, expected);
    }
}

async fn a_stopping_server_ends_its_watch_streams(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = watch_all(&f, Default::default()).await;
    t.restart(Stop::Clean).await;
    let ended = t
        .within(
            Duration::from_secs(5),
            "end of the stream",
            stream.next::<pb::WatchResponse>(),
        )
        .await;
    assert!(ended.is_err(), "{ended:?}");
}
