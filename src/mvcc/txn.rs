//! Write transactions: what a Put and a DeleteRange do to the index and the tree, and what the watchers learn of it.
//!
//! All changes of a transaction share the revision after the current one, numbered from sub-revision 0. Reads within the
//! transaction see its own changes. A transaction that changed nothing leaves the revision where it was.

use crate::base::planted::{Planted, is_planted};
use bytes::Bytes;

use super::{
    Event, EventKind, KeyState, RangeQuery, RangeResult, Record, RecordKind, RecordSink, Records, Span, Store,
    encode_tombstone, record,
};
use crate::base::{LeaseId, Reject, Revision};

/// Whether events carry the records they replace. Fetching them costs a look into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousRecords {
    /// For watchers that asked for `prev_kv`.
    Fetch,
    /// Nobody asked.
    Skip,
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    /// The put's revision.
    pub revision: Revision,
    /// What the key was just before, this transaction's own changes included. Its record, with value and lease, is
    /// [`WriteTxn::record`] at `previous.modified`.
    pub previous: Option<KeyState>,
}

/// A key that a delete removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The key.
    pub key: Bytes,
    /// What it was. Its record is [`WriteTxn::record`] at `previous.modified`.
    pub previous: KeyState,
}

/// What a delete did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// The revision for the response's header: the transaction's if anything was changed in it so far.
    pub revision: i64,
    /// The keys, in their order.
    pub deleted: Vec<Deleted>,
}

/// A finished transaction that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its revision, now the store's current one.
    pub revision: i64,
    /// Its changes, in order.
    pub events: Vec<Event>,
}

/// A write transaction. Must be ended with [`WriteTxn::end`]: changes are in place as soon as they are made.
pub struct WriteTxn<'a, T: Records + RecordSink + ?Sized> {
    store: &'a mut Store,
    tree: &'a mut T,
    events: Vec<Event>,
    previous: PreviousRecords,
    /// Operations so far; those that only read are not counted here, since reading changes nothing.
    operations: u64,
    is_ended: bool,
}

impl<'a, T: Records + RecordSink + ?Sized> WriteTxn<'a, T> {
    pub(super) fn new(store: &'a mut Store, tree: &'a mut T, previous: PreviousRecords) -> WriteTxn<'a, T> {
        WriteTxn {
            store,
            tree,
            events: Vec::new(),
            previous,
            operations: 0,
            is_ended: false,
        }
    }

    /// The current revision before this transaction.
    pub fn begin_revision(&self) -> i64 {
        self.store.current_revision
    }

    /// The revision that reads see and that response headers carry: one above [`WriteTxn::begin_revision`] once
    /// something has changed.
    pub fn revision(&self) -> i64 {
        self.store.current_revision + i64::from(!self.events.is_empty())
    }

    /// What the key is now, own changes included.
    pub fn latest(&self, key: &[u8]) -> Option<KeyState> {
        self.store.index.latest(key)
    }

    /// The record at `revision`, which an answer of this transaction named.
    pub fn record(&self, revision: Revision) -> Option<&[u8]> {
        self.tree.record(revision)
    }

    /// As [`WriteTxn::record`], to keep.
    pub fn record_bytes(&self, revision: Revision) -> Option<Bytes> {
        self.tree.record_bytes(revision)
    }

    /// The tree, for encoding what [`WriteTxn::range`] found.
    pub fn records(&self) -> &T {
        self.tree
    }

    /// As [`Store::range`], own changes included.
    pub fn range(&self, query: &RangeQuery<'_>) -> Result<RangeResult, Reject> {
        self.store.range_at(self.tree, query, self.revision())
    }

    /// Writes a key. The lease's existence is the caller's to check, and its attachments the caller's to move: from the
    /// lease that the key is attached to, if any, to `lease`.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: LeaseId) -> PutOutcome {
        self.operations += 1;
        self.store.totals.puts += 1;
        self.store.totals.put_bytes += (key.len() + value.len()) as u64;
        let revision = self.next_revision();
        let previous = self.store.index.put(key, revision);
        let create_revision = previous.map_or(revision.main, |state| state.create_revision);
        let encoded = Record {
            key,
            create_revision,
            mod_revision: revision.main,
            version: previous.map_or(0, |state| state.version) + 1,
            value,
            lease,
        }
        .encode();
        self.tree.put_record(revision, RecordKind::Put, encoded.clone());
        let previous_record = match create_revision == revision.main {
            true => None,
            false => self.previous_record(key, previous),
        };
        self.events.push(Event {
            kind: EventKind::Put,
            key: record::key_of_encoded(&encoded, key.len()),
            revision,
            record: encoded,
            create_revision,
            lease,
            previous: previous_record,
        });
        PutOutcome { revision, previous }
    }

    /// Deletes the keys of a span that exist, in their order. Detaching them from their leases is the caller's.
    pub fn delete_range(&mut self, span: Span<'_>) -> DeleteOutcome {
        self.operations += 1;
        self.store.totals.deletes += 1;
        let keys = self.store.index.live_in(span);
        let mut deleted = Vec::with_capacity(keys.len());
        for (key, previous) in keys {
            deleted.push(self.delete(&key, previous));
        }
        DeleteOutcome {
            revision: self.revision(),
            deleted,
        }
    }

    fn delete(&mut self, key: &[u8], previous: KeyState) -> Deleted {
        let revision = self.next_revision();
        self.store.index.tombstone(key, revision);
        let encoded = encode_tombstone(key);
        self.tree.put_record(revision, RecordKind::Tombstone, encoded.clone());
        let key = record::key_of_encoded(&encoded, key.len());
        let previous_record = self.previous_record(&key, Some(previous));
        self.events.push(Event {
            kind: EventKind::Delete,
            key: key.clone(),
            revision,
            record: encoded,
            create_revision: 0,
            lease: LeaseId(0),
            previous: previous_record,
        });
        Deleted { key, previous }
    }

    /// The record that the key had before this transaction: watchers compare revisions, not steps within one.
    fn previous_record(&self, key: &[u8], previous: Option<KeyState>) -> Option<Bytes> {
        if self.previous == PreviousRecords::Skip || is_planted(Planted::PreviousForgotten) {
            return None;
        }
        let begin = self.begin_revision();
        let state = match previous {
            Some(state) if state.modified.main <= begin => state,
            _ => self.store.index.at(key, begin)?,
        };
        self.tree.record_bytes(state.modified)
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.store.current_revision + 1, self.events.len() as i64)
    }

    /// Ends the transaction. `None` if it changed nothing.
    pub fn end(mut self) -> Option<Commit> {
        self.is_ended = true;
        self.store.totals.txns += u64::from(self.operations > 1);
        if self.events.is_empty() {
            return None;
        }
        self.store.current_revision += 1;
        Some(Commit {
            revision: self.store.current_revision,
            events: std::mem::take(&mut self.events),
        })
    }
}

impl<T: Records + RecordSink + ?Sized> Drop for WriteTxn<'_, T> {
    fn drop(&mut self) {
        // Half a transaction cannot be taken back, so losing one would leave changes above the current revision.
        if !std::thread::panicking() {
            assert!(
                self.is_ended || self.events.is_empty(),
                "a write transaction with changes must be ended"
            );
        }
    }
}
