//! Gathers records into the batch that is written next. Knows no file: it says where a batch goes and what it is.
//!
//! A batch starts on a fresh 4 KiB block and ends with its last one, the gap closed with filler: a durable block is never
//! written again, so a torn write can only damage what nobody was promised.
//!
//! There is one exception. A log that etcd left (or that was repaired) ends in mid-block. The first batch after `resume`
//! then begins with that block and repeats its bytes: whatever part of such a write reaches the disk, the repeated bytes
//! are what they were. etcd takes the same risk with every write.
//!
//! When a batch is begun behind `cut_at`, it begins a new segment: checksum, metadata and hard state stand at
//! its head, as etcd writes them. The margin before the segment's full size keeps ordinary batches within what was
//! allocated and zeroed ahead, so that their sync changes no metadata of the file; a larger batch lets the segment grow.

use crate::base::planted::{Planted, is_planted};
use raft::eraftpb::{Entry, HardState};

use super::{
    WalSnapshot, codec,
    record::{self, FILLER_BYTES_MIN, RecordKind},
    segment::SegmentName,
};
use crate::{
    base::LogIndex,
    host::DIRECT_ALIGN,
    limits::{WAL_CUT_MARGIN_BYTES, WAL_GATHER_KEPT_BYTES, WAL_SEGMENT_BYTES},
};

/// Gathers records while a write is in flight.
pub struct LogEncoder {
    metadata: Vec<u8>,
    segment: SegmentName,
    /// Where the gathering batch goes.
    offset: u64,
    cut_at: u64,
    gathered: Vec<u8>,
    /// Bytes at the start of `gathered` that are durable already.
    repeated_len: usize,
    begins_segment: bool,
    must_sync: bool,
    crc: u32,
    hard_state: HardState,
    last_index: LogIndex,
}

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

/// Where a log that was read back continues.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// The last segment.
    pub segment: SegmentName,
    /// Bytes of it that hold records.
    pub position: u64,
    /// The running checksum.
    pub crc: u32,
    /// Content of the metadata records.
    pub metadata: Vec<u8>,
    /// The last hard state.
    pub hard_state: HardState,
    /// Index of the last entry or snapshot.
    pub last_index: LogIndex,
}

impl LogEncoder {
    /// An encoder for a new log, with the first segment's head gathered: checksum 0, metadata, the empty snapshot.
    pub fn create(metadata: &[u8]) -> LogEncoder {
        let tail = Tail {
            segment: SegmentName::FIRST,
            position: 0,
            crc: 0,
            metadata: metadata.to_vec(),
            hard_state: HardState::default(),
            last_index: LogIndex(0),
        };
        let mut encoder = LogEncoder::resume(tail, &[]);
        encoder.begins_segment = true;
        encoder.put_segment_head();
        encoder.append_snapshot(&WalSnapshot::default());
        encoder
    }

    /// An encoder that continues a log. `block` is what the tail's last block holds before its position: as many bytes
    /// as the position lies behind a multiple of 4096.
    pub fn resume(tail: Tail, block: &[u8]) -> LogEncoder {
        assert_eq!(block.len() as u64, tail.position % BLOCK_BYTES);
        let mut gathered = block.to_vec();
        let misaligned = gathered.len() % 8;
        if misaligned != 0 {
            record::put_filler(&mut gathered, tail.crc, 32 - misaligned);
        }
        LogEncoder {
            metadata: tail.metadata,
            segment: tail.segment,
            offset: tail.position - block.len() as u64,
            cut_at: WAL_SEGMENT_BYTES - WAL_CUT_MARGIN_BYTES,
            repeated_len: gathered.len(),
            gathered,
            begins_segment: false,
            must_sync: false,
            crc: tail.crc,
            hard_state: tail.hard_state,
            last_index: tail.last_index,
        }
    }

    /// Bytes of a segment behind which the next batch begins another. For tests and tools; the default leaves
    /// [`WAL_CUT_MARGIN_BYTES`] of [`WAL_SEGMENT_BYTES`].
    pub fn set_cut_at(&mut self, cut_at: u64) {
        self.cut_at = cut_at;
    }

    /// Gathers entries and the hard state that goes with them (etcd's order: entries first). An empty hard state is
    /// nothing.
    pub fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) {
        let hard_state = hard_state.filter(|hard_state| !is_empty(hard_state));
        if entries.is_empty() && hard_state.is_none() {
            return;
        }
        self.begin_batch();
        for entry in entries {
            let head = codec::entry_head(entry);
            self.put(RecordKind::Entry, head.as_slice(), &entry.data);
        }
        if let Some(last) = entries.last() {
            self.must_sync = true;
            self.last_index = LogIndex(last.index);
        }
        if let Some(hard_state) = hard_state {
            self.must_sync |= hard_state.term != self.hard_state.term || hard_state.vote != self.hard_state.vote;
            self.hard_state = hard_state.clone();
            let bytes = codec::hard_state_bytes(hard_state);
            self.put(RecordKind::HardState, bytes.as_slice(), &[]);
        }
    }

    /// Gathers a snapshot's record. Its `.snap` file must be durable before.
    ///
    /// # Panics
    /// Without `conf_state` at an index above 0: etcd 3.5 refuses to write that.
    pub fn append_snapshot(&mut self, snapshot: &WalSnapshot) {
        assert!(snapshot.conf_state.is_some() || snapshot.index == LogIndex(0));
        self.begin_batch();
        self.must_sync = true;
        self.last_index = self.last_index.max(snapshot.index);
        self.put(RecordKind::Snapshot, &codec::wal_snapshot_bytes(snapshot), &[]);
    }

    /// Bytes gathered for the next batch (0: nothing to write).
    pub fn gathered_bytes(&self) -> usize {
        self.gathered.len() - self.repeated_len
    }

    /// Whether what is gathered must be durable before raft goes on; a new commit index alone may wait for company.
    pub fn must_sync(&self) -> bool {
        self.must_sync
    }

    /// Index of the last entry or snapshot appended.
    pub fn last_index(&self) -> LogIndex {
        self.last_index
    }

    /// The segment to which the gathering batch goes.
    pub fn segment(&self) -> SegmentName {
        self.segment
    }

    /// Closes what has gathered into a batch and begins the next; `None` when nothing has gathered. `allocate` is given
    /// the exact length and returns zeroed memory (`Wal::buffer`).
    pub fn seal<B: AsMut<[u8]>>(&mut self, allocate: impl FnOnce(usize) -> B) -> Option<Batch<B>> {
        let record_bytes = self.gathered_bytes() as u64;
        if record_bytes == 0 {
            return None;
        }
        let gap = filler_len(self.gathered.len());
        if gap > 0 {
            record::put_filler(&mut self.gathered, self.crc, gap);
        }
        let len = self.gathered.len();
        let mut bytes = allocate(len);
        // The filler's zeros need no copying into zeroed memory, but telling them apart costs more than copying.
        bytes.as_mut().copy_from_slice(&self.gathered);
        let batch = Batch {
            offset: self.offset,
            bytes,
            begins: self.begins_segment.then_some(self.segment),
            record_bytes,
            must_sync: self.must_sync,
        };
        assert!(batch.offset.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(DIRECT_ALIGN));
        assert!(batch.begins.is_none() || batch.offset == 0);
        self.offset += len as u64;
        self.gathered.clear();
        self.gathered.shrink_to(WAL_GATHER_KEPT_BYTES);
        self.repeated_len = 0;
        self.begins_segment = false;
        self.must_sync = false;
        Some(batch)
    }

    /// Before a batch's first record: decides whether it begins a segment.
    fn begin_batch(&mut self) {
        if self.gathered_bytes() > 0 || self.offset < self.cut_at {
            return;
        }
        self.gathered.clear();
        self.repeated_len = 0;
        self.begins_segment = true;
        self.offset = 0;
        self.segment = SegmentName {
            sequence: self.segment.sequence + 1,
            first_index: LogIndex(self.last_index.0 + 1),
        };
        self.put_segment_head();
    }

    fn put_segment_head(&mut self) {
        if is_planted(Planted::ChecksumRestarted) {
            self.crc = 0;
        }
        record::put_crc(&mut self.gathered, self.crc);
        let metadata = std::mem::take(&mut self.metadata);
        self.put(RecordKind::Metadata, &metadata, &[]);
        self.metadata = metadata;
        if !is_empty(&self.hard_state) {
            let bytes = codec::hard_state_bytes(&self.hard_state);
            self.put(RecordKind::HardState, bytes.as_slice(), &[]);
        }
    }

    fn put(&mut self, kind: RecordKind, head: &[u8], tail: &[u8]) {
        record::put(&mut self.gathered, &mut self.crc, kind, head, tail);
    }
}

/// Whether raft has said nothing yet.
fn is_empty(hard_state: &HardState) -> bool {
    hard_state.term == 0 && hard_state.vote == 0 && hard_state.commit == 0
}

/// Bytes of filler that end the last block. A gap too small for any filler takes the next block with it.
fn filler_len(len: usize) -> usize {
    match len.next_multiple_of(DIRECT_ALIGN) - len {
        0 => 0,
        gap if gap < FILLER_BYTES_MIN => gap + DIRECT_ALIGN,
        gap => gap,
    }
}

pub(crate) const BLOCK_BYTES: u64 = DIRECT_ALIGN as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::ConfState;

    fn entry(index: u64, len: usize) -> Entry {
        let mut entry = Entry::default();
        (entry.index, entry.term, entry.data) = (index, 1, vec![7; len].into());
        entry
    }

    fn sealed(encoder: &mut LogEncoder) -> Batch<Vec<u8>> {
        encoder.seal(|len| vec![0; len]).expect("records have gathered")
    }

    #[test]
    fn every_batch_fills_whole_blocks_and_follows_the_one_before() {
        let mut encoder = LogEncoder::create(b"whose");
        let head = sealed(&mut encoder);
        assert_eq!(
            (head.offset, head.begins, head.bytes.len()),
            (0, Some(SegmentName::FIRST), 4096)
        );
        assert!(encoder.seal(|len| vec![0; len]).is_none());
        let mut offset = 4096;
        for len in 0..5000 {
            encoder.append(&[entry(len + 1, len as usize)], None);
            let batch = sealed(&mut encoder);
            assert_eq!(
                (batch.offset, batch.bytes.len() % 4096, batch.begins),
                (offset, 0, None)
            );
            assert!(batch.bytes.len() as u64 - batch.record_bytes <= 4096 + 8);
            offset += batch.bytes.len() as u64;
        }
    }

    #[test]
    fn a_new_commit_index_alone_need_not_be_synced() {
        let mut encoder = LogEncoder::create(b"");
        sealed(&mut encoder);
        encoder.append(&[], Some(&HardState::default()));
        assert_eq!(encoder.gathered_bytes(), 0);
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.vote) = (1, 2);
        encoder.append(&[], Some(&hard_state));
        assert!(sealed(&mut encoder).must_sync);
        hard_state.commit = 9;
        encoder.append(&[], Some(&hard_state));
        assert!(!encoder.must_sync());
        assert!(!sealed(&mut encoder).must_sync);
        for change in [
            |state: &mut HardState| state.vote = 3,
            |state: &mut HardState| state.term = 2,
        ] {
            change(&mut hard_state);
            encoder.append(&[], Some(&hard_state));
            assert!(sealed(&mut encoder).must_sync);
        }
    }

    #[test]
    fn a_segment_is_named_by_the_entry_that_comes_next() {
        let mut encoder = LogEncoder::create(b"");
        encoder.set_cut_at(8192);
        encoder.append(&[entry(1, 10)], None);
        assert_eq!(sealed(&mut encoder).begins, Some(SegmentName::FIRST));
        encoder.append(&[entry(2, 10)], None);
        assert_eq!(sealed(&mut encoder).offset, 4096);
        let snapshot = WalSnapshot {
            index: LogIndex(40),
            conf_state: Some(ConfState::default()),
            ..WalSnapshot::default()
        };
        encoder.append_snapshot(&snapshot);
        let batch = sealed(&mut encoder);
        let second = SegmentName {
            sequence: 1,
            first_index: LogIndex(3),
        };
        assert_eq!((batch.begins, batch.offset), (Some(second), 0));
        encoder.append(&[entry(41, 5000)], None);
        assert_eq!(sealed(&mut encoder).begins, None);
        encoder.append(&[entry(42, 1)], None);
        assert_eq!(
            sealed(&mut encoder).begins.map(|name| name.first_index),
            Some(LogIndex(42))
        );
    }

    #[test]
    fn resuming_in_mid_block_repeats_what_the_block_holds() {
        let mut tail = Tail {
            segment: SegmentName::FIRST,
            position: 4096 + 40,
            crc: 17,
            metadata: Vec::new(),
            hard_state: HardState::default(),
            last_index: LogIndex(3),
        };
        let mut encoder = LogEncoder::resume(tail.clone(), &[9; 40]);
        assert_eq!(encoder.gathered_bytes(), 0);
        encoder.append(&[entry(4, 10)], None);
        let batch = sealed(&mut encoder);
        assert_eq!((batch.offset, &batch.bytes[..40]), (4096, &[9; 40][..]));
        tail.position += 3;
        let mut encoder = LogEncoder::resume(tail, &[9; 43]);
        assert_eq!(encoder.gathered_bytes(), 0);
        encoder.append(&[entry(4, 10)], None);
        assert_eq!(sealed(&mut encoder).record_bytes % 8, 0);
    }
}
