//! The store at work behind its mailboxes: commits, jobs, hashes, snapshots, defragmentation.

use super::*;
use crate::{
    backend::{Backend, Fault, JobId, Progress, SnapshotPart, Store, StoreEvent, StoreJob, StoreRequest},
    host::{Receiver, Sender, mailbox},
};
use proptest::prelude::*;
use sha2::Digest;
use std::time::Duration;

/// A store at work, with both ends of its mailboxes.
struct Running {
    host: MemoryHost,
    backend: Backend<MemoryMap>,
    requests: Sender<StoreRequest<MemoryMap>>,
    events: Receiver<StoreEvent<MemoryMap>>,
}

impl Running {
    fn start(host: &MemoryHost) -> Running {
        let (store, report) = host.run(Store::open(host.clone(), options())).expect("a sound file");
        let (requests, store_requests) = mailbox(16);
        let (store_events, events) = mailbox(16);
        crate::host::Host::spawn(host, store.run(store_requests, store_events));
        Running {
            host: host.clone(),
            backend: Backend::new(report),
            requests,
            events,
        }
    }

    fn send(&mut self, request: StoreRequest<MemoryMap>) {
        assert!(self.requests.try_send(request).is_ok());
    }

    fn event(&mut self) -> StoreEvent<MemoryMap> {
        self.host.run(self.events.receive()).expect("a store at work")
    }

    fn seal(&mut self) {
        let index = (
            b"consistent_index".as_slice(),
            Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 9]),
        );
        let sealed = self.backend.seal([index]).expect("changes");
        self.send(StoreRequest::Commit(sealed));
    }

    fn committed(&mut self) {
        match self.event() {
            StoreEvent::Committed(report) => self.backend.committed(report),
            _ => panic!("a commit was due"),
        }
    }

    fn fill(&mut self, keys: std::ops::Range<u64>, len: usize) {
        for key in keys {
            self.backend
                .put(Bucket::Key, key.to_be_bytes(), Bytes::from(vec![key as u8; len]));
        }
    }

    fn pairs(&self) -> Vec<(Vec<u8>, usize)> {
        let range = self.backend.range(Bucket::Key, &[], None);
        range
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.len())))
            .collect::<Result<_, Fault>>()
            .unwrap()
    }
}

#[test]
fn reads_see_open_and_sealed_batches_and_the_tree_through_every_stage_of_a_commit() {
    let mut running = Running::start(&MemoryHost::default());
    running.fill(0..1000, 10);
    running.seal();
    running.backend.delete(Bucket::Key, 5u64.to_be_bytes());
    running
        .backend
        .put(Bucket::Key, 6u64.to_be_bytes(), Bytes::from_static(b"six"));
    let expected: Vec<_> = (0..1000u64)
        .filter(|key| *key != 5)
        .map(|key| (key.to_be_bytes().to_vec(), if key == 6 { 3 } else { 10 }))
        .collect();
    assert_eq!(running.pairs(), expected);
    assert!(running.backend.is_committing());
    running.committed();
    assert!(!running.backend.is_committing());
    assert_eq!(running.pairs(), expected);
    let view = running.backend.view();
    running.seal();
    assert_eq!(running.pairs(), expected);
    running.committed();
    assert_eq!(running.pairs(), expected);
    assert_eq!(view.get(Bucket::Key, &5u64.to_be_bytes()).unwrap().unwrap().len(), 10);
    assert_eq!(running.backend.get(Bucket::Key, &5u64.to_be_bytes()).unwrap(), None);
    assert_eq!(
        &running
            .backend
            .get_bytes(Bucket::Key, &6u64.to_be_bytes())
            .unwrap()
            .unwrap()[..],
        b"six"
    );
    let part = running
        .backend
        .range(Bucket::Key, &4u64.to_be_bytes(), Some(&7u64.to_be_bytes()));
    assert_eq!(part.count(), 2);
    let report = running.backend.size();
    assert!(report > 0 && running.backend.size_in_use() <= report);
}

#[test]
fn a_file_from_elsewhere_is_examined_and_takes_the_place_of_the_one_in_use() {
    const RECEIVED: &str = "snap/0000000000000007.snap.db";
    let sender_host = MemoryHost::default();
    let mut sender = Running::start(&sender_host);
    sender.fill(0..500, 100);
    sender.seal();
    sender.committed();
    let image = sender_host.content(PATH);

    let host = MemoryHost::default();
    let mut running = Running::start(&host);
    running.fill(900..1000, 10);
    running.seal();
    running.committed();
    let old = running.backend.view();
    let mut damaged = image.clone();
    // One byte of one value.
    let value = damaged.windows(100).rposition(|bytes| bytes == [7; 100]).unwrap();
    damaged[value] ^= 1;
    for (content, is_sound) in [(damaged, false), (image, true)] {
        host.add_file(RECEIVED, content);
        running.send(StoreRequest::Examine(PathBuf::from(RECEIVED)));
        match running.event() {
            StoreEvent::Examined(Ok(received)) => assert!(is_sound && received.applied_index == 9),
            StoreEvent::Examined(Err(_)) => assert!(!is_sound),
            _ => panic!("a file was to be examined"),
        }
    }
    // Work on the old file ends with it.
    let compaction = Compaction {
        below: 2000,
        next: 0,
        pause: true,
    };
    running.send(StoreRequest::Job(JobId(1), Box::new(compaction)));
    running.send(StoreRequest::Install(PathBuf::from(RECEIVED)));
    let report = match running.event() {
        StoreEvent::Installed(report) => report,
        _ => panic!("a file was to be installed"),
    };
    running.backend = Backend::new(report);
    assert_eq!(running.pairs(), sender.pairs());
    assert!(!host.file_names().contains(&PathBuf::from(RECEIVED)));
    assert_eq!(old.get(Bucket::Key, &950u64.to_be_bytes()).unwrap().unwrap().len(), 10);
    running.fill(500..600, 10);
    running.seal();
    running.committed();
    assert_eq!(running.pairs().len(), 600);
    let reopened = host.run(crate::backend::applied_index(&host, &PathBuf::from(PATH)));
    assert_eq!(reopened.unwrap(), 9);
}

/// Deletes every key below a bound, some per slice.
struct Compaction {
    below: u64,
    next: u64,
    pause: bool,
}

impl StoreJob<MemoryMap> for Compaction {
    fn step(&mut self, root: &Pin<MemoryMap>, changes: &mut Batch) -> Result<Progress, Fault> {
        let mut cursor = root.cursor(Bucket::Key);
        let mut pair = cursor.seek_key(&self.next.to_be_bytes())?;
        for _ in 0..1000 {
            match pair {
                Some((key, _)) if key < &self.below.to_be_bytes()[..] => {
                    changes.delete(Bucket::Key, key);
                    self.next = u64::from_be_bytes(key.try_into().unwrap()) + 1;
                }
                _ => return Ok(Progress::Done(Box::new(self.next))),
            }
            pair = cursor.step()?;
        }
        if self.pause {
            Ok(Progress::Pause(Duration::from_millis(10)))
        } else {
            Ok(Progress::More)
        }
    }
}

#[test]
fn a_job_changes_the_tree_in_slices_while_batches_are_committed() {
    for pause in [true, false] {
        let mut running = Running::start(&MemoryHost::default());
        running.fill(0..6_000, 30);
        running.seal();
        running.send(StoreRequest::Job(
            JobId(1),
            Box::new(Compaction {
                below: 4_500,
                next: 0,
                pause,
            }),
        ));
        running.committed();
        let mut commits = 0;
        let result = loop {
            running.fill(6_000 + commits..6_001 + commits, 5);
            if !running.backend.is_committing() {
                running.seal();
            }
            match running.event() {
                StoreEvent::Committed(report) => {
                    running.backend.committed(report);
                    commits += 1;
                }
                StoreEvent::JobDone(JobId(1), result) => break *result.downcast::<u64>().unwrap(),
                _ => panic!("no other event"),
            }
        };
        assert_eq!(result, 4_500);
        let pairs = running.pairs();
        assert_eq!(pairs[0].0, 4_500u64.to_be_bytes());
        assert!(pairs.len() as u64 >= 1500 + commits);
        while running.backend.is_committing() {
            running.committed();
        }
        drop(running.requests);
        assert_sound(running.host.content(PATH));
    }
}

/// A job that never ends.
struct Endless;

impl StoreJob<MemoryMap> for Endless {
    fn step(&mut self, _root: &Pin<MemoryMap>, _changes: &mut Batch) -> Result<Progress, Fault> {
        Ok(Progress::Pause(Duration::from_secs(3600)))
    }
}

#[test]
fn hashes_and_a_defragmentation_do_not_wait_for_a_compaction() {
    let mut running = Running::start(&MemoryHost::default());
    running.fill(0..5_000, 100);
    running.seal();
    running.send(StoreRequest::Job(JobId(1), Box::new(Endless)));
    running.committed();
    running.send(StoreRequest::Defragment(JobId(2)));
    running.send(StoreRequest::Hash(JobId(3)));
    let (mut is_hashed, mut is_rewritten) = (false, false);
    while !is_hashed || !is_rewritten {
        match running.event() {
            StoreEvent::Committed(report) => running.backend.committed(report),
            StoreEvent::Hashed(JobId(3), _) => is_hashed = true,
            StoreEvent::Defragmented(JobId(2), _) => is_rewritten = true,
            _ => panic!("no other event"),
        }
    }
}

#[test]
fn a_hash_is_of_names_keys_and_values_without_what_members_differ_in() {
    let mut running = Running::start(&MemoryHost::default());
    running.fill(0..50_000, 100);
    running.backend.put(Bucket::Meta, "term", Bytes::from_static(b"x"));
    running
        .backend
        .put(Bucket::Meta, "confState", Bytes::from_static(b"{}"));
    running.seal();
    running.send(StoreRequest::Hash(JobId(3)));
    running.committed();
    let found = match running.event() {
        StoreEvent::Hashed(JobId(3), report) => report.hash,
        _ => panic!("a hash was due"),
    };
    let mut names: Vec<_> = BUCKETS.into_iter().collect();
    names.sort_by_key(|bucket| bucket.name());
    let mut bytes = Vec::new();
    for bucket in names {
        bytes.extend(bucket.name().bytes());
        match bucket {
            Bucket::Key => {
                for key in 0..50_000u64 {
                    bytes.extend(key.to_be_bytes());
                    bytes.extend([key as u8; 100]);
                }
            }
            Bucket::Meta => bytes.extend(b"confState{}"),
            _ => {}
        }
    }
    assert_eq!(found, crc32c::crc32c(&bytes));
}

#[test]
fn a_snapshot_is_a_sound_file_of_its_moment_while_commits_go_on() {
    let mut running = Running::start(&MemoryHost::default());
    running.fill(0..5000, 200);
    running.seal();
    let (sink, mut parts) = mailbox(2);
    running.send(StoreRequest::Snapshot(sink));
    running.committed();
    let before = running.pairs();
    let mut image = Vec::new();
    let mut size = 0;
    for round in 0u64.. {
        for key in 0..5000 {
            if key % 3 == round % 3 {
                running.backend.delete(Bucket::Key, key.to_be_bytes());
            }
        }
        running.seal();
        running.committed();
        match running.host.run(parts.receive()).expect("a part") {
            SnapshotPart::Begin(len) => size = len,
            SnapshotPart::Data(bytes) => image.extend_from_slice(&bytes),
            SnapshotPart::End(hash) => {
                assert_eq!(hash[..], sha2::Sha256::digest(&image)[..]);
                break;
            }
            SnapshotPart::Failed(fault) => panic!("{fault}"),
        }
    }
    assert_eq!(image.len() as u64, size);
    assert_sound(image.clone());
    let copy = MemoryHost::default();
    copy.add_file(PATH, image);
    let copied = Running::start(&copy);
    assert_eq!(copied.pairs(), before);
}

#[test]
fn defragmentation_shrinks_the_file_while_it_is_read_and_written() {
    let mut running = Running::start(&MemoryHost::default());
    for part in 0..10 {
        running.fill(part * 3000..(part + 1) * 3000, 200);
        running.seal();
        running.committed();
    }
    for key in (0..30_000u64).filter(|key| key % 10 != 0) {
        running.backend.delete(Bucket::Key, key.to_be_bytes());
    }
    running.seal();
    running.committed();
    let size_before = running.backend.size();
    let pin = running.backend.pin();
    let pinned = contents(&pin);
    let old_len = running.host.len_of(PATH);
    running.send(StoreRequest::Defragment(JobId(8)));
    let mut key = 40_000;
    let report = loop {
        running.fill(key..key + 7, 50);
        running.backend.delete(Bucket::Key, 0u64.to_be_bytes());
        key += 7;
        if !running.backend.is_committing() {
            running.seal();
        }
        match running.event() {
            StoreEvent::Committed(report) => running.backend.committed(report),
            StoreEvent::Defragmented(JobId(8), report) => break report,
            _ => panic!("no other event"),
        }
    };
    // A crash right now finds everything that was acknowledged, though what was not synced is lost.
    let durable = crash::crash(&[], &running.host.take_log(PATH), 0, &mut Numbers(1));
    assert_sound(durable.clone());
    let crashed = MemoryHost::default();
    crashed.add_file(PATH, durable);
    crashed.add_file("snap/db.tmp.77", vec![1; 5000]);
    let found = contents(&Running::start(&crashed).backend.pin());
    assert_eq!(found, contents(&running.backend.pin()));
    assert_eq!(crashed.file_names(), [PathBuf::from(PATH)]);
    assert_eq!(report.size_before / 4096, size_before.max(report.size_before) / 4096);
    assert!(report.size_after < size_before / 5, "{report:?}");
    while running.backend.is_committing() {
        running.committed();
    }
    running.seal();
    running.committed();
    let expected = 2999 + (key - 40_000);
    assert_eq!(running.pairs().len() as u64, expected);
    running.host.rest(Duration::from_secs(5));
    assert_eq!(
        contents(&pin),
        pinned,
        "the old file stays for as long as somebody reads it"
    );
    drop(pin);
    running.host.rest(Duration::from_secs(5));
    assert_eq!(old_len(), 0, "and then its blocks are given back");
    assert_eq!(running.host.file_names(), [PathBuf::from(PATH)]);
    assert_sound(running.host.content(PATH));
    let copy = MemoryHost::default();
    copy.add_file(PATH, running.host.content(PATH));
    assert_eq!(Running::start(&copy).pairs().len() as u64, expected);
}

#[test]
fn defragmentation_of_a_damaged_file_is_given_up_and_leaves_it_as_it_is() {
    let mut running = Running::start(&MemoryHost::default());
    running.fill(0..2000, 100);
    running.seal();
    running.committed();
    let root = running.backend.pin();
    // A bit of a value in a leaf, long after the file was opened.
    let value = root.get(Bucket::Key, &1500u64.to_be_bytes()).unwrap().unwrap().to_vec();
    let content = running.host.content(PATH);
    let needle = [&1500u64.to_be_bytes()[..], &value].concat();
    let at = content
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap()
        + 50;
    running.host.damage(PATH, at, content[at] ^ 1);
    running.send(StoreRequest::Defragment(JobId(4)));
    match running.event() {
        StoreEvent::DefragmentFailed(JobId(4), OpenFault::Page(fault)) => {
            assert_eq!(fault.page, at as u64 / 4096);
            assert_eq!(fault.kind, crate::backend::FaultKind::Checksum);
        }
        _ => panic!("the damage was due"),
    }
    assert_eq!(running.host.file_names(), [PathBuf::from(PATH)]);
    running.fill(3000..3001, 1);
    running.seal();
    running.committed();
    assert_eq!(running.pairs().len(), 2001);
}

#[test]
fn a_failing_write_is_told_and_ends_the_store() {
    let mut running = Running::start(&MemoryHost::default());
    running.fill(0..10, 10);
    running.host.break_file(PATH);
    running.seal();
    assert!(matches!(running.event(), StoreEvent::Failed(_)));
    assert!(running.host.run(running.events.receive()).is_none());
}

#[derive(Clone, Debug)]
enum Action {
    Put(u8, u16),
    Delete(u8, u16),
    Seal,
    Receive,
    Range(u8, u16, u16),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (0u8..3, 0u16..60).prop_map(|(bucket, key)| Action::Put(bucket, key)),
        3 => (0u8..3, 0u16..60).prop_map(|(bucket, key)| Action::Delete(bucket, key)),
        2 => Just(Action::Seal),
        2 => Just(Action::Receive),
        3 => (0u8..3, 0u16..60, 0u16..70).prop_map(|(bucket, from, to)| Action::Range(bucket, from, to)),
    ];
    prop::collection::vec(action, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn reads_agree_with_a_map_at_every_moment(actions in actions()) {
        let mut running = Running::start(&MemoryHost::default());
        let mut model = Model::new();
        for (number, action) in actions.into_iter().enumerate() {
            match action {
                Action::Put(bucket, key) => {
                    let (bucket, key) = (BUCKETS[usize::from(bucket)], key.to_be_bytes());
                    let value = number.to_be_bytes();
                    running.backend.put(bucket, key, Bytes::copy_from_slice(&value));
                    model.insert((bucket, key.to_vec()), value.to_vec());
                }
                Action::Delete(bucket, key) => {
                    let (bucket, key) = (BUCKETS[usize::from(bucket)], key.to_be_bytes());
                    running.backend.delete(bucket, key);
                    model.remove(&(bucket, key.to_vec()));
                }
                Action::Seal if !running.backend.is_committing() => {
                    if let Some(sealed) = running.backend.seal([]) {
                        running.send(StoreRequest::Commit(sealed));
                    }
                }
                Action::Receive if running.backend.is_committing() => running.committed(),
                Action::Seal | Action::Receive => {}
                Action::Range(bucket, from, to) => {
                    let bucket = BUCKETS[usize::from(bucket)];
                    let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
                    let found = running.backend.range(bucket, &from, Some(&to));
                    let found: Vec<_> = found.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect::<Result<_, Fault>>().unwrap();
                    let expected = model.iter().filter(|((present, key), _)| *present == bucket && key[..] >= from[..] && key[..] < to[..]);
                    let expected: Vec<_> = expected.map(|((_, key), value)| (key.clone(), value.clone())).collect();
                    prop_assert_eq!(found, expected);
                    let value = running.backend.get(bucket, &from).unwrap();
                    prop_assert_eq!(value, model.get(&(bucket, from.to_vec())).map(|value| &value[..]));
                }
            }
        }
    }
}
