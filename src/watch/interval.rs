//! Ranges of keys, to be found by a key that lies in them.
//!
//! A treap ordered by the ranges' starts; each node knows the highest end below it, so that a search leaves out every
//! subtree that ends before the key. Heights are logarithmic whatever the clients choose, because the priorities come
//! from a generator that they do not know.

use std::cmp::Ordering;

use bytes::Bytes;
use slab::Slab;

use super::spec::RangeBound;

type Link = Option<usize>;

/// From distinct ranges to numbers.
pub(super) struct IntervalTree {
    nodes: Slab<Node>,
    root: Link,
    random: u64,
}

struct Node {
    start: Bytes,
    end: RangeBound,
    /// The highest end of this node and those below.
    reach: RangeBound,
    value: usize,
    priority: u64,
    left: Link,
    right: Link,
}

impl IntervalTree {
    /// `seed` makes the shape unpredictable; any number will do.
    pub fn new(seed: u64) -> IntervalTree {
        IntervalTree {
            nodes: Slab::new(),
            root: None,
            random: seed | 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value of a range.
    pub fn find(&self, start: &[u8], end: &RangeBound) -> Option<usize> {
        let mut link = self.root;
        while let Some(index) = link {
            let node = &self.nodes[index];
            link = match node.compare(start, end) {
                Ordering::Greater => node.left,
                Ordering::Less => node.right,
                Ordering::Equal => return Some(node.value),
            };
        }
        None
    }

    /// Adds a range that is not there.
    pub fn insert(&mut self, start: Bytes, end: RangeBound, value: usize) {
        let (left, right) = self.split(self.root, &start, &end);
        let priority = self.next_priority();
        let node = self.nodes.insert(Node {
            start,
            reach: end.clone(),
            end,
            value,
            priority,
            left: None,
            right: None,
        });
        let left = self.merge(left, Some(node));
        self.root = self.merge(left, right);
    }

    /// Takes away a range that is there.
    pub fn remove(&mut self, start: &[u8], end: &RangeBound) {
        self.root = self.remove_below(self.root, start, end);
    }

    /// Calls `visit` with the value of each range that `key` lies in, in the order of their starts.
    pub fn stab(&self, key: &[u8], visit: &mut impl FnMut(usize)) {
        self.stab_below(self.root, key, visit);
    }

    fn stab_below(&self, link: Link, key: &[u8], visit: &mut impl FnMut(usize)) {
        let Some(index) = link else { return };
        let node = &self.nodes[index];
        if !node.reach.is_above(key) {
            return;
        }
        self.stab_below(node.left, key, visit);
        if node.start[..] > *key {
            return;
        }
        if node.end.is_above(key) {
            visit(node.value);
        }
        self.stab_below(node.right, key, visit);
    }

    fn remove_below(&mut self, link: Link, start: &[u8], end: &RangeBound) -> Link {
        let index = link.expect("only a range that is there is taken away");
        let node = &self.nodes[index];
        let (left, right) = (node.left, node.right);
        match node.compare(start, end) {
            Ordering::Greater => self.nodes[index].left = self.remove_below(left, start, end),
            Ordering::Less => self.nodes[index].right = self.remove_below(right, start, end),
            Ordering::Equal => {
                self.nodes.remove(index);
                return self.merge(left, right);
            }
        }
        self.settle(index);
        link
    }

    /// Parts a subtree into what is below a range and what is above it.
    fn split(&mut self, link: Link, start: &[u8], end: &RangeBound) -> (Link, Link) {
        let Some(index) = link else { return (None, None) };
        let node = &self.nodes[index];
        let (left, right) = (node.left, node.right);
        if node.compare(start, end) == Ordering::Less {
            let (low, high) = self.split(right, start, end);
            self.nodes[index].right = low;
            self.settle(index);
            (link, high)
        } else {
            let (low, high) = self.split(left, start, end);
            self.nodes[index].left = high;
            self.settle(index);
            (low, link)
        }
    }

    /// Joins two subtrees of which the left is below the right.
    fn merge(&mut self, left: Link, right: Link) -> Link {
        let (Some(left_index), Some(right_index)) = (left, right) else {
            return left.or(right);
        };
        if self.nodes[left_index].priority > self.nodes[right_index].priority {
            self.nodes[left_index].right = self.merge(self.nodes[left_index].right, right);
            self.settle(left_index);
            left
        } else {
            self.nodes[right_index].left = self.merge(left, self.nodes[right_index].left);
            self.settle(right_index);
            right
        }
    }

    fn settle(&mut self, index: usize) {
        let node = &self.nodes[index];
        let mut reach = &node.end;
        for child in [node.left, node.right].into_iter().flatten() {
            reach = reach.max(&self.nodes[child].reach);
        }
        self.nodes[index].reach = reach.clone();
    }

    fn next_priority(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

impl Node {
    fn compare(&self, start: &[u8], end: &RangeBound) -> Ordering {
        self.start[..].cmp(start).then_with(|| self.end.cmp(end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bound(end: u8) -> RangeBound {
        match end {
            0 => RangeBound::Open,
            end => RangeBound::Before(Bytes::from(vec![end])),
        }
    }

    proptest! {
        #[test]
        fn tree_finds_what_a_list_finds(
            seed: u64, steps in prop::collection::vec((any::<bool>(), 0..20u8, 0..20u8, 0..20u8), 1..200),
        ) {
            let mut tree = IntervalTree::new(seed);
            let mut list: Vec<(u8, u8)> = Vec::new();
            for (is_insert, start, end, key) in steps {
                let known = list.iter().position(|range| *range == (start, end));
                let value = usize::from(start) * 100 + usize::from(end);
                prop_assert_eq!(tree.find(&[start], &bound(end)), known.map(|_| value));
                match known {
                    None if is_insert => {
                        tree.insert(Bytes::from(vec![start]), bound(end), value);
                        list.push((start, end));
                    }
                    Some(place) if !is_insert => {
                        tree.remove(&[start], &bound(end));
                        list.swap_remove(place);
                    }
                    _ => {}
                }
                let mut found = Vec::new();
                tree.stab(&[key], &mut |value| found.push(value));
                found.sort();
                let hit = |(start, end): &&(u8, u8)| *start <= key && (*end == 0 || key < *end);
                let mut expected: Vec<usize> =
                    list.iter().filter(hit).map(|(start, end)| usize::from(*start) * 100 + usize::from(*end)).collect();
                expected.sort();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(tree.is_empty(), list.is_empty());
            }
        }
    }
}
