//! Tests of the simulated host as a whole: what is promised to programs, and that a seed replays.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    time::Duration,
};

mod net;

use super::*;
use crate::{
    host::{Disk, File, Host, Listener, Map, Net, Notify, OpenMode, Stream, mailbox},
    node::{AcceptConfig, Stop, serve},
};

const LOG: &str = "/data/log";

async fn read_some(stream: &mut SimStream, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|context| stream.poll_read(context, buffer)).await
}

async fn read_exact(stream: &mut SimStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(stream, &mut buffer[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

async fn write_all(stream: &mut SimStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|context| stream.poll_write(context, bytes)).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}

async fn echo(mut stream: SimStream) {
    let mut buffer = [0; 1000];
    while let Ok(count @ 1..) = read_some(&mut stream, &mut buffer).await {
        if write_all(&mut stream, &buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn start_echo(host: &SimHost, address: &str) -> SocketAddr {
    let listener = host.net().listen(address.parse().unwrap()).unwrap();
    let address = listener.local_address().unwrap();
    let server = host.clone();
    host.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            server.spawn(echo(stream));
        }
    });
    address
}

/// A file of `blocks` durable blocks of ones, under a durable name.
async fn durable_file(host: &SimHost, blocks: usize) -> SimFile {
    let disk = host.disk();
    disk.create_directory(Path::new("/data")).await.unwrap();
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).await.unwrap();
    file.write_bytes_at(0, &vec![1; blocks * 4096]).await.unwrap();
    file.sync_data().await.unwrap();
    disk.sync_directory(Path::new("/data")).await.unwrap();
    disk.sync_directory(Path::new("/")).await.unwrap();
    disk.open(Path::new(LOG), OpenMode::DirectDurable).await.unwrap()
}

async fn write_block(file: &SimFile, offset: u64, byte: u8) -> io::Result<()> {
    let mut buffer = file.buffer(4096);
    buffer.as_mut().fill(byte);
    file.write_at(offset, buffer).await.0
}

fn content(sim: &Sim, host: &SimHost) -> Vec<u8> {
    sim.run_until(async { host.disk().read_file(Path::new(LOG)).await })
        .unwrap()
}

/// Some of everything, with everything going wrong now and then.
fn busy_run(seed: u64) -> (u64, u64) {
    let sim = Sim::new(seed);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let address = start_echo(&server, "10.0.0.1:2379");
    sim.set_faults(
        &client,
        Faults {
            net: NetFaults {
                accept_error: 0.02,
                reset: 0.01,
                delay: 0.1,
                delay_for: Duration::from_millis(3),
                short_read: 0.3,
                short_write: 0.3,
                // Nobody here gives up by itself.
                half_open: 0.0,
            },
            ..Faults::default()
        },
    );
    sim.set_faults(
        &server,
        Faults {
            disk: DiskFaults {
                write_error: 0.05,
                write_lost: 0.05,
                write_misdirected: 0.05,
                sync_error: 0.05,
                read_flip: 0.1,
                read_error: 0.1,
                stall: 0.1,
                stall_for: Duration::from_millis(5),
                ..DiskFaults::default()
            },
            ..Faults::default()
        },
    );
    let writer = server.clone();
    server.spawn(async move {
        let file = durable_file_loosely(&writer).await;
        for round in 0..100u64 {
            let _ = write_block(&file, round % 7 * 4096, writer.random_u64() as u8).await;
            let _ = file.read_at(0, 8192).await;
            let _ = file.sync_data().await;
            writer
                .sleep_until(writer.now() + Duration::from_micros(writer.random_u64() % 500))
                .await;
        }
    });
    let echoed = sim.run_until(async {
        let mut echoed = 0;
        for round in 0..200u32 {
            let Ok(mut stream) = client.net().connect(address).await else {
                continue;
            };
            let message = vec![round as u8; 1 + round as usize * 7];
            let mut answer = vec![0; message.len()];
            if write_all(&mut stream, &message).await.is_ok() && read_exact(&mut stream, &mut answer).await.is_ok() {
                assert_eq!(answer, message);
                echoed += 1;
            }
        }
        echoed
    });
    sim.crash(&server);
    let server = sim.restart(&server);
    let left = sim.run_until(async { server.disk().read_file(Path::new(LOG)).await });
    let digest = left.map_or(0, |bytes| world::digest(&bytes));
    (sim.trace_hash(), echoed ^ digest)
}

async fn durable_file_loosely(host: &SimHost) -> SimFile {
    let disk = host.disk();
    disk.create_directory(Path::new("/data")).await.unwrap();
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).await.unwrap();
    let _ = file.allocate(64 * 1024).await;
    disk.open(Path::new(LOG), OpenMode::DirectDurable).await.unwrap()
}

#[test]
fn one_seed_gives_one_trace_and_other_seeds_others() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let first = busy_run(seed);
        assert_eq!(first, busy_run(seed), "seed {seed}");
        traces.insert(first);
    }
    assert_eq!(traces.len(), 20);
}

#[test]
fn time_passes_only_as_things_take_it_and_order_is_drawn() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let host = sim.host("a");
        let order = Rc::new(RefCell::new(Vec::new()));
        for name in ["x", "y", "z"] {
            let order = Rc::clone(&order);
            host.spawn(async move { order.borrow_mut().push(name) });
        }
        let slept = sim.run_until(async {
            let start = host.now();
            host.sleep_until(start + Duration::from_secs(3600)).await;
            host.now().since(start)
        });
        assert!(slept >= Duration::from_secs(3600) && slept < Duration::from_secs(3601));
        orders.insert(order.take());
    }
    assert!(orders.len() > 3, "{orders:?}");
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wait_for_what_never_comes_is_a_deadlock() {
    let sim = Sim::new(1);
    sim.run_until(async { Notify::new().notified().await });
}

#[test]
fn a_run_may_be_bounded_in_time() {
    let sim = Sim::new(1);
    let host = sim.host("a");
    let sleep = host.sleep_until(host.now() + Duration::from_secs(10));
    assert!(sim.run_until_or_for(sleep, Duration::from_secs(1)).is_none());
    assert!(sim.now().0 < 2_000_000_000);
    sim.run_for(Duration::from_secs(5));
    assert!(sim.now().0 >= 6_000_000_000 && sim.now().0 < 6_100_000_000);
}

#[test]
fn durable_writes_survive_and_others_are_old_or_new_by_sector() {
    let (mut is_old, mut is_new, mut is_mixed) = (false, false, false);
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let host = sim.host("a");
        sim.run_until(async {
            let file = durable_file(&host, 4).await;
            write_block(&file, 0, 2).await.unwrap();
            let loose = host.disk().open(Path::new(LOG), OpenMode::Direct).await.unwrap();
            write_block(&loose, 8192, 3).await.unwrap();
        });
        sim.crash(&host);
        let host = sim.restart(&host);
        let bytes = content(&sim, &host);
        assert_eq!(bytes.len(), 4 * 4096);
        assert!(bytes[..4096].iter().all(|&byte| byte == 2));
        assert!(bytes[4096..8192].iter().all(|&byte| byte == 1));
        let new = bytes[8192..12288]
            .chunks(512)
            .filter(|sector| *sector == [3; 512])
            .count();
        let old = bytes[8192..12288]
            .chunks(512)
            .filter(|sector| *sector == [1; 512])
            .count();
        assert_eq!(new + old, 8);
        is_old |= new == 0;
        is_new |= old == 0;
        is_mixed |= new > 0 && old > 0;
    }
    assert!(is_old && is_new && is_mixed);
}

#[test]
fn a_write_under_way_may_be_torn_by_a_crash_and_never_ends_on_the_dead_machine() {
    let mut torn = 0;
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let host = sim.host("a");
        let file = Rc::new(sim.run_until(durable_file(&host, 1)));
        let is_done = Rc::new(Cell::new(false));
        let (writer, done) = (Rc::clone(&file), Rc::clone(&is_done));
        host.spawn(async move {
            write_block(&writer, 0, 2).await.unwrap();
            done.set(true);
        });
        sim.run_for(Duration::from_micros(20));
        sim.crash(&host);
        assert!(
            sim.run_until_or_for(write_block(&file, 0, 3), Duration::from_secs(1))
                .is_none()
        );
        assert!(!is_done.get());
        let host = sim.restart(&host);
        let bytes = content(&sim, &host);
        assert!(bytes.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
        torn += usize::from(bytes.contains(&1) && bytes.contains(&2));
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn a_dropped_write_is_finished_and_a_killed_process_leaves_its_writes() {
    let sim = Sim::new(4);
    let host = sim.host("a");
    sim.run_until(async {
        let file = durable_file(&host, 2).await;
        let mut write = Box::pin(write_block(&file, 0, 2));
        assert!(futures_lite::future::poll_once(&mut write).await.is_none());
        drop(write);
        let loose = host.disk().open(Path::new(LOG), OpenMode::Write).await.unwrap();
        loose.write_bytes_at(4096, &[3; 4096]).await.unwrap();
        let mut last = Box::pin(loose.write_bytes_at(5000, &[4; 10]));
        assert!(futures_lite::future::poll_once(&mut last).await.is_none());
    });
    sim.kill(&host);
    let host = sim.restart(&host);
    sim.run_for(Duration::from_millis(10));
    let bytes = content(&sim, &host);
    assert!(bytes[..4096].iter().all(|&byte| byte == 2));
    assert_eq!((bytes[4096], bytes[5000], bytes[5010]), (3, 4, 3));
}

#[test]
fn locks_keep_other_open_files_out_until_they_are_closed_or_the_machine_crashes() {
    let sim = Sim::new(5);
    let host = sim.host("a");
    let (first, second) = sim.run_until(async {
        let first = durable_file(&host, 1).await;
        let second = host.disk().open(Path::new(LOG), OpenMode::Write).await.unwrap();
        (first, second)
    });
    first.try_lock().unwrap();
    first.try_lock().unwrap();
    assert_eq!(second.try_lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(first);
    second.try_lock().unwrap();
    sim.crash(&host);
    let host = sim.restart(&host);
    let third = sim
        .run_until(async { host.disk().open(Path::new(LOG), OpenMode::Write).await })
        .unwrap();
    third.try_lock().unwrap();
    drop(second);
    assert!(third.try_lock().is_ok());
}

#[test]
fn a_killed_process_holds_its_locks_until_all_that_it_began_has_ended() {
    let sim = Sim::new(5);
    let host = sim.host("a");
    let (locked, other) = sim.run_until(async {
        let locked = durable_file(&host, 1).await;
        let other = host
            .disk()
            .open(Path::new("/other"), OpenMode::CreateNew)
            .await
            .unwrap();
        (locked, other)
    });
    locked.try_lock().unwrap();
    let mut faults = sim.faults(&host);
    (faults.disk.stall, faults.disk.stall_for) = (1.0, Duration::from_secs(2));
    sim.set_faults(&host, faults);
    host.spawn(async move {
        let _locked = locked;
        other.write_bytes_at(0, b"late").await.unwrap();
    });
    sim.run_for(Duration::from_millis(1));
    sim.set_faults(&host, Faults::default());
    sim.kill(&host);
    let host = sim.restart(&host);
    let next = sim
        .run_until(async { host.disk().open(Path::new(LOG), OpenMode::Write).await })
        .unwrap();
    assert_eq!(next.try_lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    sim.run_for(Duration::from_millis(2_100));
    next.try_lock().unwrap();
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwriting() {
    let sim = Sim::new(6);
    let host = sim.host("a");
    sim.run_until(async {
        let file = durable_file(&host, 2).await;
        let mut faults = sim.faults(&host);
        faults.disk.capacity_bytes = Some(3 * 4096);
        sim.set_faults(&host, faults);
        write_block(&file, 8192, 2).await.unwrap();
        let error = write_block(&file, 3 * 4096, 2).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(
            file.allocate(1 << 20).await.unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
        write_block(&file, 0, 2).await.unwrap();
        file.truncate(4096).await.unwrap();
        write_block(&file, 4096, 2).await.unwrap();
    });
}

#[test]
fn injected_errors_are_reported() {
    let sim = Sim::new(7);
    let host = sim.host("a");
    sim.run_until(async {
        let file = durable_file(&host, 1).await;
        let disk = DiskFaults {
            write_error: 1.0,
            read_error: 1.0,
            sync_error: 1.0,
            ..DiskFaults::default()
        };
        sim.set_faults(
            &host,
            Faults {
                disk,
                ..Faults::default()
            },
        );
        assert_eq!(
            write_block(&file, 0, 2).await.unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
        assert_eq!(file.read_at(0, 4096).await.unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(file.sync_data().await.unwrap_err().raw_os_error(), Some(libc::EIO));
        let error = host.disk().sync_directory(Path::new("/data")).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        sim.set_faults(&host, Faults::default());
        write_block(&file, 0, 5).await.unwrap();
        sim.flip(&host, Path::new(LOG), 100, 0x80).unwrap();
        assert_eq!(file.read_at(0, 4096).await.unwrap()[99..102], [5, 0x85, 5]);
    });
}

#[test]
fn maps_see_later_writes_of_any_open_file() {
    let sim = Sim::new(8);
    let host = sim.host("a");
    sim.run_until(async {
        let file = durable_file(&host, 2).await;
        let map = file.map(1 << 30).unwrap();
        let root = map.bytes(0, 4096);
        write_block(&file, 4096, 9).await.unwrap();
        write_block(&file, 1 << 20, 8).await.unwrap();
        assert_eq!((root[0], map.bytes(4096, 1)[0], map.bytes(1 << 20, 1)[0]), (1, 9, 8));
        assert_eq!(map.capacity(), 1 << 30);
    });
}

#[test]
fn clocks_drift_jump_and_pause() {
    let sim = Sim::new(16);
    let (fast, slow) = (sim.host("fast"), sim.host("slow"));
    sim.set_clock(
        &fast,
        Clock {
            drift_ppm: 100_000,
            wall_offset_nanos: 0,
        },
    );
    sim.set_clock(
        &slow,
        Clock {
            drift_ppm: -100_000,
            wall_offset_nanos: 0,
        },
    );
    sim.run_for(Duration::from_secs(10));
    let second = 1_000_000_000;
    assert!((fast.now().0 / second, slow.now().0 / second) == (11, 9) || slow.now().0 / second == 9);
    let before = (fast.now(), fast.wall_time());
    sim.set_clock(
        &fast,
        Clock {
            drift_ppm: 0,
            wall_offset_nanos: -5_000_000_000,
        },
    );
    assert!(fast.now() == before.0, "the monotonic clock does not jump");
    assert_eq!(before.1.0 - fast.wall_time().0, 5 * second);
    sim.run_until(fast.sleep_until(fast.now() + Duration::from_secs(1)));

    let ticks = Rc::new(Cell::new(0));
    let (ticker, counted) = (slow.clone(), Rc::clone(&ticks));
    slow.spawn(async move {
        loop {
            ticker.sleep_until(ticker.now() + Duration::from_millis(100)).await;
            counted.set(counted.get() + 1);
        }
    });
    sim.run_for(Duration::from_secs(1));
    assert!(ticks.get() >= 8);
    sim.pause(&slow);
    let before = ticks.get();
    sim.run_for(Duration::from_secs(10));
    assert_eq!(ticks.get(), before);
    sim.resume(&slow);
    sim.run_for(Duration::from_secs(1));
    assert!(ticks.get() > before);
}

#[test]
fn a_crash_ends_tasks_and_their_handles() {
    let sim = Sim::new(17);
    let host = sim.host("a");
    let witness = Rc::new(());
    let held = Rc::clone(&witness);
    let sleeper = host.clone();
    host.spawn(async move {
        let _held = held;
        sleeper.sleep_until(Monotonic(u64::MAX)).await;
    });
    sim.run_for(Duration::from_millis(1));
    assert_eq!(Rc::strong_count(&witness), 2);
    sim.crash(&host);
    assert_eq!(Rc::strong_count(&witness), 1);
    assert!(!host.is_alive());
    let held = Rc::clone(&witness);
    host.spawn(async move { drop(held) });
    assert_eq!(Rc::strong_count(&witness), 1, "nothing runs on a dead machine");
    assert!(sim.restart(&host).is_alive());
}
