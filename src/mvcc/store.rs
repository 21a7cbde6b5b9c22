//! The store: the index, the current revision, and the revision below which history is gone.
//!
//! Invariants: `compact_revision <= current_revision`; every revision in the index is at most `current_revision` outside
//! of a write transaction; a revision in the index has its record in the tree.

use std::{cell::Cell, collections::BTreeMap};

use super::{
    Compaction, HashJob, Hashes, Index, KeyState, PreviousRecords, RangeItem, RangeQuery, RangeResult, RangeScan,
    RecordSink, Records, Span, SpanEnd, WriteTxn,
};
use crate::base::Reject;

/// Keys, their histories, and the revisions that may be read.
pub struct Store {
    pub(super) index: Index,
    pub(super) current_revision: i64,
    pub(super) compact_revision: i64,
    /// Revisions that someone reads in slices, with the number of readers of each.
    pins: BTreeMap<i64, usize>,
    /// Hashes of finished compactions, for HashKV and the corruption check.
    pub hashes: Hashes,
    /// What was done since the store was opened.
    pub(super) totals: Totals,
}

/// What was done with a store since it was opened, as etcd counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys put.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Deletions of a key or a range of keys, of those that were there or not.
    pub deletes: u64,
    /// Ranges read, in transactions and without.
    pub ranges: Cell<u64>,
    /// Transactions of more than one operation.
    pub txns: u64,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// The revision of a store that nobody has written to.
    pub const FIRST_REVISION: i64 = 1;
    /// The compacted revision of a store that was never compacted.
    pub const NEVER_COMPACTED: i64 = -1;

    /// An empty store.
    pub fn new() -> Store {
        Store::assemble(Index::new(), Self::FIRST_REVISION, Self::NEVER_COMPACTED)
    }

    pub(super) fn assemble(index: Index, current_revision: i64, compact_revision: i64) -> Store {
        assert!(compact_revision <= current_revision);
        Store {
            index,
            current_revision,
            compact_revision,
            pins: BTreeMap::new(),
            hashes: Hashes::default(),
            totals: Totals::default(),
        }
    }

    /// Revision of the last write transaction that changed something; 1 before the first.
    pub fn current_revision(&self) -> i64 {
        self.current_revision
    }

    /// The compacted revision: what happened below it can no longer be read. -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// What was done since the store was opened.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn count_range(&self) {
        self.totals.ranges.set(self.totals.ranges.get() + 1);
    }

    /// The index, for reading.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Keys that exist at the current revision.
    pub fn live_keys(&self) -> u64 {
        self.index.live_keys()
    }

    /// What the key is at the current revision. `None` if it does not exist. Its record is at [`KeyState::modified`].
    pub fn latest(&self, key: &[u8]) -> Option<KeyState> {
        self.index.latest(key)
    }

    /// The revision that a request for `revision` reads at: the current one for 0 or less.
    ///
    /// Refuses with [`Reject::FutureRevision`] or [`Reject::Compacted`]. The compacted revision itself is readable.
    pub fn readable_revision(&self, revision: i64) -> Result<i64, Reject> {
        self.readable_revision_at(revision, self.current_revision)
    }

    pub(super) fn readable_revision_at(&self, revision: i64, current: i64) -> Result<i64, Reject> {
        if revision > current {
            return Err(Reject::FutureRevision);
        }
        let revision = if revision <= 0 { current } else { revision };
        if revision < self.compact_revision {
            return Err(Reject::Compacted);
        }
        Ok(revision)
    }

    /// Answers a range from the index. The result names records by revision; [`super::encode_range_response`] writes
    /// them out. `records` is looked at only to sort by value.
    ///
    /// For ranges that may be long see [`Store::range_begin`].
    pub fn range<R: Records + ?Sized>(&self, records: &R, query: &RangeQuery<'_>) -> Result<RangeResult, Reject> {
        self.range_at(records, query, self.current_revision)
    }

    pub(super) fn range_at<R: Records + ?Sized>(
        &self,
        records: &R,
        query: &RangeQuery<'_>,
        current: i64,
    ) -> Result<RangeResult, Reject> {
        self.count_range();
        if let Some(result) = self.range_of_one(query, current)? {
            return Ok(result);
        }
        let mut scan = self.range_begin_at(query, current)?;
        while !self.range_slice(&mut scan, usize::MAX) {}
        let mut sort = scan.into_sort();
        while !sort.slice(records, usize::MAX) {}
        Ok(sort.finish())
    }

    /// Answers a range of one key without a walk: most ranges are of this kind.
    fn range_of_one(&self, query: &RangeQuery<'_>, current: i64) -> Result<Option<RangeResult>, Reject> {
        if query.span.end != SpanEnd::Single || query.is_bounded() {
            return Ok(None);
        }
        let revision = self.readable_revision_at(query.revision, current)?;
        let state = self.index.at(query.span.start, revision);
        let item = state.filter(|_| !query.count_only).map(|state| RangeItem {
            modified: state.modified,
        });
        Ok(Some(RangeResult {
            revision: current,
            count: i64::from(state.is_some()),
            more: false,
            items: item.into_iter().collect(),
        }))
    }

    /// Begins a range that is walked in slices. Unless it is finished before the next write, the caller pins
    /// [`RangeScan::revision`] for as long as it reads.
    pub fn range_begin(&self, query: &RangeQuery<'_>) -> Result<RangeScan, Reject> {
        self.count_range();
        self.range_begin_at(query, self.current_revision)
    }

    fn range_begin_at(&self, query: &RangeQuery<'_>, current: i64) -> Result<RangeScan, Reject> {
        let revision = self.readable_revision_at(query.revision, current)?;
        Ok(RangeScan::new(query, revision, current))
    }

    /// Walks on over at most `keys_max` keys of the index; true when the walk is over.
    pub fn range_slice(&self, scan: &mut RangeScan, keys_max: usize) -> bool {
        scan.slice(&self.index, keys_max)
    }

    /// Begins a write transaction. It changes the store as it goes, so it must be carried to its [`WriteTxn::end`]
    /// before anything else is asked of the store.
    ///
    /// `previous` says whether events and outcomes shall carry the records that they replace.
    pub fn begin<'a, T: Records + RecordSink + ?Sized>(
        &'a mut self,
        tree: &'a mut T,
        previous: PreviousRecords,
    ) -> WriteTxn<'a, T> {
        WriteTxn::new(self, tree, previous)
    }

    /// Compacts: from now on nothing below `revision` can be read. The work that follows is in the answer, for the
    /// caller to carry out; see [`Compaction`]. The caller first writes [`super::encode_compaction_mark`] of `revision`
    /// under `scheduledCompactRev` and commits.
    ///
    /// `previous_finished` says whether the marks of the previous compaction are equal, that is, it was finished.
    ///
    /// Refuses with [`Reject::Compacted`] what is compacted already, and [`Reject::FutureRevision`] what is yet to come.
    pub fn compact(&mut self, revision: i64, previous_finished: bool) -> Result<Compaction, Reject> {
        if revision <= self.compact_revision {
            return Err(Reject::Compacted);
        }
        if revision > self.current_revision {
            return Err(Reject::FutureRevision);
        }
        let previous = self.compact_revision;
        self.compact_revision = revision;
        Ok(Compaction::new(revision, previous, previous_finished))
    }

    /// Carries a compaction on over at most `keys_max` keys of the index; true when the index is done and
    /// [`Compaction::into_physical`] may be called. Does nothing while a revision below is pinned. Writes may happen
    /// between the slices.
    pub fn compact_slice(&mut self, compaction: &mut Compaction, keys_max: usize) -> bool {
        if self.oldest_pin().is_some_and(|pinned| pinned < compaction.revision()) {
            return false;
        }
        compaction.slice(&mut self.index, keys_max)
    }

    /// Begins to compute HashKV at `revision` (0 for the current one); see [`HashJob`].
    ///
    /// Refuses as [`Store::readable_revision`] does.
    pub fn hash_begin(&self, revision: i64) -> Result<HashJob, Reject> {
        let revision = self.readable_revision(revision)?;
        Ok(HashJob::new(revision, self.compact_revision))
    }

    /// Walks on over at most `keys_max` keys of the index; true when [`HashJob::into_hasher`] may be called. A later
    /// compaction would take records away that count: the caller pins the revision until the hasher has read them, or
    /// lets it read a snapshot of the tree.
    pub fn hash_slice(&self, job: &mut HashJob, keys_max: usize) -> bool {
        job.slice(&self.index, keys_max)
    }

    /// Keeps the index as it is for readers at `revision`: compactions above it wait in [`Store::compact_slice`].
    /// Each pin is taken back with [`Store::unpin`].
    pub fn pin(&mut self, revision: i64) {
        *self.pins.entry(revision).or_insert(0) += 1;
    }

    /// Takes back one pin of `revision`.
    pub fn unpin(&mut self, revision: i64) {
        let readers = self
            .pins
            .get_mut(&revision)
            .expect("only pinned revisions are unpinned");
        *readers -= 1;
        if *readers == 0 {
            self.pins.remove(&revision);
        }
    }

    /// The lowest pinned revision.
    pub fn oldest_pin(&self) -> Option<i64> {
        self.pins.keys().next().copied()
    }

    /// Number of keys of a span at the current revision, in time logarithmic in the number of keys.
    pub fn count(&self, span: Span<'_>) -> u64 {
        self.index.count_live(span)
    }
}
