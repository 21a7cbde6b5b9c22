//! The record of one change: an encoded `mvccpb.KeyValue`, byte for byte as etcd writes it.
//!
//! ```text
//!   0x0a len key  0x10 create  0x18 mod  0x20 version  0x2a len value  0x30 lease        fields that are zero are absent
//! ```
//!
//! Written by hand rather than through prost because a put is written once and read many times: readers want one field,
//! or the whole as bytes, and never a copy.

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint, encoded_len_varint};

use crate::base::LeaseId;

/// The fields of a record, borrowed from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Revision in which the key's present life began; 0 in a tombstone.
    pub create_revision: i64,
    /// Revision that wrote the record; 0 in a tombstone.
    pub mod_revision: i64,
    /// Puts since the key was created; 0 in a tombstone.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease the key is attached to; 0 for none.
    pub lease: LeaseId,
}

impl<'a> Record<'a> {
    /// Reads a record; `None` if it is not an `mvccpb.KeyValue`. Unknown fields are skipped, as etcd skips them.
    pub fn decode(record: &'a [u8]) -> Option<Record<'a>> {
        let mut decoded = Record::default();
        let mut rest = record;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest).ok()?;
            match (tag, wire_type) {
                (1, WireType::LengthDelimited) => decoded.key = take(&mut rest)?,
                (5, WireType::LengthDelimited) => decoded.value = take(&mut rest)?,
                (2..=4 | 6, WireType::Varint) => {
                    let number = decode_varint(&mut rest).ok()? as i64;
                    match tag {
                        2 => decoded.create_revision = number,
                        3 => decoded.mod_revision = number,
                        4 => decoded.version = number,
                        _ => decoded.lease = LeaseId(number),
                    }
                }
                (1..=6, _) => return None,
                (_, WireType::Varint) => _ = decode_varint(&mut rest).ok()?,
                (_, WireType::LengthDelimited) => _ = take(&mut rest)?,
                (_, WireType::ThirtyTwoBit) => rest = rest.get(4..)?,
                (_, WireType::SixtyFourBit) => rest = rest.get(8..)?,
                (_, WireType::StartGroup | WireType::EndGroup) => return None,
            }
        }
        Some(decoded)
    }

    /// Length of the record's encoding in bytes.
    pub fn encoded_len(&self) -> usize {
        len_bytes(self.key)
            + len_number(self.create_revision)
            + len_number(self.mod_revision)
            + len_number(self.version)
            + len_bytes(self.value)
            + len_number(self.lease.0)
    }

    /// Appends the record's encoding.
    pub fn encode_to(&self, out: &mut BytesMut) {
        put_bytes(out, 1, self.key);
        put_number(out, 2, self.create_revision);
        put_number(out, 3, self.mod_revision);
        put_number(out, 4, self.version);
        put_bytes(out, 5, self.value);
        put_number(out, 6, self.lease.0);
    }

    /// The record's encoding.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_to(&mut out);
        out.freeze()
    }
}

/// The record of a put.
pub fn encode_put(record: Record<'_>) -> Bytes {
    record.encode()
}

/// The record of a deletion: the key alone.
pub fn encode_tombstone(key: &[u8]) -> Bytes {
    let record = Record {
        key,
        ..Record::default()
    };
    record.encode()
}

/// The key of a record that this module encoded, without copying.
pub(super) fn key_of_encoded(record: &Bytes, key_len: usize) -> Bytes {
    if key_len == 0 {
        return Bytes::new();
    }
    let start = 1 + encoded_len_varint(key_len as u64);
    record.slice(start..start + key_len)
}

/// The key of a record that was read from the tree, without copying.
pub(super) fn key_of_stored(record: &Bytes) -> Bytes {
    match Record::decode(record) {
        Some(decoded) if !decoded.key.is_empty() => record.slice_ref(decoded.key),
        _ => Bytes::new(),
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn len_bytes(bytes: &[u8]) -> usize {
    match bytes.len() {
        0 => 0,
        len => 1 + encoded_len_varint(len as u64) + len,
    }
}

fn len_number(number: i64) -> usize {
    match number {
        0 => 0,
        number => 1 + encoded_len_varint(number as u64),
    }
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(&[tag << 3 | 2]);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut BytesMut, tag: u8, number: i64) {
    if number != 0 {
        out.extend_from_slice(&[tag << 3]);
        encode_varint(number as u64, out);
    }
}

/// Reads arbitrary bytes as a record; whatever they are, reading ends, and what was read survives being written.
pub(crate) fn fuzz_record(input: &[u8]) {
    if let Some(record) = Record::decode(input) {
        let encoded = record.encode();
        assert_eq!(encoded.len(), record.encoded_len());
        assert_eq!(Record::decode(&encoded), Some(record));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::proto::mvccpb::KeyValue;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), Just(-1), 0..300i64, any::<i64>()]
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![3 => prop::collection::vec(any::<u8>(), 0..20), 1 => prop::collection::vec(any::<u8>(), 100..20_000)]
    }

    proptest! {
        #[test]
        fn record_is_encoded_as_prost_encodes_it(
            key in bytes(), value in bytes(), numbers in (number(), number(), number(), number()),
        ) {
            let record = Record {
                key: &key,
                create_revision: numbers.0,
                mod_revision: numbers.1,
                version: numbers.2,
                value: &value,
                lease: LeaseId(numbers.3),
            };
            let message = KeyValue {
                key: key.clone().into(),
                create_revision: numbers.0,
                mod_revision: numbers.1,
                version: numbers.2,
                value: value.clone().into(),
                lease: numbers.3,
            };
            let encoded = record.encode();
            prop_assert_eq!(&encoded[..], &message.encode_to_vec()[..]);
            prop_assert_eq!(Record::decode(&encoded), Some(record));
            prop_assert_eq!(key_of_encoded(&encoded, key.len()), key.clone());
            prop_assert_eq!(key_of_stored(&encoded), key.clone());
            for cut in [1, encoded.len() / 2, encoded.len().saturating_sub(1)] {
                fuzz_record(&encoded[..cut.min(encoded.len())]);
            }
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_wrong_ones_refused() {
        let known = encode_tombstone(b"k");
        let with_unknown = [&[0x38, 1][..], &known, &[0x42, 1, 9], &[0x4d, 1, 2, 3, 4]].concat();
        assert_eq!(Record::decode(&with_unknown), Record::decode(&known));
        assert_eq!(Record::decode(&[0x08, 1]), None);
        assert_eq!(Record::decode(&[0x0a, 200]), None);
        assert_eq!(Record::decode(&[0x0b]), None);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let mut state = 1u64;
        for _ in 0..1000 {
            let mut input = Vec::new();
            for _ in 0..state % 40 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let byte = (state >> 40) as u8;
                input.push(if state >> 62 == 0 {
                    byte
                } else {
                    [0x0a, 0x10, 0x18, 0x20, 0x2a, 0x30, 1, 2][byte as usize % 8]
                });
            }
            state = state.wrapping_add(1);
            fuzz_record(&input);
        }
    }
}
