//! Watch streams: many watches on one, streams beside each other, and how they end.

use std::time::Duration;

use ringd::wire::proto::etcdserverpb::{self as pb};

use crate::{
    fixture::Fixture,
    support::{
        calls::{always, put, put_op},
        status::{Code, Status},
        world::Target,
    },
    watch::{events, watch_all, watch_one},
};

bodies! {
    standing {
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
    let Err(Status { code, message, .. }) = ended else {
        panic!("{ended:?}")
    };
    // grpc-go's transport has a timer of its own, which resets the stream (CANCEL) when it is quicker than the handler.
    let is_reset = code == Code::Unavailable && message == "transport: stream error received: stream no longer needed";
    assert!(code == Code::DeadlineExceeded || is_reset, "{code:?}: {message}");
}
