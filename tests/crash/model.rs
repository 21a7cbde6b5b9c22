//! What the writers know: which revisions hold what, which writes are unknown, and the state that follows. Pure.
//!
//! Each writer has keys and leases of its own and one request in flight, so after a crash there is at most one unknown
//! write for each, and it can only be the newest of its keys.

use std::collections::{BTreeMap, BTreeSet};

use ringd::wire::proto::mvccpb;

/// A small generator of choices.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// The value and the lease; `None` for a delete.
    pub put: Option<(String, i64)>,
}

/// A request that a writer has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub writer: usize,
    /// What it does to keys, in order; empty where it does nothing to them.
    pub changes: Vec<Change>,
    pub lease: LeaseChange,
}

/// What a request does to leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    None,
    Grant(i64),
    Revoke(i64),
}

/// What a server said after a restart.
pub struct Found {
    pub revision: i64,
    pub compact_revision: i64,
    /// All changes after the compaction, by revision.
    pub events: BTreeMap<i64, Vec<Change>>,
    /// All records at the current revision.
    pub now: Vec<mvccpb::KeyValue>,
    /// All records at the compaction, if there was one.
    pub at_compaction: Vec<mvccpb::KeyValue>,
    pub leases: BTreeSet<i64>,
    /// Whether one revision below the compaction is refused.
    pub below_is_gone: bool,
}

/// Everything that is known.
pub struct Model {
    history: BTreeMap<i64, Vec<Change>>,
    last: BTreeMap<usize, i64>,
    unknown: Vec<Request>,
    leases: BTreeSet<i64>,
    compact_revision: i64,
    compact_maybe: BTreeSet<i64>,
    next_value: u64,
    acknowledged: u64,
    lost: u64,
    kept: u64,
}

impl Model {
    pub fn new() -> Model {
        Model {
            history: BTreeMap::new(),
            last: BTreeMap::new(),
            unknown: Vec::new(),
            leases: BTreeSet::new(),
            compact_revision: -1,
            compact_maybe: BTreeSet::new(),
            next_value: 0,
            acknowledged: 0,
            lost: 0,
            kept: 0,
        }
    }

    /// A value that was never used before.
    pub fn fresh_value(&mut self) -> String {
        self.next_value += 1;
        format!("value {}", self.next_value)
    }

    /// A request was answered at `revision`.
    pub fn acknowledge(&mut self, request: Request, revision: i64) {
        self.acknowledged += 1;
        self.apply_lease(request.lease);
        if !request.changes.is_empty() {
            let twice = self.history.insert(revision, request.changes.clone());
            assert!(
                twice.is_none(),
                "revision {revision} was given out twice: {twice:?} and {request:?}"
            );
            self.last.insert(request.writer, revision);
        }
    }

    /// A request's answer did not come.
    pub fn lose(&mut self, request: Request) {
        self.unknown.push(request);
    }

    /// A compaction was answered.
    pub fn compacted(&mut self, revision: i64) {
        self.compact_revision = self.compact_revision.max(revision);
    }

    /// A compaction's answer did not come.
    pub fn compacted_maybe(&mut self, revision: i64) {
        self.compact_maybe.insert(revision);
    }

    /// A revision at which nothing unknown can have happened: each writer has been answered at or above it.
    pub fn settled_revision(&self, writers: usize) -> Option<i64> {
        (self.last.len() == writers).then(|| *self.last.values().min().expect("there are writers"))
    }

    pub fn leases(&self) -> &BTreeSet<i64> {
        &self.leases
    }

    pub fn summary(&self) -> String {
        format!(
            "{} acknowledged, {} unknown kept, {} unknown lost, revision {}, compacted at {}",
            self.acknowledged,
            self.kept,
            self.lost,
            self.history.keys().last().copied().unwrap_or(1),
            self.compact_revision
        )
    }

    fn apply_lease(&mut self, change: LeaseChange) {
        match change {
            LeaseChange::None => {}
            LeaseChange::Grant(id) => {
                self.leases.insert(id);
            }
            LeaseChange::Revoke(id) => {
                self.leases.remove(&id);
            }
        }
    }

    /// Decides for each unknown request whether it happened, by what is found.
    pub fn settle(&mut self, found: &Found) -> Result<(), String> {
        for request in std::mem::take(&mut self.unknown) {
            let happened = if request.changes.is_empty() {
                match request.lease {
                    LeaseChange::None => false,
                    LeaseChange::Grant(id) => found.leases.contains(&id),
                    LeaseChange::Revoke(id) => !found.leases.contains(&id),
                }
            } else {
                let after = self
                    .last
                    .get(&request.writer)
                    .copied()
                    .unwrap_or(0)
                    .max(found.compact_revision);
                let fits = |(_, changes): &(&i64, &Vec<Change>)| **changes == request.changes;
                let revision = found
                    .events
                    .range(after + 1..)
                    .find(fits)
                    .map(|(revision, _)| *revision);
                if let Some(revision) = revision {
                    self.history.insert(revision, request.changes.clone());
                    self.last.insert(request.writer, revision);
                }
                revision.is_some()
            };
            if happened {
                self.kept += 1;
                self.apply_lease(request.lease);
            } else {
                self.lost += 1;
            }
        }
        if found.compact_revision != self.compact_revision {
            if !self.compact_maybe.contains(&found.compact_revision) || found.compact_revision < self.compact_revision {
                return Err(format!(
                    "compacted at {} instead of {}",
                    found.compact_revision, self.compact_revision
                ));
            }
            self.compact_revision = found.compact_revision;
        }
        self.compact_maybe.clear();
        Ok(())
    }

    /// Compares what is found with what is known, to the last field.
    pub fn compare(&self, found: &Found) -> Result<(), String> {
        let newest = self.history.keys().last().copied().unwrap_or(1);
        if found.revision != newest {
            return Err(format!("revision {} instead of {newest}", found.revision));
        }
        for (expected, revision) in (2..).zip(self.history.keys()) {
            if *revision != expected {
                return Err(format!("revision {expected} holds a change that nobody made"));
            }
        }
        for (revision, changes) in self.history.range(found.compact_revision + 1..) {
            if found.events.get(revision) != Some(changes) {
                let got = found.events.get(revision);
                return Err(format!("revision {revision} holds {got:?} instead of {changes:?}"));
            }
        }
        if let Some(revision) = found
            .events
            .keys()
            .find(|revision| !self.history.contains_key(revision))
        {
            return Err(format!(
                "revision {revision} holds a change that nobody made: {:?}",
                found.events[revision]
            ));
        }
        compare_records("now", &found.now, &self.state_at(newest))?;
        if found.compact_revision > 0 {
            compare_records(
                "at the compaction",
                &found.at_compaction,
                &self.state_at(found.compact_revision),
            )?;
            if !found.below_is_gone {
                return Err(format!("revisions below {} are readable", found.compact_revision));
            }
        }
        if found.leases != self.leases {
            return Err(format!("leases {:?} instead of {:?}", found.leases, self.leases));
        }
        Ok(())
    }

    /// All records at a revision, by key.
    fn state_at(&self, revision: i64) -> BTreeMap<String, mvccpb::KeyValue> {
        let mut records = BTreeMap::new();
        for (revision, changes) in self.history.range(..=revision) {
            for change in changes {
                let Some((value, lease)) = &change.put else {
                    records.remove(&change.key);
                    continue;
                };
                let record = records.entry(change.key.clone()).or_insert_with(|| mvccpb::KeyValue {
                    key: change.key.clone().into(),
                    create_revision: *revision,
                    ..Default::default()
                });
                record.mod_revision = *revision;
                record.version += 1;
                record.value = value.clone().into();
                record.lease = *lease;
            }
        }
        records
    }

    /// The records of a writer now, as it may assume them when it goes on.
    pub fn keys_of(&self, writer: usize) -> BTreeMap<String, i64> {
        let newest = self.history.keys().last().copied().unwrap_or(1);
        let prefix = format!("crash/{writer:02}/");
        let state = self.state_at(newest).into_iter();
        state
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, record)| (key, record.lease))
            .collect()
    }
}

fn compare_records(
    when: &str,
    found: &[mvccpb::KeyValue],
    expected: &BTreeMap<String, mvccpb::KeyValue>,
) -> Result<(), String> {
    let found: BTreeMap<_, _> = found.iter().map(|record| (record.key.clone(), record)).collect();
    for record in expected.values() {
        if found.get(&record.key) != Some(&record) {
            return Err(format!("{when}: {:?} instead of {record:?}", found.get(&record.key)));
        }
    }
    match found
        .values()
        .find(|record| !expected.values().any(|known| known.key == record.key))
    {
        Some(record) => Err(format!("{when}: {record:?} should not be there")),
        None => Ok(()),
    }
}

/// The checker must see what it is there to see.
#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Change {
        Change {
            key: key.into(),
            put: Some((value.into(), 0)),
        }
    }

    fn request(writer: usize, changes: Vec<Change>) -> Request {
        Request {
            writer,
            changes,
            lease: LeaseChange::None,
        }
    }

    /// Two acknowledged writes and one unknown, and what a server says that kept all three.
    fn scene() -> (Model, Found) {
        let mut model = Model::new();
        model.acknowledge(request(0, vec![put("crash/00/a", "1")]), 2);
        model.acknowledge(request(1, vec![put("crash/01/a", "2"), put("crash/01/b", "2")]), 3);
        model.lose(request(0, vec![put("crash/00/a", "3")]));
        let events = BTreeMap::from([
            (2, vec![put("crash/00/a", "1")]),
            (3, vec![put("crash/01/a", "2"), put("crash/01/b", "2")]),
            (4, vec![put("crash/00/a", "3")]),
        ]);
        let record = |key: &'static str, create, modified, version, value: &'static str| mvccpb::KeyValue {
            key: key.into(),
            create_revision: create,
            mod_revision: modified,
            version,
            value: value.into(),
            lease: 0,
        };
        let now = vec![
            record("crash/00/a", 2, 4, 2, "3"),
            record("crash/01/a", 3, 3, 1, "2"),
            record("crash/01/b", 3, 3, 1, "2"),
        ];
        let found = Found {
            revision: 4,
            compact_revision: -1,
            events,
            now,
            at_compaction: vec![],
            leases: BTreeSet::new(),
            below_is_gone: true,
        };
        (model, found)
    }

    fn verdict(change: impl FnOnce(&mut Model, &mut Found)) -> Result<(), String> {
        let (mut model, mut found) = scene();
        change(&mut model, &mut found);
        model.settle(&found)?;
        model.compare(&found)
    }

    #[test]
    fn what_is_right_passes_with_the_unknown_write_or_without() {
        assert_eq!(verdict(|_, _| {}), Ok(()));
        let without = verdict(|_, found| {
            found.events.remove(&4);
            found.revision = 3;
            found.now[0] = mvccpb::KeyValue {
                key: "crash/00/a".into(),
                create_revision: 2,
                mod_revision: 2,
                version: 1,
                value: "1".into(),
                lease: 0,
            };
        });
        assert_eq!(without, Ok(()));
    }

    #[test]
    fn what_is_wrong_is_seen() {
        verdict(|_, found| drop(found.events.remove(&3))).expect_err("an acknowledged write is gone from history");
        verdict(|_, found| drop(found.now.remove(1))).expect_err("an acknowledged write is gone from the state");
        verdict(|_, found| found.now[1].version = 2).expect_err("a version is wrong");
        verdict(|_, found| found.now[1].lease = 5).expect_err("a lease is wrong");
        verdict(|_, found| found.revision = 5).expect_err("the revision is ahead");
        verdict(|_, found| drop(found.events.get_mut(&3).unwrap().pop())).expect_err("half a transaction");
        verdict(|_, found| drop(found.events.insert(5, vec![put("x", "y")]))).expect_err("a write from nowhere");
        verdict(|model, _| assert!(model.leases.insert(7))).expect_err("a lease is lost");
        verdict(|_, found| assert!(found.leases.insert(7))).expect_err("a lease from nowhere");
        verdict(|model, _| model.compacted(2)).expect_err("a compaction is forgotten");
    }
}
