//! A leaf of the index: packed keys and their histories, side by side.

use super::{history::History, packed::PackedKeys};

/// Keys in a leaf at most.
pub(super) const LEAF_KEYS_MAX: usize = 64;
/// Bytes of keys in a leaf of more than two keys at most, so that inserting never moves much memory.
const LEAF_BYTES_MAX: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Leaf {
    keys: PackedKeys,
    histories: Vec<History>,
}

impl Leaf {
    pub fn len(&self) -> usize {
        self.histories.len()
    }

    pub fn keys(&self) -> &PackedKeys {
        &self.keys
    }

    pub fn history(&self, index: usize) -> &History {
        &self.histories[index]
    }

    pub fn history_mut(&mut self, index: usize) -> &mut History {
        &mut self.histories[index]
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

    /// Adds a key where the search for it said.
    pub fn insert(&mut self, index: usize, key: &[u8], history: History) {
        if self.histories.len() == self.histories.capacity() {
            self.histories.reserve_exact(8);
        }
        self.keys.insert(index, key);
        self.histories.insert(index, history);
    }

    pub fn is_overfull(&self) -> bool {
        self.len() > LEAF_KEYS_MAX || (self.keys.bytes_len() > LEAF_BYTES_MAX && self.len() > 2)
    }

    /// Moves the keys from `index` on into a new leaf.
    pub fn split_off(&mut self, index: usize) -> Leaf {
        let right = Leaf {
            keys: self.keys.split_off(index),
            histories: self.histories.drain(index..).collect(),
        };
        self.histories.shrink_to_fit();
        right
    }

    /// Whether this leaf and `other` are small enough to be one.
    pub fn fits(&self, other: &Leaf) -> bool {
        self.len() + other.len() <= LEAF_KEYS_MAX * 3 / 4
            && self.keys.bytes_len() + other.keys.bytes_len() <= LEAF_BYTES_MAX / 2
    }

    /// Appends the keys of the leaf to the right.
    pub fn append(&mut self, right: Leaf) {
        self.keys.append(&right.keys);
        self.histories.extend(right.histories);
        self.histories.shrink_to_fit();
    }

    /// Keeps the keys from `from` on for which `keep` says so, and all before.
    pub fn retain_from(&mut self, from: usize, mut keep: impl FnMut(&mut History) -> bool) {
        let mut index = 0;
        let kept: Vec<bool> = self
            .histories
            .iter_mut()
            .map(|history| {
                index += 1;
                index <= from || keep(history)
            })
            .collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let (mut keys_kept, mut histories_kept) = (kept.iter(), kept.iter());
        self.keys.retain(|| keys_kept.next().is_some_and(|kept| *kept));
        self.histories
            .retain(|_| histories_kept.next().is_some_and(|kept| *kept));
        self.histories.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.keys.heap_bytes()
            + self.histories.capacity() * size_of::<History>()
            + self.histories.iter().map(History::heap_bytes).sum::<usize>()
    }
}
