//! Walks the records of a log's segments, from pieces of their bytes, and tells apart the three ways in which a log may
//! stop: its end, a write that a crash interrupted, and bytes that changed.
//!
//! The rules are etcd's: a length word of zero (or the file's end) ends a segment; a record that does not fit into the
//! file, or a damaged one in the last segment of which a whole 512-byte sector is zero, was never written completely;
//! anything else that does not check is corruption. Sectors are written whole or not at all, and what was never written
//! is zero, so an interrupted write always leaves such a sector.
//!
//! We are stricter where bytes cannot come from an interrupted write, since taking corruption for a torn tail would
//! drop entries that were acknowledged: a length word that contradicts itself; a length that is wrong while the record
//! behind it is whole; a zero length with more in its own sector; a segment without its first record (a segment gets
//! its name when its head is durable).

use super::{
    WalFault,
    fault::Position,
    record::{LENGTH_BYTES, Length, RawRecord, RecordKind},
};

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// How far a record is looked for when its length word points behind the file's end.
const DOUBTFUL_RECORD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A record whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it holds.
    pub kind: RecordKind,
    /// The running checksum after it.
    pub crc: u32,
    /// Its content.
    pub data: &'a [u8],
}

/// What takes the records of a log.
pub trait RecordSink {
    /// Takes one record. An error ends the walk.
    fn take(&mut self, record: Record<'_>, decoder: &LogDecoder) -> Result<(), WalFault>;
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Feed at least this many bytes from the present position on; the segment has them.
    More(usize),
    /// The segment has no more records.
    EndOfSegment,
}

enum Step<'a> {
    Record(Record<'a>, usize),
    Next(Next),
}

/// Position and checksum of a walk through a log.
#[derive(Debug, Default)]
pub struct LogDecoder {
    segment: String,
    segment_len: u64,
    is_last: bool,
    offset: u64,
    crc: u32,
}

impl LogDecoder {
    /// A walk that has not begun.
    pub fn new() -> LogDecoder {
        LogDecoder::default()
    }

    /// Goes on with the next segment: a file of `len` bytes.
    pub fn begin_segment(&mut self, name: String, len: u64, is_last: bool) {
        self.segment = name;
        self.segment_len = len;
        self.is_last = is_last;
        self.offset = 0;
    }

    /// Bytes of the present segment that have been walked.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The running checksum.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Whether the present segment is the log's last.
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    /// Where the record stands that is being taken.
    pub fn position(&self) -> Position {
        Position {
            segment: self.segment.clone(),
            offset: self.offset,
        }
    }

    /// Gives `sink` all records that `bytes` holds, which begin at the present offset of the segment. Returns how many
    /// bytes were consumed, and what is to be done next.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl RecordSink) -> Result<(usize, Next), WalFault> {
        let mut consumed = 0;
        loop {
            match self.step(&bytes[consumed..])? {
                Step::Next(next) => return Ok((consumed, next)),
                Step::Record(record, len) => {
                    sink.take(record, self)?;
                    self.crc = record.crc;
                    self.offset += len as u64;
                    consumed += len;
                }
            }
        }
    }

    fn step<'a>(&self, bytes: &'a [u8]) -> Result<Step<'a>, WalFault> {
        let remaining = self.segment_len - self.offset;
        let bytes = &bytes[..usize::try_from(remaining).map_or(bytes.len(), |max| bytes.len().min(max))];
        if remaining == 0 {
            return match self.offset {
                0 => Err(self.bad("segment without a head")),
                _ => Ok(Step::Next(Next::EndOfSegment)),
            };
        }
        let Some((word, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return match remaining < LENGTH_BYTES as u64 {
                true => Err(self.unexpected_eof()),
                false => Ok(Step::Next(Next::More(LENGTH_BYTES))),
            };
        };
        if *word == [0; LENGTH_BYTES] {
            return self.step_end(bytes, remaining);
        }
        let length = Length::from_word(u64::from_le_bytes(*word)).map_err(|_| self.bad("length word is damaged"))?;
        if length.body() > remaining - LENGTH_BYTES as u64 {
            return self.step_too_long(bytes, remaining);
        }
        // Fits into the file, which fits into memory.
        let (record_len, body_len) = (length.record as usize, length.body() as usize);
        let Some(body) = rest.get(..body_len) else {
            return Ok(Step::Next(Next::More(LENGTH_BYTES + body_len)));
        };
        let record = self.checked(&body[..record_len], body, rest)?;
        Ok(Step::Record(record, LENGTH_BYTES + body_len))
    }

    /// A length word of zero: nothing was ever written there, so nothing else is in its sector either.
    fn step_end<'a>(&self, bytes: &[u8], remaining: u64) -> Result<Step<'a>, WalFault> {
        let in_sector = (SECTOR_BYTES - self.offset % SECTOR_BYTES).min(remaining) as usize;
        match bytes.get(..in_sector) {
            None => Ok(Step::Next(Next::More(in_sector))),
            Some(sector) if sector.iter().any(|byte| *byte != 0) => Err(self.bad("length word is lost")),
            Some(_) if self.offset == 0 => Err(self.bad("segment without a head")),
            Some(_) => Ok(Step::Next(Next::EndOfSegment)),
        }
    }

    /// A record that would end behind the file.
    fn step_too_long<'a>(&self, bytes: &[u8], remaining: u64) -> Result<Step<'a>, WalFault> {
        let looked_at = remaining.min(DOUBTFUL_RECORD_BYTES_MAX) as usize;
        match bytes.get(LENGTH_BYTES..looked_at) {
            None => Ok(Step::Next(Next::More(looked_at))),
            Some(rest) => match self.is_whole_behind_wrong_length(rest) {
                true => Err(self.bad("length word is damaged")),
                false => Err(self.unexpected_eof()),
            },
        }
    }

    fn checked<'a>(&self, record: &'a [u8], body: &[u8], rest: &[u8]) -> Result<Record<'a>, WalFault> {
        let raw = RawRecord::parse(record);
        let fault = match raw {
            Err(_) => self.bad("record is damaged"),
            Ok(raw) if raw.kind == RecordKind::Crc as u64 => {
                // At the start of a walk there is no checksum to compare with.
                if self.crc != 0 && self.crc != raw.crc {
                    return Err(WalFault::CrcMismatch(self.position()));
                }
                return Ok(Record {
                    kind: RecordKind::Crc,
                    crc: raw.crc,
                    data: raw.data,
                });
            }
            Ok(raw) if raw.is_valid_after(self.crc) => {
                let kind = RecordKind::from_number(raw.kind).ok_or_else(|| self.bad("unexpected block type"))?;
                return Ok(Record {
                    kind,
                    crc: raw.crc,
                    data: raw.data,
                });
            }
            Ok(_) => WalFault::CrcMismatch(self.position()),
        };
        if !self.is_last || !self.has_zero_sector(body) {
            return Err(fault);
        }
        if self.is_whole_behind_wrong_length(rest) {
            return Err(self.bad("length word is damaged"));
        }
        Err(self.unexpected_eof())
    }

    /// Whether some sector of a record's body is all zero.
    fn has_zero_sector(&self, body: &[u8]) -> bool {
        let start = self.offset + LENGTH_BYTES as u64;
        let first_len = ((SECTOR_BYTES - start % SECTOR_BYTES) as usize).min(body.len());
        let (first, others) = body.split_at(first_len);
        std::iter::once(first)
            .chain(others.chunks(SECTOR_BYTES as usize))
            .any(|sector| sector.iter().all(|byte| *byte == 0))
    }

    /// Whether `rest`, what follows a length word, begins with a whole record: then it is the length that is wrong.
    fn is_whole_behind_wrong_length(&self, rest: &[u8]) -> bool {
        RawRecord::parse_prefix(rest).is_some_and(|raw| match raw.kind == RecordKind::Crc as u64 {
            true => raw.crc == self.crc,
            false => RecordKind::from_number(raw.kind).is_some() && raw.is_valid_after(self.crc),
        })
    }

    fn unexpected_eof(&self) -> WalFault {
        match self.offset {
            0 => self.bad("segment without a head"),
            _ => WalFault::UnexpectedEof(self.position()),
        }
    }

    fn bad(&self, what: &'static str) -> WalFault {
        WalFault::BadRecord {
            at: self.position(),
            what,
        }
    }
}
