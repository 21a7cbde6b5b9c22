//! The index and the store: time of each operation, and memory of each key. Run with a count of keys, tiny without:
//! `cargo bench --bench mvcc -- 1000000`.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    hint::black_box,
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use ringd::{
    base::{LeaseId, Revision},
    mvcc::{
        CompactionMarks, PreviousRecords, RangeQuery, Record, RecordKind, RecordSink, Records, Restore, Span, Store,
    },
};

/// Counts the bytes that are allocated, as the allocator rounds them.
struct Counted;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

fn rounded(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: everything is passed on to the system's allocator unchanged; the counter is a number on the side.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(rounded(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(rounded(layout), Ordering::Relaxed);
        // SAFETY: as above; `memory` came from `System.alloc` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTED: Counted = Counted;

/// A tree that forgets: only the index is measured.
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

fn key(number: u64) -> Vec<u8> {
    format!("/registry/pods/ns-{:03}/{:011}", number % 100, number).into_bytes()
}

fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count).collect();
    let mut state = 88_172_645_463_325_252u64;
    for index in (1..numbers.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(index, (state % (index as u64 + 1)) as usize);
    }
    numbers
}

/// Time on the processor so far, in nanoseconds, which other programs do not disturb; wall time where Linux does not say.
fn clock() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match stat.split(' ').next().and_then(|running| running.parse().ok()) {
        Some(running) => running,
        None => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64),
    }
}

fn report(what: &str, operations: u64, begin: u64) {
    let nanoseconds = (clock() - begin) as f64 / operations as f64;
    println!("{what:<44} {nanoseconds:9.1} ns each  {:8.2} M/s", 1e3 / nanoseconds);
}

fn put_all(store: &mut Store, keys: &[Vec<u8>], what: &str) {
    let mut tree = Forgetful;
    let begin = clock();
    for key in keys {
        let mut txn = store.begin(&mut tree, PreviousRecords::Skip);
        txn.put(key, b"value", LeaseId(0));
        black_box(txn.end());
    }
    report(what, keys.len() as u64, begin);
}

fn restore_all(records: &BTreeMap<Revision, Bytes>, what: &str) -> Store {
    let begin = clock();
    let mut restore = Restore::new(CompactionMarks::default());
    for (revision, record) in records {
        restore
            .feed(&revision.encode(), record)
            .expect("the bench's own records");
    }
    let store = restore.finish().store;
    report(what, records.len() as u64, begin);
    store
}

fn main() {
    let count: u64 = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(2_000);
    let ordered: Vec<Vec<u8>> = (0..count).map(key).collect();
    let random: Vec<Vec<u8>> = shuffled(count).into_iter().map(key).collect();
    let key_bytes: usize = ordered.iter().map(Vec::len).sum();
    println!("{count} keys of {} bytes", key_bytes / ordered.len());

    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut store = Store::new();
    put_all(&mut store, &random, "put, new keys in random order");
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    println!(
        "memory of each key, the key included: {:.1} bytes",
        bytes as f64 / count as f64
    );

    let begin = clock();
    for key in &random {
        black_box(store.latest(key).expect("put above"));
    }
    report("get", count, begin);

    let begin = clock();
    let mut total = 0;
    for pair in random.chunks_exact(2) {
        let (from, to) = (
            pair[0].clone().min(pair[1].clone()),
            pair[0].clone().max(pair[1].clone()),
        );
        total += store.count(Span::from_request(&from, &to));
    }
    report("count of a random span", count / 2, begin);

    let begin = clock();
    for key in &random {
        let query = RangeQuery {
            limit: 10,
            ..RangeQuery::new(Span::from_request(key, b"\0"))
        };
        let result = store.range(&Forgetful, &query).expect("the present can be read");
        total += result.items.len() as u64;
    }
    report("range of 10 keys with its count", count, begin);

    let begin = clock();
    let result = store
        .range(&Forgetful, &RangeQuery::new(Span::all()))
        .expect("the present can be read");
    report("range of all, each key", result.items.len() as u64, begin);

    put_all(&mut store, &random, "put, second revision of each key");
    let begin = clock();
    let mut compaction = store.compact(store.current_revision(), true).expect("first compaction");
    while !store.compact_slice(&mut compaction, 1000) {}
    report("compaction of the index, each key", count, begin);
    let begin = clock();
    black_box(compaction.into_physical());
    report("sorting what is kept, each key", count, begin);
    drop(store);

    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut store = Store::new();
    put_all(&mut store, &ordered, "put, new keys by number");
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    println!(
        "memory of each key, the key included: {:.1} bytes",
        bytes as f64 / count as f64
    );
    drop(store);

    for (keys, what) in [(&random, "restore, random order"), (&ordered, "restore, by number")] {
        let records: BTreeMap<Revision, Bytes> = keys
            .iter()
            .zip(2..)
            .map(|(key, main)| {
                let record = Record {
                    key,
                    create_revision: main,
                    mod_revision: main,
                    version: 1,
                    value: &[7; 256],
                    lease: LeaseId(0),
                };
                (Revision::new(main, 0), record.encode())
            })
            .collect();
        total += restore_all(&records, what).live_keys();
    }
    println!("digest {total}");
}
