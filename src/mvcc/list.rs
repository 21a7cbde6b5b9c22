//! A long list in the index's own order, as bytes, without holding it: the index is walked twice at a pinned revision, once
//! to learn how long the answer is, which stands in front of it, and once to write it. Either walk rests between slices.
//! What a list of a million keys costs is then a slice, and not 16 bytes for each key.
//!
//! What is read stays as it is between the walks: the caller pins [`RangeScan::revision`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    RangeItem, RangeScan, Records, Store,
    respond::{head_len, item_len, put_head, put_item, put_tail, stored, tail_len},
};

/// A list on its way: [`RangeList::measure`] until it is done, then [`RangeList::chunk`] until there are no more.
#[derive(Clone, Debug)]
pub struct RangeList {
    header: Bytes,
    keys_only: bool,
    measured: Walk,
    written: Walk,
    encoded_len: usize,
    /// The number of keys and whether there are more, when the first walk is over.
    totals: Option<(i64, bool)>,
    is_head_written: bool,
    is_tail_written: bool,
}

/// A walk, with the keys that it has found and that are still to be looked at.
#[derive(Clone, Debug)]
struct Walk {
    scan: RangeScan,
    found: VecDeque<RangeItem>,
    /// Keys that the limit leaves.
    left: usize,
    is_over: bool,
}

impl Walk {
    fn new(scan: RangeScan) -> Walk {
        Walk {
            left: scan.limit(),
            scan,
            found: VecDeque::new(),
            is_over: false,
        }
    }

    /// Finds more if what was found is used up.
    fn advance(&mut self, store: &Store, keys_max: usize) {
        if self.found.is_empty() && !self.is_over {
            self.is_over = store.range_slice(&mut self.scan, keys_max);
            self.scan.take_found(&mut self.found);
            self.found.truncate(self.left);
            self.left -= self.found.len();
        }
    }

    fn is_exhausted(&self) -> bool {
        self.found.is_empty() && (self.is_over || self.left == 0)
    }
}

impl RangeList {
    /// A list that has measured nothing yet, of a scan that [`RangeScan::is_plain`]. The other arguments are those of
    /// [`super::encode_range_response`].
    pub fn new(scan: RangeScan, header: Bytes, keys_only: bool) -> RangeList {
        assert!(scan.is_plain(), "what is to be sorted has to be held");
        RangeList {
            encoded_len: head_len(&header),
            header,
            keys_only,
            measured: Walk::new(scan.clone()),
            written: Walk::new(scan),
            totals: None,
            is_head_written: false,
            is_tail_written: false,
        }
    }

    /// Measures a slice of at most `keys_max` keys; true when all are measured.
    pub fn measure<R: Records + ?Sized>(&mut self, store: &Store, records: &R, keys_max: usize) -> bool {
        let walk = &mut self.measured;
        walk.advance(store, keys_max);
        for item in walk.found.drain(..) {
            self.encoded_len += item_len(stored(records, &item), self.keys_only);
        }
        // Beyond the limit the walk goes on for the sake of the count.
        if walk.is_over && self.totals.is_none() {
            let (count, more) = walk.scan.totals();
            self.encoded_len += tail_len(more, count);
            self.totals = Some((count, more));
        }
        self.totals.is_some()
    }

    /// Length of the whole answer in bytes, once it is measured.
    pub fn encoded_len(&self) -> usize {
        assert!(self.totals.is_some(), "the answer must be measured first");
        self.encoded_len
    }

    /// Whether nothing of the answer has been given yet.
    pub fn is_untouched(&self) -> bool {
        !self.is_head_written
    }

    /// Whether all of the answer has been given.
    pub fn is_done(&self) -> bool {
        self.is_tail_written
    }

    /// The next bytes of the answer, of at most `keys_max` keys: about `bytes_max`, or more by what the last record needs.
    /// It may be empty where keys were found that did not exist at the revision.
    pub fn chunk<R: Records + ?Sized>(
        &mut self,
        store: &Store,
        records: &R,
        keys_max: usize,
        bytes_max: usize,
    ) -> Bytes {
        let (count, more) = self.totals.expect("the answer must be measured first");
        let mut out = BytesMut::with_capacity(self.encoded_len.min(bytes_max));
        if !self.is_head_written {
            put_head(&mut out, &self.header);
            self.is_head_written = true;
        }
        let walk = &mut self.written;
        walk.advance(store, keys_max);
        while out.len() < bytes_max
            && let Some(item) = walk.found.pop_front()
        {
            put_item(&mut out, stored(records, &item), self.keys_only);
        }
        if walk.is_exhausted() && !self.is_tail_written {
            put_tail(&mut out, more, count);
            self.is_tail_written = true;
        }
        out.freeze()
    }
}
