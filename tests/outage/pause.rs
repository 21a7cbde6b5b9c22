//! A process that is stopped and goes on: a laptop's lid, a debugger, a hypervisor that migrates. Its clock goes on meanwhile.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb as pb;

use crate::support::{
    calls::{one, put},
    client::Client,
    process::{Plain, Process, Program, on_this_thread},
    signals,
    world::World,
};

const WRITERS: usize = 8;
/// Stops, and how long each is: shorter and longer than the short lease's time.
const STOPS: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(1_500),
    Duration::from_millis(3_500),
];
const SHORT_SECONDS: i64 = 2;
const LONG_SECONDS: i64 = 30;
const PATIENCE: Duration = Duration::from_secs(60);
/// What clocks and the machine's load may make of the end of a lease.
const TOLERANCE: Duration = Duration::from_millis(50);

/// A server gives up on a put after some seconds (etcd: 7). Stops are shorter, but the machine may be busy.
const GIVES_UP_AFTER: Duration = Duration::from_secs(5);

/// What was acknowledged, the last value of each key; `None` for keys of which nobody knows.
type Acknowledged = Rc<RefCell<BTreeMap<Bytes, Option<(Bytes, i64)>>>>;

pub fn run(program: Program) -> String {
    let mut process = Process::start(program, &[]);
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    let pid = process.pid().expect("it runs");
    let (puts, events) = on_this_thread(scene(world, pid));
    // What is acknowledged by a process that was stopped is as durable as ever.
    process.kill();
    process.start_again();
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    let puts = puts.borrow().clone();
    let count = puts.len();
    on_this_thread(async {
        let client = Client::connect(&world).await;
        for (key, known) in &puts {
            let Some((value, revision)) = known else { continue };
            let found = client.range(one(key.clone())).await;
            let found = found.kvs.first().expect("an acknowledged key is there");
            assert_eq!((&found.value, found.mod_revision), (value, *revision), "{key:?}");
        }
    });
    format!("{count} keys, {events} events told, {} stops", STOPS.len())
}

async fn scene(world: Rc<dyn World>, pid: u32) -> (Acknowledged, usize) {
    let acknowledged = Acknowledged::default();
    let is_over = Rc::new(std::cell::Cell::new(false));
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let client = Client::connect(&world).await;
        let (acknowledged, is_over) = (acknowledged.clone(), is_over.clone());
        writers.push(tokio::task::spawn_local(async move {
            let mut count = 0;
            while !is_over.get() {
                count += 1;
                let key = Bytes::from(format!("load/{number}/{}", count % 20));
                let value = Bytes::from(format!("{number}-{count}"));
                let asked = Instant::now();
                let answer = client
                    .with_deadline(PATIENCE)
                    .try_put(put(key.clone(), value.clone()))
                    .await;
                let known = match answer {
                    Ok(answer) => Some((value, answer.header.expect("a header").revision)),
                    Err(status) if asked.elapsed() > GIVES_UP_AFTER => {
                        println!("outage: {}", status.message);
                        None
                    }
                    Err(status) => panic!("a put failed after {:?}: {status:?}", asked.elapsed()),
                };
                let mut acknowledged = acknowledged.borrow_mut();
                if acknowledged.get(&key) != Some(&None) {
                    acknowledged.insert(key, known);
                }
            }
        }));
    }
    let watcher = Client::connect(&world).await;
    let watched = tokio::task::spawn_local(watch(watcher, is_over.clone(), acknowledged.clone()));
    let client = Client::connect(&world).await;
    for (number, stop) in STOPS.into_iter().enumerate() {
        leases(&client, pid, number as i64, stop).await;
    }
    is_over.set(true);
    for writer in writers {
        writer.await.expect("a writer ends in peace");
    }
    // The last event of all: the watcher ends with it.
    let last = client.put("load/last", "").await;
    let revision = last.header.expect("a header").revision;
    let last = (Bytes::from_static(b"load/last"), Some((Bytes::new(), revision)));
    acknowledged.borrow_mut().extend([last]);
    let events = tokio::time::timeout(3 * PATIENCE, watched).await;
    (
        acknowledged,
        events
            .expect("events are told in time")
            .expect("the watcher ends in peace"),
    )
}

/// Grants two leases, renews one right before the process is stopped, and asks for a renewal while it is.
async fn leases(client: &Client, pid: u32, number: i64, stop: Duration) {
    let (short, long) = (1_000 + number, 2_000 + number);
    let granted = Instant::now();
    client.grant(short, SHORT_SECONDS).await;
    client.grant(long, LONG_SECONDS).await;
    let key = |lease: i64| Bytes::from(format!("leased/{lease}"));
    for lease in [short, long] {
        let request = pb::PutRequest {
            lease,
            ..put(key(lease), "")
        };
        client.try_put(request).await.expect("a put with a lease");
    }
    let mut stream = client.keep_alive().await;
    stream.send(&pb::LeaseKeepAliveRequest { id: short });
    let asked = Instant::now();
    let renewed: pb::LeaseKeepAliveResponse = stream.expect_next().await;
    assert_eq!(renewed.ttl, SHORT_SECONDS);
    signals::pause(pid, true);
    tokio::time::sleep(stop / 2).await;
    stream.send(&pb::LeaseKeepAliveRequest { id: short });
    tokio::time::sleep(stop / 2).await;
    signals::pause(pid, false);
    let late: pb::LeaseKeepAliveResponse = stream.expect_next().await;
    // A renewal that is answered counts from no earlier than its question; one that came too late says so.
    let alive_until = match late.ttl {
        0 => asked + Duration::from_secs(SHORT_SECONDS as u64),
        _ => asked + stop / 2 + Duration::from_secs(SHORT_SECONDS as u64),
    };
    assert!(
        late.ttl > 0 || stop > Duration::from_secs(1),
        "a lease ended early: {stop:?}"
    );
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let found = client.range(one(key(short))).await.count;
        // Later than the answer was true: the machine may have been busy.
        let now = Instant::now();
        if found == 0 {
            assert!(now + TOLERANCE >= alive_until, "{:?} early", alive_until - now);
            break;
        }
        assert!(now < deadline, "a lease of {SHORT_SECONDS} s did not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let is_there = client.range(one(key(long))).await.count == 1;
    let is_over = granted.elapsed() > Duration::from_secs(LONG_SECONDS as u64);
    assert!(is_there || is_over, "a long lease ended early");
    if is_there {
        // It may end by itself in this very moment.
        _ = client.try_revoke(pb::LeaseRevokeRequest { id: long }).await;
    }
}

/// Follows the load from its first change on; each change once, in order, until the last one.
async fn watch(client: Client, is_over: Rc<std::cell::Cell<bool>>, acknowledged: Acknowledged) -> usize {
    let mut stream = client.watch().await;
    stream.create(pb::WatchCreateRequest {
        key: Bytes::from_static(b"load/"),
        range_end: Bytes::from_static(b"load0"),
        start_revision: 1,
        ..Default::default()
    });
    let (mut told, mut newest) = (BTreeMap::new(), 0);
    let mut count = 0;
    loop {
        let response: pb::WatchResponse = stream.expect_next().await;
        assert!(!response.canceled, "{response:?}");
        for event in response.events {
            let record = event.kv.expect("an event has its record");
            assert!(record.mod_revision > newest, "{} after {newest}", record.mod_revision);
            newest = record.mod_revision;
            count += 1;
            told.insert(record.key, Some((record.value, record.mod_revision)));
        }
        if told.contains_key(&b"load/last"[..]) {
            assert!(is_over.get());
            break;
        }
    }
    // The answer to the last put may be on its way yet.
    while !acknowledged.borrow().contains_key(&b"load/last"[..]) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (key, known) in acknowledged.borrow().iter().filter(|(_, known)| known.is_some()) {
        assert_eq!(
            told.get(key),
            Some(known),
            "watchers are told what was acknowledged of {key:?}"
        );
    }
    count
}
