//! Ranges: which records answer a request, in which order. Everything but sorting by value is decided from the index.

use std::cmp::Ordering;

use super::{Index, KeyState, Record, Records, Span, SpanEnd, index::Walk};
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

/// One key of a result, without its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeItem {
    /// Where its record is.
    pub modified: Revision,
}

/// The answer to a range.
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
