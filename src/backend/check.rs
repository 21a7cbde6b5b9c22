//! Whether a whole database file is sound: for `ringd check`, for files received from elsewhere, and for tests.
//!
//! What bbolt's own checker looks at (every page reached once or free, types, ranges, order of keys), and our seals.

use crate::host::Map;

use super::{
    fault::{Fault, FaultKind, OpenFault},
    meta::{NO_FREELIST, choose},
    page::{FREELIST, HEADER_LEN, Header, u64_at},
    root::{Pages, Root},
    walk::{Depth, PageSet, Walk},
};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Bytes of a page.
    pub page_size: u32,
    /// The newest transaction.
    pub txid: u64,
    /// Pages up to the last in use.
    pub page_count: u64,
    /// Pages that the tree reaches, metas and free list included.
    pub used_count: u64,
    /// Runs of pages (a page with its overflow counts once) in the tree.
    pub run_count: u64,
    /// Those of them that carry our seal, which matched.
    pub sealed_count: u64,
    /// What is wrong; empty for a sound file.
    pub faults: Vec<Fault>,
}

/// Checks a file of `size` bytes, seen through `map`. Nobody writes to it meanwhile.
pub fn check<M: Map>(map: M, size: u64) -> Result<CheckReport, OpenFault> {
    let root = open_root(map, size)?;
    let mut walk = Walk::run(&root, Depth::Keys);
    if root.meta.freelist != NO_FREELIST
        && let Err(fault) = check_freelist(&root, &mut walk.used)
    {
        walk.faults.push(fault);
    }
    let used_count = (0..root.meta.high_water).filter(|id| walk.used.contains(*id)).count() as u64;
    Ok(CheckReport {
        page_size: root.meta.page_size,
        txid: root.meta.txid,
        page_count: root.meta.high_water,
        used_count,
        run_count: walk.run_count,
        sealed_count: walk.sealed_count,
        faults: walk.faults,
    })
}

/// The newest version in a file of `size` bytes that nobody writes: for reading it without a store. Damage below the root
/// is found when it is read.
pub fn open_root<M: Map>(map: M, size: u64) -> Result<Root<M>, OpenFault> {
    let meta = choose(size, |offset| {
        let len = size.saturating_sub(offset).min(META_READ_LEN);
        if len == 0 { &[] } else { map.bytes(offset, len as usize) }
    })?;
    Ok(Root::new(map, meta)?)
}

/// Bytes that are read of a page that may be a meta.
const META_READ_LEN: u64 = 128;

/// The run of the free list page that a version names.
pub(super) fn freelist_run<M: Map>(pages: &Pages<M>, id: u64) -> Result<&[u8], Fault> {
    let run = pages.run(id)?;
    match Header::read(run) {
        Some(header) if header.kind == FREELIST => Ok(run),
        header => Err(Fault {
            page: id,
            offset: id * pages.page_size as u64,
            kind: FaultKind::WrongType(header.map_or(0, |header| header.kind)),
        }),
    }
}

/// Page numbers in a free list. A count that does not fit into the header stands in front of them.
fn freelist_ids(run: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let header = Header::read(run)?;
    let (skip, count) = match header.count {
        0xFFFF => (1, usize::try_from(u64_at(run, HEADER_LEN)?).ok()?),
        count => (0, usize::from(count)),
    };
    let ids = run.get(HEADER_LEN + skip * 8..)?.get(..count.checked_mul(8)?)?;
    Some(ids.chunks_exact(8).filter_map(|id| u64_at(id, 0)))
}

/// Each page is reached by the tree or named by the free list once, and not both. Pages of the list itself are used.
fn check_freelist<M: Map>(root: &Root<M>, used: &mut PageSet) -> Result<(), Fault> {
    let list_id = root.meta.freelist;
    let page_size = root.pages.page_size as u64;
    let fault = |page, kind| Fault {
        page,
        offset: page * page_size,
        kind,
    };
    let run = freelist_run(&root.pages, list_id)?;
    for id in list_id..list_id + run.len() as u64 / page_size {
        if !used.insert(id) {
            return Err(fault(id, FaultKind::ReachedTwice));
        }
    }
    let mut free = PageSet::new(root.meta.high_water);
    for id in freelist_ids(run).ok_or(fault(list_id, FaultKind::BadFreelist))? {
        if id < 2 || id >= root.meta.high_water || !free.insert(id) {
            return Err(fault(list_id, FaultKind::BadFreelist));
        }
        if used.contains(id) {
            return Err(fault(id, FaultKind::FreeInUse));
        }
    }
    match (2..root.meta.high_water).find(|id| !used.contains(*id) && !free.contains(*id)) {
        Some(id) => Err(fault(id, FaultKind::Lost)),
        None => Ok(()),
    }
}

/// Everything that reads a file, over arbitrary bytes.
pub(crate) fn fuzz_open(bytes: &[u8]) {
    use super::{BUCKETS, image::Image};
    let image = Image::from(bytes.to_vec());
    _ = check(image.clone(), bytes.len() as u64);
    let Ok(root) = open_root(image, bytes.len() as u64) else {
        return;
    };
    for bucket in BUCKETS {
        _ = root.get(bucket, b"some key");
        let mut cursor = root.cursor(bucket);
        let mut pair = cursor.seek_first();
        // A damaged branch may lead in a circle that is not deep: bounded here, and found by the check.
        for _ in 0..2000 {
            match pair {
                Ok(Some(_)) => pair = cursor.step(),
                _ => break,
            }
        }
        _ = cursor.seek_key(b"some key");
        _ = cursor.step_back();
        _ = cursor.seek_last();
    }
}
