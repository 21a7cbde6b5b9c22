//! Visits every page that a version reaches: to know which are free when a file is opened, and for a whole-file check.
//!
//! Seals are verified here and not on each read: at open, where every page is touched anyway and a checksum adds little
//! to that; by a check; and by defragmentation, which would else give damaged content a new seal. Between these a page in
//! memory is as good as any other memory.

use crate::host::Map;

use super::{
    fault::{Fault, FaultKind},
    page::{BUCKET_FLAG, Page},
    root::{BucketRoot, DEPTH_MAX, Pages, Root},
};

/// A bit for each page.
pub(super) struct PageSet(Vec<u64>);

impl PageSet {
    pub(super) fn new(page_count: u64) -> PageSet {
        PageSet(vec![0; page_count.div_ceil(64) as usize])
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.0[(id / 64) as usize] & (1 << (id % 64)) != 0
    }

    /// Whether it was not in the set.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        let word = &mut self.0[(id / 64) as usize];
        let is_new = *word & (1 << (id % 64)) == 0;
        *word |= 1 << (id % 64);
        is_new
    }
}

/// What a walk looks at, besides references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Page types, ranges, bucket headers and seals.
    References,
    /// Every key's order, too.
    Keys,
}

/// A walk in progress.
pub(super) struct Walk<'a, M> {
    pages: &'a Pages<M>,
    depth: Depth,
    /// Pages that were reached.
    pub(super) used: PageSet,
    /// Pages that have a seal.
    pub(super) sealed_count: u64,
    /// Runs that were reached.
    pub(super) run_count: u64,
    /// What was wrong, up to [`FAULTS_MAX`]; the subtree below a fault is passed over.
    pub(super) faults: Vec<Fault>,
}

/// Faults that are told of; a damaged file may have one per page.
const FAULTS_MAX: usize = 1000;

/// The keys that a page may have: not less than `from`, less than `to`.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    from: &'a [u8],
    to: Option<&'a [u8]>,
}

impl<'a, M: Map> Walk<'a, M> {
    /// Visits everything that `root` reaches.
    pub(super) fn run(root: &'a Root<M>, depth: Depth) -> Walk<'a, M> {
        let mut walk = Walk {
            pages: &root.pages,
            depth,
            used: PageSet::new(root.meta.high_water),
            sealed_count: 0,
            run_count: 0,
            faults: Vec::new(),
        };
        walk.used.insert(0);
        walk.used.insert(1);
        walk.visit(root.meta.root, Bounds { from: &[], to: None }, 0);
        walk
    }

    fn note(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn visit(&mut self, id: u64, bounds: Bounds<'a>, level: usize) {
        if let Err(fault) = self.visit_page(id, bounds, level) {
            self.note(fault);
        }
    }

    fn visit_page(&mut self, id: u64, bounds: Bounds<'a>, level: usize) -> Result<(), Fault> {
        let run = self.pages.run(id)?;
        let offset = id * self.pages.page_size as u64;
        let fault = |kind| Fault { page: id, offset, kind };
        if level == DEPTH_MAX {
            return Err(fault(FaultKind::TooDeep));
        }
        for page in id..id + (run.len() / self.pages.page_size) as u64 {
            if !self.used.insert(page) {
                return Err(Fault {
                    page,
                    offset: page * self.pages.page_size as u64,
                    kind: FaultKind::ReachedTwice,
                });
            }
        }
        self.run_count += 1;
        let page = Page::parse(run, id, offset)?;
        if page.verify_seal()? {
            self.sealed_count += 1;
        }
        self.visit_elements(page, bounds, level)
    }

    fn visit_elements(&mut self, page: Page<'a>, bounds: Bounds<'a>, level: usize) -> Result<(), Fault> {
        if self.depth == Depth::Keys {
            self.check_keys(&page, bounds)?;
        }
        for index in 0..page.count() {
            if !page.is_leaf() {
                let below = if self.depth == Depth::Keys {
                    let to = if index + 1 < page.count() {
                        Some(page.key(index + 1)?)
                    } else {
                        bounds.to
                    };
                    Bounds {
                        from: page.key(index)?,
                        to,
                    }
                } else {
                    bounds
                };
                self.visit(page.child(index)?, below, level + 1);
            } else if page.flags(index)? & BUCKET_FLAG != 0
                && let Err(fault) = self.visit_bucket(&page, index, level)
            {
                self.note(fault);
            }
        }
        Ok(())
    }

    fn visit_bucket(&mut self, page: &Page<'a>, index: usize, level: usize) -> Result<(), Fault> {
        let value = page.leaf(index)?.value;
        let all = Bounds { from: &[], to: None };
        let within = value.as_ptr() as usize - page.bytes().as_ptr() as usize;
        match BucketRoot::read(value, page.id(), page.offset() + within as u64)? {
            BucketRoot::Absent => {}
            BucketRoot::Page { id, .. } => self.visit(id, all, level + 1),
            BucketRoot::Inline { outer, offset, len, .. } => {
                let inner = Page::parse(&value[value.len() - len..], outer, offset)?;
                let has_buckets =
                    || (0..inner.count()).any(|i| inner.flags(i).is_ok_and(|flags| flags & BUCKET_FLAG != 0));
                if !inner.is_leaf() || has_buckets() {
                    return Err(inner.fault(0, FaultKind::BadBucket));
                }
                self.visit_elements(inner, all, level + 1)?;
            }
        }
        Ok(())
    }

    fn check_keys(&mut self, page: &Page<'a>, bounds: Bounds<'a>) -> Result<(), Fault> {
        let mut before: Option<&[u8]> = None;
        for index in 0..page.count() {
            let key = if page.is_leaf() {
                page.leaf(index)?.key
            } else {
                page.key(index)?
            };
            let is_in_order =
                before.is_none_or(|before| before < key) && bounds.from <= key && bounds.to.is_none_or(|to| key < to);
            if !is_in_order {
                return Err(page.fault(index, FaultKind::KeyOrder));
            }
            before = Some(key);
        }
        Ok(())
    }
}
