//! The lines that tell of a server's life, with etcd's words and field names: tools and people look for them.

use std::path::Path;

use tracing::info;

use super::{Cores, DataDirectory};
use crate::config::{AutoCompaction, ClusterState, Config, Feature, Url, format_duration, version};

fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

/// What is started, and how it is configured.
pub(super) fn starting(config: &Config, directory: &DataDirectory, cores: &Cores) {
    let (mode, retention) = match config.auto_compaction {
        AutoCompaction::Off => ("periodic", "0s".to_owned()),
        AutoCompaction::Periodic(period) => ("periodic", format_duration(period)),
        AutoCompaction::Revision(kept) => ("revision", kept.to_string()),
    };
    let features: Vec<_> = config
        .features
        .states()
        .into_iter()
        .map(|(name, _, is_on)| format!("{name}={is_on}"))
        .collect();
    info!(
        "etcd-version" = version::SERVER_VERSION,
        "ringd-version" = version::RINGD_VERSION,
        "git-sha" = version::GIT_SHA,
        "go-version" = version::COMPILER,
        "go-os" = std::env::consts::OS,
        "go-arch" = version::go_architecture(),
        "home-core" = cores.home,
        "front-cores" = ?cores.fronts,
        "store-cores" = ?cores.store,
        "member-initialized" = has_log(directory.wal()),
        name = config.name,
        "data-dir" = %directory.path().display(),
        "wal-dir" = %directory.wal().display(),
        "heartbeat-interval" = format_duration(config.heartbeat_interval),
        "election-timeout" = format_duration(config.election_timeout),
        "snapshot-count" = config.snapshot_count,
        "max-wals" = config.wal_files_max,
        "max-snapshots" = config.snapshot_files_max,
        "snapshot-catchup-entries" = config.snapshot_catchup_entries,
        "initial-advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "listen-client-urls" = ?texts(&config.listen_client_urls),
        "listen-metrics-urls" = ?texts(&config.listen_metrics_urls),
        "initial-cluster-token" = config.initial_cluster_token,
        "initial-cluster-state" = if config.initial_cluster_state == ClusterState::New { "new" } else { "existing" },
        "feature-gates" = features.join(","),
        "auto-compaction-mode" = mode,
        "auto-compaction-retention" = retention,
        "starting an etcd server"
    );
    info!(
        cors = ?config.cors.0,
        "host-whitelist" = ?config.host_whitelist.0,
        "quota-backend-bytes" = config.quota_backend_bytes,
        "max-request-bytes" = config.request_bytes_max,
        "max-concurrent-streams" = config.concurrent_streams_max,
        "pre-vote" = config.pre_vote,
        "unsafe-no-fsync" = config.unsafe_no_fsync,
        "bounds of the server"
    );
}

/// Whether a log directory holds a log.
pub(super) fn has_log(directory: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(directory) else {
        return false;
    };
    entries.any(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "wal")))
}

/// Features that are on and change nothing here.
pub(super) fn features_without_effect(config: &Config) {
    const WITHOUT_EFFECT: [(Feature, &str); 4] = [
        (Feature::CompactHashCheck, "members do not talk to each other yet"),
        (Feature::InitialCorruptCheck, "members do not talk to each other yet"),
        (Feature::SetMemberLocalAddr, "members do not talk to each other yet"),
        (
            Feature::StopGrpcServiceOnDefrag,
            "requests are served while the database is rewritten",
        ),
    ];
    for (feature, reason) in WITHOUT_EFFECT
        .iter()
        .filter(|(feature, _)| config.features.is_on(*feature))
    {
        info!(feature = ?feature, reason, "feature has no effect");
    }
}
