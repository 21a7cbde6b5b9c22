//! Events as bytes: the repeated field of a `WatchResponse`, written once for all watchers that share it.
//!
//! ```text
//!   0x5a len  { 0x08 1 if deleted   0x12 len key-value   0x1a len previous key-value }
//! ```
//!
//! The key-value of a put is its record as it is stored. That of a deletion is the tombstone's record, which has the key
//! alone, and the revision, which stored tombstones lack.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::spec::Filters;
use crate::mvcc::{Event, EventKind};

const TAG_EVENTS: u8 = 11;
const TAG_MOD_REVISION: u8 = 3;

/// Encoded events of one list of watchers.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    pub bytes: Bytes,
    /// Where each event ends in `bytes`.
    pub ends: Vec<usize>,
}

/// What distinguishes bodies made from the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub filters: Filters,
    pub prev_kv: bool,
    /// Events below this revision are left out.
    pub from_revision: i64,
}

impl Body {
    /// The events of a batch that `hits` numbers and `variant` admits.
    pub fn encode(events: &[Event], hits: &[u32], variant: Variant) -> Body {
        let admitted = |hit: &&u32| {
            let event = &events[**hit as usize];
            event.revision.main >= variant.from_revision && variant.filters.admit(event.kind)
        };
        let chosen = || hits.iter().filter(admitted).map(|hit| &events[*hit as usize]);
        let len = chosen().map(|event| field_len(event_len(event, variant.prev_kv))).sum();
        let mut out = BytesMut::with_capacity(len);
        let mut ends = Vec::new();
        for event in chosen() {
            put_event(&mut out, event, variant.prev_kv);
            ends.push(out.len());
        }
        Body {
            bytes: out.freeze(),
            ends,
        }
    }
}

/// Bodies of the events that one list of watchers is told, by variant. There are few variants, so they are searched.
#[derive(Default)]
pub(super) struct Bodies {
    made: Vec<(Variant, Body)>,
}

/// Variants kept at most; watchers that begin at many different revisions would have one each.
const BODIES_KEPT_MAX: usize = 16;

impl Bodies {
    pub fn body(&mut self, events: &[Event], hits: &[u32], variant: Variant) -> &Body {
        let place = match self.made.iter().position(|(made, _)| *made == variant) {
            Some(place) => place,
            None => {
                if self.made.len() == BODIES_KEPT_MAX {
                    self.made.clear();
                }
                self.made.push((variant, Body::encode(events, hits, variant)));
                self.made.len() - 1
            }
        };
        &self.made[place].1
    }
}

fn event_len(event: &Event, prev_kv: bool) -> usize {
    let kind = if event.kind == EventKind::Delete { 2 } else { 0 };
    let previous = event.previous.as_ref().filter(|_| prev_kv);
    kind + field_len(key_value_len(event)) + previous.map_or(0, |previous| field_len(previous.len()))
}

fn key_value_len(event: &Event) -> usize {
    match event.kind {
        EventKind::Put => event.record.len(),
        EventKind::Delete => event.record.len() + 1 + encoded_len_varint(event.revision.main as u64),
    }
}

fn put_event(out: &mut BytesMut, event: &Event, prev_kv: bool) {
    out.put_u8(TAG_EVENTS << 3 | 2);
    encode_varint(event_len(event, prev_kv) as u64, out);
    if event.kind == EventKind::Delete {
        out.put_slice(&[1 << 3, 1]);
    }
    out.put_u8(2 << 3 | 2);
    encode_varint(key_value_len(event) as u64, out);
    out.put_slice(&event.record);
    if event.kind == EventKind::Delete {
        out.put_u8(TAG_MOD_REVISION << 3);
        encode_varint(event.revision.main as u64, out);
    }
    if let Some(previous) = event.previous.as_ref().filter(|_| prev_kv) {
        out.put_u8(3 << 3 | 2);
        encode_varint(previous.len() as u64, out);
        out.put_slice(previous);
    }
}

fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}
