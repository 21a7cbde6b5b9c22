//! What the threads of a run tell each other: when all are prepared, when the run began, how far it is, that it failed.
//! Counters only; nobody waits here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::base::Monotonic;

/// Shared by all threads of a run.
#[derive(Debug, Default)]
pub struct Control {
    threads: u32,
    prepared: AtomicU32,
    finished: AtomicU32,
    start: AtomicU64,
    aborted: AtomicBool,
    loaded: AtomicU64,
    ended: AtomicU64,
    events_expected: AtomicU64,
    events_seen: AtomicU64,
}

impl Control {
    /// For so many threads.
    pub fn new(threads: u32) -> Control {
        assert!(threads > 0);
        Control {
            threads,
            ..Control::default()
        }
    }

    /// A thread has prepared its part. The last one sets the start, a moment ahead of `now` so that all see it in time.
    pub fn prepared(&self, now: Monotonic) {
        if self.prepared.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.start.store(now.0 + START_AHEAD_NANOS, Ordering::Release);
        }
    }

    /// When the load starts, once that is known.
    pub fn start(&self) -> Option<Monotonic> {
        match self.start.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(Monotonic(nanos)),
        }
    }

    /// A thread has the answers to all its requests.
    pub fn finished(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all threads have.
    pub fn all_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.threads
    }

    /// The run has failed; the others are to stop.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// Whether it has.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Adds to what a progress bar shows: requests of the preparation, and measured ones.
    pub fn add_progress(&self, loaded: u64, ended: u64) {
        self.loaded.fetch_add(loaded, Ordering::Relaxed);
        self.ended.fetch_add(ended, Ordering::Relaxed);
    }

    /// Requests of the preparation, and measured ones, so far.
    pub fn progress(&self) -> (u64, u64) {
        (self.loaded.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }

    /// Adds events: those that acknowledged writes must lead to, and those that came.
    pub fn add_events(&self, expected: u64, seen: u64) {
        self.events_expected.fetch_add(expected, Ordering::AcqRel);
        self.events_seen.fetch_add(seen, Ordering::AcqRel);
    }

    /// Events expected, and seen.
    pub fn events(&self) -> (u64, u64) {
        let seen = self.events_seen.load(Ordering::Acquire);
        (self.events_expected.load(Ordering::Acquire), seen)
    }
}

const START_AHEAD_NANOS: u64 = 20_000_000;
