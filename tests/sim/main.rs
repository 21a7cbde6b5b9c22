//! The whole server in a simulated world: real gRPC over a faulty network, real files on a faulty disk, virtual time,
//! crashes at any moment, and checkers that know what etcd promises.
//!
//! `cargo test --test sim -- SEED…` plays these seeds again; without seeds two hundred are played on all cores, with `RINGD_SLOW=1` many
//! more; `-- cluster SEED…` plays seeds of a cluster, `-- scenario NAME…` scenarios, and tells each step. `RINGD_SIM_LOG=info` shows the server's log while seeds are
//! replayed, `RINGD_SIM_TRACE=FILE` writes down all that happened. `RINGD_SIM_FROM` and `RINGD_SIM_SEEDS` say which and how
//! many, `RINGD_SIM_SCENES` of what (`scenario`, `founding`, `single`, `cluster`).

mod ask;
mod check;
mod client;
mod cluster;
mod founding;
mod history;
mod leaders;
mod linear;
mod menu;
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
    collections::BTreeMap,
    env, fs,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use scene::{Report, play};

/// Seeds of a plain `cargo test`: without optimisation one of the single scene takes half a second, one of a cluster two.
const SINGLE_SMOKE_SEEDS: u64 = 150;
const CLUSTER_SMOKE_SEEDS: u64 = 50;

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
    let scenes = env::var("RINGD_SIM_SCENES").unwrap_or_else(|_| "scenario founding single cluster".to_owned());
    let mut is_sound = true;
    if scenes.contains("scenario") {
        scenario::check_parser();
        is_sound &= scenario::run(&[], 1..=if is_slow() { 20 } else { 1 });
    }
    if scenes.contains("founding") {
        is_sound &= founding::check();
    }
    if scenes.contains("single") {
        is_sound &= run("single", play, SINGLE_SMOKE_SEEDS);
        is_sound &= planted::find(planted::Scene::Single, |seed| attempt(play, seed, true).fault);
    }
    if scenes.contains("cluster") {
        is_sound &= run("cluster", cluster::play, CLUSTER_SMOKE_SEEDS);
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
                operations: 0,
                injected: BTreeMap::new(),
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

/// Plays many seeds of a scene on all cores; whether nothing is wrong.
fn run(scene: &str, play: Play, smoke_seeds: u64) -> bool {
    let first = number("RINGD_SIM_FROM").unwrap_or(1);
    let count = number("RINGD_SIM_SEEDS").unwrap_or(if is_slow() { 2000 } else { smoke_seeds });
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    let next = AtomicU64::new(first);
    let workers = number("RINGD_SIM_WORKERS").unwrap_or_else(|| {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        (cores as u64).min(count)
    });
    let mut total = Total::default();
    thread::scope(|scope| {
        let worker = || {
            let mut total = Total::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return total;
                }
                total.play(play, seed);
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            total.add(worker.join().expect("panics are findings"));
        }
    });
    total.failed.sort_unstable();
    println!(
        "{scene}: {count} seeds from {first}: {} failed {:?}; {:.0} s of {workers} threads, {:.0} s of CPU, {:.1} hours simulated; {} lives, \
         {} operations ({} of unknown outcome), {} revisions, {} events told; {:?}",
        total.failed.len(),
        total.failed,
        started.elapsed().as_secs_f64(),
        cpu_seconds() - cpu_before,
        total.nanos as f64 / 3.6e12,
        total.lives,
        total.operations,
        total.unknown,
        total.revisions,
        total.events,
        total.injected,
    );
    total.failed.is_empty()
}

/// What a worker's seeds came to.
#[derive(Default)]
struct Total {
    failed: Vec<u64>,
    nanos: u64,
    lives: u64,
    operations: u64,
    unknown: usize,
    revisions: i64,
    events: usize,
    injected: BTreeMap<&'static str, u64>,
}

impl Total {
    /// Plays a seed, and one in eight a second time: what a thread keeps from one seed to the next would show.
    fn play(&mut self, play: Play, seed: u64) {
        let report = attempt(play, seed, !is_slow());
        if seed.is_multiple_of(8) && attempt(play, seed, !is_slow()).trace != report.trace {
            println!("seed {seed}: a second run went another way");
            self.failed.push(seed);
        }
        if let Some(fault) = &report.fault {
            println!("seed {seed}: {fault:.2000}");
            self.failed.push(seed);
        }
        self.add(Total {
            failed: Vec::new(),
            nanos: report.nanos,
            lives: report.lives,
            operations: report.operations,
            unknown: report.summary.unknown,
            revisions: report.summary.revision,
            events: report.summary.events,
            injected: report.injected,
        });
    }

    fn add(&mut self, other: Total) {
        self.failed.extend(other.failed);
        self.nanos += other.nanos;
        self.lives += other.lives;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.revisions += other.revisions;
        self.events += other.events;
        for (fault, count) in other.injected {
            *self.injected.entry(fault).or_default() += count;
        }
    }
}

/// What this process has used of its processors: user and system time of all threads, in seconds.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    // Fields 14 and 15, counted from the state, which is the third; Linux shows hundredths of seconds.
    ticks(11)
        .zip(ticks(12))
        .map_or(0.0, |(user, kernel)| (user + kernel) / 100.0)
}
