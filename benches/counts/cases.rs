//! The cases: each does so many operations and gives a digest of their results, so that none can be left out.

use std::{hint::black_box, ops::ControlFlow};

use bytes::{Bytes, BytesMut};
use prost::Message;
use raft::eraftpb::{ConfState, HardState};
use ringd::{
    apply::{EntryAt, State, StateConfig, Tree, restore_store},
    backend::{Backend, Batch, Bucket, Store as TreeStore, StoreEvent, StoreOptions, StoreRequest},
    base::{ClusterId, LeaseId, LogIndex, MemberId, Monotonic, Revision, Term},
    host::{Host, mailbox},
    lease::LessorConfig,
    limits::{BACKEND_BATCH_OPERATIONS_MAX, Limits},
    member::Membership,
    mvcc::{Event, EventKind, PreviousRecords, RangeQuery, Record, RecordKind, RecordSink, Records, Span, Store},
    raft::{Consensus, MemoryLog, Timing},
    ring::ThreadHost,
    wal::LogEncoder,
    watch::{ResponseIdentity, WatchHub, WatchLimits, WatchSpec},
    wire::{
        client::{ClientConnection, ClientEvent, ClientOptions},
        hpack::{Decoder, Field, encode_integer, huffman_encode},
        proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader},
        server::{ServerConnection, ServerEvent, ServerOptions},
    },
};

/// Name, operations, and what runs them.
pub type Case = (&'static str, u64, fn(u64) -> u64);

/// All cases.
pub const CASES: &[Case] = &[
    ("hpack: a call's block, indexed", 20_000, |count| hpack(count, true)),
    ("hpack: a call's block, Huffman literals", 5_000, |count| {
        hpack(count, false)
    }),
    ("wire: call and answer, 1 in one read", 5_000, |count| calls(count, 1)),
    ("wire: call and answer, 64 in one read", 20_000, |count| {
        calls(count, 64)
    }),
    ("request: put decoded, entry encoded", 20_000, decode),
    ("index: put of a new key", 20_000, |count| index(count, Index::PutNew)),
    ("index: put of a known key", 20_000, |count| {
        index(count, Index::PutKnown)
    }),
    ("index: get", 20_000, |count| index(count, Index::Get)),
    ("index: count of half the keys", 20_000, |count| {
        index(count, Index::Count)
    }),
    ("index: range of 10 keys", 5_000, |count| index(count, Index::Range)),
    ("raft: cycle of 1 entry, logged", 5_000, |count| raft(count, 1)),
    ("raft: cycle of 64 entries, logged, an entry", 64 * 500, |count| {
        raft(count, 64)
    }),
    ("apply: put of 300 bytes", 5_000, apply),
    ("watch: put told to 1 of 10,000 watchers", 5_000, |count| {
        watch(count, 10_000, 1)
    }),
    ("watch: put told to 100 watchers, a watcher", 100 * 200, |count| {
        watch(count, 100, 100)
    }),
    ("tree: 1,000 puts at the end, a put", 20_000, |count| tree(count, true)),
    ("tree: 1,000 puts anywhere, a put", 20_000, |count| tree(count, false)),
];

const NOW: Monotonic = Monotonic(1);

fn hpack(count: u64, is_indexed: bool) -> u64 {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", "127.0.0.1:2379"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.71.1"),
        ("te", "trailers"),
        ("grpc-timeout", "4999870u"),
    ];
    let block = |pattern: u8| {
        let mut block = BytesMut::new();
        for (name, value) in fields {
            block.extend_from_slice(&[pattern]);
            for text in [name, value] {
                let mut code = Vec::new();
                huffman_encode(text.as_bytes(), &mut code);
                encode_integer(code.len(), 7, 0x80, &mut block);
                block.extend_from_slice(&code);
            }
        }
        block
    };
    let (mut decoder, mut bytes) = (Decoder::new(4096), 0);
    let mut sink = |field: Field<'_>| bytes += (field.name.len() + field.value.len()) as u64;
    decoder.decode(&block(0x40), 65_536, &mut sink).expect("a good block");
    let indices: Vec<u8> = (62..70).map(|index| 0x80 | index).collect();
    let literal = block(0x00);
    let repeated = if is_indexed { &indices[..] } else { &literal[..] };
    for _ in 0..count {
        decoder.decode(repeated, 65_536, &mut sink).expect("a good block");
    }
    bytes
}

fn calls(count: u64, in_flight: u64) -> u64 {
    let mut client = ClientConnection::new(ClientOptions::default(), NOW);
    let mut server = ServerConnection::new(ServerOptions::default(), NOW);
    let method = client.method("/etcdserverpb.KV/Put", &[]);
    let question = [7u8; 29];
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let mut digest = 0u64;
    for _ in 0..count.div_ceil(in_flight) {
        for _ in 0..in_flight {
            client.call(method, None, &question[..]).expect("streams are left");
        }
        to_server.extend_from_slice(client.output());
        client.output().clear();
        server.receive(&mut to_server, NOW);
        while let Some(event) = server.next_event() {
            if let ServerEvent::Message { stream, message } = event {
                digest += message.len() as u64;
                server.send_unary(stream, &[1u8; 60][..]);
            }
        }
        to_client.extend_from_slice(server.output());
        server.output().clear();
        client.receive(&mut to_client, NOW);
        while let Some(event) = client.next_event() {
            if let ClientEvent::Finished { stream, .. } = event {
                digest = digest.wrapping_mul(31).wrapping_add(u64::from(stream.0));
            }
        }
    }
    digest
}

fn key(number: u64) -> Bytes {
    format!("/registry/pods/default/{number:012}").into()
}

fn put(number: u64) -> PutRequest {
    PutRequest {
        key: key(number),
        value: vec![b'v'; 300].into(),
        ..PutRequest::default()
    }
}

fn entry(id: u64, put: PutRequest) -> Bytes {
    let header = RequestHeader {
        id,
        ..RequestHeader::default()
    };
    let request = InternalRaftRequest {
        header: Some(header),
        put: Some(put),
        ..InternalRaftRequest::default()
    };
    request.encode_to_vec().into()
}

fn decode(count: u64) -> u64 {
    let message: Bytes = put(7).encode_to_vec().into();
    let mut digest = 0;
    for id in 0..count {
        let request = PutRequest::decode(message.clone()).expect("our own message");
        digest += entry(id, request).len() as u64;
    }
    digest
}

/// A tree that forgets: only the index is counted.
struct Forgetful;

impl Records for Forgetful {
    fn record(&self, _revision: Revision) -> Option<&[u8]> {
        None
    }
    fn scan(&self, _from: Revision, _visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {}
}

impl RecordSink for Forgetful {
    fn put_record(&mut self, _revision: Revision, _kind: RecordKind, record: Bytes) {
        black_box(record);
    }
    fn delete_record(&mut self, _revision: Revision, _kind: RecordKind) {}
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    PutNew,
    PutKnown,
    Get,
    Count,
    Range,
}

/// Keys that the index holds before.
const INDEX_KEYS: u64 = 10_000;

/// Numbers below a bound in an order without a pattern; each once as long as there are fewer than the bound.
fn scattered(number: u64, below: u64) -> u64 {
    number.wrapping_mul(7_919) % below
}

fn index(count: u64, what: Index) -> u64 {
    let mut store = Store::new();
    let write = |store: &mut Store, number: u64| {
        let mut tree = Forgetful;
        let mut txn = store.begin(&mut tree, PreviousRecords::Skip);
        txn.put(&key(number), b"value", LeaseId(0));
        black_box(txn.end());
    };
    for number in 0..INDEX_KEYS {
        write(&mut store, scattered(number, INDEX_KEYS) * 1_000_003);
    }
    let mut digest = 0;
    for number in 0..count {
        let known = scattered(number, INDEX_KEYS) * 1_000_003;
        match what {
            Index::PutNew => write(&mut store, known + 1 + number),
            Index::PutKnown => write(&mut store, known),
            Index::Get => digest += store.latest(&key(known)).map_or(0, |state| state.modified.main as u64),
            Index::Count => digest += store.count(Span::from_request(&key(known), b"\0")),
            Index::Range => {
                let start = key(known);
                let query = RangeQuery {
                    limit: 10,
                    ..RangeQuery::new(Span::from_request(&start, b"\0"))
                };
                digest += store.range(&Forgetful, &query).expect("the present").items.len() as u64;
            }
        }
    }
    digest + store.current_revision() as u64
}

fn raft(count: u64, batch: u64) -> u64 {
    let conf_state = ConfState {
        voters: vec![1],
        ..ConfState::default()
    };
    let timing = Timing {
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
    };
    let log = MemoryLog::new(LogIndex(0), Term(0), conf_state, HardState::default(), Vec::new());
    let mut consensus = Consensus::new(MemberId(1), log, LogIndex(0), timing, 1);
    let mut encoder = LogEncoder::create(b"bench");
    let (mut bytes, mut buffer) = (0, Vec::new());
    consensus.campaign().expect("a lone member");
    let mut settle = |consensus: &mut Consensus| {
        while let Some(cycle) = consensus.cycle() {
            encoder.append(&cycle.entries, cycle.hard_state.as_ref());
            // As the server: a commit index alone waits for the next write, and memory is used again.
            if encoder.must_sync()
                && let Some(batch) = encoder.seal(|len| resized(std::mem::take(&mut buffer), len))
            {
                bytes += batch.record_bytes;
                buffer = batch.bytes;
            }
            if let Some(last) = cycle.committed.last() {
                consensus.applied(LogIndex(last.index));
            }
            consensus.persisted(cycle.number);
        }
    };
    settle(&mut consensus);
    let data = entry(7, put(7));
    for number in 0..count.div_ceil(batch) {
        consensus.propose((0..batch).map(|_| data.clone()));
        settle(&mut consensus);
        if number % 16 == 0 {
            consensus.discard_to(consensus.committed());
        }
    }
    bytes
}

fn resized(mut buffer: Vec<u8>, len: usize) -> Vec<u8> {
    buffer.resize(len, 0);
    buffer
}

/// The open batch, and nothing under it.
#[derive(Default)]
struct BatchTree {
    batch: Batch,
}

impl Records for BatchTree {
    fn record(&self, revision: Revision) -> Option<&[u8]> {
        let record = self.batch.get(Bucket::Key, &revision.encode())?;
        record.map(|record| &record[..])
    }
    fn scan(&self, _from: Revision, _visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {}
}

impl RecordSink for BatchTree {
    fn put_record(&mut self, revision: Revision, _kind: RecordKind, record: Bytes) {
        self.batch.put(Bucket::Key, revision.encode(), record);
    }
    fn delete_record(&mut self, revision: Revision, _kind: RecordKind) {
        self.batch.delete(Bucket::Key, revision.encode());
    }
}

impl Tree for BatchTree {
    fn value(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes> {
        self.batch.get(bucket, key).flatten().cloned()
    }
    fn visit(&self, _bucket: Bucket, _visit: &mut dyn FnMut(&[u8], &[u8])) {}
    fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes) {
        self.batch.put(bucket, key, value);
    }
    fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        self.batch.delete(bucket, key);
    }
    fn allocated_bytes(&self) -> u64 {
        0
    }
}

fn apply(count: u64) -> u64 {
    let tree = BatchTree::default();
    let restored = restore_store(&tree).expect("an empty tree");
    let config = StateConfig {
        cluster_id: ClusterId(7),
        member_id: MemberId(1),
        quota_bytes: Some(1 << 31),
        answer_bytes_max: usize::MAX,
        learners_max: 1,
        lease: LessorConfig::default(),
        snapshot: EntryAt::default(),
        snapshot_members: Membership::default(),
    };
    let mut state = State::open(tree, restored, config).expect("an empty tree");
    let mut digest = 0;
    for number in 0..count {
        let at = EntryAt {
            index: LogIndex(number + 1),
            term: Term(2),
        };
        let entry = entry(number, put(scattered(number, 1_000_003)));
        let applied = state.apply(at, entry, NOW).expect("a sound entry");
        digest += applied
            .answer
            .map_or(0, |answer| answer.map_or(1, |answer| answer.len() as u64));
        if (number + 1) % BACKEND_BATCH_OPERATIONS_MAX as u64 == 0 {
            black_box(state.seal());
            state.tree_mut().batch = Batch::new();
        }
    }
    digest
}

fn watch(count: u64, watchers: u64, told: u64) -> u64 {
    let identity = ResponseIdentity {
        cluster_id: u64::MAX / 3,
        member_id: u64::MAX / 5,
        raft_term: 7,
    };
    let mut hub = WatchHub::new(identity, WatchLimits::new(1_572_864, &Limits::DEFAULT), 1, -1, 1);
    let keys = watchers / told;
    for number in 0..watchers {
        let stream = hub.open_stream();
        let spec = WatchSpec {
            key: key(number % keys),
            ..WatchSpec::default()
        };
        hub.create(stream, spec);
    }
    let (mut out, mut digest) = (BytesMut::with_capacity(4096), 0);
    let mut send = |hub: &mut WatchHub| {
        while let Some(stream) = hub.ready() {
            while let Some(response) = hub.pop(stream) {
                response.encode_to(hub.identity(), &mut out);
                digest += out.len() as u64;
                out.clear();
            }
        }
    };
    send(&mut hub);
    for number in 0..count.div_ceil(told) {
        let (key, main) = (key(scattered(number, keys)), hub.revision() + 1);
        let record = Record {
            key: &key,
            create_revision: 2,
            mod_revision: main,
            version: main - 1,
            value: &[7; 256],
            lease: LeaseId(0),
        };
        let event = Event {
            kind: EventKind::Put,
            revision: Revision::new(main, 0),
            record: record.encode(),
            create_revision: 2,
            lease: LeaseId(0),
            previous: None,
            key: key.clone(),
        };
        hub.publish(&[event]);
        send(&mut hub);
    }
    digest
}

/// Keys that the tree holds before.
const TREE_KEYS: u64 = 10_000;

/// Commits of a thousand puts: cursors, page images, inserts and splits, the freelist, checksums. Written without syncs;
/// what the kernel does is not counted.
fn tree(count: u64, is_ascending: bool) -> u64 {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let path = scratch.path().join("db");
    ThreadHost::run(|host| async move {
        let options = StoreOptions {
            sync: false,
            populate: false,
            map_bytes: 256 << 20,
            ..StoreOptions::new(path)
        };
        let (store, report) = TreeStore::open(host.clone(), options).await.expect("a new file");
        let (mut requests, to_store) = mailbox(4);
        let (from_store, mut events) = mailbox(4);
        host.spawn(store.run(to_store, from_store));
        let mut backend = Backend::new(report);
        let value = Bytes::from(vec![7; 256]);
        let (mut next, mut digest) = (0, 0);
        for commit in 0..(TREE_KEYS + count).div_ceil(1000) {
            for at in 0..1000 {
                let is_new = is_ascending || next < TREE_KEYS;
                let number = if is_new {
                    next
                } else {
                    scattered(commit * 1000 + at, TREE_KEYS)
                };
                next += 1;
                backend.put(Bucket::Key, Revision::new(number as i64, 0).encode(), value.clone());
            }
            let sealed = backend.seal([]).expect("puts");
            assert!(requests.send(StoreRequest::Commit(sealed)).await.is_ok());
            match events.receive().await {
                Some(StoreEvent::Committed(report)) => {
                    digest += report.bytes_written;
                    backend.committed(report);
                }
                _ => panic!("the store failed"),
            }
        }
        digest
    })
}
