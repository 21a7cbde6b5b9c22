//! What the state machine needs of the tree: the `key` bucket through [`Records`] and [`RecordSink`], the small buckets
//! as keys and values, and how large the file is. What is written is seen by reads at once; when it becomes durable is
//! not known here, only that what stands in one batch is committed together.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::backend::{Backend, Bucket};
use crate::base::Revision;
use crate::host::Map;
use crate::mvcc::{RecordKind, RecordSink, Records};

/// The tree under the state machine.
pub trait Tree: Records + RecordSink {
    /// The value under `key`; empty values are values.
    fn value(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes>;
    /// Visits a bucket in the order of its keys.
    fn visit(&self, bucket: Bucket, visit: &mut dyn FnMut(&[u8], &[u8]));
    /// Sets a value.
    fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes);
    /// Removes a key, if it is there.
    fn delete(&mut self, bucket: Bucket, key: &[u8]);
    /// Bytes that the file occupies, free pages included: what the quota is held against.
    fn allocated_bytes(&self) -> u64;
}

/// The key of a record in the `key` bucket.
pub(super) fn record_key(revision: Revision, kind: RecordKind, key: &mut [u8; Revision::ENCODED_LEN + 1]) -> &[u8] {
    key[..Revision::ENCODED_LEN].copy_from_slice(&revision.encode());
    match kind {
        RecordKind::Put => &key[..Revision::ENCODED_LEN],
        RecordKind::Tombstone => {
            key[Revision::ENCODED_LEN] = b't';
            &key[..]
        }
    }
}

/// A fault of the tree is a damaged page: what the member has applied can no longer be read, and it must not go on as
/// if the keys were not there. So it stops here, as etcd does.
const DAMAGED: &str = "the database file is damaged";

impl<M: Map> Records for Backend<M> {
    #[inline]
    fn record(&self, revision: Revision) -> Option<&[u8]> {
        self.get(Bucket::Key, &revision.encode()).expect(DAMAGED)
    }

    fn record_bytes(&self, revision: Revision) -> Option<Bytes> {
        self.get_bytes(Bucket::Key, &revision.encode()).expect(DAMAGED)
    }

    fn scan(&self, from: Revision, visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {
        for pair in self.range(Bucket::Key, &from.encode(), None) {
            let (key, record) = pair.expect(DAMAGED);
            let (revision, is_tombstone) = Revision::decode(key).expect(DAMAGED);
            let kind = match is_tombstone {
                true => RecordKind::Tombstone,
                false => RecordKind::Put,
            };
            if visit(revision, kind, record).is_break() {
                return;
            }
        }
    }
}

impl<M: Map> RecordSink for Backend<M> {
    #[inline]
    fn put_record(&mut self, revision: Revision, kind: RecordKind, record: Bytes) {
        let mut key = [0; Revision::ENCODED_LEN + 1];
        Backend::put(self, Bucket::Key, record_key(revision, kind, &mut key), record);
    }

    fn delete_record(&mut self, revision: Revision, kind: RecordKind) {
        let mut key = [0; Revision::ENCODED_LEN + 1];
        Backend::delete(self, Bucket::Key, record_key(revision, kind, &mut key));
    }
}

impl<M: Map> Tree for Backend<M> {
    fn value(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes> {
        self.get_bytes(bucket, key).expect(DAMAGED)
    }

    fn visit(&self, bucket: Bucket, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for pair in self.range(bucket, &[], None) {
            let (key, value) = pair.expect(DAMAGED);
            visit(key, value);
        }
    }

    fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes) {
        Backend::put(self, bucket, key, value);
    }

    fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        Backend::delete(self, bucket, key);
    }

    fn allocated_bytes(&self) -> u64 {
        // What waits for its commit counts as well, but for what fits into free pages: else a fast client would write
        // far beyond the quota before the file is seen to have grown.
        let free = self.size() - self.size_in_use().min(self.size());
        self.size() + self.pending_bytes().saturating_sub(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Image;

    #[test]
    fn backend_is_a_tree() {
        fn name_of_tree<T: Tree>() -> &'static str {
            std::any::type_name::<T>()
        }
        assert!(name_of_tree::<Backend<Image>>().contains("Backend"));
    }

    #[test]
    fn tombstones_have_a_mark_behind_their_revision() {
        let mut key = [0; Revision::ENCODED_LEN + 1];
        let revision = Revision::new(7, 1);
        assert_eq!(record_key(revision, RecordKind::Put, &mut key), revision.encode());
        let tombstone = record_key(revision, RecordKind::Tombstone, &mut key);
        assert_eq!(Revision::decode(tombstone), Some((revision, true)));
    }
}
