//! Metadata: the fields of a call or a request, packed into one piece of shared memory.
//!
//! Clients send the same metadata with each call; a connection keeps the last and hands out the same memory again.
//!
//! ```text
//! | name length 16 | value length 32 | name | value | … , lengths big-endian
//! ```

use std::fmt;

use bytes::{BufMut, Bytes};

/// Fields in the order sent: names in lower case, values as they were sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    packed: Bytes,
}

const LENGTHS_BYTES: usize = 6;

impl Metadata {
    /// Fields from pairs.
    pub fn from_pairs<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p [u8])>) -> Metadata {
        let mut builder = MetadataBuilder::default();
        for (name, value) in pairs {
            builder.push(name.as_bytes(), value);
        }
        builder.build(&Metadata::default())
    }

    /// Bytes of its memory.
    pub fn packed_len(&self) -> usize {
        self.packed.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// First value of `name` as it was sent.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(found, _)| *found == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// First value of `name`, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.value(name)?).ok()
    }

    /// First value of `name`, which ends in `-bin`, decoded from base64 with or without padding.
    pub fn binary(&self, name: &str) -> Option<Vec<u8>> {
        base64_decode(self.value(name)?)
    }

    /// Names and values in order.
    pub fn iter(&self) -> MetadataIter<'_> {
        MetadataIter { rest: &self.packed }
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        formatter
            .debug_map()
            .entries(self.iter().map(|(name, value)| (text(name), text(value))))
            .finish()
    }
}

/// Names and values of a [`Metadata`].
#[derive(Clone, Debug)]
pub struct MetadataIter<'m> {
    rest: &'m [u8],
}

impl<'m> Iterator for MetadataIter<'m> {
    type Item = (&'m [u8], &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, rest) = self.rest.split_first_chunk::<LENGTHS_BYTES>()?;
        let name_len = usize::from(u16::from_be_bytes([lengths[0], lengths[1]]));
        let value_len = u32::from_be_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]) as usize;
        let (name, rest) = rest.split_at(name_len);
        let (value, rest) = rest.split_at(value_len);
        self.rest = rest;
        Some((name, value))
    }
}

/// Gathers fields; its memory is used again for the next block.
#[derive(Clone, Debug, Default)]
pub struct MetadataBuilder {
    packed: Vec<u8>,
}

impl MetadataBuilder {
    /// Forgets all fields.
    pub fn clear(&mut self) {
        self.packed.clear();
        self.packed.shrink_to(4096);
    }

    /// Adds a field. A name longer than 64 KiB is more than any block may hold, and is left out.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
            return;
        };
        self.packed.put_u16(name_len);
        self.packed.put_u32(value_len);
        self.packed.put_slice(name);
        self.packed.put_slice(value);
    }

    /// The fields; shares `previous`'s memory if it holds the same.
    pub fn build(&self, previous: &Metadata) -> Metadata {
        if previous.packed == self.packed {
            return previous.clone();
        }
        Metadata {
            packed: Bytes::copy_from_slice(&self.packed),
        }
    }
}

/// Base64 (RFC 4648 section 4), with or without padding.
pub fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = match text {
        [rest @ .., b'=', b'='] if text.len().is_multiple_of(4) => rest,
        [rest @ .., b'='] if text.len().is_multiple_of(4) => rest,
        _ => text,
    };
    if unpadded.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(unpadded.len() * 3 / 4);
    for group in unpadded.chunks(4) {
        let mut bits = 0u32;
        for (position, &digit) in group.iter().enumerate() {
            bits |= base64_digit(digit)? << (18 - 6 * position);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Base64 without padding, as gRPC sends it.
pub fn base64_encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for (position, &byte) in group.iter().enumerate() {
            bits |= u32::from(byte) << (16 - 8 * position);
        }
        for position in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * position)) as usize & 63]));
        }
    }
    text
}
