//! A state machine in memory, and words for the tests to drive it with.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;
use prost::Message;

use super::{Applied, EntryAt, State, StateConfig, Tree, restore_store};
use crate::backend::Bucket;
use crate::base::{ClusterId, LogIndex, MemberId, Monotonic, Reject, Revision, Term};
use crate::lease::LessorConfig;
use crate::member::Membership;
use crate::mvcc::memory::MemoryRecords;
use crate::mvcc::{RecordKind, RecordSink, Records};
use crate::wire::proto::etcdserverpb::{request_op::Request, *};

/// A tree that is never written to a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryTree {
    pub records: MemoryRecords,
    pub buckets: BTreeMap<(Bucket, Vec<u8>), Bytes>,
    pub allocated_bytes: u64,
}

impl Records for MemoryTree {
    fn record(&self, revision: Revision) -> Option<&[u8]> {
        self.records.record(revision)
    }

    fn record_bytes(&self, revision: Revision) -> Option<Bytes> {
        self.records.record_bytes(revision)
    }

    fn scan(&self, from: Revision, visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {
        self.records.scan(from, visit);
    }
}

impl RecordSink for MemoryTree {
    fn put_record(&mut self, revision: Revision, kind: RecordKind, record: Bytes) {
        self.records.put_record(revision, kind, record);
    }

    fn delete_record(&mut self, revision: Revision, kind: RecordKind) {
        self.records.delete_record(revision, kind);
    }
}

impl Tree for MemoryTree {
    fn value(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes> {
        self.buckets.get(&(bucket, key.to_vec())).cloned()
    }

    fn visit(&self, bucket: Bucket, visit: &mut dyn FnMut(&[u8], &[u8])) {
        if bucket == Bucket::Key {
            for (revision, (kind, record)) in &self.records.records {
                visit(&bucket_key(*revision, *kind), record);
            }
        }
        let from = self.buckets.range((bucket, Vec::new())..);
        for ((_, key), value) in from.take_while(|((of, _), _)| *of == bucket) {
            visit(key, value);
        }
    }

    fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes) {
        assert!(!key.is_empty());
        self.buckets.insert((bucket, key.to_vec()), value);
    }

    fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        self.buckets.remove(&(bucket, key.to_vec()));
    }

    fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }
}

impl MemoryTree {
    /// The whole content, `key` bucket included, as the file would hold it.
    pub(crate) fn dump(&self) -> BTreeMap<(&'static str, Vec<u8>), Bytes> {
        let small = self.buckets.iter();
        let small = small.map(|((bucket, key), value)| ((bucket.name(), key.clone()), value.clone()));
        let records = self
            .records
            .records
            .iter()
            .map(|(revision, (kind, record))| (("key", bucket_key(*revision, *kind)), record.clone()));
        small.chain(records).collect()
    }
}

fn bucket_key(revision: Revision, kind: RecordKind) -> Vec<u8> {
    let mut key = revision.encode().to_vec();
    if kind == RecordKind::Tombstone {
        key.push(b't');
    }
    key
}

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const MEMBER: MemberId = MemberId(0xa1);
pub(crate) const TERM: Term = Term(2);

pub(crate) fn config() -> StateConfig {
    StateConfig {
        cluster_id: CLUSTER,
        member_id: MEMBER,
        quota_bytes: Some(1_000_000),
        answer_bytes_max: usize::MAX,
        learners_max: 1,
        lease: LessorConfig::default(),
        snapshot: EntryAt::default(),
        snapshot_members: Membership::default(),
    }
}

pub(crate) fn open(tree: MemoryTree, config: StateConfig) -> State<MemoryTree> {
    let restored = restore_store(&tree).expect("the tree is as it was written");
    State::open(tree, restored, config).expect("a database that we wrote")
}

/// A state machine that is fed entries one after the other.
pub(crate) struct Rig {
    pub state: State<MemoryTree>,
    pub now: Monotonic,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(config())
    }

    pub(crate) fn with(config: StateConfig) -> Rig {
        Rig {
            state: open(MemoryTree::default(), config),
            now: Monotonic(1_000_000_000),
        }
    }

    /// Seals, closes and opens again.
    pub(crate) fn reopen(self) -> Rig {
        let Rig { mut state, now } = self;
        seal(&mut state);
        let config = state.config().clone();
        Rig {
            state: open(state.into_tree(), config),
            now,
        }
    }

    pub(crate) fn next(&self) -> EntryAt {
        EntryAt {
            index: LogIndex(self.state.applied().index.0 + 1),
            term: TERM,
        }
    }

    pub(crate) fn apply(&mut self, request: InternalRaftRequest) -> Applied {
        let at = self.next();
        let request = InternalRaftRequest {
            id: at.index.0,
            ..request
        };
        let applied = self.state.apply(at, request.encode_to_vec().into(), self.now);
        applied.expect("a sound entry")
    }

    pub(crate) fn answer<M: Message + Default>(&mut self, request: InternalRaftRequest) -> Result<M, Reject> {
        let answer = self.apply(request).answer.expect("whoever proposes is answered");
        answer.map(|bytes| M::decode(bytes).expect("a response"))
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> Result<PutResponse, Reject> {
        self.answer(put(put_request(key, value)))
    }

    pub(crate) fn range(&self, key: &str) -> RangeResponse {
        let answer = self
            .state
            .read_range(&range_request(key))
            .expect("the present is readable");
        RangeResponse::decode(answer).expect("a response")
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let kv = self.range(key).kvs.pop()?;
        Some(String::from_utf8(kv.value.to_vec()).expect("tests write text"))
    }

    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Reject> {
        self.answer(grant(id, ttl))
    }

    pub(crate) fn revision(&self) -> i64 {
        self.state.store().current_revision()
    }
}

/// As the driver does with the backend.
pub(crate) fn seal(state: &mut State<MemoryTree>) {
    for (key, value) in state.seal() {
        state.tree_mut().put(Bucket::Meta, key, value);
    }
}

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: CLUSTER.0,
        member_id: MEMBER.0,
        revision,
        raft_term: TERM.0,
    })
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn range_request(key: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(key),
        ..RangeRequest::default()
    }
}

pub(crate) fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..PutRequest::default()
    }
}

pub(crate) fn delete_request(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: false,
    }
}

pub(crate) fn put(request: PutRequest) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(request),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn delete(request: DeleteRangeRequest) -> InternalRaftRequest {
    InternalRaftRequest {
        delete_range: Some(request),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn txn(request: TxnRequest) -> InternalRaftRequest {
    InternalRaftRequest {
        txn: Some(request),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn compact(revision: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        compaction: Some(CompactionRequest {
            revision,
            physical: false,
        }),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn grant(id: i64, ttl: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl }),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn revoke(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn alarm(action: i32, member_id: u64, alarm: AlarmType) -> InternalRaftRequest {
    InternalRaftRequest {
        alarm: Some(AlarmRequest {
            action,
            member_id,
            alarm: alarm as i32,
        }),
        ..InternalRaftRequest::default()
    }
}

pub(crate) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// A small generator for tests that want many inputs from one seed.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
