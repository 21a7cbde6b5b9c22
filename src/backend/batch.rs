//! Changes that are not in the tree yet, in memory and in order, and readable.
//!
//! The `key` bucket gets revisions, which ascend: they are appended to a sorted vector. What comes out of order (deletes
//! by compaction, small buckets) goes to a map beside it. A key is in one of the two at most.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    fmt,
    ops::Bound,
};

use bytes::Bytes;

use super::{
    bucket::{BUCKETS, Bucket},
    search::{guess, search_between, search_from},
};

/// Keys up to this length need no allocation. Revisions have 17 or 18 bytes, leases 8.
const KEY_INLINE_MAX: usize = 38;

/// A key of a bucket, owned; short ones stand in place.
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; KEY_INLINE_MAX]),
    Shared(Bytes),
}

impl Key {
    /// Its bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Key {
        if key.len() <= KEY_INLINE_MAX {
            let mut bytes = [0; KEY_INLINE_MAX];
            bytes[..key.len()].copy_from_slice(key);
            Key(Repr::Inline(key.len() as u8, bytes))
        } else {
            Key(Repr::Shared(Bytes::copy_from_slice(key)))
        }
    }
}

impl<const N: usize> From<[u8; N]> for Key {
    fn from(key: [u8; N]) -> Key {
        Key::from(&key[..])
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(key: &[u8; N]) -> Key {
        Key::from(&key[..])
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Key {
        Key::from(key.as_bytes())
    }
}

impl From<Bytes> for Key {
    fn from(key: Bytes) -> Key {
        if key.len() <= KEY_INLINE_MAX {
            Key::from(&key[..])
        } else {
            Key(Repr::Shared(key))
        }
    }
}

impl From<Vec<u8>> for Key {
    fn from(key: Vec<u8>) -> Key {
        Key::from(Bytes::from(key))
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

/// What a batch does to a key: a value, or `None` for its removal.
pub(super) type Change = Option<Bytes>;

/// Changes of all buckets.
#[derive(Default)]
pub struct Batch {
    buckets: [BucketBatch; BUCKETS.len()],
    operations: usize,
    bytes: usize,
}

/// Changes of one bucket.
#[derive(Default)]
pub(super) struct BucketBatch {
    /// Ascending, strictly.
    tail: Vec<(Key, Change)>,
    overlay: BTreeMap<Key, Change>,
}

impl Batch {
    /// No changes.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets a key. The key has 1 to 32,768 bytes, the value fewer than 2^31 (bbolt's limits): anything else is a bug.
    pub fn put(&mut self, bucket: Bucket, key: impl Into<Key>, value: Bytes) {
        assert!(value.len() < VALUE_BYTES_MAX);
        self.change(bucket, key.into(), Some(value));
    }

    /// Removes a key, whether it is there or not.
    pub fn delete(&mut self, bucket: Bucket, key: impl Into<Key>) {
        self.change(bucket, key.into(), None);
    }

    fn change(&mut self, bucket: Bucket, key: Key, change: Change) {
        let len = key.as_slice().len();
        assert!(len > 0 && len <= KEY_BYTES_MAX);
        self.operations += 1;
        self.bytes += len + change.as_ref().map_or(0, Bytes::len);
        self.buckets[bucket as usize].change(key, change);
    }

    /// What this batch says about a key: `None` if nothing, `Some(None)` if it is removed.
    #[inline]
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<Option<&Bytes>> {
        self.buckets[bucket as usize].get(key).map(Option::as_ref)
    }

    /// Puts and deletes so far, repeated ones included.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Bytes of keys and values so far, repeated ones included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// An empty batch with room for as many revisions as this one has: growing a vector of that size by halves would hold up
    /// the core that appends to it.
    pub(super) fn successor(&self) -> Batch {
        let mut batch = Batch::new();
        batch.buckets[Bucket::Key as usize]
            .tail
            .reserve(self.bucket(Bucket::Key).tail.len());
        batch
    }

    pub(super) fn bucket(&self, bucket: Bucket) -> &BucketBatch {
        &self.buckets[bucket as usize]
    }
}

impl BucketBatch {
    fn change(&mut self, key: Key, change: Change) {
        match self.tail.last() {
            None => {}
            Some((last, _)) if *last < key => {}
            Some(_) => {
                match self.tail.binary_search_by(|(present, _)| present.cmp(&key)) {
                    Ok(index) => self.tail[index].1 = change,
                    Err(_) => _ = self.overlay.insert(key, change),
                }
                return;
            }
        }
        // A new greatest key of the tail may still be in the map, where it then stays.
        if !self.overlay.is_empty()
            && let Some(present) = self.overlay.get_mut(&key)
        {
            *present = change;
            return;
        }
        self.tail.push((key, change));
    }

    #[inline]
    fn get(&self, key: &[u8]) -> Option<&Change> {
        if let Some(index) = self.tail_index(key) {
            return Some(&self.tail[index].1);
        }
        if self.overlay.is_empty() {
            None
        } else {
            self.overlay.get(key)
        }
    }

    #[inline]
    fn tail_index(&self, key: &[u8]) -> Option<usize> {
        let (first, last) = (self.tail.first()?.0.as_slice(), self.tail.last()?.0.as_slice());
        // Most lookups are of keys that have been in the tree for long.
        if key < first || key > last {
            return None;
        }
        let compare = |index: usize| Ok::<_, ()>(self.tail[index].0.as_slice().cmp(key));
        let found = match guess(key, first, last, self.tail.len() - 1) {
            Some(start) => search_from(self.tail.len(), start, compare),
            None => search_between(0..self.tail.len(), compare),
        };
        found.ok()?.ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.overlay.is_empty()
    }

    /// Changes with keys from `from` on, ascending.
    pub(super) fn iter_from(&self, from: &[u8]) -> BucketBatchIter<'_> {
        let start = self.tail.partition_point(|(key, _)| key.as_slice() < from);
        let mut overlay = self.overlay.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        BucketBatchIter {
            tail: &self.tail[start..],
            overlay_next: overlay.next(),
            overlay,
        }
    }
}

/// Changes of a bucket, ascending by key.
pub(super) struct BucketBatchIter<'a> {
    tail: &'a [(Key, Change)],
    overlay_next: Option<(&'a Key, &'a Change)>,
    overlay: btree_map::Range<'a, Key, Change>,
}

impl<'a> Iterator for BucketBatchIter<'a> {
    type Item = (&'a [u8], &'a Change);

    fn next(&mut self) -> Option<Self::Item> {
        let from_tail = match (self.tail.first(), self.overlay_next) {
            (None, None) => return None,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((tail, _)), Some((overlay, _))) => tail < overlay,
        };
        if from_tail {
            let ((key, change), rest) = self.tail.split_first()?;
            self.tail = rest;
            Some((key.as_slice(), change))
        } else {
            let (key, change) = self.overlay_next?;
            self.overlay_next = self.overlay.next();
            Some((key.as_slice(), change))
        }
    }
}

/// A batch that will not change any more: on its way into the tree, and readable meanwhile.
pub struct SealedBatch {
    pub(super) batch: Batch,
    pub(super) sequence: u64,
}

impl SealedBatch {
    /// Number of the batch since the start, from 1.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Its changes.
    pub fn changes(&self) -> &Batch {
        &self.batch
    }
}

/// bbolt's limit.
const KEY_BYTES_MAX: usize = 32_768;
/// bbolt's limit.
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn batch_agrees_with_a_map(changes in prop::collection::vec((any::<u8>(), prop::option::of(any::<u8>())), 0..200), from in any::<u8>()) {
            let mut batch = Batch::new();
            let mut model = BTreeMap::new();
            for (key, value) in &changes {
                match value {
                    Some(value) => batch.put(Bucket::Lease, [*key], Bytes::copy_from_slice(&[*value])),
                    None => batch.delete(Bucket::Lease, [*key]),
                }
                model.insert(*key, *value);
            }
            prop_assert_eq!(batch.operations(), changes.len());
            for key in 0..=255u8 {
                let expected = model.get(&key).map(|value| value.map(|v| vec![v]));
                let found = batch.get(Bucket::Lease, &[key]).map(|value| value.map(|v| v.to_vec()));
                prop_assert_eq!(found, expected);
            }
            let expected: Vec<_> = model.range(from..).map(|(k, v)| (vec![*k], v.map(|v| vec![v]))).collect();
            let found: Vec<_> = batch.bucket(Bucket::Lease).iter_from(&[from])
                .map(|(k, v)| (k.to_vec(), v.as_ref().map(|v| v.to_vec()))).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn long_keys_compare_as_short_ones_do() {
        let long = Key::from(vec![7u8; 100]);
        let short = Key::from([7u8; 20]);
        assert!(short < long);
        assert_eq!(long.as_slice(), &[7u8; 100]);
        assert_eq!(std::mem::size_of::<Key>(), 40);
    }
}
