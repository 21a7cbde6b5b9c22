//! A leaf of the index: sorted keys, packed one behind the other, and their histories.
//!
//! ```text
//!   bytes  applebananacherry      ends  5 11 17      histories  h0 h1 h2
//! ```
//!
//! A key costs its own length and 28 bytes; nothing is allocated per key.

use super::history::History;

/// Keys in a leaf at most.
pub(super) const LEAF_KEYS_MAX: usize = 64;
/// Bytes of keys in a leaf of more than two keys at most, so that inserting never moves much memory.
const LEAF_BYTES_MAX: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Leaf {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    histories: Vec<History>,
}

impl Leaf {
    pub fn len(&self) -> usize {
        self.histories.len()
    }

    pub fn key(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index)..self.ends[index] as usize]
    }

    fn start(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        }
    }

    pub fn history(&self, index: usize) -> &History {
        &self.histories[index]
    }

    pub fn history_mut(&mut self, index: usize) -> &mut History {
        &mut self.histories[index]
    }

    /// Where `key` is, or where it would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Index of the first key that is not below `key`.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|index| index)
    }

    /// Number of existing keys before `index`.
    pub fn live_before(&self, index: usize) -> u64 {
        self.histories[..index]
            .iter()
            .filter(|history| history.is_live())
            .count() as u64
    }

    pub fn live(&self) -> u64 {
        self.live_before(self.len())
    }

    /// Adds a key at the index that [`Leaf::search`] said.
    pub fn insert(&mut self, index: usize, key: &[u8], history: History) {
        // Vec's doubling would leave a third of the index empty; a leaf grows in small steps instead.
        if self.histories.len() == self.histories.capacity() {
            self.histories.reserve_exact(8);
            self.ends.reserve_exact(8);
        }
        let start = self.start(index);
        let old_len = self.bytes.len();
        if self.bytes.capacity() - old_len < key.len() {
            self.bytes.reserve_exact(key.len() + old_len / 8);
        }
        self.bytes.resize(old_len + key.len(), 0);
        self.bytes.copy_within(start..old_len, start + key.len());
        self.bytes[start..start + key.len()].copy_from_slice(key);
        self.ends.insert(index, start as u32);
        for end in &mut self.ends[index..] {
            *end = u32::try_from(*end as usize + key.len()).expect("keys of a leaf are split before 4 GiB");
        }
        self.histories.insert(index, history);
    }

    pub fn is_overfull(&self) -> bool {
        self.len() > LEAF_KEYS_MAX || (self.bytes.len() > LEAF_BYTES_MAX && self.len() > 2)
    }

    /// Moves the keys from `index` on into a new leaf.
    pub fn split_off(&mut self, index: usize) -> Leaf {
        let start = self.start(index);
        let mut right = Leaf {
            bytes: self.bytes[start..].to_vec(),
            ends: self.ends[index..].iter().map(|end| end - start as u32).collect(),
            histories: self.histories.drain(index..).collect(),
        };
        self.bytes.truncate(start);
        self.ends.truncate(index);
        self.shrink();
        right.shrink();
        right
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.histories.shrink_to_fit();
    }

    /// Whether this leaf and `other` are small enough to be one.
    pub fn fits(&self, other: &Leaf) -> bool {
        self.len() + other.len() <= LEAF_KEYS_MAX * 3 / 4 && self.bytes.len() + other.bytes.len() <= LEAF_BYTES_MAX / 2
    }

    /// Appends the keys of the leaf to the right.
    pub fn append(&mut self, right: Leaf) {
        let base = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&right.bytes);
        self.ends.extend(right.ends.iter().map(|end| end + base));
        self.histories.extend(right.histories);
        self.shrink();
    }

    /// Keeps the keys from `from` on for which `keep` says so, and all before; true if any was dropped.
    pub fn retain_from(&mut self, from: usize, mut keep: impl FnMut(&mut History) -> bool) -> bool {
        let mut dropped = Vec::new();
        for index in from..self.len() {
            if !keep(&mut self.histories[index]) {
                dropped.push(index);
            }
        }
        if dropped.is_empty() {
            return false;
        }
        let old = std::mem::take(self);
        let mut gone = dropped.into_iter().peekable();
        let mut start = 0;
        for (index, (end, history)) in old.ends.into_iter().zip(old.histories).enumerate() {
            if gone.next_if_eq(&index).is_none() {
                self.bytes.extend_from_slice(&old.bytes[start..end as usize]);
                self.ends.push(self.bytes.len() as u32);
                self.histories.push(history);
            }
            start = end as usize;
        }
        self.shrink();
        true
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.histories.capacity() * size_of::<History>()
            + self.histories.iter().map(History::heap_bytes).sum::<usize>()
    }
}
