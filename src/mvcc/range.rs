//! Ranges: which records answer a request, in which order. Everything but sorting by value is decided from the index.

use std::{collections::VecDeque, ops::ControlFlow};

use super::{
    Index, KeyState, RangeSort, Span, SpanEnd,
    index::{Cursor, HistoryView},
};
use crate::base::Revision;

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The number of puts since the key was created.
    Version,
    /// The revision that created the key.
    Create,
    /// The revision that last changed the key.
    Mod,
    /// The value.
    Value,
}

/// The order of a range's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As the index has them, which is by key; by the target, ascending, if the target is not the key.
    #[default]
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
}

/// A range request, but for what concerns consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeQuery<'a> {
    /// The keys.
    pub span: Span<'a>,
    /// The revision to read at; 0 or less for the current one.
    pub revision: i64,
    /// Keys at most; 0 or less for all.
    pub limit: i64,
    /// The order.
    pub sort_order: SortOrder,
    /// What is sorted by.
    pub sort_target: SortTarget,
    /// Only count.
    pub count_only: bool,
    /// Lowest modification revision; 0 for no bound.
    pub min_mod_revision: i64,
    /// Highest modification revision; 0 for no bound.
    pub max_mod_revision: i64,
    /// Lowest creation revision; 0 for no bound.
    pub min_create_revision: i64,
    /// Highest creation revision; 0 for no bound.
    pub max_create_revision: i64,
}

impl<'a> RangeQuery<'a> {
    /// All keys of a span at the current revision.
    pub const fn new(span: Span<'a>) -> RangeQuery<'a> {
        RangeQuery {
            span,
            revision: 0,
            limit: 0,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
}

impl RangeQuery<'_> {
    /// Whether revisions are bounded.
    pub(super) fn is_bounded(&self) -> bool {
        Bounds::of(self).is_some()
    }
}

/// One key of a result, without its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeItem {
    /// Where its record is.
    pub modified: Revision,
}

/// The answer to a range. Its size is 16 bytes for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// The revision for the response's header: the current one, also for a range of the past.
    pub revision: i64,
    /// Keys of the span at the revision read, whatever limit and bounds say.
    pub count: i64,
    /// Whether the limit left keys out.
    pub more: bool,
    /// The keys.
    pub items: Vec<RangeItem>,
}

/// A range on its way: a walk over the index that can rest between slices. See [`super::Store::range_begin`].
#[derive(Clone, Debug)]
pub struct RangeScan {
    start: Box<[u8]>,
    end: ScanEnd,
    revision: i64,
    current: i64,
    limit: usize,
    fetch_max: usize,
    order: Option<Order>,
    bounds: Option<Bounds>,
    /// Keys of the span: from the index's counts if it is read as it is now, by counting otherwise.
    count: u64,
    is_count_known: bool,
    found: Vec<Found>,
    /// Keys that were found before those and have been taken.
    taken: usize,
    cursor: Cursor,
}

#[derive(Clone, Debug)]
enum ScanEnd {
    Single,
    Before(Box<[u8]>),
    Open,
}

/// A key that belongs to the result, with the number it is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub rank: i64,
    pub modified: Revision,
}

/// What keys are sorted by, and which way.
pub(super) type Order = (SortTarget, SortOrder);

/// What a walk that is over knows of its answer besides the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub current_revision: i64,
    pub count: i64,
    pub more: bool,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    mod_revision: (i64, i64),
    create_revision: (i64, i64),
}

impl RangeScan {
    pub(super) fn new(query: &RangeQuery<'_>, revision: i64, current: i64) -> RangeScan {
        let limit = usize::try_from(query.limit)
            .ok()
            .filter(|limit| *limit > 0)
            .unwrap_or(usize::MAX);
        let bounds = Bounds::of(query);
        // As in etcd, the limit cuts what is fetched only if nobody sorts or filters by request; a target without an
        // order sorts what the limit has left, and the key beyond it.
        let fetch_max = match (
            query.count_only,
            query.sort_order == SortOrder::None && bounds.is_none(),
        ) {
            (true, _) => 0,
            (false, true) => limit.saturating_add(1),
            (false, false) => usize::MAX,
        };
        RangeScan {
            start: query.span.start.into(),
            end: match query.span.end {
                SpanEnd::Single => ScanEnd::Single,
                SpanEnd::Before(end) => ScanEnd::Before(end.into()),
                SpanEnd::Open => ScanEnd::Open,
            },
            revision,
            current,
            limit,
            fetch_max,
            order: order_of(query),
            bounds,
            count: 0,
            is_count_known: false,
            found: Vec::new(),
            taken: 0,
            cursor: Cursor::Start,
        }
    }

    /// The revision that is read.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Keys found so far.
    pub fn found(&self) -> usize {
        self.taken + self.found.len()
    }

    /// Keys that are held.
    pub fn held(&self) -> usize {
        self.found.capacity()
    }

    /// Whether the keys belong to the result in the order in which the walk finds them.
    pub fn is_plain(&self) -> bool {
        self.order.is_none()
    }

    /// Takes what has been found since the last time, so that a long walk need not hold it all. Of a plain range alone.
    pub(super) fn take_found(&mut self, items: &mut VecDeque<RangeItem>) {
        debug_assert!(self.is_plain());
        self.taken += self.found.len();
        items.extend(self.found.drain(..).map(|found| RangeItem {
            modified: found.modified,
        }));
    }

    /// What the answer tells besides its keys: the keys of the span, and whether the limit left some out. The walk is over.
    pub(super) fn totals(&self) -> (i64, bool) {
        assert_eq!(self.cursor, Cursor::End, "a range is counted when its walk is over");
        (i64::try_from(self.count).unwrap_or(i64::MAX), self.found() > self.limit)
    }

    /// Keys that the answer has at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn slice(&mut self, index: &Index, keys_max: usize) -> bool {
        let span = Span {
            start: &self.start,
            end: match &self.end {
                ScanEnd::Single => SpanEnd::Single,
                ScanEnd::Before(end) => SpanEnd::Before(end),
                ScanEnd::Open => SpanEnd::Open,
            },
        };
        let is_latest = self.revision >= index.tip();
        let from = match std::mem::replace(&mut self.cursor, Cursor::End) {
            Cursor::End => return true,
            Cursor::At(from) => from,
            Cursor::Start => {
                if is_latest && span.end != SpanEnd::Single {
                    self.count = index.count_live(span);
                    self.is_count_known = true;
                }
                self.start.clone()
            }
        };
        let mut visited = 0;
        let mut walk = Walk {
            revision: self.revision,
            is_latest,
            fetch_max: self.fetch_max - self.taken.min(self.fetch_max),
            order: self.order,
            bounds: self.bounds,
            is_count_known: self.is_count_known,
            count: self.count,
            found: std::mem::take(&mut self.found),
        };
        let mut rest = Cursor::End;
        if !walk.is_over() {
            index.walk(span, &from, |key, view| {
                if visited == keys_max {
                    rest = Cursor::At(key.into());
                    return ControlFlow::Break(());
                }
                visited += 1;
                walk.visit(view)
            });
        }
        self.count = walk.count;
        self.found = walk.found;
        self.cursor = rest;
        self.cursor == Cursor::End
    }

    /// What the walk has found, to be put in order. The walk is over.
    pub fn into_sort(self) -> RangeSort {
        assert_eq!(self.taken, 0, "what was taken is not in the result");
        let (count, more) = self.totals();
        let summary = Summary {
            current_revision: self.current,
            count,
            more,
            limit: self.limit,
        };
        RangeSort::new(self.found, self.order, summary)
    }
}

/// One slice's state; apart from [`RangeScan`] so that the span can be borrowed meanwhile.
struct Walk {
    revision: i64,
    is_latest: bool,
    fetch_max: usize,
    order: Option<Order>,
    bounds: Option<Bounds>,
    is_count_known: bool,
    count: u64,
    found: Vec<Found>,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.is_count_known && self.found.len() >= self.fetch_max
    }

    fn visit(&mut self, view: HistoryView<'_>) -> ControlFlow<()> {
        let state = match self.is_latest {
            true => view.latest(),
            false => view.at(self.revision),
        };
        let Some(state) = state else {
            return ControlFlow::Continue(());
        };
        self.count += u64::from(!self.is_count_known);
        if self.found.len() < self.fetch_max && self.bounds.is_none_or(|bounds| bounds.admit(&state)) {
            self.found.push(Found {
                rank: rank(&state, self.order),
                modified: state.modified,
            });
        }
        match self.is_over() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

impl Bounds {
    fn of(query: &RangeQuery<'_>) -> Option<Bounds> {
        let bounds = Bounds {
            mod_revision: (query.min_mod_revision, query.max_mod_revision),
            create_revision: (query.min_create_revision, query.max_create_revision),
        };
        let is_any = bounds.mod_revision != (0, 0) || bounds.create_revision != (0, 0);
        is_any.then_some(bounds)
    }

    fn admit(&self, state: &KeyState) -> bool {
        let is_within =
            |(low, high): (i64, i64), revision: i64| (low == 0 || revision >= low) && (high == 0 || revision <= high);
        is_within(self.mod_revision, state.modified.main) && is_within(self.create_revision, state.create_revision)
    }
}

/// How the keys that the walk gives, ascending, are to be sorted; `None` if they are already.
fn order_of(query: &RangeQuery<'_>) -> Option<Order> {
    match (query.sort_target, query.sort_order) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
        (target, SortOrder::None) => Some((target, SortOrder::Ascend)),
        (target, order) => Some((target, order)),
    }
}

fn rank(state: &KeyState, order: Option<Order>) -> i64 {
    match order {
        Some((SortTarget::Version, _)) => state.version,
        Some((SortTarget::Create, _)) => state.create_revision,
        Some((SortTarget::Mod, _)) => state.modified.main,
        Some((SortTarget::Key | SortTarget::Value, _)) | None => 0,
    }
}
