//! What stands in `tuning/`: every profile is taken by the server's own loader without a complaint, every key in it exists and
//! carries a reason, and every host setting says how to apply, check and undo it. And `ringd doctor`, on this machine.

use std::{fs, path::Path, process::Command};

use ringd::config::{Config, Loaded, LogLevel, load};

const PROFILES: [&str; 6] = [
    "latency",
    "balanced",
    "throughput",
    "kubernetes",
    "small-vm",
    "cross-zone",
];

fn tuning() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning")
}

fn profile(name: &str) -> Config {
    let path = tuning().join(format!("profiles/{name}.yaml"));
    let arguments = ["--config-file".to_owned(), path.to_str().unwrap().to_owned()];
    match load(&arguments, &[], &|path| fs::read(path)) {
        Loaded::Run { config, notices } => {
            // That HTTP and gRPC share a port is etcd's default, and its warning.
            let complaints: Vec<_> = notices
                .iter()
                .filter(|notice| notice.level != LogLevel::Info && !notice.message.contains("on single port"))
                .collect();
            assert!(complaints.is_empty(), "{name}: {complaints:?}");
            config.verify_bootstrap().expect("a new cluster can be begun with it");
            *config
        }
        Loaded::Exit(exit) => panic!("{name}: {}{:?}", exit.stderr, exit.notices),
    }
}

/// All flags that the help knows.
fn known_flags() -> String {
    match load(&["--help".to_owned()], &[], &|path| fs::read(path)) {
        Loaded::Exit(exit) => exit.stdout,
        Loaded::Run { .. } => panic!("the help leaves"),
    }
}

#[test]
fn every_profile_is_taken_by_the_loader() {
    let on_disk = fs::read_dir(tuning().join("profiles")).unwrap().count();
    assert_eq!(on_disk, PROFILES.len(), "no profile is forgotten here");
    for name in PROFILES {
        let config = profile(name);
        assert_eq!(config.data_dir, Path::new("/var/lib/etcd"), "{name}");
    }
    assert!(profile("latency").memory_mlock);
    assert_ne!(profile("small-vm").wal_sync, profile("latency").wal_sync);
    assert_ne!(
        profile("throughput").backend_batch_interval,
        profile("latency").backend_batch_interval
    );
}

#[test]
fn every_key_of_a_profile_exists_and_has_a_reason_above_it() {
    // The loader passes unknown keys over, as etcd does: a misspelt one would say nothing.
    let help = known_flags();
    for name in PROFILES {
        let text = fs::read_to_string(tuning().join(format!("profiles/{name}.yaml"))).unwrap();
        let mut has_reason = false;
        for line in text.lines() {
            has_reason = line.starts_with('#') || has_reason && !line.is_empty();
            if let Some((key, _)) = line.split_once(':')
                && !line.starts_with('#')
            {
                assert!(help.contains(&format!("--{key} ")), "{name}: {key} is no flag");
                assert!(has_reason, "{name}: {key} has no reason");
            }
        }
    }
}

#[test]
fn every_host_setting_says_how_to_apply_check_and_undo_it() {
    let index = fs::read_to_string(tuning().join("README.md")).unwrap();
    for entry in fs::read_dir(tuning()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            name == "README.md" || name == "profiles" || index.contains(&name),
            "{name} is not in the index"
        );
        if name == "README.md" || path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for word in ["**Apply", "**Check:**", "**Undo:**"] {
            assert!(text.contains(word), "{name} lacks {word}");
        }
    }
}

#[test]
fn the_doctor_tells_what_the_kernel_says_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringd"))
        .args(["doctor", "-w", "json", "--dir"])
        .arg(scratch.path())
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(said["machine"]["kernel"], kernel.trim());
    let findings = said["findings"].as_array().unwrap();
    let subjects: Vec<_> = findings
        .iter()
        .map(|finding| finding["subject"].as_str().unwrap())
        .collect();
    for subject in [
        "io_uring",
        "memlock",
        "file limit",
        "clock",
        "filesystem",
        "space",
        "sync",
    ] {
        assert!(subjects.contains(&subject), "{subject} is missing in {subjects:?}");
    }
    let is_problem = |finding: &serde_json::Value| finding["grade"] == "problem";
    assert_eq!(output.status.success(), !findings.iter().any(is_problem));
    let name = said["profile"].as_str().unwrap();
    assert!(PROFILES.contains(&name), "{name}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn the_doctor_says_so_on_a_ram_disk_and_without_a_directory() {
    let run = |directory: &str| {
        Command::new(env!("CARGO_BIN_EXE_ringd"))
            .args(["doctor", "--dir", directory])
            .output()
            .unwrap()
    };
    let missing = run("/nonexistent/place");
    assert!(!missing.status.success() && missing.stdout.is_empty());
    assert_eq!(
        String::from_utf8_lossy(&missing.stderr),
        "Error: /nonexistent/place: No such file or directory (os error 2)\n"
    );
    if Path::new("/dev/shm").is_dir() {
        let memory = run("/dev/shm");
        assert!(!memory.status.success());
        let text = String::from_utf8_lossy(&memory.stdout);
        assert!(
            text.contains("PROBLEM  filesystem: the directory is on a RAM disk"),
            "{text}"
        );
    }
}
