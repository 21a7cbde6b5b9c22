//! The subtle cases by hand. What is expected was seen on a real etcd 3.5.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::*;
use crate::{
    base::{LeaseId, Revision},
    mvcc::{Event, EventKind, HistorySlice, PreviousRecords, Record, encode_tombstone},
    wire::proto::{
        etcdserverpb::WatchResponse,
        mvccpb::{self, KeyValue},
    },
};

const REVISION: i64 = 10;
const COMPACTED: i64 = 4;

fn hub() -> WatchHub {
    let limits = WatchLimits {
        fragment_bytes: 100,
        queue_bytes_max: 1000,
        queue_responses_max: 8,
        catch_up_watchers_max: 10,
    };
    WatchHub::new(ResponseIdentity::default(), limits, REVISION, COMPACTED, 1)
}

fn on(key: &'static str) -> WatchSpec {
    WatchSpec {
        key: Bytes::from_static(key.as_bytes()),
        ..WatchSpec::default()
    }
}

fn from(start_revision: i64) -> WatchSpec {
    WatchSpec {
        start_revision,
        ..on("a")
    }
}

fn put(key: &'static str, main: i64, value_len: usize) -> Event {
    let record = Record {
        key: key.as_bytes(),
        create_revision: 2,
        mod_revision: main,
        version: 3,
        value: &vec![b'v'; value_len],
        lease: LeaseId(0),
    };
    Event {
        kind: EventKind::Put,
        key: Bytes::from_static(key.as_bytes()),
        revision: Revision::new(main, 0),
        record: record.encode(),
        create_revision: 2,
        lease: LeaseId(0),
        previous: None,
    }
}

fn take(hub: &mut WatchHub, stream: StreamId) -> Vec<WatchResponse> {
    let mut taken = Vec::new();
    while let Some(response) = hub.pop(stream) {
        let mut bytes = BytesMut::new();
        response.encode_to(hub.identity(), &mut bytes);
        taken.push(WatchResponse::decode(bytes).unwrap());
    }
    taken
}

fn revision(response: &WatchResponse) -> i64 {
    response.header.unwrap().revision
}

fn check_refused(spec: WatchSpec, reason: &str) {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(stream, WatchSpec { watch_id: 3, ..on("a") });
    assert_eq!(hub.create(stream, spec), None);
    let refused = take(&mut hub, stream).remove(1);
    assert_eq!(
        (
            refused.watch_id,
            refused.created,
            refused.canceled,
            &*refused.cancel_reason,
            revision(&refused)
        ),
        (-1, true, true, reason, REVISION)
    );
    assert_eq!(hub.counts().watchers, 1);
}

#[test]
fn refusals_are_created_and_canceled_with_etcds_words() {
    check_refused(from(-2), "etcdserver: mvcc: required revision has been compacted");
    check_refused(WatchSpec { watch_id: 3, ..on("b") }, REASON_DUPLICATE_ID);
    for end in ["a", "b"] {
        let range_end = Bytes::from_static(end.as_bytes());
        check_refused(WatchSpec { range_end, ..on("b") }, REASON_EMPTY_RANGE);
    }
}

#[test]
fn compacted_start_is_created_and_then_canceled_without_a_revision() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(stream, from(COMPACTED - 1));
    let [created, canceled] = &take(&mut hub, stream)[..] else {
        panic!("two responses")
    };
    assert!(created.created && !created.canceled && revision(created) == REVISION);
    assert!(!canceled.created && canceled.canceled && canceled.cancel_reason.is_empty());
    assert_eq!((canceled.compact_revision, revision(canceled)), (COMPACTED, 0));
    assert_eq!(hub.history_request(), None);
    hub.create(stream, from(COMPACTED));
    assert_eq!(hub.history_request().map(|request| request.from), Some(COMPACTED));
}

#[test]
fn compaction_cancels_who_still_needs_what_it_takes() {
    let mut hub = hub();
    let stream = hub.open_stream();
    let lost = hub.create(stream, from(5)).unwrap();
    hub.create(stream, from(8));
    hub.create(stream, from(0));
    take(&mut hub, stream);
    hub.request_progress(stream);
    hub.compacted(8);
    let canceled = &take(&mut hub, stream)[..];
    assert_eq!(canceled.len(), 1);
    assert_eq!((canceled[0].watch_id, canceled[0].compact_revision), (lost, 8));
    assert_eq!(hub.counts().behind, 1);
}

#[test]
fn chosen_ids_skip_taken_ones_and_are_counted_by_stream() {
    let mut hub = hub();
    let stream = hub.open_stream();
    let ids: Vec<_> = [1, 0, 0, 0, -1]
        .map(|watch_id| hub.create(stream, WatchSpec { watch_id, ..on("a") }).unwrap())
        .to_vec();
    assert_eq!(ids, [1, 0, 2, 3, -1]);
    let other = hub.open_stream();
    assert_eq!(hub.create(other, on("a")), Some(0));
}

#[test]
fn cancel_of_an_unknown_id_is_not_answered() {
    let mut hub = hub();
    let stream = hub.open_stream();
    let id = hub.create(stream, on("a")).unwrap();
    take(&mut hub, stream);
    hub.cancel(stream, 77);
    hub.cancel(stream, id);
    hub.cancel(stream, id);
    hub.publish(&[put("a", 11, 1)]);
    let canceled = take(&mut hub, stream);
    assert_eq!(canceled.len(), 1);
    assert!(canceled[0].canceled && !canceled[0].created && canceled[0].watch_id == id);
}

#[test]
fn empty_key_means_the_smallest_and_with_an_open_end_all() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(stream, WatchSpec::default());
    let range_end = Bytes::from_static(&[0]);
    let all = hub
        .create(
            stream,
            WatchSpec {
                range_end,
                ..WatchSpec::default()
            },
        )
        .unwrap();
    take(&mut hub, stream);
    hub.publish(&[put("x", 11, 1)]);
    let told = take(&mut hub, stream);
    assert_eq!(told.iter().map(|told| told.watch_id).collect::<Vec<_>>(), [all]);
}

#[test]
fn deletion_is_told_with_its_revision_and_what_it_deleted() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(
        stream,
        WatchSpec {
            prev_kv: true,
            ..on("a")
        },
    );
    assert!(hub.wants_previous());
    take(&mut hub, stream);
    let before = put("a", 9, 5).record;
    let deletion = Event {
        kind: EventKind::Delete,
        record: encode_tombstone(b"a"),
        create_revision: 0,
        previous: Some(before.clone()),
        ..put("a", 11, 0)
    };
    hub.publish(&[deletion]);
    let event = take(&mut hub, stream).remove(0).events.remove(0);
    assert_eq!(event.r#type(), mvccpb::event::EventType::Delete);
    let key = Bytes::from_static(b"a");
    let told = KeyValue {
        key,
        mod_revision: 11,
        ..KeyValue::default()
    };
    assert_eq!(event.kv, Some(told));
    assert_eq!(event.prev_kv, Some(KeyValue::decode(before).unwrap()));
    hub.drop_stream(stream);
    assert!(!hub.wants_previous());
}

#[test]
fn progress_is_answered_when_all_are_told_and_not_before() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.request_progress(stream);
    assert!(take(&mut hub, stream).is_empty(), "nobody to answer for");
    hub.create(stream, on("b"));
    hub.create(stream, from(6));
    take(&mut hub, stream);
    hub.request_progress(stream);
    assert!(take(&mut hub, stream).is_empty(), "one watcher is behind");
    let request = hub.history_request().unwrap();
    assert_eq!(
        (request.from, request.to, request.previous),
        (6, REVISION, PreviousRecords::Skip)
    );
    hub.publish(&[put("b", 11, 1)]);
    hub.feed_history(&HistorySlice {
        events: vec![put("a", 7, 1)],
        next_revision: 11,
    });
    assert_eq!(hub.history_request().map(|request| request.from), Some(11));
    hub.feed_history(&HistorySlice {
        events: Vec::new(),
        next_revision: 12,
    });
    let told = take(&mut hub, stream);
    assert_eq!(
        told.iter()
            .map(|told| (told.watch_id, told.events.len()))
            .collect::<Vec<_>>(),
        [(0, 1), (1, 1), (-1, 0)]
    );
    assert_eq!(revision(&told[2]), 11);
}

#[test]
fn progress_is_not_told_of_a_watcher_whose_start_is_to_come() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(
        stream,
        WatchSpec {
            progress_notify: true,
            ..from(REVISION + 1)
        },
    );
    take(&mut hub, stream);
    hub.request_progress(stream);
    hub.progress_due(stream);
    hub.publish(&[put("b", 11, 1)]);
    assert!(take(&mut hub, stream).is_empty());
    hub.request_progress(stream);
    assert_eq!(take(&mut hub, stream).len(), 1);
}

#[test]
fn automatic_progress_is_for_idle_watchers_that_asked_for_it() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(
        stream,
        WatchSpec {
            progress_notify: true,
            ..on("a")
        },
    );
    hub.create(stream, on("a"));
    take(&mut hub, stream);
    hub.progress_due(stream);
    assert_eq!(
        take(&mut hub, stream)
            .iter()
            .map(|told| told.watch_id)
            .collect::<Vec<_>>(),
        [0]
    );
    hub.publish(&[put("a", 11, 1)]);
    assert_eq!(take(&mut hub, stream).len(), 2);
    hub.progress_due(stream);
    assert!(take(&mut hub, stream).is_empty(), "it was told something since");
    hub.progress_due(stream);
    let told = take(&mut hub, stream);
    assert_eq!((told.len(), revision(&told[0]), told[0].watch_id), (1, 11, 0));
}

#[test]
fn fragments_are_below_the_bound_and_all_but_the_last_say_so() {
    let mut hub = hub();
    let stream = hub.open_stream();
    let range_end = Bytes::from_static(&[0]);
    hub.create(
        stream,
        WatchSpec {
            fragment: true,
            range_end: range_end.clone(),
            ..on("a")
        },
    );
    hub.create(stream, WatchSpec { range_end, ..on("a") });
    take(&mut hub, stream);
    let events: Vec<Event> = (0..5)
        .map(|sub| Event {
            revision: Revision::new(11, sub),
            ..put("a", 11, if sub == 3 { 200 } else { 20 })
        })
        .collect();
    hub.publish(&events);
    let told = take(&mut hub, stream);
    let shape = |id: i64| {
        let told = told.iter().filter(|told| told.watch_id == id);
        told.map(|told| (told.events.len(), told.fragment)).collect::<Vec<_>>()
    };
    assert_eq!(shape(0), [(2, true), (1, true), (1, true), (1, false)]);
    assert_eq!(shape(1), [(5, false)]);
}

#[test]
fn slow_stream_holds_up_nobody_and_loses_nothing() {
    let mut hub = hub();
    let (slow, fast) = (hub.open_stream(), hub.open_stream());
    hub.create(slow, on("a"));
    hub.create(fast, on("a"));
    let events: Vec<Event> = (11..111).map(|main| put("a", main, 10)).collect();
    let mut seen = Vec::new();
    for event in &events {
        hub.publish(std::slice::from_ref(event));
        seen.extend(take(&mut hub, fast));
    }
    assert_eq!(seen.len(), 101);
    assert_eq!(hub.counts().behind, 1);
    assert_eq!(hub.queued(slow).0, 8);
    assert_eq!(hub.history_request(), None, "its queue is full");
    assert_eq!(take(&mut hub, slow).len(), 8);
    let request = hub.history_request().unwrap();
    assert_eq!(request.from, 18);
    let events = events.into_iter().filter(|event| event.revision.main >= 18).collect();
    hub.feed_history(&HistorySlice {
        events,
        next_revision: 111,
    });
    assert_eq!(hub.counts().behind, 0);
    let told = take(&mut hub, slow);
    assert_eq!((told.len(), told[0].events.len(), revision(&told[0])), (1, 93, 110));
}

#[test]
fn after_a_snapshot_everybody_is_told_what_was_never_published() {
    let mut hub = hub();
    let stream = hub.open_stream();
    hub.create(stream, on("a"));
    hub.create(stream, from(40));
    hub.create(stream, from(5));
    take(&mut hub, stream);
    hub.restored(30, 8);
    let canceled = take(&mut hub, stream);
    assert_eq!(
        (canceled.len(), canceled[0].watch_id, canceled[0].compact_revision),
        (1, 2, 8)
    );
    assert_eq!(
        hub.history_request().map(|request| (request.from, request.to)),
        Some((11, 30))
    );
    hub.feed_history(&HistorySlice {
        events: vec![put("a", 20, 1)],
        next_revision: 31,
    });
    assert_eq!(take(&mut hub, stream).len(), 1);
    hub.publish(&[put("a", 31, 1)]);
    assert_eq!(take(&mut hub, stream).len(), 1);
}

#[test]
fn streams_that_are_gone_are_no_longer_named() {
    let mut hub = hub();
    let (gone, here) = (hub.open_stream(), hub.open_stream());
    hub.create(gone, from(5));
    hub.create(here, on("a"));
    hub.history_request().unwrap();
    hub.drop_stream(gone);
    let again = hub.open_stream();
    hub.create(again, on("b"));
    assert_eq!(std::iter::from_fn(|| hub.ready()).collect::<Vec<_>>(), [here, again]);
    hub.feed_history(&HistorySlice {
        events: vec![put("b", 7, 1)],
        next_revision: 11,
    });
    assert!(hub.ready().is_none());
    assert_eq!(hub.create(gone, on("a")), None);
    assert_eq!(
        hub.counts(),
        WatchCounts {
            streams: 2,
            watchers: 2,
            behind: 0,
            // The refusal and the notices that are queued are no events.
            pending_events: 0,
        }
    );
}
