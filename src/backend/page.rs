//! Pages as bytes: where things stand in them, read with every bound checked.
//!
//! ```text
//! page run (1 + overflow pages)      all integers little-endian
//!  0        8      10     12         16
//!  │ id u64 │ type │ count│ overflow │ elements … │ keys and values … │ unused … │ seal (16 bytes, ours) │
//! leaf element:   flags u32 │ pos u32 │ key len u32 │ value len u32      pos counts from the element's own start
//! branch element: pos u32 │ key len u32 │ child u64
//! seal:           mark u32 │ crc u32 │ page id u64
//! ```
//!
//! The seal is ours, and stands only where the content leaves room for it: CRC-32 over the run without the crc field.
//! bbolt ignores what is behind the content and writes zeros there, so that a page rewritten by it has no seal. Whoever
//! writes a run here writes it whole, so a stale seal cannot outlive the page's reuse.

use super::{
    fault::{Fault, FaultKind},
    search::{search_between, search_from},
};

/// Bytes of a page's header.
pub(super) const HEADER_LEN: usize = 16;
/// Bytes of an element's entry in a leaf and in a branch alike.
pub(super) const ELEMENT_LEN: usize = 16;
/// Bytes of the seal.
pub(super) const SEAL_LEN: usize = 16;
/// What a seal begins with.
const SEAL_MARK: [u8; 4] = *b"rgd1";

/// A page of children.
pub(super) const BRANCH: u16 = 0x01;
/// A page of keys and values.
pub(super) const LEAF: u16 = 0x02;
/// One of the two first pages.
pub(super) const META: u16 = 0x04;
/// A list of free pages.
pub(super) const FREELIST: u16 = 0x10;
/// In a leaf element's flags: the value is a bucket.
pub(super) const BUCKET_FLAG: u32 = 0x01;

#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A page's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) kind: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Header {
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        Some(Header {
            id: u64_at(bytes, 0)?,
            kind: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }

    pub(super) fn write(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.kind.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
    }
}

/// A leaf or branch page whose elements' entries lie within it; their keys and values are checked when they are read.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    bytes: &'a [u8],
    /// Where the bytes begin in the file, for faults; inline pages lie within another page.
    offset: u64,
    id: u64,
    count: u16,
    is_leaf: bool,
}

/// A leaf's element.
#[derive(Clone, Copy)]
pub(super) struct LeafElement<'a> {
    pub(super) flags: u32,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Page<'a> {
    /// Reads a leaf or branch. `id` is the page's number, and the number of the page around it for an inline page.
    #[inline]
    pub(super) fn parse(bytes: &'a [u8], id: u64, offset: u64) -> Result<Page<'a>, Fault> {
        let fault = |kind| Fault { page: id, offset, kind };
        let header = Header::read(bytes).ok_or(fault(FaultKind::ElementsOverrun))?;
        let is_leaf = match header.kind {
            LEAF => true,
            BRANCH => false,
            kind => return Err(fault(FaultKind::WrongType(kind))),
        };
        if HEADER_LEN + usize::from(header.count) * ELEMENT_LEN > bytes.len() {
            return Err(fault(FaultKind::ElementsOverrun));
        }
        if !is_leaf && header.count == 0 {
            return Err(fault(FaultKind::EmptyBranch));
        }
        Ok(Page {
            bytes,
            offset,
            id,
            count: header.count,
            is_leaf,
        })
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.is_leaf
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Where it begins in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where in the file a part of the page begins, in bytes.
    pub(super) fn offset_of(&self, part: &[u8]) -> u64 {
        self.offset + (part.as_ptr() as usize - self.bytes.as_ptr() as usize) as u64
    }

    /// A leaf element's flags.
    #[inline]
    pub(super) fn flags(&self, index: usize) -> Result<u32, Fault> {
        debug_assert!(self.is_leaf);
        Ok(u32_at(self.entry(index)?, 0).unwrap_or(0))
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Pages that it takes.
    pub(super) fn page_count(&self, page_size: usize) -> u64 {
        self.bytes.len().div_ceil(page_size) as u64
    }

    /// A fault in this page, at an element.
    pub(super) fn fault(&self, index: usize, kind: FaultKind) -> Fault {
        Fault {
            page: self.id,
            offset: self.offset + (HEADER_LEN + index * ELEMENT_LEN) as u64,
            kind,
        }
    }

    #[inline]
    fn slice(&self, index: usize, pos: u32, len: u32) -> Result<&'a [u8], Fault> {
        let start = HEADER_LEN + index * ELEMENT_LEN + pos as usize;
        match self.bytes.get(start..).and_then(|rest| rest.get(..len as usize)) {
            Some(slice) => Ok(slice),
            None => Err(self.fault(index, FaultKind::ElementOutOfPage)),
        }
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<&'a [u8; ELEMENT_LEN], Fault> {
        self.bytes
            .get(HEADER_LEN + index * ELEMENT_LEN..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(self.fault(index, FaultKind::ElementsOverrun))
    }

    /// The key of an element, of either kind of page.
    #[inline]
    pub(super) fn key(&self, index: usize) -> Result<&'a [u8], Fault> {
        let entry = self.entry(index)?;
        let at = if self.is_leaf { 4 } else { 0 };
        let pos = u32_at(entry, at).unwrap_or(0);
        let len = u32_at(entry, at + 4).unwrap_or(0);
        let key = self.slice(index, pos, len)?;
        if key.is_empty() {
            Err(self.fault(index, FaultKind::EmptyKey))
        } else {
            Ok(key)
        }
    }

    /// A leaf's element.
    #[inline]
    pub(super) fn leaf(&self, index: usize) -> Result<LeafElement<'a>, Fault> {
        debug_assert!(self.is_leaf);
        let entry = self.entry(index)?;
        let field = |at| u32_at(entry, at).unwrap_or(0);
        let (pos, key_len, value_len) = (field(4), field(8), field(12));
        let key = self.slice(index, pos, key_len)?;
        if key.is_empty() {
            return Err(self.fault(index, FaultKind::EmptyKey));
        }
        let value_pos = pos
            .checked_add(key_len)
            .ok_or(self.fault(index, FaultKind::ElementOutOfPage))?;
        let value = self.slice(index, value_pos, value_len)?;
        Ok(LeafElement {
            flags: field(0),
            key,
            value,
        })
    }

    /// A branch's child.
    #[inline]
    pub(super) fn child(&self, index: usize) -> Result<u64, Fault> {
        debug_assert!(!self.is_leaf);
        let entry = self.entry(index)?;
        Ok(u64_at(entry, 8).unwrap_or(0))
    }

    /// Where `key` is, or where it would be: as `slice::binary_search`.
    #[inline]
    pub(super) fn search(&self, key: &[u8]) -> Result<Result<usize, usize>, Fault> {
        search_between(0..self.count(), |index| Ok(self.key(index)?.cmp(key)))
    }

    /// As [`Page::search`], beginning at an element.
    #[inline]
    pub(super) fn search_from(&self, key: &[u8], guess: usize) -> Result<Result<usize, usize>, Fault> {
        search_from(self.count(), guess, |index| Ok(self.key(index)?.cmp(key)))
    }

    /// The branch's child under which `key` belongs: the last whose first key is not greater, or the first one.
    #[inline]
    pub(super) fn child_index(&self, key: &[u8]) -> Result<usize, Fault> {
        Ok(match self.search(key)? {
            Ok(index) => index,
            Err(index) => index.saturating_sub(1),
        })
    }

    /// Whether the run has a seal; a fault if it does not match. Not for inline pages, which have none.
    pub(super) fn verify_seal(&self) -> Result<bool, Fault> {
        match seal_matches(self.bytes, self.id) {
            None => Ok(false),
            Some(true) => Ok(true),
            // Content that reaches to the end could look like a seal by a chance of one in 2^96; then it is content.
            Some(false) if self.content_len()? + SEAL_LEN > self.bytes.len() => Ok(false),
            Some(false) => Err(Fault {
                page: self.id,
                offset: self.offset,
                kind: FaultKind::Checksum,
            }),
        }
    }

    /// Where the content ends, in bytes from the page's start. Reads every element.
    pub(super) fn content_len(&self) -> Result<usize, Fault> {
        let mut end = HEADER_LEN + self.count() * ELEMENT_LEN;
        let start = self.bytes.as_ptr() as usize;
        for index in 0..self.count() {
            let last = if self.is_leaf {
                self.leaf(index)?.value
            } else {
                self.key(index)?
            };
            end = end.max(last.as_ptr() as usize - start + last.len());
        }
        Ok(end)
    }
}

/// Writes the seal if the content, which ends at `content_len`, leaves room for it. The rest of the run is zero.
pub(super) fn seal(run: &mut [u8], id: u64, content_len: usize) {
    let len = run.len();
    if content_len + SEAL_LEN > len {
        return;
    }
    let at = len - SEAL_LEN;
    run[at..at + 4].copy_from_slice(&SEAL_MARK);
    run[at + 8..].copy_from_slice(&id.to_le_bytes());
    let crc = seal_crc(run);
    run[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Whether the run matches its seal: `None` if it has none. A run whose content reaches into the seal's place has none.
pub(super) fn seal_matches(run: &[u8], id: u64) -> Option<bool> {
    let at = run.len().checked_sub(SEAL_LEN)?;
    if run[at..at + 4] != SEAL_MARK || u64_at(run, at + 8) != Some(id) {
        return None;
    }
    Some(u32_at(run, at + 4) == Some(seal_crc(run)))
}

fn seal_crc(run: &[u8]) -> u32 {
    let at = run.len() - SEAL_LEN;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&run[..at + 4]);
    hasher.update(&run[at + 8..]);
    hasher.finalize()
}

/// Every way of reading a page, over arbitrary bytes.
pub(crate) fn fuzz_page(bytes: &[u8]) {
    _ = Header::read(bytes);
    _ = seal_matches(bytes, 7);
    let Ok(page) = Page::parse(bytes, 7, 7 * 4096) else {
        return;
    };
    for index in 0..page.count() {
        _ = page.key(index);
        if page.is_leaf() {
            _ = page.leaf(index)
        } else {
            _ = page.child(index)
        }
    }
    _ = page.search(b"key");
    _ = page.child_index(b"key");
    _ = page.content_len();
}
