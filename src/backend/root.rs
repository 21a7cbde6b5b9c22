//! One version of the tree: a meta, the mapping it is read through, and where each bucket begins.
//!
//! Whoever holds a [`Pin`] may read its version for as long as he likes, on any core. The store keeps a pin of each
//! version that it made; a version of which it has the only one can be reached by nobody any more, and its pages are
//! free for use. No message says so: the count in the pin does.

use std::{ops::Deref, sync::Arc};

use crate::host::Map;

use super::{
    bucket::{BUCKETS, Bucket},
    cursor::Cursor,
    fault::{Fault, FaultKind},
    meta::Meta,
    page::{BUCKET_FLAG, HEADER_LEN, Header, Page, u64_at},
    search::guess,
};

/// Bytes of a bucket's header, at the start of its value in the root bucket.
pub(super) const BUCKET_HEADER_LEN: usize = 16;

/// The pages of one version, with every reference checked.
#[derive(Clone)]
pub(super) struct Pages<M> {
    pub(super) map: M,
    pub(super) page_size: usize,
    pub(super) high_water: u64,
}

impl<M: Map> Pages<M> {
    /// Bytes of the run that begins at a page, by its header.
    #[inline]
    pub(super) fn run(&self, id: u64) -> Result<&[u8], Fault> {
        let fault = |kind| Fault {
            page: id,
            offset: id.saturating_mul(self.page_size as u64),
            kind,
        };
        if id < 2 || id >= self.high_water {
            return Err(fault(FaultKind::OutOfRange));
        }
        let offset = id * self.page_size as u64;
        let header = Header::read(self.map.bytes(offset, HEADER_LEN)).ok_or(fault(FaultKind::OutOfRange))?;
        if header.id != id {
            return Err(fault(FaultKind::WrongId(header.id)));
        }
        let count = u64::from(header.overflow) + 1;
        if count > self.high_water - id {
            return Err(fault(FaultKind::OutOfRange));
        }
        Ok(self.map.bytes(offset, count as usize * self.page_size))
    }

    /// A leaf or branch.
    #[inline]
    pub(super) fn page(&self, id: u64) -> Result<Page<'_>, Fault> {
        Page::parse(self.run(id)?, id, id * self.page_size as u64)
    }
}

/// Where a bucket's tree begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BucketRoot {
    /// The bucket is not there.
    Absent,
    /// A page of its own.
    Page { id: u64, sequence: u64 },
    /// Within the root bucket's leaf: where in the file, and how many bytes.
    Inline {
        outer: u64,
        offset: u64,
        len: usize,
        sequence: u64,
    },
}

impl BucketRoot {
    /// Reads the value of a bucket's element in page `outer`, which lies at `offset` in the file.
    pub(super) fn read(value: &[u8], outer: u64, offset: u64) -> Result<BucketRoot, Fault> {
        let fault = Fault {
            page: outer,
            offset,
            kind: FaultKind::BadBucket,
        };
        let id = u64_at(value, 0).ok_or(fault)?;
        let sequence = u64_at(value, 8).ok_or(fault)?;
        if id != 0 {
            return Ok(BucketRoot::Page { id, sequence });
        }
        let len = value.len() - BUCKET_HEADER_LEN;
        if len < HEADER_LEN {
            return Err(fault);
        }
        Ok(BucketRoot::Inline {
            outer,
            offset: offset + BUCKET_HEADER_LEN as u64,
            len,
            sequence,
        })
    }
}

/// One version of the tree.
pub struct Root<M: Map> {
    pub(super) pages: Pages<M>,
    pub(super) meta: Meta,
    buckets: [BucketRoot; BUCKETS.len()],
}

impl<M: Map> Root<M> {
    /// The version that `meta` stands for. The file has at least `meta.size()` bytes, and `map` room for them.
    pub(super) fn new(map: M, meta: Meta) -> Result<Root<M>, Fault> {
        assert!(map.capacity() >= meta.size());
        let pages = Pages {
            map,
            page_size: meta.page_size as usize,
            high_water: meta.high_water,
        };
        let mut root = Root {
            pages,
            meta,
            buckets: [BucketRoot::Absent; BUCKETS.len()],
        };
        for bucket in BUCKETS {
            root.buckets[bucket as usize] = root.find_bucket(bucket.name().as_bytes())?;
        }
        Ok(root)
    }

    /// A bucket by name, whether etcd's or not.
    pub(super) fn find_bucket(&self, name: &[u8]) -> Result<BucketRoot, Fault> {
        let mut cursor = self.root_cursor();
        match cursor.seek(name)? {
            Some(element) if element.key == name && element.flags & BUCKET_FLAG != 0 => self.bucket_root(&cursor),
            _ => Ok(BucketRoot::Absent),
        }
    }

    /// The bucket at which a cursor over the root bucket stands.
    pub(super) fn bucket_root(&self, cursor: &Cursor<'_, M>) -> Result<BucketRoot, Fault> {
        let Some((page, element)) = cursor.current()? else {
            return Ok(BucketRoot::Absent);
        };
        BucketRoot::read(element.value, page.id(), page.offset_of(element.value))
    }

    /// A cursor over the root bucket, whose values are buckets.
    pub(super) fn root_cursor(&self) -> Cursor<'_, M> {
        let root = BucketRoot::Page {
            id: self.meta.root,
            sequence: self.meta.sequence,
        };
        Cursor::new(&self.pages, root)
    }

    /// Where a bucket begins.
    pub(super) fn bucket(&self, bucket: Bucket) -> BucketRoot {
        self.buckets[bucket as usize]
    }

    /// Whether the file has a bucket; one without keys is there too.
    pub fn has_bucket(&self, bucket: Bucket) -> bool {
        !matches!(self.bucket(bucket), BucketRoot::Absent)
    }

    /// A cursor over a bucket.
    pub fn cursor(&self, bucket: Bucket) -> Cursor<'_, M> {
        Cursor::new(&self.pages, self.bucket(bucket))
    }

    /// A value of this version. Does not allocate.
    #[inline]
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        let mut page = match self.bucket(bucket) {
            BucketRoot::Absent => return Ok(None),
            BucketRoot::Page { id, .. } => self.pages.page(id)?,
            BucketRoot::Inline { outer, offset, len, .. } => {
                Page::parse(self.pages.map.bytes(offset, len), outer, offset)?
            }
        };
        let mut start = None;
        for _ in 0..DEPTH_MAX {
            let found = match start {
                Some(start) => page.search_from(key, start)?,
                None => page.search(key)?,
            };
            if page.is_leaf() {
                return match found {
                    Ok(index) => Ok(Some(page.leaf(index)?.value)),
                    Err(_) => Ok(None),
                };
            }
            let index = match found {
                Ok(index) => index,
                Err(index) => index.saturating_sub(1),
            };
            let child = self.pages.page(page.child(index)?)?;
            // Where in the child the key is likely to be is known from here, where its neighbours' first keys are at hand:
            // without a look at keys of the child, which lie far apart.
            start = if index + 1 < page.count() {
                guess(key, page.key(index)?, page.key(index + 1)?, child.count())
            } else {
                None
            };
            page = child;
        }
        Err(page.fault(0, FaultKind::TooDeep))
    }

    /// Where in the file the value under `key` begins, in bytes, for the words about a damaged one. Looks at every key, since
    /// it may be the key that is damaged and its place the wrong one; if keys repeat, it is the later one that is told.
    pub fn locate(&self, bucket: Bucket, key: &[u8]) -> Option<u64> {
        let mut cursor = self.cursor(bucket);
        let mut found = None;
        let mut element = cursor.first();
        while let Ok(Some(at)) = element {
            if at.key == key {
                found = cursor
                    .current()
                    .ok()
                    .flatten()
                    .map(|(page, element)| page.offset_of(element.value));
            }
            element = cursor.next();
        }
        found
    }

    /// The transaction that made this version.
    pub fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// Bytes up to its last page in use.
    pub fn size(&self) -> u64 {
        self.meta.size()
    }
}

/// Levels a tree can have. With revisions as keys a branch of 4 KiB has a hundred children; even with keys so long that it
/// has two, this is for a million leaves.
pub(super) const DEPTH_MAX: usize = 20;

/// Holds a version of the tree: while it lives, the pages of that version are not used for anything else.
pub struct Pin<M: Map>(pub(super) Arc<Root<M>>);

impl<M: Map> Clone for Pin<M> {
    fn clone(&self) -> Pin<M> {
        Pin(self.0.clone())
    }
}

impl<M: Map> Deref for Pin<M> {
    type Target = Root<M>;
    fn deref(&self) -> &Root<M> {
        &self.0
    }
}
