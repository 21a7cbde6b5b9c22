//! `ringd doctor` on this machine: reads, watches, writes a scratch file to time syncs, and prints what came of it. Nothing
//! is changed and nothing stays.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    doctor::{self, Grade, Syncs},
    ring::{
        facts,
        sync_probe::{self, Blocks, SyncProbe, SyncWay},
    },
};

/// How long is watched what others do.
const WATCH_LENGTH: Duration = Duration::from_secs(1);
/// How long each way to sync is timed, and how often at the most.
const PROBE_LENGTH: Duration = Duration::from_millis(700);
const PROBE_WRITES_MAX: usize = 3000;

/// Looks, and prints; whether there is a problem.
///
/// # Errors
/// A sentence for the operator: the directory cannot be looked at.
pub fn run(directory: &Path, is_json: bool) -> Result<bool, String> {
    let said = |error: io::Error| format!("{}: {error}", directory.display());
    let facts = facts::read(Path::new("/"), directory).map_err(said)?;
    let disk = facts.disk.as_ref();
    let activity = facts::watch(Path::new("/"), disk.map(|disk| disk.name.as_str()), WATCH_LENGTH);
    let core = disk.map(|disk| disk.home_core);
    let probe = |way| {
        let probe = SyncProbe {
            way,
            blocks: Blocks::Zeroed,
            bytes: 4096,
            depth: 1,
            writes_max: PROBE_WRITES_MAX,
            time_max: PROBE_LENGTH,
            core,
        };
        sync_probe::run(directory, probe).map_err(said)
    };
    let direct = |way| -> Result<Option<Histogram<u64>>, String> {
        match facts.filesystem.takes_direct {
            Some(true) => probe(way).map(Some),
            _ => Ok(None),
        }
    };
    let syncs = Syncs {
        dsync: direct(SyncWay::DirectDsync)?,
        write_then_sync: direct(SyncWay::DirectThenSync)?,
        buffered: probe(SyncWay::BufferedThenSync)?,
    };
    let findings = doctor::findings(&facts, &activity, &syncs);
    let profile = doctor::profile(&facts, &syncs);
    let text = match is_json {
        true => format!("{}\n", doctor::json(&facts, &findings, &profile)),
        false => doctor::print(&facts, &findings, &profile),
    };
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| format!("cannot print: {error}"))?;
    Ok(findings.iter().any(|finding| finding.grade == Grade::Problem))
}
