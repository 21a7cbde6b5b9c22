//! The configuration: from flags, environment and file to one typed struct, by etcd's rules.
//!
//! `flags` is the one table; `parse` reads Go's flag syntax, `environment` the `ETCD_*` variables, `file` the YAML;
//! `build` turns the raw values into a [`Config`] and checks it with etcd's texts. Pure: files and variables are handed
//! in. What should be logged is returned as [`Notice`]s, since the log itself is part of the configuration.
//!
//! Precedence is etcd's: defaults, then variables, then flags; but a configuration file stands alone, and flags and
//! variables beside it are ignored.

mod build;
mod duration;
mod environment;
mod feature;
mod file;
pub mod flags;
mod help;
mod parse;
mod url;
mod validate;
mod value;
pub mod version;

use std::{
    collections::BTreeMap,
    io,
    panic::Location,
    path::{Path, PathBuf},
    time::Duration,
};

pub use build::parse_initial_cluster;
pub(crate) use duration::fuzz_duration;
pub use duration::{DurationError, format_duration, parse_duration};
pub use feature::{FEATURES, Feature, FeatureGates, Stage};
pub(crate) use file::fuzz_file;
pub use help::{help_text, usage_text};
pub(crate) use parse::fuzz_arguments;
pub(crate) use url::fuzz_url;
pub use url::{Scheme, Url, UrlError, parse_urls};
pub use validate::verify_bootstrap;

/// A member's name to its peer URLs (sorted).
pub type InitialCluster = BTreeMap<String, Vec<Url>>;

/// Everything that can be set, checked and with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// The data directory; `NAME.etcd` if none was given.
    pub data_dir: PathBuf,
    /// Where the log is, if not in `member/wal` of the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries after which a `.snap` file is written.
    pub snapshot_count: u64,
    /// Entries kept in memory behind a snapshot, for followers that are a little behind.
    pub snapshot_catchup_entries: u64,
    /// `.snap` files kept; 0 keeps all.
    pub snapshot_files_max: u32,
    /// Log segments kept behind the newest snapshot; 0 keeps all.
    pub wal_files_max: u32,
    /// One tick of raft.
    pub heartbeat_interval: Duration,
    /// Five heartbeats at least, 50 s at most.
    pub election_timeout: Duration,
    /// Whether to skip most of the first election timeout.
    pub initial_election_tick_advance: bool,
    /// Whether candidates ask before they raise the term.
    pub pre_vote: bool,

    /// Where peers connect to.
    pub listen_peer_urls: Vec<Url>,
    /// Where clients connect to: gRPC, and HTTP unless `listen_client_http_urls` is set.
    pub listen_client_urls: Vec<Url>,
    /// Where clients connect to with HTTP alone; empty if on `listen_client_urls`.
    pub listen_client_http_urls: Vec<Url>,
    /// Additional places for /metrics and health.
    pub listen_metrics_urls: Vec<Url>,
    /// What other members are told of our peer URLs.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// What clients are told of our client URLs.
    pub advertise_client_urls: Vec<Url>,
    /// The members of a new cluster.
    pub initial_cluster: InitialCluster,
    /// Whether a directory without a log begins a cluster or joins one.
    pub initial_cluster_state: ClusterState,
    /// Part of the new cluster's id.
    pub initial_cluster_token: String,
    /// Whether changes of members that would lose the quorum are refused.
    pub strict_reconfig_check: bool,
    /// Learners that may be in the cluster.
    pub learners_max: u32,

    /// Bytes the database may take; `None` for no bound.
    pub quota_backend_bytes: Option<u64>,
    /// The longest time between two commits of the tree.
    pub backend_batch_interval: Duration,
    /// Changes after which a commit of the tree is begun.
    pub backend_batch_operations: u32,
    /// Operations that a transaction may have.
    pub txn_operations_max: u32,
    /// Bytes that a request may have.
    pub request_bytes_max: u32,
    /// Streams that a connection may have open.
    pub concurrent_streams_max: u32,
    /// Pings of a client may be this far apart at least.
    pub grpc_keepalive_min_time: Duration,
    /// How long a connection is silent before it is pinged; `None` never pings.
    pub grpc_keepalive_interval: Option<Duration>,
    /// How long a ping may stay without an answer.
    pub grpc_keepalive_timeout: Duration,
    /// Whether SO_REUSEADDR is set on listeners.
    pub socket_reuse_address: bool,
    /// Whether the JSON gateway is served.
    pub grpc_gateway: bool,

    /// When the store compacts itself.
    pub auto_compaction: AutoCompaction,
    /// Revisions that one batch of a compaction removes.
    pub compaction_batch_revisions: u32,
    /// Pause between two batches of a compaction.
    pub compaction_sleep: Duration,
    /// How often an idle watcher that asked for it is told the revision.
    pub watch_progress_notify_interval: Duration,
    /// How often members compare their data; `None` never.
    pub corrupt_check_interval: Option<Duration>,
    /// How often the leader compares compaction hashes (if the feature is on).
    pub compact_hash_check_interval: Duration,
    /// Applies that take longer are logged.
    pub warning_apply_duration: Duration,
    /// Unary requests that take longer are logged.
    pub warning_unary_request_duration: Duration,
    /// Free space from which the database is defragmented at start; `None` never.
    pub bootstrap_defrag_threshold_bytes: Option<u64>,
    /// Whether the mapped database is locked into memory.
    pub memory_mlock: bool,
    /// Feature gates.
    pub features: FeatureGates,

    /// Origins that browsers may come from.
    pub cors: AllowList,
    /// `Host` headers that plaintext HTTP requests may carry.
    pub host_whitelist: AllowList,
    /// Cost of password hashes.
    pub bcrypt_cost: u32,
    /// Life of a simple token since its last use.
    pub auth_token_ttl: Duration,
    /// Detail of the metrics.
    pub metrics: MetricsLevel,
    /// Where the log goes and how.
    pub log: LogConfig,

    /// Cores to run on; `None` for all that the process may use.
    pub cores: Option<Vec<usize>>,
    /// Cores that take connections besides home; `None` for as many as make sense.
    pub fronts: Option<usize>,
    /// How long home, if it has few clients, looks for work before it sleeps.
    pub idle_poll: Duration,
    /// Connections that stay at home where there are fronts.
    pub home_connections: usize,
    /// Whether nothing waits for the disk.
    pub unsafe_no_fsync: bool,
    /// How a batch of the log is made durable.
    pub wal_sync: WalSync,
    /// The cluster version is not raised above this one; `None` follows etcd's rule.
    pub hold_cluster_version: Option<(u8, u8)>,
}

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Begin a cluster.
    New,
    /// Join one.
    Existing,
}

/// `--auto-compaction-mode` and `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// `--wal-sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// One of the others, as serves better at the moment.
    Auto,
    /// One write to a file opened with O_DSYNC.
    Dsync,
    /// A write, then fdatasync.
    Fdatasync,
}

/// `--metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsLevel {
    /// Without the latency histogram per method.
    Basic,
    /// With it.
    Extensive,
}

/// A set of names that is open when it is empty or holds `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(pub Vec<String>);

impl AllowList {
    /// Whether everything is allowed.
    pub fn is_open(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == "*")
    }

    /// Whether `name` is allowed.
    pub fn allows(&self, name: &str) -> bool {
        self.is_open() || self.0.iter().any(|known| known == name)
    }
}

/// Where the log goes and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Lines below this level are not written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines are written; never empty.
    pub outputs: Vec<LogOutput>,
    /// For the one file among the outputs.
    pub rotation: Option<LogRotation>,
}

/// zap's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    DPanic,
    Panic,
    Fatal,
}

impl LogLevel {
    /// As it stands in a line.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
            LogLevel::DPanic => "dpanic",
            LogLevel::Panic => "panic",
            LogLevel::Fatal => "fatal",
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Columns, for people.
    Console,
}

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// `--log-rotation-config-json`: when a log file is full it is renamed and a new one begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRotation {
    /// A file that would grow beyond this is renamed.
    pub file_bytes_max: u64,
    /// Renamed files kept; 0 keeps all.
    pub backups_max: u32,
    /// Renamed files older than this are removed; 0 keeps all.
    pub age_days_max: u32,
}

/// A line for the log that was found while the log was not yet set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// How bad it is.
    pub level: LogLevel,
    /// The sentence.
    pub message: String,
    /// What it is about.
    pub fields: Vec<(&'static str, String)>,
    /// Where it was found.
    pub caller: &'static Location<'static>,
}

impl Notice {
    /// A line without fields.
    #[track_caller]
    pub fn new(level: LogLevel, message: impl Into<String>) -> Notice {
        Notice {
            level,
            message: message.into(),
            fields: Vec::new(),
            caller: Location::caller(),
        }
    }

    /// The same with one more field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Notice {
        self.fields.push((name, value.into()));
        self
    }
}

/// What the command line came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    /// Start the server. The notices are to be logged once the log is set up.
    Run {
        /// The configuration.
        config: Box<Config>,
        /// In the order in which they were found.
        notices: Vec<Notice>,
    },
    /// Print and leave: help, version, or what is wrong.
    Exit(Exit),
}

/// What to print before leaving.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exit {
    /// For standard output.
    pub stdout: String,
    /// For standard error, before the notices.
    pub stderr: String,
    /// For the log, which at this moment is standard error.
    pub notices: Vec<Notice>,
    /// The process's exit code.
    pub code: i32,
}

/// Reads the command line (without the program's name), the environment and the configuration file that they name.
pub fn load(
    arguments: &[String],
    environment: &[(String, String)],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Loaded {
    build::load(arguments, environment, read_file)
}

/// Runs a fuzz entry through 1,000 seeded inputs: noise, and noise made of what the parsers look for.
#[cfg(test)]
pub(crate) fn fuzz_seeds(entry: fn(&[u8])) {
    const PIECES: &[&[u8]] = &[
        b"-",
        b"--",
        b"=",
        b":",
        b",",
        b".",
        b"\n",
        b" ",
        b"name",
        b"snapshot-count",
        b"http",
        b"//",
        b"[",
        b"]",
        b"0x",
        b"1",
        b"9",
        b"h",
        b"ms",
        b"\xc2\xb5s",
        b"%",
        b"?",
        b"&",
        b"exclude",
        b"/readyz",
        b"{",
        b"}",
        b"\"",
        b"\xff",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..1_000 {
        let mut bytes = Vec::new();
        for _ in 0..next() % 24 {
            match round % 2 {
                0 => bytes.extend_from_slice(PIECES[next() as usize % PIECES.len()]),
                _ => bytes.push(next() as u8),
            }
        }
        entry(&bytes);
    }
}
