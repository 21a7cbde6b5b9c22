//! The hub against a filter over history: each watcher is told exactly what it asked for, in order and once, however
//! slow its stream, and progress is never ahead of what was told nor behind it.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    base::LeaseId,
    mvcc::{
        Commit, Event, EventKind, HistoryLimits, HistorySlice, PreviousRecords, Span, Store, history_slice,
        memory::MemoryRecords,
    },
    wire::proto::{
        etcdserverpb::WatchResponse,
        mvccpb::{KeyValue, event::EventType},
    },
};

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<(bool, u8, u8)>),
    Open,
    Drop(u8),
    Create(u8, Ask),
    Cancel(u8, u8),
    Pop(u8, u8),
    Progress(u8),
    ProgressDue(u8),
    Compact(u8),
    Read,
    Feed,
    Refuse,
}

#[derive(Clone, Debug)]
struct Ask {
    key: u8,
    end: u8,
    start_back: i8,
    filters: (bool, bool),
    prev_kv: bool,
    progress_notify: bool,
    fragment: bool,
    watch_id: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (
        (0..6u8, 0..8u8, -3..12i8),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
        (any::<bool>(), any::<bool>(), any::<bool>()),
        0..4i64,
    );
    let ask = ask.prop_map(|((key, end, start_back), filters, flags, watch_id)| Ask {
        key,
        end,
        start_back,
        filters,
        prev_kv: flags.0,
        progress_notify: flags.1,
        fragment: flags.2,
        watch_id,
    });
    prop_oneof![
        12 => prop::collection::vec((prop::bool::weighted(0.7), 0..6u8, 0..7u8), 1..4).prop_map(Step::Txn),
        1 => Just(Step::Open),
        1 => (0..3u8).prop_map(Step::Drop),
        6 => (0..3u8, ask).prop_map(|(stream, ask)| Step::Create(stream, ask)),
        2 => (0..3u8, 0..4u8).prop_map(|(stream, id)| Step::Cancel(stream, id)),
        8 => (0..3u8, 1..4u8).prop_map(|(stream, count)| Step::Pop(stream, count)),
        3 => (0..3u8).prop_map(Step::Progress),
        2 => (0..3u8).prop_map(Step::ProgressDue),
        1 => (0..6u8).prop_map(Step::Compact),
        4 => Just(Step::Read),
        6 => Just(Step::Feed),
        1 => Just(Step::Refuse),
    ]
}

/// What a client knows of one of its watchers.
#[derive(Debug)]
struct Watched {
    spec: WatchSpec,
    /// Number of the event of the whole history that is to be looked at next.
    position: usize,
    /// Fragments of one revision that have come so far.
    partial: bool,
}

#[derive(Debug, Default)]
struct Client {
    watched: BTreeMap<i64, Watched>,
    /// Watchers whose `created` has not come yet.
    asked: BTreeMap<i64, VecDeque<WatchSpec>>,
    /// The highest revision told of.
    told: i64,
}

struct Subject {
    store: Store,
    tree: MemoryRecords,
    hub: WatchHub,
    history: Vec<Event>,
    streams: Vec<(StreamId, Client)>,
    /// A piece of history that was read and not fed yet.
    slice: Option<HistorySlice>,
    request: Option<HistoryRequest>,
}

fn key(number: u8) -> Vec<u8> {
    vec![b'a' + number]
}

impl Subject {
    fn new() -> Subject {
        let limits = WatchLimits {
            fragment_bytes: 90,
            queue_bytes_max: 120,
            queue_responses_max: 4,
            catch_up_watchers_max: 2,
        };
        let identity = ResponseIdentity {
            cluster_id: 7,
            member_id: 8,
            raft_term: 9,
        };
        let mut hub = WatchHub::new(identity, limits, 1, -1, 5);
        let streams = (0..2).map(|_| (hub.open_stream(), Client::default())).collect();
        Subject {
            store: Store::new(),
            tree: MemoryRecords::default(),
            hub,
            history: Vec::new(),
            streams,
            slice: None,
            request: None,
        }
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Txn(changes) => self.txn(&changes),
            Step::Open if self.streams.len() < 3 => self.streams.push((self.hub.open_stream(), Client::default())),
            Step::Drop(stream) if self.streams.len() > 1 && usize::from(stream) < self.streams.len() => {
                let (id, _) = self.streams.swap_remove(stream.into());
                self.hub.drop_stream(id);
            }
            Step::Create(stream, ask) => self.create(stream, &ask),
            Step::Cancel(stream, watch_id) => {
                if let Some((id, _)) = self.streams.get(usize::from(stream)) {
                    self.hub.cancel(*id, watch_id.into());
                }
            }
            Step::Pop(stream, count) => {
                for _ in 0..count {
                    self.pop(stream.into());
                }
            }
            Step::Progress(stream) => {
                if let Some((id, _)) = self.streams.get(usize::from(stream)) {
                    self.hub.request_progress(*id);
                }
            }
            Step::ProgressDue(stream) => {
                if let Some((id, _)) = self.streams.get(usize::from(stream)) {
                    self.hub.progress_due(*id);
                }
            }
            Step::Compact(back) => self.compact(back),
            Step::Read => self.read(),
            Step::Feed => self.feed(),
            Step::Refuse => {
                self.hub.history_refused();
                (self.slice, self.request) = (None, None);
            }
            Step::Open | Step::Drop(_) => {}
        }
    }

    fn txn(&mut self, changes: &[(bool, u8, u8)]) {
        let mut txn = self.store.begin(&mut self.tree, PreviousRecords::Fetch);
        // A transaction that changes a key twice is refused before it comes here.
        let mut changed: Vec<Vec<u8>> = Vec::new();
        for &(is_put, number, other) in changes {
            let (from, to) = (key(number), key(other));
            let span = if is_put {
                Span::key(&from)
            } else {
                Span::from_request(&from, &to)
            };
            if changed.iter().any(|key| span.contains(key)) {
                continue;
            }
            match is_put {
                true => {
                    txn.put(&from, &vec![other; usize::from(other) * 8], LeaseId(0));
                    changed.push(from);
                }
                false => changed.extend(txn.delete_range(span).deleted.into_iter().map(|gone| gone.key.to_vec())),
            }
        }
        if let Some(Commit { events, .. }) = txn.end() {
            self.hub.publish(&events);
            self.history.extend(events);
        }
    }

    fn create(&mut self, stream: u8, ask: &Ask) {
        let current = self.store.current_revision();
        let Some((id, client)) = self.streams.get_mut(usize::from(stream)) else {
            return;
        };
        let spec = WatchSpec {
            key: key(ask.key).into(),
            range_end: match ask.end {
                7 => Bytes::new(),
                6 => Bytes::from_static(&[0]),
                end => key(end).into(),
            },
            start_revision: match ask.start_back {
                11 => 0,
                back => (current - i64::from(back)).max(0),
            },
            watch_id: ask.watch_id,
            filters: Filters {
                no_put: ask.filters.0,
                no_delete: ask.filters.1,
            },
            prev_kv: ask.prev_kv,
            progress_notify: ask.progress_notify,
            fragment: ask.fragment,
        };
        if let Some(watch_id) = self.hub.create(*id, spec.clone()) {
            let mut spec = spec;
            if spec.start_revision == 0 {
                spec.start_revision = current + 1;
            }
            client.asked.entry(watch_id).or_default().push_back(spec);
        }
    }

    fn compact(&mut self, back: u8) {
        let revision = self.store.current_revision() - i64::from(back);
        let Ok(mut compaction) = self.store.compact(revision, true) else {
            return;
        };
        self.store.compact_slice(&mut compaction, usize::MAX);
        compaction.into_physical().step(&mut self.tree, usize::MAX);
        self.hub.compacted(revision);
    }

    fn read(&mut self) {
        if self.slice.is_some() {
            return;
        }
        if self.request.is_none() {
            self.request = self.hub.history_request();
        }
        let Some(request) = self.request else { return };
        let limits = HistoryLimits {
            records_max: 4,
            bytes_max: 100,
        };
        let to = self.store.current_revision().max(request.to);
        let read = history_slice(
            &self.store,
            &self.tree,
            request.from,
            to,
            limits,
            request.previous,
            |_| true,
        );
        match read {
            Ok(slice) => self.slice = Some(slice),
            Err(_) => {
                self.hub.history_refused();
                self.request = None;
            }
        }
    }

    fn feed(&mut self) {
        if let Some(slice) = self.slice.take() {
            self.request = None;
            self.hub.feed_history(&slice);
        }
    }

    fn pop(&mut self, stream: usize) -> bool {
        let Some((id, _)) = self.streams.get(stream) else {
            return false;
        };
        let id = *id;
        let front = self.hub.front(id).cloned();
        let Some(response) = self.hub.pop(id) else { return false };
        assert_eq!(front.as_ref(), Some(&response));
        let mut bytes = BytesMut::new();
        response.encode_to(self.hub.identity(), &mut bytes);
        assert_eq!(bytes.len(), response.encoded_len(self.hub.identity()));
        let decoded = WatchResponse::decode(&bytes[..]).unwrap();
        assert_eq!(decoded.encode_to_vec(), bytes, "canonical bytes");
        assert_eq!(decoded.events.len(), response.events as usize);
        self.receive(stream, &decoded, bytes.len());
        true
    }

    fn receive(&mut self, stream: usize, response: &WatchResponse, len: usize) {
        let client = &mut self.streams[stream].1;
        let revision = response.header.unwrap().revision;
        if response.created {
            if response.canceled {
                assert_eq!(response.watch_id, -1);
                return;
            }
            let asked = client.asked.get_mut(&response.watch_id).and_then(VecDeque::pop_front);
            let spec = asked.expect("only what was asked for is created");
            let watched = Watched {
                spec,
                position: 0,
                partial: false,
            };
            assert!(client.watched.insert(response.watch_id, watched).is_none());
            return;
        }
        if response.canceled {
            let watched = client.watched.remove(&response.watch_id);
            if response.compact_revision > 0 {
                assert!(response.compact_revision <= self.store.compact_revision());
                let start = watched.expect("it was created").spec.start_revision;
                assert!(start < response.compact_revision);
            }
            return;
        }
        if response.events.is_empty() {
            self.receive_progress(stream, response.watch_id, revision);
            return;
        }
        assert!(revision >= client.told);
        let watched = client
            .watched
            .get_mut(&response.watch_id)
            .expect("events come after created");
        if watched.spec.fragment {
            assert!(len < 90 || response.events.len() == 1);
        }
        for event in &response.events {
            let expected = next_of(&self.history, watched).expect("nothing is told that did not happen");
            assert_eq!(
                (event.kv.as_ref().unwrap(), event.r#type()),
                (&key_value(expected), event_type(expected))
            );
            client.told = client.told.max(expected.revision.main);
            assert!(revision >= expected.revision.main);
            let previous = event.prev_kv.as_ref().map(|kv| Bytes::from(kv.encode_to_vec()));
            match previous {
                Some(previous) => assert_eq!(Some(previous), expected.previous),
                None if watched.spec.prev_kv && expected.previous.is_some() => {
                    assert!(expected.revision.main <= self.store.compact_revision());
                }
                None => {}
            }
            watched.position += 1;
        }
        watched.partial = response.fragment;
        let last = response
            .events
            .last()
            .and_then(|event| event.kv.as_ref())
            .unwrap()
            .mod_revision;
        let is_whole = next_of(&self.history, watched).is_none_or(|next| next.revision.main > last);
        assert!(
            is_whole || response.fragment || watched.spec.fragment,
            "a revision is told whole"
        );
    }

    fn receive_progress(&mut self, stream: usize, watch_id: i64, revision: i64) {
        let client = &mut self.streams[stream].1;
        let all = watch_id == -1;
        for (id, watched) in client.watched.iter_mut().filter(|(id, _)| all || **id == watch_id) {
            assert!(
                watched.spec.start_revision <= revision + 1,
                "progress before the start of {id}"
            );
            assert!(!watched.partial, "progress between fragments");
            let next = next_of(&self.history, watched);
            assert!(
                next.is_none_or(|next| next.revision.main > revision),
                "progress ahead of events of {id}"
            );
        }
        assert!(!all || revision >= client.told, "progress behind events");
    }

    /// Sends and reads until nothing is left to do: then everybody knows everything.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle += 1;
            for stream in 0..self.streams.len() {
                while self.pop(stream) {
                    idle = 0;
                }
            }
            self.read();
            if self.slice.is_some() {
                idle = 0;
            }
            self.feed();
        }
        for (_, client) in &mut self.streams {
            assert!(client.asked.values().all(VecDeque::is_empty));
            for watched in client.watched.values_mut() {
                let missed = next_of(&self.history, watched);
                assert!(missed.is_none(), "{missed:?} was not told");
            }
        }
        let counts = self.hub.counts();
        let watchers: usize = self.streams.iter().map(|(_, client)| client.watched.len()).sum();
        assert_eq!((counts.watchers, counts.behind), (watchers, 0));
        for stream in 0..self.streams.len() {
            self.hub.request_progress(self.streams[stream].0);
            let current = self.store.current_revision();
            let watched = &self.streams[stream].1.watched;
            let is_answered =
                !watched.is_empty() && watched.values().all(|watched| watched.spec.start_revision <= current);
            // A watcher that began at "now" counts as begun, though nothing has happened since.
            if is_answered {
                assert!(self.pop(stream), "progress of a settled stream is answered");
            }
        }
    }
}

/// The next event that a watcher is to be told; its number becomes the watcher's position.
fn next_of<'a>(history: &'a [Event], watched: &mut Watched) -> Option<&'a Event> {
    let spec = &watched.spec;
    let span = Span::from_request(&spec.key, &spec.range_end);
    let wanted = |event: &Event| {
        span.contains(&event.key)
            && event.revision.main >= spec.start_revision
            && match event.kind {
                EventKind::Put => !spec.filters.no_put,
                EventKind::Delete => !spec.filters.no_delete,
            }
    };
    while let Some(event) = history.get(watched.position) {
        if wanted(event) {
            return Some(event);
        }
        watched.position += 1;
    }
    None
}

fn key_value(event: &Event) -> KeyValue {
    match event.kind {
        EventKind::Put => KeyValue::decode(event.record.clone()).unwrap(),
        EventKind::Delete => KeyValue {
            key: event.key.clone(),
            mod_revision: event.revision.main,
            ..KeyValue::default()
        },
    }
}

fn event_type(event: &Event) -> EventType {
    match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    }
}

proptest! {
    #[test]
    fn each_watcher_is_told_the_filtered_history(steps in prop::collection::vec(step(), 1..120)) {
        let mut subject = Subject::new();
        for step in steps {
            subject.carry_out(step);
        }
        subject.settle();
    }
}
