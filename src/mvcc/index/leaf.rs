//! A leaf of the index: packed keys and their histories, side by side.

use super::{history::History, packed::PackedKeys};

/// Keys in a leaf at most; with the one too many that makes it split, as many as a word has bits.
pub(super) const LEAF_KEYS_MAX: usize = 63;
/// Bytes of keys in a leaf of more than two keys at most, so that inserting never moves much memory.
pub(super) const LEAF_BYTES_MAX: usize = 16 * 1024;

#[derive(Default)]
pub(super) struct Leaf {
    keys: PackedKeys,
    histories: Vec<History>,
    /// A bit for each key that exists, so that counting looks at no history.
    live_bits: u64,
}

impl Leaf {
    /// A leaf of these keys.
    pub fn new(keys: PackedKeys, histories: Vec<History>) -> Leaf {
        let bits = histories.iter().enumerate();
        let live_bits = bits.fold(0, |bits, (index, history)| bits | u64::from(history.is_live()) << index);
        Leaf {
            keys,
            histories,
            live_bits,
        }
    }

    pub fn into_parts(self) -> (PackedKeys, Vec<History>) {
        (self.keys, self.histories)
    }

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

    /// Notes whether a key exists after its history was changed.
    pub fn set_live(&mut self, index: usize, is_live: bool) {
        self.live_bits = self.live_bits & !(1 << index) | u64::from(is_live) << index;
    }

    /// Number of existing keys before `index`.
    pub fn live_before(&self, index: usize) -> u64 {
        (self.live_bits & bits_below(index)).count_ones().into()
    }

    pub fn live(&self) -> u64 {
        self.live_bits.count_ones().into()
    }

    /// Adds a key where the search for it said.
    pub fn insert(&mut self, index: usize, key: &[u8], history: History) {
        if self.histories.len() == self.histories.capacity() {
            self.histories.reserve_exact(8);
        }
        let below = self.live_bits & bits_below(index);
        let above = self.live_bits & !bits_below(index);
        self.live_bits = below | above << 1;
        self.set_live(index, history.is_live());
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
            live_bits: self.live_bits >> index,
        };
        self.live_bits &= bits_below(index);
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
        self.live_bits |= right.live_bits << self.len();
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
        self.live_bits = 0;
        for index in 0..self.len() {
            self.set_live(index, self.histories[index].is_live());
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.keys.heap_bytes()
            + self.histories.capacity() * size_of::<History>()
            + self.histories.iter().map(History::heap_bytes).sum::<usize>()
    }
}

/// The bits of the keys before `index`, which is at most the last bit.
fn bits_below(index: usize) -> u64 {
    match index {
        64.. => u64::MAX,
        _ => (1 << index) - 1,
    }
}

const _: () = assert!(LEAF_KEYS_MAX < u64::BITS as usize);
