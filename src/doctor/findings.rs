//! What the facts mean: a sentence for each, the file of `tuning/` that mends it, and a profile to begin with.

use hdrhistogram::Histogram;

use super::facts::{Activity, DiskFacts, Facts, FilesystemFacts, HostFacts};
use crate::bench::json::Json;

/// How a finding is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Costs something.
    Advice,
    /// Stands in the way, or makes figures worthless.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is meant.
    pub grade: Grade,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found.
    pub sentence: String,
    /// What mends it, below `tuning/`.
    pub file: Option<&'static str>,
}

/// How long syncs take here, in nanoseconds.
pub struct Syncs {
    /// One write past the page cache to a file opened O_DSYNC, from the home core; where O_DIRECT is refused there is none.
    pub dsync: Option<Histogram<u64>>,
    /// A write past the page cache and fdatasync, from the home core.
    pub write_then_sync: Option<Histogram<u64>>,
    /// A write through the page cache and fdatasync: etcd's way.
    pub buffered: Histogram<u64>,
}

/// Memory that must be lockable for the server to start (as `ring::probe` checks it).
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Operations of a kernel with all that the executor uses (5.8).
const RING_OPERATIONS_MIN: usize = 32;
/// Memory that may be locked, for rings and their registered memory on two executors.
const MEMLOCK_COMFORTABLE: u64 = 8 << 20;
/// Descriptors for 16,000 clients.
const DESCRIPTORS_COMFORTABLE: u64 = 16_384;
const SOMAXCONN_COMFORTABLE: u64 = 1024;
/// A sync that takes longer than this at its 99th percentile costs elections and user-visible tails.
const SYNC_P99_MAX_NANOS: u64 = 10_000_000;
/// Slower than this a disk is most likely a network's.
const SYNC_P50_NETWORK_NANOS: u64 = 1_000_000;
const BUSY_SHARE_MAX: f64 = 0.2;
const STOLEN_SHARE_MAX: f64 = 0.01;
const FREE_BYTES_MIN: u64 = 1 << 30;

/// All that there is to say, the gravest first.
pub fn findings(facts: &Facts, activity: &Activity, syncs: &Syncs) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.ring(&facts.host);
    findings.limits(&facts.host);
    findings.processor(&facts.host);
    findings.memory(&facts.host);
    findings.filesystem(&facts.filesystem);
    match &facts.disk {
        Some(disk) => {
            findings.disk(disk);
            findings.interrupts(disk, &facts.host);
        }
        None if facts.filesystem.is_memory => {}
        None => findings.advice(
            "disk",
            None,
            "the disk below the directory cannot be found: a network filesystem, or one of several devices".to_owned(),
        ),
    }
    findings.syncs(syncs);
    findings.activity(activity, facts.disk.as_ref());
    let mut all = findings.0;
    all.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
    all
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, grade: Grade, subject: &'static str, file: Option<&'static str>, sentence: String) {
        self.0.push(Finding {
            grade,
            subject,
            sentence,
            file,
        });
    }

    fn good(&mut self, subject: &'static str, sentence: String) {
        self.add(Grade::Good, subject, None, sentence);
    }

    fn advice(&mut self, subject: &'static str, file: Option<&'static str>, sentence: String) {
        self.add(Grade::Advice, subject, file, sentence);
    }

    fn problem(&mut self, subject: &'static str, file: Option<&'static str>, sentence: String) {
        self.add(Grade::Problem, subject, file, sentence);
    }

    fn ring(&mut self, host: &HostFacts) {
        if let Some(obstacle) = &host.ring_obstacle {
            return self.problem("io_uring", Some("sysctl.md"), obstacle.clone());
        }
        let (operations, kernel) = (host.ring_operations, &host.kernel);
        if operations < RING_OPERATIONS_MIN {
            return self.problem(
                "io_uring",
                None,
                format!("Linux {kernel} knows only {operations} operations of io_uring: 5.8 or later is needed"),
            );
        }
        self.good(
            "io_uring",
            format!(
                "Linux {kernel} knows {operations} operations of io_uring (features {:#x})",
                host.ring_features
            ),
        );
    }

    fn limits(&mut self, host: &HostFacts) {
        let (soft, hard) = host.memlock;
        if soft < MEMLOCK_BYTES_MIN {
            self.problem(
                "memlock",
                Some("memlock.md"),
                format!(
                    "only {} KiB of memory may be locked: the server does not start below {} KiB",
                    soft >> 10,
                    MEMLOCK_BYTES_MIN >> 10
                ),
            );
        } else if soft < MEMLOCK_COMFORTABLE {
            self.advice(
                "memlock",
                Some("memlock.md"),
                format!(
                    "{} KiB of memory may be locked ({} at most): with 8192 all direct writes use registered memory",
                    soft >> 10,
                    size_text(hard)
                ),
            );
        } else {
            self.good("memlock", format!("{} of memory may be locked", size_text(soft)));
        }
        let (_, hard) = host.descriptors;
        if hard < DESCRIPTORS_COMFORTABLE {
            self.advice(
                "file limit",
                Some("systemd.md"),
                format!(
                    "{hard} files may be open at the most: clients beyond {} are turned away",
                    hard.saturating_sub(150)
                ),
            );
        } else {
            self.good(
                "file limit",
                format!(
                    "{} files may be open (the server raises its limit from {} itself)",
                    count_text(hard),
                    count_text(host.descriptors.0)
                ),
            );
        }
        match host.somaxconn {
            Some(backlog) if backlog < SOMAXCONN_COMFORTABLE => self.advice(
                "backlog",
                Some("sysctl.md"),
                format!("net.core.somaxconn is {backlog}: when thousands of clients come back at once, most wait a second for their second try"),
            ),
            Some(backlog) => self.good("backlog", format!("net.core.somaxconn is {backlog}")),
            None => {}
        }
    }

    fn processor(&mut self, host: &HostFacts) {
        let fast = ["tsc", "arch_sys_counter"];
        if fast.contains(&host.clock_source.as_str()) || host.clock_source == "kvm-clock" {
            self.good(
                "clock",
                format!("the clock is {}: reading it takes no system call", host.clock_source),
            );
        } else {
            self.advice(
                "clock",
                Some("sysctl.md"),
                format!(
                    "the clock is {}, of {}: each look at it is a system call or worse",
                    host.clock_source, host.clock_sources
                ),
            );
        }
        if host.governors.iter().any(|governor| governor != "performance") {
            self.advice(
                "governor",
                Some("governor.md"),
                format!(
                    "the frequency governor is {}: a core that rested between two requests starts the next one slowly",
                    host.governors.join(", ")
                ),
            );
        } else if host.governors.is_empty() {
            self.good(
                "governor",
                "frequencies are not this kernel's affair (a virtual machine, or fixed)".to_owned(),
            );
        } else {
            self.good("governor", "the frequency governor is performance".to_owned());
        }
        match host.halt_poll_nanos {
            Some(0) => self.advice(
                "idle cores",
                Some("halt-poll.md"),
                "an idle core goes back to the host at once, and a wake-up from another core takes tens of microseconds"
                    .to_owned(),
            ),
            Some(nanos) => self.good(
                "idle cores",
                format!("an idle core looks for work for {} us before it goes back to the host", nanos / 1000),
            ),
            None => {}
        }
        let cores = host.cores.len();
        let isolated = if host.isolated_cores.is_empty() {
            "none is isolated"
        } else {
            "isolated: "
        };
        self.good(
            "cores",
            format!("{cores} cores may be used; {isolated}{}", host.isolated_cores),
        );
        if cores == 1 {
            self.advice(
                "cores",
                Some("profiles/small-vm.yaml"),
                "there is one core: commits of the tree take turns with requests".to_owned(),
            );
        }
    }

    fn memory(&mut self, host: &HostFacts) {
        match host.huge_pages.as_deref() {
            Some("always") => self.advice(
                "huge pages",
                Some("huge-pages.md"),
                "transparent huge pages are always on: the kernel's compaction of memory shows as pauses of milliseconds".to_owned(),
            ),
            Some(setting) => self.good("huge pages", format!("transparent huge pages: {setting}")),
            None => {}
        }
        if host.swap_bytes > 0 {
            self.advice(
                "swap",
                Some("sysctl.md"),
                format!("{} of swap (vm.swappiness {}): a page of the index that was swapped out stops the home core for a disk read", size_text(host.swap_bytes), host.swappiness.unwrap_or(60)),
            );
        } else {
            self.good("swap", "there is no swap".to_owned());
        }
    }

    fn filesystem(&mut self, filesystem: &FilesystemFacts) {
        let kind = &filesystem.kind;
        if filesystem.is_memory {
            self.problem("filesystem", None, format!("the directory is on a RAM disk ({kind}): nothing there survives the machine, and figures say nothing of a disk"));
        } else if filesystem.takes_direct == Some(false) {
            self.problem(
                "filesystem",
                Some("filesystem.md"),
                format!("{kind} does not take O_DIRECT here: the log goes through the page cache"),
            );
        } else if matches!(kind.as_str(), "ext4" | "xfs") {
            let (memory, offset) = filesystem.direct_align;
            self.good(
                "filesystem",
                format!("{kind}, O_DIRECT (alignment {memory} in memory, {offset} on disk; ringd writes 4096)"),
            );
            if offset > 4096 {
                self.problem(
                    "filesystem",
                    Some("filesystem.md"),
                    format!("O_DIRECT asks for offsets aligned to {offset}: the log's blocks of 4096 are refused"),
                );
            }
        } else {
            let takes = if filesystem.takes_direct.is_some() {
                "takes O_DIRECT"
            } else {
                "could not be tried"
            };
            self.advice(
                "filesystem",
                Some("filesystem.md"),
                format!("{kind} {takes}; ringd was measured on ext4 and xfs"),
            );
        }
        let option = |name: &str| filesystem.options.split(',').any(|option| option == name);
        if option("sync") || option("dirsync") || option("data=journal") {
            self.advice(
                "filesystem",
                Some("filesystem.md"),
                format!(
                    "it is mounted with {}: each write costs more than its own sync",
                    filesystem.options
                ),
            );
        }
        if option("nobarrier") || option("barrier=0") {
            self.problem(
                "filesystem",
                Some("filesystem.md"),
                "it is mounted without barriers: what is acknowledged is lost with the power".to_owned(),
            );
        }
        if filesystem.free_bytes < FREE_BYTES_MIN {
            self.problem(
                "space",
                None,
                format!("only {} are free", size_text(filesystem.free_bytes)),
            );
        } else {
            self.good("space", format!("{} are free", size_text(filesystem.free_bytes)));
        }
    }

    fn disk(&mut self, disk: &DiskFacts) {
        let name = &disk.name;
        match (disk.has_write_cache(), disk.has_fua()) {
            (Some(false), _) => self.good(
                "write cache",
                format!("{name} has no volatile write cache: a sync is the write itself"),
            ),
            (Some(true), Some(true)) => self.good(
                "write cache",
                format!("{name} has a write cache and FUA: O_DSYNC is one write that passes the cache"),
            ),
            (Some(true), _) => self.advice(
                "write cache",
                Some("write-cache.md"),
                format!("{name} has a write cache and no FUA: each sync is a write and a flush of the whole cache"),
            ),
            (None, _) => {}
        }
        match disk.scheduler() {
            Some("none") => self.good("scheduler", format!("{name} has no I/O scheduler")),
            Some(scheduler) => self.advice(
                "scheduler",
                Some("block-queue.md"),
                format!("the I/O scheduler of {name} is {scheduler}: it orders and holds requests that a fast disk takes at once"),
            ),
            None => {}
        }
        if let Some(delay) = disk.setting("wbt_lat_usec").and_then(|text| text.parse::<u64>().ok())
            && delay > 0
        {
            self.advice(
                "writeback throttling",
                Some("block-queue.md"),
                format!("writeback of {name} is throttled to keep reads under {delay} us: the tree's commits take longer for it"),
            );
        }
        if disk.setting("rotational") == Some("1") && !name.starts_with("vd") && !name.starts_with("xvd") {
            self.problem(
                "disk",
                None,
                format!("{name} says that it rotates: a sync takes milliseconds there"),
            );
        }
        match (disk.partition_start, disk.setting("physical_block_size").and_then(|text| text.parse::<u64>().ok())) {
            (Some(start), Some(block)) if start % block.max(4096) != 0 => self.problem(
                "alignment",
                Some("filesystem.md"),
                format!("the partition begins at byte {start}, not at a multiple of {}: each block of the log is two of the disk's", block.max(4096)),
            ),
            (Some(start), _) => self.good("alignment", format!("the partition begins at byte {start}")),
            (None, _) => self.good("alignment", "the filesystem is on the whole disk".to_owned()),
        }
    }

    fn interrupts(&mut self, disk: &DiskFacts, host: &HostFacts) {
        let (name, home) = (&disk.name, disk.home_core);
        if disk.interrupt_cores.is_empty() {
            return self.advice(
                "interrupts",
                Some("irq-affinity.md"),
                format!("which cores serve {name} cannot be found out: choose a core with --cores by measuring"),
            );
        }
        let cores = list_text(&disk.interrupt_cores);
        if disk.home_serves_disk {
            self.good(
                "interrupts",
                format!("core {cores} serves {name}; ringd would make core {home} its home"),
            );
        } else {
            self.advice("interrupts", Some("irq-affinity.md"), format!("core {cores} serves {name}, and this process may not run there: each sync waits for a word from another core"));
        }
        if host.has_irqbalance {
            self.advice(
                "interrupts",
                Some("irq-affinity.md"),
                "irqbalance runs, and may move the disk's interrupt away from the home core".to_owned(),
            );
        }
    }

    fn syncs(&mut self, syncs: &Syncs) {
        let text = |name: &str, times: &Histogram<u64>| {
            let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
            format!(
                "{name}: p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0} us",
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                times.max() as f64 / 1000.0
            )
        };
        let buffered = text("a 4 KiB write and fdatasync, as etcd does it", &syncs.buffered);
        let Some(dsync) = &syncs.dsync else {
            return self.good("sync", buffered);
        };
        let sentence = text("a 4 KiB write with O_DSYNC", dsync);
        match dsync.value_at_quantile(0.99) > SYNC_P99_MAX_NANOS {
            true => self.problem(
                "sync",
                Some("block-queue.md"),
                format!("{sentence}: too slow for a heartbeat of 100 ms with room to spare"),
            ),
            false => self.good("sync", sentence),
        }
        if let Some(then) = &syncs.write_then_sync {
            let at = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64;
            let sentence = text("a direct write, then fdatasync", then);
            // The median is what quiet costs, the 99th percentile what competition does.
            let is_better = at(then, 0.99) * 1.5 < at(dsync, 0.99) && at(then, 0.5) < at(dsync, 0.5) * 1.3;
            match is_better {
                true => self.advice(
                    "sync",
                    Some("wal-sync.md"),
                    format!("{sentence}: better than O_DSYNC here, which --wal-sync=auto finds out by itself"),
                ),
                false => self.good("sync", sentence),
            }
        }
        self.good("sync", buffered);
    }

    fn activity(&mut self, activity: &Activity, disk: Option<&DiskFacts>) {
        if let Some(disk) = disk {
            let (name, share) = (&disk.name, 100.0 * activity.disk_busy_share);
            let users: Vec<String> = activity
                .users
                .iter()
                .map(|(pid, comm, rate)| format!("{comm} ({pid}) {}/s", size_text(*rate as u64)))
                .collect();
            let who = if users.is_empty() {
                "nobody that can be seen".to_owned()
            } else {
                users.join(", ")
            };
            let sentence = format!(
                "others kept {name} busy for {share:.0} % of the time, {:.0} reads and {:.0} writes a second, by {who}",
                activity.disk_reads_per_second, activity.disk_writes_per_second
            );
            match activity.disk_busy_share > BUSY_SHARE_MAX {
                true => self.advice("other load", Some("systemd.md"), sentence),
                false => self.good("other load", sentence),
            }
            let home = activity
                .core_busy_shares
                .iter()
                .find(|(core, _)| *core == disk.home_core);
            if let Some((core, share)) = home
                && *share > BUSY_SHARE_MAX
            {
                self.advice("home core", Some("irq-affinity.md"), format!("core {core}, which would be home, was busy with others for {:.0} % of the time: --wal-sync=fdatasync has the shorter tails then", 100.0 * share));
            }
        }
        if activity.stolen_share > STOLEN_SHARE_MAX {
            self.advice(
                "steal",
                None,
                format!(
                    "the hypervisor kept back {:.1} % of the processor time: no setting in here mends that",
                    100.0 * activity.stolen_share
                ),
            );
        }
    }
}

/// A profile to begin with, and why.
pub fn profile(facts: &Facts, syncs: &Syncs) -> (&'static str, String) {
    let host = &facts.host;
    let gib = host.memory_bytes >> 30;
    let p50 = syncs.dsync.as_ref().unwrap_or(&syncs.buffered).value_at_quantile(0.5);
    if host.cores.len() <= 2 || gib < 4 {
        return ("small-vm", format!("{} cores and {gib} GiB", host.cores.len()));
    }
    if p50 > SYNC_P50_NETWORK_NANOS {
        return (
            "throughput",
            format!("a sync takes {} us: batches pay more than anything else", p50 / 1000),
        );
    }
    match host.cores.len() >= 4 && !host.is_virtual {
        true => (
            "latency",
            format!(
                "{} cores of a machine of its own, and a sync takes {} us",
                host.cores.len(),
                p50 / 1000
            ),
        ),
        false => (
            "balanced",
            format!("{} cores that may be shared with others", host.cores.len()),
        ),
    }
}

/// For people.
pub fn print(facts: &Facts, findings: &[Finding], profile: &(&str, String)) -> String {
    let mut text = format!("{}\n\n", facts.line());
    for finding in findings {
        let mark = match finding.grade {
            Grade::Good => "good   ",
            Grade::Advice => "ADVICE ",
            Grade::Problem => "PROBLEM",
        };
        let file = finding.file.map_or(String::new(), |file| format!(" [tuning/{file}]"));
        text.push_str(&format!("{mark}  {}: {}{file}\n", finding.subject, finding.sentence));
    }
    let (name, reason) = profile;
    text.push_str(&format!("\nprofile to begin with: tuning/profiles/{name}.yaml ({reason}); kubernetes.yaml and cross-zone.yaml are for what no machine can tell by itself\n"));
    text
}

/// For programs.
pub fn json(facts: &Facts, findings: &[Finding], profile: &(&str, String)) -> Json {
    let finding = |finding: &Finding| {
        Json::object([
            ("grade", Json::text(&format!("{:?}", finding.grade).to_lowercase())),
            ("subject", Json::text(finding.subject)),
            ("sentence", Json::text(&finding.sentence)),
            (
                "file",
                finding
                    .file
                    .map_or(Json::Null, |file| Json::text(&format!("tuning/{file}"))),
            ),
        ])
    };
    Json::object([
        ("machine", facts.json()),
        ("findings", Json::Array(findings.iter().map(finding).collect())),
        ("profile", Json::text(profile.0)),
    ])
}

fn size_text(bytes: u64) -> String {
    match bytes {
        u64::MAX => "any amount".to_owned(),
        bytes if bytes >= 10 << 30 => format!("{} GiB", bytes >> 30),
        bytes if bytes >= 10 << 20 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}

fn count_text(count: u64) -> String {
    match count {
        u64::MAX => "any number of".to_owned(),
        count => count.to_string(),
    }
}

fn list_text(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
