//! From keys to their histories, in memory and in order.
//!
//! A B-tree whose inner nodes count the existing keys below them. It is changed within a write transaction, so it may
//! hold revisions above the store's current one until that transaction ends; it knows nothing of records.
//!
//! Invariant: a key has at least one change. Compaction, the only thing that takes changes away, removes the key with
//! its last one.

mod history;
mod leaf;
mod merge;
#[cfg(test)]
mod model;
mod node;
mod packed;

use std::ops::ControlFlow;

use history::History;
pub(super) use merge::Found;
use node::{Frontier, Node};
pub(super) use packed::common_len;

use super::{Span, SpanEnd};
use crate::base::Revision;

/// What a key is at some revision at which it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The change that made it so; its record is filed there.
    pub modified: Revision,
    /// Revision in which the key's present life began.
    pub create_revision: i64,
    /// Puts since then, that one included.
    pub version: i64,
}

/// From keys to their histories.
pub struct Index {
    root: Node,
    keys: u64,
    live_keys: u64,
    tip: i64,
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

/// How far a walk in slices has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Cursor {
    /// At the first key.
    #[default]
    Start,
    /// All keys below this one are done.
    At(Box<[u8]>),
    /// All keys are done.
    End,
}

impl Index {
    /// An index without keys.
    pub fn new() -> Index {
        Index {
            root: Node::default(),
            keys: 0,
            live_keys: 0,
            tip: 0,
        }
    }

    /// Keys that exist.
    pub fn live_keys(&self) -> u64 {
        self.live_keys
    }

    /// Keys of which something is known, the deleted ones included.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The highest revision of any change so far.
    pub(super) fn tip(&self) -> i64 {
        self.tip
    }

    /// What the key is now; `None` if it does not exist.
    pub fn latest(&self, key: &[u8]) -> Option<KeyState> {
        self.root.find(key)?.latest()
    }

    /// What the key was at revision `main`; `None` if it did not exist or that is compacted away.
    pub fn at(&self, key: &[u8], main: i64) -> Option<KeyState> {
        self.root.find(key)?.at(main)
    }

    /// Number of existing keys of a span.
    pub fn count_live(&self, span: Span<'_>) -> u64 {
        match span.end {
            SpanEnd::Single => u64::from(self.latest(span.start).is_some()),
            SpanEnd::Open => self.live_keys - self.root.rank(span.start),
            SpanEnd::Before(end) if end <= span.start => 0,
            SpanEnd::Before(end) => self.root.rank(end) - self.root.rank(span.start),
        }
    }

    /// The existing keys of a span, in order.
    pub(super) fn live_in(&self, span: Span<'_>) -> Vec<(Box<[u8]>, KeyState)> {
        let mut found = Vec::new();
        self.walk(span, span.start, |key, view| {
            if let Some(state) = view.latest() {
                found.push((key.into(), state));
            }
            ControlFlow::Continue(())
        });
        found
    }

    /// Visits the keys of a span that are not below `from`, the deleted ones included, in order.
    pub(super) fn walk(
        &self,
        span: Span<'_>,
        from: &[u8],
        mut visit: impl FnMut(&[u8], HistoryView<'_>) -> ControlFlow<()>,
    ) {
        if span.end == SpanEnd::Single {
            if let Some(history) = self.root.find(span.start) {
                _ = visit(span.start, HistoryView(history));
            }
            return;
        }
        _ = self.root.walk(from, &mut Vec::new(), &mut |key, history| {
            if span.is_past(key) {
                return ControlFlow::Break(());
            }
            visit(key, HistoryView(history))
        });
    }

    /// Notes a put; what the key was just before.
    pub fn put(&mut self, key: &[u8], revision: Revision) -> Option<KeyState> {
        self.change(key, revision, |history| match history {
            None => (None, Some(History::created(revision))),
            Some(history) => {
                let previous = history.latest();
                history.put(revision);
                (previous, None)
            }
        })
    }

    /// Notes the deletion of a key, which must exist.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision) {
        self.change(key, revision, |history| {
            history.expect("only a known key can be deleted").tombstone(revision);
            ((), None)
        });
    }

    fn change<R>(
        &mut self,
        key: &[u8],
        revision: Revision,
        change: impl FnOnce(Option<&mut History>) -> (R, Option<History>),
    ) -> R {
        let mut changed = self.root.change(key, change);
        self.root.grow(&mut changed);
        self.keys += u64::from(changed.is_new_key);
        self.live_keys = node::apply_delta(self.live_keys, changed.live_delta);
        self.tip = self.tip.max(revision.main);
        changed.outcome
    }

    /// Forgets what nobody can read who reads at `main` or later, over at most `keys_max` keys and one leaf more.
    /// `kept` takes the changes at or below `main` that stay, in the order of their keys. Changes above `main` may be
    /// made between the slices.
    pub(super) fn compact_slice(&mut self, main: i64, cursor: &mut Cursor, keys_max: usize, kept: &mut Vec<Revision>) {
        let mut visited = 0;
        while *cursor != Cursor::End && visited < keys_max {
            let from = match cursor {
                Cursor::At(from) => std::mem::take(from),
                _ => Box::default(),
            };
            let mut dropped = 0;
            let frontier: Frontier = self.root.compact_leaf(&from, main, kept, &mut dropped);
            self.root.shrink();
            self.keys -= dropped;
            visited += leaf::LEAF_KEYS_MAX;
            *cursor = frontier.map_or(Cursor::End, Cursor::At);
        }
    }

    /// Bytes that the index takes on the heap, as it asked for them.
    pub fn heap_bytes(&self) -> usize {
        self.root.heap_bytes()
    }

    /// Checks the whole structure.
    #[cfg(any(test, feature = "verify"))]
    pub fn verify(&self) {
        assert_eq!(self.root.verify(None, None), self.keys);
        let mut live = 0;
        self.walk(Span::all(), b"", |_, view| {
            live += u64::from(view.latest().is_some());
            ControlFlow::Continue(())
        });
        assert_eq!(live, self.live_keys);
    }
}

/// The history of the key that a walk is at.
#[derive(Clone, Copy)]
pub(super) struct HistoryView<'a>(&'a History);

impl HistoryView<'_> {
    /// The key now, if it exists.
    pub fn latest(&self) -> Option<KeyState> {
        self.0.latest()
    }

    /// The key at revision `main`, if it existed.
    pub fn at(&self, main: i64) -> Option<KeyState> {
        self.0.at(main)
    }

    /// The change that HashKV at `main` counts among those that compaction keeps.
    pub fn keep(&self, main: i64) -> Option<Revision> {
        self.0.keep(main)
    }
}
