//! Applying entries: time of each, from encoded entry to encoded answer, with the changes in a batch of the backend's as
//! they are between two commits. Times are of the processor. Run with a count of keys, tiny without: `cargo bench --bench apply -- 1000000`.

use std::{hint::black_box, ops::ControlFlow, time::Duration};

use bytes::Bytes;
use prost::Message;
use ringd::{
    apply::{EntryAt, State, StateConfig, Tree, restore_store},
    backend::{Batch, Bucket},
    base::{ClusterId, LeaseId, LogIndex, MemberId, Monotonic, Revision, Term},
    lease::{LessorConfig, Renewal},
    limits::BACKEND_BATCH_OPERATIONS_MAX,
    member::Membership,
    mvcc::{RecordKind, RecordSink, Records},
    wire::proto::etcdserverpb::{
        Compare, InternalRaftRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestHeader, RequestOp,
        TxnRequest,
        compare::{CompareTarget, TargetUnion},
        request_op::Request,
    },
};

/// The open batch, and nothing under it: what was committed is forgotten.
#[derive(Default)]
struct BatchTree {
    batch: Batch,
}

impl Records for BatchTree {
    fn record(&self, revision: Revision) -> Option<&[u8]> {
        self.batch
            .get(Bucket::Key, &revision.encode())?
            .map(|record| &record[..])
    }

    fn scan(&self, _from: Revision, _visit: &mut dyn FnMut(Revision, RecordKind, &[u8]) -> ControlFlow<()>) {}
}

impl RecordSink for BatchTree {
    fn put_record(&mut self, revision: Revision, kind: RecordKind, record: Bytes) {
        assert!(kind == RecordKind::Put);
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

/// Time that this thread has had a core for: other load on the machine does not count.
fn cpu_time() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanos = spent
        .split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .expect("a number");
    Duration::from_nanos(nanos)
}

struct Bench {
    state: State<BatchTree>,
    now: Monotonic,
    dice: u64,
}

impl Bench {
    fn new() -> Bench {
        let tree = BatchTree::default();
        let restored = restore_store(&tree).expect("an empty tree");
        let config = StateConfig {
            cluster_id: ClusterId(0xcdf8_1819_4e3a_8c32),
            member_id: MemberId(0x8e9e_05c5_2164_694d),
            quota_bytes: Some(1 << 31),
            answer_bytes_max: usize::MAX,
            learners_max: 1,
            lease: LessorConfig::default(),
            snapshot: EntryAt::default(),
            snapshot_members: Membership::default(),
        };
        Bench {
            state: State::open(tree, restored, config).expect("an empty tree"),
            now: Monotonic(1),
            dice: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as usize % sides
    }

    /// Applies entries, batch by batch; only the applying is timed.
    fn run(&mut self, name: &str, count: usize, mut request_of: impl FnMut(&mut Bench, usize) -> InternalRaftRequest) {
        let (mut took, mut digest) = (Duration::ZERO, 0_usize);
        for from in (0..count).step_by(BACKEND_BATCH_OPERATIONS_MAX) {
            let to = count.min(from + BACKEND_BATCH_OPERATIONS_MAX);
            let entries: Vec<Bytes> = (from..to)
                .map(|at| {
                    let header = Some(RequestHeader {
                        id: 0x694d_0000_0000_0000 + at as u64,
                        ..RequestHeader::default()
                    });
                    let request = request_of(self, at);
                    InternalRaftRequest { header, ..request }.encode_to_vec().into()
                })
                .collect();
            let begin = cpu_time();
            for entry in entries {
                let at = EntryAt {
                    index: LogIndex(self.state.applied().index.0 + 1),
                    term: Term(2),
                };
                let applied = self.state.apply(at, entry, self.now).expect("a sound entry");
                digest += black_box(&applied)
                    .answer
                    .as_ref()
                    .map_or(0, |answer| answer.as_ref().map_or(1, Bytes::len));
            }
            took += cpu_time() - begin;
            let meta = self.state.seal();
            black_box(meta);
            self.state.tree_mut().batch = Batch::new();
        }
        println!(
            "{name:32} {:8.0} ns each ({count}, digest {digest})",
            took.as_nanos() as f64 / count as f64
        );
    }
}

fn key(at: usize) -> Bytes {
    format!("/registry/pods/default/{at:012}").into()
}

fn put(at: usize, lease: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: key(at),
            value: vec![b'v'; 300].into(),
            lease,
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

fn main() {
    let keys: usize = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(100);
    let mut bench = Bench::new();
    bench.run("put, new key", keys, |_, at| put(at, 0));
    bench.run("put, existing key", keys, |bench, _| put(bench.roll(keys), 0));
    bench.run("txn: mod compare, put, range", keys / 2, |bench, _| {
        let at = bench.roll(keys);
        let modified = bench
            .state
            .store()
            .latest(&key(at))
            .map_or(0, |state| state.modified.main);
        InternalRaftRequest {
            txn: Some(TxnRequest {
                compare: vec![Compare {
                    target: CompareTarget::Mod as i32,
                    key: key(at),
                    target_union: Some(TargetUnion::ModRevision(modified)),
                    ..Compare::default()
                }],
                success: vec![RequestOp {
                    request: put(at, 0).put.map(Request::RequestPut),
                }],
                failure: vec![RequestOp {
                    request: Some(Request::RequestRange(RangeRequest {
                        key: key(at),
                        count_only: true,
                        ..RangeRequest::default()
                    })),
                }],
            }),
            ..InternalRaftRequest::default()
        }
    });
    let leases = keys;
    bench.run("lease grant", leases, |_, at| InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest {
            ttl: 60,
            id: at as i64 + 1,
        }),
        ..InternalRaftRequest::default()
    });
    bench.run("put with a lease", keys, |bench, at| {
        put(at, bench.roll(leases) as i64 + 1)
    });
    keepalives(&mut bench, leases);
}

fn keepalives(bench: &mut Bench, leases: usize) {
    let begin = cpu_time();
    bench.state.lessor_mut().promote(Duration::from_secs(1), Monotonic(1));
    println!(
        "{:32} {:8.0} ns each",
        "lease promotion",
        (cpu_time() - begin).as_nanos() as f64 / leases as f64
    );
    let ids: Vec<LeaseId> = (0..leases).map(|_| LeaseId(bench.roll(leases) as i64 + 1)).collect();
    let begin = cpu_time();
    for (at, id) in ids.iter().enumerate() {
        let now = Monotonic(2 + at as u64);
        assert!(matches!(
            bench.state.lessor_mut().renew(*id, now),
            Renewal::Renewed { ttl: 60 }
        ));
    }
    println!(
        "{:32} {:8.0} ns each",
        "lease renewal, first",
        (cpu_time() - begin).as_nanos() as f64 / leases as f64
    );
    let later = Monotonic(1) + Duration::from_secs(50);
    let begin = cpu_time();
    for id in &ids {
        black_box(bench.state.lessor_mut().renew(*id, later));
    }
    println!(
        "{:32} {:8.0} ns each",
        "lease renewal",
        (cpu_time() - begin).as_nanos() as f64 / leases as f64
    );
    let begin = cpu_time();
    let expired = bench
        .state
        .lessor_mut()
        .expired(Monotonic(1) + Duration::from_secs(100_000), usize::MAX);
    let each = (cpu_time() - begin).as_nanos() as f64 / leases as f64;
    println!("{:32} {each:8.0} ns each ({})", "lease expiry", expired.len());
    println!("{:32} {:8}", "entries in the queues", bench.state.lessor().queued());
}
