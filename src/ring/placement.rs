//! Which core does what: the operator's list of cores, and among them the home core, which is the one that serves the
//! data disk's interrupts. A durable write issued on that core is about a third faster: its completion needs no word
//! from another core.
//!
//! ```text
//!   directory ─▶ device 254:1 ─▶ /sys/dev/block/254:1 ─▶ disk vda (past partitions, and down through dm and md)
//!   vda/mq/0/cpu_list     "0, 1"          cores whose requests go through hardware queue 0
//!   vda/device            virtio1         its driver's name for it
//!   /proc/interrupts      36: virtio1-req.0                  the interrupt of that queue
//!   /proc/irq/36/effective_affinity_list  1                  the core that serves it: home
//! ```
//!
//! Parsing and choosing are pure; [`queues_of`] alone reads the system, below a root that tests replace.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::system;

/// Cores as a set, in order.
pub type CoreSet = BTreeSet<usize>;

/// Highest core number that a list may name: a typing error must not become a set of billions.
const CORE_MAX: usize = 4095;

/// A hardware queue of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskQueue {
    /// Cores whose requests go through it.
    pub submitters: CoreSet,
    /// Cores that its interrupt is delivered to; empty if unknown.
    pub servers: CoreSet,
}

/// Roles of the cores, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The core of raft and the log.
    pub home: usize,
    /// The other cores that may be used.
    pub others: Vec<usize>,
    /// Whether `home` was chosen for the disk's interrupts.
    pub serves_disk: bool,
}

/// Reads a list such as `0,2-5` (the kernel's format, which `--cores` takes too). Spaces around numbers are allowed.
pub fn parse_cores(list: &str) -> Result<CoreSet, String> {
    let mut cores = CoreSet::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = text.trim();
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let parsed = is_plain.then(|| digits.parse::<usize>().ok()).flatten();
            parsed
                .filter(|&core| core <= CORE_MAX)
                .ok_or_else(|| format!("{text:?} is not a core number"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} is not a range of cores"));
        }
        cores.extend(first..=last);
    }
    if cores.is_empty() {
        return Err(format!("{list:?} names no core"));
    }
    Ok(cores)
}

/// The cores to use: those the operator asked for, or all that the process may use. Asking for one that it may not use
/// is an error.
pub fn usable_cores(asked: Option<&str>, allowed: &CoreSet) -> Result<CoreSet, String> {
    let Some(asked) = asked else {
        return Ok(allowed.clone());
    };
    let cores = parse_cores(asked)?;
    match cores.difference(allowed).next() {
        Some(core) => Err(format!("core {core} is not one that this process may run on")),
        None => Ok(cores),
    }
}

/// Chooses the home core among `cores`: one whose own requests complete on it; else one that serves some queue of the
/// disk; else the first. Where several would do, core 0 is passed over, since it is busy with the rest of the machine.
pub fn choose(cores: &CoreSet, queues: &[DiskQueue]) -> Placement {
    assert!(!cores.is_empty());
    let completes_at_home = |core: &usize| {
        let mut mine = queues.iter().filter(|queue| queue.submitters.contains(core));
        mine.any(|queue| queue.servers.contains(core))
    };
    let serves_any = |core: &usize| queues.iter().any(|queue| queue.servers.contains(core));
    let best = pick(cores, completes_at_home).or_else(|| pick(cores, serves_any));
    let home = best.unwrap_or_else(|| *cores.first().expect("not empty"));
    Placement {
        home,
        others: cores.iter().copied().filter(|&core| core != home).collect(),
        serves_disk: best.is_some(),
    }
}

fn pick(cores: &CoreSet, fits: impl Fn(&usize) -> bool) -> Option<usize> {
    let fitting = || cores.iter().copied().filter(|core| fits(core));
    fitting().find(|&core| core != 0).or_else(|| fitting().next())
}

/// An interrupt's number and the hardware queue that it is for, from `/proc/interrupts`; `None` as queue when the disk
/// has one interrupt for all. `driver` is the driver's name of the disk (`virtio1`, `nvme0`).
pub fn disk_interrupts(interrupts: &str, driver: &str) -> Vec<(u32, Option<usize>)> {
    let mut found = Vec::new();
    for line in interrupts.lines() {
        let Some((number, rest)) = line.split_once(':') else {
            continue;
        };
        let (Ok(number), Some(name)) = (number.trim().parse(), rest.split_whitespace().last()) else {
            continue;
        };
        if let Some(queue) = interrupt_queue(name, driver) {
            found.push((number, queue));
        }
    }
    found
}

/// Which queue an interrupt called `name` serves: `virtio1-req.0` and `nvme0q1` are queue 0, `virtio1-requests` and a
/// bare `virtio1` (memory-mapped virtio) are all queues'; the rest (`virtio1-config`, nvme's queue 0 for commands to the
/// controller) is nobody's.
fn interrupt_queue(name: &str, driver: &str) -> Option<Option<usize>> {
    let rest = name.strip_prefix(driver)?;
    if rest.is_empty() || rest == "-requests" || rest == "-req" {
        return Some(None);
    }
    if let Some(queue) = rest.strip_prefix("-req.") {
        return queue.parse().ok().map(Some);
    }
    let queue: usize = rest.strip_prefix('q')?.parse().ok()?;
    queue.checked_sub(1).map(Some)
}

/// The hardware queues of the disk that holds `directory`; none if that cannot be found out. `root` is `/`.
pub fn queues_of(root: &Path, directory: &Path) -> Vec<DiskQueue> {
    let device = fs::File::open(directory).and_then(|file| system::device_of(&file));
    let Ok((major, minor)) = device else {
        return Vec::new();
    };
    disk_of_device(root, major, minor).map_or_else(Vec::new, |disk| queues_of_disk(root, &disk))
}

/// The whole disk below a device: a partition's disk, and the first disk that a dm or md device is made of.
pub(super) fn disk_of_device(root: &Path, major: u32, minor: u32) -> Option<PathBuf> {
    let entry = root.join(format!("sys/dev/block/{major}:{minor}"));
    let mut device = fs::canonicalize(entry).ok()?;
    // dm over md over a partition is four steps; whatever goes on for longer is no tree.
    for _ in 0..8 {
        if device.join("partition").exists() {
            device = device.parent()?.to_owned();
        }
        let mut below: Vec<PathBuf> = fs::read_dir(device.join("slaves"))
            .into_iter()
            .flatten()
            .filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok())
            .collect();
        below.sort();
        match below.into_iter().next() {
            Some(next) => device = next,
            None => return Some(device),
        }
    }
    None
}

fn queues_of_disk(root: &Path, disk: &Path) -> Vec<DiskQueue> {
    let mut queues: Vec<(usize, DiskQueue)> = fs::read_dir(disk.join("mq"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let submitters = parse_cores(&fs::read_to_string(entry.path().join("cpu_list")).ok()?).ok()?;
            let servers = CoreSet::new();
            Some((number, DiskQueue { submitters, servers }))
        })
        .collect();
    queues.sort_by_key(|(number, _)| *number);
    let interrupts = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    for (interrupt, of_queue) in driver_of_disk(disk).map_or_else(Vec::new, |name| disk_interrupts(&interrupts, &name))
    {
        let Ok(servers) = interrupt_servers(root, interrupt) else {
            continue;
        };
        for (number, queue) in &mut queues {
            if of_queue.is_none_or(|served| served == *number) {
                queue.servers.extend(&servers);
            }
        }
    }
    queues.into_iter().map(|(_, queue)| queue).collect()
}

/// The driver's name of a disk: of nvme the controller, of others the device that the disk hangs on.
fn driver_of_disk(disk: &Path) -> Option<String> {
    let device = fs::canonicalize(disk.join("device")).ok()?;
    let name = device.file_name()?.to_str()?;
    Some(name.to_owned())
}

fn interrupt_servers(root: &Path, interrupt: u32) -> io::Result<CoreSet> {
    let directory = root.join(format!("proc/irq/{interrupt}"));
    let list = fs::read_to_string(directory.join("effective_affinity_list"))
        .or_else(|_| fs::read_to_string(directory.join("smp_affinity_list")))?;
    parse_cores(&list).map_err(io::Error::other)
}

/// The cores that this process may run on.
pub fn allowed_cores() -> io::Result<CoreSet> {
    system::affinity()
}

/// Keeps this thread to `cores`; threads that it starts inherit that.
pub fn keep_to(cores: &CoreSet) -> io::Result<()> {
    system::set_affinity(cores)
}

/// For fuzzing: whatever the text, a list is refused or within bounds, and interrupts are found without a panic.
pub fn fuzz_placement(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(cores) = parse_cores(&text) {
        assert!(!cores.is_empty() && cores.iter().all(|&core| core <= CORE_MAX));
        let list: Vec<String> = cores.iter().map(ToString::to_string).collect();
        assert_eq!(parse_cores(&list.join(",")), Ok(cores));
    }
    for driver in ["virtio1", "nvme0", ""] {
        disk_interrupts(&text, driver);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set(cores: &[usize]) -> CoreSet {
        cores.iter().copied().collect()
    }

    fn queue(submitters: &[usize], servers: &[usize]) -> DiskQueue {
        DiskQueue {
            submitters: set(submitters),
            servers: set(servers),
        }
    }

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cores("0"), Ok(set(&[0])));
        assert_eq!(parse_cores("0, 1\n"), Ok(set(&[0, 1])));
        assert_eq!(parse_cores("7,2-4,3"), Ok(set(&[2, 3, 4, 7])));
        for wrong in ["", ",", "a", "-1", "3-", "4-2", "1-2-3", "+1", "99999", "0x1", "1 2"] {
            assert!(parse_cores(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn cores_that_may_not_be_used_are_refused() {
        let allowed = set(&[1, 2, 3]);
        assert_eq!(usable_cores(None, &allowed), Ok(allowed.clone()));
        assert_eq!(usable_cores(Some("2-3"), &allowed), Ok(set(&[2, 3])));
        let error = usable_cores(Some("0,1"), &allowed).unwrap_err();
        assert_eq!(error, "core 0 is not one that this process may run on");
    }

    #[test]
    fn home_is_where_the_disks_interrupts_are_served() {
        let one_queue = [queue(&[0, 1], &[1])];
        assert_eq!(choose(&set(&[0, 1]), &one_queue).home, 1);
        let restricted = choose(&set(&[0]), &one_queue);
        assert_eq!((restricted.home, restricted.serves_disk), (0, false));
        let per_core: Vec<_> = (0..4).map(|core| queue(&[core], &[core])).collect();
        assert_eq!(choose(&set(&[0, 1, 2, 3]), &per_core).home, 1, "core 0 is passed over");
        assert_eq!(choose(&set(&[0]), &per_core).home, 0);
        let crossed = [queue(&[0, 1], &[2]), queue(&[2, 3], &[3])];
        assert_eq!(
            choose(&set(&[0, 1, 2, 3]), &crossed).home,
            3,
            "its own completions, not another's"
        );
        let unknown = choose(&set(&[4, 5]), &[]);
        assert_eq!((unknown.home, unknown.others, unknown.serves_disk), (4, vec![5], false));
    }

    #[test]
    fn interrupts_are_matched_by_the_drivers_name_for_the_disk() {
        let interrupts = "            CPU0       CPU1
 35:          0          1  PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
 36:          0     145987  PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 37:          0          3  PCI-MSIX-0000:00:02.0   2-edge      virtio11-req.0
 40:          1          0  IO-APIC   5-edge      virtio3
 50:          1          0  PCI-MSIX-0000:01:00.0   0-edge      nvme0q0
 51:          1          0  PCI-MSIX-0000:01:00.0   1-edge      nvme0q1
 52:          1          0  PCI-MSIX-0000:01:00.0   2-edge      nvme0q12
NMI:          0          0   Non-maskable interrupts
";
        assert_eq!(disk_interrupts(interrupts, "virtio1"), [(36, Some(0))]);
        assert_eq!(disk_interrupts(interrupts, "virtio3"), [(40, None)]);
        assert_eq!(disk_interrupts(interrupts, "nvme0"), [(51, Some(0)), (52, Some(11))]);
        assert_eq!(disk_interrupts(interrupts, "sda"), []);
    }

    #[test]
    fn the_disk_is_found_below_partitions_and_mapped_devices() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let disk = at("sys/devices/pci/nvme/nvme0/nvme0n1");
        for (directory, list) in [("mq/0", "0, 1"), ("mq/1", "2, 3")] {
            fs::create_dir_all(disk.join(directory)).unwrap();
            fs::write(disk.join(directory).join("cpu_list"), list).unwrap();
        }
        symlink("../../nvme0", disk.join("device")).unwrap();
        fs::create_dir_all(disk.join("nvme0n1p2")).unwrap();
        fs::write(disk.join("nvme0n1p2/partition"), "2").unwrap();
        let mapped = at("sys/devices/virtual/block/dm-0");
        fs::create_dir_all(mapped.join("slaves")).unwrap();
        symlink(disk.join("nvme0n1p2"), mapped.join("slaves/nvme0n1p2")).unwrap();
        fs::create_dir_all(at("sys/dev/block")).unwrap();
        symlink(&mapped, at("sys/dev/block/253:0")).unwrap();
        fs::create_dir_all(at("proc/irq/51")).unwrap();
        fs::create_dir_all(at("proc/irq/52")).unwrap();
        fs::write(at("proc/interrupts"), " 51: 0 0 x nvme0q1\n 52: 0 0 x nvme0q2\n").unwrap();
        fs::write(at("proc/irq/51/effective_affinity_list"), "0\n").unwrap();
        fs::write(at("proc/irq/52/smp_affinity_list"), "2-3\n").unwrap();

        assert_eq!(
            disk_of_device(root.path(), 253, 0),
            Some(fs::canonicalize(&disk).unwrap())
        );
        assert_eq!(disk_of_device(root.path(), 8, 1), None);
        let queues = queues_of_disk(root.path(), &disk);
        assert_eq!(queues, [queue(&[0, 1], &[0]), queue(&[2, 3], &[2, 3])]);
        assert_eq!(choose(&set(&[0, 1, 2, 3]), &queues).home, 2);
    }

    #[test]
    fn this_machine_can_be_asked() {
        let allowed = allowed_cores().unwrap();
        assert!(!allowed.is_empty());
        let placement = choose(&allowed, &queues_of(Path::new("/"), &std::env::temp_dir()));
        assert!(allowed.contains(&placement.home));
        assert_eq!(placement.others.len() + 1, allowed.len());
    }

    #[test]
    fn seeded_bytes_do_not_confuse_the_parsers() {
        let alphabet = b"0123456789,- \n:qvirtionvme.-abc";
        let mut state = 7u64;
        for _ in 0..1000 {
            let bytes: Vec<u8> = (0..state % 64)
                .map(|_| {
                    state = state
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            fuzz_placement(&bytes);
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state ^= state >> 29;
        }
    }
}
