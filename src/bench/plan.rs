//! What is to be done, as the command line said it. Only sizes and names: no connections, no clock.

use std::{path::PathBuf, time::Duration};

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `HOST:PORT` of each endpoint; connections take turns among them.
    pub endpoints: Vec<String>,
    /// Connections.
    pub connections: u32,
    /// Clients: each has one request on its way at most.
    pub clients: u32,
    /// Threads, each with its share of the connections.
    pub threads: u32,
    /// How long a connection may take to be made.
    pub dial_timeout: Duration,
    /// What is asked.
    pub workload: Workload,
    /// How much of it, and how fast.
    pub load: Load,
    /// Which keys.
    pub keys: Keys,
    /// How long values are.
    pub values: Values,
    /// Seed of all that is drawn.
    pub seed: u64,
    /// Whether a request that an overloaded server refuses is sent again, its latency counting on.
    pub retries_refused: bool,
    /// What is printed and written.
    pub outputs: Outputs,
    /// The server's process, if it is on this machine: what it uses is then shown.
    pub server_pid: Option<u32>,
}

/// How much, how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests that are measured, of all clients together.
    pub total: Option<u64>,
    /// How long is measured; the other end if both are given.
    pub duration: Option<Duration>,
    /// Load before what is measured.
    pub warm_up: Duration,
    /// Requests per second, of all clients together: an open loop. `None`: a closed one.
    pub rate: Option<f64>,
    /// How the intended start times lie.
    pub arrivals: Arrivals,
}

/// How intended start times lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Equally spaced.
    Constant,
    /// As those of many strangers: exponential gaps.
    Poisson,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// `put`
    Put {
        /// Compaction beside it.
        compaction: Option<Compaction>,
    },
    /// `range`
    Range(RangeWork),
    /// `txn-put`
    TxnPut {
        /// Puts of one transaction.
        puts: u32,
    },
    /// `txn-mixed`
    TxnMixed {
        /// What its reads read.
        read: RangeWork,
        /// Reads for each write.
        reads_per_write: f64,
    },
    /// `watch` and `watch-latency`
    Watch(WatchWork),
    /// `lease-grant`
    LeaseGrant {
        /// Seconds.
        ttl: i64,
    },
    /// `lease-revoke`: a grant and a revoke in turns.
    LeaseRevoke {
        /// Seconds.
        ttl: i64,
    },
    /// `lease-keepalive`: a lease and a stream for each client.
    LeaseKeepAlive {
        /// Seconds.
        ttl: i64,
    },
    /// `kubernetes`
    Kubernetes(Kubernetes),
}

impl Workload {
    /// Its subcommand.
    pub fn name(&self) -> &'static str {
        match self {
            Workload::Put { .. } => "put",
            Workload::Range(_) => "range",
            Workload::TxnPut { .. } => "txn-put",
            Workload::TxnMixed { .. } => "txn-mixed",
            Workload::Watch(watch) if watch.is_latency => "watch-latency",
            Workload::Watch(_) => "watch",
            Workload::LeaseGrant { .. } => "lease-grant",
            Workload::LeaseRevoke { .. } => "lease-revoke",
            Workload::LeaseKeepAlive { .. } => "lease-keepalive",
            Workload::Kubernetes(_) => "kubernetes",
        }
    }
}

/// Compaction from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Time between two.
    pub interval: Duration,
    /// How far behind the newest revision.
    pub index_delta: i64,
}

/// What a read reads.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeWork {
    /// The key, and the range's end (empty: one key). `None`: one of the key space, drawn for each request.
    pub fixed: Option<(Vec<u8>, Vec<u8>)>,
    /// Linearizable or not.
    pub consistency: Consistency,
    /// Most keys of an answer; 0: all.
    pub limit: i64,
    /// Only their number.
    pub is_count_only: bool,
    /// Without values.
    pub is_keys_only: bool,
    /// Whether all keys of the key space are put first.
    pub loads: bool,
}

/// Linearizable or serializable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Confirmed with the cluster.
    Linearizable,
    /// What the member has.
    Serializable,
}

/// Watchers, and the puts that they are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchWork {
    /// Whether it is `watch-latency`: the same with other defaults.
    pub is_latency: bool,
    /// Streams, of all connections together.
    pub streams: u32,
    /// Watchers of each stream.
    pub watchers_per_stream: u32,
    /// Keys that are watched: watcher n watches key n modulo this.
    pub watched_keys: u64,
    /// Whether events carry the value before.
    pub has_prev_kv: bool,
}

/// A cluster's control plane: objects that are renewed with compare-and-swap, read, listed in pages, and watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kubernetes {
    /// Objects, divided among the clients.
    pub objects: u64,
    /// Objects of a page.
    pub page: i64,
    /// Watch streams on all of them.
    pub watches: u32,
    /// Time between two requests for progress on each stream.
    pub progress_interval: Duration,
    /// Weights of update, get and list.
    pub weights: [u32; 3],
}

/// Which keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// Bytes of a key.
    pub bytes: usize,
    /// What all begin with.
    pub prefix: String,
    /// How many there are.
    pub space: u64,
    /// Which is next.
    pub order: KeyOrder,
}

/// Which key is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// Any, all alike.
    Uniform,
    /// One after the other.
    Sequential,
    /// Few often and many seldom (Zipf, exponent 0.99).
    Zipfian,
}

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// Mean, in bytes.
    pub bytes: usize,
    /// Around it.
    pub sizes: ValueSizes,
}

/// How lengths lie around their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSizes {
    /// All alike.
    Fixed,
    /// From nothing to twice the mean.
    Uniform,
    /// Exponential, up to sixteen times the mean.
    Exponential,
}

/// What is printed and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// On standard output.
    pub format: PrintFormat,
    /// `PREFIX.json`, `PREFIX.svg`, `PREFIX.OPERATION.hgrm`.
    pub save: Option<PathBuf>,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}
