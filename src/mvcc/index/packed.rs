//! Sorted keys of one node, packed for few cache misses and little memory.
//!
//! ```text
//!   keys    /pods/a1 /pods/a2 /pods/b        prefix "/pods/", once
//!   bytes   /pods/ a1 a2 b                   ends  8 10 11
//!   heads   "a1\0\0" "a2\0\0" "b\0\0\0"      first four bytes behind the prefix, big-endian: they sort as the keys do
//! ```
//!
//! A search compares numbers that stand side by side and looks at the bytes of one key, or of the few with the same
//! head. What keys have in common is stored once, which for most sets of keys is most of them.

use std::cmp::Ordering;

#[derive(Default)]
pub(super) struct PackedKeys {
    /// The prefix, and behind it the rest of each key.
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    ends: Vec<u32>,
    heads: Vec<u32>,
    prefix_len: usize,
}

impl PackedKeys {
    /// Ascending keys that stand one behind the other; `ends` says where each ends.
    pub fn of_sorted(bytes: &[u8], ends: &[u32]) -> PackedKeys {
        let start = |index: usize| index.checked_sub(1).map_or(0, |before| ends[before] as usize);
        let key = |index: usize| &bytes[start(index)..ends[index] as usize];
        let Some(last) = ends.len().checked_sub(1) else {
            return PackedKeys::default();
        };
        let prefix_len = common_len(key(0), key(last));
        let mut packed = PackedKeys {
            bytes: Vec::with_capacity(bytes.len() - prefix_len * last),
            ends: Vec::with_capacity(ends.len()),
            heads: Vec::with_capacity(ends.len()),
            prefix_len,
        };
        packed.bytes.extend_from_slice(&key(0)[..prefix_len]);
        for index in 0..=last {
            let rest = &key(index)[prefix_len..];
            packed.bytes.extend_from_slice(rest);
            packed.ends.push(offset(packed.bytes.len()));
            packed.heads.push(head_of(rest));
        }
        packed
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the keys as they are packed.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_len]
    }

    fn start(&self, index: usize) -> usize {
        match index {
            0 => self.prefix_len,
            _ => self.ends[index - 1] as usize,
        }
    }

    /// A key without the prefix.
    fn rest(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index)..self.ends[index] as usize]
    }

    /// Replaces the content of `key` with the key at `index`.
    pub fn copy_to(&self, index: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(self.rest(index));
    }

    /// The key at `index`.
    pub fn key(&self, index: usize) -> Box<[u8]> {
        [self.prefix(), self.rest(index)].concat().into()
    }

    /// Where `key` is, or where it would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let head = head_of(rest);
        let mut low: usize = self.heads.iter().map(|other| usize::from(*other < head)).sum();
        let mut high = low;
        while self.heads.get(high) == Some(&head) {
            high += 1;
        }
        while low < high {
            let middle = (low + high) / 2;
            match self.rest(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Number of keys below `key`.
    pub fn count_below(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|index| index)
    }

    /// Number of keys that are not above `key`.
    pub fn count_up_to(&self, key: &[u8]) -> usize {
        self.search(key).map_or_else(|index| index, |index| index + 1)
    }

    /// Adds a key where [`PackedKeys::search`] said.
    pub fn insert(&mut self, index: usize, key: &[u8]) {
        if self.len() == 0 {
            self.bytes = key.to_vec();
            self.prefix_len = key.len();
            self.ends = vec![offset(key.len())];
            self.heads = vec![0];
            return;
        }
        let common = common_len(self.prefix(), key);
        if common < self.prefix_len {
            self.set_prefix_len(common);
        }
        let rest = &key[self.prefix_len..];
        // Vec's doubling would leave a third of the index empty; a node grows in small steps instead.
        if self.ends.len() == self.ends.capacity() {
            self.ends.reserve_exact(8);
            self.heads.reserve_exact(8);
        }
        let (start, old_len) = (self.start(index), self.bytes.len());
        if self.bytes.capacity() - old_len < rest.len() {
            self.bytes.reserve_exact(rest.len() + old_len / 8);
        }
        self.bytes.resize(old_len + rest.len(), 0);
        self.bytes.copy_within(start..old_len, start + rest.len());
        self.bytes[start..start + rest.len()].copy_from_slice(rest);
        self.ends.insert(index, offset(start));
        for end in &mut self.ends[index..] {
            *end = offset(*end as usize + rest.len());
        }
        self.heads.insert(index, head_of(rest));
    }

    /// Takes a key away.
    pub fn remove(&mut self, index: usize) {
        let mut position = 0;
        self.retain(|| {
            position += 1;
            position - 1 != index
        });
    }

    /// Keeps the keys for which `keep`, called for one after the other, says so.
    pub fn retain(&mut self, mut keep: impl FnMut() -> bool) {
        let kept: Vec<usize> = (0..self.len()).filter(|_| keep()).collect();
        *self = self.pack(&kept);
    }

    /// Moves the keys from `index` on out.
    pub fn split_off(&mut self, index: usize) -> PackedKeys {
        let (left, right): (Vec<usize>, Vec<usize>) = (0..self.len()).partition(|position| *position < index);
        let right = self.pack(&right);
        *self = self.pack(&left);
        right
    }

    /// Adds keys that are all above those here.
    pub fn append(&mut self, right: &PackedKeys) {
        let mut key = Vec::new();
        for index in 0..right.len() {
            right.copy_to(index, &mut key);
            self.insert(self.len(), &key);
        }
        self.shrink();
    }

    /// The shortest key that is above the one before `index` and not above the one at `index`.
    pub fn separator(&self, index: usize) -> Box<[u8]> {
        let (left, right) = (self.rest(index - 1), self.rest(index));
        let common = common_len(left, right);
        [self.prefix(), &right[..common + 1]].concat().into()
    }

    /// Chosen keys, in order, with the longest prefix that they have in common.
    fn pack(&self, chosen: &[usize]) -> PackedKeys {
        let (Some(first), Some(last)) = (chosen.first(), chosen.last()) else {
            return PackedKeys::default();
        };
        let more = common_len(self.rest(*first), self.rest(*last));
        let rests = || chosen.iter().map(|index| &self.rest(*index)[more..]);
        let prefix_len = self.prefix_len + more;
        let mut packed = PackedKeys {
            bytes: Vec::with_capacity(prefix_len + rests().map(<[u8]>::len).sum::<usize>()),
            ends: Vec::with_capacity(chosen.len()),
            heads: Vec::with_capacity(chosen.len()),
            prefix_len,
        };
        packed.bytes.extend_from_slice(self.prefix());
        packed.bytes.extend_from_slice(&self.rest(*first)[..more]);
        for rest in rests() {
            packed.bytes.extend_from_slice(rest);
            packed.ends.push(offset(packed.bytes.len()));
            packed.heads.push(head_of(rest));
        }
        packed
    }

    /// Shortens the prefix; what it loses goes to each key.
    fn set_prefix_len(&mut self, prefix_len: usize) {
        let lost = self.bytes[prefix_len..self.prefix_len].to_vec();
        let mut bytes = Vec::with_capacity(self.bytes.len() + lost.len() * self.len());
        bytes.extend_from_slice(&self.bytes[..prefix_len]);
        let mut start = self.prefix_len;
        for (end, head) in self.ends.iter_mut().zip(&mut self.heads) {
            let begin = bytes.len();
            bytes.extend_from_slice(&lost);
            bytes.extend_from_slice(&self.bytes[start..*end as usize]);
            start = *end as usize;
            *end = offset(bytes.len());
            *head = head_of(&bytes[begin..]);
        }
        self.bytes = bytes;
        self.prefix_len = prefix_len;
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.heads.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + (self.ends.capacity() + self.heads.capacity()) * size_of::<u32>()
    }
}

/// How many bytes two keys have in common from their start.
pub(in crate::mvcc) fn common_len(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// The first four bytes as a number that sorts as they do; missing ones count as zeros.
fn head_of(rest: &[u8]) -> u32 {
    match rest.first_chunk() {
        Some(head) => u32::from_be_bytes(*head),
        None => {
            let mut head = [0; 4];
            head[..rest.len()].copy_from_slice(rest);
            u32::from_be_bytes(head)
        }
    }
}

pub(super) fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("keys of a node are parted long before 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"/registry/".to_vec()),
            prop::collection::vec(0..3u8, 0..6),
            Just(vec![255; 5])
        ];
        prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn packed_keys_are_a_sorted_list(steps in prop::collection::vec((0..8u8, key(), any::<usize>()), 1..80)) {
            let (mut packed, mut list) = (PackedKeys::default(), Vec::<Vec<u8>>::new());
            for (step, key, place) in steps {
                let found = list.binary_search(&key);
                prop_assert_eq!(packed.search(&key), found);
                match (step, found) {
                    (0, _) if !list.is_empty() => {
                        let index = place % list.len();
                        let (right, right_list) = (packed.split_off(index), list.split_off(index));
                        if step % 2 == 0 {
                            packed.append(&right);
                            list.extend(right_list);
                        }
                    }
                    (1, _) if !list.is_empty() => {
                        let index = place % list.len();
                        packed.remove(index);
                        list.remove(index);
                    }
                    (_, Err(index)) => {
                        packed.insert(index, &key);
                        list.insert(index, key);
                    }
                    _ => {}
                }
                let keys: Vec<Vec<u8>> = (0..packed.len()).map(|index| packed.key(index).into()).collect();
                prop_assert_eq!(&keys, &list);
                for index in 1..list.len() {
                    let separator = packed.separator(index);
                    prop_assert!(list[index - 1][..] < *separator && *separator <= list[index][..]);
                }
            }
        }
    }
}
