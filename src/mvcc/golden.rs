//! HashKV against numbers that a real etcd gave for the same operations. `tests/golden/hashkv/capture.sh` says how they
//! were taken.

use super::{memory::MemoryRecords, *};
use crate::base::LeaseId;

/// A member that carries out a golden file's operations.
struct Member {
    store: Store,
    tree: MemoryRecords,
    marks: CompactionMarks,
}

impl Member {
    fn carry_out(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["put", key, value] => {
                let mut txn = self.store.begin(&mut self.tree, PreviousRecords::Skip);
                txn.put(key.as_bytes(), value.as_bytes(), LeaseId(0));
                txn.end();
            }
            ["delete", key, ref end @ ..] => {
                let end = end.first().map_or("", |end| end);
                let mut txn = self.store.begin(&mut self.tree, PreviousRecords::Skip);
                txn.delete_range(Span::from_request(key.as_bytes(), end.as_bytes()));
                txn.end();
            }
            ["compact", revision] => self.compact(revision.parse().unwrap()),
            ["restart"] => self.restart(),
            ["hash", revision, hash, compacted] => {
                let found = self.hash(revision.parse().unwrap());
                let expected = (hash.parse().unwrap(), compacted.parse().unwrap());
                assert_eq!((found.hash, found.compact_revision), expected, "at {line}");
            }
            _ => panic!("no operation: {line}"),
        }
    }

    fn compact(&mut self, revision: i64) {
        let mut compaction = self.store.compact(revision, self.marks.is_settled()).unwrap();
        self.marks.scheduled = Some(revision);
        while !self.store.compact_slice(&mut compaction, 1) {}
        let mut physical = compaction.into_physical();
        while !physical.step(&mut self.tree, 3).is_finished {}
        self.marks.finished = Some(revision);
        if let Some(hash) = physical.hash() {
            self.store.hashes.store(hash);
        }
    }

    fn restart(&mut self) {
        let mut restore = Restore::new(self.marks);
        for (revision, (kind, record)) in &self.tree.records {
            let mut key = revision.encode().to_vec();
            key.extend((*kind == RecordKind::Tombstone).then_some(b't'));
            restore.feed(&key, record).unwrap();
        }
        self.store = restore.finish().store;
    }

    fn hash(&self, revision: i64) -> KeyValueHash {
        if let Some(hash) = self.store.hashes.at(revision) {
            return hash;
        }
        let mut job = self.store.hash_begin(revision).unwrap();
        while !self.store.hash_slice(&mut job, 2) {}
        let mut hasher = job.into_hasher();
        while !hasher.slice(&self.tree, 3) {}
        hasher.finish()
    }
}

fn check(golden: &str) {
    let mut member = Member {
        store: Store::new(),
        tree: MemoryRecords::default(),
        marks: CompactionMarks::default(),
    };
    assert!(golden.lines().filter(|line| line.starts_with("hash")).count() > 10);
    for line in golden.lines() {
        member.carry_out(line);
    }
}

#[test]
fn hash_of_few_keys_with_many_lives_is_etcds() {
    check(include_str!("../../tests/golden/hashkv/lives.golden"));
}

#[test]
fn hash_of_many_keys_is_etcds() {
    check(include_str!("../../tests/golden/hashkv/many-keys.golden"));
}

#[test]
fn hash_around_tombstones_is_etcds() {
    check(include_str!("../../tests/golden/hashkv/tombstones.golden"));
}
