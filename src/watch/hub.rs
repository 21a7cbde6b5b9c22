//! The hub: streams come and go, watchers are created and cancelled, changes are published, responses are taken.
//!
//! Reading history for watchers that are behind is in `catch_up`.

use crate::base::planted::{Planted, is_planted};
use std::collections::{BTreeSet, VecDeque};

use slab::Slab;

use super::{
    catch_up::InFlight,
    encode::Bodies,
    interest::{Interest, WatcherKey},
    response::{Control, Response, ResponseIdentity},
    spec::{Keys, REASON_DUPLICATE_ID, REASON_NEGATIVE_START, WatchSpec},
    stream::{QueueLimits, Stream, StreamId},
    watcher::{State, Watcher},
};
use crate::{
    limits::{self, Limits},
    mvcc::Event,
};

/// The id that stands for no watcher, or for all of a stream.
pub(super) const NO_WATCH_ID: i64 = -1;

/// The bounds of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Bytes from which on a response is split for watchers that asked for it: `--max-request-bytes` and
    /// [`limits::GRPC_OVERHEAD_BYTES`].
    pub fragment_bytes: usize,
    /// Bytes of events that a stream's queue holds; one response is taken whatever its size.
    pub queue_bytes_max: usize,
    /// Responses that a stream's queue holds.
    pub queue_responses_max: usize,
    /// Watchers that one piece of history is read for.
    pub catch_up_watchers_max: usize,
}

impl WatchLimits {
    /// The bounds of a hub, of those of all.
    pub fn new(request_bytes_max: usize, limits: &Limits) -> WatchLimits {
        WatchLimits {
            fragment_bytes: request_bytes_max + limits::GRPC_OVERHEAD_BYTES as usize,
            queue_bytes_max: limits.watch_queue_bytes_max,
            queue_responses_max: limits.watch_queue_responses_max,
            catch_up_watchers_max: limits.watch_catch_up_watchers_max,
        }
    }
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Open streams.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// Of them, those that are behind.
    pub behind: usize,
    /// Events that wait to be sent.
    pub pending_events: usize,
}

/// The watchers of one core.
pub struct WatchHub {
    pub(super) identity: ResponseIdentity,
    pub(super) limits: WatchLimits,
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) watchers: Slab<Watcher>,
    pub(super) streams: Slab<Stream>,
    pub(super) synced: Interest,
    pub(super) behind: Interest,
    /// Watchers that are behind and whose queue has room, by the revision they need.
    pub(super) waiting: BTreeSet<(i64, WatcherKey)>,
    pub(super) in_flight: Option<InFlight>,
    behind_count: usize,
    previous_wanted: usize,
    pub(super) listed: VecDeque<StreamId>,
    next_serial: u64,
}

impl WatchHub {
    /// A hub without streams, of a store whose revisions are these. `seed` comes from the host's entropy.
    pub fn new(
        identity: ResponseIdentity,
        limits: WatchLimits,
        revision: i64,
        compact_revision: i64,
        seed: u64,
    ) -> WatchHub {
        WatchHub {
            identity,
            limits,
            revision,
            compact_revision,
            watchers: Slab::new(),
            streams: Slab::new(),
            synced: Interest::new(seed),
            behind: Interest::new(seed),
            waiting: BTreeSet::new(),
            in_flight: None,
            behind_count: 0,
            previous_wanted: 0,
            listed: VecDeque::new(),
            next_serial: 0,
        }
    }

    /// The last revision that was published.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// History below this revision is gone, as far as the hub was told.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// What responses say in their headers.
    pub fn identity(&self) -> &ResponseIdentity {
        &self.identity
    }

    /// Sets what responses say in their headers from now on, queued ones included.
    pub fn set_identity(&mut self, identity: ResponseIdentity) {
        self.identity = identity;
    }

    /// Whether events are to be published with their previous records. It holds for changes that are made after a
    /// watcher was created, so it must be known to whoever makes them before `created` is sent.
    pub fn wants_previous(&self) -> bool {
        self.previous_wanted > 0
    }

    /// Numbers for the metrics.
    pub fn counts(&self) -> WatchCounts {
        WatchCounts {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            behind: self.behind_count,
            pending_events: self.streams.iter().map(|(_, stream)| stream.queued_events()).sum(),
        }
    }

    /// Opens a stream.
    pub fn open_stream(&mut self) -> StreamId {
        let serial = self.take_serial();
        let key = self.streams.insert(Stream::new(serial));
        StreamId { key, serial }
    }

    /// Forgets a stream, its watchers and its queue.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let Some(open) = self.stream_mut(stream) else { return };
        let watchers = std::mem::take(&mut open.watchers);
        for watcher in watchers.into_values() {
            self.remove_watcher(watcher);
        }
        self.streams.remove(stream.key);
    }

    /// Creates a watcher; its id. `None` if it was refused, which the stream is told. A watcher whose start is compacted
    /// is created and cancelled at once. A caller whose client may not read the keys calls [`WatchHub::refuse`] instead, unless the
    /// start revision is negative: etcd refuses that first.
    pub fn create(&mut self, stream: StreamId, spec: WatchSpec) -> Option<i64> {
        self.stream_mut(stream)?;
        if spec.start_revision < 0 {
            self.refuse(stream, REASON_NEGATIVE_START);
            return None;
        }
        let keys = match spec.keys() {
            Ok(keys) => keys,
            Err(reason) => {
                self.refuse(stream, reason);
                return None;
            }
        };
        let open = self.stream_mut(stream)?;
        let watch_id = match spec.watch_id {
            0 => open.free_watch_id(),
            taken if open.watchers.contains_key(&taken) => {
                self.refuse(stream, REASON_DUPLICATE_ID);
                return None;
            }
            free => free,
        };
        self.push_control(
            stream.key,
            watch_id,
            Control {
                is_created: true,
                ..Control::default()
            },
        );
        if (1..=self.revision).contains(&spec.start_revision) && spec.start_revision < self.compact_revision {
            self.push_compacted(stream.key, watch_id);
            return Some(watch_id);
        }
        self.add_watcher(stream.key, watch_id, keys, &spec);
        Some(watch_id)
    }

    fn add_watcher(&mut self, stream: usize, watch_id: i64, keys: Keys, spec: &WatchSpec) {
        let is_synced = spec.start_revision == 0 || spec.start_revision > self.revision;
        let entry = self.watchers.vacant_entry();
        let key = entry.key();
        let interest = if is_synced { &mut self.synced } else { &mut self.behind };
        let place = interest.insert(&keys, key);
        let next_revision = match spec.start_revision {
            0 => self.revision + 1,
            start => start,
        };
        entry.insert(Watcher {
            stream,
            watch_id,
            serial: self.next_serial,
            next_revision,
            start_revision: spec.start_revision,
            state: if is_synced { State::Synced } else { State::Waiting },
            filters: spec.filters,
            prev_kv: spec.prev_kv,
            progress_notify: spec.progress_notify,
            is_idle: true,
            fragment: spec.fragment,
            keys,
            place,
        });
        self.next_serial += 1;
        self.previous_wanted += usize::from(spec.prev_kv);
        let open = &mut self.streams[stream];
        open.watchers.insert(watch_id, key);
        if !is_synced {
            open.behind += 1;
            self.behind_count += 1;
            self.wait(key);
        }
    }

    /// Tells a client that its watcher is refused, with etcd's words for why.
    pub fn refuse(&mut self, stream: StreamId, reason: &str) {
        if self.stream_mut(stream).is_some() {
            let control = Control {
                is_created: true,
                is_canceled: true,
                cancel_reason: reason.to_owned(),
                ..Control::default()
            };
            self.push_control(stream.key, NO_WATCH_ID, control);
        }
    }

    /// Cancels a watcher and says so. As in etcd, nothing is said if there is none with that id.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        let Some(open) = self.stream_mut(stream) else { return };
        let Some(watcher) = open.watchers.remove(&watch_id) else {
            return;
        };
        self.remove_watcher(watcher);
        let control = Control {
            is_canceled: true,
            ..Control::default()
        };
        self.push_control(stream.key, watch_id, control);
        self.pay_progress(stream.key);
    }

    /// Publishes applied changes, in order, each transaction whole. Streams that now have something to send are given
    /// by [`WatchHub::ready`].
    pub fn publish(&mut self, events: &[Event]) {
        for transaction in events.chunk_by(|left, right| left.revision.main == right.revision.main) {
            self.publish_transaction(transaction);
        }
    }

    fn publish_transaction(&mut self, events: &[Event]) {
        let revision = events[0].revision.main;
        assert!(revision > self.revision, "revisions are published once and in order");
        self.revision = revision;
        for (number, event) in events.iter().enumerate() {
            self.synced.hit(&event.key, number as u32);
        }
        let queue_limits = self.queue_limits();
        let mut fallen = Vec::new();
        while let Some((watchers, hits)) = self.synced.next_touched() {
            let mut bodies = Bodies::default();
            for &key in watchers {
                let watcher = &mut self.watchers[key];
                if watcher.next_revision > revision {
                    continue;
                }
                let body = bodies.body(events, &hits, watcher.variant(0));
                if body.ends.is_empty() {
                    continue;
                }
                let stream = &mut self.streams[watcher.stream];
                if stream.has_room(body.bytes.len(), queue_limits) {
                    let fragment_bytes = self.limits.fragment_bytes;
                    watcher.tell(stream, body, revision, &self.identity, fragment_bytes);
                    list(&mut self.listed, watcher.stream, stream);
                } else {
                    fallen.push(key);
                }
            }
        }
        for key in fallen {
            self.fall_behind(key, revision);
        }
    }

    /// Notes that history below `compact_revision` is gone. Watchers that still need it are cancelled and told so.
    pub fn compacted(&mut self, compact_revision: i64) {
        assert!(
            compact_revision >= self.compact_revision,
            "what was compacted stays compacted"
        );
        self.compact_revision = compact_revision;
        let is_lost = |watcher: &Watcher| watcher.state != State::Synced && watcher.next_revision < compact_revision;
        let lost: Vec<WatcherKey> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| is_lost(watcher))
            .map(|(key, _)| key)
            .collect();
        for key in lost {
            let (stream, watch_id) = (self.watchers[key].stream, self.watchers[key].watch_id);
            self.streams[stream].watchers.remove(&watch_id);
            self.remove_watcher(key);
            self.push_compacted(stream, watch_id);
            self.pay_progress(stream);
        }
    }

    /// Notes that the store was replaced by a snapshot's, at these revisions. Changes between the last published
    /// revision and the new one were never published, so every watcher must find them in history.
    pub fn restored(&mut self, revision: i64, compact_revision: i64) {
        assert!(
            revision >= self.revision,
            "a snapshot is ahead of the store that it replaces"
        );
        let missed = self.revision + 1;
        self.revision = revision;
        self.in_flight_returned();
        let is_short = |watcher: &Watcher| watcher.state == State::Synced && watcher.next_revision <= revision;
        let short: Vec<WatcherKey> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| is_short(watcher))
            .map(|(key, _)| key)
            .collect();
        if missed <= revision {
            for key in short {
                let next_revision = self.watchers[key].next_revision.max(missed);
                self.fall_behind(key, next_revision);
                self.revive(self.watchers[key].stream);
            }
        }
        self.compacted(compact_revision);
    }

    /// Asks for the progress of a whole stream. It is answered, with id -1, when every watcher of the stream has been
    /// told everything up to the revision in the answer. There is no answer for a stream without watchers, nor, as in
    /// etcd, while a watcher's start is yet to come.
    pub fn request_progress(&mut self, stream: StreamId) {
        if let Some(open) = self.stream_mut(stream) {
            open.is_progress_owed = true;
            self.pay_progress(stream.key);
        }
    }

    /// Answers a progress request that could not be answered before, if it can be now.
    pub(super) fn pay_progress(&mut self, stream: usize) {
        let open = &mut self.streams[stream];
        if !open.is_progress_owed || (open.behind > 0 && !is_planted(Planted::ProgressAhead)) {
            return;
        }
        open.is_progress_owed = false;
        let mut watchers = open.watchers.values().map(|key| &self.watchers[*key]);
        let is_begun =
            |watcher: &Watcher| watcher.start_revision <= self.revision || is_planted(Planted::ProgressOfFuture);
        if !open.watchers.is_empty() && watchers.all(is_begun) {
            self.push(stream, Response::progress(NO_WATCH_ID, self.revision));
        }
    }

    /// The interval of automatic progress is over for a stream: watchers that asked for it, are synced and were told
    /// nothing since are told the revision.
    pub fn progress_due(&mut self, stream: StreamId) {
        let Some(open) = self.stream_mut(stream) else { return };
        let keys: Vec<WatcherKey> = open.watchers.values().copied().collect();
        let queue_limits = self.queue_limits();
        for key in keys {
            let watcher = &mut self.watchers[key];
            if !watcher.progress_notify {
                continue;
            }
            let is_due = std::mem::replace(&mut watcher.is_idle, true);
            let is_current = watcher.state == State::Synced && watcher.start_revision <= self.revision;
            if is_due && is_current && self.streams[stream.key].has_room(0, queue_limits) {
                let response = Response::progress(watcher.watch_id, self.revision);
                self.push(stream.key, response);
            }
        }
    }

    /// A stream that was given something to send since it was named here last.
    pub fn ready(&mut self) -> Option<StreamId> {
        while let Some(stream) = self.listed.pop_front() {
            if let Some(open) = self.stream_mut(stream) {
                open.is_listed = false;
                return Some(stream);
            }
        }
        None
    }

    /// The next response of a stream, to be sent. When the queue has drained, watchers that it held up catch up again:
    /// the caller looks at [`WatchHub::history_request`].
    pub fn pop(&mut self, stream: StreamId) -> Option<Response> {
        let response = self.stream_mut(stream)?.pop()?;
        self.revive(stream.key);
        Some(response)
    }

    /// The response that [`WatchHub::pop`] will give.
    pub fn front(&self, stream: StreamId) -> Option<&Response> {
        self.stream(stream)?.front()
    }

    /// Responses in a stream's queue, and the bytes of their events. A caller that reads requests only while this is
    /// small bounds the queue against clients that create watchers without reading.
    pub fn queued(&self, stream: StreamId) -> (usize, usize) {
        self.stream(stream)
            .map_or((0, 0), |open| (open.queued(), open.queued_bytes()))
    }

    pub(super) fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            bytes: self.limits.queue_bytes_max,
            responses: self.limits.queue_responses_max,
        }
    }

    fn stream(&self, stream: StreamId) -> Option<&Stream> {
        self.streams.get(stream.key).filter(|open| open.serial == stream.serial)
    }

    fn stream_mut(&mut self, stream: StreamId) -> Option<&mut Stream> {
        self.streams
            .get_mut(stream.key)
            .filter(|open| open.serial == stream.serial)
    }

    fn take_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial - 1
    }

    fn push(&mut self, stream: usize, response: Response) {
        let open = &mut self.streams[stream];
        open.push(response);
        list(&mut self.listed, stream, open);
    }

    fn push_control(&mut self, stream: usize, watch_id: i64, control: Control) {
        let response = Response {
            watch_id,
            revision: self.revision,
            control: Some(Box::new(control)),
            ..Response::default()
        };
        self.push(stream, response);
    }

    /// As in etcd, this one response has no revision in its header.
    fn push_compacted(&mut self, stream: usize, watch_id: i64) {
        let control = Control {
            is_canceled: true,
            compact_revision: self.compact_revision,
            ..Control::default()
        };
        let response = Response {
            watch_id,
            control: Some(Box::new(control)),
            ..Response::default()
        };
        self.push(stream, response);
    }

    /// Takes a watcher out of everything but its stream's table of ids.
    fn remove_watcher(&mut self, key: WatcherKey) {
        let watcher = self.watchers.remove(key);
        let interest = match watcher.state {
            State::Synced => &mut self.synced,
            State::Waiting | State::Stalled | State::InFlight => &mut self.behind,
        };
        if let Some(moved) = interest.remove(&watcher.keys, watcher.place) {
            let moved = &mut self.watchers[moved];
            moved.place = moved.place.moved_to(watcher.place);
        }
        let open = &mut self.streams[watcher.stream];
        match watcher.state {
            State::Waiting => _ = self.waiting.remove(&(watcher.next_revision, key)),
            State::Stalled => open.stalled.retain(|stalled| *stalled != key),
            State::Synced | State::InFlight => {}
        }
        if watcher.state != State::Synced {
            open.behind -= 1;
            self.behind_count -= 1;
        }
        self.previous_wanted -= usize::from(watcher.prev_kv);
    }

    /// A synced watcher whose queue is full is told from `next_revision` on when there is room again.
    fn fall_behind(&mut self, key: WatcherKey, next_revision: i64) {
        self.exchange(key, State::Stalled);
        let watcher = &mut self.watchers[key];
        watcher.next_revision = next_revision;
        let open = &mut self.streams[watcher.stream];
        open.stalled.push(key);
        open.behind += 1;
        self.behind_count += 1;
    }

    /// A watcher that is behind has been told everything.
    pub(super) fn become_synced(&mut self, key: WatcherKey) {
        self.exchange(key, State::Synced);
        let stream = self.watchers[key].stream;
        self.streams[stream].behind -= 1;
        self.behind_count -= 1;
        if !is_planted(Planted::ProgressWithheld) {
            self.pay_progress(stream);
        }
    }

    /// Moves a watcher between the two tables of interest.
    fn exchange(&mut self, key: WatcherKey, state: State) {
        let (from, to) = match state {
            State::Synced => (&mut self.behind, &mut self.synced),
            State::Waiting | State::Stalled | State::InFlight => (&mut self.synced, &mut self.behind),
        };
        let watcher = &mut self.watchers[key];
        let moved = from.remove(&watcher.keys, watcher.place);
        let old_place = watcher.place;
        watcher.place = to.insert(&watcher.keys, key);
        watcher.state = state;
        if let Some(moved) = moved {
            let moved = &mut self.watchers[moved];
            moved.place = moved.place.moved_to(old_place);
        }
    }

    /// Puts a watcher that is behind in the line for history.
    pub(super) fn wait(&mut self, key: WatcherKey) {
        let watcher = &mut self.watchers[key];
        assert!(
            watcher.next_revision >= self.compact_revision,
            "who needs what was compacted is told so, and waits for nothing"
        );
        watcher.state = State::Waiting;
        self.waiting.insert((watcher.next_revision, key));
    }

    /// Lets the watchers that a stream's queue held up catch up again, if it has drained.
    pub(super) fn revive(&mut self, stream: usize) {
        let queue_limits = self.queue_limits();
        let open = &mut self.streams[stream];
        if open.stalled.is_empty() || !open.has_drained(queue_limits) {
            return;
        }
        for key in std::mem::take(&mut open.stalled) {
            self.wait(key);
        }
    }
}

/// Notes that a stream has something to send.
pub(super) fn list(listed: &mut VecDeque<StreamId>, key: usize, open: &mut Stream) {
    if !open.is_listed {
        open.is_listed = true;
        listed.push_back(StreamId {
            key,
            serial: open.serial,
        });
    }
}

impl Response {
    fn progress(watch_id: i64, revision: i64) -> Response {
        Response {
            watch_id,
            revision,
            ..Response::default()
        }
    }
}
