//! Writes a tree from sorted elements, front to back: pages of 90 %, one after the other, nothing read back. What
//! defragmentation makes its file with. Pure: full pages gather in a buffer that the driver writes.

use super::{
    batch::Key,
    fault::{Fault, FaultKind},
    meta::{Meta, NO_FREELIST},
    node::{BranchEntry, LeafEntry, Node, PageRef, Value},
    page::BUCKET_FLAG,
};

/// How full pages are made, in percent (etcd's choice for defragmentation).
const FILL_PERCENT: u32 = 90;
/// Where the first tree page goes: behind the metas.
const FIRST_PAGE: u64 = 2;

/// A file being written. Buckets come in order of name, keys in order.
pub(super) struct Builder {
    page_size: usize,
    /// The page after the last that was made.
    next: u64,
    /// Pages that are made and not taken yet.
    ready: Vec<u8>,
    /// First key and page of each leaf of the present bucket.
    leaves: Vec<(Key, u64)>,
    /// Finished buckets: name and value.
    buckets: Vec<(Key, Built)>,
}

enum Built {
    Inline(Vec<u8>),
    Page { id: u64, sequence: u64 },
}

impl Builder {
    pub(super) fn new(page_size: usize) -> Builder {
        Builder {
            page_size,
            next: FIRST_PAGE,
            ready: Vec::new(),
            leaves: Vec::new(),
            buckets: Vec::new(),
        }
    }

    /// Bytes that a leaf's elements may take before it is due.
    pub(super) fn leaf_threshold(&self) -> usize {
        self.page_size * FILL_PERCENT as usize / 100
    }

    fn write(&mut self, node: &Node<'_>) -> u64 {
        let count = node.content_len().div_ceil(self.page_size);
        let start = self.ready.len();
        self.ready.resize(start + count * self.page_size, 0);
        let id = self.next;
        node.write(&mut self.ready[start..], id, count as u32 - 1, |page| match page {
            PageRef::Placed(id) => id,
            PageRef::Fresh(_) => unreachable!("a builder places as it goes"),
        });
        self.next += count as u64;
        id
    }

    /// Makes the bucket's next leaf, with at least one element.
    pub(super) fn leaf(&mut self, entries: Vec<LeafEntry<'_>>) -> Result<(), Fault> {
        if entries.iter().any(|entry| entry.flags & BUCKET_FLAG != 0) {
            // etcd has no buckets within buckets, and its defragmentation does not copy them either.
            return Err(Fault {
                page: self.next,
                offset: 0,
                kind: FaultKind::BadBucket,
            });
        }
        let node = Node::Leaf(entries);
        let key = Key::from(node.first_key().expect("a leaf with elements"));
        let id = self.write(&node);
        self.leaves.push((key, id));
        Ok(())
    }

    /// Ends a bucket that is small enough to stand in its parent: says whether it was. Only while it has no leaf.
    pub(super) fn end_inline(&mut self, name: Key, sequence: u64, entries: &[LeafEntry<'_>]) -> bool {
        assert!(self.leaves.is_empty());
        let node = Node::Leaf(entries.to_vec());
        let is_inlineable = node.is_inlineable(self.page_size);
        if is_inlineable {
            self.buckets.push((name, Built::Inline(node.write_inline(sequence))));
        }
        is_inlineable
    }

    /// Ends a bucket of at least one leaf.
    pub(super) fn end_bucket(&mut self, name: Key, sequence: u64) {
        let leaves = std::mem::take(&mut self.leaves);
        let id = self.build_branches(leaves);
        self.buckets.push((name, Built::Page { id, sequence }));
    }

    /// Puts branches over pages until there is one.
    fn build_branches(&mut self, mut level: Vec<(Key, u64)>) -> u64 {
        loop {
            if let [(_, id)] = level[..] {
                return id;
            }
            let entries = level.iter().map(|(key, id)| BranchEntry {
                key: key.as_slice(),
                child: PageRef::Placed(*id),
            });
            let node = Node::Branch(entries.collect());
            let mut above = Vec::new();
            for piece in node.split(self.page_size, FILL_PERCENT) {
                let key = Key::from(piece.first_key().expect("a branch with children"));
                let id = self.write(&piece);
                above.push((key, id));
            }
            level = above;
        }
    }

    /// Ends the file: the meta that it gets.
    pub(super) fn finish(&mut self, sequence: u64, txid: u64) -> Meta {
        let buckets = std::mem::take(&mut self.buckets);
        let entries = buckets.iter().map(|(name, built)| LeafEntry {
            flags: BUCKET_FLAG,
            key: name.as_slice(),
            value: match built {
                Built::Inline(value) => Value::Bytes(value),
                Built::Page { id, sequence } => Value::Bucket {
                    root: PageRef::Placed(*id),
                    sequence: *sequence,
                },
            },
        });
        let mut level = Vec::new();
        for piece in Node::Leaf(entries.collect()).split(self.page_size, FILL_PERCENT) {
            let key = Key::from(piece.first_key().unwrap_or_default());
            let id = self.write(&piece);
            level.push((key, id));
        }
        let root = self.build_branches(level);
        Meta {
            page_size: self.page_size as u32,
            root,
            sequence,
            freelist: NO_FREELIST,
            high_water: self.next,
            txid,
        }
    }

    /// Bytes of pages that are ready.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes the pages that are ready: where they go in the file, and their bytes.
    pub(super) fn take_ready(&mut self) -> (u64, Vec<u8>) {
        let bytes = std::mem::take(&mut self.ready);
        let count = (bytes.len() / self.page_size) as u64;
        ((self.next - count) * self.page_size as u64, bytes)
    }
}
