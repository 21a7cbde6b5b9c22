//! The past as events: for watchers that begin in it, or fell behind.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Event, EventKind, PreviousRecords, Record, RecordKind, Records, Store, record};
use crate::base::{Reject, Revision};

/// How much of the past one slice may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Records looked at, wanted or not.
    pub records_max: usize,
    /// Bytes of the events' records.
    pub bytes_max: usize,
}

/// A piece of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistorySlice {
    /// The wanted events, in order. Revisions are whole: all wanted events of a revision, or none.
    pub events: Vec<Event>,
    /// All wanted events below this revision are in `events`; the next slice begins here.
    pub next_revision: i64,
}

/// The events from revision `from` up to and including `to`, of keys that `wants` wants, as far as the limits go, but at
/// least those of one revision. Finished when [`HistorySlice::next_revision`] is above `to`.
///
/// `to` is at most the current revision. Refuses with [`Reject::Compacted`] if `from` is below the compacted revision.
pub fn history_slice<R: Records + ?Sized>(
    store: &Store,
    records: &R,
    from: i64,
    to: i64,
    limits: HistoryLimits,
    previous: PreviousRecords,
    mut wants: impl FnMut(&[u8]) -> bool,
) -> Result<HistorySlice, Reject> {
    assert!(to <= store.current_revision(), "only the past can be read");
    if from < store.compact_revision() {
        return Err(Reject::Compacted);
    }
    let mut slice = HistorySlice {
        events: Vec::new(),
        next_revision: to + 1,
    };
    let (mut looked_at, mut bytes, mut revision_now) = (0, 0, 0);
    records.scan(Revision::new(from.max(1), 0), &mut |revision, kind, stored| {
        if revision.main > to {
            return ControlFlow::Break(());
        }
        let is_full = looked_at >= limits.records_max || bytes >= limits.bytes_max;
        if is_full && revision.main != revision_now {
            slice.next_revision = revision.main;
            return ControlFlow::Break(());
        }
        revision_now = revision.main;
        looked_at += 1;
        let decoded = Record::decode(stored).expect("records are encoded key-values");
        if wants(decoded.key) {
            let event = event_of(store, records, revision, kind, stored, decoded, previous);
            bytes += event.record.len() + event.previous.as_ref().map_or(0, Bytes::len);
            slice.events.push(event);
        }
        ControlFlow::Continue(())
    });
    Ok(slice)
}

fn event_of<R: Records + ?Sized>(
    store: &Store,
    records: &R,
    revision: Revision,
    kind: RecordKind,
    stored: &[u8],
    decoded: Record<'_>,
    previous: PreviousRecords,
) -> Event {
    let record = Bytes::copy_from_slice(stored);
    let mut event = Event {
        kind: match kind {
            RecordKind::Put => EventKind::Put,
            RecordKind::Tombstone => EventKind::Delete,
        },
        key: record::key_of_stored(&record),
        revision,
        record,
        create_revision: decoded.create_revision,
        lease: decoded.lease,
        previous: None,
    };
    if previous == PreviousRecords::Fetch && !event.is_create() && revision.main > store.compact_revision() {
        event.previous = store
            .index()
            .at(&event.key, revision.main - 1)
            .and_then(|state| records.record_bytes(state.modified));
    }
    event
}
