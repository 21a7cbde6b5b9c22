//! From a version of the tree and a sorted list of changes to the next version: which pages are written with what, which
//! are given up, and the meta that makes it true. Pure: the driver writes what the plan says, then the meta.
//!
//! One pass from the root down and back: a page with changes below it becomes a node, nodes that got too small join a
//! neighbour, and on the way up nodes are cut into pages. Pages get their numbers last, when it is known how many there
//! are, so that they can lie together.

use std::cell::OnceCell;

use crate::{host::Map, limits::BACKEND_WRITE_BYTES_MAX};

use super::{
    batch::Batch,
    bucket::{BUCKETS, Bucket},
    fault::{Fault, FaultKind},
    freelist::{Freelist, Run},
    meta::{Meta, NO_FREELIST},
    node::{BranchEntry, Change, Node, PageRef, Value, branch_entry},
    page::{BUCKET_FLAG, Page},
    root::{BucketRoot, DEPTH_MAX, Pages, Root},
};

/// Keeps inline buckets alive for as long as the plan that points at them.
#[derive(Default)]
pub(super) struct InlineBuckets([OnceCell<Vec<u8>>; BUCKETS.len()]);

/// The next version, before its pages have numbers.
pub(super) struct Draft<'a> {
    nodes: Vec<Node<'a>>,
    freed: Vec<Run>,
    root: PageRef,
    meta: Meta,
}

/// The next version, ready to be written.
pub(super) struct Plan<'a> {
    nodes: Vec<Node<'a>>,
    /// Page of each node.
    places: Vec<u64>,
    /// Nodes by page number.
    order: Vec<usize>,
    /// What to write when all pages are durable.
    pub(super) meta: Meta,
}

/// Where the driver is in a plan.
#[derive(Default)]
pub(super) struct PlanPosition(usize);

/// The next version of `root`: with the changes of `batches`, of which the first that knows a key decides. Buckets that are
/// missing are made.
pub(super) fn draft<'a, M: Map>(
    root: &'a Root<M>,
    batches: &[&'a Batch],
    inline: &'a InlineBuckets,
) -> Result<Draft<'a>, Fault> {
    let mut writer = Writer {
        pages: &root.pages,
        page_size: root.pages.page_size,
        fill_percent: 0,
        nodes: Vec::new(),
        freed: Vec::new(),
    };
    let mut root_changes = Vec::with_capacity(BUCKETS.len());
    for bucket in BUCKETS {
        let changes = bucket_changes(batches, bucket);
        let before = root.bucket(bucket);
        if changes.is_empty() && before != BucketRoot::Absent {
            continue;
        }
        writer.fill_percent = bucket.fill_percent();
        let value = writer.bucket(before, &changes, &inline.0[bucket as usize])?;
        root_changes.push(Change {
            key: bucket.name().as_bytes(),
            value: Some(value),
            flags: BUCKET_FLAG,
        });
    }
    root_changes.sort_unstable_by_key(|change| change.key);
    writer.fill_percent = 50;
    let page = writer.pages.page(root.meta.root)?;
    let node = writer.rewrite(page, &root_changes, 0)?;
    let root_page = writer.plant(node);
    let meta = Meta {
        freelist: NO_FREELIST,
        txid: root.meta.txid + 1,
        ..root.meta
    };
    Ok(Draft {
        nodes: writer.nodes,
        freed: writer.freed,
        root: root_page,
        meta,
    })
}

impl<'a> Draft<'a> {
    /// Gives up pages besides those that were rewritten.
    pub(super) fn give_up(&mut self, run: Option<Run>) {
        self.freed.extend(run);
    }

    /// Gives pages to the nodes. `freelist` is changed for good: a plan that is not written must not be followed by another.
    pub(super) fn place(self, freelist: &mut Freelist) -> Plan<'a> {
        let page_size = self.meta.page_size as usize;
        let counts: Vec<u64> = self.nodes.iter().map(|node| page_count(node, page_size)).collect();
        let mut meta = self.meta;
        let places = freelist.place(meta.txid, &counts, &mut meta.high_water);
        freelist.free(meta.txid, self.freed);
        meta.root = match self.root {
            PageRef::Placed(id) => id,
            PageRef::Fresh(index) => places[index],
        };
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_unstable_by_key(|index| places[*index]);
        Plan {
            nodes: self.nodes,
            places,
            order,
            meta,
        }
    }
}

impl Plan<'_> {
    /// Fills `buffer` with the next run of pages that lie together, and says where in the file it goes. Runs have up to 256
    /// KiB, and more only for a single value that is larger.
    pub(super) fn next_run(&self, position: &mut PlanPosition, buffer: &mut Vec<u8>) -> Option<u64> {
        buffer.clear();
        let page_size = self.meta.page_size as usize;
        let id_first = self.places[*self.order.get(position.0)?];
        while let Some(index) = self.order.get(position.0) {
            let (node, id) = (&self.nodes[*index], self.places[*index]);
            let len = page_count(node, page_size) as usize * page_size;
            let filled = buffer.len();
            let is_adjacent = id_first + (filled / page_size) as u64 == id;
            if filled > 0 && (!is_adjacent || filled + len > BACKEND_WRITE_BYTES_MAX) {
                break;
            }
            buffer.resize(filled + len, 0);
            node.write(
                &mut buffer[filled..],
                id,
                (len / page_size - 1) as u32,
                |page| match page {
                    PageRef::Placed(id) => id,
                    PageRef::Fresh(index) => self.places[index],
                },
            );
            position.0 += 1;
        }
        Some(id_first * page_size as u64)
    }
}

fn page_count(node: &Node<'_>, page_size: usize) -> u64 {
    node.content_len().div_ceil(page_size) as u64
}

/// The changes of a bucket, ascending; earlier batches decide.
fn bucket_changes<'a>(batches: &[&'a Batch], bucket: Bucket) -> Vec<Change<'a>> {
    let mut merged: Vec<Change<'a>> = Vec::new();
    for batch in batches {
        let changes = batch.bucket(bucket).iter_from(&[]).map(|(key, change)| Change {
            key,
            value: change.as_deref().map(Value::Bytes),
            flags: 0,
        });
        if merged.is_empty() {
            merged.extend(changes);
            continue;
        }
        let mut earlier = std::mem::take(&mut merged).into_iter().peekable();
        for change in changes {
            while let Some(first) = earlier.next_if(|first| first.key < change.key) {
                merged.push(first);
            }
            if earlier.peek().is_none_or(|first| first.key != change.key) {
                merged.push(change);
            }
        }
        merged.extend(earlier);
    }
    merged
}

struct Writer<'a, M> {
    pages: &'a Pages<M>,
    page_size: usize,
    fill_percent: u32,
    nodes: Vec<Node<'a>>,
    freed: Vec<Run>,
}

/// A child of a branch that is being rewritten.
enum Slot<'a> {
    Kept(BranchEntry<'a>),
    Changed(Node<'a>),
}

impl<'a, M: Map> Writer<'a, M> {
    /// A bucket with changes: the value that its parent has for it.
    fn bucket(
        &mut self,
        before: BucketRoot,
        changes: &[Change<'a>],
        inline: &'a OnceCell<Vec<u8>>,
    ) -> Result<Value<'a>, Fault> {
        let (node, sequence) = match before {
            BucketRoot::Absent => {
                let entries = changes.iter().filter_map(|change| {
                    let (key, flags) = (change.key, change.flags);
                    change.value.map(|value| super::node::LeafEntry { flags, key, value })
                });
                (Node::Leaf(entries.collect()), 0)
            }
            BucketRoot::Page { id, sequence } => (self.rewrite(self.pages.page(id)?, changes, 0)?, sequence),
            BucketRoot::Inline {
                outer,
                offset,
                len,
                sequence,
            } => {
                let page = Page::parse(self.pages.map.bytes(offset, len), outer, offset)?;
                if !page.is_leaf() {
                    return Err(page.fault(0, FaultKind::BadBucket));
                }
                (Node::merge(page, changes)?, sequence)
            }
        };
        let node = if node.is_empty() { Node::Leaf(Vec::new()) } else { node };
        if node.is_inlineable(self.page_size) {
            return Ok(Value::Bytes(inline.get_or_init(|| node.write_inline(sequence))));
        }
        Ok(Value::Bucket {
            root: self.plant(node),
            sequence,
        })
    }

    /// A page with changes, as a node that may have to be cut. The page is given up.
    fn rewrite(&mut self, page: Page<'a>, changes: &[Change<'a>], depth: usize) -> Result<Node<'a>, Fault> {
        if depth == DEPTH_MAX {
            return Err(page.fault(0, FaultKind::TooDeep));
        }
        self.give_up(&page);
        if page.is_leaf() {
            return Node::merge(page, changes);
        }
        let mut slots = Vec::with_capacity(page.count());
        let mut rest = changes;
        for index in 0..page.count() {
            let end = if index + 1 < page.count() {
                let bound = page.key(index + 1)?;
                rest.partition_point(|change| change.key < bound)
            } else {
                rest.len()
            };
            let (below, behind) = rest.split_at(end);
            rest = behind;
            let entry = branch_entry(&page, index)?;
            if below.is_empty() {
                slots.push(Slot::Kept(entry));
                continue;
            }
            let child = self.pages.page(page.child(index)?)?;
            let node = self.rewrite(child, below, depth + 1)?;
            if !node.is_empty() {
                slots.push(Slot::Changed(node));
            }
        }
        self.join(&mut slots)?;
        let mut entries = Vec::with_capacity(slots.len());
        for slot in slots {
            match slot {
                Slot::Kept(entry) => entries.push(entry),
                Slot::Changed(node) => self.cut(node, &mut entries),
            }
        }
        Ok(Node::Branch(entries))
    }

    /// Lets nodes that got too small join the neighbour before them, or behind if they are first.
    fn join(&mut self, slots: &mut Vec<Slot<'a>>) -> Result<(), Fault> {
        let mut index = 0;
        while index < slots.len() {
            let is_underfull = match &slots[index] {
                Slot::Kept(_) => false,
                Slot::Changed(node) => node.is_underfull(self.page_size),
            };
            if !is_underfull || slots.len() == 1 {
                index += 1;
                continue;
            }
            let left = index.saturating_sub(1);
            let behind = self.open(slots.remove(left + 1))?;
            let vacant = Slot::Changed(Node::Leaf(Vec::new()));
            let mut joined = self.open(std::mem::replace(&mut slots[left], vacant))?;
            if let Err(kind) = joined.append(behind) {
                let page = self.freed.last().map_or(0, |run| run.id);
                return Err(Fault {
                    page,
                    offset: page * self.page_size as u64,
                    kind,
                });
            }
            slots[left] = Slot::Changed(joined);
            index = left;
        }
        Ok(())
    }

    fn open(&mut self, slot: Slot<'a>) -> Result<Node<'a>, Fault> {
        match slot {
            Slot::Changed(node) => Ok(node),
            Slot::Kept(BranchEntry {
                child: PageRef::Placed(id),
                ..
            }) => {
                let page = self.pages.page(id)?;
                self.give_up(&page);
                Node::read(page)
            }
            Slot::Kept(BranchEntry {
                child: PageRef::Fresh(_),
                ..
            }) => {
                unreachable!("children kept from the file are placed")
            }
        }
    }

    /// Cuts a node into pages of the plan, and tells the parent about them.
    fn cut(&mut self, node: Node<'a>, parent: &mut Vec<BranchEntry<'a>>) {
        for piece in node.split(self.page_size, self.fill_percent) {
            let key = piece.first_key().unwrap_or_default();
            parent.push(BranchEntry {
                key,
                child: PageRef::Fresh(self.nodes.len()),
            });
            self.nodes.push(piece);
        }
    }

    /// Makes a node the root of a tree: of as many levels as it takes, and no more.
    fn plant(&mut self, node: Node<'a>) -> PageRef {
        let mut node = if node.is_empty() { Node::Leaf(Vec::new()) } else { node };
        loop {
            if let Node::Branch(entries) = &node
                && let [only] = &entries[..]
            {
                return only.child;
            }
            let mut entries = Vec::new();
            self.cut(node, &mut entries);
            node = Node::Branch(entries);
        }
    }

    fn give_up(&mut self, page: &Page<'_>) {
        let count = page.page_count(self.page_size);
        self.freed.push(Run { id: page.id(), count });
    }
}
