//! The program's surface against what was captured from etcd: flags, metrics, configuration as a whole.

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use ringd::{
    cli::{Command, Invocation, invocation},
    config::{Config, Loaded, LogLevel, MetricsLevel, WalSync, flags, help_text, load},
    ops::{Counters, Gauges, metrics::render, process::ProcessFacts},
    propose::Method,
    wire::status::Code,
};

const FLAGS_3_5: &str = include_str!("golden/flags/etcd-3.5.30.txt");
const FLAGS_3_6: &str = include_str!("golden/flags/etcd-3.6.14.txt");
const METRICS_3_5: &str = include_str!("golden/metrics/etcd-3.5.30.txt");

#[test]
fn every_flag_of_etcd_is_known_and_no_other() {
    let ours: BTreeSet<&str> = flags::FLAGS.iter().map(|flag| flag.name).collect();
    assert_eq!(ours.len(), flags::FLAGS.len(), "a flag stands twice in the table");
    let theirs: BTreeSet<&str> = FLAGS_3_5.lines().chain(FLAGS_3_6.lines()).collect();
    let missing: Vec<&&str> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    for name in ours.difference(&theirs) {
        let flag = flags::flag(name).unwrap();
        let is_own = flag.section == flags::Section::Ringd;
        let is_ignored = flag.kind == flags::Kind::Nothing;
        // 3.5 has this one without a line in its help.
        assert!(
            is_own || is_ignored || *name == "experimental-max-learners",
            "etcd has no --{name}"
        );
    }
}

#[test]
fn aliases_and_gates_point_at_something() {
    for flag in flags::FLAGS {
        match flag.treatment {
            flags::Treatment::Alias(name) => {
                let target = flags::flag(name).unwrap_or_else(|| panic!("--{} points nowhere", flag.name));
                assert_eq!(target.kind, flag.kind, "--{}", flag.name);
            }
            flags::Treatment::Gate(name) => {
                assert!(
                    ringd::config::FEATURES.iter().any(|(_, known, ..)| *known == name),
                    "--{}",
                    flag.name
                );
            }
            _ => {}
        }
    }
}

#[test]
fn the_help_names_every_flag() {
    let help = help_text();
    for flag in flags::FLAGS.iter().filter(|flag| flag.kind != flags::Kind::Nothing) {
        assert!(help.contains(&format!("\n  --{} '", flag.name)), "--{}", flag.name);
    }
}

/// Why a series of etcd 3.5 is not ours.
fn is_left_out(series: &str) -> bool {
    // There is no v2 store, and 3.6 no longer sends anything through it.
    series.contains("etcd_debugging_store_reads_total")
        || series.contains("etcd_debugging_store_writes_total")
        || series.contains("version=\"v2\"")
        // 3.6 has removed its old name.
        || series.contains("etcd_debugging_mvcc_range_total")
}

fn counters_after_a_put() -> Counters {
    let counters = Counters::default();
    counters.grpc.unary(Method::Put, Code::Ok, Duration::from_micros(300));
    counters.puts.increment();
    counters
        .applies
        .observe(["Put", "true", "v3"], Duration::from_micros(40));
    counters.client_requests.increment(["3.5", "unary"]);
    for (name, kind) in CHECKS {
        counters.health_checks.increment([name, "success", kind]);
    }
    counters
}

const CHECKS: [(&str, &str); 5] = [
    ("data_corruption", "readyz"),
    ("linearizable_read", "readyz"),
    ("non_learner", "readyz"),
    ("serializable_read", "livez"),
    ("serializable_read", "readyz"),
];

fn rendered() -> String {
    let counters = counters_after_a_put();
    let mut counts = counters.counts();
    // A second core that has counted nothing changes nothing.
    counts.merge(&Counters::default().counts());
    let gauges = Gauges {
        member_id: 0x2e12_59d4_15f2_a040,
        server_version: "3.5.30".to_string(),
        cluster_version: Some("3.5".to_string()),
        health_checks: CHECKS.iter().map(|&(name, kind)| (kind, name, true)).collect(),
        ..Gauges::default()
    };
    let process = ProcessFacts {
        cpu_seconds: Some(1.5),
        fd_limit: Some(1),
        fd_used: Some(1),
        resident_bytes: Some(1),
        virtual_bytes: Some(1),
        start_seconds: Some(1.0),
        network_received_bytes: Some(1),
        network_sent_bytes: Some(1),
        ..ProcessFacts::default()
    };
    render(&gauges, &counts, &process, MetricsLevel::Extensive)
}

/// Series without what differs between two servers: the compiler's version in a label.
fn series(text: &str) -> BTreeSet<String> {
    let name = |line: &str| match line.starts_with('#') {
        true => line.to_string(),
        false => line.rsplit_once(' ').map_or(line, |(series, _)| series).to_string(),
    };
    let is_told_apart = |line: &String| !line.contains("go_version{");
    text.lines()
        .filter(|line| !line.starts_with("# HELP"))
        .map(name)
        .filter(is_told_apart)
        .collect()
}

#[test]
fn every_series_of_etcd_is_there_with_its_type_and_labels() {
    let ours = series(&rendered());
    let theirs: BTreeSet<String> = METRICS_3_5
        .lines()
        .filter(|line| !is_left_out(line) && !line.contains("go_version{"))
        .map(str::to_string)
        .collect();
    let missing: Vec<&String> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "{} series are missing: {missing:#?}", missing.len());
    for line in ours.difference(&theirs) {
        let is_later =
            line.contains("etcd_server_feature_enabled") || line.contains("etcd_server_range_duration_seconds");
        let is_own = line.contains("ringd_") || line.contains("go_info") || line.contains("go_threads");
        assert!(is_own || is_later, "etcd has no {line}");
    }
}

#[test]
fn the_text_is_one_that_prometheus_takes() {
    let text = rendered();
    let mut family = "";
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty());
            assert!(seen.insert(name), "{name} comes twice");
            family = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next(), Some(family));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(family), "{line} under {family}");
            assert!(value == "NaN" || value.parse::<f64>().is_ok(), "{line}");
        }
    }
    let sorted: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(sorted.is_sorted());
    assert!(text.contains("\netcd_mvcc_put_total 1\n"));
    let put = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n";
    assert!(text.contains(put));
}

#[test]
fn without_the_extensive_level_there_is_no_histogram_per_method() {
    let counts = Counters::default().counts();
    let text = render(
        &Gauges::default(),
        &counts,
        &ProcessFacts::default(),
        MetricsLevel::Basic,
    );
    assert!(!text.contains("grpc_server_handling_seconds"));
    assert!(!text.contains("v3lockpb"));
    assert!(text.contains("grpc_server_started_total"));
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}

fn no_file(_: &Path) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::NotFound.into())
}

fn loaded(line: &str) -> Loaded {
    load(&words(line), &[], &no_file)
}

fn config(line: &str) -> Config {
    match loaded(line) {
        Loaded::Run { config, .. } => *config,
        Loaded::Exit(exit) => panic!("{exit:?}"),
    }
}

fn error(line: &str) -> String {
    let Loaded::Exit(exit) = loaded(line) else {
        panic!("{line} is taken")
    };
    assert_eq!(exit.code, 1, "{line}");
    let told = exit
        .notices
        .iter()
        .find(|notice| notice.message == "failed to verify flags")
        .expect("a line");
    told.fields[0].1.clone()
}

#[test]
fn nothing_set_is_etcd_3_6_s_default() {
    let config = config("");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(
        (config.snapshot_count, config.snapshot_catchup_entries),
        (10_000, 5_000)
    );
    assert_eq!(config.election_ticks(), 10);
    assert_eq!(config.quota_backend_bytes, Some(2 * 1024 * 1024 * 1024));
    assert_eq!(config.backend_batch_interval, Duration::from_millis(100));
    assert_eq!(config.backend_batch_operations, 10_000);
    assert_eq!((config.txn_operations_max, config.request_bytes_max), (128, 1_572_864));
    assert_eq!(config.initial_cluster_text(), "default=http://localhost:2380");
    assert_eq!(config.verify_bootstrap(), Ok(()));
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.hold_cluster_version, Some((3, 5)));
    assert_eq!(config.wal_sync, WalSync::Auto);
    assert!(config.cors.is_open() && config.host_whitelist.is_open());
    assert_eq!(
        config.listen_client_urls[0].socket_address().unwrap().to_string(),
        "127.0.0.1:2379"
    );
}

#[test]
fn values_reach_their_fields() {
    let config = config(
        "--name a --quota-backend-bytes -1 --auto-compaction-retention 5m --grpc-keepalive-interval 0s \
         --experimental-compaction-batch-limit 7 --experimental-enable-lease-checkpoint --cores 0-2,5,1 \
         --hold-cluster-version= --log-outputs stdout,/tmp/x --initial-advertise-peer-urls http://127.0.0.1:7 \
         --feature-gates=CompactHashCheck=true --metrics extensive --wal-sync dsync",
    );
    assert_eq!(config.quota_backend_bytes, None);
    assert_eq!(
        config.auto_compaction,
        ringd::config::AutoCompaction::Periodic(Duration::from_secs(300))
    );
    assert_eq!(config.grpc_keepalive_interval, None);
    assert_eq!(config.compaction_batch_revisions, 7);
    assert!(config.features.is_on(ringd::config::Feature::LeaseCheckpoint));
    assert!(config.features.is_on(ringd::config::Feature::CompactHashCheck));
    assert_eq!(config.cores, Some(vec![0, 1, 2, 5]));
    assert_eq!(config.hold_cluster_version, None);
    assert_eq!(config.wal_sync, WalSync::Dsync);
    assert_eq!(config.log.outputs.len(), 2);
    // Only the name was given, so the member is the cluster.
    assert_eq!(config.initial_cluster_text(), "a=http://127.0.0.1:7");
    assert_eq!(config.verify_bootstrap(), Ok(()));
}

/// Each line was tried on etcd 3.5.30, which says the same.
#[test]
fn wrong_values_are_told_in_etcd_s_words() {
    for (line, expected) in [
        (
            "--heartbeat-interval=500 --election-timeout=1000",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[500ms]",
        ),
        (
            "--election-timeout=60000",
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            "--listen-client-urls=http://example.com:2379 --advertise-client-urls=http://a:1",
            "expected IP in URL for binding (http://example.com:2379)",
        ),
        (
            "--listen-client-urls=http://127.0.0.1:1",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        ("extra", "\"extra\" is not a valid flag"),
        ("--auto-compaction-mode=foo", "unknown auto-compaction-mode \"foo\""),
        (
            "--auto-compaction-retention=abc",
            "error parsing CompactionRetention: time: invalid duration \"abc\"",
        ),
        ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
        ("--logger=foo", "unknown logger option \"foo\""),
        (
            "--log-outputs=default,stderr",
            "multi logoutput for \"default\" is not supported yet",
        ),
        (
            "--tls-min-version=x",
            "unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            "--enable-log-rotation",
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        ("--log-level=foo", "unrecognized level: \"foo\""),
        ("--config-file nofile", "open nofile: no such file or directory"),
        (
            "--experimental-corrupt-check-time=1s --corrupt-check-time=2s",
            "cannot set --experimental-corrupt-check-time and --corrupt-check-time at the same time, please use \
             --corrupt-check-time only",
        ),
    ] {
        assert_eq!(error(line), expected, "{line}");
    }
}

#[test]
fn what_is_not_supported_yet_is_refused_only_when_it_is_asked_for() {
    for (line, reason) in [
        (
            "--cert-file=a",
            "--cert-file=a is not supported: TLS is not supported yet",
        ),
        ("--auth-token=jwt,sign-method=x", "only simple tokens"),
        ("--discovery=http://x", "discovery is not supported yet"),
        ("--force-new-cluster", "not supported yet"),
        ("--socket-reuse-port", "SO_REUSEPORT is not supported"),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1",
            "TLS is not supported",
        ),
        (
            "--initial-cluster=a=http://a:1,b=http://b:1",
            "more than one member are not supported yet",
        ),
        (
            "--experimental-enable-distributed-tracing",
            "distributed tracing is not supported yet",
        ),
        ("--enable-v2", "v2 API"),
        ("--proxy=on", "v2 proxy"),
    ] {
        assert!(error(line).contains(reason), "{line}: {}", error(line));
    }
    config("--auth-token=simple --force-new-cluster=false --cert-file= --proxy=off --enable-v2=false");
}

#[test]
fn what_has_no_effect_is_told_once() {
    let Loaded::Run { notices, .. } = loaded("--unsafe-no-fsync --raft-read-timeout=5s --raft-write-timeout 6s -v")
    else {
        panic!("refused");
    };
    let told: Vec<&str> = notices
        .iter()
        .filter(|notice| notice.level == LogLevel::Info && notice.message == "flag has no effect")
        .map(|notice| notice.fields[0].1.as_str())
        .collect();
    assert_eq!(told, ["raft-write-timeout"]);
}

#[test]
fn a_file_stands_alone() {
    let read = |path: &Path| match path.to_str() {
        Some("c.yml") => Ok(b"name: from-file\nlisten-client-urls: http://127.0.0.1:9\n".to_vec()),
        _ => no_file(path),
    };
    let environment = [("ETCD_WAL_DIR".to_string(), "w".to_string())];
    let Loaded::Run { config, notices } = load(&words("--name flag --config-file c.yml"), &environment, &read) else {
        panic!("refused");
    };
    assert_eq!(config.name, "from-file");
    assert_eq!(config.wal_dir, None);
    assert_eq!(config.advertise_client_urls[0].as_str(), "http://localhost:2379");
    assert!(
        notices
            .iter()
            .any(|notice| notice.message.starts_with("loaded server configuration"))
    );
    let by_variable = [("ETCD_CONFIG_FILE".to_string(), "c.yml".to_string())];
    let Loaded::Run { config, .. } = load(&[], &by_variable, &read) else {
        panic!("refused")
    };
    assert_eq!(config.name, "from-file");
}

#[test]
fn bootstrap_is_checked_in_etcd_s_words() {
    let verify = |line: &str| config(line).verify_bootstrap().unwrap_err();
    assert_eq!(
        verify("--initial-cluster=foo=http://localhost:2380"),
        "couldn't find local name \"default\" in the initial cluster configuration"
    );
    assert_eq!(
        verify("--initial-advertise-peer-urls=http://127.0.0.1:1"),
        "--initial-cluster has default=http://localhost:2380 but missing from \
         --initial-advertise-peer-urls=http://127.0.0.1:1"
    );
    assert_eq!(
        verify("--initial-advertise-peer-urls=http://127.0.0.1:1,http://localhost:2380"),
        "--initial-advertise-peer-urls has http://127.0.0.1:1 but missing from \
         --initial-cluster=default=http://127.0.0.1:1,default=http://localhost:2380"
    );
}

#[test]
fn the_version_begins_as_etcd_s() {
    let Loaded::Exit(exit) = loaded("--version") else {
        panic!("runs")
    };
    assert_eq!(exit.code, 0);
    let lines: Vec<&str> = exit.stdout.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.6.14");
    assert!(lines[1].starts_with("Git SHA: "));
    assert!(lines[2].starts_with("Go Version: "));
    assert!(lines[3].starts_with("Go OS/Arch: linux/"));
    assert_eq!(lines[4], format!("ringd Version: {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_flag_prints_the_usage_and_ends_with_two() {
    let Loaded::Exit(exit) = loaded("--foo") else {
        panic!("runs")
    };
    assert_eq!(exit.code, 2);
    assert!(
        exit.stderr.starts_with("flag provided but not defined: -foo\nUsage:\n"),
        "{}",
        exit.stderr
    );
    let Loaded::Exit(help) = loaded("-h") else {
        panic!("runs")
    };
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
}

#[test]
fn the_program_s_faces_are_told_apart() {
    let parsed = |line: &str| invocation(&words(line), &[], &no_file);
    assert!(matches!(parsed("--name a"), Invocation::Serve { .. }));
    assert!(matches!(parsed("check d"), Invocation::Offline(Command::Check { .. })));
    assert!(matches!(parsed("gateway"), Invocation::Exit(exit) if exit.code == 1));
    assert!(matches!(parsed("--version"), Invocation::Exit(exit) if exit.code == 0));
}

/// Command lines that etcd 3.5 and ringd both refuse, for the same reason and in the same words.
const REFUSED_BY_BOTH: &[&str] = &[
    "--foo",
    "--snapshot-count=abc",
    "--snapshot-count=99999999999999999999999",
    "--snapshot-count",
    "--snapshot-count=-1",
    "--quota-backend-bytes=1e9",
    "--pre-vote=maybe",
    "--initial-cluster-state=bad",
    "--listen-client-urls=foo",
    "--listen-client-urls=127.0.0.1:1",
    "--listen-client-urls=http://a:1/x",
    "--listen-client-urls=http://a:x",
    "--listen-client-urls=http://[::1",
    "--listen-peer-urls=http://a",
    "--listen-metrics-urls=:1",
    "-listen-client-urls localhost:1",
    "--heartbeat-interval=500 --election-timeout=1000",
    "--election-timeout=60000",
    "--election-timeout=0",
    "--listen-client-urls=http://example.com:2379 --advertise-client-urls=http://a:1",
    "--listen-client-urls=http://127.0.0.1:1",
    "--listen-client-urls=http://127.0.0.1:1 --advertise-client-urls=http://:1",
    "--initial-advertise-peer-urls=http://:1",
    "--grpc-keepalive-min-time=5",
    "-=x",
    "---x",
    "--auto-compaction-mode=foo",
    "--max-concurrent-streams=abc",
    "--max-concurrent-streams=4294967296",
    "--cors=foo",
    "--logger=capnslog",
    "--logger=foo",
    "--heartbeat-interval=0",
    "--log-outputs=default,stderr",
    "--tls-min-version=x",
    "--v2-deprecation=foo",
    "--proxy=foo",
    "--discovery-fallback=x",
    "--bcrypt-cost=-1",
    "--initial-advertise-peer-urls=http://x",
    "--enable-log-rotation",
    "--config-file /nonexistent/etcd.yml",
    "--cipher-suites=a --grpc-keepalive-timeout=1x",
];

/// With `ETCD_BIN`, every line is given to that etcd too.
#[test]
fn etcd_refuses_the_same_lines_in_the_same_words() {
    let Some(binary) = std::env::var_os("ETCD_BIN") else {
        return;
    };
    for line in REFUSED_BY_BOTH {
        let Loaded::Exit(exit) = loaded(line) else {
            panic!("{line} is taken")
        };
        let ours = match exit.code {
            2 => exit.stderr.lines().next().unwrap().to_string(),
            _ => error(line),
        };
        let scratch = tempfile::tempdir().unwrap();
        // `timeout` ends an etcd that takes the line after all.
        let output = std::process::Command::new("timeout")
            .arg("3")
            .arg(&binary)
            .args(words(line))
            .current_dir(scratch.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let theirs = stderr
            .lines()
            .find_map(|line| {
                let json: serde_json::Value = serde_json::from_str(line).ok()?;
                (json["msg"] == "failed to verify flags").then(|| json["error"].as_str().unwrap().to_string())
            })
            .unwrap_or_else(|| stderr.lines().next().unwrap_or_default().to_string());
        assert_eq!((exit.code, ours), (output.status.code().unwrap(), theirs), "{line}");
    }
}
