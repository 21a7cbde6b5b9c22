//! (API; bodies follow.) Gathers records into the batch that is written next.
use raft::eraftpb::{Entry, HardState};

use super::{WalSnapshot, segment::SegmentName};

/// Gathers records while a write is in flight.
pub struct LogEncoder {}

/// One write: aligned, padded, chained.
pub struct Batch<B> {
    /// Where it goes, in bytes from the start of the segment; a multiple of 4096.
    pub offset: u64,
    /// What is written; its length is a multiple of 4096.
    pub bytes: B,
    /// The segment that this batch begins (its `offset` is 0), or none.
    pub begins: Option<SegmentName>,
    /// Bytes of records in it, without filler.
    pub record_bytes: u64,
    /// Whether it must be durable before raft goes on (entries, term, vote, snapshot); false if only the commit index
    /// changed.
    pub must_sync: bool,
}

impl LogEncoder {
    /// Gathers entries and the hard state that goes with them (etcd's order: entries first). An empty hard state is
    /// nothing.
    pub fn append(&mut self, _entries: &[Entry], _hard_state: Option<&HardState>) {
        todo!()
    }
    /// Gathers a snapshot's record. Its `.snap` file must be durable before.
    ///
    /// # Panics
    /// Without `conf_state` at an index above 0: etcd 3.5 refuses to write that.
    pub fn append_snapshot(&mut self, _snapshot: &WalSnapshot) {
        todo!()
    }
    /// Bytes gathered for the next batch (0: nothing to write).
    pub fn gathered_bytes(&self) -> usize {
        todo!()
    }
    /// Whether what is gathered must be durable before raft goes on; a new commit index alone may wait for company.
    pub fn must_sync(&self) -> bool {
        todo!()
    }
    /// Closes what has gathered into a batch and begins the next; `None` when nothing has gathered. `allocate` is given
    /// the exact length and returns zeroed memory (`Wal::buffer`).
    pub fn seal<B: AsMut<[u8]>>(&mut self, _allocate: impl FnOnce(usize) -> B) -> Option<Batch<B>> {
        todo!()
    }
}
