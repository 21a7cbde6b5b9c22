//! HashKV: one number for the content of the `key` bucket up to a revision, equal on members that hold the same, whether
//! or not they have carried out their compactions.
//!
//! It is the CRC-32C of the bucket's name followed by key and value of each record. Left out are records that a
//! compaction is about to delete or has deleted: those at or below the compacted revision that are not the newest of
//! their key, and tombstones at the compacted revision, which older versions of etcd delete and newer ones keep.

use std::ops::ControlFlow;

use super::{
    Index, RecordKind, Records, Span,
    index::{Cursor, HistoryView},
};
use crate::base::Revision;

/// Hashes of compactions that are remembered (etcd's number).
pub const HASHES_KEPT_MAX: usize = 10;

/// A HashKV, and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueHash {
    /// The CRC.
    pub hash: u32,
    /// The compacted revision it was computed with; -1 if there was no compaction.
    pub compact_revision: i64,
    /// The last revision it covers.
    pub revision: i64,
}

/// Hashes of the last compactions, by revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    kept: Vec<KeyValueHash>,
}

impl Hashes {
    /// Remembers the hash of a finished compaction, and forgets the lowest revision when there are too many.
    pub fn store(&mut self, hash: KeyValueHash) {
        let place = self.kept.partition_point(|kept| kept.revision <= hash.revision);
        self.kept.insert(place, hash);
        if self.kept.len() > HASHES_KEPT_MAX {
            self.kept.remove(0);
        }
    }

    /// The remembered hash at exactly `revision`.
    pub fn at(&self, revision: i64) -> Option<KeyValueHash> {
        self.kept.iter().find(|kept| kept.revision == revision).copied()
    }

    /// All that are remembered, by ascending revision.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = KeyValueHash> {
        self.kept.iter().copied()
    }
}

/// Revisions that a compaction leaves, asked for in ascending order.
#[derive(Clone, Debug, Default)]
pub struct KeepSet {
    revisions: Vec<Revision>,
    position: usize,
    /// Sorted when it is first asked, by whoever asks: of a million keys that takes tens of milliseconds, which the core
    /// that has the index must not wait for.
    is_sorted: bool,
}

impl KeepSet {
    pub(super) fn new(revisions: Vec<Revision>) -> KeepSet {
        KeepSet {
            revisions,
            ..KeepSet::default()
        }
    }

    /// Whether `revision`, not below any asked for before, is in the set.
    pub fn contains(&mut self, revision: Revision) -> bool {
        if !self.is_sorted {
            self.revisions.sort_unstable();
            self.is_sorted = true;
        }
        while self.revisions.get(self.position).is_some_and(|kept| *kept < revision) {
            self.position += 1;
        }
        self.revisions.get(self.position) == Some(&revision)
    }

    /// Revisions in the set.
    pub fn len(&self) -> usize {
        self.revisions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }
}

/// The first part of HashKV, on the core that has the index: which revisions count. See [`super::Store::hash_begin`].
#[derive(Clone, Debug)]
pub struct HashJob {
    revision: i64,
    compact_revision: i64,
    cursor: Cursor,
    kept: Vec<Revision>,
    is_any_kept: bool,
}

impl HashJob {
    pub(super) fn new(revision: i64, compact_revision: i64) -> HashJob {
        HashJob {
            revision,
            compact_revision,
            cursor: Cursor::Start,
            kept: Vec::new(),
            is_any_kept: false,
        }
    }

    /// The revision that is hashed.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compacted revision that it is computed with. Records that a later compaction deletes count, so such a one
    /// must wait: see [`super::Store::pin`].
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    pub(super) fn slice(&mut self, index: &Index, keys_max: usize) -> bool {
        let from = match std::mem::replace(&mut self.cursor, Cursor::End) {
            Cursor::End => return true,
            Cursor::At(from) => from,
            Cursor::Start => Box::default(),
        };
        let mut visited = 0;
        index.walk(Span::all(), &from, |key, view| {
            if visited == keys_max {
                self.cursor = Cursor::At(key.into());
                return ControlFlow::Break(());
            }
            visited += 1;
            self.visit(view);
            ControlFlow::Continue(())
        });
        self.cursor == Cursor::End
    }

    fn visit(&mut self, view: HistoryView<'_>) {
        if let Some(revision) = view.keep(self.revision) {
            self.is_any_kept = true;
            // Only revisions at or below the compacted one are ever asked for.
            if revision.main <= self.compact_revision {
                self.kept.push(revision);
            }
        }
    }

    /// The second part, which reads the records and may do so on another thread.
    pub fn into_hasher(self) -> KvHasher {
        assert_eq!(self.cursor, Cursor::End, "the index must be walked to its end first");
        KvHasher::new(
            self.compact_revision,
            self.revision,
            KeepSet::new(self.kept),
            self.is_any_kept,
        )
    }
}

/// Computes a HashKV over the records in order.
#[derive(Clone, Debug)]
pub struct KvHasher {
    crc: u32,
    compact_revision: i64,
    revision: i64,
    keep: KeepSet,
    is_any_kept: bool,
    next: Revision,
}

impl KvHasher {
    /// A hasher up to `revision`. `is_any_kept` says whether a compaction at `revision` would keep anything at all: if
    /// not, then nothing is left out, a rule of etcd's.
    pub(super) fn new(compact_revision: i64, revision: i64, keep: KeepSet, is_any_kept: bool) -> KvHasher {
        KvHasher {
            crc: crc32c::crc32c(b"key"),
            compact_revision,
            revision,
            keep,
            is_any_kept,
            next: Revision::default(),
        }
    }

    /// Takes in at most `records_max` records; true when all are in.
    pub fn slice<R: Records + ?Sized>(&mut self, records: &R, records_max: usize) -> bool {
        let mut taken = 0;
        let mut is_done = true;
        records.scan(self.next, &mut |revision, kind, record| {
            if revision.main > self.revision {
                return ControlFlow::Break(());
            }
            if taken == records_max {
                is_done = false;
                self.next = revision;
                return ControlFlow::Break(());
            }
            taken += 1;
            let is_kept = revision.main > self.compact_revision || self.keep.contains(revision);
            self.write(revision, kind, record, is_kept);
            ControlFlow::Continue(())
        });
        is_done
    }

    /// Takes in one record, unless it does not count. `is_kept` says of a record at or below the compacted revision
    /// whether compaction leaves it.
    pub(super) fn write(&mut self, revision: Revision, kind: RecordKind, record: &[u8], is_kept: bool) {
        if revision.main > self.revision {
            return;
        }
        if revision.main <= self.compact_revision && self.is_any_kept && !is_kept {
            return;
        }
        if revision.main == self.compact_revision && kind == RecordKind::Tombstone {
            return;
        }
        self.crc = crc32c::crc32c_append(self.crc, &revision.encode());
        if kind == RecordKind::Tombstone {
            self.crc = crc32c::crc32c_append(self.crc, b"t");
        }
        self.crc = crc32c::crc32c_append(self.crc, record);
    }

    /// The hash of what was taken in.
    pub fn finish(&self) -> KeyValueHash {
        KeyValueHash {
            hash: self.crc,
            compact_revision: self.compact_revision,
            revision: self.revision,
        }
    }
}
