//! Scenarios by hand: subtle cases that a seed would seldom draw, step by step, each a file of `tests/sim/scenarios` in the
//! language of `parse`. Whatever a scenario demands itself, at its end everything is mended, all members must come to one
//! state, stop in peace and leave whole directories; and a second run must go the same way.
//!
//! A scenario names bugs to order (`catches`) that it must fail with: it is known to be able to.

mod actor;
mod parse;
mod stage;
mod steps;

use std::{
    cell::RefCell,
    env, fs,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use ringd::testing::Sim;

use self::{
    stage::Stage,
    steps::{Ask, Condition, DiskState, Fill, Line, Scenario, Step},
};
use crate::{
    history::Request,
    is_slow, planted,
    server::{Server, member_address},
};

/// How often a condition that is waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Everything mended, all members are of one mind within this time.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(60);

/// A bug to order that a scenario catches is seen by one of so many seeds.
const CATCH_SEEDS: u64 = 40;

/// What became of a run.
struct Played {
    fault: Option<String>,
    trace: u64,
    nanos: u64,
    /// What was seen at each step.
    lines: Vec<String>,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/sim/scenarios")
}

fn read(names: &[String]) -> Result<Vec<Scenario>, String> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .map_err(|error| error.to_string())?
        .map(|entry| entry.expect("a directory that can be read").path())
        .collect();
    files.sort();
    let mut scenarios = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if names.is_empty() || names.contains(&name) {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            scenarios.push(parse::parse(&format!("tests/sim/scenarios/{name}.txt"), &text)?);
        }
    }
    match names
        .iter()
        .find(|name| !scenarios.iter().any(|scenario| scenario.name == **name))
    {
        Some(name) => Err(format!("no scenario is called {name}")),
        None => Ok(scenarios),
    }
}

/// Plays the scenarios of these names, or all; whether nothing is wrong. With names it tells each step.
pub fn run(names: &[String], seeds: RangeInclusive<u64>) -> bool {
    let scenarios = match read(names) {
        Ok(scenarios) => scenarios,
        Err(what) => {
            println!("{what}");
            return false;
        }
    };
    let (mut failed, mut nanos) = (Vec::new(), 0);
    let started = std::time::Instant::now();
    let is_wanted = |scenario: &&Scenario| !scenario.is_slow || !names.is_empty() || is_slow();
    for scenario in scenarios.iter().filter(is_wanted) {
        for seed in seeds.clone() {
            let played = play(scenario, seed);
            nanos += played.nanos;
            let is_wrong = judge(scenario, seed, seed == *seeds.start(), &played);
            if !names.is_empty() || is_wrong {
                println!("scenario {} with seed {seed}:", scenario.name);
                played.lines.iter().for_each(|line| println!("{line}"));
                println!("{}", played.fault.as_deref().unwrap_or("as it should be"));
            }
            if is_wrong {
                failed.push(scenario.name.as_str());
            }
        }
    }
    failed.dedup();
    println!(
        "scenarios: {} with seeds {seeds:?}: {} failed {failed:?}; {:.0} s simulated in {:.1} s",
        scenarios.len(),
        failed.len(),
        nanos as f64 / 1e9,
        started.elapsed().as_secs_f64()
    );
    failed.is_empty()
}

/// Whether anything is wrong: with the run, with a second one, or with a scenario that does not see what it should.
fn judge(scenario: &Scenario, seed: u64, is_first: bool, played: &Played) -> bool {
    if played.fault.is_some() {
        return true;
    }
    if !is_first {
        return false;
    }
    if play(scenario, seed).trace != played.trace {
        println!("scenario {}: a second run went another way", scenario.name);
        return true;
    }
    let mut is_blind = false;
    for bug in &scenario.catches {
        // Which of two tasks comes first is the seed's to say, and some bugs need one of the orders.
        let seeds = seed..seed + CATCH_SEEDS;
        let find = || seeds.clone().find_map(|seed| Some((seed, play(scenario, seed).fault?)));
        match planted::with(bug, find) {
            Some(Some((seed, fault))) => {
                println!("scenario {} catches {bug}, seed {seed}: {fault:.140}", scenario.name)
            }
            Some(None) => {
                println!("scenario {} does not see {bug}", scenario.name);
                is_blind = true;
            }
            None => {}
        }
    }
    is_blind
}

fn play(scenario: &Scenario, seed: u64) -> Played {
    let sim = Rc::new(Sim::new(seed));
    let trace_path = env::var_os("RINGD_SIM_TRACE");
    if trace_path.is_some() {
        sim.keep_log();
    }
    let lines = Rc::new(RefCell::new(Vec::new()));
    let run = || {
        let mut stage = Stage::new(&sim, scenario);
        sim.run_until(perform(&mut stage, scenario, &lines))
    };
    let fault = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    };
    if let Some(path) = trace_path {
        fs::write(path, sim.take_log().join("\n")).expect("a file that can be written");
    }
    Played {
        fault,
        trace: sim.trace_hash(),
        nanos: sim.now().0,
        lines: lines.take(),
    }
}

async fn perform(stage: &mut Stage, scenario: &Scenario, lines: &RefCell<Vec<String>>) -> Result<(), String> {
    for member in &stage.members {
        Server::prepare(&member.host).await;
    }
    for line in &scenario.steps {
        stage.bury();
        let began = stage.sim.now();
        let seen = perform_step(stage, &line.step).await;
        let seen = seen.and_then(|seen| stage.look_after().map(|()| seen));
        let told = seen.as_ref().map_or_else(
            |what| format!("   ✗ {what}"),
            |seen| seen.as_ref().map_or(String::new(), |seen| format!("   ▸ {seen}")),
        );
        lines
            .borrow_mut()
            .push(format!("{:>12.6} s  {line}{told}", began.0 as f64 / 1e9));
        seen.map_err(|what| complaint(scenario, line, &what))?;
    }
    let result = conclude(stage).await;
    result.map_err(|what| format!("scenario {}, at its end: {what}", scenario.name))
}

fn complaint(scenario: &Scenario, line: &Line, what: &str) -> String {
    format!("tests/sim/scenarios/{}.txt:{line}: {what}", scenario.name)
}

/// Carries a step out; what is worth telling of it.
async fn perform_step(stage: &mut Stage, step: &Step) -> Result<Option<String>, String> {
    match step {
        Step::Start(names) => {
            for place in stage.places(names)? {
                stage.start(place)?;
            }
        }
        Step::Stop(name) => {
            let place = stage.place(name)?;
            stage.stop(place).await?;
        }
        Step::Kill(names) => {
            for place in stage.places(names)? {
                stage.end(place, None)?;
            }
        }
        Step::PowerCut(names, unsynced) => {
            for place in stage.places(names)? {
                stage.end(place, Some(*unsynced))?;
            }
        }
        Step::Roles(names) => return roles(stage, names).await.map(Some),
        Step::Sleep(duration) => stage.pause(*duration).await,
        Step::Ask(ask) => return perform_ask(stage, ask).await,
        Step::Answer(client, expected) => {
            let reply = stage.client(client).answer().await?;
            let seen = actor::describe(&reply);
            return if expected.fits(&reply, stage.acknowledged) {
                Ok(Some(seen))
            } else {
                Err(seen)
            };
        }
        Step::Fill(fill) => return perform_fill(stage, fill).await.map(Some),
        Step::Wait(condition, limit) => return wait(stage, condition, *limit).await,
        Step::Expect(condition) => stage.holds(condition).await??,
        Step::Silent(name, duration) => match stage.watchers.get_mut(name) {
            Some(watcher) => watcher.expect_silence(*duration).await?,
            None => {
                stage.pause(*duration).await;
                let Some(client) = stage.clients.get(name) else {
                    return Err(format!("nobody is called {name}"));
                };
                if let Some(reply) = client.early() {
                    return Err(format!("it was answered: {}", actor::describe(&reply)));
                }
            }
        },
        Step::Watch(watch) => {
            let address = member_address(stage.place(&watch.member)?);
            let host = stage.sim.host(&format!("client {}", watch.watcher));
            let watcher = actor::Watcher::open(&host, address, watch).await?;
            stage.watchers.insert(watch.watcher.clone(), watcher);
        }
        Step::Progress(name) => watcher(stage, name)?.ask_progress(),
        Step::Slow(name, duration) => watcher(stage, name)?.stop_reading(*duration),
        Step::Told(name, told) => watcher(stage, name)?.expect(told).await?,
        Step::Close(name) => {
            watcher(stage, name)?;
            if let Some(watcher) = stage.watchers.remove(name) {
                watcher.close();
            }
        }
        step => break_machine(stage, step)?,
    }
    Ok(None)
}

fn watcher<'a>(stage: &'a mut Stage, name: &str) -> Result<&'a mut actor::Watcher, String> {
    let watcher = stage.watchers.get_mut(name);
    watcher.ok_or_else(|| format!("no watcher is called {name}"))
}

/// The steps that act on machines and on the ways between them.
fn break_machine(stage: &mut Stage, step: &Step) -> Result<(), String> {
    match step {
        Step::CrashAt(name, trap) => {
            let place = stage.place(name)?;
            stage.sim.crash_at(&stage.members[place].host, trap.clone());
        }
        Step::Pause(name) => {
            let place = stage.place(name)?;
            stage.sim.pause(&stage.members[place].host);
        }
        Step::Resume(name) => {
            let place = stage.place(name)?;
            stage.sim.resume(&stage.members[place].host);
        }
        Step::Cut(from, to) => {
            let (from, to) = (stage.place(from)?, stage.place(to)?);
            stage.sim.cut(&stage.members[from].host, &stage.members[to].host);
        }
        Step::Partition(one, other) => {
            let (one, other) = (stage.place(one)?, stage.place(other)?);
            stage
                .sim
                .partition(&stage.members[one].host, &stage.members[other].host);
        }
        Step::Isolate(name) => stage.isolate(stage.place(name)?),
        Step::Heal => stage.heal(),
        Step::Disk(name, state) => {
            let place = stage.place(name)?;
            stage.set_disk(place, *state);
        }
        Step::Rot(name, page) => {
            let place = stage.place(name)?;
            stage.rot(place, *page)?;
        }
        Step::ClockJump(name, nanos) => {
            let place = stage.place(name)?;
            stage.change_clock(place, |clock| clock.wall_offset_nanos += nanos);
        }
        Step::ClockDrift(name, drift_ppm) => {
            let place = stage.place(name)?;
            stage.change_clock(place, |clock| clock.drift_ppm = *drift_ppm);
        }
        other => unreachable!("{other:?} acts on no machine"),
    }
    Ok(())
}

async fn roles(stage: &mut Stage, names: &[String]) -> Result<String, String> {
    if names.len() > stage.members.len() {
        return Err("more names than members".to_owned());
    }
    let until = stage.sim.now() + AGREEMENT_LIMIT;
    loop {
        if let Some(leader) = stage.common_leader().await {
            let others = (0..stage.members.len()).filter(|place| *place != leader);
            let places: Vec<usize> = std::iter::once(leader).chain(others).collect();
            for (name, place) in names.iter().zip(&places) {
                stage.name(name, *place);
            }
            let told: Vec<String> = names
                .iter()
                .zip(places)
                .map(|(name, place)| format!("{name} is m{place}"))
                .collect();
            return Ok(told.join(", "));
        }
        if stage.sim.now() > until {
            return Err("nobody leads".to_owned());
        }
        stage.pause(LOOK_INTERVAL).await;
    }
}

async fn perform_ask(stage: &mut Stage, ask: &Ask) -> Result<Option<String>, String> {
    let place = stage.place(&ask.member)?;
    let client = stage.client(&ask.client);
    client.begin(member_address(place), ask.request.clone())?;
    if ask.is_begun {
        return Ok(None);
    }
    let reply = client.answer().await?;
    let seen = actor::describe(&reply);
    if ask.expected.fits(&reply, stage.acknowledged) {
        Ok(Some(seen))
    } else {
        Err(seen)
    }
}

async fn perform_fill(stage: &mut Stage, fill: &Fill) -> Result<String, String> {
    let place = stage.place(&fill.member)?;
    let mut last = String::new();
    stage.acknowledged = 0;
    for number in 1..=fill.count {
        let mut put = ringd::wire::proto::etcdserverpb::PutRequest {
            key: format!("{}{number}", fill.prefix).into(),
            ..Default::default()
        };
        let mut value = format!("v{number}").into_bytes();
        value.resize(fill.value_bytes.max(value.len()), b'.');
        put.value = value.into();
        let client = stage.client(&fill.client);
        client.begin(member_address(place), Request::Put(put))?;
        let reply = client.answer().await?;
        last = actor::describe(&reply);
        match reply {
            Ok(_) => stage.acknowledged = number as i64,
            _ if fill.may_fail => return Ok(format!("{} acknowledged, then {last}", number - 1)),
            _ => return Err(format!("put {number}: {last}")),
        }
    }
    match fill.may_fail {
        true => Err("all were acknowledged".to_owned()),
        false => Ok(last),
    }
}

async fn wait(stage: &mut Stage, condition: &Condition, limit: Duration) -> Result<Option<String>, String> {
    let began = stage.sim.now();
    loop {
        stage.bury();
        let seen = stage.holds(condition).await?;
        let waited = stage.sim.now().since(began);
        match seen {
            Ok(()) if waited <= limit => return Ok(Some(format!("after {:.3} s", waited.as_secs_f64()))),
            Ok(()) => return Err(format!("only after {:.3} s", waited.as_secs_f64())),
            Err(seen) if waited > limit => return Err(seen),
            Err(_) => stage.pause(LOOK_INTERVAL).await,
        }
    }
}

/// Everything is mended; then all are of one mind, stop in peace, and leave whole directories.
async fn conclude(stage: &mut Stage) -> Result<(), String> {
    stage.heal();
    for place in 0..stage.members.len() {
        stage.sim.resume(&stage.members[place].host);
        stage.set_disk(place, DiskState::Sound);
        let server = stage.members[place].server.as_ref();
        if server.is_none_or(|server| !server.host.is_alive() || server.outcome().is_some()) {
            stage.start(place)?;
        }
    }
    wait(stage, &Condition::EqualHash, AGREEMENT_LIMIT).await?;
    stage.watchers.clear();
    for place in 0..stage.members.len() {
        stage.stop(place).await?;
    }
    for place in 0..stage.members.len() {
        let findings = stage.findings(place).await;
        if !findings.is_empty() {
            return Err(format!("m{place} has left a damaged directory: {findings}"));
        }
    }
    Ok(())
}

/// What must be an error, with the line in it.
pub fn check_parser() {
    let head = "# guards: it\n# rule: that\nmembers 3\n";
    let cases = [
        ("members 3\nstart all\n", "no line begins with `# guards: `"),
        ("# guards: it\n# rule: that\nmembers 2\nstart all\n", "2 members"),
        (&format!("{head}strat all\n"), "x.txt:4: `strat` is no step"),
        (&format!("{head}put c1@m0 k\n"), "x.txt:4: a word is missing"),
        (&format!("{head}put c1 k v\n"), "x.txt:4: `c1` is not WHO@MEMBER"),
        (
            &format!("{head}put c1@m0 k v w\n"),
            "x.txt:4: `w` where `=>` is expected",
        ),
        (&format!("{head}sleep 5\n"), "x.txt:4: `` is none of us, ms, s, h"),
        (
            &format!("{head}get c1@m0 k => value \"v\n"),
            "x.txt:4: a quote does not end",
        ),
        (
            &format!("{head}start all\nflag a b\n"),
            "x.txt:5: `flag` belongs before",
        ),
        (
            &format!("{head}crash m0 at sync 0 of db begin torn\n"),
            "x.txt:4: operations are counted from 1",
        ),
        (&format!("{head}heal all\n"), "x.txt:4: `all` is one word too many"),
        (head, "it has no steps"),
    ];
    for (text, wanted) in cases {
        let error = parse::parse("x.txt", text).expect_err("a scenario with a mistake in it");
        assert!(error.contains(wanted), "{error} instead of {wanted}");
    }
}
