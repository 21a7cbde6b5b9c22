//! Compaction: forgetting what nobody may read any more, in steps that leave room for everything else.
//!
//! ```text
//!   request ─▶ Store::compact        reads below the revision are refused from here on
//!              scheduledCompactRev   written and committed: a crash from here on resumes the work
//!              Store::compact_slice  the index forgets, and notes which revisions stay     (where the index is)
//!              PhysicalCompaction    the records go, a batch and a commit at a time        (where the tree is)
//!              finishedCompactRev    written with the last batch
//! ```
//!
//! Which records go depends on the revision alone, so members that do it at different times end up with the same. The
//! pause between batches is the driver's.

use crate::base::planted::{Planted, is_planted};
use std::ops::ControlFlow;

use super::{
    Index, RecordSink, Records,
    hash::{KeepSet, KeyValueHash, KvHasher},
    index::Cursor,
};
use crate::base::Revision;

/// A compaction, up to the end of the index.
#[derive(Clone, Debug)]
pub struct Compaction {
    revision: i64,
    previous: i64,
    previous_finished: bool,
    cursor: Cursor,
    kept: Vec<Revision>,
}

impl Compaction {
    pub(super) fn new(revision: i64, previous: i64, previous_finished: bool) -> Compaction {
        Compaction {
            revision,
            previous,
            previous_finished,
            cursor: Cursor::Start,
            kept: Vec::new(),
        }
    }

    /// The revision that is compacted to.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn slice(&mut self, index: &mut Index, keys_max: usize) -> bool {
        index.compact_slice(self.revision, &mut self.cursor, keys_max, &mut self.kept);
        self.cursor == Cursor::End
    }

    /// The part that deletes records. It may be done on another thread.
    pub fn into_physical(self) -> PhysicalCompaction {
        assert_eq!(self.cursor, Cursor::End, "the index must be compacted first");
        let keep = KeepSet::new(self.kept);
        // The hash covers what came since the previous compaction in full, so it must see records before they go.
        let hasher = KvHasher::new(self.previous, self.revision, KeepSet::default(), !keep.is_empty());
        PhysicalCompaction {
            revision: self.revision,
            previous_finished: self.previous_finished,
            keep,
            hasher,
            next: Revision::default(),
            deleted: 0,
        }
    }
}

/// What a batch of deletions did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionStep {
    /// Records deleted in this batch.
    pub deleted: usize,
    /// Whether it was the last. Then [`encode_compaction_mark`] goes under `finishedCompactRev` in the same commit.
    pub is_finished: bool,
}

/// The deletion of records.
#[derive(Clone, Debug)]
pub struct PhysicalCompaction {
    revision: i64,
    previous_finished: bool,
    keep: KeepSet,
    hasher: KvHasher,
    next: Revision,
    deleted: u64,
}

impl PhysicalCompaction {
    /// The revision that is compacted to.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Records deleted so far.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Looks at the next `records_max` records at or below the revision and deletes those that are superseded. The
    /// caller commits after each step.
    pub fn step<T: Records + RecordSink + ?Sized>(&mut self, tree: &mut T, records_max: usize) -> CompactionStep {
        let (mut looked_at, mut doomed) = (0, Vec::new());
        tree.scan(self.next, &mut |revision, kind, record| {
            if revision.main > self.revision || looked_at == records_max {
                return ControlFlow::Break(());
            }
            looked_at += 1;
            self.next = Revision::new(revision.main, revision.sub + 1);
            let is_kept = self.keep.contains(revision) && !is_planted(Planted::CompactionGreedy);
            self.hasher.write(revision, kind, record, is_kept);
            if !is_kept {
                doomed.push((revision, kind));
            }
            ControlFlow::Continue(())
        });
        for (revision, kind) in &doomed {
            tree.delete_record(*revision, *kind);
        }
        self.deleted += doomed.len() as u64;
        CompactionStep {
            deleted: doomed.len(),
            is_finished: looked_at < records_max || is_planted(Planted::CompactionCutShort),
        }
    }

    /// The hash of the compacted history, for [`super::Hashes::store`]. `None` if the previous compaction was
    /// interrupted: the history between the two was then not seen in full.
    pub fn hash(&self) -> Option<KeyValueHash> {
        self.previous_finished.then(|| self.hasher.finish())
    }
}

/// The compactions that the meta bucket knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionMarks {
    /// `scheduledCompactRev`.
    pub scheduled: Option<i64>,
    /// `finishedCompactRev`.
    pub finished: Option<i64>,
}

impl CompactionMarks {
    /// Whether no compaction is under way.
    pub fn is_settled(&self) -> bool {
        self.scheduled == self.finished
    }
}

/// A revision as `scheduledCompactRev` and `finishedCompactRev` hold it.
pub fn encode_compaction_mark(revision: i64) -> [u8; Revision::ENCODED_LEN] {
    Revision::new(revision, 0).encode()
}

/// Reads [`encode_compaction_mark`]'s form.
pub fn decode_compaction_mark(mark: &[u8]) -> Option<i64> {
    let (revision, is_tombstone) = Revision::decode(mark)?;
    (!is_tombstone && revision.main >= 0).then_some(revision.main)
}
