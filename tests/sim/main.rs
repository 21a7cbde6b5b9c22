//! The whole server in a simulated world: real gRPC over a faulty network, real files on a faulty disk, virtual time,
//! crashes at any moment, and checkers that know what etcd promises.
//!
//! `cargo test --test sim -- SEED…` plays these seeds again; without seeds some dozens are played, with `RINGD_SLOW=1` many
//! more; `-- cluster SEED…` plays seeds of a cluster, `-- scenario NAME…` scenarios, and tells each step. `RINGD_SIM_LOG=info` shows the server's log while seeds are
//! replayed, `RINGD_SIM_TRACE=FILE` writes down all that happened. `RINGD_SIM_FROM` and `RINGD_SIM_SEEDS` say which and how
//! many, `RINGD_SIM_SCENES` of what (`scenario`, `single`, `cluster`).

mod check;
mod client;
mod cluster;
mod history;
mod leaders;
mod linear;
mod model;
mod planted;
mod rot;
mod scenario;
mod scene;
mod server;
mod transport;
mod watcher;
mod workload;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use scene::{Report, play};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    if arguments.first().is_some_and(|scene| scene == "scenario") {
        return replay_scenarios(&arguments[1..]);
    }
    let seeds: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if !seeds.is_empty() {
        let is_cluster = arguments.first().is_some_and(|scene| scene == "cluster");
        return replay(if is_cluster { cluster::play } else { play }, &seeds);
    }
    // A filter that cargo passes to every test binary.
    if arguments.iter().any(|filter| !"sim".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let scenes = env::var("RINGD_SIM_SCENES").unwrap_or_else(|_| "scenario single cluster".to_owned());
    let mut is_sound = true;
    if scenes.contains("scenario") {
        scenario::check_parser();
        is_sound &= scenario::run(&[], 1..=if is_slow() { 20 } else { 1 });
    }
    if scenes.contains("single") {
        is_sound &= run("single", play);
        is_sound &= planted::find(planted::Scene::Single, |seed| attempt(play, seed, true).fault);
    }
    if scenes.contains("cluster") {
        is_sound &= run("cluster", cluster::play);
        is_sound &= planted::find(planted::Scene::Cluster, |seed| attempt(cluster::play, seed, true).fault);
    }
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a seed of a scene.
type Play = fn(u64, bool) -> Report;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|value| value.parse().ok())
}

fn is_slow() -> bool {
    env::var("RINGD_SLOW").is_ok_and(|value| value == "1")
}

/// Plays a seed of a scene; a panic is a finding.
fn attempt(play: Play, seed: u64, is_small: bool) -> Report {
    match catch_unwind(AssertUnwindSafe(|| play(seed, is_small))) {
        Ok(report) => report,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Report {
                fault: Some(format!("panic: {}", text.unwrap_or_default())),
                summary: check::Summary::default(),
                trace: 0,
                nanos: 0,
                lives: 0,
            }
        }
    }
}

/// Plays scenarios again and tells each step.
fn replay_scenarios(names: &[String]) -> ExitCode {
    if let Ok(level) = env::var("RINGD_SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(level).without_time().init();
    }
    planted::plant_one();
    let first = number("RINGD_SIM_FROM").unwrap_or(1);
    let count = number("RINGD_SIM_SEEDS").unwrap_or(1);
    match scenario::run(names, first..=first + count - 1) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn replay(play: Play, seeds: &[u64]) -> ExitCode {
    if let Ok(level) = env::var("RINGD_SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(level).without_time().init();
    }
    planted::plant_one();
    let mut outcome = ExitCode::SUCCESS;
    for &seed in seeds {
        let report = attempt(play, seed, !is_slow());
        println!(
            "seed {seed}: trace {:016x}, {} lives, {:.3} s simulated, {:?}",
            report.trace,
            report.lives,
            report.nanos as f64 / 1e9,
            report.summary
        );
        if let Some(fault) = report.fault {
            println!("seed {seed}: {fault}");
            outcome = ExitCode::FAILURE;
        }
    }
    outcome
}

/// Plays many seeds of a scene; whether nothing is wrong.
fn run(scene: &str, play: Play) -> bool {
    let first = number("RINGD_SIM_FROM").unwrap_or(1);
    let count = number("RINGD_SIM_SEEDS").unwrap_or(if is_slow() { 2000 } else { 24 });
    let started = Instant::now();
    let (mut failed, mut nanos, mut revisions, mut unknown, mut events) = (Vec::new(), 0, 0, 0, 0);
    for seed in first..first + count {
        let report = attempt(play, seed, !is_slow());
        if seed % 8 == 0 && attempt(play, seed, !is_slow()).trace != report.trace {
            println!("seed {seed}: a second run went another way");
            failed.push(seed);
        }
        nanos += report.nanos;
        revisions += report.summary.revision;
        unknown += report.summary.unknown;
        events += report.summary.events;
        if let Some(fault) = report.fault {
            println!("seed {seed}: {fault:.2000}");
            failed.push(seed);
        }
    }
    println!(
        "{scene}: {count} seeds from {first}: {} failed {failed:?}; {:.0} s simulated in {:.1} s, {revisions} revisions, {unknown} unknown, {events} events told",
        failed.len(),
        nanos as f64 / 1e9,
        started.elapsed().as_secs_f64()
    );
    failed.is_empty()
}
