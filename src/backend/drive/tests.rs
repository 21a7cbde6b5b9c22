//! The store against a model, against crashes, and against bbolt's own checker.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Store,
    memory_host::{Done, MemoryHost, MemoryMap, apply},
    volume::{Durability, Volume},
};
use crate::{
    backend::{
        BUCKETS, Backend, Batch, Bucket, Fault, Image, JobId, OpenFault, Pin, Progress, SnapshotPart, StoreEvent,
        StoreJob, StoreOptions, StoreRequest, check,
    },
    host::{Receiver, Sender, mailbox},
};

const PATH: &str = "snap/db";

type Model = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

fn options() -> StoreOptions {
    StoreOptions::new(PathBuf::from(PATH))
}

fn open(host: &MemoryHost) -> Volume<MemoryHost> {
    host.run(Volume::open(host.clone(), options())).expect("a sound file")
}

fn commit(host: &MemoryHost, volume: &mut Volume<MemoryHost>, batch: &Batch) {
    host.run(volume.commit(&[batch], Durability::Synced)).expect("a commit");
}

fn contents(root: &Pin<MemoryMap>) -> Model {
    let mut found = Model::new();
    for bucket in BUCKETS {
        let mut cursor = root.cursor(bucket);
        let mut pair = cursor.seek_first().unwrap();
        while let Some((key, value)) = pair {
            found.insert((bucket, key.to_vec()), value.to_vec());
            pair = cursor.step().unwrap();
        }
    }
    found
}

fn contents_backwards(root: &Pin<MemoryMap>) -> Model {
    let mut found = Model::new();
    for bucket in BUCKETS {
        let mut cursor = root.cursor(bucket);
        let mut pair = cursor.seek_last().unwrap();
        while let Some((key, value)) = pair {
            found.insert((bucket, key.to_vec()), value.to_vec());
            pair = cursor.step_back().unwrap();
        }
    }
    found
}

/// Our check, and bbolt's if `BBOLT_CHECK` names a program that takes a file.
fn assert_sound(image: Vec<u8>) {
    let size = image.len() as u64;
    let report = check(Image::from(image.clone()), size).expect("a database");
    assert_eq!(report.faults, [], "{report:?}");
    let Some(program) = std::env::var_os("BBOLT_CHECK") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    std::fs::write(&path, image).unwrap();
    let output = std::process::Command::new(program).arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, u16),
    Put(u8, u16, u16),
    Delete(u8, u16),
    DeleteRange(u8, u16, u16),
    Commit,
    Pin,
    Unpin,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u8>(), 0u16..600).prop_map(|(n, len)| Step::Append(n, len)),
        4 => (0u8..10, 0u16..400, prop_oneof![8 => 0u16..300, 1 => 3000u16..20_000]).prop_map(|(b, k, len)| Step::Put(b, k, len)),
        2 => (0u8..10, 0u16..400).prop_map(|(b, k)| Step::Delete(b, k)),
        1 => (0u8..10, 0u16..400, 0u16..400).prop_map(|(b, k, n)| Step::DeleteRange(b, k, n)),
        3 => Just(Step::Commit),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

fn small_key(key: u16) -> Vec<u8> {
    // Some keys are long, so that branches become so as well.
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.resize(2 + usize::from(key % 7) * 40, b'k');
    bytes
}

struct Tester {
    host: MemoryHost,
    volume: Volume<MemoryHost>,
    batch: Batch,
    model: Model,
    revision: u64,
    pins: Vec<(Pin<MemoryMap>, Model)>,
    committed: Model,
}

impl Tester {
    fn put(&mut self, bucket: Bucket, key: Vec<u8>, value: Vec<u8>) {
        self.batch.put(bucket, key.clone(), Bytes::from(value.clone()));
        self.model.insert((bucket, key), value);
    }

    fn delete(&mut self, bucket: Bucket, key: Vec<u8>) {
        self.batch.delete(bucket, key.clone());
        self.model.remove(&(bucket, key));
    }

    fn commit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        commit(&self.host, &mut self.volume, &batch);
        self.volume.assert_accounted();
        self.committed = self.model.clone();
        assert_eq!(contents(self.volume.current()), self.model);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(count, len) => {
                for _ in 0..count {
                    self.revision += 1;
                    let key = crate::base::Revision::new(self.revision as i64, 0).encode().to_vec();
                    self.put(Bucket::Key, key, vec![self.revision as u8; usize::from(len)]);
                }
            }
            Step::Put(bucket, key, len) => {
                let value = vec![key as u8; usize::from(len)];
                self.put(BUCKETS[usize::from(bucket)], small_key(key), value);
            }
            Step::Delete(bucket, key) => self.delete(BUCKETS[usize::from(bucket)], small_key(key)),
            Step::DeleteRange(bucket, from, count) => {
                let bucket = BUCKETS[usize::from(bucket)];
                let keys = self.model.range((bucket, from.to_be_bytes().to_vec())..);
                let keys = keys
                    .take_while(|((present, _), _)| *present == bucket)
                    .take(usize::from(count));
                let keys: Vec<_> = keys.map(|((_, key), _)| key.clone()).collect();
                for key in keys {
                    self.delete(bucket, key);
                }
            }
            Step::Commit => self.commit(),
            Step::Pin => self.pins.push((self.volume.current().clone(), self.committed.clone())),
            Step::Unpin => {
                if !self.pins.is_empty() {
                    self.pins.remove(0);
                }
            }
            Step::Reopen => {
                self.commit();
                assert_sound(self.host.content(PATH));
                let other = MemoryHost::default();
                other.add_file(PATH, self.host.content(PATH));
                self.volume = open(&other);
                self.host = other;
                assert_eq!(contents(self.volume.current()), self.model);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn the_tree_agrees_with_a_map_and_pinned_versions_do_not_change(steps in steps()) {
        let host = MemoryHost::default();
        let volume = open(&host);
        let mut tester = Tester {
            host, volume, batch: Batch::new(), model: Model::new(), revision: 1, pins: Vec::new(), committed: Model::new(),
        };
        for step in steps {
            tester.step(step);
            for (pin, model) in &tester.pins {
                prop_assert_eq!(&contents(pin), model);
            }
        }
        tester.commit();
        prop_assert_eq!(contents_backwards(tester.volume.current()), tester.model.clone());
        for ((bucket, key), value) in &tester.model {
            prop_assert_eq!(tester.volume.current().get(*bucket, key).unwrap(), Some(&value[..]));
        }
        assert_sound(tester.host.content(PATH));
    }
}

fn cases() -> u32 {
    if std::env::var_os("RINGD_SLOW").is_some() {
        500
    } else {
        12
    }
}

#[test]
fn deleting_everything_leaves_small_inline_buckets() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..5000u32 {
        batch.put(Bucket::Lease, n.to_be_bytes(), Bytes::from(vec![1; 100]));
    }
    commit(&host, &mut volume, &batch);
    assert!(volume.size_in_use() > 500_000);
    for step in [3u32, 2, 1] {
        let mut batch = Batch::new();
        for n in (0..5000u32).filter(|n| n % step == 0) {
            batch.delete(Bucket::Lease, n.to_be_bytes());
        }
        commit(&host, &mut volume, &batch);
        assert_sound(host.content(PATH));
    }
    commit(&host, &mut volume, &Batch::new());
    assert!(contents(volume.current()).is_empty());
    assert!(volume.size_in_use() < 10 * 4096, "{}", volume.size_in_use());
}

/// A small generator, the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) ^ (self.0 << 20)
    }
}

#[test]
fn a_crash_between_any_two_writes_leaves_the_old_version_or_the_new() {
    let host = MemoryHost::default();
    let mut numbers = Numbers(7);
    let mut durable = Vec::new();
    let mut volume = open(&host);
    for done in host.take_log(PATH) {
        apply(&mut durable, &done);
    }
    let mut before = contents(volume.current());
    let mut states = 0;
    let rounds = if std::env::var_os("RINGD_SLOW").is_some() {
        60
    } else {
        10
    };
    for round in 0..rounds {
        let mut batch = Batch::new();
        for n in 0..200 {
            let key = (numbers.next() % 1000).to_be_bytes();
            let bucket = BUCKETS[(n % 4) as usize];
            if numbers.next().is_multiple_of(3) {
                batch.delete(bucket, key);
            } else {
                batch.put(
                    bucket,
                    key,
                    Bytes::from(vec![round as u8; (numbers.next() % 400) as usize]),
                );
            }
        }
        commit(&host, &mut volume, &batch);
        let after = contents(volume.current());
        let log = host.take_log(PATH);
        for end in 0..=log.len() {
            for choice in 0..3u64 {
                let image = crash(&durable, &log[..end], choice, &mut numbers);
                let crashed = MemoryHost::default();
                crashed.add_file(PATH, image);
                let reopened = open(&crashed);
                let found = contents(reopened.current());
                assert!(found == before || found == after, "round {round}, crash at {end}");
                if end == log.len() {
                    assert!(found == after, "a commit that was acknowledged is there");
                }
                states += 1;
            }
        }
        for done in &log {
            apply(&mut durable, done);
        }
        before = after;
    }
    assert!(states > rounds * 10);
}

/// The file after a crash at the end of `log`: what was synced, and of the rest all, nothing, or some sectors.
fn crash(durable: &[u8], log: &[Done], choice: u64, numbers: &mut Numbers) -> Vec<u8> {
    let mut image = durable.to_vec();
    let synced = log
        .iter()
        .rposition(|done| matches!(done, Done::Sync))
        .map_or(0, |index| index + 1);
    for done in &log[..synced] {
        apply(&mut image, done);
    }
    for done in &log[synced..] {
        match done {
            Done::Write(offset, bytes) => {
                for (index, sector) in bytes.chunks(512).enumerate() {
                    let is_written = match choice {
                        0 => false,
                        1 => true,
                        _ => numbers.next().is_multiple_of(2),
                    };
                    let at = offset + index as u64 * 512;
                    // A sector beyond the old end that was lost reads as zeros.
                    apply(&mut image, &Done::Length(at + sector.len() as u64));
                    if is_written {
                        apply(&mut image, &Done::Write(at, sector.to_vec()));
                    }
                }
            }
            other => apply(&mut image, other),
        }
    }
    image
}

#[test]
fn an_interrupted_creation_is_begun_anew() {
    let host = MemoryHost::default();
    drop(open(&host));
    let log = host.take_log(PATH);
    let mut numbers = Numbers(3);
    for end in 0..log.len() {
        for choice in 0..3 {
            let crashed = MemoryHost::default();
            crashed.add_file(PATH, crash(&[], &log[..end], choice, &mut numbers));
            let volume = open(&crashed);
            assert!(contents(volume.current()).is_empty());
            assert_sound(crashed.content(PATH));
        }
    }
}

#[test]
fn a_file_in_use_and_files_that_are_none_are_refused() {
    let host = MemoryHost::default();
    let volume = open(&host);
    let second = host.run(Volume::open(host.clone(), options())).err();
    assert!(matches!(second, Some(OpenFault::Locked)));
    drop(volume);
    drop(open(&host));
    let other = MemoryHost::default();
    other.add_file(PATH, vec![7; 100_000]);
    let fault = other.run(Volume::open(other.clone(), options())).err();
    assert!(matches!(fault, Some(OpenFault::NotDatabase)));
}

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
        running.fill(0..20_000, 30);
        running.seal();
        running.send(StoreRequest::Job(
            JobId(1),
            Box::new(Compaction {
                below: 15_000,
                next: 0,
                pause,
            }),
        ));
        running.committed();
        let mut commits = 0;
        let result = loop {
            running.fill(20_000 + commits..20_001 + commits, 5);
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
        assert_eq!(result, 15_000);
        let pairs = running.pairs();
        assert_eq!(pairs[0].0, 15_000u64.to_be_bytes());
        assert!(pairs.len() as u64 >= 5000 + commits);
        while running.backend.is_committing() {
            running.committed();
        }
        drop(running.requests);
        assert_sound(running.host.content(PATH));
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
            SnapshotPart::End => break,
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
    assert_eq!(report.size_before / 4096, size_before.max(report.size_before) / 4096);
    assert!(report.size_after < size_before / 5, "{report:?}");
    while running.backend.is_committing() {
        running.committed();
    }
    running.seal();
    running.committed();
    let expected = 2999 + (key - 40_000);
    assert_eq!(running.pairs().len() as u64, expected);
    assert_eq!(contents(&pin), pinned);
    assert_eq!(running.host.file_names(), [PathBuf::from(PATH)]);
    assert_sound(running.host.content(PATH));
    let copy = MemoryHost::default();
    copy.add_file(PATH, running.host.content(PATH));
    assert_eq!(Running::start(&copy).pairs().len() as u64, expected);
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

/// Commits of 2,000 puts and 200 deletes each: runs per commit, and the volume that came of it.
fn churn(host: &MemoryHost, mut delete: impl FnMut(u64) -> u64) -> (Volume<MemoryHost>, u32) {
    let mut volume = open(host);
    let mut runs = 0;
    for round in 0..40u64 {
        let mut batch = Batch::new();
        for n in 0..2000 {
            batch.put(Bucket::Key, (round * 2000 + n).to_be_bytes(), Bytes::from(vec![1; 256]));
        }
        for _ in 0..200 {
            batch.delete(Bucket::Key, delete(round * 2000 + 1).to_be_bytes());
        }
        let cost = host.run(volume.commit(&[&batch], Durability::Synced)).unwrap();
        runs += cost.runs;
    }
    (volume, runs)
}

#[test]
fn commits_lie_together_while_a_compaction_follows_them() {
    let host = MemoryHost::default();
    let mut next = 0;
    let (volume, runs) = churn(&host, |_| {
        next += 9;
        next
    });
    // Three writes of 256 KiB are what the puts need.
    assert!(runs <= 40 * 6, "{runs}");
    assert!(
        volume.size() < volume.size_in_use() * 3 / 2,
        "{} of {}",
        volume.size_in_use(),
        volume.size()
    );
    assert_sound(host.content(PATH));
}

#[test]
fn the_file_stays_bounded_when_free_pages_are_scattered() {
    let host = MemoryHost::default();
    let mut numbers = Numbers(11);
    let (volume, _) = churn(&host, |end| numbers.next() % end);
    assert!(
        volume.size() < volume.size_in_use() * 2,
        "{} of {}",
        volume.size_in_use(),
        volume.size()
    );
    assert_sound(host.content(PATH));
}

#[test]
fn damaged_bytes_are_told_of_and_never_a_panic() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..400u32 {
        batch.put(Bucket::Lease, n.to_be_bytes(), Bytes::from(vec![n as u8; 50]));
        batch.put(Bucket::Key, n.to_be_bytes(), Bytes::from(vec![n as u8; 150]));
    }
    commit(&host, &mut volume, &batch);
    let mut image = host.content(PATH);
    image.truncate(volume.size() as usize);
    let mut numbers = Numbers(5);
    for seed in 0..1000 {
        let mut damaged = image.clone();
        for _ in 0..1 + numbers.next() % 4 {
            let page = numbers.next() % (damaged.len() as u64 / 4096);
            // Headers and elements stand at a page's start: most of the damage goes there.
            let within = if seed % 3 == 0 {
                numbers.next() % 4096
            } else {
                numbers.next() % 80
            };
            damaged[(page * 4096 + within) as usize] = numbers.next() as u8;
        }
        if seed % 50 == 0 {
            damaged.truncate((numbers.next() % damaged.len() as u64) as usize);
        }
        crate::backend::check::fuzz_open(&damaged);
        let page = (numbers.next() % (damaged.len() as u64 / 4096).max(1)) as usize * 4096;
        let end = (page + 4096).min(damaged.len());
        crate::backend::page::fuzz_page(&damaged[page.min(end)..end]);
        let other = MemoryHost::default();
        other.add_file(PATH, damaged);
        let opened = other.run(Volume::open(other.clone(), options()));
        if let Ok(mut volume) = opened {
            _ = other.run(volume.commit(&[&batch], Durability::Synced));
        }
    }
}

#[test]
fn a_seal_tells_of_a_flipped_bit_anywhere_in_a_page() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..100u32 {
        batch.put(Bucket::Key, n.to_be_bytes(), Bytes::from(vec![n as u8; 100]));
    }
    commit(&host, &mut volume, &batch);
    let image = host.content(PATH);
    let report = check(Image::from(image.clone()), image.len() as u64).unwrap();
    assert_eq!(report.sealed_count, report.run_count);
    let size = volume.size() as usize;
    let root_page = volume.current().meta.root as usize * 4096;
    let mut damaged = image.clone();
    damaged[root_page + 3000] ^= 4;
    let report = check(Image::from(damaged), image.len() as u64).unwrap();
    assert!(!report.faults.is_empty() && size > root_page);
    assert!(report.faults[0].to_string().contains("checksum"));
}

#[test]
fn two_batches_of_one_commit_keep_their_order_of_decision() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let (mut first, mut second) = (Batch::new(), Batch::new());
    first.put(Bucket::Lease, "a", Bytes::from_static(b"first"));
    first.delete(Bucket::Lease, "c");
    second.put(Bucket::Lease, "a", Bytes::from_static(b"second"));
    second.put(Bucket::Lease, "b", Bytes::from_static(b"second"));
    second.put(Bucket::Lease, "c", Bytes::from_static(b"second"));
    host.run(volume.commit(&[&first, &second], Durability::Synced)).unwrap();
    let found = contents(volume.current());
    let expected = [("a", "first"), ("b", "second")]
        .map(|(key, value)| ((Bucket::Lease, key.as_bytes().to_vec()), value.as_bytes().to_vec()));
    assert_eq!(found, Model::from(expected));
}

/// With `ETCD_DB` naming a database file of a real etcd: reads it, changes it, and leaves the result beside it, as
/// `$ETCD_DB.changed`, for other tools to judge.
#[test]
fn a_file_made_by_etcd_is_sound_and_can_be_changed() {
    let Some(path) = std::env::var_os("ETCD_DB").map(PathBuf::from) else {
        return;
    };
    let image = std::fs::read(&path).unwrap();
    assert_sound(image.clone());
    let host = MemoryHost::default();
    host.add_file(PATH, image);
    let mut volume = open(&host);
    let mut model = contents(volume.current());
    println!(
        "{} keys, {} of {} bytes in use",
        model.len(),
        volume.size_in_use(),
        volume.size()
    );
    let keys: Vec<_> = model
        .keys()
        .filter(|(bucket, _)| *bucket == Bucket::Key)
        .cloned()
        .collect();
    for chunk in keys.chunks(keys.len().div_ceil(7).max(1)) {
        let mut batch = Batch::new();
        // Every value is written anew, as it was: the file changes, what it says does not.
        for key in chunk {
            batch.put(Bucket::Key, &key.1[..], Bytes::from(model[key].clone()));
        }
        for n in 0..50u8 {
            batch.put(Bucket::AuthRoles, [b'x', n], Bytes::from(vec![n; 100]));
        }
        commit(&host, &mut volume, &batch);
        assert_sound(host.content(PATH));
    }
    let mut batch = Batch::new();
    for n in 0..50u8 {
        batch.delete(Bucket::AuthRoles, [b'x', n]);
        model.remove(&(Bucket::AuthRoles, vec![b'x', n]));
    }
    commit(&host, &mut volume, &batch);
    assert_eq!(contents(volume.current()), model);
    std::fs::write(path.with_extension("changed"), host.content(PATH)).unwrap();
}

/// Speeds, by hand: `cargo test --release --lib backend:: -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    use crate::base::Revision;
    use std::time::Instant;
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let key = |n: u64| Revision::new(n as i64, 0).encode();
    let count = 1_000_000u64;
    let value = Bytes::from(vec![7; 256]);
    for batch_index in 0..100 {
        let mut batch = Batch::new();
        for n in 0..10_000 {
            batch.put(Bucket::Key, key(batch_index * 10_000 + n), value.clone());
        }
        commit(&host, &mut volume, &batch);
    }
    let image = Image::from(host.content(PATH));
    let size = crate::host::Map::capacity(&image);
    let root = crate::backend::open_root(image.clone(), size).unwrap();
    let mut numbers = Numbers(1);
    for (name, is_random) in [("random", true), ("ascending", false)] {
        let started = Instant::now();
        let mut sum = 0;
        for n in 0..count {
            let n = if is_random { numbers.next() % count } else { n };
            sum += root.get(Bucket::Key, &key(n)).unwrap().unwrap().len();
        }
        println!(
            "{name} lookups in the tree: {:?} each, {sum}",
            started.elapsed() / count as u32
        );
    }
    let started = Instant::now();
    let mut cursor = root.cursor(Bucket::Key);
    let mut pair = cursor.seek_first().unwrap();
    let mut bytes = 0;
    while let Some((key, value)) = pair {
        bytes += key.len() + value.len();
        pair = cursor.step().unwrap();
    }
    println!("scan: {:?} each, {bytes} bytes", started.elapsed() / count as u32);
    let started = Instant::now();
    let report = check(image, size).unwrap();
    println!(
        "check of {size} bytes: {:?}, {} faults",
        started.elapsed(),
        report.faults.len()
    );
    let started = Instant::now();
    crate::backend::walk::Walk::run(&root, crate::backend::walk::Depth::References);
    println!("walk at open, seals included: {:?}", started.elapsed());
    let started = Instant::now();
    let mut batch = Batch::new();
    for n in 0..10_000 {
        batch.put(Bucket::Key, key(count + n), value.clone());
    }
    println!("10,000 puts into a batch: {:?}", started.elapsed());
    let started = Instant::now();
    let found = (0..10_000)
        .filter(|n| batch.get(Bucket::Key, &key(count + (n * 7919) % 10_000)).is_some())
        .count();
    println!("lookups in the batch: {:?} each, {found}", started.elapsed() / 10_000);
    let mut freelist = crate::backend::freelist::Freelist::default();
    for _ in 0..3 {
        let inline = crate::backend::commit::InlineBuckets::default();
        let started = Instant::now();
        let draft = crate::backend::commit::draft(&root, &[&batch], &inline).unwrap();
        let drafted = started.elapsed();
        let plan = draft.place(&mut freelist);
        let mut position = crate::backend::commit::PlanPosition::default();
        let mut buffer = Vec::new();
        let mut len = 0;
        while plan.next_run(&mut position, &mut buffer).is_some() {
            len += buffer.len();
        }
        println!(
            "commit of them in memory: draft {drafted:?}, all {:?}, {len} bytes",
            started.elapsed()
        );
        freelist = crate::backend::freelist::Freelist::default();
    }
    let mut deletes = Batch::new();
    for n in (0..100_000).step_by(10) {
        deletes.delete(Bucket::Key, key(n));
    }
    let inline = crate::backend::commit::InlineBuckets::default();
    let started = Instant::now();
    crate::backend::commit::draft(&root, &[&deletes], &inline).unwrap();
    println!("10,000 deletes, every tenth of 100,000: draft {:?}", started.elapsed());
}
