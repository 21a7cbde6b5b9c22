//! Walks one bucket of one version in key order, either way, without allocating.

use crate::host::Map;

use super::{
    fault::{Fault, FaultKind},
    page::{LeafElement, Page},
    root::{BucketRoot, DEPTH_MAX, Pages},
};

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A place in a bucket. It starts before the first element.
pub struct Cursor<'a, M: Map> {
    pages: &'a Pages<M>,
    root: BucketRoot,
    /// From the root to the leaf; `depth` of them count.
    frames: [Option<Frame<'a>>; DEPTH_MAX],
    depth: usize,
}

#[derive(Clone, Copy)]
struct Frame<'a> {
    page: Page<'a>,
    index: usize,
}

impl<'a, M: Map> Cursor<'a, M> {
    pub(super) fn new(pages: &'a Pages<M>, root: BucketRoot) -> Cursor<'a, M> {
        Cursor {
            pages,
            root,
            frames: [None; DEPTH_MAX],
            depth: 0,
        }
    }

    fn top(&self) -> Option<&Frame<'a>> {
        self.frames[..self.depth].last()?.as_ref()
    }

    fn push(&mut self, page: Page<'a>, index: usize) -> Result<(), Fault> {
        if self.depth == DEPTH_MAX {
            return Err(page.fault(0, FaultKind::TooDeep));
        }
        self.frames[self.depth] = Some(Frame { page, index });
        self.depth += 1;
        Ok(())
    }

    fn start(&mut self) -> Result<Option<Page<'a>>, Fault> {
        self.depth = 0;
        match self.root {
            BucketRoot::Absent => Ok(None),
            BucketRoot::Page { id, .. } => self.pages.page(id).map(Some),
            BucketRoot::Inline { outer, offset, len, .. } => {
                let page = Page::parse(self.pages.map.bytes(offset, len), outer, offset)?;
                if page.is_leaf() {
                    Ok(Some(page))
                } else {
                    Err(page.fault(0, FaultKind::BadBucket))
                }
            }
        }
    }

    /// Goes from `page` down to a leaf, always to the side given.
    fn descend(&mut self, mut page: Page<'a>, side: Side) -> Result<(), Fault> {
        loop {
            let index = match side {
                Side::First => 0,
                Side::Last => page.count().saturating_sub(1),
            };
            self.push(page, index)?;
            if page.is_leaf() {
                return Ok(());
            }
            page = self.pages.page(page.child(index)?)?;
        }
    }

    /// Goes to the first element.
    pub(super) fn first(&mut self) -> Result<Option<LeafElement<'a>>, Fault> {
        let Some(page) = self.start()? else { return Ok(None) };
        self.descend(page, Side::First)?;
        self.settle(Side::First)
    }

    /// Goes to the last element.
    pub(super) fn last(&mut self) -> Result<Option<LeafElement<'a>>, Fault> {
        let Some(page) = self.start()? else { return Ok(None) };
        self.descend(page, Side::Last)?;
        self.settle(Side::Last)
    }

    /// Goes to the first element whose key is not less than `key`.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<Option<LeafElement<'a>>, Fault> {
        let Some(mut page) = self.start()? else { return Ok(None) };
        loop {
            if page.is_leaf() {
                let index = match page.search(key)? {
                    Ok(index) | Err(index) => index,
                };
                self.push(page, index)?;
                return self.settle(Side::First);
            }
            let index = page.child_index(key)?;
            self.push(page, index)?;
            page = self.pages.page(page.child(index)?)?;
        }
    }

    /// Goes one element on.
    pub(super) fn next(&mut self) -> Result<Option<LeafElement<'a>>, Fault> {
        if self.depth == 0 {
            return Ok(None);
        }
        if let Some(Some(frame)) = self.frames[..self.depth].last_mut() {
            frame.index += 1;
        }
        self.settle(Side::First)
    }

    /// Goes one element back.
    pub(super) fn previous(&mut self) -> Result<Option<LeafElement<'a>>, Fault> {
        match self.top() {
            None => Ok(None),
            Some(frame) if frame.index == 0 => {
                if !self.turn(Side::Last)? {
                    return Ok(None);
                }
                self.settle(Side::Last)
            }
            Some(_) => {
                if let Some(Some(frame)) = self.frames[..self.depth].last_mut() {
                    frame.index -= 1;
                }
                self.settle(Side::Last)
            }
        }
    }

    /// The element here, with its page. After a fault the place may be a branch, where there is none.
    pub(super) fn current(&self) -> Result<Option<(Page<'a>, LeafElement<'a>)>, Fault> {
        match self.top() {
            Some(frame) if frame.page.is_leaf() && frame.index < frame.page.count() => {
                Ok(Some((frame.page, frame.page.leaf(frame.index)?)))
            }
            _ => Ok(None),
        }
    }

    /// Makes the place an element: past the end of a leaf means the next leaf. Leaves without elements are passed over.
    fn settle(&mut self, side: Side) -> Result<Option<LeafElement<'a>>, Fault> {
        loop {
            if let Some((_, element)) = self.current()? {
                return Ok(Some(element));
            }
            if !self.turn(side)? {
                self.depth = 0;
                return Ok(None);
            }
        }
    }

    /// Leaves this leaf for its neighbour: the one behind for `First`, the one before for `Last`.
    fn turn(&mut self, side: Side) -> Result<bool, Fault> {
        while self.depth > 1 {
            self.depth -= 1;
            let Some(frame) = self.frames[self.depth - 1].as_mut() else {
                return Ok(false);
            };
            let is_within = match side {
                Side::First => frame.index + 1 < frame.page.count(),
                Side::Last => frame.index > 0,
            };
            if is_within {
                match side {
                    Side::First => frame.index += 1,
                    Side::Last => frame.index -= 1,
                }
                let child = frame.page.child(frame.index)?;
                let page = self.pages.page(child)?;
                self.descend(page, side)?;
                return Ok(true);
            }
        }
        self.depth = 0;
        Ok(false)
    }

    /// Goes to the first key: `(key, value)`.
    pub fn seek_first(&mut self) -> Result<Option<Pair<'a>>, Fault> {
        Ok(self.first()?.map(LeafElement::pair))
    }

    /// Goes to the last key.
    pub fn seek_last(&mut self) -> Result<Option<Pair<'a>>, Fault> {
        Ok(self.last()?.map(LeafElement::pair))
    }

    /// Goes to `key`, or to the next greater one.
    pub fn seek_key(&mut self, key: &[u8]) -> Result<Option<Pair<'a>>, Fault> {
        Ok(self.seek(key)?.map(LeafElement::pair))
    }

    /// Goes one key on. At the end, and before a seek, there is none.
    pub fn step(&mut self) -> Result<Option<Pair<'a>>, Fault> {
        Ok(self.next()?.map(LeafElement::pair))
    }

    /// Goes one key back.
    pub fn step_back(&mut self) -> Result<Option<Pair<'a>>, Fault> {
        Ok(self.previous()?.map(LeafElement::pair))
    }
}

impl<'a> LeafElement<'a> {
    fn pair(self) -> Pair<'a> {
        (self.key, self.value)
    }
}

#[derive(Clone, Copy)]
enum Side {
    First,
    Last,
}
