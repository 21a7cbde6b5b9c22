//! The store from what the tree holds: the `key` bucket is read once, in order.

use crate::base::planted::{Planted, is_planted};
use std::fmt;

use bytes::Bytes;

use super::{Compaction, CompactionMarks, Index, Record, Store, gathered::Gathered, index::Found};
use crate::base::{LeaseId, Revision};

/// Leased puts remembered before those that were overwritten meanwhile are sorted out.
const ATTACHMENTS_SIFTED_AT: usize = 64 * 1024;

/// Why the bucket cannot be a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// A key that is no revision.
    Key(Vec<u8>),
    /// A key that is not above the one before.
    Order(Revision),
    /// A value that is no key-value, or not the one of a put or of a tombstone.
    Record(Revision),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Key(key) => write!(f, "the key bucket has a key that is no revision: {key:02x?}"),
            RestoreError::Order(revision) => {
                write!(f, "revision {}.{} is out of order", revision.main, revision.sub)
            }
            RestoreError::Record(revision) => {
                write!(
                    f,
                    "the record at revision {}.{} is damaged",
                    revision.main, revision.sub
                )
            }
        }
    }
}

impl std::error::Error for RestoreError {}

/// A store that is being rebuilt.
pub struct Restore {
    index: Index,
    gathered: Gathered,
    marks: CompactionMarks,
    last: Revision,
    attached: Vec<Attached>,
    sift_at: usize,
}

struct Attached {
    key: Bytes,
    lease: LeaseId,
    revision: Revision,
}

/// A rebuilt store, and what is to be done with it.
pub struct Restored {
    /// The store.
    pub store: Store,
    /// Keys and the leases they are attached to, in the order of the puts that did so.
    pub attachments: Vec<(Bytes, LeaseId)>,
    /// A compaction that was interrupted, for the caller to carry on. The store counts as compacted to it, as it did before:
    /// what the log says next must find the same state.
    pub resumed: Option<Compaction>,
}

impl Restore {
    /// Begins with the marks of the meta bucket.
    pub fn new(marks: CompactionMarks) -> Restore {
        Restore {
            index: Index::new(),
            gathered: Gathered::default(),
            marks,
            last: Revision::default(),
            attached: Vec::new(),
            sift_at: ATTACHMENTS_SIFTED_AT,
        }
    }

    /// Takes the next entry of the `key` bucket.
    pub fn feed(&mut self, bucket_key: &[u8], record: &[u8]) -> Result<(), RestoreError> {
        let Some((revision, is_tombstone)) = Revision::decode(bucket_key) else {
            return Err(RestoreError::Key(bucket_key.to_vec()));
        };
        if revision.main <= 0 || revision.sub < 0 || revision.sub > i64::from(u32::MAX) || revision <= self.last {
            return Err(RestoreError::Order(revision));
        }
        self.last = revision;
        let decoded = Record::decode(record).ok_or(RestoreError::Record(revision))?;
        if decoded.key.is_empty() && decoded.version == 0 && !is_tombstone {
            // etcdutl raises the revision of a restored snapshot by writing an empty record. No request can name its key,
            // but compaction and HashKV treat it as a put, so it is in the index.
            let found = Found::Put {
                create_revision: revision.main,
                version: 1,
            };
            self.gathered.push(&mut self.index, decoded.key, revision, found);
            return Ok(());
        }
        if is_tombstone {
            self.gathered
                .push(&mut self.index, decoded.key, revision, Found::Tombstone);
            return Ok(());
        }
        if decoded.version <= 0 || decoded.create_revision <= 0 || decoded.create_revision > revision.main {
            return Err(RestoreError::Record(revision));
        }
        let found = Found::Put {
            create_revision: decoded.create_revision,
            version: decoded.version,
        };
        self.gathered.push(&mut self.index, decoded.key, revision, found);
        if decoded.lease != LeaseId(0) && !is_planted(Planted::AttachmentsForgotten) {
            self.attach(decoded.key, decoded.lease, revision);
        }
        Ok(())
    }

    /// Whether a put is still its key's newest change is known only later, so all are noted and sifted now and then.
    fn attach(&mut self, key: &[u8], lease: LeaseId, revision: Revision) {
        self.attached.push(Attached {
            key: Bytes::copy_from_slice(key),
            lease,
            revision,
        });
        if self.attached.len() >= self.sift_at {
            self.sift();
            self.sift_at = ATTACHMENTS_SIFTED_AT.max(self.attached.len() * 2);
        }
    }

    fn sift(&mut self) {
        self.gathered.settle(&mut self.index);
        let index = &self.index;
        self.attached.retain(|attached| {
            index
                .latest(&attached.key)
                .is_some_and(|state| state.modified == attached.revision)
        });
    }

    /// The store.
    pub fn finish(mut self) -> Restored {
        self.sift();
        let compact_revision = self.marks.finished.unwrap_or(Store::NEVER_COMPACTED);
        // The newest records may all have been compacted away: a tombstone is not kept beyond its own revision.
        let current_revision = [Store::FIRST_REVISION, self.last.main, compact_revision]
            .into_iter()
            .chain(self.marks.scheduled)
            .fold(0, i64::max);
        let mut store = Store::assemble(self.index, current_revision, compact_revision);
        let is_left = |scheduled: &i64| *scheduled > compact_revision.max(0);
        let resumed = self.marks.scheduled.filter(is_left).map(|revision| {
            store
                .compact(revision, false)
                .expect("it is between what is compacted and what is current")
        });
        Restored {
            store,
            attachments: self
                .attached
                .into_iter()
                .map(|attached| (attached.key, attached.lease))
                .collect(),
            resumed,
        }
    }
}

/// Feeds arbitrary entries: each is taken or refused, and the store that results is sound.
pub(crate) fn fuzz_restore(input: &[u8]) {
    let mut restore = Restore::new(CompactionMarks::default());
    for (number, record) in input.split(|byte| *byte == b'|').enumerate() {
        let mut bucket_key = Revision::new(2 + number as i64 / 2, number as i64 % 2)
            .encode()
            .to_vec();
        if let [first, place, ..] = record
            && first % 5 == 0
        {
            let place = usize::from(*place) % bucket_key.len();
            bucket_key[place] ^= first;
        }
        if record.first().is_some_and(|first| first % 3 == 0) {
            bucket_key.push(b't');
        }
        _ = restore.feed(&bucket_key, record);
    }
    let restored = restore.finish();
    #[cfg(any(test, feature = "verify"))]
    restored.store.index().verify();
    assert!(restored.attachments.len() as u64 <= restored.store.live_keys());
}
