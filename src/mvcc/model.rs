//! The store against a list of everything that ever happened.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::{memory::MemoryRecords, *};
use crate::{
    base::{LeaseId, Reject},
    wire::proto::{
        etcdserverpb::{RangeResponse, ResponseHeader},
        mvccpb::KeyValue,
    },
};

/// One change, with the whole key-value for a put.
#[derive(Clone, Debug)]
struct Change {
    revision: Revision,
    key: Vec<u8>,
    put: Option<KeyValue>,
}

/// All changes since the beginning, and the two revisions.
struct Model {
    changes: Vec<Change>,
    current: i64,
    compacted: i64,
}

impl Model {
    fn view(&self, main: i64) -> BTreeMap<Vec<u8>, KeyValue> {
        let mut view = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.revision.main <= main) {
            match &change.put {
                Some(put) => _ = view.insert(change.key.clone(), put.clone()),
                None => _ = view.remove(&change.key),
            }
        }
        view
    }

    fn put(&mut self, sub: i64, key: &[u8], value: &[u8], lease: i64) {
        let main = self.current + 1;
        let before = self.view(main).remove(key);
        let put = KeyValue {
            key: Bytes::copy_from_slice(key),
            create_revision: before.as_ref().map_or(main, |before| before.create_revision),
            mod_revision: main,
            version: before.map_or(0, |before| before.version) + 1,
            value: Bytes::copy_from_slice(value),
            lease,
        };
        self.changes.push(Change {
            revision: Revision::new(main, sub),
            key: key.to_vec(),
            put: Some(put),
        });
    }

    fn delete(&mut self, mut sub: i64, span: Span<'_>) -> i64 {
        let main = self.current + 1;
        for (key, _) in self.view(main) {
            if span.contains(&key) {
                self.changes.push(Change {
                    revision: Revision::new(main, sub),
                    key,
                    put: None,
                });
                sub += 1;
            }
        }
        sub
    }

    /// Range as etcd does it: fetch, filter, sort, cut.
    fn range(&self, query: &RangeQuery<'_>, current: i64, keys_only: bool) -> Result<RangeResponse, Reject> {
        if query.revision > current {
            return Err(Reject::FutureRevision);
        }
        let at = if query.revision <= 0 { current } else { query.revision };
        if at < self.compacted {
            return Err(Reject::Compacted);
        }
        let mut kvs: Vec<KeyValue> = self
            .view(at)
            .into_values()
            .filter(|kv| query.span.contains(&kv.key))
            .collect();
        let mut response = RangeResponse {
            count: kvs.len() as i64,
            ..RangeResponse::default()
        };
        if query.count_only {
            return Ok(response);
        }
        let bounds = [
            query.min_mod_revision,
            query.max_mod_revision,
            query.min_create_revision,
            query.max_create_revision,
        ];
        if query.sort_order == SortOrder::None && bounds == [0; 4] && query.limit > 0 {
            kvs.truncate(query.limit as usize + 1);
        }
        kvs.retain(|kv| {
            (bounds[0] == 0 || kv.mod_revision >= bounds[0])
                && (bounds[1] == 0 || kv.mod_revision <= bounds[1])
                && (bounds[2] == 0 || kv.create_revision >= bounds[2])
                && (bounds[3] == 0 || kv.create_revision <= bounds[3])
        });
        kvs.sort_by(|left, right| {
            let order = match query.sort_target {
                SortTarget::Key => left.key.cmp(&right.key),
                SortTarget::Version => left.version.cmp(&right.version),
                SortTarget::Create => left.create_revision.cmp(&right.create_revision),
                SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
                SortTarget::Value => left.value.cmp(&right.value),
            };
            match query.sort_order {
                SortOrder::Descend => order.reverse(),
                SortOrder::None | SortOrder::Ascend => order,
            }
        });
        if query.limit > 0 && kvs.len() > query.limit as usize {
            kvs.truncate(query.limit as usize);
            response.more = true;
        }
        if keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response.kvs = kvs;
        Ok(response)
    }
}

/// A step of the random walk. Keys are numbers below 12, revisions are chosen within reach of the present ones.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, i64),
    Delete(u8, u8),
    Txn(Vec<(bool, u8, u8)>),
    Range(Ask),
    Compact(u8),
    CompactSlice(usize),
    PhysicalSlice(usize),
    Hash(u8),
    History(u8, u8),
    Restart,
}

#[derive(Clone, Debug)]
struct Ask {
    span: (u8, u8, u8),
    back: u8,
    limit: i64,
    sort: (u8, u8),
    bounds: [u8; 4],
    count_only: bool,
    keys_only: bool,
    slice: usize,
}

fn ask() -> impl Strategy<Value = Ask> {
    (
        (0..12u8, 0..13u8, 0..3u8),
        0..20u8,
        -1..6i64,
        (0..3u8, 0..5u8),
        prop_oneof![3 => Just([0u8; 4]), 1 => any::<[u8; 4]>()],
        any::<bool>(),
        any::<bool>(),
        1..9usize,
    )
        .prop_map(|(span, back, limit, sort, bounds, count_only, keys_only, slice)| Ask {
            span,
            back,
            limit,
            sort,
            bounds,
            count_only,
            keys_only,
            slice,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..12u8, 0..4u8, 0..3i64).prop_map(|(key, value, lease)| Step::Put(key, value, lease)),
        4 => (0..12u8, 0..13u8).prop_map(|(from, to)| Step::Delete(from, to)),
        3 => prop::collection::vec((any::<bool>(), 0..12u8, 0..13u8), 0..5).prop_map(Step::Txn),
        10 => ask().prop_map(Step::Range),
        2 => (0..12u8).prop_map(Step::Compact),
        4 => (1..9usize).prop_map(Step::CompactSlice),
        4 => (1..9usize).prop_map(Step::PhysicalSlice),
        2 => (0..12u8).prop_map(Step::Hash),
        3 => (0..20u8, 0..20u8).prop_map(|(from, to)| Step::History(from, to)),
        1 => Just(Step::Restart),
    ]
}

fn key(number: u8) -> Vec<u8> {
    format!("k{number:02}").into_bytes()
}

/// The store, its tree, and a compaction on its way.
struct Subject {
    store: Store,
    tree: MemoryRecords,
    marks: CompactionMarks,
    logical: Option<Compaction>,
    physical: Option<PhysicalCompaction>,
    model: Model,
}

impl Subject {
    fn new() -> Subject {
        Subject {
            store: Store::new(),
            tree: MemoryRecords::default(),
            marks: CompactionMarks::default(),
            logical: None,
            physical: None,
            model: Model {
                changes: Vec::new(),
                current: 1,
                compacted: -1,
            },
        }
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Put(number, value, lease) => self.txn(&[(true, number, value)], lease),
            Step::Delete(from, to) => self.txn(&[(false, from, to)], 0),
            Step::Txn(changes) => self.txn(&changes, 0),
            Step::Range(ask) => self.range(&ask),
            Step::Compact(back) => self.compact(back),
            Step::CompactSlice(keys) => self.compact_slice(keys),
            Step::PhysicalSlice(records) => self.physical_slice(records),
            Step::Hash(back) => self.hash(back),
            Step::History(from, to) => self.history(from, to),
            Step::Restart => self.restart(),
        }
    }

    fn txn(&mut self, changes: &[(bool, u8, u8)], lease: i64) {
        let before = self.model.view(self.model.current);
        let mut txn = self.store.begin(&mut self.tree, PreviousRecords::Fetch);
        let mut sub = 0;
        for &(is_put, number, other) in changes {
            if is_put {
                let outcome = txn.put(&key(number), &[other][..usize::from(other.min(1))], LeaseId(lease));
                let view = self.model.view(self.model.current + 1);
                let expected = view.get(&key(number)).map(|kv| (kv.mod_revision, kv.version));
                let previous = outcome.previous.map(|state| (state.modified.main, state.version));
                assert_eq!(previous, expected);
                self.model
                    .put(sub, &key(number), &[other][..usize::from(other.min(1))], lease);
                sub += 1;
            } else {
                let (from, to) = (key(number), key(other));
                let span = Span::from_request(&from, if other == 12 { b"\0" } else { &to });
                let outcome = txn.delete_range(span);
                let after = self.model.delete(sub, span);
                assert_eq!(outcome.deleted.len() as i64, after - sub);
                sub = after;
                assert_eq!(outcome.revision, self.model.current + i64::from(sub > 0));
            }
            let query = RangeQuery::new(Span::all());
            let result = txn.range(&query).unwrap();
            let bytes = encode_range_response(txn.records(), &[], &result, false);
            let expected = self.model.range(&query, self.model.current + i64::from(sub > 0), false);
            assert_eq!(RangeResponse::decode(bytes).unwrap(), expected.unwrap());
        }
        let commit = txn.end();
        assert_eq!(commit.is_some(), sub > 0);
        if let Some(commit) = commit {
            self.model.current += 1;
            assert_eq!(commit.revision, self.model.current);
            let happened = self.events(self.model.current, self.model.current);
            assert_eq!(commit.events, happened);
            for event in &commit.events {
                let previous = before.get(&event.key[..]).filter(|_| !event.is_create());
                assert_eq!(event.previous, previous.map(|kv| kv.encode_to_vec().into()));
            }
        }
        assert_eq!(self.store.current_revision(), self.model.current);
    }

    /// The events that the model has for a span of revisions.
    fn events(&self, from: i64, to: i64) -> Vec<Event> {
        let is_within = |change: &&Change| (from..=to).contains(&change.revision.main);
        let changes = self.model.changes.iter().filter(is_within);
        changes
            .map(|change| {
                let put = change.put.clone().unwrap_or_default();
                let is_create = change.put.is_some() && put.create_revision == change.revision.main;
                let readable = !is_create && change.revision.main > self.model.compacted;
                let previous = match readable {
                    true => self.model.view(change.revision.main - 1).remove(&change.key),
                    false => None,
                };
                let record = match &change.put {
                    Some(put) => put.encode_to_vec(),
                    None => KeyValue {
                        key: change.key.clone().into(),
                        ..KeyValue::default()
                    }
                    .encode_to_vec(),
                };
                Event {
                    kind: if change.put.is_some() {
                        EventKind::Put
                    } else {
                        EventKind::Delete
                    },
                    key: change.key.clone().into(),
                    revision: change.revision,
                    record: record.into(),
                    create_revision: put.create_revision,
                    lease: LeaseId(put.lease),
                    previous: previous.map(|kv| kv.encode_to_vec().into()),
                }
            })
            .collect()
    }

    fn range(&mut self, ask: &Ask) {
        let (from, to) = (key(ask.span.0), key(ask.span.1));
        let span = match ask.span.2 {
            0 => Span::key(&from),
            1 => Span::from_request(&from, b"\0"),
            _ => Span::from_request(&from, &to),
        };
        let back = i64::from(ask.back);
        let bound = |index: usize| i64::from(ask.bounds[index]) % (self.model.current + 2);
        let query = RangeQuery {
            span,
            revision: if back == 0 { 0 } else { self.model.current + 2 - back },
            limit: ask.limit,
            sort_order: [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][usize::from(ask.sort.0)],
            sort_target: [
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ][usize::from(ask.sort.1)],
            count_only: ask.count_only,
            min_mod_revision: bound(0),
            max_mod_revision: bound(1),
            min_create_revision: bound(2),
            max_create_revision: bound(3),
        };
        let expected = self.model.range(&query, self.model.current, ask.keys_only);
        let result = self.store.range_begin(&query).map(|mut scan| {
            while !self.store.range_slice(&mut scan, ask.slice) {}
            let mut sort = scan.into_sort();
            while !sort.slice(&self.tree, ask.slice) {}
            sort.finish()
        });
        assert_eq!(self.store.range(&self.tree, &query), result);
        let result = match result {
            Ok(result) => result,
            Err(reject) => {
                assert_eq!(expected, Err(reject));
                return;
            }
        };
        let header = ResponseHeader {
            cluster_id: 1 << 60,
            member_id: 2,
            revision: self.model.current,
            raft_term: 3,
        };
        let mut expected = expected.expect("the model accepts what the store accepts");
        expected.header = Some(header);
        let bytes = encode_range_response(&self.tree, &header.encode_to_vec(), &result, ask.keys_only);
        assert_eq!(RangeResponse::decode(bytes.clone()).unwrap(), expected);
        assert_eq!(bytes, expected.encode_to_vec(), "canonical bytes");
        let mut encoder = RangeEncoder::new(&header.encode_to_vec(), result, ask.keys_only);
        while !encoder.measure(&self.tree, ask.slice) {}
        assert_eq!(encoder.encoded_len(), bytes.len());
        let chunks = std::iter::from_fn(|| encoder.chunk(&self.tree, ask.slice)).flatten();
        assert_eq!(chunks.collect::<Vec<u8>>(), bytes);
        let scan = self.store.range_begin(&query).expect("it was accepted before");
        assert_eq!(scan.is_plain(), is_in_index_order(&query));
        if scan.is_plain() {
            let mut list = RangeList::new(scan, header.encode_to_vec().into(), ask.keys_only);
            while !list.measure(&self.store, &self.tree, ask.slice) {}
            assert_eq!(list.encoded_len(), bytes.len());
            let mut written = Vec::new();
            while !list.is_done() {
                written.extend_from_slice(&list.chunk(&self.store, &self.tree, ask.slice, ask.slice));
            }
            assert_eq!(written, bytes);
        }
    }

    fn compact(&mut self, back: u8) {
        if self.logical.is_some() || self.physical.is_some() {
            return;
        }
        let revision = (self.model.current + 1 - i64::from(back)).max(1);
        let expected = match revision {
            _ if revision <= self.model.compacted => Err(Reject::Compacted),
            _ if revision > self.model.current => Err(Reject::FutureRevision),
            _ => Ok(revision),
        };
        let compaction = self.store.compact(revision, self.marks.is_settled());
        assert_eq!(
            compaction.as_ref().map(Compaction::revision).map_err(|reject| *reject),
            expected
        );
        if let Ok(compaction) = compaction {
            self.model.compacted = revision;
            self.marks.scheduled = Some(revision);
            self.logical = Some(compaction);
        }
    }

    fn compact_slice(&mut self, keys: usize) {
        let Some(mut compaction) = self.logical.take() else {
            return;
        };
        match self.store.compact_slice(&mut compaction, keys) {
            true => self.physical = Some(compaction.into_physical()),
            false => self.logical = Some(compaction),
        }
        self.store.index().verify();
    }

    fn physical_slice(&mut self, records: usize) {
        let Some(mut physical) = self.physical.take() else {
            return;
        };
        match physical.step(&mut self.tree, records).is_finished {
            true => {
                self.marks.finished = Some(physical.revision());
                self.check_what_is_left(physical.revision());
            }
            false => self.physical = Some(physical),
        }
    }

    /// After a compaction the tree has exactly the newest change of each key at or below the revision, tombstones of the
    /// revision itself included, and everything above.
    fn check_what_is_left(&self, compacted: i64) {
        let mut newest = BTreeMap::new();
        for change in self
            .model
            .changes
            .iter()
            .filter(|change| change.revision.main <= compacted)
        {
            newest.insert(&change.key, change);
        }
        let mut expected: Vec<Revision> = newest
            .values()
            .filter(|change| change.put.is_some() || change.revision.main == compacted)
            .map(|change| change.revision)
            .collect();
        let above = self.model.changes.iter().map(|change| change.revision);
        expected.extend(above.filter(|revision| revision.main > compacted));
        expected.sort();
        assert_eq!(self.tree.records.keys().copied().collect::<Vec<_>>(), expected);
    }

    /// HashKV does not depend on how far the deletion of records has come.
    fn hash(&mut self, back: u8) {
        let revision = (self.model.current - i64::from(back)).max(1);
        let Ok(mut job) = self.store.hash_begin(revision) else {
            return;
        };
        while !self.store.hash_slice(&mut job, 3) {}
        let mut hasher = job.into_hasher();
        while !hasher.slice(&self.tree, 2) {}
        let Some(mut logical) = self.logical.take() else {
            if self.physical.is_none() {
                return;
            }
            let mut tree = self.tree.clone();
            let mut physical = self.physical.clone().expect("looked at above");
            while !physical.step(&mut tree, 1000).is_finished {}
            self.check_hash(hasher.finish(), &tree);
            return;
        };
        while !self.store.compact_slice(&mut logical, 1) {}
        let mut physical = logical.into_physical();
        let mut tree = self.tree.clone();
        while !physical.clone().step(&mut tree, 1000).is_finished {}
        while !physical.step(&mut tree, 1000).is_finished {}
        self.check_hash(hasher.finish(), &tree);
        self.logical = None;
        self.tree = tree;
        self.marks.finished = self.marks.scheduled;
    }

    fn check_hash(&self, expected: KeyValueHash, tree: &MemoryRecords) {
        let mut job = self.store.hash_begin(expected.revision).unwrap();
        self.store.hash_slice(&mut job, usize::MAX);
        let is_any_live = !self.model.view(expected.revision).is_empty();
        let mut hasher = job.into_hasher();
        hasher.slice(tree, usize::MAX);
        // With nothing alive etcd leaves nothing out, and the hash does depend on the deletion.
        if is_any_live {
            assert_eq!(hasher.finish(), expected);
        }
    }

    fn history(&mut self, from: u8, to: u8) {
        let to = (self.model.current - i64::from(to)).max(0);
        let from = (to - i64::from(from)).max(1);
        let limits = HistoryLimits {
            records_max: 3,
            bytes_max: 60,
        };
        let mut events = Vec::new();
        let mut next = from;
        loop {
            let fetch = PreviousRecords::Fetch;
            match history_slice(&self.store, &self.tree, next, to, limits, fetch, |key| key != b"k03") {
                Ok(slice) => events.extend(slice.events),
                Err(reject) => {
                    assert_eq!(reject, Reject::Compacted);
                    assert!(from < self.model.compacted);
                    return;
                }
            }
            let slice = history_slice(&self.store, &self.tree, next, to, limits, fetch, |_| true).unwrap();
            assert!(slice.next_revision > next || next > to);
            next = slice.next_revision;
            if next > to {
                break;
            }
        }
        let mut expected = self.events(from, to);
        expected.retain(|event| event.key != b"k03"[..]);
        if from > self.model.compacted {
            // Slices of wanted keys may be longer than those of all keys; what counts is that nothing is missing.
            events.sort_by_key(|event| event.revision);
            events.dedup();
            assert_eq!(events, expected);
        }
    }

    fn restart(&mut self) {
        let mut restore = Restore::new(self.marks);
        for (revision, (kind, record)) in &self.tree.records {
            let mut bucket_key = revision.encode().to_vec();
            if *kind == RecordKind::Tombstone {
                bucket_key.push(b't');
            }
            restore.feed(&bucket_key, record).unwrap();
        }
        let restored = restore.finish();
        self.store = restored.store;
        self.logical = restored.resumed;
        self.physical = None;
        self.store.index().verify();
        assert_eq!(self.store.current_revision(), self.model.current);
        assert_eq!(self.store.compact_revision(), self.model.compacted);
        let view = self.model.view(self.model.current);
        let mut expected: Vec<_> = view.values().filter(|kv| kv.lease != 0).collect();
        expected.sort_by_key(|kv| kv.mod_revision);
        let expected: Vec<_> = expected.iter().map(|kv| (kv.key.clone(), LeaseId(kv.lease))).collect();
        assert_eq!(restored.attachments, expected);
    }
}

proptest! {
    #[test]
    fn store_does_what_a_list_of_changes_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut subject = Subject::new();
        for step in steps {
            subject.carry_out(step);
        }
    }
}

fn is_in_index_order(query: &RangeQuery<'_>) -> bool {
    query.sort_target == SortTarget::Key && query.sort_order != SortOrder::Descend
}
