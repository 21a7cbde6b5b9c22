//! mvcc's long work as jobs of the store: HashKV and the second part of a compaction, in slices over the committed tree.

use std::{ops::ControlFlow, time::Duration};

use bytes::Bytes;

use crate::{
    backend::{Batch, Bucket, Fault, Pin, Progress, StoreJob},
    base::Revision,
    host::Map,
    mvcc::{KeyValueHash, KvHasher, PhysicalCompaction, RecordKind, RecordSink, Records, encode_compaction_mark},
};

/// Records that one slice reads.
const HASH_RECORDS_PER_SLICE: usize = 1000;

/// How a compaction makes room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPace {
    /// Records that one slice looks at (`--compaction-batch-limit`); more than zero.
    pub slice_records: usize,
    /// The pause after it (`--compaction-sleep-interval`).
    pub pause: Duration,
}

/// The `key` bucket of a committed tree.
struct TreeRecords<'a, M: Map> {
    root: &'a Pin<M>,
    changes: Option<&'a mut Batch>,
    fault: std::cell::Cell<Option<Fault>>,
}

impl<M: Map> Records for TreeRecords<'_, M> {
    fn record(&self, revision: Revision) -> Option<&[u8]> {
        self.root.get(Bucket::Key, &revision.encode()).unwrap_or_else(|fault| {
            self.fault.set(Some(fault));
            None
        })
    }

    fn scan(&self, from: Revision, visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {
        let mut cursor = self.root.cursor(Bucket::Key);
        let mut next = cursor.seek_key(&from.encode());
        loop {
            match next {
                Ok(None) => return,
                Ok(Some((key, record))) => {
                    let Some((revision, is_tombstone)) = Revision::decode(key) else {
                        return;
                    };
                    let kind = if is_tombstone {
                        RecordKind::Tombstone
                    } else {
                        RecordKind::Put
                    };
                    if visit(revision, kind, record).is_break() {
                        return;
                    }
                }
                Err(fault) => {
                    self.fault.set(Some(fault));
                    return;
                }
            }
            next = cursor.step();
        }
    }
}

impl<M: Map> RecordSink for TreeRecords<'_, M> {
    fn put_record(&mut self, _revision: Revision, _kind: RecordKind, _record: Bytes) {
        unreachable!("the store's jobs only delete records");
    }

    fn delete_record(&mut self, revision: Revision, kind: RecordKind) {
        let changes = self.changes.as_mut().expect("a compaction has changes");
        let key = revision.encode();
        match kind {
            RecordKind::Put => changes.delete(Bucket::Key, &key[..]),
            RecordKind::Tombstone => {
                let mut tombstone = [b't'; Revision::ENCODED_LEN + 1];
                tombstone[..Revision::ENCODED_LEN].copy_from_slice(&key);
                changes.delete(Bucket::Key, &tombstone[..]);
            }
        }
    }
}

/// HashKV over the tree as of the job's first slice.
pub struct HashKvJob<M: Map> {
    hasher: KvHasher,
    root: Option<Pin<M>>,
}

impl<M: Map> HashKvJob<M> {
    /// A job whose result is a [`KeyValueHash`].
    pub fn new(hasher: KvHasher) -> HashKvJob<M> {
        HashKvJob { hasher, root: None }
    }
}

impl<M: Map> StoreJob<M> for HashKvJob<M> {
    fn step(&mut self, root: &Pin<M>, _changes: &mut Batch) -> Result<Progress, Fault> {
        let root = self.root.get_or_insert_with(|| root.clone());
        let records = TreeRecords {
            root,
            changes: None,
            fault: Default::default(),
        };
        let is_done = self.hasher.slice(&records, HASH_RECORDS_PER_SLICE);
        if let Some(fault) = records.fault.take() {
            return Err(fault);
        }
        let hash: KeyValueHash = self.hasher.finish();
        Ok(if is_done {
            Progress::Done(Box::new(hash))
        } else {
            Progress::More
        })
    }
}

/// What a compaction came to.
pub struct CompactionOutcome {
    /// The revision compacted to; `None` for a job that only waited its turn.
    pub revision: Option<i64>,
    /// Records deleted.
    pub deleted: u64,
    /// The hash of the compacted history, if it was seen in full.
    pub hash: Option<KeyValueHash>,
}

/// The second part of a compaction: deletes superseded records, then marks it as finished.
pub struct CompactionJob {
    physical: Option<PhysicalCompaction>,
    pace: CompactionPace,
}

impl CompactionJob {
    /// A job whose result is a [`CompactionOutcome`].
    pub fn new(physical: Option<PhysicalCompaction>, pace: CompactionPace) -> CompactionJob {
        CompactionJob { physical, pace }
    }
}

impl<M: Map> StoreJob<M> for CompactionJob {
    fn step(&mut self, root: &Pin<M>, changes: &mut Batch) -> Result<Progress, Fault> {
        let Some(physical) = &mut self.physical else {
            let outcome = CompactionOutcome {
                revision: None,
                deleted: 0,
                hash: None,
            };
            return Ok(Progress::Done(Box::new(outcome)));
        };
        let mut tree = TreeRecords {
            root,
            changes: Some(changes),
            fault: Default::default(),
        };
        let step = physical.step(&mut tree, self.pace.slice_records);
        if let Some(fault) = tree.fault.take() {
            return Err(fault);
        }
        if !step.is_finished {
            return Ok(Progress::Pause(self.pace.pause));
        }
        let mark = encode_compaction_mark(physical.revision());
        changes.put(Bucket::Meta, &b"finishedCompactRev"[..], Bytes::copy_from_slice(&mark));
        let outcome = CompactionOutcome {
            revision: Some(physical.revision()),
            deleted: physical.deleted(),
            hash: physical.hash(),
        };
        Ok(Progress::Done(Box::new(outcome)))
    }
}
