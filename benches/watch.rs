//! Telling watchers: one key with many watchers, each on a stream of its own; many keys with one watcher each; ranges.
//! Run with a count of watchers, tiny without: `cargo bench --bench watch -- 10000`.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use ringd::{
    base::{LeaseId, Revision},
    limits::Limits,
    mvcc::{Event, EventKind, Record},
    watch::{ResponseIdentity, StreamId, WatchHub, WatchLimits, WatchSpec},
};

fn hub() -> WatchHub {
    let identity = ResponseIdentity {
        cluster_id: u64::MAX / 3,
        member_id: u64::MAX / 5,
        raft_term: 7,
    };
    WatchHub::new(identity, WatchLimits::new(1_572_864, &Limits::DEFAULT), 1, -1, 1)
}

fn put(key: &Bytes, main: i64) -> Event {
    let record = Record {
        key,
        create_revision: 2,
        mod_revision: main,
        version: main - 1,
        value: &[7; 256],
        lease: LeaseId(0),
    };
    Event {
        kind: EventKind::Put,
        key: key.clone(),
        revision: Revision::new(main, 0),
        record: record.encode(),
        create_revision: 2,
        lease: LeaseId(0),
        previous: None,
    }
}

/// Takes what is ready and writes it where a connection would.
fn send(hub: &mut WatchHub, out: &mut BytesMut) -> (u64, u64) {
    let (mut events, mut bytes) = (0, 0);
    while let Some(stream) = hub.ready() {
        while let Some(response) = hub.pop(stream) {
            response.encode_to(hub.identity(), out);
            events += u64::from(response.events);
            bytes += out.len() as u64;
            out.clear();
        }
    }
    black_box(&out);
    (events, bytes)
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

fn run(what: &str, hub: &mut WatchHub, keys: &[Bytes], rounds: i64) -> u64 {
    let mut out = BytesMut::with_capacity(4096);
    send(hub, &mut out);
    let events: Vec<Event> = (0..rounds)
        .map(|round| put(&keys[round as usize % keys.len()], hub.revision() + 1 + round))
        .collect();
    let (mut told, mut bytes) = (0, 0);
    let begin = clock();
    for event in events.chunks(1) {
        hub.publish(event);
        let sent = send(hub, &mut out);
        told += sent.0;
        bytes += sent.1;
    }
    let nanoseconds = (clock() - begin) as f64;
    println!("{what:<44} {:9.1} ns for each event told", nanoseconds / told as f64);
    bytes
}

fn main() {
    let count: usize = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(100);
    let rounds = if count >= 1000 { 200 } else { 3 };
    let keys: Vec<Bytes> = (0..count)
        .map(|number| format!("/registry/pods/{number:08}").into())
        .collect();
    let open = |hub: &mut WatchHub| -> Vec<StreamId> { (0..count).map(|_| hub.open_stream()).collect() };
    let mut digest = 0;

    let mut one_key = hub();
    for stream in open(&mut one_key) {
        let key = keys[0].clone();
        one_key.create(
            stream,
            WatchSpec {
                key,
                ..WatchSpec::default()
            },
        );
    }
    digest += run("one key, a stream for each watcher", &mut one_key, &keys[..1], rounds);

    let mut one_stream = hub();
    let stream = one_stream.open_stream();
    for _ in 0..count.min(1000) {
        let key = keys[0].clone();
        one_stream.create(
            stream,
            WatchSpec {
                key,
                ..WatchSpec::default()
            },
        );
    }
    digest += run(
        "one key, one stream of 1,000 watchers",
        &mut one_stream,
        &keys[..1],
        rounds,
    );

    let mut many_keys = hub();
    for (stream, key) in open(&mut many_keys).into_iter().zip(&keys) {
        let key = key.clone();
        many_keys.create(
            stream,
            WatchSpec {
                key,
                ..WatchSpec::default()
            },
        );
    }
    digest += run("a key for each watcher", &mut many_keys, &keys, rounds * 100);

    let mut ranges = hub();
    for (stream, pair) in open(&mut ranges).into_iter().zip(keys.windows(2)) {
        let (key, range_end) = (pair[0].clone(), pair[1].clone());
        ranges.create(
            stream,
            WatchSpec {
                key,
                range_end,
                ..WatchSpec::default()
            },
        );
    }
    digest += run(
        "a range for each watcher",
        &mut ranges,
        &keys[..keys.len() - 1],
        rounds * 100,
    );
    println!("digest {digest}");
}
