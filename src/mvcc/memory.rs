//! The `key` bucket as a map in memory, for tests.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;

use super::{RecordKind, RecordSink, Records, Revision};

/// A tree that is never written to a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryRecords {
    pub records: BTreeMap<Revision, (RecordKind, Bytes)>,
}

impl Records for MemoryRecords {
    fn record(&self, revision: Revision) -> Option<&[u8]> {
        match self.records.get(&revision)? {
            (RecordKind::Put, record) => Some(record),
            (RecordKind::Tombstone, _) => None,
        }
    }

    fn record_bytes(&self, revision: Revision) -> Option<Bytes> {
        match self.records.get(&revision)? {
            (RecordKind::Put, record) => Some(record.clone()),
            (RecordKind::Tombstone, _) => None,
        }
    }

    fn scan(&self, from: Revision, visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {
        for (revision, (kind, record)) in self.records.range(from..) {
            if visit(*revision, *kind, record).is_break() {
                return;
            }
        }
    }
}

impl RecordSink for MemoryRecords {
    fn put_record(&mut self, revision: Revision, kind: RecordKind, record: Bytes) {
        let last = self.records.last_key_value().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < revision), "records are filed in order");
        self.records.insert(revision, (kind, record));
    }

    fn delete_record(&mut self, revision: Revision, kind: RecordKind) {
        let removed = self.records.remove(&revision);
        assert_eq!(
            removed.map(|(kind, _)| kind),
            Some(kind),
            "only what is there is deleted"
        );
    }
}
