//! Reads what the kernel says of this machine, below a root that tests replace. Changes nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{placement, probe, system};
use crate::doctor::{Activity, DiskFacts, Facts, FilesystemFacts, HostFacts, facts::chosen};

/// Settings of a disk's queue that are worth showing.
const QUEUE_SETTINGS: &[&str] = &[
    "scheduler",
    "write_cache",
    "fua",
    "rotational",
    "logical_block_size",
    "physical_block_size",
    "dma_alignment",
    "nr_requests",
    "rq_affinity",
    "nomerges",
    "wbt_lat_usec",
    "io_poll",
    "max_sectors_kb",
];
/// Bytes of a sector, as the kernel counts partitions.
const SECTOR_BYTES: u64 = 512;

/// All of it. `root` is `/`.
///
/// # Errors
/// When the directory cannot be read.
pub fn read(root: &Path, directory: &Path) -> std::io::Result<Facts> {
    let file = File::open(directory)?;
    let (major, minor) = system::device_of(&file)?;
    let disk = disk(root, directory, major, minor);
    let mut filesystem = filesystem(root, directory, &file, (major, minor));
    if let Some(disk) = &disk {
        filesystem.is_memory |= disk.name.starts_with("ram") || disk.name.starts_with("zram");
    }
    Ok(Facts {
        host: host(root),
        filesystem,
        disk,
    })
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path).parse().ok()
}

fn host(root: &Path) -> HostFacts {
    let at = |path: &str| root.join(path);
    let processor_text = text(at("proc/cpuinfo"));
    let field = |name: &str| {
        let line = processor_text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory_text = text(at("proc/meminfo"));
    let memory = |name: &str| {
        let line = memory_text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    let clock = at("sys/devices/system/clocksource/clocksource0");
    let (ring_operations, ring_features) = system::ring_abilities().unwrap_or_default();
    HostFacts {
        kernel: text(at("proc/sys/kernel/osrelease")),
        processor: field("model name"),
        cores: placement::allowed_cores().map_or_else(|_| Vec::new(), |cores| cores.into_iter().collect()),
        isolated_cores: text(at("sys/devices/system/cpu/isolated")),
        is_virtual: field("flags").split_whitespace().any(|flag| flag == "hypervisor"),
        memory_bytes: memory("MemTotal:"),
        swap_bytes: memory("SwapTotal:"),
        clock_source: text(clock.join("current_clocksource")),
        clock_sources: text(clock.join("available_clocksource")),
        governors: governors(root),
        halt_poll_nanos: (text(at("sys/devices/system/cpu/cpuidle/current_governor")) == "haltpoll")
            .then(|| number(at("sys/module/haltpoll/parameters/guest_halt_poll_ns")))
            .flatten(),
        huge_pages: chosen(&text(at("sys/kernel/mm/transparent_hugepage/enabled"))).map(str::to_owned),
        ring_obstacle: probe::check_ring().err().map(|obstacle| obstacle.to_string()),
        ring_operations,
        ring_features,
        memlock: system::resource_limit(libc::RLIMIT_MEMLOCK).unwrap_or_default(),
        descriptors: system::resource_limit(libc::RLIMIT_NOFILE).unwrap_or_default(),
        somaxconn: number(at("proc/sys/net/core/somaxconn")),
        swappiness: number(at("proc/sys/vm/swappiness")),
        has_irqbalance: processes(root).any(|(pid, _)| text(root.join(format!("proc/{pid}/comm"))) == "irqbalance"),
    }
}

fn governors(root: &Path) -> Vec<String> {
    let mut governors: Vec<String> = fs::read_dir(root.join("sys/devices/system/cpu"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cpufreq/scaling_governor")).ok())
        .map(|governor| governor.trim().to_owned())
        .collect();
    governors.sort();
    governors.dedup();
    governors
}

fn filesystem(root: &Path, directory: &Path, file: &File, device: (u32, u32)) -> FilesystemFacts {
    let (kind, source, options) = mount_of(&text(root.join("proc/self/mountinfo")), device).unwrap_or_default();
    FilesystemFacts {
        is_memory: matches!(kind.as_str(), "tmpfs" | "ramfs"),
        free_bytes: system::free_bytes(file).unwrap_or(0),
        takes_direct: probe::takes_direct(directory).ok(),
        direct_align: direct_align(directory),
        kind,
        source,
        options,
    }
}

/// The type, source and options of the filesystem on a device. A line of mountinfo: id, parent, device, root, mount point,
/// options, tags …, `-`, type, source, super options.
fn mount_of(mountinfo: &str, (major, minor): (u32, u32)) -> Option<(String, String, String)> {
    let device = format!("{major}:{minor}");
    let line = mountinfo
        .lines()
        .find(|line| line.split_whitespace().nth(2) == Some(&device))?;
    let (mount, rest) = line.split_once(" - ")?;
    let mut rest = rest.split_whitespace();
    let (kind, source) = (rest.next()?, rest.next()?);
    let options = [mount.split_whitespace().nth(5)?, rest.next().unwrap_or("")].join(",");
    Some((kind.to_owned(), source.to_owned(), options))
}

/// What O_DIRECT asks of memory and offsets; only a file has an answer.
fn direct_align(directory: &Path) -> (u32, u32) {
    let path = directory.join(format!(".align.{}.tmp", std::process::id()));
    let align = File::create_new(&path).and_then(|file| system::direct_align(&file));
    // Nothing of ours stays, whatever the answer.
    let _removed = fs::remove_file(&path);
    align.unwrap_or_default()
}

fn disk(root: &Path, directory: &Path, major: u32, minor: u32) -> Option<DiskFacts> {
    let device = fs::canonicalize(root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
    let path: PathBuf = placement::disk_of_device(root, major, minor)?;
    let name = path.file_name()?.to_str()?.to_owned();
    let queues = placement::queues_of(root, directory);
    let mut interrupt_cores: Vec<usize> = queues.iter().flat_map(|queue| queue.servers.clone()).collect();
    interrupt_cores.sort_unstable();
    interrupt_cores.dedup();
    let cores = placement::allowed_cores().ok()?;
    let chosen = placement::choose(&cores, &queues);
    let setting = |name: &&str| {
        let value = text(path.join("queue").join(name));
        (!value.is_empty()).then(|| ((*name).to_owned(), value))
    };
    Some(DiskFacts {
        model: text(path.join("device/model")),
        queue: QUEUE_SETTINGS.iter().filter_map(setting).collect(),
        partition_start: device
            .join("partition")
            .exists()
            .then(|| number(device.join("start")).map(|sectors| sectors * SECTOR_BYTES))
            .flatten(),
        queues: queues.len(),
        interrupt_cores,
        home_core: chosen.home,
        home_serves_disk: chosen.serves_disk,
        name,
    })
}

fn processes(root: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten();
    entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}

/// Counters at one moment.
struct Sample {
    at: Instant,
    disk: DiskCounters,
    /// Bytes that each process has had the disk read and write.
    users: BTreeMap<u32, u64>,
    /// Ticks busy, stolen and in all, by core.
    cores: BTreeMap<usize, (u64, u64, u64)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct DiskCounters {
    busy_millis: u64,
    reads: u64,
    writes: u64,
}

/// Watches for a while what others do. `disk` is the disk's name.
pub fn watch(root: &Path, disk: Option<&str>, length: Duration) -> Activity {
    let before = sample(root, disk);
    thread::sleep(length);
    let after = sample(root, disk);
    let elapsed = after.at - before.at;
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let own = std::process::id();
    let mut users: Vec<(u32, String, f64)> = after
        .users
        .iter()
        .filter(|(pid, _)| **pid != own)
        .filter_map(|(pid, bytes)| {
            let moved = bytes.saturating_sub(*before.users.get(pid)?);
            let name = text(root.join(format!("proc/{pid}/comm")));
            (moved > 0).then(|| (*pid, name, moved as f64 / seconds))
        })
        .collect();
    users.sort_by(|one, other| other.2.total_cmp(&one.2));
    users.truncate(3);
    let mut core_busy_shares = Vec::new();
    let (mut stolen, mut all) = (0, 0);
    for (core, (busy, steal, total)) in &after.cores {
        let (busy_before, steal_before, total_before) = before.cores.get(core).copied().unwrap_or_default();
        let ticks = total.saturating_sub(total_before);
        stolen += steal.saturating_sub(steal_before);
        all += ticks;
        let share = busy.saturating_sub(busy_before) as f64 / ticks.max(1) as f64;
        core_busy_shares.push((*core, share));
    }
    let since =
        |counter: fn(&DiskCounters) -> u64| counter(&after.disk).saturating_sub(counter(&before.disk)) as f64 / seconds;
    Activity {
        elapsed,
        disk_busy_share: since(|disk| disk.busy_millis) / 1000.0,
        disk_reads_per_second: since(|disk| disk.reads),
        disk_writes_per_second: since(|disk| disk.writes),
        users,
        core_busy_shares,
        stolen_share: stolen as f64 / all.max(1) as f64,
    }
}

fn sample(root: &Path, disk: Option<&str>) -> Sample {
    let moved = |path: &Path| {
        let io = fs::read_to_string(path.join("io")).ok()?;
        let counter = |name| {
            io.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        Some(counter("read_bytes:")? + counter("write_bytes:")?)
    };
    Sample {
        at: Instant::now(),
        disk: disk_counters(&text(root.join("proc/diskstats")), disk.unwrap_or("")),
        users: processes(root)
            .filter_map(|(pid, path)| Some((pid, moved(&path)?)))
            .collect(),
        cores: core_counters(&text(root.join("proc/stat"))),
    }
}

/// Of the counters behind the name the 1st, the 5th and the 10th (the kernel's `iostats.rst`).
fn disk_counters(diskstats: &str, disk: &str) -> DiskCounters {
    let fields = diskstats.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(2) == Some(&disk)).then_some(fields)
    });
    let counter = |at: usize| fields.as_ref()?.get(at)?.parse().ok();
    DiskCounters {
        reads: counter(3).unwrap_or(0),
        writes: counter(7).unwrap_or(0),
        busy_millis: counter(12).unwrap_or(0),
    }
}

/// Ticks busy, stolen and in all. Columns: user, nice, system, idle, iowait, irq, softirq, steal.
fn core_counters(stat: &str) -> BTreeMap<usize, (u64, u64, u64)> {
    let core = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let core = name.strip_prefix("cpu")?.parse().ok()?;
        let ticks: Vec<u64> = rest
            .split_whitespace()
            .map_while(|tick| tick.parse().ok())
            .take(8)
            .collect();
        let all: u64 = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        let stolen = ticks.get(7).copied().unwrap_or(0);
        Some((core, (all - idle, stolen, all)))
    };
    stat.lines().filter_map(core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read() {
        let mountinfo = "22 27 0:21 / /proc rw - proc proc rw\n30 1 259:2 / /mnt rw,noatime shared:1 - xfs /dev/nvme0n1p2 \
                         rw,attr2\n";
        let expected = (
            "xfs".to_owned(),
            "/dev/nvme0n1p2".to_owned(),
            "rw,noatime,rw,attr2".to_owned(),
        );
        assert_eq!(mount_of(mountinfo, (259, 2)), Some(expected));
        assert_eq!(mount_of(mountinfo, (9, 9)), None);
        let diskstats = "   7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n 254 0 vda 29 13 25 45 3204749 40 41 13 0 394852 59\n";
        let told = DiskCounters {
            busy_millis: 394_852,
            reads: 29,
            writes: 3_204_749,
        };
        assert_eq!(disk_counters(diskstats, "vda"), told);
        assert_eq!(disk_counters(diskstats, "sda"), DiskCounters::default());
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 10 1 5 100 20 1 2 3 0 0\nintr 5\n";
        assert_eq!(core_counters(stat), BTreeMap::from([(0, (22, 3, 142))]));
        assert_eq!(chosen("none [mq-deadline] kyber"), Some("mq-deadline"));
        assert_eq!(chosen("none"), None);
    }

    #[test]
    fn this_machine_has_facts_and_a_ram_disk_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let facts = read(Path::new("/"), scratch.path()).unwrap();
        assert!(!facts.host.cores.is_empty() && facts.host.memory_bytes > 1 << 20);
        assert!(!facts.host.kernel.is_empty() && facts.host.ring_obstacle.is_none());
        assert!(facts.host.ring_operations > 27, "{}", facts.host.ring_operations);
        assert_eq!(
            fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
        if Path::new("/dev/shm").is_dir() {
            let memory = read(Path::new("/"), Path::new("/dev/shm")).unwrap();
            assert!(memory.filesystem.is_memory, "{memory:?}");
            assert!(memory.line().contains("A RAM DISK"));
        }
    }

    #[test]
    fn somebody_who_writes_is_seen() {
        let activity = watch(Path::new("/"), None, Duration::from_millis(50));
        assert!(activity.elapsed >= Duration::from_millis(50));
        assert!(
            activity
                .core_busy_shares
                .iter()
                .all(|(_, share)| (0.0..=1.0).contains(share))
        );
    }
}
