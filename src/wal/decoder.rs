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
//! its name when its head is durable); a damaged record with a later batch behind it. A batch is written when the one
//! before is durable, and filler stands at the end of each (but for the few that fill their blocks exactly): so records
//! behind filler prove that everything before it was durable once.
//!
//! What the format cannot tell: the checksum covers a record's data, not its kind.

use super::{
    WalFault,
    fault::Position,
    record::{LENGTH_BYTES, Length, RawRecord, RecordKind},
};

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// How far we look behind a damaged record for what tells an interrupted write from corruption.
const LOOK_BEHIND_BYTES_MAX: u64 = 4 * 1024 * 1024;

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
            return self.step_doubtful(bytes, remaining, None);
        }
        // Fits into the file, which fits into memory.
        let (record_len, body_len) = (length.record as usize, length.body() as usize);
        let Some(body) = rest.get(..body_len) else {
            return Ok(Step::Next(Next::More(LENGTH_BYTES + body_len)));
        };
        match self.checked(&body[..record_len]) {
            Ok(record) => Ok(Step::Record(record, LENGTH_BYTES + body_len)),
            Err(fault) if !self.is_last || !self.has_zero_sector(body) => Err(fault),
            Err(_) => self.step_doubtful(bytes, remaining, Some(body_len)),
        }
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

    /// A record that was not written completely, or that was and is damaged. `body_len` is `None` if it would end behind
    /// the file.
    fn step_doubtful<'a>(&self, bytes: &[u8], remaining: u64, body_len: Option<usize>) -> Result<Step<'a>, WalFault> {
        let wanted = remaining.min(LOOK_BEHIND_BYTES_MAX) as usize;
        let wanted = wanted.max(body_len.map_or(0, |body_len| LENGTH_BYTES + body_len));
        let Some(rest) = bytes.get(LENGTH_BYTES..wanted) else {
            return Ok(Step::Next(Next::More(wanted)));
        };
        let word = bytes.first_chunk().map(|word| u64::from_le_bytes(*word));
        let length = word.and_then(|word| Length::from_word(word).ok());
        if self.is_whole_behind_wrong_length(rest, length.map_or(0, |length| length.record)) {
            return Err(self.bad("length word is damaged"));
        }
        if body_len.is_some_and(|body_len| self.has_later_batch(rest, body_len)) {
            return Err(self.bad("record is damaged"));
        }
        Err(self.unexpected_eof())
    }

    /// The record, if its bytes are what was written.
    fn checked<'a>(&self, bytes: &'a [u8]) -> Result<Record<'a>, WalFault> {
        let raw = RawRecord::parse(bytes).map_err(|_| self.bad("record is damaged"))?;
        let kind = RecordKind::from_number(raw.kind);
        let is_valid = match kind {
            // At the start of a walk there is no checksum to compare with.
            Some(RecordKind::Crc) => self.crc == 0 || self.crc == raw.crc,
            _ => raw.is_valid_after(self.crc),
        };
        if !is_valid {
            return Err(WalFault::CrcMismatch(self.position()));
        }
        Ok(Record {
            kind: kind.ok_or_else(|| self.bad("unexpected block type"))?,
            crc: raw.crc,
            data: raw.data,
        })
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

    /// Whether `rest`, what follows a length word of `record_len`, begins with a whole record of another length: then it
    /// is the word that is wrong. Filler is whole if something stands behind it, since it ends its batch; if nothing
    /// does, nothing is lost with it (and its first bytes may be all of it that was written).
    fn is_whole_behind_wrong_length(&self, rest: &[u8], record_len: u64) -> bool {
        let Some((raw, len)) = RawRecord::parse_prefix(rest).filter(|(raw, _)| follows(raw, self.crc)) else {
            return false;
        };
        if raw.kind != RecordKind::Crc as u64 {
            return len != record_len;
        }
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| len.checked_next_multiple_of(8));
        let behind = end.and_then(|end| rest.get(end..)).and_then(record_at);
        behind.is_some_and(|(raw, _)| follows(&raw, self.crc))
    }

    /// Whether what follows a damaged record of `body_len` bytes was written after it was durable: records behind
    /// filler, or behind the damaged record itself if that was filler (the checksum goes on past it unchanged).
    fn has_later_batch(&self, rest: &[u8], body_len: usize) -> bool {
        let (damaged, behind) = rest.split_at(body_len);
        let Some((first, _)) = record_at(behind) else {
            return false;
        };
        if follows(&first, self.crc) {
            return true;
        }
        let mut crc = RawRecord::parse(damaged).map_or(self.crc, |raw| raw.crc);
        let mut is_behind_filler = false;
        let mut behind = behind;
        while let Some((raw, frame_len)) = record_at(behind) {
            if !follows(&raw, crc) {
                return false;
            }
            if is_behind_filler {
                return true;
            }
            is_behind_filler = raw.kind == RecordKind::Crc as u64;
            crc = raw.crc;
            behind = &behind[frame_len..];
        }
        false
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

/// Whether a record belongs behind one with the running checksum `crc`.
fn follows(raw: &RawRecord<'_>, crc: u32) -> bool {
    match RecordKind::from_number(raw.kind) {
        Some(RecordKind::Crc) => raw.crc == crc,
        Some(_) => raw.is_valid_after(crc),
        None => false,
    }
}

/// The record that `bytes` begin with, and the length of its frame; its checksum is not checked.
fn record_at(bytes: &[u8]) -> Option<(RawRecord<'_>, usize)> {
    let (word, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = Length::from_word(u64::from_le_bytes(*word)).ok()?;
    let body_len = usize::try_from(length.body())
        .ok()
        .filter(|len| (1..=rest.len()).contains(len))?;
    let raw = RawRecord::parse(&rest[..length.record as usize]).ok()?;
    Some((raw, LENGTH_BYTES + body_len))
}
