//! What a watcher asks for.

use bytes::Bytes;

use crate::mvcc::{EventKind, Span, SpanEnd};

/// Reason of a refusal: the id is taken.
pub const REASON_DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// Reason of a refusal: the range's end is not above its start.
pub const REASON_EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// Reason of a refusal: the start revision is negative.
pub const REASON_NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";

/// A request for a watcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSpec {
    /// The key, or the first key. Empty for a single zero byte, the smallest key there is.
    pub key: Bytes,
    /// As in a range request: empty for one key, a single zero byte for all keys from `key` on.
    pub range_end: Bytes,
    /// The first revision to tell of; 0 for what comes next.
    pub start_revision: i64,
    /// The id on its stream; 0 for one that the hub chooses.
    pub watch_id: i64,
    /// What not to tell.
    pub filters: Filters,
    /// Tell the record that each change replaced.
    pub prev_kv: bool,
    /// Tell the revision now and then while nothing happens.
    pub progress_notify: bool,
    /// Split what is too long for one message.
    pub fragment: bool,
}

/// What a watcher does not want to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// No puts.
    pub no_put: bool,
    /// No deletions.
    pub no_delete: bool,
}

impl Filters {
    pub(super) fn admit(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// The keys of a watcher: a [`Span`] to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// One key.
    One(Bytes),
    /// From a key on, before another or without end.
    Range(Bytes, RangeBound),
}

/// Where a range ends. `Open` is above every key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RangeBound {
    Before(Bytes),
    Open,
}

impl RangeBound {
    /// Whether `key` lies before the bound.
    pub fn is_above(&self, key: &[u8]) -> bool {
        match self {
            RangeBound::Before(end) => key < &end[..],
            RangeBound::Open => true,
        }
    }
}

impl WatchSpec {
    /// The keys, or the reason why there are none.
    pub(super) fn keys(&self) -> Result<Keys, &'static str> {
        let key = match self.key.is_empty() {
            true => Bytes::from_static(&[0]),
            false => self.key.clone(),
        };
        match Span::from_request(&key, &self.range_end).end {
            SpanEnd::Single => Ok(Keys::One(key)),
            SpanEnd::Open => Ok(Keys::Range(key, RangeBound::Open)),
            SpanEnd::Before(end) if end <= &key[..] => Err(REASON_EMPTY_RANGE),
            SpanEnd::Before(_) => Ok(Keys::Range(key, RangeBound::Before(self.range_end.clone()))),
        }
    }
}
