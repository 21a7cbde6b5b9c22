//! Pages being rebuilt: lists of elements that point into the mapping and the batches, until they are written out.
//!
//! A node holds what one page held, changed, and perhaps its neighbour's elements; it is cut into pages of the right fill when
//! it is placed. Nothing is copied before that.

use super::{
    fault::{Fault, FaultKind},
    page::{BRANCH, BUCKET_FLAG, ELEMENT_LEN, HEADER_LEN, Header, LEAF, Page, seal},
};

/// A page, old or not placed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageRef {
    /// In the file.
    Placed(u64),
    /// The node of this number in the plan.
    Fresh(usize),
}

/// A leaf element's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// Bytes of a value, or of a bucket that stands whole in its parent.
    Bytes(&'a [u8]),
    /// A bucket whose tree has pages of its own.
    Bucket { root: PageRef, sequence: u64 },
}

impl Value<'_> {
    fn len(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Bucket { .. } => 16,
        }
    }
}

/// A key and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeafEntry<'a> {
    pub(super) flags: u32,
    pub(super) key: &'a [u8],
    pub(super) value: Value<'a>,
}

/// A child and its first key.
#[derive(Clone, Copy, Debug)]
pub(super) struct BranchEntry<'a> {
    pub(super) key: &'a [u8],
    pub(super) child: PageRef,
}

/// What is done to a key: `None` removes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<Value<'a>>,
    pub(super) flags: u32,
}

/// A page's elements.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Leaf(Vec<LeafEntry<'a>>),
    Branch(Vec<BranchEntry<'a>>),
}

/// What an element of either kind takes of a page.
trait Entry {
    fn len(&self) -> usize;
}

impl Entry for LeafEntry<'_> {
    #[inline]
    fn len(&self) -> usize {
        ELEMENT_LEN + self.key.len() + self.value.len()
    }
}

impl Entry for BranchEntry<'_> {
    #[inline]
    fn len(&self) -> usize {
        ELEMENT_LEN + self.key.len()
    }
}

impl<'a> Node<'a> {
    /// The elements of a page.
    pub(super) fn read(page: Page<'a>) -> Result<Node<'a>, Fault> {
        if page.is_leaf() {
            Ok(Node::Leaf(leaf_entries(page).collect::<Result<_, _>>()?))
        } else {
            let entries = (0..page.count()).map(|index| branch_entry(&page, index));
            Ok(Node::Branch(entries.collect::<Result<_, _>>()?))
        }
    }

    /// A leaf page with changes, which ascend and all belong to it.
    pub(super) fn merge(page: Page<'a>, changes: &[Change<'a>]) -> Result<Node<'a>, Fault> {
        let mut merged = Vec::with_capacity(page.count() + changes.len());
        let mut changes = changes.iter().peekable();
        let entry = |change: &Change<'a>| {
            let (key, flags) = (change.key, change.flags);
            change.value.map(|value| LeafEntry { flags, key, value })
        };
        for present in leaf_entries(page) {
            let present = present?;
            while let Some(change) = changes.next_if(|change| change.key < present.key) {
                merged.extend(entry(change));
            }
            match changes.next_if(|change| change.key == present.key) {
                Some(change) => merged.extend(entry(change)),
                None => merged.push(present),
            }
        }
        for change in changes {
            merged.extend(entry(change));
        }
        Ok(Node::Leaf(merged))
    }

    /// Adds the elements of the page behind this one. Pages of different kinds are not neighbours in a sound tree.
    pub(super) fn append(&mut self, other: Node<'a>) -> Result<(), FaultKind> {
        match (self, other) {
            (Node::Leaf(entries), Node::Leaf(others)) => entries.extend(others),
            (Node::Branch(entries), Node::Branch(others)) => entries.extend(others),
            (Node::Leaf(_), Node::Branch(_)) => return Err(FaultKind::WrongType(BRANCH)),
            (Node::Branch(_), Node::Leaf(_)) => return Err(FaultKind::WrongType(LEAF)),
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(entries) => entries.is_empty(),
            Node::Branch(entries) => entries.is_empty(),
        }
    }

    pub(super) fn first_key(&self) -> Option<&'a [u8]> {
        match self {
            Node::Leaf(entries) => entries.first().map(|entry| entry.key),
            Node::Branch(entries) => entries.first().map(|entry| entry.key),
        }
    }

    /// Bytes that header and elements take.
    pub(super) fn content_len(&self) -> usize {
        HEADER_LEN
            + match self {
                Node::Leaf(entries) => entries.iter().map(Entry::len).sum::<usize>(),
                Node::Branch(entries) => entries.iter().map(Entry::len).sum::<usize>(),
            }
    }

    /// Whether it should join a neighbour: less than a quarter of a page, or a branch of one child.
    pub(super) fn is_underfull(&self, page_size: usize) -> bool {
        match self {
            Node::Branch(entries) if entries.len() < 2 => true,
            _ => self.content_len() <= page_size / 4,
        }
    }

    /// Whether the elements may stand in the parent's leaf as an inline bucket.
    pub(super) fn is_inlineable(&self, page_size: usize) -> bool {
        match self {
            Node::Branch(_) => false,
            Node::Leaf(entries) => {
                self.content_len() <= page_size / 4 && entries.iter().all(|entry| entry.flags & BUCKET_FLAG == 0)
            }
        }
    }

    /// Cuts it into nodes of a page each, filled to `fill_percent` but for the last. A value that is larger than a page gets
    /// a run of its own.
    pub(super) fn split(self, page_size: usize, fill_percent: u32) -> Vec<Node<'a>> {
        let limits = Limits {
            page_size,
            threshold: page_size * fill_percent as usize / 100,
        };
        match self {
            Node::Leaf(entries) => limits.split(entries, 1).into_iter().map(Node::Leaf).collect(),
            Node::Branch(entries) => limits.split(entries, 2).into_iter().map(Node::Branch).collect(),
        }
    }

    /// Writes the run of page `id` into `run`, which is zeroed, and seals it. `place` says where fresh nodes are.
    pub(super) fn write(&self, run: &mut [u8], id: u64, overflow: u32, place: impl Fn(PageRef) -> u64) {
        let end = self.write_content(run, id, overflow, place);
        seal(run, id, end);
    }

    fn write_content(&self, run: &mut [u8], id: u64, overflow: u32, place: impl Fn(PageRef) -> u64) -> usize {
        let (kind, count) = match self {
            Node::Leaf(entries) => (LEAF, entries.len()),
            Node::Branch(entries) => (BRANCH, entries.len()),
        };
        assert!(count <= COUNT_MAX);
        let header = Header {
            id,
            kind,
            count: count as u16,
            overflow,
        };
        header.write(run);
        let mut at = HEADER_LEN;
        let mut data = HEADER_LEN + count * ELEMENT_LEN;
        let mut append = |run: &mut [u8], bytes: &[u8]| {
            run[data..data + bytes.len()].copy_from_slice(bytes);
            data += bytes.len();
            data
        };
        match self {
            Node::Leaf(entries) => {
                for entry in entries {
                    let end = append(run, entry.key);
                    let element = Element {
                        pos: end - entry.key.len() - at,
                        key_len: entry.key.len(),
                    };
                    put_u32(run, at, entry.flags);
                    element.write(run, at + 4);
                    put_u32(run, at + 12, entry.value.len() as u32);
                    match entry.value {
                        Value::Bytes(bytes) => _ = append(run, bytes),
                        Value::Bucket { root, sequence } => {
                            append(run, &place(root).to_le_bytes());
                            append(run, &sequence.to_le_bytes());
                        }
                    }
                    at += ELEMENT_LEN;
                }
            }
            Node::Branch(entries) => {
                for entry in entries {
                    let end = append(run, entry.key);
                    let element = Element {
                        pos: end - entry.key.len() - at,
                        key_len: entry.key.len(),
                    };
                    element.write(run, at);
                    run[at + 8..at + 16].copy_from_slice(&place(entry.child).to_le_bytes());
                    at += ELEMENT_LEN;
                }
            }
        }
        data
    }

    /// A bucket's value with the whole bucket in it.
    pub(super) fn write_inline(&self, sequence: u64) -> Vec<u8> {
        let mut value = vec![0; 16 + self.content_len()];
        value[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.write_content(&mut value[16..], 0, 0, |_| 0);
        value
    }
}

struct Element {
    pos: usize,
    key_len: usize,
}

impl Element {
    fn write(&self, run: &mut [u8], at: usize) {
        put_u32(run, at, self.pos as u32);
        put_u32(run, at + 4, self.key_len as u32);
    }
}

fn put_u32(run: &mut [u8], at: usize, value: u32) {
    run[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn leaf_entries<'a>(page: Page<'a>) -> impl Iterator<Item = Result<LeafEntry<'a>, Fault>> {
    (0..page.count()).map(move |index| {
        let element = page.leaf(index)?;
        Ok(LeafEntry {
            flags: element.flags,
            key: element.key,
            value: Value::Bytes(element.value),
        })
    })
}

/// A branch's child as it stands in the file.
pub(super) fn branch_entry<'a>(page: &Page<'a>, index: usize) -> Result<BranchEntry<'a>, Fault> {
    Ok(BranchEntry {
        key: page.key(index)?,
        child: PageRef::Placed(page.child(index)?),
    })
}

struct Limits {
    page_size: usize,
    threshold: usize,
}

impl Limits {
    fn split<T: Entry>(&self, entries: Vec<T>, count_min: usize) -> Vec<Vec<T>> {
        let mut rest_len: usize = entries.iter().map(Entry::len).sum();
        let fits = |len: usize, count: usize| HEADER_LEN + len <= self.page_size && count <= COUNT_MAX;
        if fits(rest_len, entries.len()) || entries.len() < 2 * count_min {
            return vec![entries];
        }
        let mut pieces = Vec::new();
        let mut rest_count = entries.len();
        let mut piece: Vec<T> = Vec::new();
        let mut piece_len = 0;
        // Once what is left fits into a page it is not cut any more.
        let mut is_last = false;
        for entry in entries {
            let len = entry.len();
            let is_full = HEADER_LEN + piece_len + len > self.threshold || piece.len() == COUNT_MAX;
            if !is_last && piece.len() >= count_min && rest_count >= count_min && is_full {
                pieces.push(std::mem::take(&mut piece));
                piece_len = 0;
                is_last = fits(rest_len, rest_count);
            }
            piece_len += len;
            rest_len -= len;
            rest_count -= 1;
            piece.push(entry);
        }
        pieces.push(piece);
        pieces
    }
}

/// Elements that a page can count; one more means an escape in bbolt's format.
const COUNT_MAX: usize = 0xFFFE;

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf<'a>(keys: &'a [Vec<u8>], value: &'a [u8]) -> Node<'a> {
        let entry = |key: &'a Vec<u8>| LeafEntry {
            flags: 0,
            key,
            value: Value::Bytes(value),
        };
        Node::Leaf(keys.iter().map(entry).collect())
    }

    fn keys(count: u32) -> Vec<Vec<u8>> {
        (0..count).map(|n| n.to_be_bytes().to_vec()).collect()
    }

    #[test]
    fn a_split_fills_pages_as_asked_and_never_overflows_one_without_need() {
        let keys = keys(1000);
        let value = [7; 100];
        for (fill, least) in [(90, 3500), (50, 1900)] {
            let pieces = leaf(&keys, &value).split(4096, fill);
            for piece in &pieces[..pieces.len() - 1] {
                let len = piece.content_len();
                assert!(len <= 4096 * fill as usize / 100 && len >= least, "{len}");
            }
            assert!(pieces.last().unwrap().content_len() <= 4096);
            let total: usize = pieces.iter().map(|piece| piece.content_len() - HEADER_LEN).sum();
            assert_eq!(total, 1000 * 120);
        }
    }

    #[test]
    fn a_large_value_gets_a_run_of_its_own() {
        let keys = keys(3);
        let value = vec![1; 10_000];
        let pieces = leaf(&keys, &value).split(4096, 90);
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_written_node_reads_back() {
        let keys = keys(20);
        let value = [9; 33];
        let node = leaf(&keys, &value);
        let mut run = vec![0; 4096];
        node.write(&mut run, 17, 0, |_| 0);
        assert_eq!(super::super::page::seal_matches(&run, 17), Some(true));
        let page = Page::parse(&run, 17, 0).unwrap();
        assert_eq!(page.content_len().unwrap(), node.content_len());
        for (index, key) in keys.iter().enumerate() {
            let element = page.leaf(index).unwrap();
            assert_eq!((element.key, element.value), (&key[..], &value[..]));
            assert_eq!(page.search(key).unwrap(), Ok(index));
        }
        run[100] ^= 1;
        assert_eq!(super::super::page::seal_matches(&run, 17), Some(false));
    }
}
