//! The log's files under a host in memory: life, crashes, repair, locks, segments.

use std::{path::Path, rc::Rc};

use proptest::prelude::*;
use raft::eraftpb::{ConfState, Entry, HardState};

use super::{LogEncoder, Replay, Wal, WalFault, WalOptions, WalSnapshot, WalSync, test_host::TestHost};
use crate::base::{LogIndex, Term};

const DIRECTORY: &str = "/member/wal";

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 64 * 1024,
        ..WalOptions::default()
    }
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    entry.data = (0..len)
        .map(|place| (index as usize + place) as u8 | 1)
        .collect::<Vec<u8>>()
        .into();
    entry
}

fn hard_state(term: u64, commit: u64) -> HardState {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.vote, hard_state.commit) = (term, 1, commit);
    hard_state
}

fn snapshot_at(index: u64, term: u64) -> WalSnapshot {
    WalSnapshot {
        index: LogIndex(index),
        term: Term(term),
        conf_state: Some(ConfState::default()),
    }
}

async fn write(wal: &Wal<TestHost>, encoder: &mut LogEncoder) -> Result<(), WalFault> {
    match encoder.seal(|len| wal.buffer(len)) {
        Some(batch) => wal.write(batch).await.map(drop),
        None => Ok(()),
    }
}

async fn create(host: &TestHost) -> (Wal<TestHost>, LogEncoder) {
    Wal::create(host, Path::new(DIRECTORY), b"whose", options())
        .await
        .expect("a log can be created")
}

async fn open(host: &TestHost, from: &WalSnapshot) -> Result<(Wal<TestHost>, LogEncoder, Replay), WalFault> {
    Wal::open(host, Path::new(DIRECTORY), from, options()).await
}

#[test]
fn what_was_written_is_read_back_across_segments() {
    let host = TestHost::new(1);
    host.run(async {
        let (wal, mut encoder) = create(&host).await;
        assert!(Wal::exists(&host, Path::new(DIRECTORY)).await.unwrap());
        let again = Wal::create(&host, Path::new(DIRECTORY), b"", options()).await;
        assert!(matches!(again, Err(WalFault::Exists(_))));
        for index in 1..=100 {
            encoder.append(&[entry(index, 1, 3000)], Some(&hard_state(1, index - 1)));
            write(&wal, &mut encoder).await.unwrap();
        }
        assert!(encoder.segment().sequence >= 5);
        assert!(matches!(
            open(&host, &WalSnapshot::default()).await,
            Err(WalFault::Locked(_))
        ));
        wal.close().await;
        drop(wal);
        assert!(!host.names(DIRECTORY).contains(&"next.tmp".to_string()));

        let (wal, mut encoder, replay) = open(&host, &WalSnapshot::default()).await.unwrap();
        assert_eq!(replay.metadata, b"whose");
        assert_eq!(replay.hard_state, hard_state(1, 99));
        assert_eq!(
            replay.entries,
            (1..=100).map(|index| entry(index, 1, 3000)).collect::<Vec<_>>()
        );
        assert!(!replay.repaired);
        encoder.append(&[entry(101, 2, 5)], Some(&hard_state(2, 100)));
        write(&wal, &mut encoder).await.unwrap();
        drop(wal);
        let (_, _, replay) = open(&host, &WalSnapshot::default()).await.unwrap();
        assert_eq!((replay.entries.len(), replay.hard_state), (101, hard_state(2, 100)));
    });
}

#[test]
fn reading_starts_behind_a_snapshot_and_released_segments_are_purged() {
    let host = TestHost::new(2);
    host.run(async {
        let (wal, mut encoder) = create(&host).await;
        for index in 1..=100 {
            encoder.append(&[entry(index, 1, 3000)], Some(&hard_state(1, index)));
            if index == 90 {
                encoder.append_snapshot(&snapshot_at(80, 1));
            }
            write(&wal, &mut encoder).await.unwrap();
        }
        let segments = encoder.segment().sequence + 1;
        let known = Wal::valid_snapshots(&host, Path::new(DIRECTORY)).await.unwrap();
        assert_eq!(known, [WalSnapshot::default(), snapshot_at(80, 1)]);
        assert_eq!(wal.purge(2).await.unwrap(), 0, "nothing is released yet");
        wal.release_to(LogIndex(80));
        assert_eq!(wal.purge(0).await.unwrap(), 0);
        assert_eq!(wal.purge(100).await.unwrap(), 0);
        let purged = wal.purge(1).await.unwrap() as u64;
        assert!(purged > 0 && purged < segments - 1);
        drop(wal);
        let (_, _, replay) = open(&host, &snapshot_at(80, 1)).await.unwrap();
        assert_eq!(
            replay.entries,
            (81..=100).map(|index| entry(index, 1, 3000)).collect::<Vec<_>>()
        );
        assert!(matches!(
            open(&host, &WalSnapshot::default()).await,
            Err(WalFault::FileNotFound { .. })
        ));
        assert!(matches!(
            open(&host, &snapshot_at(80, 2)).await,
            Err(WalFault::SnapshotMismatch(_))
        ));
        assert!(matches!(
            open(&host, &snapshot_at(85, 1)).await,
            Err(WalFault::SnapshotNotFound)
        ));
    });
}

#[test]
fn a_snapshot_beyond_the_commit_index_does_not_count() {
    let host = TestHost::new(3);
    host.run(async {
        let (wal, mut encoder) = create(&host).await;
        encoder.append(&[entry(1, 1, 10)], Some(&hard_state(1, 1)));
        encoder.append_snapshot(&snapshot_at(1, 1));
        encoder.append_snapshot(&snapshot_at(50, 1));
        write(&wal, &mut encoder).await.unwrap();
        let known = Wal::valid_snapshots(&host, Path::new(DIRECTORY)).await.unwrap();
        assert_eq!(known, [WalSnapshot::default(), snapshot_at(1, 1)]);
        encoder.append(&[], Some(&hard_state(1, 50)));
        write(&wal, &mut encoder).await.unwrap();
        let known = Wal::valid_snapshots(&host, Path::new(DIRECTORY)).await.unwrap();
        assert_eq!(known.last(), Some(&snapshot_at(50, 1)));
    });
}

#[test]
fn the_next_segment_is_ready_before_it_is_needed_and_a_full_disk_is_tried_again() {
    let host = TestHost::new(4);
    host.run(async {
        let (wal, mut encoder) = create(&host).await;
        let prepared = Path::new(DIRECTORY).join("next.tmp");
        for _ in 0..100 {
            crate::host::Host::yield_now(&host).await;
        }
        assert_eq!(host.file(&prepared).unwrap(), vec![0; 64 * 1024]);
        host.set_full(true);
        encoder.append(&[entry(1, 1, 60_000)], None);
        write(&wal, &mut encoder).await.unwrap();
        encoder.append(&[entry(2, 1, 60_000)], None);
        write(&wal, &mut encoder).await.unwrap();
        assert_eq!(encoder.segment().sequence, 1);
        for _ in 0..100 {
            crate::host::Host::yield_now(&host).await;
        }
        host.set_full(false);
        encoder.append(&[entry(3, 1, 60_000)], None);
        write(&wal, &mut encoder).await.unwrap();
        assert_eq!(encoder.segment().sequence, 2);
        host.set_full(true);
        for _ in 0..100 {
            crate::host::Host::yield_now(&host).await;
        }
        // The third was made while there was space again.
        host.set_full(true);
        encoder.append(&[entry(4, 1, 60_000)], None);
        let fourth = write(&wal, &mut encoder).await;
        assert!(
            matches!(
                fourth,
                Err(WalFault::Io {
                    operation: "allocate",
                    ..
                })
            ),
            "{fourth:?}"
        );
    });
}

#[test]
fn a_torn_tail_is_cut_off_kept_aside_and_written_over() {
    let host = TestHost::new(5);
    host.run(async {
        let (wal, mut encoder) = create(&host).await;
        for index in 1..=3 {
            encoder.append(&[entry(index, 1, 9000)], Some(&hard_state(1, 0)));
            write(&wal, &mut encoder).await.unwrap();
        }
        drop(wal);
        let path = Path::new(DIRECTORY).join("0000000000000000-0000000000000000.wal");
        let mut bytes = host.file(&path).unwrap();
        // Entry 3 begins at 4096 + 2 * 12288; its second block never arrived, its third did.
        let start = 4096 + 2 * 12_288;
        bytes[start + 4096..start + 8192].fill(0);
        host.put_file(&path, &bytes);
        let (wal, mut encoder, replay) = open(&host, &WalSnapshot::default()).await.unwrap();
        assert!(replay.repaired);
        assert_eq!(replay.entries.len(), 2);
        assert_eq!(host.file(path.with_extension("wal.broken")).unwrap(), bytes);
        assert!(host.file(&path).unwrap()[start..].iter().all(|byte| *byte == 0));
        encoder.append(&[entry(3, 2, 10)], Some(&hard_state(2, 2)));
        write(&wal, &mut encoder).await.unwrap();
        drop(wal);
        let (_, _, replay) = open(&host, &WalSnapshot::default()).await.unwrap();
        assert!(!replay.repaired);
        assert_eq!((replay.entries.len(), replay.entries[2].term), (3, 2));
    });
}

#[test]
fn blocks_behind_a_missing_first_one_are_cleared() {
    let host = TestHost::new(6);
    host.run(async {
        let (wal, mut encoder) = create(&host).await;
        encoder.append(&[entry(1, 1, 9000)], None);
        write(&wal, &mut encoder).await.unwrap();
        drop(wal);
        let path = Path::new(DIRECTORY).join("0000000000000000-0000000000000000.wal");
        let mut bytes = host.file(&path).unwrap();
        bytes[4096..8192].fill(0);
        host.put_file(&path, &bytes);
        let (_wal, _, replay) = open(&host, &WalSnapshot::default()).await.unwrap();
        assert!(!replay.repaired && replay.entries.is_empty());
        assert!(host.file(&path).unwrap()[4096..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_second_write_in_flight_is_a_bug() {
    let host = TestHost::new(7);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        host.run(async {
            let (wal, mut encoder) = create(&host).await;
            let wal = Rc::new(wal);
            encoder.append(&[entry(1, 1, 9)], None);
            let first = encoder.seal(|len| wal.buffer(len)).unwrap();
            encoder.append(&[entry(2, 1, 9)], None);
            let second = encoder.seal(|len| wal.buffer(len)).unwrap();
            futures_lite::future::zip(wal.write(first), wal.write(second)).await
        })
    }));
    assert!(result.is_err());
}

/// Writes until the machine dies in mid-write, and sees what is left: everything acknowledged, nothing invented; and the
/// log goes on. Several lives in a row.
fn crash_and_replay(seed: u64, sync: WalSync, lives: &[(u64, usize)]) {
    let host = TestHost::new(seed);
    let options = WalOptions { sync, ..options() };
    host.run(async {
        let (mut wal, mut encoder) = Wal::create(&host, Path::new(DIRECTORY), b"whose", options)
            .await
            .unwrap();
        // All entries ever sealed, by index; and how many of them were acknowledged.
        let mut sent: Vec<Entry> = Vec::new();
        let mut acknowledged = 0;
        for (life, &(writes, len)) in lives.iter().enumerate() {
            let term = life as u64 + 1;
            host.die_after(writes);
            loop {
                let count = crate::host::Host::random_u64(&host) % 4 + 1;
                let first = sent.len() as u64 + 1;
                let batch: Vec<Entry> = (first..first + count).map(|index| entry(index, term, len)).collect();
                encoder.append(&batch, Some(&hard_state(term, acknowledged as u64)));
                sent.extend(batch);
                if write(&wal, &mut encoder).await.is_err() {
                    break;
                }
                acknowledged = sent.len();
            }
            drop(wal);
            host.crash();
            let (again, resumed, replay) = Wal::open(&host, Path::new(DIRECTORY), &WalSnapshot::default(), options)
                .await
                .unwrap_or_else(|fault| panic!("seed {seed} life {life}: {fault}"));
            assert!(replay.entries.len() >= acknowledged, "seed {seed} life {life}: lost");
            assert_eq!(replay.entries, sent[..replay.entries.len()], "seed {seed} life {life}");
            sent.truncate(replay.entries.len());
            acknowledged = sent.len();
            (wal, encoder) = (again, resumed);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_acknowledged_survives_any_crash(
        seed in any::<u32>(), lives in prop::collection::vec((0..40u64, prop_oneof![0..600usize, 3000..9000usize]), 1..6),
        sync in prop::sample::select(vec![WalSync::Auto, WalSync::Dsync, WalSync::WriteThenSync]),
    ) {
        crash_and_replay(u64::from(seed), sync, &lives);
    }
}
