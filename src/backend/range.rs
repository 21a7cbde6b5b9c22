//! A range of a bucket across the batches and the tree: the newest layer that knows a key decides about it.

use crate::host::Map;

use super::{
    batch::{BucketBatch, BucketBatchIter, Change},
    cursor::Cursor,
    fault::Fault,
};

/// Pairs of a range in ascending order. It ends after the first fault.
pub struct Range<'a, M: Map> {
    /// Exclusive; `None` for no end.
    to: Option<Box<[u8]>>,
    layers: [Option<Layer<'a>>; 2],
    tree: Cursor<'a, M>,
    tree_next: Option<(&'a [u8], &'a [u8])>,
    fault: Option<Fault>,
}

/// One batch, with its next change at hand.
struct Layer<'a> {
    next: Option<(&'a [u8], &'a Change)>,
    rest: BucketBatchIter<'a>,
}

impl<'a, M: Map> Range<'a, M> {
    /// `batches` from the newest to the oldest.
    pub(super) fn new(
        batches: [Option<&'a BucketBatch>; 2],
        mut tree: Cursor<'a, M>,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Range<'a, M> {
        let (tree_next, fault) = match tree.seek_key(from) {
            Ok(next) => (next, None),
            Err(fault) => (None, Some(fault)),
        };
        let layers = batches.map(|batch| {
            let mut rest = batch.filter(|batch| !batch.is_empty())?.iter_from(from);
            Some(Layer {
                next: rest.next(),
                rest,
            })
        });
        Range {
            to: to.map(Box::from),
            layers,
            tree,
            tree_next,
            fault,
        }
    }

    /// Ends the range with a fault.
    fn fail(&mut self, fault: Fault) -> Option<Result<(&'a [u8], &'a [u8]), Fault>> {
        self.layers = [None, None];
        self.tree_next = None;
        Some(Err(fault))
    }
}

impl<'a, M: Map> Iterator for Range<'a, M> {
    type Item = Result<(&'a [u8], &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(fault) = self.fault.take() {
            return self.fail(fault);
        }
        loop {
            let mut least = self.tree_next.map(|(key, _)| key);
            for layer in self.layers.iter().flatten() {
                if let Some((key, _)) = layer.next
                    && least.is_none_or(|least| key < least)
                {
                    least = Some(key);
                }
            }
            let key = least?;
            if self.to.as_ref().is_some_and(|to| key >= &to[..]) {
                return None;
            }
            let mut decided: Option<Option<&'a [u8]>> = None;
            for layer in self.layers.iter_mut().flatten() {
                if let Some((present, change)) = layer.next
                    && present == key
                {
                    decided = decided.or(Some(change.as_deref()));
                    layer.next = layer.rest.next();
                }
            }
            if let Some((present, value)) = self.tree_next
                && present == key
            {
                decided = decided.or(Some(Some(value)));
                match self.tree.step() {
                    Ok(next) => self.tree_next = next,
                    // What was read before the fault is still told; the fault comes next.
                    Err(fault) => {
                        self.tree_next = None;
                        self.fault = Some(fault);
                    }
                }
            }
            if let Some(Some(value)) = decided {
                return Some(Ok((key, value)));
            }
            if let Some(fault) = self.fault.take() {
                return self.fail(fault);
            }
        }
    }
}
