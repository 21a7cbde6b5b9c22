//! The tail of raft's log in memory: what has not been discarded behind a snapshot yet, durable or on its way to be.
//! raft-rs reads it as its storage; the file behind it is `wal`'s matter.
//!
//! ```text
//!   discarded │ first ........ last
//!   (index, term of the last discarded entry are kept for matching)
//! ```

use std::collections::VecDeque;

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};

use crate::base::{LogIndex, Term};

/// Entries by index, without gaps, and the hard state that goes with them.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    hard_state: HardState,
    conf_state: ConfState,
    discarded_index: u64,
    discarded_term: u64,
    /// The newest snapshot of this member's own; index 0 for none.
    snapshot: SnapshotMetadata,
    entries: VecDeque<Entry>,
    bytes: u64,
    discarded_bytes: u64,
}

/// Bytes of an entry here: a little more than its own framing.
fn bytes_of(entry: &Entry) -> u64 {
    entry.data.len() as u64 + 24
}

impl MemoryLog {
    /// The log behind a snapshot at `index` and `term` (0 and 0 for a new member), with what was replayed after it.
    ///
    /// # Panics
    /// If `entries` do not follow on `index` without gaps.
    pub fn new(
        index: LogIndex,
        term: Term,
        conf_state: ConfState,
        hard_state: HardState,
        entries: Vec<Entry>,
    ) -> MemoryLog {
        let snapshot = SnapshotMetadata {
            conf_state: Some(conf_state.clone()).into(),
            index: index.0,
            term: term.0,
            ..SnapshotMetadata::default()
        };
        let mut log = MemoryLog {
            hard_state,
            conf_state,
            snapshot,
            discarded_index: index.0,
            discarded_term: term.0,
            entries: VecDeque::with_capacity(entries.len()),
            bytes: 0,
            discarded_bytes: 0,
        };
        log.append(&entries);
        log
    }

    /// Index of the oldest entry that is still here.
    pub fn first(&self) -> LogIndex {
        LogIndex(self.discarded_index + 1)
    }

    /// Index of the newest entry; the last discarded one if none is left.
    pub fn last(&self) -> LogIndex {
        LogIndex(self.discarded_index + self.entries.len() as u64)
    }

    /// Adds entries; those that conflict with them, and all behind, go (raft section 5.3).
    ///
    /// # Panics
    /// If there would be a gap, or an entry was discarded already.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        assert!(
            first.index > self.discarded_index,
            "entry {} is behind the log's start",
            first.index
        );
        let kept = (first.index - self.discarded_index - 1) as usize;
        assert!(kept <= self.entries.len(), "gap before entry {}", first.index);
        self.bytes -= self.entries.range(kept..).map(bytes_of).sum::<u64>();
        self.entries.truncate(kept);
        self.bytes += entries.iter().map(bytes_of).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Bytes of the entries that are here.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of all entries so far, discarded ones with them: how far it has grown between two moments is their difference.
    pub fn grown_to(&self) -> u64 {
        self.discarded_bytes + self.bytes
    }

    /// Up to where entries go if at most `entries_max`, and at most `bytes_max` bytes of them, stay for slow followers
    /// of those up to `index`.
    pub fn catch_up_from(&self, index: LogIndex, entries_max: u64, bytes_max: u64) -> LogIndex {
        let (mut from, mut bytes) = (index.0, 0);
        while let Some(entry) = self.entry(from) {
            bytes += bytes_of(entry);
            if index.0 - from == entries_max || bytes > bytes_max {
                break;
            }
            from -= 1;
        }
        LogIndex(from)
    }

    /// What raft wants to be remembered of its term, vote and commit.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// A snapshot of this member's own is durable. A leader's newer one may have come in between.
    pub fn set_snapshot(&mut self, metadata: SnapshotMetadata) {
        assert!(metadata.index <= self.last().0);
        if metadata.index > self.snapshot.index {
            self.snapshot = metadata;
        }
    }

    /// Begins anew behind a leader's snapshot.
    pub fn restore(&mut self, metadata: &SnapshotMetadata) {
        self.entries.clear();
        self.discarded_bytes += std::mem::take(&mut self.bytes);
        self.discarded_index = metadata.index;
        self.discarded_term = metadata.term;
        self.conf_state = metadata.get_conf_state().clone();
        self.snapshot = metadata.clone();
    }

    /// Drops entries up to and including `index`, which a snapshot covers.
    pub fn discard_to(&mut self, index: LogIndex) {
        if index.0 <= self.discarded_index {
            return;
        }
        assert!(index <= self.last(), "cannot discard entries that are not here");
        let count = (index.0 - self.discarded_index) as usize;
        self.discarded_term = self.entries[count - 1].term;
        let bytes = self.entries.drain(..count).map(|entry| bytes_of(&entry)).sum::<u64>();
        self.bytes -= bytes;
        self.discarded_bytes += bytes;
        self.discarded_index = index.0;
        if self.entries.capacity() > 4 * self.entries.len() + 1024 {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        let position = index.checked_sub(self.discarded_index + 1)?;
        self.entries.get(position as usize)
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        bytes_max: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.discarded_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last().0 + 1,
            "entries up to {high} asked for, the last is {}",
            self.last()
        );
        let bytes_max = bytes_max.into().unwrap_or(u64::MAX);
        let start = (low - self.discarded_index - 1) as usize;
        let end = (high - self.discarded_index - 1) as usize;
        let mut bytes = 0u64;
        let mut chosen = Vec::with_capacity(end - start);
        for entry in self.entries.range(start..end) {
            // At least one entry is given however large it is.
            bytes += bytes_of(entry);
            if bytes > bytes_max && !chosen.is_empty() {
                break;
            }
            chosen.push(entry.clone());
        }
        Ok(chosen)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.discarded_index {
            return Ok(self.discarded_term);
        }
        if index < self.discarded_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match self.entry(index) {
            Some(entry) => Ok(entry.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first().0)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // It says where the driver's begins at least: what is sent is the state of the moment, with the tree's file.
        if self.snapshot.index == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(Snapshot {
            metadata: Some(self.snapshot.clone()).into(),
            ..Snapshot::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; 100].into(),
            ..Entry::default()
        }
    }

    fn log_of(range: std::ops::RangeInclusive<u64>) -> MemoryLog {
        let entries = range.map(|index| entry(index, 1)).collect();
        MemoryLog::new(
            LogIndex(0),
            Term(0),
            ConfState::default(),
            HardState::default(),
            entries,
        )
    }

    fn entries(log: &MemoryLog, low: u64, high: u64, bytes_max: u64) -> raft::Result<Vec<Entry>> {
        log.entries(low, high, bytes_max, GetEntriesContext::empty(false))
    }

    #[test]
    fn a_conflicting_entry_replaces_all_that_follow() {
        let mut log = log_of(1..=5);
        log.append(&[entry(3, 2)]);
        assert_eq!(log.last(), LogIndex(3));
        assert_eq!(log.term(3), Ok(2));
        assert_eq!(log.term(4), Err(raft::Error::Store(StorageError::Unavailable)));
    }

    #[test]
    fn discarded_entries_leave_their_last_term() {
        let mut log = log_of(1..=10);
        log.discard_to(LogIndex(7));
        log.discard_to(LogIndex(3));
        assert_eq!((log.first(), log.last()), (LogIndex(8), LogIndex(10)));
        assert_eq!(log.term(7), Ok(1));
        assert_eq!(log.term(6), Err(raft::Error::Store(StorageError::Compacted)));
        assert_eq!(
            entries(&log, 7, 9, u64::MAX),
            Err(raft::Error::Store(StorageError::Compacted))
        );
        log.discard_to(LogIndex(10));
        assert_eq!((log.first(), log.last()), (LogIndex(11), LogIndex(10)));
    }

    #[test]
    fn entries_are_limited_by_bytes_but_never_none() {
        let log = log_of(1..=10);
        assert_eq!(entries(&log, 1, 11, u64::MAX).unwrap().len(), 10);
        assert_eq!(entries(&log, 1, 11, 300).unwrap().len(), 2);
        assert_eq!(entries(&log, 4, 11, 1).unwrap()[0].index, 4);
    }

    #[test]
    fn bytes_are_those_of_what_is_here() {
        let mut log = log_of(1..=10);
        assert_eq!((log.bytes(), log.grown_to()), (1240, 1240));
        log.append(&[entry(9, 2)]);
        assert_eq!((log.bytes(), log.grown_to()), (9 * 124, 9 * 124));
        log.discard_to(LogIndex(4));
        assert_eq!((log.bytes(), log.grown_to()), (5 * 124, 9 * 124));
        log.restore(&SnapshotMetadata {
            index: 20,
            term: 3,
            ..SnapshotMetadata::default()
        });
        assert_eq!((log.bytes(), log.grown_to()), (0, 9 * 124));
    }

    #[test]
    fn followers_are_left_so_many_entries_and_so_many_bytes() {
        let mut log = log_of(1..=10);
        let from = |log: &MemoryLog, entries, bytes| log.catch_up_from(LogIndex(8), entries, bytes).0;
        assert_eq!(from(&log, 3, u64::MAX), 5);
        assert_eq!(from(&log, 100, 2 * 124), 6);
        assert_eq!(from(&log, 100, 1), 8);
        assert_eq!(from(&log, 0, u64::MAX), 8);
        assert_eq!(from(&log, 100, 8 * 124), 0);
        log.discard_to(LogIndex(3));
        assert_eq!(from(&log, 100, 8 * 124), 3);
    }

    #[test]
    #[should_panic(expected = "gap")]
    fn a_gap_is_a_bug() {
        log_of(1..=3).append(&[entry(5, 1)]);
    }
}
