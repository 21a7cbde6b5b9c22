//! A queue of leases by time that forgives: an entry is not taken out when its lease moves, it is recognised as stale
//! when it comes up. A renewal thus touches nothing here. Stale entries are counted, and swept when they outnumber the
//! live ones, so the queue stays within twice its leases (plus a constant).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::{LeaseId, Monotonic};

#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(Monotonic, i64)>>,
    stale: usize,
}

/// Below this many stale entries sweeping is not worth a walk.
const STALE_MIN: usize = 1024;

impl Queue {
    pub(super) fn push(&mut self, at: Monotonic, id: LeaseId) {
        self.heap.push(Reverse((at, id.0)));
    }

    /// Fills an empty queue at once.
    pub(super) fn fill(&mut self, entries: Vec<(Monotonic, i64)>) {
        self.heap = entries.into_iter().map(Reverse).collect();
        self.stale = 0;
    }

    /// Takes the first entry that is due.
    pub(super) fn pop_due(&mut self, now: Monotonic) -> Option<(Monotonic, LeaseId)> {
        let Reverse((at, _)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        let Reverse((at, id)) = self.heap.pop()?;
        Some((at, LeaseId(id)))
    }

    pub(super) fn first(&self) -> Option<Monotonic> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// One more entry has become stale; sweeps when that makes too many.
    pub(super) fn note_stale(&mut self, is_live: impl Fn(Monotonic, LeaseId) -> bool) {
        self.stale += 1;
        if self.stale >= STALE_MIN && self.stale * 2 > self.heap.len() {
            self.heap.retain(|Reverse((at, id))| is_live(*at, LeaseId(*id)));
            self.stale = 0;
        }
    }

    /// A stale entry came up and is gone.
    pub(super) fn forget_stale(&mut self) {
        self.stale = self.stale.saturating_sub(1);
    }
}
