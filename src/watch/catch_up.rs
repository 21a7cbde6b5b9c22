//! Watchers that are behind: which piece of the past they need, and what becomes of it.
//!
//! One piece is under way at a time. It serves the watchers that need the oldest revisions, as many as the limits allow.
//! Who is created meanwhile waits for the next one; who is cancelled is passed over.

use super::{
    encode::Bodies,
    hub::{WatchHub, list},
    interest::WatcherKey,
    watcher::State,
};
use crate::{
    base::planted::{Planted, is_planted},
    mvcc::{HistorySlice, PreviousRecords},
};

/// A piece of the past that is to be given to [`WatchHub::feed_history`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    /// The first revision.
    pub from: i64,
    /// The last revision that was published here. Whoever reads the history may go on to what was published to this hub
    /// in the meantime, provided that it is published here before the piece is fed.
    pub to: i64,
    /// Whether the events' previous records are wanted.
    pub previous: PreviousRecords,
}

/// Watchers that a piece of history was requested for.
pub(super) struct InFlight {
    members: Vec<(WatcherKey, u64)>,
}

impl WatchHub {
    /// The piece of history to be read next. `None` if none is needed, or one is under way. The caller answers with
    /// [`WatchHub::feed_history`], or with [`WatchHub::history_refused`].
    pub fn history_request(&mut self) -> Option<HistoryRequest> {
        if self.in_flight.is_some() {
            return None;
        }
        let from = self.waiting.first()?.0;
        let mut previous = PreviousRecords::Skip;
        let mut members = Vec::new();
        while members.len() < self.limits.catch_up_watchers_max {
            let Some((_, key)) = self.waiting.pop_first() else {
                break;
            };
            let watcher = &mut self.watchers[key];
            watcher.state = State::InFlight;
            members.push((key, watcher.serial));
            if watcher.prev_kv {
                previous = PreviousRecords::Fetch;
            }
        }
        self.in_flight = Some(InFlight { members });
        Some(HistoryRequest {
            from,
            to: self.revision,
            previous,
        })
    }

    /// Whether a watcher that is behind wants to hear of `key`. For a caller that reads history on the spot; one that
    /// answers later gives all keys.
    pub fn wants_history_of(&self, key: &[u8]) -> bool {
        self.behind.contains(key)
    }

    /// Takes in the requested piece. It may end early, and reaches no further than what was published here.
    pub fn feed_history(&mut self, slice: &HistorySlice) {
        assert!(
            slice.next_revision <= self.revision + 1,
            "what is published is published before it is history"
        );
        let Some(in_flight) = self.in_flight.take() else { return };
        self.tell_history(slice);
        for (key, serial) in in_flight.members {
            let Some(watcher) = self.watchers.get_mut(key).filter(|watcher| watcher.serial == serial) else {
                continue;
            };
            // Its queue was full: it is where it was, and stalled.
            if watcher.state != State::InFlight {
                continue;
            }
            watcher.next_revision = watcher.next_revision.max(slice.next_revision);
            match watcher.next_revision > self.revision {
                true => self.become_synced(key),
                false => self.wait(key),
            }
        }
    }

    /// Notes that the requested piece cannot be had: it was compacted, and [`WatchHub::compacted`] has been or will be
    /// called; or whoever was to read it is gone. It will be requested again for whoever still needs it.
    pub fn history_refused(&mut self) {
        self.in_flight_returned();
    }

    pub(super) fn in_flight_returned(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        for (key, serial) in in_flight.members {
            let is_here = self.watchers.get(key).is_some_and(|watcher| watcher.serial == serial);
            if is_here && self.watchers[key].state == State::InFlight {
                self.wait(key);
            }
        }
    }

    fn tell_history(&mut self, slice: &HistorySlice) {
        let told = slice.events.len() - usize::from(is_planted(Planted::EventDropped)).min(slice.events.len());
        for (number, event) in slice.events[..told].iter().enumerate() {
            self.behind.hit(&event.key, number as u32);
            if is_planted(Planted::EventTwice) {
                self.behind.hit(&event.key, number as u32);
            }
        }
        let (queue_limits, identity, revision) = (self.queue_limits(), self.identity, self.revision);
        let fragment_bytes = self.limits.fragment_bytes;
        while let Some((watchers, hits)) = self.behind.next_touched() {
            let first = slice.events[hits[0] as usize].revision.main;
            let mut bodies = Bodies::default();
            for &key in watchers {
                let watcher = &mut self.watchers[key];
                if watcher.state != State::InFlight {
                    continue;
                }
                // Watchers that want all of it share it, wherever below it they stand.
                let from_revision = match watcher.next_revision {
                    next if next <= first => 0,
                    next => next,
                };
                let body = bodies.body(&slice.events, &hits, watcher.variant(from_revision));
                if body.ends.is_empty() {
                    continue;
                }
                let stream = &mut self.streams[watcher.stream];
                if stream.has_room(body.bytes.len(), queue_limits) {
                    watcher.tell(stream, body, revision, &identity, fragment_bytes);
                    list(&mut self.listed, watcher.stream, stream);
                } else {
                    watcher.state = State::Stalled;
                    stream.stalled.push(key);
                }
            }
        }
    }
}
