//! The one table of flags: name, type, default, how it is treated, what it does. The parser, the environment, the file,
//! the help and the golden test all read it; nothing else knows a flag's name but the code that uses its value.
//!
//! The environment variable of a flag is `ETCD_` and its name in capitals with underscores. The key in a file is the
//! name, but for those in [`FILE_KEYS`].

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, or the bare flag.
    Bool,
    /// A whole number from 0, with this many bits.
    Uint(u32),
    /// A whole number of 64 bits.
    Int,
    /// A Go duration.
    Duration,
    /// Any text.
    Text,
    /// URLs with commas.
    Urls,
    /// URLs with commas, or `*`.
    Origins,
    /// Texts with commas.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Some of these, with commas.
    Choices(&'static [&'static str]),
    /// Feature gates.
    Features,
    /// Taken and dropped: flags of long ago.
    Nothing,
}

/// What ringd does with a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// What etcd does.
    Honoured,
    /// Nothing, for this reason; logged when it is set.
    Accepted(&'static str),
    /// The start fails with this sentence if the value is not the default.
    Refused(&'static str),
    /// An old name of this flag.
    Alias(&'static str),
    /// An old way to set this feature gate.
    Gate(&'static str),
}

/// A section of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Section {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Tuning,
    Experimental,
    Unsafe,
    Gone,
    Ringd,
}

impl Section {
    /// In the order of the help.
    pub const ALL: [(Section, &'static str); 12] = [
        (Section::Ringd, "ringd's own"),
        (Section::Member, "Member"),
        (Section::Clustering, "Clustering"),
        (Section::Security, "Security"),
        (Section::Auth, "Auth"),
        (Section::Monitoring, "Profiling and Monitoring"),
        (Section::Logging, "Logging"),
        (Section::Tuning, "Tuning"),
        (Section::Tracing, "Distributed tracing"),
        (Section::Experimental, "Old names (of etcd 3.5)"),
        (Section::Unsafe, "Unsafe"),
        (Section::Gone, "Gone"),
    ];
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes in front.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// As it would be written.
    pub default: &'static str,
    /// Where the help has it.
    pub section: Section,
    /// What ringd does with it.
    pub treatment: Treatment,
    /// What it is for.
    pub help: &'static str,
}

impl Flag {
    /// The environment variable that stands for it.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// The key in a configuration file, a dot between levels; `None` if files cannot set it.
    pub fn file_key(&self) -> Option<&'static str> {
        match FILE_KEYS.iter().find(|(name, _)| *name == self.name) {
            Some((_, "")) => None,
            Some((_, key)) => Some(key),
            None => Some(self.name),
        }
    }
}

/// The flag of a name.
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

macro_rules! flags {
    ($($section:ident { $($name:literal $kind:expr, $default:literal $treatment:expr, $help:literal;)* })*) => {
        /// All flags.
        pub const FLAGS: &[Flag] = &[$($(Flag {
            name: $name,
            kind: $kind,
            default: $default,
            section: Section::$section,
            treatment: $treatment,
            help: $help,
        },)*)*];
    };
}

use Kind::{Bool, Choice, Choices, Duration, Features, Int, List, Nothing, Origins, Text, Uint, Urls};
use Treatment::{Accepted, Alias, Gate, Honoured, Refused};

const NO_PEERS: Treatment = Accepted("members do not talk to each other yet");
const NO_TLS: Treatment = Refused("TLS is not supported yet");
const TLS_DETAIL: Treatment = Accepted("TLS is not supported yet, and refused where it is asked for");
const NO_AUTH: Treatment = Accepted("authentication cannot be enabled yet");
const NO_DISCOVERY: Treatment = Refused("discovery is not supported yet; name the members with --initial-cluster");
const DISCOVERY_DETAIL: Treatment = Accepted("discovery is not supported yet, and refused where it is asked for");
const NO_TRACING: Treatment = Refused("distributed tracing is not supported yet");
const TRACING_DETAIL: Treatment =
    Accepted("distributed tracing is not supported yet, and refused where it is asked for");
const NO_V2: Treatment = Refused("the v2 API is not supported: etcd itself has removed it in 3.6");
const NO_PROXY: Treatment = Refused("the v2 proxy is not supported: etcd itself has removed it in 3.6");
const PROXY_DETAIL: Treatment = Accepted("the v2 proxy is gone");

flags! {
    Ringd {
        "cores" Text, "" Honoured,
            "Cores to run on, such as '0-3,8'. All that the process may use, if empty.";
        "fronts" Text, "" Honoured,
            "How many cores besides the first take connections. If empty, up to 4 of those that neither consensus nor the database's file needs.";
        "home-connections" Uint(64), "8" Honoured,
            "Connections that stay on the first core where others take connections: for few clients the way to another core costs more than their requests.";
        "wal-sync" Choice(&["auto", "dsync", "fdatasync"]), "auto" Honoured,
            "How a batch of the log is made durable: one write to a file opened with O_DSYNC, a write and fdatasync, or whichever serves better at the moment.";
        "idle-poll" Duration, "200us" Honoured,
            "How long the first core, if it has few clients, looks for work before it sleeps: to wake takes long, above all in a virtual machine. 0 sleeps at once.";
        "hold-cluster-version" Text, "3.5" Honoured,
            "The cluster version is not raised above this one, so that etcd 3.5 can take the data back. Empty follows etcd.";
    }
    Member {
        "name" Text, "default" Honoured, "This member's name.";
        "data-dir" Text, "" Honoured, "Directory of the data; ${name}.etcd if empty.";
        "wal-dir" Text, "" Honoured, "Directory of the log, if it is to be on another disk.";
        "snapshot-count" Uint(64), "10000" Honoured, "Applied entries after which a snapshot file is written.";
        "snapshot-catchup-entries" Uint(64), "5000" Honoured,
            "Entries kept behind a snapshot for followers that are a little behind.";
        "heartbeat-interval" Uint(64), "100" Honoured, "Milliseconds between heartbeats.";
        "election-timeout" Uint(64), "1000" Honoured,
            "Milliseconds without a leader after which one is elected: five heartbeats or more, at most 50000.";
        "initial-election-tick-advance" Bool, "true" Accepted("a lone member does not wait for an election"),
            "Skip most of the first election timeout.";
        "listen-peer-urls" Urls, "http://localhost:2380" NO_PEERS, "Where to listen for other members.";
        "listen-client-urls" Urls, "http://localhost:2379" Honoured,
            "Where to listen for clients: gRPC, and HTTP unless --listen-client-http-urls is set.";
        "listen-client-http-urls" Urls, "" Honoured,
            "Where to listen for clients of HTTP alone; takes HTTP away from --listen-client-urls.";
        "max-snapshots" Uint(64), "5" Honoured, "Snapshot files to keep; 0 keeps all.";
        "max-wals" Uint(64), "5" Honoured, "Log segments to keep behind the newest snapshot; 0 keeps all.";
        "memory-mlock" Bool, "false" Honoured, "Lock the mapped database into memory.";
        "quota-backend-bytes" Int, "0" Honoured,
            "Bytes that the database may take before writes are refused; 0 stands for 2 GiB, less than 0 for no bound.";
        "backend-bbolt-freelist-type" Text, "map"
            Accepted("free pages are kept so that commits stay contiguous, which neither type does"),
            "How etcd keeps track of free pages: array or map.";
        "backend-batch-interval" Duration, "0s" Honoured, "Longest time between commits of the tree; 0 stands for 100ms.";
        "backend-batch-limit" Int, "0" Honoured, "Changes after which the tree is committed; 0 stands for 10000.";
        "max-txn-ops" Uint(64), "128" Honoured, "Operations that a transaction may have.";
        "max-request-bytes" Uint(64), "1572864" Honoured, "Bytes that a client's request may have.";
        "max-concurrent-streams" Uint(32), "4294967295" Honoured, "Streams that a client may have open on a connection.";
        "grpc-keepalive-min-time" Duration, "5s" Honoured,
            "Clients that ping more often than this are disconnected.";
        "grpc-keepalive-interval" Duration, "2h" Honoured, "Silence after which the server pings a client; 0 never does.";
        "grpc-keepalive-timeout" Duration, "20s" Honoured,
            "Time without an answer to a ping after which a connection is closed.";
        "socket-reuse-port" Bool, "false"
            Refused("SO_REUSEPORT is not supported: it would let a second server take part of the connections unseen"),
            "Let other processes listen on the same port.";
        "socket-reuse-address" Bool, "false" Accepted("SO_REUSEADDR is always set"),
            "Listen on an address although old connections to it are not forgotten yet.";
        "enable-grpc-gateway" Bool, "true" Accepted("the JSON gateway is not served yet"), "Serve the JSON gateway.";
        "raft-read-timeout" Duration, "5s" NO_PEERS, "Time without data after which a peer's connection is given up.";
        "raft-write-timeout" Duration, "5s" NO_PEERS, "Time that a write to a peer may take.";
        "feature-gates" Features, "" Honoured, "Features to turn on or off, as Name=true,Other=false.";
        "config-file" Text, "" Honoured,
            "A YAML file with the whole configuration; flags and variables beside it are ignored.";
        "version" Bool, "false" Honoured, "Print the version and leave.";
    }
    Clustering {
        "initial-advertise-peer-urls" Urls, "http://localhost:2380" Honoured,
            "What other members are told of where this one listens for them.";
        "initial-cluster" Text, "default=http://localhost:2380" Honoured, "The members of a new cluster: name=URL,...";
        "initial-cluster-state" Choice(&["new", "existing"]), "new" Honoured,
            "Whether an empty directory begins a cluster or joins one; without meaning afterwards.";
        "initial-cluster-token" Text, "etcd-cluster" Honoured,
            "Makes the ids of a new cluster its own, so that two clusters never mix.";
        "advertise-client-urls" Urls, "http://localhost:2379" Honoured,
            "What clients are told of where this member listens for them.";
        "strict-reconfig-check" Bool, "true" Accepted("members cannot be changed yet"), "Refuse changes of members that would lose the quorum.";
        "pre-vote" Bool, "true" Honoured, "Ask before standing for election, so that a member that was cut off disturbs nobody.";
        "auto-compaction-retention" Text, "0" Honoured,
            "History to keep: a duration (hours without a unit) or a number of revisions; 0 never compacts.";
        "auto-compaction-mode" Text, "periodic" Honoured, "What the retention counts in: periodic or revision.";
        "discovery" Text, "" NO_DISCOVERY, "URL of a v2 discovery service.";
        "discovery-token" Text, "" NO_DISCOVERY, "v3 discovery: the new cluster's token.";
        "discovery-endpoints" List, "" NO_DISCOVERY, "v3 discovery: where the service is.";
        "discovery-dial-timeout" Duration, "2s" DISCOVERY_DETAIL, "v3 discovery: time to connect.";
        "discovery-request-timeout" Duration, "5s" DISCOVERY_DETAIL, "v3 discovery: time for a request.";
        "discovery-keepalive-time" Duration, "2s" DISCOVERY_DETAIL, "v3 discovery: silence before a ping.";
        "discovery-keepalive-timeout" Duration, "6s" DISCOVERY_DETAIL, "v3 discovery: time for an answer to a ping.";
        "discovery-insecure-transport" Bool, "true" DISCOVERY_DETAIL, "v3 discovery: speak without TLS.";
        "discovery-insecure-skip-tls-verify" Bool, "false" DISCOVERY_DETAIL, "v3 discovery: trust any certificate.";
        "discovery-cert" Text, "" NO_DISCOVERY, "v3 discovery: certificate.";
        "discovery-key" Text, "" NO_DISCOVERY, "v3 discovery: key.";
        "discovery-cacert" Text, "" NO_DISCOVERY, "v3 discovery: authorities.";
        "discovery-user" Text, "" NO_DISCOVERY, "v3 discovery: user.";
        "discovery-password" Text, "" NO_DISCOVERY, "v3 discovery: password.";
        "discovery-fallback" Choice(&["exit", "proxy"]), "exit" DISCOVERY_DETAIL, "What to do when discovery fails.";
        "discovery-proxy" Text, "" NO_DISCOVERY, "HTTP proxy on the way to the discovery service.";
        "discovery-srv" Text, "" NO_DISCOVERY, "DNS domain whose SRV records name the members.";
        "discovery-srv-name" Text, "" NO_DISCOVERY, "Suffix of the SRV records' name.";
    }
    Security {
        "cert-file" Text, "" NO_TLS, "The server's certificate for clients.";
        "key-file" Text, "" NO_TLS, "Its key.";
        "client-cert-auth" Bool, "false" NO_TLS, "Ask clients for a certificate.";
        "client-cert-file" Text, "" NO_TLS, "Certificate for the server's own calls as a client.";
        "client-key-file" Text, "" NO_TLS, "Its key.";
        "client-crl-file" Text, "" NO_TLS, "Revoked client certificates.";
        "client-cert-allowed-hostname" List, "" NO_TLS, "Names that client certificates may carry.";
        "trusted-ca-file" Text, "" NO_TLS, "Authorities of client certificates.";
        "auto-tls" Bool, "false" NO_TLS, "Make a certificate for clients at start.";
        "peer-cert-file" Text, "" NO_TLS, "The server's certificate for peers.";
        "peer-key-file" Text, "" NO_TLS, "Its key.";
        "peer-client-cert-auth" Bool, "false" NO_TLS, "Ask peers for a certificate.";
        "peer-client-cert-file" Text, "" NO_TLS, "Certificate for calls to peers.";
        "peer-client-key-file" Text, "" NO_TLS, "Its key.";
        "peer-trusted-ca-file" Text, "" NO_TLS, "Authorities of peer certificates.";
        "peer-auto-tls" Bool, "false" NO_TLS, "Make a certificate for peers at start.";
        "peer-cert-allowed-cn" List, "" NO_TLS, "Common names that peer certificates may carry.";
        "peer-cert-allowed-hostname" List, "" NO_TLS, "Names that peer certificates may carry.";
        "peer-crl-file" Text, "" NO_TLS, "Revoked peer certificates.";
        "peer-skip-client-san-verification" Bool, "false" NO_TLS, "Do not look at the names in peers' certificates.";
        "self-signed-cert-validity" Uint(64), "1" TLS_DETAIL, "Years that certificates made at start are valid.";
        "cipher-suites" List, "" NO_TLS, "TLS cipher suites to allow.";
        "tls-min-version" Text, "TLS1.2" TLS_DETAIL, "Lowest TLS version: TLS1.2 or TLS1.3.";
        "tls-max-version" Text, "" TLS_DETAIL, "Highest TLS version: TLS1.2 or TLS1.3.";
        "cors" Origins, "*" Honoured, "Origins that browsers may come from.";
        "host-whitelist" List, "*" Honoured, "Host headers that plaintext HTTP requests may carry.";
    }
    Auth {
        "auth-token" Text, "simple" Refused("only simple tokens are supported yet"), "Kind of tokens: simple or jwt.";
        "bcrypt-cost" Uint(64), "10" NO_AUTH, "Cost of a password's hash, 4 to 31.";
        "auth-token-ttl" Uint(64), "300" NO_AUTH, "Seconds that a token lives without being used.";
    }
    Monitoring {
        "enable-pprof" Bool, "false" Accepted("the profiler of Go's runtime has no counterpart; use perf"),
            "Serve /debug/pprof.";
        "metrics" Text, "basic" Honoured, "Detail of the metrics: extensive adds latencies per method.";
        "listen-metrics-urls" Urls, "" Honoured, "More places to serve /metrics and health on.";
        "warning-unary-request-duration" Duration, "0s" Honoured,
            "Unary requests that take longer are logged; 0 stands for 300ms.";
        "warning-apply-duration" Duration, "100ms" Honoured, "Applies that take longer are logged.";
    }
    Logging {
        "logger" Text, "zap" Honoured, "The shape of log lines; only zap's.";
        "log-outputs" List, "default" Honoured,
            "Where log lines go: default or stderr, stdout, or files, with commas.";
        "log-level" Text, "info" Honoured, "The least level to log: debug, info, warn, error, panic or fatal.";
        "log-format" Text, "json" Honoured, "How log lines look: json or console.";
        "enable-log-rotation" Bool, "false" Honoured, "Begin a new log file when the one file among the outputs is full.";
        "log-rotation-config-json" Text,
            r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"# Honoured,
            "When a log file is full and what is kept: megabytes, days, files. Compression is not supported.";
    }
    Tuning {
        "corrupt-check-time" Duration, "0s" NO_PEERS, "How often members compare their data; 0 never.";
        "compact-hash-check-time" Duration, "1m0s" NO_PEERS, "How often the leader compares compaction hashes.";
        "compaction-batch-limit" Int, "0" Honoured, "Revisions that one batch of a compaction removes; 0 stands for 1000.";
        "compaction-sleep-interval" Duration, "0s" Honoured,
            "Pause between batches of a compaction; 0 stands for 10ms.";
        "watch-progress-notify-interval" Duration, "0s" Honoured,
            "How often idle watchers that asked for it are told the revision; 0 stands for 10m.";
        "bootstrap-defrag-threshold-megabytes" Uint(64), "0" Honoured,
            "Free megabytes from which the database is defragmented at start; 0 never.";
        "max-learners" Int, "1" NO_PEERS, "Learners that the cluster may have.";
        "downgrade-check-time" Duration, "5s" Accepted("the cluster version cannot be lowered yet"),
            "How often a downgrade is looked after.";
        "v2-deprecation" Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone", "not-yet"]), "" Accepted("etcd 3.6 ignores it too"), "Stage of the v2 store's removal.";
    }
    Tracing {
        "enable-distributed-tracing" Bool, "false" NO_TRACING, "Send traces to a collector.";
        "distributed-tracing-address" Text, "localhost:4317" TRACING_DETAIL, "Where the collector is.";
        "distributed-tracing-service-name" Text, "etcd" TRACING_DETAIL, "Name of the service in traces.";
        "distributed-tracing-instance-id" Text, "" TRACING_DETAIL, "Name of this instance in traces.";
        "distributed-tracing-sampling-rate" Int, "0" TRACING_DETAIL, "Traces per million requests.";
    }
    Experimental {
        "experimental-initial-corrupt-check" Bool, "false" Gate("InitialCorruptCheck"), "";
        "experimental-compact-hash-check-enabled" Bool, "false" Gate("CompactHashCheck"), "";
        "experimental-enable-lease-checkpoint" Bool, "false" Gate("LeaseCheckpoint"), "";
        "experimental-enable-lease-checkpoint-persist" Bool, "false" Gate("LeaseCheckpointPersist"), "";
        "experimental-stop-grpc-service-on-defrag" Bool, "false" Gate("StopGRPCServiceOnDefrag"), "";
        "experimental-txn-mode-write-with-shared-buffer" Bool, "true" Gate("TxnModeWriteWithSharedBuffer"), "";
        "experimental-corrupt-check-time" Duration, "0s" Alias("corrupt-check-time"), "";
        "experimental-compact-hash-check-time" Duration, "1m0s" Alias("compact-hash-check-time"), "";
        "experimental-compaction-batch-limit" Int, "0" Alias("compaction-batch-limit"), "";
        "experimental-compaction-sleep-interval" Duration, "0s" Alias("compaction-sleep-interval"), "";
        "experimental-watch-progress-notify-interval" Duration, "0s" Alias("watch-progress-notify-interval"), "";
        "experimental-warning-apply-duration" Duration, "0s" Alias("warning-apply-duration"), "";
        "experimental-warning-unary-request-duration" Duration, "0s" Alias("warning-unary-request-duration"), "";
        "experimental-bootstrap-defrag-threshold-megabytes" Uint(64), "0" Alias("bootstrap-defrag-threshold-megabytes"), "";
        "experimental-memory-mlock" Bool, "false" Alias("memory-mlock"), "";
        "experimental-snapshot-catchup-entries" Uint(64), "5000" Alias("snapshot-catchup-entries"), "";
        "experimental-downgrade-check-time" Duration, "5s" Alias("downgrade-check-time"), "";
        "experimental-max-learners" Int, "1" Alias("max-learners"), "";
        "experimental-peer-skip-client-san-verification" Bool, "false" Alias("peer-skip-client-san-verification"), "";
        "experimental-enable-distributed-tracing" Bool, "false" Alias("enable-distributed-tracing"), "";
        "experimental-distributed-tracing-address" Text, "localhost:4317" Alias("distributed-tracing-address"), "";
        "experimental-distributed-tracing-service-name" Text, "etcd" Alias("distributed-tracing-service-name"), "";
        "experimental-distributed-tracing-instance-id" Text, "" Alias("distributed-tracing-instance-id"), "";
        "experimental-distributed-tracing-sampling-rate" Int, "0" Alias("distributed-tracing-sampling-rate"), "";
    }
    Unsafe {
        "force-new-cluster" Bool, "false" Refused("starting a cluster anew from old data is not supported yet"),
            "Begin a cluster of one member from the data of a larger one.";
        "unsafe-no-fsync" Bool, "false" Honoured,
            "Do not wait for the disk: what was acknowledged is lost with the machine. For tests alone.";
    }
    Gone {
        "enable-v2" Bool, "false" NO_V2, "Serve the v2 API.";
        "experimental-enable-v2v3" Text, "" NO_V2, "Serve the v2 API from the v3 store.";
        "proxy" Choice(&["off", "readonly", "on"]), "off" NO_PROXY, "Be a v2 proxy.";
        "proxy-failure-wait" Uint(64), "5000" PROXY_DETAIL, "v2 proxy: milliseconds that a failed endpoint rests.";
        "proxy-refresh-interval" Uint(64), "30000" PROXY_DETAIL, "v2 proxy: milliseconds between looks at the members.";
        "proxy-dial-timeout" Uint(64), "1000" PROXY_DETAIL, "v2 proxy: milliseconds to connect.";
        "proxy-write-timeout" Uint(64), "5000" PROXY_DETAIL, "v2 proxy: milliseconds to write.";
        "proxy-read-timeout" Uint(64), "0" PROXY_DETAIL, "v2 proxy: milliseconds to read.";
        "cluster-active-size" Nothing, "" Honoured, "";
        "cluster-remove-delay" Nothing, "" Honoured, "";
        "cluster-sync-interval" Nothing, "" Honoured, "";
        "config" Nothing, "" Honoured, "";
        "force" Nothing, "" Honoured, "";
        "max-result-buffer" Nothing, "" Honoured, "";
        "max-retry-attempts" Nothing, "" Honoured, "";
        "peer-heartbeat-interval" Nothing, "" Honoured, "";
        "peer-election-timeout" Nothing, "" Honoured, "";
        "retry-interval" Nothing, "" Honoured, "";
        "snapshot" Nothing, "" Honoured, "";
        "v" Nothing, "" Honoured, "";
        "vv" Nothing, "" Honoured, "";
    }
}

/// Flags whose key in a file is not their name; no key at all if it is empty.
pub const FILE_KEYS: &[(&str, &str)] = &[
    ("config-file", ""),
    ("version", ""),
    ("raft-read-timeout", ""),
    ("raft-write-timeout", ""),
    ("discovery-fallback", ""),
    ("socket-reuse-port", "socket-options.reuse-port"),
    ("socket-reuse-address", "socket-options.reuse-address"),
    ("cert-file", "client-transport-security.cert-file"),
    ("key-file", "client-transport-security.key-file"),
    ("client-cert-file", "client-transport-security.client-cert-file"),
    ("client-key-file", "client-transport-security.client-key-file"),
    ("client-cert-auth", "client-transport-security.client-cert-auth"),
    ("trusted-ca-file", "client-transport-security.trusted-ca-file"),
    ("auto-tls", "client-transport-security.auto-tls"),
    (
        "client-cert-allowed-hostname",
        "client-transport-security.allowed-hostname",
    ),
    ("client-crl-file", ""),
    ("peer-cert-file", "peer-transport-security.cert-file"),
    ("peer-key-file", "peer-transport-security.key-file"),
    ("peer-client-cert-file", "peer-transport-security.client-cert-file"),
    ("peer-client-key-file", "peer-transport-security.client-key-file"),
    ("peer-client-cert-auth", "peer-transport-security.client-cert-auth"),
    ("peer-trusted-ca-file", "peer-transport-security.trusted-ca-file"),
    ("peer-auto-tls", "peer-transport-security.auto-tls"),
    ("peer-cert-allowed-cn", "peer-transport-security.allowed-cn"),
    ("peer-cert-allowed-hostname", "peer-transport-security.allowed-hostname"),
    (
        "peer-skip-client-san-verification",
        "peer-transport-security.skip-client-san-verification",
    ),
    ("peer-crl-file", ""),
    (
        "experimental-snapshot-catchup-entries",
        "experimental-snapshot-catch-up-entries",
    ),
    ("discovery-token", "discovery-config.token"),
    ("discovery-endpoints", "discovery-config.endpoints"),
];
