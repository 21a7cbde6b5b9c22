//! Flags whose effect is on the machine rather than on answers, seen from outside a running server.

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    rc::Rc,
    time::{Duration, Instant},
};

use ringd::wire::proto::etcdserverpb as pb;
use support::{
    client::Client,
    http1,
    process::{Plain, Process, Program, on_this_thread},
    world::World,
};

async fn client(process: &Process) -> Client {
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    Client::connect(&world).await
}

/// A metric without labels, or with those that the name says; 0 while it is not shown.
async fn metric(world: &Rc<dyn World>, name: &str) -> f64 {
    let body = http1::get(world, "/metrics").await.body;
    let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn snapshot_files_batches_and_broken_streams_are_counted() {
    const BROKEN: &str = "etcd_network_server_stream_failures_total{API=\"watch\",Type=\"receive\"}";
    const COUNTED: [&str; 4] = [
        "etcd_debugging_snap_save_marshalling_duration_seconds_count",
        "etcd_snap_fsync_duration_seconds_count",
        "etcd_debugging_snap_save_total_duration_seconds_count",
        "ringd_wal_batch_wait_microseconds_count",
    ];
    let process = Process::start(Program::Ringd, &["--snapshot-count=50"]);
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    on_this_thread(async {
        let client = client(&process).await;
        for _ in 0..120 {
            client.put("key", "value").await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        for name in COUNTED {
            assert!(metric(&world, name).await > 0.0, "{name}");
        }
        assert_eq!(metric(&world, BROKEN).await, 0.0);
        let mut stream = client.stream("/etcdserverpb.Watch/Watch").await;
        stream.send_bytes(bytes::Bytes::from_static(b"\0\0\0\0\x03\xff\xff\xff"), false);
        let ended = stream.next::<pb::WatchResponse>().await;
        ended.expect_err("no such message");
        assert_eq!(metric(&world, BROKEN).await, 1.0);
    });
}

/// How often a thread of the process has gone to sleep.
fn sleeps_of(process: &Process, thread: &str) -> u64 {
    let tasks = format!("/proc/{}/task", process.pid().expect("it runs"));
    let mut statuses = fs::read_dir(tasks).expect("its threads").filter_map(|task| {
        let directory = task.expect("a thread").path();
        let name = fs::read_to_string(directory.join("comm")).ok()?;
        let status = fs::read_to_string(directory.join("status")).ok()?;
        (name.trim() == thread).then_some(status)
    });
    let status = statuses.next().unwrap_or_else(|| panic!("a thread {thread}"));
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).expect("a count")
}

#[test]
fn fronts_take_connections_and_a_scrape_adds_up_what_all_cores_counted() {
    const PUTS: &str = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) {
        return println!("skipped: there is one core");
    }
    let process = Process::start(Program::Ringd, &["--fronts=1", "--home-connections=1"]);
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    on_this_thread(async {
        // The connection with which the start was awaited may be home's a moment longer.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let at_home = client(&process).await;
        at_home.put("first", "1").await;
        let idle = sleeps_of(&process, "front-0");
        let elsewhere = client(&process).await;
        for number in 0..50 {
            elsewhere.put("key", number.to_string()).await;
        }
        let slept = sleeps_of(&process, "front-0") - idle;
        assert!(
            slept >= 25,
            "a core that serves 50 puts one by one has slept {slept} times between them"
        );
        for number in 0..50 {
            at_home.put("key", number.to_string()).await;
        }
        assert_eq!(elsewhere.get("key").await.kvs[0].value, "49");
        // A core's counts are a second old at most, its own in its own scrapes.
        let deadline = Instant::now() + Duration::from_secs(20);
        while metric(&world, PUTS).await != 101.0 {
            assert!(Instant::now() < deadline, "{} puts counted", metric(&world, PUTS).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// A line of the process's status, in KiB.
fn status_kib(process: &Process, name: &str) -> u64 {
    let path = format!("/proc/{}/status", process.pid().expect("it runs"));
    let status = fs::read_to_string(path).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// Memory that is locked once the database has grown to some megabytes.
fn locked_kib(flags: &[&str]) -> u64 {
    let process = Process::start(Program::Ringd, flags);
    on_this_thread(async {
        let client = client(&process).await;
        for index in 0..100 {
            client.put(format!("{index}"), vec![b'x'; 64 << 10]).await;
        }
        // The commit that brings them into the file, and the next.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.put("last", "1").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    status_kib(&process, "VmLck:")
}

#[test]
fn memory_mlock_locks_the_database() {
    let without = locked_kib(&[]);
    let with = locked_kib(&["--memory-mlock"]);
    println!("VmLck of a database of 6.5 MiB: {without} KiB without --memory-mlock, {with} KiB with it");
    assert!(
        with >= without + (6 << 10),
        "{with} KiB locked, {without} without the flag"
    );
}

/// How long a compaction of 3,000 records takes until they are gone.
fn compaction_takes(flags: &[&str]) -> Duration {
    let process = Process::start(Program::Ringd, flags);
    on_this_thread(async {
        let client = client(&process).await;
        let mut revision = 0;
        for _ in 0..30 {
            let success = (0..100)
                .map(|index| support::calls::put_op(format!("{index:03}"), "x"))
                .collect();
            let txn = pb::TxnRequest {
                success,
                ..Default::default()
            };
            revision = client
                .try_txn(txn)
                .await
                .expect("puts")
                .header
                .expect("a header")
                .revision;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        client.try_compact(request).await.expect("a compaction");
        began.elapsed()
    })
}

#[test]
fn compaction_keeps_the_pace_that_it_is_given() {
    // 30 slices, with 29 pauses between them.
    let slow = compaction_takes(&["--compaction-batch-limit=100", "--compaction-sleep-interval=50ms"]);
    let quick = compaction_takes(&["--compaction-batch-limit=10000", "--compaction-sleep-interval=50ms"]);
    println!("3,000 records compacted by slices of 100: {slow:.2?}; in one: {quick:.2?}");
    assert!(slow >= Duration::from_millis(29 * 50), "{slow:?}");
    assert!(quick < slow / 2, "{quick:?} against {slow:?}");
}
