//! Keys, their histories and revisions: what a Put, a Range and a compaction mean, without the disk.
//!
//! Each change of a key is one immutable *record*, an encoded `mvccpb.KeyValue`, filed under the revision that wrote it.
//! The records live in a tree that this module does not own: it reads them through [`Records`] and writes them through
//! [`RecordSink`]. What it owns is the [`Index`], from keys to the revisions that changed them, and the two numbers that
//! bound what can be read: the current and the compacted revision.
//!
//! ```text
//!   Put ──▶ WriteTxn ──▶ Index: key ─▶ revisions          Range ──▶ Index ─▶ revisions ─▶ Records ─▶ response bytes
//!               │
//!               └──────▶ RecordSink: revision ─▶ record   ──▶ Events for the watchers
//! ```
//!
//! It knows nothing of leases beyond the number in a record, of users, of quotas, or of who waits for a change.

mod compaction;
mod event;
mod gathered;
mod hash;
mod history;
mod index;
mod list;
mod range;
mod record;
mod respond;
mod restore;
mod sort;
mod span;
mod store;
mod txn;

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod model;
#[cfg(test)]
mod scenarios;

pub use compaction::{
    Compaction, CompactionMarks, CompactionStep, PhysicalCompaction, decode_compaction_mark, encode_compaction_mark,
};
pub use event::{Event, EventKind};
pub use hash::{HASHES_KEPT_MAX, HashJob, Hashes, KeepSet, KeyValueHash, KvHasher};
pub use history::{HistoryLimits, HistorySlice, history_slice};
pub use index::{Index, KeyState};
pub use list::RangeList;
pub use range::{RangeItem, RangeQuery, RangeResult, RangeScan, SortOrder, SortTarget};
pub(crate) use record::fuzz_record;
pub use record::{Record, encode_put, encode_tombstone};
pub use respond::{
    RangeEncoder, encode_range_response, encode_range_response_within, key_value_field_len, put_key_value_field,
};
pub(crate) use restore::fuzz_restore;
pub use restore::{Restore, RestoreError, Restored};
pub use sort::RangeSort;
pub use span::{Span, SpanEnd};
pub use store::{Store, Totals};
pub use txn::{Commit, DeleteOutcome, Deleted, PreviousRecords, PutOutcome, WriteTxn};

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::base::Revision;

/// What a record is: the value of a key, or the mark of its deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A whole `mvccpb.KeyValue`.
    Put,
    /// A `mvccpb.KeyValue` with nothing but the key; its key in the bucket ends in `t`.
    Tombstone,
}

/// The `key` bucket for reading: every record written so far that no compaction has removed, whether or not the disk
/// has it yet.
pub trait Records {
    /// The put filed under `revision`. Tombstones are never asked for this way.
    fn record(&self, revision: Revision) -> Option<&[u8]>;

    /// As [`Records::record`], to keep. An implementation that holds the record as `Bytes` gives it without copying.
    fn record_bytes(&self, revision: Revision) -> Option<Bytes> {
        self.record(revision).map(Bytes::copy_from_slice)
    }

    /// Visits records from `from` on, in the order of their revisions, until the end or until `visit` breaks.
    #[allow(clippy::type_complexity)] // It is as complex as what it visits.
    fn scan(&self, from: Revision, visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>);
}

/// The `key` bucket for writing. What is written is seen by [`Records`] at once.
pub trait RecordSink {
    /// Files a record. `revision` is above every other that was filed.
    fn put_record(&mut self, revision: Revision, kind: RecordKind, record: Bytes);
    /// Removes a record that [`Records::scan`] gave.
    fn delete_record(&mut self, revision: Revision, kind: RecordKind);
}
