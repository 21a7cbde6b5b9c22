//! The two meta pages: which tree is the newest, and which pages are in use.
//!
//! ```text
//! page header │ magic u32 │ version u32 │ page size u32 │ flags u32 │ root u64 │ sequence u64 │ freelist u64
//!             │ high water u64 │ txid u64 │ checksum u64 (FNV-1a of the 56 bytes before it)
//! ```
//!
//! Transaction `n` writes page `n % 2`, so that the meta before it stays whole until the new one is.

use super::{
    fault::OpenFault,
    page::{HEADER_LEN, Header, META, u32_at, u64_at},
};

/// Bytes of a meta behind its page header.
pub(super) const META_LEN: usize = 64;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// What `freelist` says when no list is written.
pub(super) const NO_FREELIST: u64 = u64::MAX;
/// Page sizes that bbolt tries when the first meta is damaged.
const PAGE_SIZE_MIN: u32 = 1024;
const PAGE_SIZE_MAX: u32 = 1024 << 14;

/// A meta page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of a page.
    pub page_size: u32,
    /// The page of the root bucket.
    pub root: u64,
    /// The root bucket's sequence; etcd does not use it.
    pub sequence: u64,
    /// The page of the free list, or all ones if it is not written.
    pub freelist: u64,
    /// The first page number that was never used: the file has at least this many pages.
    pub high_water: u64,
    /// The transaction that wrote it.
    pub txid: u64,
}

/// Why one meta page is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaFault {
    Magic,
    Version(u32),
    Content,
}

impl Meta {
    /// Bytes up to the last page in use.
    pub fn size(&self) -> u64 {
        self.high_water * u64::from(self.page_size)
    }

    /// Reads a meta page.
    pub(super) fn read(page: &[u8]) -> Result<Meta, MetaFault> {
        let bytes = page.get(HEADER_LEN..HEADER_LEN + META_LEN).ok_or(MetaFault::Magic)?;
        let u32_at = |at| u32_at(bytes, at).unwrap_or(0);
        let u64_at = |at| u64_at(bytes, at).unwrap_or(0);
        if u32_at(0) != MAGIC {
            return Err(MetaFault::Magic);
        }
        if u32_at(4) != VERSION {
            return Err(MetaFault::Version(u32_at(4)));
        }
        if u64_at(56) != fnv1a(&bytes[..56]) {
            return Err(MetaFault::Content);
        }
        let meta = Meta {
            page_size: u32_at(8),
            root: u64_at(16),
            sequence: u64_at(24),
            freelist: u64_at(32),
            high_water: u64_at(40),
            txid: u64_at(48),
        };
        // A checksum does not make numbers sensible; what follows relies on these.
        let is_sane = meta.page_size.is_power_of_two()
            && (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&meta.page_size)
            && meta.root >= 2
            && meta.root < meta.high_water
            && meta.high_water <= u64::MAX / u64::from(PAGE_SIZE_MAX);
        if is_sane { Ok(meta) } else { Err(MetaFault::Content) }
    }

    /// The meta page that this transaction writes, and its number.
    pub(super) fn page(&self) -> (u64, Vec<u8>) {
        let id = self.txid % 2;
        (id, self.page_as(id))
    }

    /// The meta as page `id`.
    pub(super) fn page_as(&self, id: u64) -> Vec<u8> {
        let mut page = vec![0; self.page_size as usize];
        let header = Header {
            id,
            kind: META,
            count: 0,
            overflow: 0,
        };
        header.write(&mut page);
        let bytes = &mut page[HEADER_LEN..HEADER_LEN + META_LEN];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        for (at, field) in [
            (16, self.root),
            (24, self.sequence),
            (32, self.freelist),
            (40, self.high_water),
            (48, self.txid),
        ] {
            bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let checksum = fnv1a(&bytes[..56]);
        bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
        page
    }
}

/// The newest valid meta. `read(offset)` gives the first bytes of the page at `offset`, at least 80 if the file has them.
pub(super) fn choose<'a>(size: u64, read: impl Fn(u64) -> &'a [u8]) -> Result<Meta, OpenFault> {
    let first = Meta::read(read(0));
    // The second meta's place depends on the page size, which the first one knows. Without it, all are tried.
    let second = match first {
        Ok(meta) => Meta::read(read(u64::from(meta.page_size))),
        Err(_) => (0..=14)
            .map(|shift| u64::from(PAGE_SIZE_MIN) << shift)
            .take_while(|at| at + ((HEADER_LEN + META_LEN) as u64) <= size)
            .map(|at| (at, Meta::read(read(at))))
            .filter(|(at, meta)| meta.is_ok_and(|meta| u64::from(meta.page_size) == *at))
            .map(|(_, meta)| meta)
            .next()
            .unwrap_or_else(|| Meta::read(read(4096))),
    };
    let meta = match (first, second) {
        (Ok(first), Ok(second)) if first.page_size == second.page_size && second.txid > first.txid => second,
        (Ok(first), _) => first,
        (Err(_), Ok(second)) => second,
        (Err(MetaFault::Version(version)), Err(_)) | (Err(MetaFault::Magic), Err(MetaFault::Version(version))) => {
            return Err(OpenFault::Version(version));
        }
        (Err(MetaFault::Magic), Err(MetaFault::Magic)) => return Err(OpenFault::NotDatabase),
        (Err(_), Err(_)) => return Err(OpenFault::MetasInvalid),
    };
    if meta.size() > size {
        return Err(OpenFault::TooSmall {
            size,
            needed: meta.size(),
        });
    }
    Ok(meta)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(txid: u64) -> Meta {
        Meta {
            page_size: 4096,
            root: 3,
            sequence: 0,
            freelist: NO_FREELIST,
            high_water: 4,
            txid,
        }
    }

    fn choose_of(image: &[u8]) -> Result<Meta, OpenFault> {
        choose(image.len() as u64, |offset| image.get(offset as usize..).unwrap_or(&[]))
    }

    fn image(txids: [u64; 2]) -> Vec<u8> {
        let mut image = meta(txids[0]).page_as(0);
        image.extend(meta(txids[1]).page_as(1));
        image.resize(4 * 4096, 0);
        image
    }

    #[test]
    fn the_newest_valid_meta_is_chosen() {
        assert_eq!(choose_of(&image([4, 5])).unwrap().txid, 5);
        assert_eq!(choose_of(&image([6, 5])).unwrap().txid, 6);
        let mut torn = image([6, 5]);
        torn[20] ^= 1;
        assert_eq!(choose_of(&torn).unwrap().txid, 5);
        let mut torn = image([4, 5]);
        torn[4096 + 70] ^= 1;
        assert_eq!(choose_of(&torn).unwrap().txid, 4);
    }

    #[test]
    fn what_is_not_a_database_is_named_as_such() {
        assert!(matches!(choose_of(&[0; 16384]), Err(OpenFault::NotDatabase)));
        assert!(matches!(choose_of(b"short"), Err(OpenFault::NotDatabase)));
        let mut other = image([4, 5]);
        for page in [0, 4096] {
            other[page + 20] = 1;
        }
        assert!(matches!(choose_of(&other), Err(OpenFault::Version(1))));
        let mut damaged = image([4, 5]);
        for page in [0, 4096] {
            damaged[page + 60] ^= 0xff;
        }
        assert!(matches!(choose_of(&damaged), Err(OpenFault::MetasInvalid)));
        let short = &image([4, 5])[..3 * 4096];
        assert!(matches!(
            choose_of(short),
            Err(OpenFault::TooSmall {
                size: 12288,
                needed: 16384
            })
        ));
    }
}
