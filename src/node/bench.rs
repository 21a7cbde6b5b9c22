//! `ringd bench` on this machine: names resolved, threads started, the progress bar moved, results printed and written.

use std::{
    fs,
    io::{IsTerminal, Write},
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    bench::{
        Control, Plan, PrintFormat,
        drive::{self, Measured},
        hgrm, plot,
        report::{Report, ServerUse},
        tally::Tally,
    },
    ring::{
        executor::{self, Executor, ExecutorConfig},
        probe,
    },
};

/// How often the progress bar moves.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Does what the plan says, and prints what came of it.
///
/// # Errors
/// A sentence for the operator; nothing was reported then.
pub fn run(plan: Plan, command: String) -> Result<(), String> {
    // Each connection is a descriptor of ours.
    let descriptors = probe::check_descriptors().map_err(|obstacle| obstacle.to_string())?;
    if plan.connections as usize > descriptors {
        let connections = plan.connections;
        return Err(format!(
            "{connections} connections are more than the {descriptors} files that this process may open (ulimit -n)"
        ));
    }
    if let Some(prefix) = &plan.outputs.save {
        let directory = prefix.parent().filter(|parent| !parent.as_os_str().is_empty());
        probe::check_writable(directory.unwrap_or(Path::new("."))).map_err(|obstacle| format!("--save: {obstacle}"))?;
    }
    if let Some(pid) = plan.server_pid {
        server_use(pid).ok_or_else(|| format!("--server-pid: there is no process {pid}"))?;
    }
    let addresses = Arc::new(resolve(&plan.endpoints)?);
    let plan = Arc::new(plan);
    let control = Arc::new(Control::new(plan.threads));
    let mut crews = Vec::new();
    for thread in 0..plan.threads {
        let config = ExecutorConfig {
            name: format!("bench-{thread}"),
            core: None,
        };
        let (plan, addresses, control) = (plan.clone(), addresses.clone(), control.clone());
        let crew = executor::spawn(config, move |host| {
            drive::crew(host, plan, addresses, thread, control, probe::thread_time)
        });
        crews.push(crew.map_err(|error| format!("cannot start a thread: {error}"))?);
    }
    let watched = watch(&plan, &control, &crews);
    let (measured, wall) = join(crews, &watched)?;
    let server_use = watched.server_use();
    let report = report(&plan, command, measured, wall, server_use);
    print(&report, plan.outputs.format)?;
    match &plan.outputs.save {
        Some(prefix) => save(&report, prefix),
        None => Ok(()),
    }
}

fn resolve(endpoints: &[String]) -> Result<Vec<SocketAddr>, String> {
    let resolve = |name: &String| {
        let mut addresses = name
            .to_socket_addrs()
            .map_err(|error| format!("cannot reach {name}: {error}"))?;
        addresses
            .next()
            .ok_or_else(|| format!("cannot reach {name}: the name has no address"))
    };
    endpoints.iter().map(resolve).collect()
}

/// What the main thread saw of a run.
#[derive(Default)]
struct Watched {
    started: Option<Instant>,
    ended: Option<Instant>,
    before: Option<ServerUse>,
    after: Option<ServerUse>,
}

impl Watched {
    fn server_use(&self) -> Option<ServerUse> {
        let (before, after) = (self.before?, self.after?);
        Some(ServerUse {
            processor_time: after.processor_time.saturating_sub(before.processor_time),
            ..after
        })
    }
}

/// Moves the progress bar until all threads have their answers, and reads what the server uses at both ends.
fn watch(plan: &Plan, control: &Control, crews: &[Executor<Result<Measured, String>>]) -> Watched {
    let mut watched = Watched::default();
    let bar = progress_bar(plan);
    let read_use = || plan.server_pid.and_then(server_use);
    while !crews.iter().all(Executor::is_finished) {
        let (loaded, ended) = control.progress();
        if watched.started.is_none() {
            bar.set_message(format!("preparing, {loaded} requests"));
            if control.start().is_some() {
                watched.started = Some(Instant::now());
            }
        } else if let Some(started) = watched.started {
            let length = plan.load.duration.map(|duration| duration + plan.load.warm_up);
            match length {
                Some(length) => bar.set_position((started.elapsed().as_millis()).min(length.as_millis()) as u64),
                None => bar.set_position(ended),
            }
            bar.set_message(format!("{ended} answered"));
            if watched.before.is_none() && started.elapsed() >= plan.load.warm_up {
                watched.before = read_use();
            }
        }
        if watched.ended.is_none() && control.all_finished() {
            watched.ended = Some(Instant::now());
            watched.after = read_use();
        }
        thread::sleep(LOOK_INTERVAL);
    }
    bar.finish_and_clear();
    if watched.after.is_none() {
        watched.after = read_use();
    }
    watched
}

fn progress_bar(plan: &Plan) -> ProgressBar {
    // Not where the output is read by a program.
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let duration = plan
        .load
        .duration
        .map(|duration| (duration + plan.load.warm_up).as_millis() as u64);
    let bar = ProgressBar::new(duration.or(plan.load.total).unwrap_or(0));
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template("[{elapsed_precise}] {bar:40} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// The threads' results, and the wall time that their processor time belongs to.
fn join(
    crews: Vec<Executor<Result<Measured, String>>>,
    watched: &Watched,
) -> Result<(Vec<Measured>, Duration), String> {
    let results: Vec<Result<Measured, String>> = crews
        .into_iter()
        .map(|crew| crew.join().map_err(|error| error.to_string()).and_then(|result| result))
        .collect();
    // A thread that stopped because of another has no sentence of its own.
    let is_other = |result: &Result<Measured, String>| matches!(result, Err(text) if text.is_empty());
    let mut measured = Vec::new();
    let mut was_stopped = false;
    for result in results {
        was_stopped |= is_other(&result);
        match result {
            Ok(result) => measured.push(result),
            Err(text) if text.is_empty() => {}
            Err(text) => return Err(text),
        }
    }
    if was_stopped {
        return Err("the run was stopped".to_owned());
    }
    let started = watched.started.unwrap_or_else(Instant::now);
    let wall = watched
        .ended
        .unwrap_or_else(Instant::now)
        .saturating_duration_since(started);
    Ok((measured, wall))
}

fn report(
    plan: &Plan,
    command: String,
    measured: Vec<Measured>,
    processor_wall: Duration,
    server_use: Option<ServerUse>,
) -> Report {
    let mut tally = Tally::default();
    for part in &measured {
        tally.add(&part.tally);
    }
    Report {
        command,
        workload: plan.workload.name(),
        endpoints: plan.endpoints.clone(),
        server_version: measured.iter().map(|part| part.server_version.as_str()).collect(),
        connections: plan.connections,
        clients: plan.clients,
        threads: plan.threads,
        rate: plan.load.rate,
        tally,
        elapsed: measured.iter().map(|part| part.elapsed).max().unwrap_or_default(),
        processor_time: measured.iter().map(|part| part.processor_time).sum(),
        processor_wall,
        processor_requests: measured.iter().map(|part| part.requests).sum(),
        server_use,
    }
}

fn print(report: &Report, format: PrintFormat) -> Result<(), String> {
    let text = match format {
        PrintFormat::Table => report.table(),
        PrintFormat::Json => format!("{}\n", report.json()),
    };
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| format!("cannot print the result: {error}"))
}

fn save(report: &Report, prefix: &Path) -> Result<(), String> {
    let named = |ending: &str| {
        let mut name = prefix.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let mut files = vec![
        (named(".json"), format!("{}\n", report.json())),
        (named(".svg"), plot::of_run(report)),
    ];
    for (operation, series) in report.tally.series() {
        files.push((
            named(&format!(".{}.hgrm", operation.name())),
            hgrm::hgrm(&series.latencies),
        ));
    }
    for (path, text) in files {
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// What a process has used so far.
fn server_use(pid: u32) -> Option<ServerUse> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state is the first field, user and system time the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
    Some(ServerUse {
        processor_time: Duration::from_nanos(ticks * 1_000_000_000 / probe::ticks_per_second()),
        resident_bytes_max: kib * 1024,
    })
}
