//! Segments' names, and which of them a reader needs.
//!
//! A name is two numbers of 16 hexadecimal digits: the segment's place in the sequence, and the first index that its
//! entries may have. Anything else in the directory is not ours to read.

use std::fmt;

use crate::base::LogIndex;

/// A segment of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Place in the sequence, from 0.
    pub sequence: u64,
    /// Index of the first entry that was to come when the segment began. An entry that replaces an uncommitted one may
    /// have a lower index.
    pub first_index: LogIndex,
}

impl SegmentName {
    /// The first segment of every log.
    pub const FIRST: SegmentName = SegmentName {
        sequence: 0,
        first_index: LogIndex(0),
    };

    /// Reads a file's name; `None` if it is not a segment's.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let (sequence, first_index) = parse_pair(name, ".wal")?;
        Some(SegmentName {
            sequence,
            first_index: LogIndex(first_index),
        })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.first_index)
    }
}

/// Reads `<16 hexadecimal digits>-<16 hexadecimal digits><suffix>`, as logs and snapshots are named.
pub(crate) fn parse_pair(name: &str, suffix: &str) -> Option<(u64, u64)> {
    let (left, right) = name.strip_suffix(suffix)?.split_once('-')?;
    Some((parse_hex16(left)?, parse_hex16(right)?))
}

/// Reads exactly 16 hexadecimal digits of either case.
pub(crate) fn parse_hex16(digits: &str) -> Option<u64> {
    if digits.len() != 16 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// The segments among a directory's names, in order.
pub fn segments_in(names: &[String]) -> Vec<SegmentName> {
    let mut segments: Vec<SegmentName> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.sort_unstable();
    segments
}

/// The segments that a reader needs who starts behind `index`: from the last one that begins at or before it. `None`
/// when there is no such segment or one is missing in between (etcd: "wal: file not found").
pub fn segments_from(segments: &[SegmentName], index: LogIndex) -> Option<&[SegmentName]> {
    let first = segments.iter().rposition(|segment| segment.first_index <= index)?;
    let needed = &segments[first..];
    is_sequence(needed).then_some(needed)
}

/// The newest segments that follow each other without a gap. Older ones are left by a purge that a crash cut short.
pub fn last_sequence(segments: &[SegmentName]) -> &[SegmentName] {
    let start = (1..segments.len())
        .rev()
        .find(|place| !is_sequence(&segments[place - 1..=*place]));
    &segments[start.unwrap_or(0)..]
}

/// Whether no segment is missing between the first and the last.
fn is_sequence(segments: &[SegmentName]) -> bool {
    segments
        .windows(2)
        .all(|pair| pair[0].sequence.checked_add(1) == Some(pair[1].sequence))
}

/// How many of the oldest held segments may be given up when entries up to `index` are not needed any more: all that
/// are followed by one which begins below `index`, so that the entry before `index` stays readable (etcd's
/// ReleaseLockTo). `held` is in order; the last is never given up.
pub fn releasable(held: &[SegmentName], index: LogIndex) -> usize {
    match held.iter().position(|segment| segment.first_index >= index) {
        Some(first_not_smaller) => first_not_smaller.saturating_sub(1),
        None => held.len().saturating_sub(1),
    }
}

/// The oldest segments that go so that at most `wals_max` stay; none that is `held_from` or newer. Removed in this
/// order, a crash in between leaves a log without a gap.
pub fn purgeable(segments: &[SegmentName], held_from: SegmentName, wals_max: usize) -> &[SegmentName] {
    let surplus = segments.len().saturating_sub(wals_max);
    let released = segments.iter().take_while(|segment| **segment < held_from).count();
    &segments[..surplus.min(released)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(u64, u64)]) -> Vec<SegmentName> {
        let name = |&(sequence, first_index): &(u64, u64)| SegmentName {
            sequence,
            first_index: LogIndex(first_index),
        };
        pairs.iter().map(name).collect()
    }

    #[test]
    fn names_are_etcds_and_only_those_parse() {
        let name = SegmentName {
            sequence: 0x1a,
            first_index: LogIndex(0xbeef),
        };
        assert_eq!(name.to_string(), "000000000000001a-000000000000beef.wal");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for other in [
            "",
            ".wal",
            "0.tmp",
            "000000000000001a-000000000000beef.wal.broken",
            "000000000000001a000000000000beef.wal",
            "00000000000001a-000000000000beef.wal",
            "+00000000000001a-000000000000beef.wal",
            "000000000000001a-000000000000beeg.wal",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_reader_starts_at_the_segment_that_holds_its_index_and_refuses_a_gap() {
        let segments = named(&[(0, 0), (1, 10), (2, 20), (3, 30)]);
        assert_eq!(segments_from(&segments, LogIndex(0)), Some(&segments[..]));
        assert_eq!(segments_from(&segments, LogIndex(19)), Some(&segments[1..]));
        assert_eq!(segments_from(&segments, LogIndex(20)), Some(&segments[2..]));
        assert_eq!(segments_from(&segments, LogIndex(u64::MAX)), Some(&segments[3..]));
        assert_eq!(segments_from(&segments[1..], LogIndex(9)), None);
        assert_eq!(segments_from(&[], LogIndex(0)), None);
        let gapped = named(&[(0, 0), (2, 20), (3, 30)]);
        assert_eq!(segments_from(&gapped, LogIndex(5)), None);
        assert_eq!(segments_from(&gapped, LogIndex(25)), Some(&gapped[1..]));
        assert_eq!(last_sequence(&gapped), &gapped[1..]);
        assert_eq!(last_sequence(&segments), &segments[..]);
        assert_eq!(last_sequence(&[]), &[]);
    }

    #[test]
    fn release_keeps_the_segment_that_holds_the_entry_before_the_index() {
        let held = named(&[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]);
        assert_eq!(releasable(&held, LogIndex(4)), 2);
        assert_eq!(releasable(&held, LogIndex(5)), 3);
        assert_eq!(releasable(&held, LogIndex(0)), 0);
        assert_eq!(releasable(&held, LogIndex(1)), 0);
        assert_eq!(releasable(&held, LogIndex(7)), 5);
        assert_eq!(releasable(&held[..1], LogIndex(7)), 0);
        assert_eq!(releasable(&[], LogIndex(7)), 0);
    }

    #[test]
    fn purge_takes_the_oldest_beyond_the_maximum_and_nothing_that_is_held() {
        let segments = named(&[(0, 0), (1, 10), (2, 20), (3, 30)]);
        assert_eq!(purgeable(&segments, segments[3], 2), &segments[..2]);
        assert_eq!(purgeable(&segments, segments[1], 2), &segments[..1]);
        assert_eq!(purgeable(&segments, segments[0], 0), &[]);
        assert_eq!(purgeable(&segments, segments[3], 5), &[]);
    }
}
