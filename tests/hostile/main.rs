//! Clients that mean harm, against a server process whose own memory (RssAnon) is watched while an honest client goes on
//! putting and reading. Each attack has a bound, which follows from the server's limits, and the honest client's latency is
//! printed. One attack at a time, each on a fresh server.

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod floods;
mod raw;
mod unread;

use std::{
    any::Any,
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ringd::wire::proto::etcdserverpb as pb;
use support::{
    client::Client,
    process::{Plain, Process, Program, on_this_thread},
    world::World,
};

/// An honest call may take so long at worst; the machine that runs the tests may be busy.
const HONEST_WORST: Duration = Duration::from_secs(10);
/// Half of the honest calls take at most this.
const HONEST_MEDIAN: Duration = Duration::from_millis(100);
/// How long an attack is held once it stands.
const HOLD: Duration = Duration::from_millis(700);
/// What the server may take for itself: its buffers, the log's, what the honest client's writes need.
const OWN_BYTES: u64 = 24 << 20;

pub const MIB: u64 = 1 << 20;

/// What an attack leaves behind: connections that stay open while the server is watched.
pub type Held = Box<dyn Any>;

/// The server's own memory in bytes.
fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("RssAnon in kB") * 1024
}

/// The longest and the middle one of the honest client's calls.
struct Honest {
    calls: usize,
    median: Duration,
    worst: Duration,
}

fn honest(address: SocketAddr, is_over: &AtomicBool) -> Honest {
    let mut taken = on_this_thread(async {
        let world: std::rc::Rc<dyn World> = std::rc::Rc::new(Plain { address });
        let client = Client::connect(&world).await;
        let mut taken = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let revision = client.put("honest", "1").await.header.expect("a header").revision;
            let found = client.get("honest").await;
            assert_eq!(
                found.kvs[0].mod_revision, revision,
                "the honest client reads its own write"
            );
            taken.push(began.elapsed() / 2);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        taken
    });
    taken.sort();
    Honest {
        calls: 2 * taken.len(),
        median: taken[taken.len() / 2],
        worst: *taken.last().expect("honest calls"),
    }
}

/// Runs an attack on a fresh server. Memory may grow by `bound` bytes beyond [`OWN_BYTES`].
pub fn withstand<F: Future<Output = Held>>(name: &str, bound: u64, attack: impl FnOnce(SocketAddr) -> F) {
    withstand_with(name, bound, &[], attack);
}

/// The same with flags for the server.
pub fn withstand_with<F: Future<Output = Held>>(
    name: &str,
    bound: u64,
    flags: &[&str],
    attack: impl FnOnce(SocketAddr) -> F,
) {
    // One after the other: they would wait for each other's processors.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut process = Process::start(Program::Ringd, flags);
    let (address, pid) = (process.address(), process.pid().expect("it runs"));
    let before = anonymous_bytes(pid);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let client = thread::spawn(move || honest(address, &over));
    let over = is_over.clone();
    let watcher = thread::spawn(move || {
        let mut peak = before;
        while !over.load(Ordering::Relaxed) {
            peak = peak.max(anonymous_bytes(pid));
            thread::sleep(Duration::from_millis(5));
        }
        peak
    });
    on_this_thread(async {
        let held = attack(address).await;
        tokio::time::sleep(HOLD).await;
        drop(held);
    });
    is_over.store(true, Ordering::Relaxed);
    let peak = watcher.join().expect("the watcher");
    let honest = client
        .join()
        .unwrap_or_else(|_| panic!("{name}: the honest client was not served\n{}", process.log_tail()));
    let grown = peak - before;
    println!(
        "{name}: grew by {:.1} MiB of {} allowed (from {:.1}); {} honest calls, median {:.1?}, worst {:.1?}",
        grown as f64 / MIB as f64,
        (bound + OWN_BYTES) / MIB,
        before as f64 / MIB as f64,
        honest.calls,
        honest.median,
        honest.worst
    );
    assert!(
        process.exited().is_none(),
        "{name}: the server ended\n{}",
        process.log_tail()
    );
    assert!(grown <= bound + OWN_BYTES, "{name}: {} MiB more", grown / MIB);
    assert!(
        honest.worst <= HONEST_WORST,
        "{name}: an honest call took {:?}",
        honest.worst
    );
    assert!(
        honest.median <= HONEST_MEDIAN,
        "{name}: half of the honest calls took over {:?}",
        honest.median
    );
}

/// A gRPC client on the attacker's side.
pub async fn client(address: SocketAddr) -> Client {
    let world: std::rc::Rc<dyn World> = std::rc::Rc::new(Plain { address });
    Client::connect(&world).await
}

/// Fills the store with `count` records of `bytes` bytes under `big/`.
pub async fn fill(client: &Client, count: usize, bytes: usize) {
    for index in 0..count {
        client.put(format!("big/{index:05}"), vec![b'x'; bytes]).await;
    }
}

/// A request for all of them.
pub fn all_of_it() -> pb::RangeRequest {
    pb::RangeRequest {
        key: "big/".into(),
        range_end: "big0".into(),
        serializable: true,
        ..Default::default()
    }
}
