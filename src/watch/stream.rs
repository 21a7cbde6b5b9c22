//! A stream of watchers: their ids, and the queue of what is to be sent.

use std::collections::{BTreeMap, VecDeque};

use super::{interest::WatcherKey, response::Response};

/// Names a stream of one hub. Not used again after the stream is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub(super) key: usize,
    pub(super) serial: u64,
}

impl StreamId {
    /// A small number that no other open stream of the hub has.
    pub fn index(self) -> usize {
        self.key
    }
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub serial: u64,
    pub watchers: BTreeMap<i64, WatcherKey>,
    next_watch_id: i64,
    queue: VecDeque<Response>,
    queued_bytes: usize,
    queued_events: usize,
    /// Watchers that are behind and wait for the queue to have room.
    pub stalled: Vec<WatcherKey>,
    /// Watchers that are behind, stalled or not.
    pub behind: usize,
    /// The client asked for progress while some watchers were behind.
    pub is_progress_owed: bool,
    /// The stream is in the hub's list of streams with something to send.
    pub is_listed: bool,
}

/// How much a queue may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueLimits {
    pub bytes: usize,
    pub responses: usize,
}

impl Stream {
    pub fn new(serial: u64) -> Stream {
        Stream {
            serial,
            ..Stream::default()
        }
    }

    /// An id that no watcher of the stream has.
    pub fn free_watch_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        self.next_watch_id - 1
    }

    /// Whether `bytes` more of events may be queued. An empty queue takes anything.
    pub fn has_room(&self, bytes: usize, limits: QueueLimits) -> bool {
        self.queue.is_empty() || (self.queued_bytes + bytes <= limits.bytes && self.queue.len() < limits.responses)
    }

    /// Whether so much was sent that history may be read for the stream again.
    pub fn has_drained(&self, limits: QueueLimits) -> bool {
        self.queued_bytes <= limits.bytes / 2 && self.queue.len() <= limits.responses / 2
    }

    pub fn push(&mut self, response: Response) {
        self.queued_bytes += response.body.len();
        self.queued_events += response.events as usize;
        self.queue.push_back(response);
    }

    pub fn pop(&mut self) -> Option<Response> {
        let response = self.queue.pop_front()?;
        self.queued_bytes -= response.body.len();
        self.queued_events -= response.events as usize;
        Some(response)
    }

    pub fn front(&self) -> Option<&Response> {
        self.queue.front()
    }

    /// Events in the queue.
    pub fn queued_events(&self) -> usize {
        self.queued_events
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}
