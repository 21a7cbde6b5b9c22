//! One record as bytes and back: frame, checksum, filler. Byte for byte what etcd's encoder writes.
//!
//! ```text
//!  0        7 8                                        a multiple of 8
//!  ┌─────────┬───────────────────────────────┬─────────┐
//!  │ length  │ 08 type 10 crc [1a len data]  │ zeros   │
//!  └─────────┴───────────────────────────────┴─────────┘
//!   little-endian: the record's bytes in the low 56 bits; if it is padded, the top byte is 0x80 | bytes of padding
//! ```
//!
//! Records start on 8-byte boundaries: the length word never straddles two sectors, so after a torn write a reader finds
//! the old word or the new one, never a mixture. The checksum is a CRC-32C over the data of all records since the log
//! began, and a `Crc` record carries it on: at the head of each segment, and as filler.
//!
//! **Filler** is a `Crc` record with zeros as its data. Readers check the checksum that it carries and go on; its data is
//! in nobody's checksum. It takes any multiple of 8 bytes from 16 on: type and checksum need 4 to 8 bytes, the rest is
//! data or padding. A gap of 8 cannot be filled, since a length word with nothing behind it has no record; and it must
//! not stay, since a length word of zero is the end of the log.

use super::codec::{Fields, Head, Malformed, varint_len};

/// What a record holds. etcd's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Whose log it is: `walpb::Metadata`.
    Metadata = 1,
    /// One entry of raft's log.
    Entry = 2,
    /// Term, vote and commit index.
    HardState = 3,
    /// The running checksum so far.
    Crc = 4,
    /// A snapshot was saved.
    Snapshot = 5,
}

impl RecordKind {
    /// The kind with etcd's number.
    pub fn from_number(number: u64) -> Option<RecordKind> {
        Some(match number {
            1 => RecordKind::Metadata,
            2 => RecordKind::Entry,
            3 => RecordKind::HardState,
            4 => RecordKind::Crc,
            5 => RecordKind::Snapshot,
            _ => return None,
        })
    }
}

/// Bytes of a length word.
pub const LENGTH_BYTES: usize = 8;
/// Smallest gap that filler closes, in bytes.
pub const FILLER_BYTES_MIN: usize = 16;

/// Appends a record whose data is `head` followed by `tail`, and carries the checksum on.
pub(crate) fn put(out: &mut Vec<u8>, crc: &mut u32, kind: RecordKind, head: &[u8], tail: &[u8]) {
    *crc = crc32c::crc32c_append(*crc, head);
    if !tail.is_empty() {
        *crc = crc32c::crc32c_append(*crc, tail);
    }
    let data_len = head.len() + tail.len();
    let record = record_head(kind, *crc, (data_len > 0).then_some(data_len));
    let record_len = record.as_slice().len() + data_len;
    let (word, padding) = length_word(record_len);
    out.reserve(LENGTH_BYTES + record_len + padding);
    out.extend_from_slice(&word.to_le_bytes());
    out.extend_from_slice(record.as_slice());
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
    out.extend_from_slice(&[0; 8][..padding]);
}

/// Appends a record that carries the checksum on: a segment's first.
pub(crate) fn put_crc(out: &mut Vec<u8>, crc: u32) {
    let mut running = crc;
    put(out, &mut running, RecordKind::Crc, &[], &[]);
    debug_assert_eq!(running, crc);
}

/// Appends filler of exactly `len` bytes: a multiple of 8 from [`FILLER_BYTES_MIN`] on; or 24 to 31, which makes a record
/// without padding, to come back to the alignment that logs of etcd before 2.1 do not keep.
pub(crate) fn put_filler(out: &mut Vec<u8>, crc: u32, len: usize) {
    assert!(len >= FILLER_BYTES_MIN);
    let end = out.len() + len;
    let inner_len = len - LENGTH_BYTES;
    let bare_len = record_head(RecordKind::Crc, crc, None).as_slice().len();
    // Two bytes more are a data field's key and length: from there on data takes what is left, less the second byte of
    // a length above 127 where that makes it one too long (padding takes that one).
    let data_len = inner_len.checked_sub(bare_len + 2).map(|data_len| {
        let length_len = varint_len(data_len as u64);
        (data_len + 1) - length_len
    });
    let record = record_head(RecordKind::Crc, crc, data_len);
    let record_len = record.as_slice().len() + data_len.unwrap_or(0);
    let word = if len.is_multiple_of(8) {
        let (word, padding) = length_word(record_len);
        assert_eq!(record_len + padding, inner_len);
        word
    } else {
        assert_eq!(record_len, inner_len);
        record_len as u64
    };
    out.extend_from_slice(&word.to_le_bytes());
    out.extend_from_slice(record.as_slice());
    out.resize(end, 0);
}

fn record_head(kind: RecordKind, crc: u32, data_len: Option<usize>) -> Head {
    let mut head = Head::new();
    head.varint(0x08, kind as u64);
    head.varint(0x10, u64::from(crc));
    if let Some(data_len) = data_len {
        head.varint(0x1a, data_len as u64);
    }
    head
}

fn length_word(record_len: usize) -> (u64, usize) {
    let padding = (8 - record_len % 8) % 8;
    let flag = if padding == 0 { 0 } else { 0x80 | padding as u64 };
    (record_len as u64 | flag << 56, padding)
}

/// A length word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    /// Bytes of the record.
    pub(crate) record: u64,
    /// Bytes of padding behind it.
    pub(crate) padding: u64,
}

impl Length {
    /// Takes a length word apart. The padding must be what the length asks for, or none (etcd before 2.1 did not pad):
    /// a word is written whole or not at all, so one that contradicts itself was changed later.
    pub(crate) fn from_word(word: u64) -> Result<Length, Malformed> {
        let record = word & (u64::MAX >> 8);
        let flag = word >> 56;
        if flag == 0 {
            return Ok(Length { record, padding: 0 });
        }
        let padding = (8 - record % 8) % 8;
        if padding == 0 || flag != 0x80 | padding {
            return Err(Malformed);
        }
        Ok(Length { record, padding })
    }

    /// Bytes of record and padding.
    pub(crate) fn body(self) -> u64 {
        self.record + self.padding
    }
}

/// A record's fields. Its checksum is not checked yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    /// A [`RecordKind`], or a number that none has.
    pub(crate) kind: u64,
    /// The checksum after this record.
    pub(crate) crc: u32,
    /// Its content.
    pub(crate) data: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Reads a record without its frame.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<RawRecord<'a>, Malformed> {
        let mut record = RawRecord::default();
        for field in Fields::new(bytes) {
            record.take_field(field?)?;
        }
        Ok(record)
    }

    /// The record that `bytes` begin with, whatever follows, and the length that its own fields give it: for a frame
    /// whose length is in doubt. A `Crc` record's data says nothing: it is left out, and need not be there.
    pub(crate) fn parse_prefix(bytes: &'a [u8]) -> Option<(RawRecord<'a>, u64)> {
        let mut record = RawRecord::default();
        let mut fields = Fields::new(bytes);
        for number in [1, 2] {
            let (found, field) = fields.next()?.ok()?;
            record.take_field((found, field)).ok()?;
            if found != number {
                return None;
            }
        }
        let head_len = (bytes.len() - fields.rest().len()) as u64;
        if record.kind == RecordKind::Crc as u64 {
            let data_len = fields.announced_len(3).unwrap_or(0);
            return Some((record, head_len.saturating_add(data_len)));
        }
        record
            .take_field(fields.next()?.ok().filter(|(found, _)| *found == 3)?)
            .ok()?;
        Some((record, (bytes.len() - fields.rest().len()) as u64))
    }

    fn take_field(&mut self, (number, field): (u64, super::codec::Field<'a>)) -> Result<(), Malformed> {
        match number {
            1 => self.kind = field.number()?,
            // As etcd's generated code does: the low half of what is there.
            2 => self.crc = field.number()? as u32,
            3 => self.data = field.bytes()?,
            _ => {}
        }
        Ok(())
    }

    /// Whether the record's checksum follows from the one before it.
    pub(crate) fn is_valid_after(&self, crc: u32) -> bool {
        self.crc == crc32c::crc32c_append(crc, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_as_etcd_does() {
        let mut out = Vec::new();
        put_crc(&mut out, 0);
        assert_eq!(out, [4, 0, 0, 0, 0, 0, 0, 0x84, 8, 4, 16, 0, 0, 0, 0, 0]);
        let mut crc = 0;
        out.clear();
        put(&mut out, &mut crc, RecordKind::HardState, &[8, 1], &[16, 0, 24, 1]);
        let record = RawRecord::parse(&out[8..24]).unwrap();
        assert_eq!((record.kind, record.data), (3, &[8, 1, 16, 0, 24, 1][..]));
        assert!(record.is_valid_after(0) && !record.is_valid_after(1));
        assert_eq!(crc, record.crc);
    }

    #[test]
    fn filler_takes_every_length_and_carries_every_checksum() {
        for crc in [0, 1, 0x7f, 0x80, 0xffff, 0x0fff_ffff, 0x1000_0000, u32::MAX] {
            for len in (16..=4104).step_by(8).chain(24..32).chain([65_544]) {
                let mut out = vec![0xee];
                put_filler(&mut out, crc, len);
                assert_eq!(out.len(), 1 + len, "crc {crc} len {len}");
                let word = u64::from_le_bytes(out[1..9].try_into().unwrap());
                let length = Length::from_word(word).unwrap();
                assert_eq!(length.body() as usize + LENGTH_BYTES, len);
                let record = RawRecord::parse(&out[9..9 + length.record as usize]).unwrap();
                assert_eq!((record.kind, record.crc), (4, crc));
                assert!(record.data.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn a_length_word_that_contradicts_itself_is_refused() {
        assert_eq!(Length::from_word(13), Ok(Length { record: 13, padding: 0 }));
        assert_eq!(
            Length::from_word(13 | 0x83 << 56),
            Ok(Length { record: 13, padding: 3 })
        );
        for word in [
            13 | 0x82 << 56,
            13 | 0x03 << 56,
            13 | 0xc3 << 56,
            16 | 0x80 << 56,
            0x83 << 56,
        ] {
            assert_eq!(Length::from_word(word), Err(Malformed), "{word:x}");
        }
    }
}
