//! Many changes at once, in the order of their keys: the index is made anew from what it had and from them, leaf by leaf.
//! That looks at each leaf once, where changing it key by key would look for each key's leaf anew.

use super::{
    Index,
    history::History,
    leaf::{LEAF_BYTES_MAX, LEAF_KEYS_MAX, Leaf},
    node::{self, CHILDREN_MAX, Node},
    packed::{PackedKeys, common_len},
};
use crate::base::Revision;

/// Keys of a new leaf: there is room for some to come.
const KEYS_OF_NEW_LEAF: usize = LEAF_KEYS_MAX * 3 / 4;
/// Children of a new inner node.
const CHILDREN_OF_NEW_NODE: usize = CHILDREN_MAX * 3 / 4;

/// A change as its record has it.
#[derive(Clone, Copy, Debug)]
pub(in crate::mvcc) enum Found {
    /// A put.
    Put {
        /// Revision in which the key's life began.
        create_revision: i64,
        /// Puts since then, this one included.
        version: i64,
    },
    /// A deletion.
    Tombstone,
}

impl Index {
    /// Takes in changes that were found in the tree, in the order of their keys, those of one key in the order of their
    /// revisions, which are above all that is known of it.
    pub(in crate::mvcc) fn merge<'a>(&mut self, changes: impl Iterator<Item = (&'a [u8], Revision, Found)>) {
        let mut builder = Builder::default();
        let mut changes = changes.peekable();
        let mut key = Vec::new();
        let mut tip = self.tip;
        let mut note = |builder: &mut Builder, (key, revision, found): (&[u8], Revision, Found)| {
            tip = tip.max(revision.main);
            builder.change(key, revision, found);
        };
        std::mem::take(&mut self.root).into_leaves(&mut |leaf| {
            let (keys, histories) = leaf.into_parts();
            for (index, history) in histories.into_iter().enumerate() {
                keys.copy_to(index, &mut key);
                while let Some(change) = changes.next_if(|change| *change.0 < key[..]) {
                    note(&mut builder, change);
                }
                builder.push(&key, history);
            }
        });
        changes.for_each(|change| note(&mut builder, change));
        self.tip = tip;
        (self.root, self.keys) = builder.finish();
        self.live_keys = self.root.live();
    }
}

/// An index in the making: keys come in ascending order.
#[derive(Default)]
struct Builder {
    /// The leaf that gathers: its keys one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    histories: Vec<History>,
    /// The last key of the leaf before it.
    before: Vec<u8>,
    /// Whole nodes, each behind what separates it from the one before.
    nodes: Vec<(Box<[u8]>, Node)>,
    keys: u64,
}

impl Builder {
    fn push(&mut self, key: &[u8], history: History) {
        let is_full = self.ends.len() >= KEYS_OF_NEW_LEAF || self.bytes.len() + key.len() > LEAF_BYTES_MAX / 2;
        if is_full && !self.ends.is_empty() {
            self.close_leaf();
        }
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len() as u32);
        self.histories.push(history);
        self.keys += 1;
    }

    fn change(&mut self, key: &[u8], revision: Revision, found: Found) {
        let is_last = !self.ends.is_empty() && self.last_key() == key;
        match (found, self.histories.last_mut().filter(|_| is_last)) {
            (Found::Put { .. }, Some(history)) => history.put(revision),
            (Found::Tombstone, Some(history)) if history.is_live() => history.tombstone(revision),
            (Found::Tombstone, Some(_)) => {}
            (
                Found::Put {
                    create_revision,
                    version,
                },
                None,
            ) => self.push(key, History::restored(revision, create_revision, version)),
            (Found::Tombstone, None) => self.push(key, History::restored_tombstone(revision)),
        }
    }

    fn last_key(&self) -> &[u8] {
        let start = match self.ends[..] {
            [.., start, _] => start as usize,
            _ => 0,
        };
        &self.bytes[start..]
    }

    fn close_leaf(&mut self) {
        let first = &self.bytes[..self.ends[0] as usize];
        let separator = match self.nodes.is_empty() {
            true => Box::default(),
            false => first[..common_len(&self.before, first) + 1].into(),
        };
        let last = self.last_key().to_vec();
        self.before = last;
        let keys = PackedKeys::of_sorted(&self.bytes, &self.ends);
        let leaf = Leaf::new(keys, self.histories.drain(..).collect());
        self.nodes.push((separator, Node::Leaf(leaf)));
        self.bytes.clear();
        self.ends.clear();
    }

    /// The root, and how many keys are below it.
    fn finish(mut self) -> (Node, u64) {
        if !self.ends.is_empty() {
            self.close_leaf();
        }
        let mut nodes = self.nodes;
        while nodes.len() > 1 {
            let parents = nodes.len().div_ceil(CHILDREN_OF_NEW_NODE);
            let mut rest = nodes.len();
            let mut children = nodes.into_iter();
            // In equal shares: none is left with a single child.
            nodes = (0..parents)
                .rev()
                .map(|further| {
                    let count = rest.div_ceil(further + 1);
                    rest -= count;
                    node::inner_of(children.by_ref().take(count))
                })
                .collect();
        }
        let root = nodes.pop().map(|(_, root)| root);
        (root.unwrap_or_default(), self.keys)
    }
}
