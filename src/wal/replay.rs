//! A log read back: what raft restarts from, and where appending continues.
//!
//! Later entries replace earlier ones of the same index and all behind them, as raft's leader had it. Results are those
//! of etcd's `ReadAll` and `ValidSnapshotEntries`.

use std::path::PathBuf;

use raft::eraftpb::{Entry, HardState};

use super::{
    WalFault, WalSnapshot, codec,
    decoder::{LogDecoder, Next, Record, RecordSink},
    encoder::Tail,
    record::RecordKind,
    segment::SegmentName,
};
use crate::base::LogIndex;

/// What a log says from a snapshot on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Content of the metadata records (a marshalled `walpb::Metadata`).
    pub metadata: Vec<u8>,
    /// The last hard state; default if there is none.
    pub hard_state: HardState,
    /// Entries behind the snapshot, in order and without gaps.
    pub entries: Vec<Entry>,
    /// Whether a torn tail was cut off.
    pub repaired: bool,
}

/// Takes a log's records from a snapshot on.
#[derive(Debug)]
pub struct Replayer {
    from: WalSnapshot,
    is_snapshot_found: bool,
    metadata: Option<Vec<u8>>,
    hard_state: HardState,
    entries: Vec<Entry>,
    last_index: LogIndex,
}

impl Replayer {
    /// Reads behind `from`.
    pub fn new(from: &WalSnapshot) -> Replayer {
        Replayer {
            from: from.clone(),
            is_snapshot_found: false,
            metadata: None,
            hard_state: HardState::default(),
            entries: Vec::new(),
            last_index: LogIndex(0),
        }
    }

    /// The result, when all segments have been walked; `segment` is the last one.
    pub fn finish(self, decoder: &LogDecoder, segment: SegmentName) -> Result<(Replay, Tail), WalFault> {
        if !self.is_snapshot_found {
            return Err(WalFault::SnapshotNotFound);
        }
        let metadata = self.metadata.unwrap_or_default();
        let tail = Tail {
            segment,
            position: decoder.offset(),
            crc: decoder.crc(),
            metadata: metadata.clone(),
            hard_state: self.hard_state.clone(),
            last_index: self.last_index,
        };
        let replay = Replay {
            metadata,
            hard_state: self.hard_state,
            entries: self.entries,
            repaired: false,
        };
        Ok((replay, tail))
    }

    fn take_entry(&mut self, entry: Entry, decoder: &LogDecoder) -> Result<(), WalFault> {
        self.last_index = LogIndex(entry.index);
        let Some(ahead) = entry.index.checked_sub(self.from.index.0).filter(|ahead| *ahead > 0) else {
            return Ok(());
        };
        let kept = usize::try_from(ahead - 1).unwrap_or(usize::MAX);
        if kept > self.entries.len() {
            return Err(WalFault::SliceOutOfRange(decoder.position()));
        }
        self.entries.truncate(kept);
        self.entries.push(entry);
        Ok(())
    }

    fn take_snapshot(&mut self, snapshot: &WalSnapshot, decoder: &LogDecoder) -> Result<(), WalFault> {
        // etcd leaves the snapshot out here. But a segment that is begun next would then be named by an index below the
        // snapshot's, and a reader behind the snapshot would start there, past the record that it looks for.
        self.last_index = self.last_index.max(snapshot.index);
        if snapshot.index == self.from.index {
            if snapshot.term != self.from.term {
                return Err(WalFault::SnapshotMismatch(decoder.position()));
            }
            self.is_snapshot_found = true;
        }
        Ok(())
    }
}

impl RecordSink for Replayer {
    fn take(&mut self, record: Record<'_>, decoder: &LogDecoder) -> Result<(), WalFault> {
        let malformed = |what| WalFault::BadRecord {
            at: decoder.position(),
            what,
        };
        match record.kind {
            RecordKind::Entry => {
                let entry = codec::entry_from(record.data).map_err(|_| malformed("not an entry"))?;
                self.take_entry(entry, decoder)?;
            }
            RecordKind::HardState => {
                self.hard_state = codec::hard_state_from(record.data).map_err(|_| malformed("not a hard state"))?;
            }
            RecordKind::Metadata => match &self.metadata {
                Some(metadata) if metadata != record.data => {
                    return Err(WalFault::MetadataConflict(decoder.position()));
                }
                Some(_) => {}
                None => self.metadata = Some(record.data.to_vec()),
            },
            RecordKind::Snapshot => {
                let snapshot = codec::wal_snapshot_from(record.data).map_err(|_| malformed("not a snapshot"))?;
                self.take_snapshot(&snapshot, decoder)?;
            }
            RecordKind::Crc => {}
        }
        Ok(())
    }
}

/// Takes only what says which snapshots count.
#[derive(Debug, Default)]
pub struct SnapshotScan {
    snapshots: Vec<WalSnapshot>,
    commit: LogIndex,
}

impl SnapshotScan {
    /// The snapshots in the log's order, less those beyond the commit index: their record is durable but raft's
    /// knowledge of them is not.
    pub fn finish(mut self) -> Vec<WalSnapshot> {
        self.snapshots.retain(|snapshot| snapshot.index <= self.commit);
        self.snapshots
    }
}

impl RecordSink for SnapshotScan {
    fn take(&mut self, record: Record<'_>, decoder: &LogDecoder) -> Result<(), WalFault> {
        let malformed = |what| WalFault::BadRecord {
            at: decoder.position(),
            what,
        };
        match record.kind {
            RecordKind::Snapshot => {
                let snapshot = codec::wal_snapshot_from(record.data).map_err(|_| malformed("not a snapshot"))?;
                self.snapshots.push(snapshot);
            }
            RecordKind::HardState => {
                let hard_state = codec::hard_state_from(record.data).map_err(|_| malformed("not a hard state"))?;
                self.commit = LogIndex(hard_state.commit);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Walks whole segments that are at hand.
pub fn walk(
    segments: &[(SegmentName, &[u8])],
    decoder: &mut LogDecoder,
    sink: &mut impl RecordSink,
) -> Result<(), WalFault> {
    for (place, (name, bytes)) in segments.iter().enumerate() {
        decoder.begin_segment(name.to_string(), bytes.len() as u64, place + 1 == segments.len());
        let (_, next) = decoder.feed(bytes, sink)?;
        assert_eq!(next, Next::EndOfSegment, "the whole segment is at hand");
    }
    Ok(())
}

/// Reads whole segments that are at hand, as [`super::Wal::open`] does from files, but repairs nothing.
pub fn replay(segments: &[(SegmentName, &[u8])], from: &WalSnapshot) -> Result<(Replay, Tail), WalFault> {
    let (last, _) = segments.last().ok_or_else(|| WalFault::FileNotFound {
        directory: PathBuf::new(),
        snapshot_index: from.index,
    })?;
    let mut decoder = LogDecoder::new();
    let mut replayer = Replayer::new(from);
    walk(segments, &mut decoder, &mut replayer)?;
    replayer.finish(&decoder, *last)
}

/// Reads any bytes as a log's only segment. Whatever they are, this returns, and does not need more memory than a small
/// multiple of them.
#[doc(hidden)]
pub fn fuzz_replay(bytes: &[u8]) {
    let segments = [(SegmentName::FIRST, bytes)];
    if let Ok((replay, tail)) = replay(&segments, &WalSnapshot::default()) {
        assert!(tail.position <= bytes.len() as u64);
        assert!(replay.entries.len() <= bytes.len() / 8);
        for (place, entry) in replay.entries.iter().enumerate() {
            assert_eq!(entry.index, place as u64 + 1);
        }
    }
    let mut scan = SnapshotScan::default();
    if walk(&segments, &mut LogDecoder::new(), &mut scan).is_ok() {
        scan.finish();
    }
}
