//! Servers killed under load. Writers note what was acknowledged and what is unknown; after each restart the whole history
//! is read back and must be exactly what they noted, each unknown write either there or not.
//!
//! A few rounds by default; `RINGD_SLOW=1` runs 200, `RINGD_CRASH_ROUNDS` says how many, `RINGD_CRASH_SEED` repeats the
//! choices of a run (the machine's timing is not repeated).

#[path = "../support/mod.rs"]
mod support;

mod check;
mod load;
mod model;

use std::{
    env, fs,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use model::{Model, Random};
use support::{
    client::Client,
    process::{Plain, Process, Program, on_this_thread},
    world::{Stop, World},
};

#[test]
fn ringd_keeps_what_it_acknowledged() {
    crash(Program::Ringd, &["--snapshot-count=300"]);
}

#[test]
fn etcd_keeps_what_it_acknowledged() {
    if Program::Etcd.path().is_none() {
        println!("skipped: ETCD_BIN does not name a real etcd");
        return;
    }
    crash(Program::Etcd, &["--snapshot-count=300"]);
}

#[test]
fn old_files_go_when_ringd_starts() {
    purge(Program::Ringd);
}

#[test]
fn old_files_go_when_etcd_starts() {
    if Program::Etcd.path().is_none() {
        println!("skipped: ETCD_BIN does not name a real etcd");
        return;
    }
    purge(Program::Etcd);
}

/// A server that never lives for the half minute between two purges must not keep all that it ever wrote.
fn purge(program: Program) {
    let mut process = Process::start(program, &["--snapshot-count=20", "--max-snapshots=2"]);
    let address = process.address();
    on_this_thread(async {
        let world: Rc<dyn World> = Rc::new(Plain { address });
        let client = Client::connect(&world).await;
        for index in 0..200 {
            client.put(format!("k{}", index % 7), "v").await;
        }
    });
    process.kill();
    let before = snapshots(&process);
    assert!(before > 4, "{before} snapshots of 200 entries");
    process.start_again();
    let until = Instant::now() + Duration::from_secs(15);
    while snapshots(&process) > 2 {
        assert!(Instant::now() < until, "{} are still there", snapshots(&process));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn snapshots(process: &Process) -> usize {
    let names = fs::read_dir(process.data_dir().join("member/snap")).expect("the directory of snapshots");
    let paths = names.map(|name| name.expect("a name").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
        .count()
}

fn rounds() -> u32 {
    let slow = env::var("RINGD_SLOW").is_ok_and(|value| value == "1");
    let asked = env::var("RINGD_CRASH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    asked.unwrap_or(if slow { 200 } else { 4 })
}

fn seed() -> u64 {
    let asked = env::var("RINGD_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock after 1970")
            .subsec_nanos()
            .into()
    })
}

fn crash(program: Program, flags: &[&str]) {
    let seed = seed();
    println!("RINGD_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let mut model = Model::new();
    let mut process = Process::start(program, flags);
    for round in 1..=rounds() {
        let world: Rc<dyn World> = Rc::new(Plain {
            address: process.address(),
        });
        let load_for = Duration::from_millis(30 + random.below(500));
        let stop = if random.below(5) == 0 { Stop::Clean } else { Stop::Kill };
        on_this_thread(load::run(world, &mut model, &mut random, load_for, || match stop {
            Stop::Kill => process.kill(),
            Stop::Clean => drop(process.stop()),
        }));
        // Dying while starting must not make things worse.
        while random.below(4) == 0 {
            process.start_unawaited();
            std::thread::sleep(Duration::from_millis(random.below(400)));
            process.kill();
        }
        process.start_again();
        let world: Rc<dyn World> = Rc::new(Plain {
            address: process.address(),
        });
        let found = on_this_thread(check::read_back(world));
        if let Err(problem) = model.settle(&found).and_then(|()| model.compare(&found)) {
            panic!(
                "round {round} of seed {seed} ({stop:?}): {problem}\nfiles: {}\n{}",
                process.root().display(),
                process.log_tail()
            );
        }
        if round % 20 == 0 {
            println!("round {round}: {}", model.summary());
        }
    }
    println!("{}", model.summary());
}
