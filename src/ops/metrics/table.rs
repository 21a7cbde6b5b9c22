//! Every metric: where it is counted, its name, what it means. The structs and the text both follow from this table.

use super::{
    Counter, Fine, FineCounts, GrpcCounters, GrpcCounts, Histogram, HistogramCounts, Labelled,
    counter::{LabelledHistograms, add_labelled, merge_labelled, milliseconds, plain, seconds},
    family::{Family, Kind, Sample, Value},
};

macro_rules! counts {
    (
        counters { $($c:ident $c_kind:ident $c_name:literal $c_help:literal;)* }
        labelled { $($l:ident [$($label:literal),*] $l_name:literal $l_help:literal;)* }
        histograms { $($h:ident $h_buckets:expr, $h_name:literal $h_help:literal;)* }
        labelled_histograms { $($lh:ident [$($lh_label:literal),*] $lh_buckets:expr, $lh_name:literal $lh_help:literal;)* }
        fine { $($f:ident $f_name:literal $f_help:literal;)* }
    ) => {
        /// What one core has counted. Not shared: each core has its own.
        #[derive(Debug)]
        pub struct Counters {
            $(#[doc = $c_help] pub $c: Counter,)*
            $(#[doc = $l_help] pub $l: Labelled<{ [$($label),*].len() }>,)*
            $(#[doc = $h_help] pub $h: Histogram,)*
            $(#[doc = $lh_help] pub $lh: LabelledHistograms<{ [$($lh_label),*].len() }>,)*
            $(#[doc = $f_help] pub $f: Fine,)*
            /// Calls by method.
            pub grpc: GrpcCounters,
        }

        impl Default for Counters {
            fn default() -> Counters {
                let counters = Counters {
                    $($c: Counter::default(),)*
                    $($l: Labelled::default(),)*
                    $($h: Histogram::new($h_buckets),)*
                    $($lh: LabelledHistograms::new($lh_buckets),)*
                    $($f: Fine::new(),)*
                    grpc: GrpcCounters::default(),
                };
                // Visible from the first scrape on, as Prometheus's own handler has them.
                for code in ["200", "500", "503"] {
                    counters.scrapes.add([code], 0);
                }
                counters
            }
        }

        impl Counters {
            /// The numbers of this moment, to be sent to the core that answers the scrape.
            pub fn counts(&self) -> Counts {
                Counts {
                    $($c: self.$c.value(),)*
                    $($l: self.$l.counts(),)*
                    $($h: self.$h.counts(),)*
                    $($lh: self.$lh.counts(),)*
                    $($f: self.$f.counts(),)*
                    grpc: self.grpc.counts(),
                }
            }

            /// Begins a new window for the quantiles of the `ringd_*` distributions; to be called once a minute.
            pub fn roll(&self) {
                $(self.$f.roll();)*
            }
        }

        /// [`Counters`] at one moment, of one core or added up.
        #[derive(Clone, Debug)]
        #[allow(missing_docs)] // As in `Counters`.
        pub struct Counts {
            $(pub $c: u64,)*
            $(pub $l: Vec<([&'static str; [$($label),*].len()], u64)>,)*
            $(pub $h: HistogramCounts,)*
            $(pub $lh: Vec<([&'static str; [$($lh_label),*].len()], HistogramCounts)>,)*
            $(pub $f: FineCounts,)*
            pub grpc: GrpcCounts,
        }

        impl Counts {
            /// Adds another core's numbers.
            pub fn merge(&mut self, other: &Counts) {
                $(self.$c += other.$c;)*
                $(for (values, count) in &other.$l { add_labelled(&mut self.$l, *values, *count); })*
                $(self.$h.merge(&other.$h);)*
                $(merge_labelled(&mut self.$lh, &other.$lh);)*
                $(self.$f.merge(&other.$f);)*
                self.grpc.merge(&other.grpc);
            }
        }

        pub(super) fn count_families(counts: &Counts, families: &mut Vec<Family>) {
            $(families.push(Family::single($c_name, $c_help, Kind::$c_kind, counts.$c as f64));)*
            $(if !counts.$l.is_empty() {
                let values = counts.$l.iter().map(|(labels, count)| (*labels, Value::Number(*count as f64)));
                families.push(labelled_family($l_name, $l_help, Kind::Counter, &[$($label),*], values.collect()));
            })*
            $(if !counts.$lh.is_empty() {
                let values = counts.$lh.iter().map(|(labels, counts)| (*labels, counts.value()));
                families.push(labelled_family($lh_name, $lh_help, Kind::Histogram, &[$($lh_label),*], values.collect()));
            })*
            $(families.push(Family {
                name: $h_name,
                help: $h_help,
                kind: Kind::Histogram,
                samples: vec![Sample::new(Vec::new(), counts.$h.value())],
            });)*
            $(families.push(Family {
                name: $f_name,
                help: $f_help,
                kind: Kind::Summary,
                samples: vec![Sample::new(Vec::new(), counts.$f.value())],
            });)*
        }
    };
}

fn labelled_family<const LABELS: usize>(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &[&'static str; LABELS],
    mut values: Vec<([&'static str; LABELS], Value)>,
) -> Family {
    values.sort_by_key(|(texts, _)| *texts);
    let sample = |(texts, value): ([&'static str; LABELS], Value)| {
        let labels = labels
            .iter()
            .zip(texts)
            .map(|(&label, text)| (label, text.into()))
            .collect();
        Sample::new(labels, value)
    };
    let samples = values.into_iter().map(sample).collect();
    Family {
        name,
        help,
        kind,
        samples,
    }
}

counts! {
    counters {
        leases_granted Counter "etcd_debugging_lease_granted_total" "Leases granted.";
        leases_renewed Counter "etcd_debugging_lease_renewed_total" "Keep-alives that the leader has answered.";
        leases_revoked Counter "etcd_debugging_lease_revoked_total" "Leases revoked.";
        leases_expired Counter "etcd_debugging_server_lease_expired_total" "Leases that ran out.";
        compaction_keys Counter "etcd_debugging_mvcc_db_compaction_keys_total"
            "Revisions that compactions have removed from the tree.";
        events Counter "etcd_debugging_mvcc_events_total" "Events sent to watchers.";
        put_bytes Gauge "etcd_debugging_mvcc_total_put_size_in_bytes" "Bytes of all keys and values put.";
        wal_bytes Gauge "etcd_disk_wal_write_bytes_total" "Bytes written to the log.";
        puts Counter "etcd_mvcc_put_total" "Keys put.";
        deletes Counter "etcd_mvcc_delete_total" "Keys deleted.";
        ranges Counter "etcd_mvcc_range_total" "Ranges read.";
        txns Counter "etcd_mvcc_txn_total" "Transactions carried out.";
        grpc_received_bytes Counter "etcd_network_client_grpc_received_bytes_total" "Bytes of clients' messages.";
        grpc_sent_bytes Counter "etcd_network_client_grpc_sent_bytes_total" "Bytes of messages to clients.";
        health_failures Counter "etcd_server_health_failures" "Times /health answered that it is not well.";
        health_successes Counter "etcd_server_health_success" "Times /health answered that it is well.";
        heartbeat_send_failures Counter "etcd_server_heartbeat_send_failures_total"
            "Heartbeats that left late, most likely because of a slow disk.";
        leader_changes Counter "etcd_server_leader_changes_seen_total" "Changes of the leader seen.";
        learner_promotions Counter "etcd_server_learner_promote_successes"
            "Learners promoted while this member led.";
        proposals_failed Counter "etcd_server_proposals_failed_total" "Proposals that failed.";
        read_indexes_failed Counter "etcd_server_read_indexes_failed_total" "Read indexes that could not be had.";
        slow_applies Counter "etcd_server_slow_apply_total" "Applies over the warning's duration.";
        slow_read_indexes Counter "etcd_server_slow_read_indexes_total"
            "Read indexes that timed out or belonged to an earlier request.";
    }
    labelled {
        client_requests ["client_api_version", "type"] "etcd_server_client_requests_total"
            "Requests by the version that the client says it speaks, and by kind.";
        health_checks ["name", "status", "type"] "etcd_server_healthchecks_total" "Checks of /livez and /readyz made.";
        stream_failures ["API", "Type"] "etcd_network_server_stream_failures_total" "Streams that broke, by end and call.";
        learner_promotion_failures ["Reason"] "etcd_server_learner_promote_failures"
            "Learners that could not be promoted while this member led.";
        scrapes ["code"] "promhttp_metric_handler_requests_total" "Scrapes answered, by HTTP status.";
    }
    histograms {
        commit_rebalance seconds(0.001, 14), "etcd_debugging_disk_backend_commit_rebalance_duration_seconds"
            "Tree commits: time to rebalance.";
        commit_spill seconds(0.001, 14), "etcd_debugging_disk_backend_commit_spill_duration_seconds"
            "Tree commits: time to lay out pages.";
        commit_write seconds(0.001, 14), "etcd_debugging_disk_backend_commit_write_duration_seconds"
            "Tree commits: time to write.";
        lease_ttl plain(1.0, 24), "etcd_debugging_lease_ttl_total" "TTLs of granted leases, in seconds.";
        compaction_pause milliseconds(1.0, 13), "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds"
            "Compactions: how long one batch kept the store from other work.";
        compaction_total milliseconds(100.0, 14), "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"
            "Compactions: from begin to end.";
        index_compaction_pause milliseconds(0.5, 14), "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds"
            "Compactions: how long the index was held up.";
        snap_marshal seconds(0.001, 14), "etcd_debugging_snap_save_marshalling_duration_seconds"
            "Snapshot files: time to encode.";
        snap_save seconds(0.001, 14), "etcd_debugging_snap_save_total_duration_seconds"
            "Snapshot files: from begin to durable.";
        backend_commit seconds(0.001, 14), "etcd_disk_backend_commit_duration_seconds" "Tree commits, from begin to durable.";
        backend_defrag seconds(0.1, 13), "etcd_disk_backend_defrag_duration_seconds" "Defragmentations.";
        backend_snapshot seconds(0.01, 17), "etcd_disk_backend_snapshot_duration_seconds" "Snapshots streamed out.";
        wal_fsync seconds(0.001, 14), "etcd_disk_wal_fsync_duration_seconds" "Syncs of the log.";
        wal_write seconds(0.001, 14), "etcd_disk_wal_write_duration_seconds" "Writes of the log; with --wal-sync=dsync the write is the sync.";
        hash seconds(0.01, 15), "etcd_mvcc_hash_duration_seconds" "Hashes over the whole store.";
        hash_rev seconds(0.01, 15), "etcd_mvcc_hash_rev_duration_seconds" "Hashes of a revision.";
        snap_db_fsync seconds(0.001, 14), "etcd_snap_db_fsync_duration_seconds" "Received database files: syncs.";
        snap_db_save seconds(0.1, 10), "etcd_snap_db_save_total_duration_seconds"
            "Received database files: from begin to durable.";
        snap_fsync seconds(0.001, 14), "etcd_snap_fsync_duration_seconds" "Snapshot files: syncs.";
    }
    labelled_histograms {
        applies ["op", "success", "version"] seconds(0.0001, 20), "etcd_server_apply_duration_seconds"
            "Applies, by operation (Put, Txn, ...), outcome (true, false) and API (v3).";
        range_durations ["success"] seconds(0.0001, 20), "etcd_server_range_duration_seconds" "Reads of ranges.";
    }
    fine {
        wal_sync_fine "ringd_wal_sync_microseconds" "Time to make a batch of the log durable.";
        wal_batch_fine "ringd_wal_batch_wait_microseconds" "Time that a batch's first entry waits for the write before it.";
        backend_commit_fine "ringd_backend_commit_microseconds" "Tree commits, from begin to durable.";
        put_fine "ringd_put_microseconds" "Writes, from the decoded request to the encoded answer.";
        range_fine "ringd_range_microseconds" "Reads, from the decoded request to the encoded answer.";
        apply_fine "ringd_apply_microseconds" "Time to apply what one turn of the loop found committed.";
        turn_fine "ringd_turn_microseconds" "How long one turn of a core's loop took before others could run.";
    }
}

/// What etcd shows of parts that ringd does not have: always zero, so that panels show that instead of nothing.
const ABSENT: [(&str, &str, Kind); 9] = [
    (
        "etcd_debugging_store_expires_total",
        "Always 0: there is no v2 store.",
        Kind::Counter,
    ),
    (
        "etcd_debugging_store_watch_requests_total",
        "Always 0: there is no v2 store.",
        Kind::Counter,
    ),
    (
        "etcd_debugging_store_watchers",
        "Always 0: there is no v2 store.",
        Kind::Gauge,
    ),
    (
        "etcd_grpc_proxy_cache_hits_total",
        "Always 0: this is no proxy.",
        Kind::Gauge,
    ),
    (
        "etcd_grpc_proxy_cache_keys_total",
        "Always 0: this is no proxy.",
        Kind::Gauge,
    ),
    (
        "etcd_grpc_proxy_cache_misses_total",
        "Always 0: this is no proxy.",
        Kind::Gauge,
    ),
    (
        "etcd_grpc_proxy_events_coalescing_total",
        "Always 0: this is no proxy.",
        Kind::Counter,
    ),
    (
        "etcd_grpc_proxy_watchers_coalescing_total",
        "Always 0: this is no proxy.",
        Kind::Gauge,
    ),
    (
        "promhttp_metric_handler_requests_in_flight",
        "Scrapes under way, this one among them.",
        Kind::Gauge,
    ),
];

/// A cluster version, `major.minor`.
pub type ClusterVersion = String;

/// What stands at some height, as the core `home` knows it at a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gauges {
    /// This member's id; printed in hexadecimal.
    pub member_id: u64,
    /// The server's version as clients see it.
    pub server_version: String,
    /// Decided or not.
    pub cluster_version: Option<ClusterVersion>,
    /// Whether there is a leader.
    pub has_leader: bool,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Index of the newest committed entry.
    pub proposals_committed: u64,
    /// Index of the newest applied entry.
    pub proposals_applied: u64,
    /// Proposals without an outcome.
    pub proposals_pending: u64,
    /// The quota in bytes; 0 when there is none.
    pub quota_backend_bytes: u64,
    /// Whether a received snapshot is being applied.
    pub snapshot_apply_in_progress: bool,
    /// Length of the database file in bytes.
    pub db_total_bytes: u64,
    /// Bytes of its pages in use.
    pub db_in_use_bytes: u64,
    /// Readers that pin a root.
    pub db_open_read_transactions: u64,
    /// Whether a defragmentation runs.
    pub defrag_inflight: bool,
    /// The newest compacted revision, -1 before the first compaction.
    pub compact_revision: i64,
    /// The store's revision.
    pub current_revision: i64,
    /// When the last compaction ended, in seconds of Unix time; 0 before.
    pub compaction_last_seconds: u64,
    /// Live keys.
    pub keys: u64,
    /// Events that wait to be sent.
    pub pending_events: u64,
    /// Watchers that are behind.
    pub slow_watchers: u64,
    /// Watch streams.
    pub watch_streams: u64,
    /// Watchers.
    pub watchers: u64,
    /// Revision of the auth store; 1 at first.
    pub auth_revision: u64,
    /// Active alarms: member (hexadecimal) and kind (NOSPACE, CORRUPT).
    pub alarms: Vec<(String, &'static str)>,
    /// The last outcome of each health check: type, name, whether it passed.
    pub health_checks: Vec<(&'static str, &'static str, bool)>,
    /// Feature gates: name, stage, whether it is on.
    pub features: Vec<(&'static str, &'static str, bool)>,
    /// As the log counts them.
    pub log_lines_dropped: u64,
}

pub(super) fn gauge_families(gauges: &Gauges, families: &mut Vec<Family>) {
    for (name, help, kind) in ABSENT {
        let value = f64::from(u8::from(name.starts_with("promhttp_")));
        families.push(Family::single(name, help, kind, value));
    }
    let help = "Log lines thrown away because the outputs could not keep up.";
    let dropped = gauges.log_lines_dropped as f64;
    families.push(Family::single(
        "ringd_log_lines_dropped_total",
        help,
        Kind::Counter,
        dropped,
    ));
    info_families(gauges, families);
    store_families(gauges, families);
    let mut add = |name, help, value: u64| families.push(Family::single(name, help, Kind::Gauge, value as f64));
    add(
        "etcd_server_has_leader",
        "1 if there is a leader, else 0.",
        gauges.has_leader.into(),
    );
    add(
        "etcd_server_is_leader",
        "1 if this member leads, else 0.",
        gauges.is_leader.into(),
    );
    add(
        "etcd_server_is_learner",
        "1 if this member is a learner, else 0.",
        gauges.is_learner.into(),
    );
    let help = "Index of the newest committed entry.";
    add(
        "etcd_server_proposals_committed_total",
        help,
        gauges.proposals_committed,
    );
    add(
        "etcd_server_proposals_applied_total",
        "Index of the newest applied entry.",
        gauges.proposals_applied,
    );
    add(
        "etcd_server_proposals_pending",
        "Proposals without an outcome yet.",
        gauges.proposals_pending,
    );
    add(
        "etcd_server_quota_backend_bytes",
        "The quota of the database in bytes.",
        gauges.quota_backend_bytes,
    );
    let help = "1 while a received snapshot is applied, else 0.";
    add(
        "etcd_server_snapshot_apply_in_progress_total",
        help,
        gauges.snapshot_apply_in_progress.into(),
    );
    add(
        "etcd_disk_defrag_inflight",
        "1 while a defragmentation runs, else 0.",
        gauges.defrag_inflight.into(),
    );
    add(
        "etcd_debugging_auth_revision",
        "Revision of the auth store.",
        gauges.auth_revision,
    );
}

fn store_families(gauges: &Gauges, families: &mut Vec<Family>) {
    let mut add = |name, help, value: f64| families.push(Family::single(name, help, Kind::Gauge, value));
    add(
        "etcd_mvcc_db_total_size_in_bytes",
        "Length of the database file.",
        gauges.db_total_bytes as f64,
    );
    let help = "Bytes of the database file's pages that are in use.";
    add(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        help,
        gauges.db_in_use_bytes as f64,
    );
    let help = "Readers that hold a root of the tree.";
    add(
        "etcd_mvcc_db_open_read_transactions",
        help,
        gauges.db_open_read_transactions as f64,
    );
    let help = "The newest compacted revision, or -1.";
    add(
        "etcd_debugging_mvcc_compact_revision",
        help,
        gauges.compact_revision as f64,
    );
    add(
        "etcd_debugging_mvcc_current_revision",
        "The store's revision.",
        gauges.current_revision as f64,
    );
    let help = "When the last compaction ended, as Unix time; 0 if none has since the start.";
    add(
        "etcd_debugging_mvcc_db_compaction_last",
        help,
        gauges.compaction_last_seconds as f64,
    );
    add("etcd_debugging_mvcc_keys_total", "Keys there are.", gauges.keys as f64);
    add(
        "etcd_debugging_mvcc_pending_events_total",
        "Events that wait to be sent.",
        gauges.pending_events as f64,
    );
    add(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watchers that are behind.",
        gauges.slow_watchers as f64,
    );
    add(
        "etcd_debugging_mvcc_watch_stream_total",
        "Watch streams.",
        gauges.watch_streams as f64,
    );
    add("etcd_debugging_mvcc_watcher_total", "Watchers.", gauges.watchers as f64);
}

fn info_families(gauges: &Gauges, families: &mut Vec<Family>) {
    let help = "The server's version, in a label.";
    families.push(Family::info(
        "etcd_server_version",
        help,
        "server_version",
        gauges.server_version.clone(),
    ));
    let help = "What the server was compiled with, in a label named for etcd's own compiler.";
    let compiler = crate::config::version::COMPILER.to_string();
    families.push(Family::info(
        "etcd_server_go_version",
        help,
        "server_go_version",
        compiler,
    ));
    let help = "This member's id in hexadecimal, in a label.";
    families.push(Family::info(
        "etcd_server_id",
        help,
        "server_id",
        format!("{:x}", gauges.member_id),
    ));
    if let Some(version) = &gauges.cluster_version {
        let help = "The cluster's version, in a label.";
        families.push(Family::info(
            "etcd_cluster_version",
            help,
            "cluster_version",
            version.clone(),
        ));
    }
    let go = crate::config::version::COMPILER.to_string();
    families.push(Family::info(
        "go_info",
        "There is no Go here; the label says so.",
        "version",
        go,
    ));
    let ringd = env!("CARGO_PKG_VERSION").to_string();
    families.push(Family::info(
        "ringd_info",
        "The version of ringd, in a label.",
        "version",
        ringd,
    ));
    let number = |is_set: bool| Value::Number(f64::from(u8::from(is_set)));
    let mut add = |name, help, mut samples: Vec<Sample>| {
        samples.sort_by(|a, b| a.labels.cmp(&b.labels));
        if !samples.is_empty() {
            families.push(Family {
                name,
                help,
                kind: Kind::Gauge,
                samples,
            });
        }
    };
    let samples = gauges.alarms.iter().map(|(member, alarm)| {
        Sample::new(
            vec![("alarm_type", (*alarm).into()), ("server_id", member.clone().into())],
            Value::Number(1.0),
        )
    });
    add(
        "etcd_debugging_server_alarms",
        "Active alarms, by member and kind.",
        samples.collect(),
    );
    let samples = gauges
        .health_checks
        .iter()
        .map(|&(kind, name, is_ok)| Sample::new(vec![("name", name.into()), ("type", kind.into())], number(is_ok)));
    add(
        "etcd_server_healthcheck",
        "The last outcome of each check: 1 if it passed.",
        samples.collect(),
    );
    let samples = gauges
        .features
        .iter()
        .map(|&(name, stage, is_on)| Sample::new(vec![("name", name.into()), ("stage", stage.into())], number(is_on)));
    add(
        "etcd_server_feature_enabled",
        "Feature gates: 1 if the feature is on.",
        samples.collect(),
    );
}
