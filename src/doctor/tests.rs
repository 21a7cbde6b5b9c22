//! A machine with nothing to mend, and one fault after the other.

use hdrhistogram::Histogram;

use super::*;
use crate::bench::tally;

fn times(nanos: u64) -> Histogram<u64> {
    let mut times = tally::histogram();
    times.record_n(nanos, 1000).unwrap();
    times
}

fn syncs(nanos: u64) -> Syncs {
    Syncs {
        dsync: Some(times(nanos)),
        write_then_sync: Some(times(nanos)),
        buffered: times(nanos),
    }
}

/// A machine with nothing to mend.
fn sound() -> Facts {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Facts {
        host: HostFacts {
            kernel: "6.12.0".to_owned(),
            cores: (0..8).collect(),
            memory_bytes: 32 << 30,
            clock_source: "tsc".to_owned(),
            governors: vec!["performance".to_owned()],
            huge_pages: Some("madvise".to_owned()),
            ring_operations: 58,
            memlock: (u64::MAX, u64::MAX),
            descriptors: (1024, 1 << 20),
            somaxconn: Some(4096),
            ..HostFacts::default()
        },
        filesystem: FilesystemFacts {
            kind: "xfs".to_owned(),
            options: "rw,noatime".to_owned(),
            free_bytes: 100 << 30,
            takes_direct: Some(true),
            direct_align: (4, 512),
            ..FilesystemFacts::default()
        },
        disk: Some(DiskFacts {
            name: "nvme0n1".to_owned(),
            queue: vec![
                setting("scheduler", "[none] mq-deadline"),
                setting("write_cache", "write through"),
                setting("fua", "0"),
                setting("rotational", "0"),
                setting("wbt_lat_usec", "0"),
                setting("physical_block_size", "4096"),
            ],
            partition_start: Some(1 << 20),
            queues: 8,
            interrupt_cores: (0..8).collect(),
            home_core: 1,
            home_serves_disk: true,
            ..DiskFacts::default()
        }),
    }
}

fn of(facts: &Facts, activity: &Activity, syncs: &Syncs) -> Vec<(Grade, &'static str, Option<&'static str>)> {
    findings(facts, activity, syncs)
        .into_iter()
        .filter(|finding| finding.grade > Grade::Good)
        .map(|finding| (finding.grade, finding.subject, finding.file))
        .collect()
}

#[test]
fn a_sound_machine_has_nothing_to_mend() {
    assert_eq!(of(&sound(), &Activity::default(), &syncs(30_000)), []);
    assert_eq!(profile(&sound(), &syncs(30_000)).0, "latency");
}

#[test]
fn each_fault_is_found_and_named_alone() {
    type Change = fn(&mut Facts);
    let setting = |facts: &mut Facts, name: &str, value: &str| {
        let queue = &mut facts.disk.as_mut().unwrap().queue;
        queue.iter_mut().find(|(known, _)| known == name).unwrap().1 = value.to_owned();
    };
    let _ = setting;
    let changes: [(Change, Grade, &str, Option<&str>); 17] = [
        (
            |facts| facts.host.ring_obstacle = Some("no".to_owned()),
            Grade::Problem,
            "io_uring",
            Some("sysctl.md"),
        ),
        (
            |facts| facts.host.ring_operations = 20,
            Grade::Problem,
            "io_uring",
            None,
        ),
        (
            |facts| facts.host.memlock = (65_536, 65_536),
            Grade::Problem,
            "memlock",
            Some("memlock.md"),
        ),
        (
            |facts| facts.host.memlock = (1 << 20, 1 << 20),
            Grade::Advice,
            "memlock",
            Some("memlock.md"),
        ),
        (
            |facts| facts.host.descriptors = (1024, 4096),
            Grade::Advice,
            "file limit",
            Some("systemd.md"),
        ),
        (
            |facts| facts.host.somaxconn = Some(128),
            Grade::Advice,
            "backlog",
            Some("sysctl.md"),
        ),
        (
            |facts| facts.host.clock_source = "hpet".to_owned(),
            Grade::Advice,
            "clock",
            Some("sysctl.md"),
        ),
        (
            |facts| facts.host.governors = vec!["powersave".to_owned()],
            Grade::Advice,
            "governor",
            Some("governor.md"),
        ),
        (
            |facts| facts.host.halt_poll_nanos = Some(0),
            Grade::Advice,
            "idle cores",
            Some("halt-poll.md"),
        ),
        (
            |facts| facts.host.huge_pages = Some("always".to_owned()),
            Grade::Advice,
            "huge pages",
            Some("huge-pages.md"),
        ),
        (
            |facts| facts.host.swap_bytes = 1 << 30,
            Grade::Advice,
            "swap",
            Some("sysctl.md"),
        ),
        (
            |facts| facts.filesystem.is_memory = true,
            Grade::Problem,
            "filesystem",
            None,
        ),
        (
            |facts| facts.filesystem.takes_direct = Some(false),
            Grade::Problem,
            "filesystem",
            Some("filesystem.md"),
        ),
        (
            |facts| facts.filesystem.free_bytes = 5 << 20,
            Grade::Problem,
            "space",
            None,
        ),
        (
            |facts| facts.disk.as_mut().unwrap().partition_start = Some(32_256),
            Grade::Problem,
            "alignment",
            Some("filesystem.md"),
        ),
        (
            |facts| facts.disk.as_mut().unwrap().home_serves_disk = false,
            Grade::Advice,
            "interrupts",
            Some("irq-affinity.md"),
        ),
        (
            |facts| facts.host.has_irqbalance = true,
            Grade::Advice,
            "interrupts",
            Some("irq-affinity.md"),
        ),
    ];
    for (change, grade, subject, file) in changes {
        let mut facts = sound();
        change(&mut facts);
        assert_eq!(
            of(&facts, &Activity::default(), &syncs(30_000)),
            [(grade, subject, file)],
            "{subject}"
        );
    }
    for (name, value, subject, file) in [
        ("scheduler", "none [mq-deadline]", "scheduler", "block-queue.md"),
        ("write_cache", "write back", "write cache", "write-cache.md"),
        ("wbt_lat_usec", "2000", "writeback throttling", "block-queue.md"),
    ] {
        let mut facts = sound();
        setting(&mut facts, name, value);
        let found = of(&facts, &Activity::default(), &syncs(30_000));
        assert_eq!(found, [(Grade::Advice, subject, Some(file))]);
    }
}

#[test]
fn slow_syncs_and_busy_neighbours_are_told() {
    let slow = of(&sound(), &Activity::default(), &syncs(20_000_000));
    assert_eq!(slow, [(Grade::Problem, "sync", Some("block-queue.md"))]);
    assert_eq!(profile(&sound(), &syncs(20_000_000)).0, "throughput");
    let uneven = Syncs {
        dsync: Some(times(4_000_000)),
        write_then_sync: Some(times(300_000)),
        buffered: times(300_000),
    };
    assert_eq!(
        of(&sound(), &Activity::default(), &uneven),
        [(Grade::Advice, "sync", Some("wal-sync.md"))]
    );
    let activity = Activity {
        disk_busy_share: 0.6,
        users: vec![(7, "dd".to_owned(), 1e8)],
        core_busy_shares: vec![(0, 1.0), (1, 0.5)],
        stolen_share: 0.05,
        ..Activity::default()
    };
    let subjects: Vec<_> = of(&sound(), &activity, &syncs(30_000))
        .into_iter()
        .map(|(_, subject, _)| subject)
        .collect();
    assert_eq!(subjects, ["other load", "home core", "steal"]);
    let text = print(
        &sound(),
        &findings(&sound(), &activity, &syncs(30_000)),
        &profile(&sound(), &syncs(1)),
    );
    assert!(
        text.contains("dd (7) 95 MiB/s") && text.contains("[tuning/systemd.md]"),
        "{text}"
    );
}

#[test]
fn a_profile_fits_the_machine() {
    let mut facts = sound();
    facts.host.is_virtual = true;
    assert_eq!(profile(&facts, &syncs(90_000)).0, "balanced");
    facts.host.cores.truncate(2);
    assert_eq!(profile(&facts, &syncs(90_000)).0, "small-vm");
}

#[test]
fn every_file_that_mends_something_is_there() {
    let source = include_str!("findings.rs");
    let tuning = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let mut count = 0;
    for (at, _) in source.match_indices("Some(\"") {
        let name = source[at + 6..].split('"').next().unwrap();
        if name.ends_with(".md") || name.ends_with(".yaml") {
            assert!(tuning.join(name).is_file(), "tuning/{name} is missing");
            count += 1;
        }
    }
    assert!(count > 15);
}
