//! Changes that are read in the order of their revisions, and go into the index in the order of their keys.

use std::cmp::Ordering;

use super::index::{Found, Index, common_len};
use crate::base::Revision;

/// Changes that are gathered at least, and half as many as the index has keys: it is made anew with each lot.
const GATHERED_MIN: usize = 256 * 1024;
/// Bytes of their keys at most.
const GATHERED_BYTES_MAX: usize = 64 << 20;

struct Change {
    /// Where its key ends in `keys`; it begins where the one before ends.
    key_end: usize,
    revision: Revision,
    found: Found,
}

/// What waits to go into the index.
#[derive(Default)]
pub(super) struct Gathered {
    keys: Vec<u8>,
    changes: Vec<Change>,
    /// What all keys begin with, as a length.
    prefix_len: usize,
}

impl Gathered {
    /// Takes a change, of a higher revision than those before. Gives what has gathered to the index when it is much.
    pub fn push(&mut self, index: &mut Index, key: &[u8], revision: Revision, found: Found) {
        self.prefix_len = match self.changes.first() {
            None => key.len(),
            Some(first) => common_len(&self.keys[..first.key_end.min(self.prefix_len)], key),
        };
        self.keys.extend_from_slice(key);
        self.changes.push(Change {
            key_end: self.keys.len(),
            revision,
            found,
        });
        let is_much = self.changes.len() >= GATHERED_MIN.max(index.keys() as usize / 2);
        if is_much || self.keys.len() >= GATHERED_BYTES_MAX {
            self.settle(index);
        }
    }

    /// Gives what has gathered to the index.
    pub fn settle(&mut self, index: &mut Index) {
        let head = |place: usize| head_of(&self.key(place)[self.prefix_len..]);
        let mut order: Vec<(u64, usize)> = (0..self.changes.len()).map(|place| (head(place), place)).collect();
        order.sort_unstable_by(|left, right| match left.0.cmp(&right.0) {
            Ordering::Equal => self.key(left.1).cmp(self.key(right.1)).then(left.1.cmp(&right.1)),
            other => other,
        });
        index.merge(order.into_iter().map(|(_, place)| {
            let change = &self.changes[place];
            (self.key(place), change.revision, change.found)
        }));
        self.keys.clear();
        self.changes.clear();
    }

    fn key(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.changes[before].key_end);
        &self.keys[start..self.changes[place].key_end]
    }
}

/// The first eight bytes as a number that sorts as they do; missing ones count as zeros.
fn head_of(rest: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = rest.len().min(head.len());
    head[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::Span;

    proptest! {
        /// As if each change had been made when it was.
        #[test]
        fn what_is_gathered_comes_to_the_same(
            changes in prop::collection::vec((prop::collection::vec(0..3u8, 0..12), 0..4u8, 0..60u8), 1..600),
        ) {
            let (mut changed, mut merged, mut gathered) = (Index::new(), Index::new(), Gathered::default());
            for (number, (key, kind, pause)) in changes.into_iter().enumerate() {
                let revision = Revision::new(number as i64 + 2, 0);
                let before = changed.latest(&key);
                let found = match (kind, before) {
                    (0, Some(_)) => {
                        changed.tombstone(&key, revision);
                        Found::Tombstone
                    }
                    _ => {
                        changed.put(&key, revision);
                        let state = changed.latest(&key).expect("just put");
                        Found::Put { create_revision: state.create_revision, version: state.version }
                    }
                };
                gathered.push(&mut merged, &key, revision, found);
                if pause == 0 {
                    gathered.settle(&mut merged);
                    merged.verify();
                }
            }
            gathered.settle(&mut merged);
            merged.verify();
            let contents = |index: &Index| {
                let mut found = Vec::new();
                index.walk(Span::all(), b"", |key, view| {
                    found.push((key.to_vec(), view.latest(), view.at(100), view.at(300)));
                    ControlFlow::Continue(())
                });
                (found, index.keys(), index.live_keys(), index.tip())
            };
            prop_assert_eq!(contents(&merged), contents(&changed));
        }
    }

    #[test]
    fn an_index_of_several_levels_is_merged() {
        let (mut index, mut gathered) = (Index::new(), Gathered::default());
        let mut main = 1;
        for lot in 0..3 {
            for number in 0..30_000u32 {
                main += 1;
                let key = number.wrapping_mul(2_654_435_761).rotate_left(lot * 11).to_be_bytes();
                let found = Found::Put {
                    create_revision: main,
                    version: 1,
                };
                gathered.push(&mut index, &key, Revision::new(main, 0), found);
            }
            gathered.settle(&mut index);
            index.verify();
        }
        assert!(index.keys() > 80_000);
    }
}
