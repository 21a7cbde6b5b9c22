//! Power cuts. A server runs on an ext4 whose disk has a volatile cache ([`disk`]); under load the power goes: of what was
//! not flushed any part is lost, torn or reordered. After each cut the journal is recovered, `ringd check` walks the
//! files, and a server started on them must have all that was acknowledged and no revision twice.
//!
//! Needs root, FUSE, loop devices and ext4, and says so and passes where one of them is missing. A few cuts by default;
//! `RINGD_SLOW=1` makes 50 for each way of syncing, `RINGD_POWER_CUTS` says how many, `RINGD_CRASH_SEED` repeats the choices
//! of a run. Before the cuts flushes are counted, and a server runs on filesystems in memory. One scene shows that the disk is a judge: a server that does not sync must be found out.

#[path = "../support/mod.rs"]
mod support;

#[path = "../crash/check.rs"]
mod check;
#[path = "../crash/load.rs"]
mod load;
#[path = "../crash/model.rs"]
#[allow(dead_code)] // Its own tests run with the crash tests.
mod model;

mod disk;
mod fuse;
mod mount;
mod plug;

use std::{
    env,
    process::ExitCode,
    rc::Rc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use disk::Damage;
use model::{Model, Random};
use mount::Machine;
use support::{
    client::Client,
    process::{Plain, Process, Program, on_this_thread},
    world::World,
};

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(plug::ARGUMENT) {
        plug::serve();
        return ExitCode::SUCCESS;
    }
    let mut filters = env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    if filters.any(|filter| !"power".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    disk::self_check();
    let mut machine = match usable() {
        Ok(machine) => machine,
        Err(problem) => {
            println!("power: skipped, this machine has no disk to cut: {problem}");
            return ExitCode::SUCCESS;
        }
    };
    let seed = seed();
    println!("power: RINGD_CRASH_SEED={seed}");
    let mut outcome = ExitCode::SUCCESS;
    for check in [flushes(&mut machine), memory_filesystems(&machine)] {
        match check {
            Ok(told) => println!("power: ok. {told}"),
            Err(problem) => {
                println!("power: FAILED. {problem}");
                outcome = ExitCode::FAILURE;
            }
        }
    }
    let mut scenes = vec![
        (Program::Ringd, "--wal-sync=auto", false),
        (Program::Ringd, "--wal-sync=dsync", false),
        (Program::Ringd, "--wal-sync=fdatasync", false),
        (Program::Ringd, "--unsafe-no-fsync=true", true),
    ];
    if Program::Etcd.path().is_some() {
        scenes.push((Program::Etcd, "--logger=zap", false));
    }
    for (program, flag, loses) in scenes {
        let name = format!("power: {} {flag}", program.name());
        match (scene(&mut machine, program, flag, seed), loses) {
            (Ok(summary), false) => println!("{name}: ok. {summary}"),
            (Err(problem), true) => println!("{name}: ok, found out: {}", problem.lines().next().unwrap_or_default()),
            (Ok(summary), true) => {
                println!("{name}: FAILED, lost writes went unnoticed. {summary}");
                outcome = ExitCode::FAILURE;
            }
            (Err(problem), false) => {
                println!("{name}: FAILED. {problem}");
                outcome = ExitCode::FAILURE;
            }
        }
    }
    machine.end();
    outcome
}

/// A disk that could be made, mounted and cut here.
fn usable() -> Result<Machine, String> {
    let mut machine = Machine::new()?;
    machine.format()?;
    machine.shut_filesystem_down();
    machine.cut(1);
    machine.power_on()?;
    Ok(machine)
}

fn cuts() -> u32 {
    let slow = env::var("RINGD_SLOW").is_ok_and(|value| value == "1");
    let asked = env::var("RINGD_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    asked.unwrap_or(if slow { 50 } else { 3 })
}

fn seed() -> u64 {
    let asked = env::var("RINGD_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("a clock after 1970").subsec_nanos().into()
    })
}

/// One client's puts, and what they cost the disk in flushes: one each at least, or, without syncs, next to none.
fn flushes(machine: &mut Machine) -> Result<String, String> {
    const PUTS: u64 = 300;
    let mut told = format!("flushes of the disk for {PUTS} puts one after the other:");
    for flag in [
        "--wal-sync=auto",
        "--wal-sync=dsync",
        "--wal-sync=fdatasync",
        "--unsafe-no-fsync=true",
    ] {
        machine.format()?;
        let mut process = Process::prepare(Program::Ringd, machine.root.clone(), &[flag]);
        process.try_start()?;
        let before = machine.traffic().0;
        let world: Rc<dyn World> = Rc::new(Plain {
            address: process.address(),
        });
        on_this_thread(async {
            let client = Client::connect(&world).await;
            for _ in 0..PUTS {
                client.put("key", "value").await;
            }
        });
        let flushes = machine.traffic().0 - before;
        process.kill();
        told += &format!(" {flushes} with {flag};");
        let is_right = match flag {
            "--unsafe-no-fsync=true" => flushes < PUTS / 10,
            _ => flushes >= PUTS,
        };
        if !is_right {
            return Err(told);
        }
    }
    Ok(told)
}

/// A server on filesystems in memory: tmpfs, which some kernels give O_DIRECT, and ramfs, which has none.
fn memory_filesystems(machine: &Machine) -> Result<String, String> {
    let mut told = String::from("filesystems in memory:");
    for kind in ["tmpfs", "ramfs"] {
        let root = machine.mount_memory(kind)?;
        let mut process = Process::prepare(Program::Ringd, root.clone(), &[]);
        process.try_start()?;
        let world = |process: &Process| -> Rc<dyn World> {
            Rc::new(Plain {
                address: process.address(),
            })
        };
        on_this_thread(async { Client::connect(&world(&process)).await.put("key", "value").await });
        process.kill();
        process.try_start()?;
        let found = on_this_thread(async { Client::connect(&world(&process)).await.get("key").await });
        let is_buffered = process.log().contains("page cache");
        let has_direct = mount::takes_direct(&root.join("probe"));
        drop(process);
        machine.unmount_memory(&root)?;
        if found.kvs.len() != 1 || is_buffered == has_direct {
            return Err(format!(
                "{kind}: {} keys, O_DIRECT {has_direct}, warned {is_buffered}",
                found.kvs.len()
            ));
        }
        told += &format!(
            " {kind} serves and {} O_DIRECT;",
            if has_direct { "has" } else { "is warned of for want of" }
        );
    }
    Ok(told)
}

/// Load, cut, recovery and comparison, over and over.
fn scene(machine: &mut Machine, program: Program, flag: &str, seed: u64) -> Result<String, String> {
    let mut random = Random::new(seed);
    let mut model = Model::new();
    machine.format()?;
    let mut process = Process::prepare(program, machine.root.clone(), &["--snapshot-count=300", flag]);
    process.try_start()?;
    let mut damage = Damage::default();
    let started = Instant::now();
    for cut in 1..=cuts() {
        let one = play(&mut process, machine, &mut model, &mut random)
            .map_err(|problem| format!("cut {cut} of seed {seed}: {problem}\n{}", process.log_tail()))?;
        damage.kept += one.kept;
        damage.torn += one.torn;
        damage.lost += one.lost;
    }
    process.kill();
    let (flushes, writes) = machine.traffic();
    Ok(format!(
        "{} cuts in {:.0?}; {writes} writes and {flushes} flushes of the disk; unflushed at the cuts: {damage:?}; {}",
        cuts(),
        started.elapsed(),
        model.summary()
    ))
}

/// One life of the machine, from a server that serves to one that serves again.
fn play(
    process: &mut Process,
    machine: &mut Machine,
    model: &mut Model,
    random: &mut Random,
) -> Result<Damage, String> {
    let world = |process: &Process| -> Rc<dyn World> {
        Rc::new(Plain {
            address: process.address(),
        })
    };
    let load_for = Duration::from_millis(30 + random.below(600));
    let seed_of_cut = random.below(u64::MAX - 1) + 1;
    let shuts_down_first = random.below(3) == 0;
    let server_sees_errors_for = Duration::from_millis(random.below(2) * random.below(60));
    let mut damage = Damage::default();
    on_this_thread(load::run(world(process), model, random, load_for, || {
        if shuts_down_first {
            machine.shut_filesystem_down();
        }
        damage = machine.cut(seed_of_cut);
        thread::sleep(server_sees_errors_for);
        process.kill();
    }));
    machine.power_on()?;
    let ringd = Program::Ringd.path().expect("ringd is built");
    if process.program() == Program::Ringd {
        mount::check(&ringd, &process.data_dir())?;
    }
    // Power may go again while the server starts.
    while random.below(4) == 0 {
        process.start_unawaited();
        thread::sleep(Duration::from_millis(random.below(300)));
        machine.cut(random.below(u64::MAX - 1) + 1);
        process.kill();
        machine.power_on()?;
    }
    process.try_start()?;
    let found = on_this_thread(check::read_back(world(process)));
    model.settle(&found).and_then(|()| model.compare(&found))?;
    Ok(damage)
}
