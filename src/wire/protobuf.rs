//! Protobuf by hand, where a message is put together from parts that are already encoded: a stored KeyValue becomes part of
//! a range's answer without being decoded.

use bytes::BufMut;

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WireType {
    /// Integers, booleans, enums.
    Varint = 0,
    /// Eight bytes, little-endian.
    Fixed64 = 1,
    /// A length and as many bytes: strings, bytes, messages.
    LengthDelimited = 2,
    /// Four bytes, little-endian.
    Fixed32 = 5,
}

/// Bytes of a varint.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // Each byte holds seven bits; zero takes one byte.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Bytes of a field's tag.
#[inline]
pub const fn tag_len(field: u32) -> usize {
    varint_len((field as u64) << 3)
}

/// Bytes of a length-delimited field with its tag and length.
#[inline]
pub const fn delimited_len(field: u32, len: usize) -> usize {
    tag_len(field) + varint_len(len as u64) + len
}

/// Bytes of an integer field with its tag; none for zero, which proto3 leaves out. Negative numbers are passed as `as u64`.
#[inline]
pub const fn integer_len(field: u32, value: u64) -> usize {
    if value == 0 {
        0
    } else {
        tag_len(field) + varint_len(value)
    }
}

/// Writes a varint.
#[inline]
pub fn put_varint(mut value: u64, output: &mut impl BufMut) {
    while value >= 0x80 {
        output.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    output.put_u8(value as u8);
}

/// Writes a field's tag.
#[inline]
pub fn put_tag(field: u32, wire_type: WireType, output: &mut impl BufMut) {
    put_varint(u64::from(field) << 3 | wire_type as u64, output);
}

/// Writes an integer field, unless it is zero.
#[inline]
pub fn put_integer(field: u32, value: u64, output: &mut impl BufMut) {
    if value != 0 {
        put_tag(field, WireType::Varint, output);
        put_varint(value, output);
    }
}

/// Writes a length-delimited field, empty or not: an embedded message counts even when it has no fields.
#[inline]
pub fn put_delimited(field: u32, value: &[u8], output: &mut impl BufMut) {
    put_delimited_head(field, value.len(), output);
    output.put_slice(value);
}

/// Writes the tag and length of a length-delimited field whose bytes the caller writes next.
#[inline]
pub fn put_delimited_head(field: u32, len: usize, output: &mut impl BufMut) {
    put_tag(field, WireType::LengthDelimited, output);
    put_varint(len as u64, output);
}

/// Takes a varint from the front of `input`; `None` if it is not whole or longer than ten bytes.
#[inline]
pub fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (position, &byte) in input.iter().enumerate().take(10) {
        if position == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            *input = &input[position + 1..];
            return Some(value);
        }
    }
    None
}

/// One field of an encoded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'m> {
    /// An integer.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// A string, bytes or a message.
    Delimited(&'m [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// Takes a field from the front of an encoded message; `None` if what stands there is none (groups are not known).
pub fn take_field<'m>(input: &mut &'m [u8]) -> Option<(u32, FieldValue<'m>)> {
    let tag = take_varint(input)?;
    let field = u32::try_from(tag >> 3)
        .ok()
        .filter(|field| (1..1 << 29).contains(field))?;
    let value = match tag & 7 {
        0 => FieldValue::Varint(take_varint(input)?),
        1 => {
            let (bytes, rest) = input.split_first_chunk()?;
            *input = rest;
            FieldValue::Fixed64(u64::from_le_bytes(*bytes))
        }
        2 => {
            let len = usize::try_from(take_varint(input)?).ok()?;
            let (bytes, rest) = input.split_at_checked(len)?;
            *input = rest;
            FieldValue::Delimited(bytes)
        }
        5 => {
            let (bytes, rest) = input.split_first_chunk()?;
            *input = rest;
            FieldValue::Fixed32(u32::from_le_bytes(*bytes))
        }
        _ => return None,
    };
    Some((field, value))
}

/// Runs arbitrary bytes through the readers; must not panic.
pub fn fuzz_protobuf(input: &[u8]) {
    let mut rest = input;
    while !rest.is_empty() {
        let before = rest.len();
        if take_field(&mut rest).is_none() {
            return;
        }
        assert!(rest.len() < before);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varint_round_trips_and_has_its_length(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(bytes.len(), prost::encoding::encoded_len_varint(value));
            let mut rest = &bytes[..];
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn fields_by_hand_are_what_prost_writes(
            key in proptest::collection::vec(any::<u8>(), 1..300),
            value in proptest::collection::vec(any::<u8>(), 1..300),
            revision in any::<i64>(),
        ) {
            let message = crate::wire::proto::mvccpb::KeyValue {
                key: key.clone().into(),
                mod_revision: revision,
                value: value.clone().into(),
                ..Default::default()
            };
            let mut bytes = Vec::new();
            put_delimited(1, &key, &mut bytes);
            put_integer(3, revision as u64, &mut bytes);
            put_delimited(5, &value, &mut bytes);
            let len = delimited_len(1, key.len()) + integer_len(3, revision as u64) + delimited_len(5, value.len());
            prop_assert_eq!(bytes.len(), len);
            prop_assert_eq!(prost::Message::encode_to_vec(&message), bytes.clone());
            let mut rest = &bytes[..];
            prop_assert_eq!(take_field(&mut rest), Some((1, FieldValue::Delimited(&key[..]))));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_protobuf(&input);
        }
    }
}
