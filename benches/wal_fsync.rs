//! What it takes to make a log record durable: the bare device in all ways that matter, and the real log writer beside it.
//!
//! `cargo bench --bench wal_fsync -- --dir DIR`: under two minutes. Rounds of all cases take turns, so that what a machine
//! does meanwhile meets all alike. Run by `cargo test` it makes a few writes of each.

mod device;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use device::{Case, Group, Options, Scratch, facts_of, or_end, report};
use hdrhistogram::Histogram;
use raft::eraftpb::{Entry, HardState};
use ringd::{
    backend::{Backend, Bucket, Store, StoreEvent, StoreOptions, StoreRequest},
    base::Revision,
    bench::tally,
    doctor::Facts,
    host::mailbox,
    limits::BACKEND_BATCH_OPERATIONS_MAX,
    ring::{
        FileMap, RingHost, ThreadHost,
        executor::{self, ExecutorConfig},
        placement,
        sync_probe::{self, Blocks, SyncProbe, SyncWay},
    },
    wal::{Wal, WalOptions, WalSync},
};

/// Bytes that a probe's file has at most.
const PROBE_BYTES_MAX: usize = 32 << 20;
/// Writes of a case at most.
const WRITES_MAX: usize = 4000;

fn main() {
    let options = Options::read("wal_fsync");
    let facts = facts_of(&options);
    if facts.filesystem.is_memory {
        println!(
            "{} is on a RAM disk: these figures say nothing of a disk",
            options.directory.display()
        );
    }
    let scratch = Scratch::new("wal_fsync", &options);
    let bench = Bench {
        takes_direct: facts.filesystem.takes_direct == Some(true),
        core: home_core(&facts),
        directory: scratch.path().to_owned(),
        slice: options.slice(),
        writes_max: if options.is_tiny { 8 } else { WRITES_MAX },
        round: 0,
    };
    let groups = bench.run(&options);
    report("wal_fsync", &options, &facts, &groups);
}

fn home_core(facts: &Facts) -> Option<usize> {
    facts.disk.as_ref().map(|disk| disk.home_core)
}

struct Bench {
    takes_direct: bool,
    core: Option<usize>,
    directory: PathBuf,
    slice: Duration,
    writes_max: usize,
    round: u32,
}

/// What one case does.
#[derive(Clone, Copy)]
enum Work {
    Bare {
        way: SyncWay,
        blocks: Blocks,
        bytes: usize,
        depth: usize,
    },
    Log {
        sync: WalSync,
        entries: usize,
        bytes: usize,
        beside: Beside,
    },
}

/// What the store does meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Commits,
}

fn bare(way: SyncWay, blocks: Blocks, bytes: usize, depth: usize) -> Work {
    Work::Bare {
        way,
        blocks,
        bytes,
        depth,
    }
}

fn log(sync: WalSync, entries: usize, bytes: usize, beside: Beside) -> Work {
    Work::Log {
        sync,
        entries,
        bytes,
        beside,
    }
}

const WAYS: [SyncWay; 3] = [SyncWay::DirectDsync, SyncWay::DirectThenSync, SyncWay::BufferedThenSync];

/// What is measured, group by group.
fn plan() -> Vec<(&'static str, Vec<(String, Work)>)> {
    use Beside::{Commits, Nothing};
    let dsync = SyncWay::DirectDsync;
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let ways = WAYS.into_iter().flat_map(|way| {
        [4096, 65536, 262_144].map(|bytes| {
            (
                format!("{}, {}", way.name(), kib(bytes)),
                bare(way, Blocks::Zeroed, bytes, 1),
            )
        })
    });
    let blocks = [dsync, SyncWay::BufferedThenSync].into_iter().flat_map(|way| {
        [Blocks::Zeroed, Blocks::Allocated, Blocks::Appended].map(|blocks| {
            (
                format!("{}, {blocks:?}", way.name()).to_lowercase(),
                bare(way, blocks, 4096, 1),
            )
        })
    });
    let depths = [1, 2, 4, 8, 16].map(|depth| (format!("{depth} at once"), bare(dsync, Blocks::Zeroed, 4096, depth)));
    let beside = || ("bare device, 4 KiB".to_owned(), bare(dsync, Blocks::Zeroed, 4096, 1));
    let syncs = [("dsync", WalSync::Dsync), ("fdatasync", WalSync::WriteThenSync)];
    let records = syncs.into_iter().flat_map(|(name, sync)| {
        [128, 1024, 16_384].map(|bytes| (format!("log, {name}, {bytes} bytes"), log(sync, 1, bytes, Nothing)))
    });
    let batches = [1, 16, 256, 1024].map(|entries| {
        let name = format!("log, {entries} x 256 bytes");
        (name, log(WalSync::Dsync, entries, 256, Nothing))
    });
    let commits = syncs.into_iter().flat_map(|(name, sync)| {
        [("quiet", Nothing), ("beside commits", Commits)]
            .map(|(what, beside)| (format!("log, {name}, {what}"), log(sync, 1, 256, beside)))
    });
    vec![
        ("ways: the bare device, onto zeroed blocks", ways.collect()),
        ("blocks: what was there before, 4 KiB", blocks.collect()),
        ("depth: writers at once, 4 KiB, O_DIRECT|O_DSYNC", depths.into()),
        (
            "records: one entry at a time through the log",
            std::iter::once(beside()).chain(records).collect(),
        ),
        (
            "batches: entries of one write of the log",
            std::iter::once(beside()).chain(batches).collect(),
        ),
        (
            "commits: the log, and 10,000 x 256 bytes into the tree every 100 ms",
            std::iter::once(beside()).chain(commits).collect(),
        ),
    ]
}

impl Bench {
    fn run(mut self, options: &Options) -> Vec<Group> {
        let plan = plan();
        let mut groups: Vec<Group> = plan
            .iter()
            .map(|(title, cases)| Group {
                title: (*title).to_owned(),
                cases: cases.iter().map(|(name, _)| Case::new(name.clone())).collect(),
            })
            .collect();
        for round in 0..options.rounds {
            self.round = round;
            for (group, (_, works)) in groups.iter_mut().zip(&plan) {
                for (case, (name, work)) in group.cases.iter_mut().zip(works) {
                    let Some(times) = self.measure(*work) else {
                        continue;
                    };
                    let times = or_end(times.map_err(|error| format!("{name}: {error}")));
                    or_end(case.latencies.add(&times).map_err(|error| format!("{name}: {error:?}")));
                }
                eprint!(".");
            }
        }
        eprintln!();
        groups
    }

    /// `None` where the filesystem cannot.
    fn measure(&self, work: Work) -> Option<Result<Histogram<u64>, String>> {
        match work {
            Work::Bare {
                way,
                blocks,
                bytes,
                depth,
            } => {
                if !self.takes_direct && way != SyncWay::BufferedThenSync {
                    return None;
                }
                let probe = SyncProbe {
                    way,
                    blocks,
                    bytes,
                    depth,
                    writes_max: self.writes_max.min(PROBE_BYTES_MAX / bytes),
                    time_max: self.slice,
                    core: (depth == 1).then_some(self.core).flatten(),
                };
                Some(sync_probe::run(&self.directory, probe).map_err(|error| error.to_string()))
            }
            Work::Log {
                sync,
                entries,
                bytes,
                beside,
            } => Some(self.measure_log(sync, entries, bytes, beside)),
        }
    }

    fn measure_log(
        &self,
        sync: WalSync,
        entries: usize,
        bytes: usize,
        beside: Beside,
    ) -> Result<Histogram<u64>, String> {
        let directory = self.directory.join("log");
        let stop = Arc::new(AtomicBool::new(false));
        let committer = (beside == Beside::Commits).then(|| {
            let (directory, stop, core) = (self.directory.join("snap"), stop.clone(), self.core);
            thread::spawn(move || commit_until(&directory, core, &stop))
        });
        let log = LogRun {
            directory: directory.clone(),
            options: WalOptions {
                sync,
                ..WalOptions::default()
            },
            entries,
            bytes,
            time_max: self.slice,
            writes_max: self.writes_max,
        };
        let config = ExecutorConfig {
            name: "home".to_owned(),
            core: self.core,
        };
        let written = executor::spawn(config, move |host| log.write(host))
            .and_then(executor::Executor::join)
            .map_err(|error| error.to_string())
            .and_then(|result| result);
        stop.store(true, Ordering::Relaxed);
        if let Some(committer) = committer {
            committer.join().map_err(|_| "the committing thread panicked")??;
        }
        std::fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
        written
    }
}

/// The real log writer, one write after the other.
struct LogRun {
    directory: PathBuf,
    options: WalOptions,
    entries: usize,
    bytes: usize,
    time_max: Duration,
    writes_max: usize,
}

impl LogRun {
    async fn write(self, host: RingHost) -> Result<Histogram<u64>, String> {
        let text = |error: ringd::wal::WalFault| error.to_string();
        let created = Wal::create(&host, &self.directory, b"bench", self.options).await;
        let (wal, mut encoder) = created.map_err(text)?;
        let data = Bytes::from(vec![7; self.bytes]);
        let mut times = tally::histogram();
        let mut index = 0;
        let began = Instant::now();
        // The first writes find everything cold.
        for number in 0..self.writes_max + 5 {
            let entries: Vec<Entry> = (0..self.entries)
                .map(|_| {
                    index += 1;
                    Entry {
                        index,
                        term: 1,
                        data: data.clone(),
                        ..Entry::default()
                    }
                })
                .collect();
            let hard_state = HardState {
                term: 1,
                vote: 1,
                commit: index - 1,
                ..HardState::default()
            };
            let before = Instant::now();
            encoder.append(&entries, Some(&hard_state));
            let batch = encoder.seal(|len| wal.buffer(len)).ok_or("nothing was gathered")?;
            wal.write(batch).await.map_err(text)?;
            if number >= 5 {
                times.saturating_record(before.elapsed().as_nanos() as u64);
            }
            if began.elapsed() > self.time_max && number >= 5 {
                break;
            }
        }
        wal.close().await;
        Ok(times)
    }
}

/// Commits a full batch every 100 ms, as a loaded server does, until it is told to stop.
fn commit_until(directory: &Path, home: Option<usize>, stop: &AtomicBool) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let allowed = placement::allowed_cores().map_err(|error| error.to_string())?;
    let others: placement::CoreSet = allowed.iter().copied().filter(|core| Some(*core) != home).collect();
    if !others.is_empty() {
        placement::keep_to(&others).map_err(|error| error.to_string())?;
    }
    let result = ThreadHost::run(|host| async move {
        let options = StoreOptions::new(directory.join("db"));
        let (store, report) = Store::open(host.clone(), options)
            .await
            .map_err(|error| error.to_string())?;
        let (mut requests, to_store) = mailbox::<StoreRequest<FileMap>>(4);
        let (from_store, mut events) = mailbox::<StoreEvent<FileMap>>(4);
        ringd::host::Host::spawn(&host, store.run(to_store, from_store));
        let mut backend = Backend::new(report);
        let value = Bytes::from(vec![3; 256]);
        let mut revision = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = Instant::now() + Duration::from_millis(100);
            for _ in 0..BACKEND_BATCH_OPERATIONS_MAX {
                revision += 1;
                backend.put(Bucket::Key, Revision::new(revision, 0).encode(), value.clone());
            }
            let sealed = backend.seal([]).ok_or("an empty batch")?;
            requests
                .send(StoreRequest::Commit(sealed))
                .await
                .map_err(|_| "the store ended")?;
            match events.receive().await {
                Some(StoreEvent::Committed(report)) => backend.committed(report),
                Some(StoreEvent::Failed(fault)) => return Err(fault.to_string()),
                _ => return Err("the store ended".to_owned()),
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    });
    std::fs::remove_dir_all(directory).map_err(|error| error.to_string())?;
    result
}
