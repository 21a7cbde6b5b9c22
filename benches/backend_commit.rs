//! What a commit of the tree takes: the real store on a directory, by operations, sizes of values, order of keys, size of the
//! file and its fragmentation; and beside each the bare device, given as many bytes to write and sync.
//!
//! `cargo bench --bench backend_commit -- --dir DIR`: under two minutes. Run by `cargo test` it makes a few commits of each.

mod device;

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use device::{Case, Group, Options, Scratch, facts_of, or_end, report};
use ringd::{
    backend::{Backend, Bucket, CommitReport, Store, StoreEvent, StoreOptions, StoreRequest},
    base::Revision,
    host::{Host, Receiver, Sender, mailbox},
    ring::{FileMap, ThreadHost},
};

/// Commits of a case at most.
const COMMITS_MAX: usize = 2000;
/// Operations of a commit that loads the tree.
const LOAD_OPERATIONS: u64 = 10_000;

/// Which keys a commit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// New ones behind all others, as etcd's revisions are.
    Ascending,
    /// Any that are there.
    Random,
}

/// What a case does.
#[derive(Clone, Copy, Debug)]
struct Work {
    operations: u64,
    value_bytes: usize,
    order: Order,
    /// Keys of 256 bytes that are there before.
    keys: u64,
    /// Of those, every second is deleted first, so that free pages lie between used ones.
    is_fragmented: bool,
}

const USUAL: Work = Work {
    operations: 1000,
    value_bytes: 256,
    order: Order::Ascending,
    keys: 10_000,
    is_fragmented: false,
};

fn plan() -> Vec<(&'static str, Vec<(String, Work)>)> {
    let operations = [1, 10, 100, 1000, 10_000].map(|operations| {
        let name = format!("{operations} x 256 bytes");
        (name, Work { operations, ..USUAL })
    });
    let values = [16, 256, 4096, 65_536].map(|value_bytes| {
        let work = Work {
            operations: 64,
            value_bytes,
            ..USUAL
        };
        (format!("64 x {value_bytes} bytes"), work)
    });
    let orders = [Order::Ascending, Order::Random].map(|order| {
        let work = Work {
            order,
            keys: 200_000,
            ..USUAL
        };
        (format!("{order:?}").to_lowercase(), work)
    });
    let sizes = [1_000, 50_000, 400_000].map(|keys| {
        let work = Work {
            order: Order::Random,
            operations: 100,
            keys,
            ..USUAL
        };
        (format!("{keys} keys"), work)
    });
    let fragments = [false, true].map(|is_fragmented| {
        let work = Work {
            keys: 200_000,
            is_fragmented,
            ..USUAL
        };
        (if is_fragmented { "fragmented" } else { "compact" }.to_owned(), work)
    });
    vec![
        ("operations: of a commit, behind all other keys", operations.into()),
        ("values: sizes, 64 operations", values.into()),
        ("order: of the keys, 1,000 operations, 200,000 keys", orders.into()),
        ("size: of the file, 100 operations anywhere", sizes.into()),
        (
            "fragmentation: 1,000 operations, every second of 200,000 keys deleted before",
            fragments.into(),
        ),
    ]
}

fn main() {
    let options = Options::read("backend_commit");
    let facts = facts_of(&options);
    if facts.filesystem.is_memory {
        println!(
            "{} is on a RAM disk: these figures say nothing of a disk",
            options.directory.display()
        );
    }
    let scratch = Scratch::new("backend_commit", &options);
    let mut groups = Vec::new();
    for (title, works) in plan() {
        let mut cases: Vec<Case> = Vec::new();
        for (name, mut work) in works {
            if options.is_tiny {
                work.keys = work.keys.min(200);
                work.operations = work.operations.min(100);
            }
            let (case, bare) = or_end(measure(&name, work, scratch.path(), &options));
            cases.push(case);
            cases.push(bare);
        }
        eprint!(".");
        groups.push(Group {
            title: title.to_owned(),
            cases,
        });
    }
    eprintln!();
    report("backend_commit", &options, &facts, &groups);
}

/// Numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Tree {
    backend: Backend<FileMap>,
    requests: Sender<StoreRequest<FileMap>>,
    events: Receiver<StoreEvent<FileMap>>,
    next: u64,
}

/// Sums over a case's commits.
#[derive(Default)]
struct Sums {
    commits: u64,
    bytes: u64,
    runs: u64,
    plan: Duration,
    write: Duration,
}

impl Tree {
    async fn commit(&mut self) -> Result<Sums, String> {
        let sealed = self.backend.seal([]).ok_or("an empty batch")?;
        let sent = self.requests.send(StoreRequest::Commit(sealed)).await;
        sent.map_err(|_| "the store ended")?;
        match self.events.receive().await {
            Some(StoreEvent::Committed(report)) => {
                let sums = Sums::of(&report);
                self.backend.committed(report);
                Ok(sums)
            }
            Some(StoreEvent::Failed(fault)) => Err(fault.to_string()),
            _ => Err("the store ended".to_owned()),
        }
    }

    async fn load(&mut self, work: &Work) -> Result<(), String> {
        let value = Bytes::from(vec![5; 256]);
        while self.next < work.keys {
            let end = (self.next + LOAD_OPERATIONS).min(work.keys);
            for number in self.next..end {
                self.backend.put(Bucket::Key, key(number), value.clone());
            }
            self.next = end;
            self.commit().await?;
        }
        if work.is_fragmented {
            for start in (0..work.keys).step_by(LOAD_OPERATIONS as usize) {
                // Runs of keys as long as a few leaves: whole pages become free, between such as stay.
                let doomed = (start..(start + LOAD_OPERATIONS).min(work.keys)).filter(|number| (number / 64) % 2 == 0);
                for number in doomed {
                    self.backend.delete(Bucket::Key, key(number));
                }
                self.commit().await?;
            }
        }
        Ok(())
    }

    fn change(&mut self, work: &Work, value: &Bytes, numbers: &mut Numbers) {
        for _ in 0..work.operations {
            let number = match work.order {
                Order::Ascending => {
                    self.next += 1;
                    self.next
                }
                Order::Random => numbers.below(work.keys),
            };
            self.backend.put(Bucket::Key, key(number), value.clone());
        }
    }
}

impl Sums {
    fn of(report: &CommitReport<FileMap>) -> Sums {
        Sums {
            commits: 1,
            bytes: report.bytes_written,
            runs: u64::from(report.runs),
            plan: report.rebalance + report.spill,
            write: report.write,
        }
    }

    fn add(&mut self, other: &Sums) {
        self.commits += other.commits;
        self.bytes += other.bytes;
        self.runs += other.runs;
        self.plan += other.plan;
        self.write += other.write;
    }

    fn figures(&self, work: &Work) -> Vec<(&'static str, f64)> {
        let commits = self.commits.max(1) as f64;
        let payload = work.operations as f64 * (work.value_bytes + 17) as f64;
        vec![
            ("KiB", self.bytes as f64 / commits / 1024.0),
            ("amplification", self.bytes as f64 / commits / payload),
            ("writes", self.runs as f64 / commits),
            ("plan-us", self.plan.as_secs_f64() * 1e6 / commits),
            ("write-us", self.write.as_secs_f64() * 1e6 / commits),
        ]
    }
}

fn key(number: u64) -> [u8; 17] {
    Revision::new(number as i64, 0).encode()
}

/// A case, and the bare device beside it.
fn measure(name: &str, work: Work, directory: &Path, options: &Options) -> Result<(Case, Case), String> {
    let path: PathBuf = directory.join("db");
    let mut case = Case::new(name);
    let sums = ThreadHost::run(|host| commits(host, path.clone(), work, options, &mut case))?;
    case.figures = sums.figures(&work);
    fs::remove_file(&path).map_err(|error| error.to_string())?;
    let mut bare = Case::new(format!("bare, {name}"));
    let bytes = (sums.bytes / sums.commits.max(1)).next_multiple_of(4096);
    let writes = bare_writes(
        directory,
        bytes as usize,
        case.latencies.len().min(300) as usize,
        options.case_time / 2,
        &mut bare,
    );
    writes.map_err(|error| error.to_string())?;
    Ok((case, bare))
}

async fn commits(
    host: ThreadHost,
    path: PathBuf,
    work: Work,
    options: &Options,
    case: &mut Case,
) -> Result<Sums, String> {
    let (store, report) = Store::open(host.clone(), StoreOptions::new(path))
        .await
        .map_err(|error| error.to_string())?;
    let (requests, to_store) = mailbox(4);
    let (from_store, events) = mailbox(4);
    host.spawn(store.run(to_store, from_store));
    let mut tree = Tree {
        backend: Backend::new(report),
        requests,
        events,
        next: 0,
    };
    tree.load(&work).await?;
    let value = Bytes::from(vec![7; work.value_bytes]);
    let mut numbers = Numbers(1);
    let mut sums = Sums::default();
    let began = Instant::now();
    let commits_max = if options.is_tiny { 3 } else { COMMITS_MAX };
    while case.latencies.len() < commits_max as u64
        && (began.elapsed() < options.case_time || case.latencies.is_empty())
    {
        tree.change(&work, &value, &mut numbers);
        let before = Instant::now();
        let cost = tree.commit().await?;
        case.latencies.saturating_record(before.elapsed().as_nanos() as u64);
        sums.add(&cost);
    }
    Ok(sums)
}

/// As many bytes at once behind the file's end, synced, then one page, synced: what a commit could take at best.
fn bare_writes(
    directory: &Path,
    bytes: usize,
    writes: usize,
    time_max: Duration,
    case: &mut Case,
) -> std::io::Result<()> {
    let path = directory.join("bare");
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let (data, page) = (vec![9; bytes], vec![1; 4096]);
    file.write_all_at(&page, 0)?;
    file.sync_all()?;
    let began = Instant::now();
    for number in 0..writes.max(1) {
        let before = Instant::now();
        file.write_all_at(&data, 4096 + (number * bytes) as u64)?;
        file.sync_data()?;
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        case.latencies.saturating_record(before.elapsed().as_nanos() as u64);
        if began.elapsed() > time_max {
            break;
        }
    }
    fs::remove_file(&path)
}
