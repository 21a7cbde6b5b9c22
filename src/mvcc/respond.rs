//! A range's answer as bytes, written straight from the records: `etcdserverpb.RangeResponse` without a copy of it as
//! structs in between.
//!
//! ```text
//!   0x0a len header   { 0x12 len record } for each key   0x18 1 if more   0x20 count        as prost would write it
//! ```
//!
//! A long answer is measured first and then written in chunks, so that a sorted list of millions of keys costs 16 bytes of
//! memory for each and not its content. A list in the index's own order costs none: see [`super::RangeList`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{RangeItem, RangeResult, Record, Records};

const TAG_HEADER: u8 = 1;
const TAG_KVS: u8 = 2;
const TAG_MORE: u8 = 3;
const TAG_COUNT: u8 = 4;

/// An encoded `RangeResponse`. `header` is an encoded `ResponseHeader`, with [`RangeResult::revision`] in it; empty for
/// none at all. `keys_only` leaves the values out.
///
/// Panics if a record is missing: the index and the tree then contradict each other.
pub fn encode_range_response<R: Records + ?Sized>(
    records: &R,
    header: &[u8],
    result: &RangeResult,
    keys_only: bool,
) -> Bytes {
    encode_range_response_within(records, header, result, keys_only, usize::MAX).expect("no answer is as long")
}

/// The same, unless it would have more than `bytes_max`.
pub fn encode_range_response_within<R: Records + ?Sized>(
    records: &R,
    header: &[u8],
    result: &RangeResult,
    keys_only: bool,
    bytes_max: usize,
) -> Option<Bytes> {
    if keys_only {
        let mut encoder = RangeEncoder::new(header, result.clone(), keys_only);
        while !encoder.measure(records, usize::MAX) {}
        let is_within = encoder.encoded_len() <= bytes_max;
        return is_within.then(|| encoder.chunk(records, usize::MAX).unwrap_or_default());
    }
    let stored: Vec<&[u8]> = result.items.iter().map(|item| stored(records, item)).collect();
    let kvs_len: usize = stored.iter().map(|record| key_value_field_len(record)).sum();
    let encoded_len = head_len(header) + kvs_len + tail_len(result.more, result.count);
    if encoded_len > bytes_max {
        return None;
    }
    let mut out = BytesMut::with_capacity(encoded_len);
    put_head(&mut out, header);
    for record in stored {
        put_key_value_field(&mut out, TAG_KVS, record);
    }
    put_tail(&mut out, result.more, result.count);
    Some(out.freeze())
}

/// Length of a record as an embedded message with a tag below 16, in bytes.
pub fn key_value_field_len(record: &[u8]) -> usize {
    1 + encoded_len_varint(record.len() as u64) + record.len()
}

/// Appends a record as an embedded message with a tag below 16.
pub fn put_key_value_field(out: &mut BytesMut, tag: u8, record: &[u8]) {
    put_len_prefix(out, tag, record.len());
    out.put_slice(record);
}

/// Writes a `RangeResponse` in chunks: first [`RangeEncoder::measure`] until it is done, then [`RangeEncoder::chunk`]
/// until there are no more. The records must stay as they are meanwhile.
#[derive(Clone, Debug)]
pub struct RangeEncoder {
    header: Bytes,
    items: Vec<RangeItem>,
    more: bool,
    count: i64,
    keys_only: bool,
    encoded_len: usize,
    measured: usize,
    written: usize,
    is_head_written: bool,
    is_tail_written: bool,
}

impl RangeEncoder {
    /// An encoder that has measured nothing yet. The arguments are those of [`encode_range_response`].
    pub fn new(header: &[u8], result: RangeResult, keys_only: bool) -> RangeEncoder {
        RangeEncoder {
            header: Bytes::copy_from_slice(header),
            encoded_len: head_len(header) + tail_len(result.more, result.count),
            items: result.items,
            more: result.more,
            count: result.count,
            keys_only,
            measured: 0,
            written: 0,
            is_head_written: false,
            is_tail_written: false,
        }
    }

    /// Keys that are held.
    pub fn held(&self) -> usize {
        self.items.capacity()
    }

    /// Measures at most `items_max` keys; true when all are measured.
    pub fn measure<R: Records + ?Sized>(&mut self, records: &R, items_max: usize) -> bool {
        let end = self.items.len().min(self.measured.saturating_add(items_max));
        for item in &self.items[self.measured..end] {
            self.encoded_len += item_len(stored(records, item), self.keys_only);
        }
        self.measured = end;
        end == self.items.len()
    }

    /// Length of the whole answer in bytes, once it is measured.
    pub fn encoded_len(&self) -> usize {
        assert_eq!(self.measured, self.items.len(), "the answer must be measured first");
        self.encoded_len
    }

    /// The next bytes of the answer: `bytes_max`, or more by what the last record needs. `None` at the end.
    pub fn chunk<R: Records + ?Sized>(&mut self, records: &R, bytes_max: usize) -> Option<Bytes> {
        if self.is_tail_written {
            return None;
        }
        let mut out = BytesMut::with_capacity(self.encoded_len().min(bytes_max));
        if !self.is_head_written {
            put_head(&mut out, &self.header);
            self.is_head_written = true;
        }
        while let Some(item) = self.items.get(self.written).filter(|_| out.len() < bytes_max) {
            put_item(&mut out, stored(records, item), self.keys_only);
            self.written += 1;
        }
        if self.written == self.items.len() {
            put_tail(&mut out, self.more, self.count);
            self.is_tail_written = true;
        }
        Some(out.freeze())
    }

    /// Whether nothing of the answer has been given yet.
    pub fn is_untouched(&self) -> bool {
        !self.is_head_written
    }

    /// Whether all of the answer has been given.
    pub fn is_done(&self) -> bool {
        self.is_tail_written
    }
}

/// Length of a record's field in an answer, in bytes.
pub(super) fn item_len(record: &[u8], keys_only: bool) -> usize {
    match keys_only {
        true => {
            let len = without_value(record).encoded_len();
            1 + encoded_len_varint(len as u64) + len
        }
        false => key_value_field_len(record),
    }
}

/// Appends a record's field to an answer.
pub(super) fn put_item(out: &mut BytesMut, record: &[u8], keys_only: bool) {
    match keys_only {
        true => {
            let record = without_value(record);
            put_len_prefix(out, TAG_KVS, record.encoded_len());
            record.encode_to(out);
        }
        false => put_key_value_field(out, TAG_KVS, record),
    }
}

pub(super) fn stored<'a, R: Records + ?Sized>(records: &'a R, item: &RangeItem) -> &'a [u8] {
    records.record(item.modified).expect("an indexed put has its record")
}

fn without_value(record: &[u8]) -> Record<'_> {
    Record {
        value: &[],
        ..Record::decode(record).expect("records are encoded key-values")
    }
}

pub(super) fn head_len(header: &[u8]) -> usize {
    match header.len() {
        0 => 0,
        len => 1 + encoded_len_varint(len as u64) + len,
    }
}

pub(super) fn put_head(out: &mut BytesMut, header: &[u8]) {
    if !header.is_empty() {
        put_key_value_field(out, TAG_HEADER, header);
    }
}

pub(super) fn tail_len(more: bool, count: i64) -> usize {
    let count_len = match count {
        0 => 0,
        count => 1 + encoded_len_varint(count as u64),
    };
    usize::from(more) * 2 + count_len
}

pub(super) fn put_tail(out: &mut BytesMut, more: bool, count: i64) {
    if more {
        out.put_slice(&[TAG_MORE << 3, 1]);
    }
    if count != 0 {
        out.put_u8(TAG_COUNT << 3);
        encode_varint(count as u64, out);
    }
}

fn put_len_prefix(out: &mut BytesMut, tag: u8, len: usize) {
    out.put_u8(tag << 3 | 2);
    encode_varint(len as u64, out);
}
