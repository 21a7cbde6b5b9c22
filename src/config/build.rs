//! From raw values to a [`Config`]: which source counts, what old names stand for, what is refused, and the typed
//! fields. The checks of values against each other are in `validate`.

use std::{io, path::Path, path::PathBuf, time::Duration};

use super::{
    AllowList, AutoCompaction, ClusterState, Config, Exit, FEATURES, FeatureGates, InitialCluster, Loaded, LogConfig,
    LogFormat, LogLevel, LogOutput, LogRotation, MetricsLevel, Notice, Url, WalSync,
    duration::{go_quote, parse_duration},
    environment::{self, EnvironmentError},
    file::{self, FileError},
    flags::{FLAGS, Kind, Treatment},
    help::{help_text, usage_text},
    parse::{self, ParseError},
    url::parse_urls,
    validate,
    value::Values,
    version::version_text,
};

/// etcd's message over any configuration that cannot be used.
const FAILED: &str = "failed to verify flags";

pub(super) fn load(
    arguments: &[String],
    environment: &[(String, String)],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Loaded {
    let mut values = Values::new();
    if let Err(error) = parse::parse(arguments, &mut values) {
        return Loaded::Exit(parse_exit(error));
    }
    if values.bool("version") {
        return Loaded::Exit(Exit {
            stdout: version_text(),
            ..Exit::default()
        });
    }
    let mut notices = Vec::new();
    let result = gather(&mut values, environment, read_file, &mut notices)
        .and_then(|()| resolve(&mut values, &mut notices))
        .and_then(|()| config_of(&values, &mut notices).map_err(Stop::Verify));
    match result {
        Ok(config) => Loaded::Run {
            config: Box::new(config),
            notices,
        },
        Err(stop) => Loaded::Exit(stop.exit(notices)),
    }
}

/// Why the configuration cannot be used.
enum Stop {
    /// As a line of the log under etcd's message.
    Verify(String),
    /// As a line of the log of its own.
    Line(Notice),
    /// As it is, on standard error.
    Bare(String),
}

impl Stop {
    fn exit(self, mut notices: Vec<Notice>) -> Exit {
        let mut stderr = String::new();
        match self {
            Stop::Verify(error) => {
                notices.push(Notice::new(LogLevel::Warn, FAILED).with("error", error.clone()));
                if error == validate::ADVERTISE_UNSET {
                    notices.push(Notice::new(LogLevel::Warn, "advertise client URLs are not set").with("error", error));
                }
            }
            Stop::Line(notice) => notices.push(notice),
            Stop::Bare(text) => stderr = text,
        }
        Exit {
            stderr,
            notices,
            code: 1,
            ..Exit::default()
        }
    }
}

fn parse_exit(error: ParseError) -> Exit {
    match error {
        ParseError::Help => Exit {
            stdout: help_text(),
            ..Exit::default()
        },
        ParseError::Flag(error) => Exit {
            stderr: format!("{error}\n{}\n", usage_text()),
            code: 2,
            ..Exit::default()
        },
        ParseError::Word(word) => {
            let error = format!("{} is not a valid flag", go_quote(&word));
            let notice = Notice::new(LogLevel::Warn, FAILED).with("error", error);
            Exit {
                notices: vec![notice],
                code: 1,
                ..Exit::default()
            }
        }
    }
}

/// Adds the file's values, alone, or the environment's.
fn gather(
    values: &mut Values,
    environment: &[(String, String)],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    notices: &mut Vec<Notice>,
) -> Result<(), Stop> {
    let from_variable = || {
        environment
            .iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE")
            .map(|(_, path)| path.clone())
    };
    let path = match values.text("config-file") {
        "" => from_variable().unwrap_or_default(),
        path => path.to_string(),
    };
    if path.is_empty() {
        return environment::apply(environment, values, notices).map_err(|error| match error {
            EnvironmentError::Conflict(notice) => Stop::Line(notice),
            EnvironmentError::Value(error) => Stop::Verify(error),
        });
    }
    let bytes = read_file(Path::new(&path)).map_err(|error| Stop::Verify(open_error(&path, &error)))?;
    *values = Values::new();
    file::apply(&bytes, values).map_err(|error| match error {
        FileError::Value(error) => Stop::Verify(error),
        FileError::Urls(line) => Stop::Bare(line),
    })?;
    // A file's client URLs do not make the advertised ones its own business, unlike the flag's.
    if values.is_set("listen-client-urls") && !values.is_set("advertise-client-urls") {
        let name = super::flags::flag("advertise-client-urls").expect("a flag of the table");
        values.set(name, name.default).expect("a default is a value");
    }
    let message = "loaded server configuration, other configuration command line flags and environment variables will \
                   be ignored if provided";
    notices.push(Notice::new(LogLevel::Info, message).with("path", path));
    Ok(())
}

/// Go's words for a file that cannot be opened.
fn open_error(path: &str, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        io::ErrorKind::IsADirectory => return format!("read {path}: is a directory"),
        _ => error.to_string(),
    };
    format!("open {path}: {reason}")
}

/// Gives old names' values to the new ones, and treats what ringd does not do.
fn resolve(values: &mut Values, notices: &mut Vec<Notice>) -> Result<(), Stop> {
    let mut deprecated = Vec::new();
    for flag in FLAGS.iter().filter(|flag| values.is_set(flag.name)) {
        let value = values.text(flag.name).to_string();
        match flag.treatment {
            _ if flag.kind == Kind::Nothing => {
                let notice = Notice::new(LogLevel::Warn, "flag is no longer supported - ignoring");
                notices.push(notice.with("flag-name", flag.name));
            }
            Treatment::Alias(new) => {
                if values.is_set(new) && new == "warning-unary-request-duration" {
                    return Err(Stop::Verify(format!(
                        "both --{} and --{new} flags are set. Use only --{new}",
                        flag.name
                    )));
                }
                deprecated.push((flag.name, format!("--{new}")));
            }
            Treatment::Gate(gate) => {
                if values.text("feature-gates").contains(gate) {
                    let gates = features(values).map_err(Stop::Verify)?;
                    let (_, _, is_on) = gates
                        .states()
                        .into_iter()
                        .find(|(name, ..)| *name == gate)
                        .expect("a gate");
                    let by_gate = format!("--feature-gates={gate}={is_on}");
                    return Err(Stop::Verify(format!(
                        "cannot specify both flags: --{}={} and {by_gate} at the same time, please just use {by_gate}",
                        flag.name,
                        values.bool(flag.name),
                    )));
                }
                deprecated.push((flag.name, format!("--feature-gates={gate}=true")));
            }
            Treatment::Refused(reason) if !is_default(values, flag) => {
                return Err(Stop::Verify(format!(
                    "--{}={value} is not supported: {reason}",
                    flag.name
                )));
            }
            Treatment::Accepted(reason) if !is_default(values, flag) => {
                let notice = Notice::new(LogLevel::Info, "flag has no effect");
                notices.push(notice.with("flag-name", flag.name).with("reason", reason));
            }
            Treatment::Honoured | Treatment::Accepted(_) | Treatment::Refused(_) => {}
        }
    }
    for (old, new) in deprecated {
        let message = format!("--{old} is deprecated in v3.6 and will be decommissioned in v3.7. Use '{new}' instead.");
        notices.push(Notice::new(LogLevel::Warn, message));
    }
    follow_aliases(values)
}

fn follow_aliases(values: &mut Values) -> Result<(), Stop> {
    for flag in FLAGS {
        let Treatment::Alias(new) = flag.treatment else {
            continue;
        };
        if !values.is_set(flag.name) {
            continue;
        }
        if values.is_set(new) {
            return Err(Stop::Verify(format!(
                "cannot set --{} and --{new} at the same time, please use --{new} only",
                flag.name
            )));
        }
        let target = super::flags::flag(new).expect("an alias points into the table");
        let value = values.text(flag.name).to_string();
        values.set(target, &value).map_err(Stop::Verify)?;
        if let Treatment::Refused(reason) = target.treatment
            && !is_default(values, target)
        {
            return Err(Stop::Verify(format!(
                "--{}={value} is not supported: {reason}",
                flag.name
            )));
        }
        values.clear(flag.name);
    }
    Ok(())
}

/// Whether a flag means what it means when it is not set, however it is written.
fn is_default(values: &Values, flag: &super::flags::Flag) -> bool {
    match (flag.kind, values.explicit(flag.name)) {
        (_, None) => true,
        (Kind::Bool, Some(_)) => values.bool(flag.name) == (flag.default == "true"),
        (Kind::Uint(_), Some(_)) => values.uint(flag.name).to_string() == flag.default,
        (Kind::Int, Some(_)) => values.int(flag.name).to_string() == flag.default,
        (Kind::Duration, Some(_)) => Ok(values.nanos(flag.name)) == parse_duration(flag.default),
        (_, Some(text)) => text == flag.default || text.is_empty(),
    }
}

fn features(values: &Values) -> Result<FeatureGates, String> {
    let mut gates = FeatureGates::default();
    gates.apply(values.text("feature-gates"))?;
    for (feature, _, _, flag) in FEATURES {
        if let Some(flag) = flag.filter(|flag| values.is_set(flag)) {
            gates.set(feature, values.bool(flag));
        }
    }
    Ok(gates)
}

/// A duration, or what zero stands for.
fn duration_or(values: &Values, name: &str, default: Duration) -> Duration {
    Some(values.duration(name))
        .filter(|duration| !duration.is_zero())
        .unwrap_or(default)
}

fn not_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// A count, or what zero and less stand for.
fn count_or(values: &Values, name: &str, default: u32) -> u32 {
    match values.int(name) {
        ..=0 => default,
        count => u32::try_from(count).unwrap_or(u32::MAX),
    }
}

fn config_of(values: &Values, notices: &mut Vec<Notice>) -> Result<Config, String> {
    let log = log_config(values)?;
    validate::raw(values, notices)?;
    let name = values.text("name").to_string();
    let initial_advertise_peer_urls = values.urls("initial-advertise-peer-urls");
    let config = Config {
        data_dir: data_dir(values, &name, notices),
        wal_dir: Some(values.text("wal-dir"))
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from),
        snapshot_count: values.uint("snapshot-count"),
        snapshot_catchup_entries: values.uint("snapshot-catchup-entries"),
        snapshot_files_max: values.uint32("max-snapshots"),
        wal_files_max: values.uint32("max-wals"),
        heartbeat_interval: Duration::from_millis(values.uint("heartbeat-interval")),
        election_timeout: Duration::from_millis(values.uint("election-timeout")),
        initial_election_tick_advance: values.bool("initial-election-tick-advance"),
        pre_vote: values.bool("pre-vote"),
        listen_peer_urls: values.urls("listen-peer-urls"),
        listen_client_urls: values.urls("listen-client-urls"),
        listen_client_http_urls: values.urls("listen-client-http-urls"),
        listen_metrics_urls: values.urls("listen-metrics-urls"),
        advertise_client_urls: values.urls("advertise-client-urls"),
        initial_cluster: initial_cluster(values, &name, &initial_advertise_peer_urls)?,
        initial_advertise_peer_urls,
        initial_cluster_state: match values.text("initial-cluster-state") {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: values.text("initial-cluster-token").to_string(),
        strict_reconfig_check: values.bool("strict-reconfig-check"),
        learners_max: u32::try_from(values.int("max-learners")).unwrap_or(0),
        quota_backend_bytes: quota(values.int("quota-backend-bytes")),
        backend_batch_interval: duration_or(values, "backend-batch-interval", BATCH_INTERVAL),
        backend_batch_operations: count_or(values, "backend-batch-limit", BATCH_OPERATIONS),
        txn_operations_max: values.uint32("max-txn-ops"),
        request_bytes_max: values.uint32("max-request-bytes"),
        concurrent_streams_max: values.uint32("max-concurrent-streams"),
        grpc_keepalive_min_time: values.duration("grpc-keepalive-min-time"),
        grpc_keepalive_interval: not_zero(values.duration("grpc-keepalive-interval")),
        grpc_keepalive_timeout: values.duration("grpc-keepalive-timeout"),
        socket_reuse_address: values.bool("socket-reuse-address"),
        grpc_gateway: values.bool("enable-grpc-gateway"),
        auto_compaction: auto_compaction(values)?,
        compaction_batch_revisions: count_or(values, "compaction-batch-limit", COMPACTION_BATCH),
        compaction_sleep: duration_or(values, "compaction-sleep-interval", COMPACTION_SLEEP),
        watch_progress_notify_interval: progress_interval(values, notices),
        corrupt_check_interval: not_zero(values.duration("corrupt-check-time")),
        compact_hash_check_interval: values.duration("compact-hash-check-time"),
        warning_apply_duration: values.duration("warning-apply-duration"),
        warning_unary_request_duration: duration_or(values, "warning-unary-request-duration", UNARY_WARNING),
        bootstrap_defrag_threshold_bytes: Some(values.uint("bootstrap-defrag-threshold-megabytes"))
            .filter(|&megabytes| megabytes > 0)
            .map(|megabytes| megabytes.saturating_mul(1024 * 1024)),
        memory_mlock: values.bool("memory-mlock"),
        unsafe_no_fsync: values.bool("unsafe-no-fsync"),
        features: features(values)?,
        cors: AllowList(values.list("cors")),
        host_whitelist: AllowList(values.list("host-whitelist")),
        bcrypt_cost: values.uint32("bcrypt-cost"),
        auth_token_ttl: Duration::from_secs(values.uint("auth-token-ttl")),
        metrics: match values.text("metrics") {
            "extensive" => MetricsLevel::Extensive,
            _ => MetricsLevel::Basic,
        },
        log,
        cores: cores(values.text("cores"))?,
        fronts: fronts(values.text("fronts"))?,
        idle_poll: values.duration("idle-poll"),
        home_connections: values.uint("home-connections") as usize,
        wal_sync: match values.text("wal-sync") {
            "dsync" => WalSync::Dsync,
            "fdatasync" => WalSync::Fdatasync,
            _ => WalSync::Auto,
        },
        hold_cluster_version: hold_cluster_version(values.text("hold-cluster-version"))?,
        name,
    };
    validate::whole(&config)?;
    Ok(config)
}

fn data_dir(values: &Values, name: &str, notices: &mut Vec<Notice>) -> PathBuf {
    match values.text("data-dir") {
        "" => {
            let dir = format!("{name}.etcd");
            let notice = Notice::new(LogLevel::Warn, "'data-dir' was empty; using default");
            notices.push(notice.with("data-dir", dir.clone()));
            PathBuf::from(dir)
        }
        dir => PathBuf::from(dir),
    }
}

/// The members by name. A cluster that was not named is this member alone, under its name.
fn initial_cluster(values: &Values, name: &str, own_urls: &[Url]) -> Result<InitialCluster, String> {
    let default = super::flags::flag("initial-cluster")
        .expect("a flag of the table")
        .default;
    let text = values.text("initial-cluster");
    if text == default && name != "default" {
        return Ok(InitialCluster::from([(name.to_string(), own_urls.to_vec())]));
    }
    parse_initial_cluster(text)
}

/// `name=URL,name=URL`; a name may come more than once.
///
/// # Errors
/// A URL that is none, in etcd's words.
pub fn parse_initial_cluster(text: &str) -> Result<InitialCluster, String> {
    let mut cluster = InitialCluster::new();
    for member in text.split(',').filter(|member| !member.is_empty()) {
        let (name, url) = member.split_once('=').unwrap_or((member, ""));
        let urls = parse_urls(url).map_err(|error| error.to_string())?;
        cluster.entry(name.to_string()).or_default().extend(urls);
    }
    for urls in cluster.values_mut() {
        urls.sort();
    }
    Ok(cluster)
}

/// What zero stands for.
const QUOTA_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
const BATCH_OPERATIONS: u32 = 10_000;
const COMPACTION_BATCH: u32 = 1_000;
const COMPACTION_SLEEP: Duration = Duration::from_millis(10);
const UNARY_WARNING: Duration = Duration::from_millis(300);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// More often than this watchers are not told.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

fn quota(bytes: i64) -> Option<u64> {
    match bytes {
        0 => Some(QUOTA_DEFAULT),
        bytes => u64::try_from(bytes).ok(),
    }
}

fn progress_interval(values: &Values, notices: &mut Vec<Notice>) -> Duration {
    let interval = duration_or(values, "watch-progress-notify-interval", PROGRESS_INTERVAL);
    if interval < PROGRESS_INTERVAL_MIN {
        let notice = Notice::new(
            LogLevel::Warn,
            "adjusting watch progress notify interval to minimum period",
        );
        let minimum = super::format_duration(PROGRESS_INTERVAL_MIN);
        notices.push(notice.with("min-watch-progress-notify-interval", minimum));
    }
    interval.max(PROGRESS_INTERVAL_MIN)
}

/// A bare number counts hours or revisions, anything else is a duration.
fn auto_compaction(values: &Values) -> Result<AutoCompaction, String> {
    let is_periodic = values.text("auto-compaction-mode") == "periodic";
    let text = values.text("auto-compaction-retention");
    let plain: Option<i64> = text.parse().ok().filter(|&count| count >= 0);
    let retention = match plain {
        Some(count) if is_periodic => count.saturating_mul(3_600_000_000_000),
        Some(count) => count,
        None => parse_duration(text).map_err(|error| format!("error parsing CompactionRetention: {error}"))?,
    };
    Ok(match (is_periodic, u64::try_from(retention)) {
        (_, Ok(0) | Err(_)) => AutoCompaction::Off,
        (true, Ok(nanos)) => AutoCompaction::Periodic(Duration::from_nanos(nanos)),
        (false, Ok(_)) => AutoCompaction::Revision(retention),
    })
}

/// `0-3,8`: sorted, each once.
fn cores(text: &str) -> Result<Option<Vec<usize>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || {
        format!(
            "invalid value {} for --cores: cores are numbers and ranges, such as 0-3,8",
            go_quote(text)
        )
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&core| core < CORES_MAX);
        let (first, last) = number(first)
            .zip(number(last))
            .filter(|(first, last)| first <= last)
            .ok_or_else(invalid)?;
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(Some(cores))
}

fn fronts(text: &str) -> Result<Option<usize>, String> {
    let number = text.parse::<usize>().ok().filter(|&count| count < CORES_MAX);
    match number {
        _ if text.is_empty() => Ok(None),
        None => Err(format!(
            "invalid value {} for --fronts: a number of cores",
            go_quote(text)
        )),
        some => Ok(some),
    }
}

/// No machine numbers its cores beyond this.
const CORES_MAX: usize = 4096;

fn hold_cluster_version(text: &str) -> Result<Option<(u8, u8)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let pair = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match pair {
        Some((3, minor @ 0..=6)) => Ok(Some((3, minor))),
        _ => Err(format!(
            "invalid value {} for --hold-cluster-version: a version from 3.0 to 3.6",
            go_quote(text)
        )),
    }
}

fn log_config(values: &Values) -> Result<LogConfig, String> {
    match values.text("logger") {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_string()),
        other => return Err(format!("unknown logger option {}", go_quote(other))),
    }
    let level = match values.text("log-level").to_ascii_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "info" | "" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "dpanic" => LogLevel::DPanic,
        "panic" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        // etcd panics over it; the sentence is the same.
        _ => return Err(format!("unrecognized level: {}", go_quote(values.text("log-level")))),
    };
    let format = match values.text("log-format") {
        "json" | "" => LogFormat::Json,
        "console" => LogFormat::Console,
        other => return Err(format!("unknown log format: {other}, supported values json, console")),
    };
    let names = match values.list("log-outputs") {
        names if names.is_empty() => vec!["default".to_string()],
        names => names,
    };
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return Err(r#"multi logoutput for "default" is not supported yet"#.to_string());
    }
    if names.iter().any(|name| name == "systemd/journal") {
        return Err("--log-outputs=systemd/journal is not supported yet; systemd collects standard error".to_string());
    }
    let output = |name: &String| match name.as_str() {
        "default" | "stderr" => LogOutput::Stderr,
        "stdout" => LogOutput::Stdout,
        path => LogOutput::File(PathBuf::from(path)),
    };
    let mut outputs: Vec<LogOutput> = names.iter().map(output).collect();
    outputs.sort();
    outputs.dedup();
    let rotation = match values.bool("enable-log-rotation") {
        true => Some(log_rotation(&outputs, values.text("log-rotation-config-json"))?),
        false => None,
    };
    Ok(LogConfig {
        level,
        format,
        outputs,
        rotation,
    })
}

fn log_rotation(outputs: &[LogOutput], json: &str) -> Result<LogRotation, String> {
    if outputs
        .iter()
        .filter(|output| matches!(output, LogOutput::File(_)))
        .count()
        != 1
    {
        return Err("--log-outputs requires a single file path when --log-rotate-config-json is defined".to_string());
    }
    let object: serde_json::Value =
        serde_json::from_str(json).map_err(|error| format!("improperly formatted log rotation config: {error}"))?;
    let number = |name: &str| match object.get(name) {
        None | Some(serde_json::Value::Null) => Ok(0),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| format!("invalid log rotation config: {name} is not a whole number")),
    };
    if object.get("compress").and_then(serde_json::Value::as_bool) == Some(true) {
        return Err("invalid log rotation config: compress is not supported yet".to_string());
    }
    let megabytes = match number("maxsize")? {
        0 => 100,
        megabytes => megabytes,
    };
    Ok(LogRotation {
        file_bytes_max: megabytes.saturating_mul(1024 * 1024),
        backups_max: u32::try_from(number("maxbackups")?).unwrap_or(u32::MAX),
        age_days_max: u32::try_from(number("maxage")?).unwrap_or(u32::MAX),
    })
}
