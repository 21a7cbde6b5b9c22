//! The B-tree above the leaves. An inner node knows for each child how many existing keys are under it, which is what
//! makes counting logarithmic.
//!
//! Child `i` holds the keys from separator `i - 1` up to, not including, separator `i`. Separators are as short as
//! they can be and need not be keys.

use std::ops::ControlFlow;

use super::{
    history::History,
    leaf::Leaf,
    packed::{PackedKeys, offset},
};
use crate::base::Revision;

/// Children of an inner node at most.
pub(super) const CHILDREN_MAX: usize = 64;

pub(super) enum Node {
    Leaf(Leaf),
    Inner(Box<Inner>),
}

pub(super) struct Inner {
    separators: PackedKeys,
    children: Vec<Node>,
    /// Existing keys under each child.
    live: Vec<u64>,
}

impl Default for Node {
    fn default() -> Node {
        Node::Leaf(Leaf::default())
    }
}

/// A new right neighbour of a node, and the separator between the two.
pub(super) struct Split {
    separator: Box<[u8]>,
    right: Node,
}

/// How a change of one key went.
pub(super) struct Changed<R> {
    /// What the change returned.
    pub outcome: R,
    /// By how much the number of existing keys changed.
    pub live_delta: i64,
    /// By how much the number of keys changed, the deleted ones included.
    pub is_new_key: bool,
    split: Option<Split>,
}

/// How far a slice of a walk came: all keys below it are done. `None` at the end.
pub(super) type Frontier = Option<Box<[u8]>>;

impl Node {
    /// The history of a key.
    pub fn find(&self, key: &[u8]) -> Option<&History> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys().search(key).ok().map(|index| leaf.history(index)),
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)],
            }
        }
    }

    /// Number of existing keys below `key`.
    pub fn rank(&self, key: &[u8]) -> u64 {
        let mut rank = 0;
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.live_before(leaf.keys().count_below(key)),
                Node::Inner(inner) => {
                    let child = inner.child_of(key);
                    rank += inner.live[..child].iter().sum::<u64>();
                    node = &inner.children[child];
                }
            }
        }
    }

    /// Visits keys from `from` on, in order. `key` is memory for them.
    pub fn walk(
        &self,
        from: &[u8],
        key: &mut Vec<u8>,
        visit: &mut impl FnMut(&[u8], &History) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Node::Leaf(leaf) => {
                for index in leaf.keys().count_below(from)..leaf.len() {
                    leaf.keys().copy_to(index, key);
                    visit(key, leaf.history(index))?;
                }
            }
            Node::Inner(inner) => {
                for child in &inner.children[inner.child_of(from)..] {
                    child.walk(from, key, visit)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes the leaves out, from the first to the last.
    pub fn into_leaves(self, take: &mut impl FnMut(Leaf)) {
        match self {
            Node::Leaf(leaf) => take(leaf),
            Node::Inner(inner) => inner.children.into_iter().for_each(|child| child.into_leaves(take)),
        }
    }

    /// Changes the history of a key, or makes one for a new key.
    pub fn change<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(Option<&mut History>) -> (R, Option<History>),
    ) -> Changed<R> {
        match self {
            Node::Leaf(leaf) => change_leaf(leaf, key, change),
            Node::Inner(inner) => {
                let child = inner.child_of(key);
                let mut changed = inner.children[child].change(key, change);
                inner.live[child] = apply_delta(inner.live[child], changed.live_delta);
                if let Some(split) = changed.split.take() {
                    changed.split = inner.insert(child, split);
                }
                changed
            }
        }
    }

    /// Puts a new root above a root that was split.
    pub fn grow<R>(&mut self, changed: &mut Changed<R>) {
        let Some(split) = changed.split.take() else { return };
        let left = std::mem::take(self);
        let live = vec![left.live(), split.right.live()];
        let mut separators = PackedKeys::default();
        separators.insert(0, &split.separator);
        *self = Node::Inner(Box::new(Inner {
            separators,
            children: vec![left, split.right],
            live,
        }));
    }

    /// Existing keys below.
    pub fn live(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.live(),
            Node::Inner(inner) => inner.live.iter().sum(),
        }
    }

    /// Compacts the histories of one leaf, the one that holds `from`, from that key on. `kept` takes the changes at or
    /// below `main` that stay; `dropped` counts the keys of which nothing is left.
    pub fn compact_leaf(&mut self, from: &[u8], main: i64, kept: &mut Vec<Revision>, dropped: &mut u64) -> Frontier {
        match self {
            Node::Leaf(leaf) => {
                let first = leaf.keys().count_below(from);
                leaf.retain_from(first, |history| {
                    let compacted = history.compact(main);
                    kept.extend(compacted.kept);
                    *dropped += u64::from(compacted.is_empty);
                    !compacted.is_empty
                });
                None
            }
            Node::Inner(inner) => {
                let child = inner.child_of(from);
                let bound = (child < inner.separators.len()).then(|| inner.separators.key(child));
                let before = *dropped;
                let frontier = inner.children[child].compact_leaf(from, main, kept, dropped);
                if *dropped != before {
                    inner.settle(child);
                }
                frontier.or(bound)
            }
        }
    }

    /// Takes away levels that a shrunken tree no longer needs.
    pub fn shrink(&mut self) {
        while let Node::Inner(inner) = self {
            if inner.children.len() > 1 {
                return;
            }
            let only = inner.children.pop();
            *self = only.unwrap_or_default();
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len() == 0,
            Node::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.heap_bytes(),
            Node::Inner(inner) => {
                size_of::<Inner>()
                    + inner.separators.heap_bytes()
                    + inner.children.capacity() * size_of::<Node>()
                    + inner.live.capacity() * size_of::<u64>()
                    + inner.children.iter().map(Node::heap_bytes).sum::<usize>()
            }
        }
    }

    /// Checks order, bounds and counts of everything below; the number of keys.
    #[cfg(any(test, feature = "verify"))]
    pub fn verify(&self, low: Option<&[u8]>, high: Option<&[u8]>) -> u64 {
        match self {
            Node::Leaf(leaf) => {
                assert_eq!(leaf.keys().len(), leaf.len());
                for index in 0..leaf.len() {
                    let is_live = leaf.live_before(index + 1) > leaf.live_before(index);
                    assert_eq!(
                        leaf.history(index).is_live(),
                        is_live,
                        "a key's bit says whether it exists"
                    );
                    let key = &*leaf.keys().key(index);
                    assert!(low.is_none_or(|low| low <= key), "a key is not below its leaf's bound");
                    assert!(
                        high.is_none_or(|high| key < high),
                        "a key is below its leaf's upper bound"
                    );
                    assert!(
                        index == 0 || *leaf.keys().key(index - 1) < *key,
                        "keys of a leaf ascend"
                    );
                }
                leaf.len() as u64
            }
            Node::Inner(inner) => {
                assert_eq!(inner.children.len(), inner.separators.len() + 1);
                assert_eq!(inner.children.len(), inner.live.len());
                assert!(inner.children.len() <= CHILDREN_MAX);
                let mut keys = 0;
                for (index, child) in inner.children.iter().enumerate() {
                    assert_eq!(inner.live[index], child.live(), "a child's count of existing keys");
                    let separator =
                        |index: usize| (index < inner.separators.len()).then(|| inner.separators.key(index));
                    let (left, right) = (index.checked_sub(1).and_then(separator), separator(index));
                    let (low, high) = (left.as_deref().or(low), right.as_deref().or(high));
                    keys += child.verify(low, high);
                }
                keys
            }
        }
    }
}

/// A node over at least two neighbours, each behind what separates it from the one before; and what separates the node.
pub(super) fn inner_of(neighbours: impl Iterator<Item = (Box<[u8]>, Node)>) -> (Box<[u8]>, Node) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    let (mut children, mut live) = (Vec::new(), Vec::new());
    let mut outer = None;
    for (separator, child) in neighbours {
        if outer.is_none() {
            outer = Some(separator);
        } else {
            bytes.extend_from_slice(&separator);
            ends.push(offset(bytes.len()));
        }
        live.push(child.live());
        children.push(child);
    }
    let inner = Inner {
        separators: PackedKeys::of_sorted(&bytes, &ends),
        children,
        live,
    };
    (outer.unwrap_or_default(), Node::Inner(Box::new(inner)))
}

/// A count after a change.
pub(super) fn apply_delta(count: u64, delta: i64) -> u64 {
    count.checked_add_signed(delta).expect("counts are not negative")
}

fn change_leaf<R>(
    leaf: &mut Leaf,
    key: &[u8],
    change: impl FnOnce(Option<&mut History>) -> (R, Option<History>),
) -> Changed<R> {
    let found = leaf.keys().search(key);
    let history = found.ok().map(|index| leaf.history_mut(index));
    let was_live = history.as_ref().is_some_and(|history| history.is_live());
    let (outcome, created) = change(history);
    let mut changed = Changed {
        outcome,
        live_delta: 0,
        is_new_key: false,
        split: None,
    };
    let is_live = match (found, created) {
        (Ok(index), None) => {
            let is_live = leaf.history(index).is_live();
            leaf.set_live(index, is_live);
            is_live
        }
        (Err(index), Some(history)) => {
            let is_live = history.is_live();
            leaf.insert(index, key, history);
            changed.is_new_key = true;
            changed.split = leaf.is_overfull().then(|| split_leaf(leaf, index));
            is_live
        }
        (Err(_), None) => false,
        (Ok(_), Some(_)) => unreachable!("a key that has a history is given no other"),
    };
    changed.live_delta = i64::from(is_live) - i64::from(was_live);
    changed
}

/// `inserted` is the index of the key that filled the leaf: keys that come in ascending order leave full leaves behind.
fn split_leaf(leaf: &mut Leaf, inserted: usize) -> Split {
    let middle = match inserted + 1 == leaf.len() {
        true => leaf.len() - 1,
        false => leaf.len() / 2,
    };
    let separator = leaf.keys().separator(middle);
    Split {
        separator,
        right: Node::Leaf(leaf.split_off(middle)),
    }
}

impl Inner {
    fn child_of(&self, key: &[u8]) -> usize {
        self.separators.count_up_to(key)
    }

    /// Takes in the right neighbour of a child that was split.
    fn insert(&mut self, child: usize, split: Split) -> Option<Split> {
        let moved = split.right.live();
        self.live[child] -= moved;
        self.live.insert(child + 1, moved);
        self.separators.insert(child, &split.separator);
        self.children.insert(child + 1, split.right);
        if self.children.len() <= CHILDREN_MAX {
            return None;
        }
        let middle = match child + 2 == self.children.len() {
            true => self.children.len() - 2,
            false => self.children.len() / 2,
        };
        let right = Inner {
            separators: self.separators.split_off(middle),
            children: self.children.split_off(middle),
            live: self.live.split_off(middle),
        };
        let last = self.separators.len() - 1;
        let separator = self.separators.key(last);
        self.separators.remove(last);
        Some(Split {
            separator,
            right: Node::Inner(Box::new(right)),
        })
    }

    /// Drops a child that became empty, or joins it with a neighbour when both have become small.
    fn settle(&mut self, child: usize) {
        if self.children[child].is_empty() {
            self.children.remove(child);
            self.live.remove(child);
            if self.separators.len() > 0 {
                self.separators.remove(child.saturating_sub(1));
            }
            return;
        }
        let joined = child + 1 < self.children.len() && self.join(child);
        if !joined && child > 0 {
            self.join(child - 1);
        }
    }

    /// Joins a child with its right neighbour if both together are small.
    fn join(&mut self, left: usize) -> bool {
        let (head, tail) = self.children.split_at_mut(left + 1);
        let fits = match (&head[left], &tail[0]) {
            (Node::Leaf(left), Node::Leaf(right)) => left.fits(right),
            (Node::Inner(left), Node::Inner(right)) => {
                left.children.len() + right.children.len() <= CHILDREN_MAX * 3 / 4
            }
            _ => unreachable!("all leaves are at one depth"),
        };
        if !fits {
            return false;
        }
        let right = self.children.remove(left + 1);
        let separator = self.separators.key(left);
        self.separators.remove(left);
        let moved = self.live.remove(left + 1);
        self.live[left] += moved;
        match (&mut self.children[left], right) {
            (Node::Leaf(left), Node::Leaf(right)) => left.append(right),
            (Node::Inner(left), Node::Inner(right)) => {
                left.separators.insert(left.separators.len(), &separator);
                left.separators.append(&right.separators);
                left.children.extend(right.children);
                left.live.extend(right.live);
            }
            _ => unreachable!("all leaves are at one depth"),
        }
        true
    }
}
