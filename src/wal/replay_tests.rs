//! What is written is read back, whatever the batches; what etcd wrote too; and a log that was cut or changed never
//! yields what was not written.

use proptest::prelude::*;
use raft::eraftpb::{ConfState, Entry, HardState};

use super::{
    LogEncoder, Replay, Tail, WalFault, WalSnapshot,
    decoder::{LogDecoder, Record, RecordSink},
    record::{self, RecordKind},
    replay::{Replayer, SnapshotScan, fuzz_replay, replay, walk},
    segment::SegmentName,
};
use crate::base::{LogIndex, Term};

type Segments = Vec<(SegmentName, Vec<u8>)>;

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/wal/0000000000000000-0000000000000000.wal");

fn borrowed(segments: &Segments) -> Vec<(SegmentName, &[u8])> {
    segments.iter().map(|(name, bytes)| (*name, &bytes[..])).collect()
}

/// Seals what has gathered onto `segments`.
fn seal(encoder: &mut LogEncoder, segments: &mut Segments) {
    let Some(batch) = encoder.seal(|len| vec![0; len]) else {
        return;
    };
    if let Some(name) = batch.begins {
        segments.push((name, Vec::new()));
    }
    let (_, bytes) = segments.last_mut().expect("the first batch begins a segment");
    assert!(batch.offset as usize <= bytes.len());
    bytes.truncate(batch.offset as usize);
    bytes.extend_from_slice(&batch.bytes);
}

/// As [`replay`], but a torn tail counts as the end, as after a repair.
fn replay_repaired(segments: &[(SegmentName, &[u8])]) -> Result<(Replay, Tail), WalFault> {
    let mut decoder = LogDecoder::new();
    let mut replayer = Replayer::new(&WalSnapshot::default());
    match walk(segments, &mut decoder, &mut replayer) {
        Err(WalFault::UnexpectedEof(_)) if decoder.is_last() => {}
        other => other?,
    }
    replayer.finish(&decoder, segments.last().expect("not empty").0)
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    entry.data = (0..len)
        .map(|place| (index as usize * 7 + place) as u8 | 1)
        .collect::<Vec<u8>>()
        .into();
    entry
}

fn hard_state(term: u64, commit: u64) -> HardState {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.vote, hard_state.commit) = (term, 3, commit);
    hard_state
}

/// Encodes again what it takes.
#[derive(Default)]
struct Rewriter {
    out: Vec<u8>,
    crc: u32,
    kinds: Vec<RecordKind>,
}

impl RecordSink for Rewriter {
    fn take(&mut self, record: Record<'_>, _: &LogDecoder) -> Result<(), WalFault> {
        match record.kind {
            RecordKind::Crc => record::put_crc(&mut self.out, record.crc),
            kind => record::put(&mut self.out, &mut self.crc, kind, record.data, &[]),
        }
        self.kinds.push(record.kind);
        Ok(())
    }
}

/// Where the hard states begin.
#[derive(Default)]
struct Starts(Vec<u64>);

impl RecordSink for Starts {
    fn take(&mut self, record: Record<'_>, decoder: &LogDecoder) -> Result<(), WalFault> {
        if record.kind == RecordKind::HardState {
            self.0.push(decoder.offset());
        }
        Ok(())
    }
}

#[test]
fn a_log_that_etcd_wrote_is_read_and_written_alike() {
    let segments = [(SegmentName::FIRST, GOLDEN)];
    let mut rewriter = Rewriter::default();
    walk(&segments, &mut LogDecoder::new(), &mut rewriter).unwrap();
    assert_eq!(rewriter.out, GOLDEN[..rewriter.out.len()]);
    assert!(GOLDEN[rewriter.out.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(
        rewriter
            .kinds
            .iter()
            .filter(|kind| **kind == RecordKind::Snapshot)
            .count(),
        3
    );

    let (whole, tail) = replay(&segments, &WalSnapshot::default()).unwrap();
    assert_eq!(tail.position, rewriter.out.len() as u64);
    assert_eq!(whole.entries.len() as u64, tail.last_index.0);
    assert_eq!(whole.hard_state.commit, tail.last_index.0);
    let mut scan = SnapshotScan::default();
    walk(&segments, &mut LogDecoder::new(), &mut scan).unwrap();
    let snapshots = scan.finish();
    assert_eq!(
        snapshots.iter().map(|snapshot| snapshot.index.0).collect::<Vec<_>>(),
        [0, 11, 22]
    );
    let (rest, _) = replay(&segments, &snapshots[2]).unwrap();
    assert_eq!(rest.entries, whole.entries[22..]);
}

#[test]
fn a_log_that_etcd_left_in_mid_block_is_continued() {
    let (before, tail) = replay(&[(SegmentName::FIRST, GOLDEN)], &WalSnapshot::default()).unwrap();
    let position = tail.position as usize;
    assert_ne!(position % 4096, 0);
    let next = entry(tail.last_index.0 + 1, 2, 100);
    let mut segments = vec![(SegmentName::FIRST, GOLDEN[..position].to_vec())];
    let mut encoder = LogEncoder::resume(tail, &GOLDEN[position / 4096 * 4096..position]);
    encoder.append(std::slice::from_ref(&next), None);
    seal(&mut encoder, &mut segments);
    assert_eq!(segments[0].1[..position], GOLDEN[..position]);
    let (after, _) = replay(&borrowed(&segments), &WalSnapshot::default()).unwrap();
    assert_eq!(after.entries[..before.entries.len()], before.entries);
    assert_eq!(after.entries.last(), Some(&next));
}

#[test]
fn a_torn_write_into_the_block_that_etcd_left_loses_nothing_of_etcds() {
    let (before, tail) = replay(&[(SegmentName::FIRST, GOLDEN)], &WalSnapshot::default()).unwrap();
    let position = tail.position as usize;
    let mut encoder = LogEncoder::resume(tail.clone(), &GOLDEN[position / 4096 * 4096..position]);
    let added: Vec<Entry> = (1..=4).map(|more| entry(tail.last_index.0 + more, 3, 1500)).collect();
    encoder.append(&added, Some(&hard_state(3, tail.last_index.0)));
    let batch = encoder.seal(|len| vec![0; len]).unwrap();
    let sectors = batch.bytes.len() / 512;
    let mut old = GOLDEN.to_vec();
    old.resize(batch.offset as usize + batch.bytes.len() + 4096, 0);
    for mask in 0..4096u64 {
        let mut torn = old.clone();
        for sector in (0..sectors).filter(|sector| mask.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> sector & 1 == 1) {
            let at = batch.offset as usize + sector * 512;
            torn[at..at + 512].copy_from_slice(&batch.bytes[sector * 512..][..512]);
        }
        let (after, _) =
            replay_repaired(&[(SegmentName::FIRST, &torn)]).unwrap_or_else(|fault| panic!("{mask}: {fault}"));
        let (kept, more) = after.entries.split_at(before.entries.len());
        assert!(kept == before.entries && more == &added[..more.len()], "{mask}");
    }
}

/// Three batches, the second with the smallest filler at its end, the last over several blocks. Returns where each
/// ends, and the entries up to there.
fn three_batches() -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut logs = (3900..4100).map(three_batches_of);
    let has_bare_filler = |(bytes, ends): &(Vec<u8>, Vec<(usize, usize)>)| {
        let end = ends[2].0;
        bytes[end - 15..end - 9] == [0; 6] && bytes[end - 8..end - 6] == [8, 4]
    };
    logs.find(has_bare_filler).expect("some length leaves a gap of 16")
}

fn three_batches_of(second_len: usize) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut encoder = LogEncoder::create(b"whose log this is");
    let mut segments = Segments::new();
    seal(&mut encoder, &mut segments);
    let mut ends = vec![(segments[0].1.len(), 0)];
    let mut next = 1;
    for (count, len) in [(3, 100), (1, second_len), (3, 1900)] {
        let batch: Vec<Entry> = (next..next + count).map(|index| entry(index, 1, len)).collect();
        encoder.append(&batch, Some(&hard_state(1, next - 1)));
        next += count;
        seal(&mut encoder, &mut segments);
        ends.push((segments[0].1.len(), next as usize - 1));
    }
    (segments.remove(0).1, ends)
}

#[test]
fn a_log_cut_at_any_byte_keeps_what_was_whole() {
    let (bytes, ends) = three_batches();
    let (whole, _) = replay(&[(SegmentName::FIRST, &bytes)], &WalSnapshot::default()).unwrap();
    for len in ends[0].0..bytes.len() {
        let (_, durable) = *ends.iter().rev().find(|(end, _)| *end <= len).unwrap();
        let mut zeroed = bytes[..len].to_vec();
        let cut = replay_repaired(&[(SegmentName::FIRST, &zeroed)]);
        zeroed.resize(bytes.len() + 8192, 0);
        let torn = replay_repaired(&[(SegmentName::FIRST, &zeroed)]);
        for result in [cut, torn] {
            match result {
                Ok((replay, _)) => {
                    assert!(replay.entries.len() >= durable, "cut at {len}");
                    assert_eq!(replay.entries, whole.entries[..replay.entries.len()], "cut at {len}");
                }
                // Not a cut that a disk makes.
                Err(fault) => assert_ne!(len % 512, 0, "cut at {len}: {fault}"),
            }
        }
    }
    for len in 0..ends[0].0 {
        let _ = replay_repaired(&[(SegmentName::FIRST, &bytes[..len])]);
    }
}

#[test]
fn filler_torn_behind_its_checksum_is_torn_and_not_damaged() {
    let mut seen = 0;
    for len in 400..1000 {
        let mut encoder = LogEncoder::create(b"me");
        let mut segments = Segments::new();
        seal(&mut encoder, &mut segments);
        encoder.append(&[entry(1, 1, len)], None);
        let records_end = 4096 + encoder.gathered_bytes();
        seal(&mut encoder, &mut segments);
        let bytes = &mut segments[0].1;
        if records_end % 512 != 496 {
            continue;
        }
        seen += 1;
        bytes[records_end + 16..].fill(0);
        let (replay, tail) = replay_repaired(&borrowed(&segments)).unwrap();
        assert_eq!((replay.entries.len(), tail.position as usize), (1, records_end));
    }
    assert!(seen > 1);
}

#[test]
fn no_changed_bit_loses_or_invents_an_entry() {
    let (mut bytes, ends) = three_batches();
    bytes.resize(bytes.len() + 4096, 0);
    let (whole, _) = replay(&[(SegmentName::FIRST, &bytes)], &WalSnapshot::default()).unwrap();
    // The checksum does not cover a record's kind, at the second byte behind the length word: a hard state may become an
    // entry. Everything else is noticed.
    let mut kinds = Starts::default();
    walk(&[(SegmentName::FIRST, &bytes)], &mut LogDecoder::new(), &mut kinds).unwrap();
    let mut noticed = 0;
    for bit in 0..ends[3].0 * 8 {
        // Most zeros are filler's; a few of them stand for all.
        if bytes[bit / 8] == 0 && bit / 8 % 64 > 2 {
            continue;
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
        match replay_repaired(&[(SegmentName::FIRST, &bytes)]) {
            Ok((replay, _)) => {
                let is_same = replay.entries == whole.entries && replay.hard_state == whole.hard_state;
                let is_kind = kinds.0.iter().any(|start| start + 9 == bit as u64 / 8);
                let count = replay.entries.len();
                assert!(is_same || is_kind, "bit {bit} of byte {}: {count} entries", bit / 8);
            }
            Err(_) => noticed += 1,
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(noticed > 59_000, "{noticed}");
}

#[test]
fn faults_are_told_apart() {
    let snapshot = |index, term| WalSnapshot {
        index: LogIndex(index),
        term: Term(term),
        conf_state: Some(ConfState::default()),
    };
    let mut encoder = LogEncoder::create(b"one");
    let mut segments = Segments::new();
    encoder.set_cut_at(4096);
    encoder.append(&[entry(1, 1, 10)], Some(&hard_state(1, 1)));
    encoder.append_snapshot(&snapshot(1, 1));
    seal(&mut encoder, &mut segments);
    encoder.append(&[entry(2, 1, 10)], None);
    seal(&mut encoder, &mut segments);
    encoder.append_snapshot(&snapshot(70, 1));
    seal(&mut encoder, &mut segments);
    let parts = borrowed(&segments);
    assert_eq!(replay(&parts, &snapshot(1, 1)).unwrap().1.last_index, LogIndex(70));
    let (rest, _) = replay(&parts, &snapshot(1, 1)).unwrap();
    assert_eq!(rest.entries, [entry(2, 1, 10)]);
    assert!(matches!(
        replay(&parts, &snapshot(1, 2)),
        Err(WalFault::SnapshotMismatch(_))
    ));
    assert!(matches!(
        replay(&parts, &snapshot(2, 1)),
        Err(WalFault::SnapshotNotFound)
    ));
    assert!(matches!(
        replay(&[], &snapshot(2, 1)),
        Err(WalFault::FileNotFound { .. })
    ));

    // The second segment of another log.
    let mut other = LogEncoder::create(b"two");
    let mut others = Segments::new();
    other.set_cut_at(4096);
    seal(&mut other, &mut others);
    other.append(&[entry(1, 1, 10)], None);
    seal(&mut other, &mut others);
    let mixed = [parts[0], (others[1].0, &others[1].1)];
    assert!(matches!(replay(&mixed, &snapshot(0, 0)), Err(WalFault::CrcMismatch(_))));

    let mut damaged = segments.clone();
    let data = entry(1, 1, 10).data;
    let place = damaged[0].1.windows(10).position(|bytes| bytes == data).unwrap();
    damaged[0].1[place] ^= 1;
    let fault = replay(&borrowed(&damaged), &snapshot(0, 0)).unwrap_err();
    assert!(
        fault
            .to_string()
            .starts_with("wal: crc mismatch: in file '0000000000000000-0000000000000000.wal'")
    );

    let mut bytes = Vec::new();
    let mut crc = 0;
    record::put_crc(&mut bytes, 0);
    record::put(&mut bytes, &mut crc, RecordKind::Metadata, b"a", &[]);
    let mut conflicting = bytes.clone();
    let mut conflicting_crc = crc;
    record::put(&mut conflicting, &mut conflicting_crc, RecordKind::Metadata, b"b", &[]);
    let only = |bytes| replay(&[(SegmentName::FIRST, bytes)], &WalSnapshot::default());
    assert!(matches!(only(&conflicting), Err(WalFault::MetadataConflict(_))));
    record::put(&mut bytes, &mut crc, RecordKind::Entry, &[8, 0, 16, 1, 24, 2], &[]);
    assert!(matches!(only(&bytes), Err(WalFault::SliceOutOfRange(_))));
    assert!(matches!(only(&[0; 8192]), Err(WalFault::BadRecord { .. })));
    assert!(matches!(only(&[]), Err(WalFault::BadRecord { .. })));
}

#[test]
fn records_of_old_logs_without_padding_are_read_and_continued() {
    let mut bytes = Vec::new();
    record::put_crc(&mut bytes, 0);
    let mut crc = 0;
    for (kind, data) in [
        (1, &b"me"[..]),
        (5, &[8, 0, 16, 0]),
        (2, &[8, 0, 16, 1, 24, 1, 34, 1, 9]),
    ] {
        crc = crc32c::crc32c_append(crc, data);
        let mut head = super::codec::Head::new();
        head.varint(0x08, kind);
        head.varint(0x10, u64::from(crc));
        head.varint(0x1a, data.len() as u64);
        let len = head.as_slice().len() + data.len();
        bytes.extend_from_slice(&(len as u64).to_le_bytes());
        bytes.extend_from_slice(head.as_slice());
        bytes.extend_from_slice(data);
    }
    assert_ne!(bytes.len() % 8, 0);
    let (before, tail) = replay(&[(SegmentName::FIRST, &bytes)], &WalSnapshot::default()).unwrap();
    assert_eq!((before.metadata.as_slice(), before.entries.len()), (&b"me"[..], 1));
    let mut encoder = LogEncoder::resume(tail, &bytes);
    let mut segments = vec![(SegmentName::FIRST, bytes)];
    encoder.append(&[entry(2, 1, 3)], None);
    seal(&mut encoder, &mut segments);
    let (after, _) = replay(&borrowed(&segments), &WalSnapshot::default()).unwrap();
    assert_eq!(
        (after.entries.len(), after.entries[0].clone()),
        (2, before.entries[0].clone())
    );
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        back: u64,
        lens: Vec<usize>,
        has_hard_state: bool,
    },
    Snapshot,
    Seal,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => 0..200usize, 1 => 3000..5000usize];
    prop_oneof![
        6 => (0..4u64, prop::collection::vec(len, 0..6), any::<bool>())
            .prop_map(|(back, lens, has_hard_state)| Step::Append { back, lens, has_hard_state }),
        1 => Just(Step::Snapshot),
        4 => Just(Step::Seal),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_batches_in_any_segments_are_read_back(
        steps in prop::collection::vec(step(), 1..60), cut_at in 1..40_000u64, metadata in prop::collection::vec(1..255u8, 1..30),
    ) {
        let mut encoder = LogEncoder::create(&metadata);
        encoder.set_cut_at(cut_at);
        let mut segments = Segments::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut last_hard_state = HardState::default();
        let mut snapshots = vec![WalSnapshot::default()];
        for (time, step) in steps.into_iter().chain([Step::Seal]).enumerate() {
            let term = time as u64 + 1;
            match step {
                Step::Append { back, lens, has_hard_state } => {
                    // Only an entry in its place makes another one forgotten.
                    let back = if lens.is_empty() { 0 } else { entries.len().min(back as usize) };
                    entries.truncate(entries.len() - back);
                    let first = entries.len() as u64 + 1;
                    let batch: Vec<Entry> =
                        lens.iter().zip(first..).map(|(len, index)| entry(index, term, *len)).collect();
                    let hard_state = hard_state(term, first - 1);
                    encoder.append(&batch, has_hard_state.then_some(&hard_state));
                    if has_hard_state {
                        last_hard_state = hard_state;
                    }
                    entries.extend(batch);
                }
                Step::Snapshot => {
                    let snapshot = WalSnapshot {
                        index: LogIndex(entries.len() as u64),
                        term: Term(entries.last().map_or(0, |entry| entry.term)),
                        conf_state: Some(ConfState::default()),
                    };
                    if snapshot.index > LogIndex(0) {
                        encoder.append_snapshot(&snapshot);
                        snapshots.push(snapshot);
                    }
                }
                Step::Seal => seal(&mut encoder, &mut segments),
                Step::Restart => {
                    seal(&mut encoder, &mut segments);
                    let (_, tail) = replay(&borrowed(&segments), &WalSnapshot::default()).unwrap();
                    prop_assert_eq!(tail.position % 4096, 0);
                    encoder = LogEncoder::resume(tail, &[]);
                    encoder.set_cut_at(cut_at);
                }
            }
        }
        let (replay, tail) = replay(&borrowed(&segments), &WalSnapshot::default()).unwrap();
        prop_assert_eq!(replay.metadata, metadata);
        prop_assert_eq!(replay.hard_state, last_hard_state);
        prop_assert_eq!(tail.position as usize, segments.last().unwrap().1.len());
        prop_assert_eq!(&replay.entries, &entries);
        let sequences: Vec<u64> = segments.iter().map(|(name, _)| name.sequence).collect();
        prop_assert_eq!(sequences, (0..segments.len() as u64).collect::<Vec<_>>());
        let mut scan = SnapshotScan::default();
        walk(&borrowed(&segments), &mut LogDecoder::new(), &mut scan).unwrap();
        snapshots.retain(|snapshot| snapshot.index.0 <= tail.hard_state.commit);
        prop_assert_eq!(scan.finish(), snapshots);
    }

    #[test]
    fn a_write_of_which_any_sectors_are_missing_is_torn_and_never_corrupt(
        batches in prop::collection::vec(prop::collection::vec((0..2500usize, any::<bool>()), 1..5), 1..4),
        mask in any::<u64>(), style in 0..4u8,
    ) {
        let mut encoder = LogEncoder::create(b"me");
        let mut segments = Segments::new();
        seal(&mut encoder, &mut segments);
        let (mut entries, mut durable, mut start) = (Vec::new(), 0, 0);
        for lens in batches {
            (durable, start) = (entries.len(), segments[0].1.len());
            for (len, is_zero) in lens {
                let mut next = entry(entries.len() as u64 + 1, 1, len);
                if is_zero {
                    next.data = vec![0; len].into();
                }
                encoder.append(&[next.clone()], Some(&hard_state(1, entries.len() as u64)));
                entries.push(next);
            }
            seal(&mut encoder, &mut segments);
        }
        let bytes = &mut segments[0].1;
        let sectors = (bytes.len() - start) / 512;
        for sector in 0..sectors {
            let is_missing = match style {
                0 => mask >> (sector % 64) & 1 == 1,
                1 => sector >= mask as usize % sectors,
                2 => sector == mask as usize % sectors,
                _ => sector != mask as usize % sectors,
            };
            if is_missing {
                bytes[start + sector * 512..][..512].fill(0);
            }
        }
        bytes.resize(bytes.len() + 8192, 0);
        let (replay, _) = replay_repaired(&borrowed(&segments)).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert!(replay.entries.len() >= durable);
        prop_assert!(replay.entries == entries[..replay.entries.len()]);
    }

    #[test]
    fn bytes_that_are_no_log_are_no_trouble(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_replay(&bytes);
    }
}

#[test]
fn a_thousand_damaged_logs_are_no_trouble() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for _ in 0..1000 {
        let mut bytes = GOLDEN.to_vec();
        for _ in 0..=next(4) {
            let place = next(bytes.len());
            match next(4) {
                0 => bytes[place] = next(256) as u8,
                1 => bytes.truncate(place + 1),
                2 => bytes[place / 512 * 512..]
                    .iter_mut()
                    .take(512)
                    .for_each(|byte| *byte = 0),
                _ => {
                    let end = (place + next(64)).min(bytes.len());
                    bytes.drain(place..end);
                    bytes.push(0);
                }
            }
        }
        fuzz_replay(&bytes);
    }
}
