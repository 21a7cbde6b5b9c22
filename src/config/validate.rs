//! What values must be among each other, in etcd's order and words.

use super::{
    ClusterState, Config, Feature, InitialCluster, LogLevel, Notice, Url, duration::go_quote, url::Scheme,
    value::Values,
};

/// etcd tells this one twice.
pub(super) const ADVERTISE_UNSET: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// The longest election timeout, in milliseconds.
const ELECTION_MILLIS_MAX: u64 = 50_000;

/// Checks that need to know what was set, or come before anything else in etcd.
pub(super) fn raw(values: &Values, notices: &mut Vec<Notice>) -> Result<(), String> {
    check_bindable(&values.urls("listen-peer-urls"))?;
    check_bindable(&values.urls("listen-client-urls"))?;
    check_bindable(&values.urls("listen-client-http-urls"))?;
    if values.urls("listen-client-http-urls").is_empty() {
        let message = "Running http and grpc server on single port. This is not recommended for production.";
        notices.push(Notice::new(LogLevel::Warn, message));
    }
    check_bindable(&values.urls("listen-metrics-urls"))?;
    check_advertised(
        "initial-advertise-peer-urls",
        &values.urls("initial-advertise-peer-urls"),
    )?;
    let is_advertise_unset = values.is_set("listen-client-urls") && !values.is_set("advertise-client-urls");
    if !is_advertise_unset {
        check_advertised("advertise-client-urls", &values.urls("advertise-client-urls"))?;
    }
    check_timing(values)?;
    if is_advertise_unset {
        return Err(ADVERTISE_UNSET.to_string());
    }
    match values.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".to_string()),
        mode => return Err(format!("unknown auto-compaction-mode {}", go_quote(mode))),
    }
    for name in ["tls-min-version", "tls-max-version"] {
        let version = values.text(name);
        if !matches!(version, "" | "TLS1.2" | "TLS1.3") {
            let version = go_quote(version);
            return Err(format!(
                "unexpected TLS version {version} (must be one of: TLS1.2, TLS1.3)"
            ));
        }
    }
    if values.text("name") == "default" {
        let message = "it isn't recommended to use default name, please set a value for --name. Note that etcd might run \
                       into issue when multiple members have the same default name";
        notices.push(Notice::new(LogLevel::Warn, message).with("name", "default"));
    }
    Ok(())
}

fn check_timing(values: &Values) -> Result<(), String> {
    let (heartbeat, election) = (values.uint("heartbeat-interval"), values.uint("election-timeout"));
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_string());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".to_string());
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_MILLIS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MILLIS_MAX}ms"
        ));
    }
    Ok(())
}

/// Checks of the finished configuration.
pub(super) fn whole(config: &Config) -> Result<(), String> {
    let features = &config.features;
    if features.is_on(Feature::LeaseCheckpointPersist) && !features.is_on(Feature::LeaseCheckpoint) {
        return Err(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint".into(),
        );
    }
    if config.compact_hash_check_interval.is_zero() {
        return Err("--compact-hash-check-time must be >0 (set to 0s)".to_string());
    }
    let listening = [
        &config.listen_peer_urls,
        &config.listen_client_urls,
        &config.listen_client_http_urls,
        &config.listen_metrics_urls,
    ];
    for url in listening.into_iter().flatten() {
        match url.scheme() {
            Scheme::Http => {}
            Scheme::Https => return Err(format!("{url} is not supported: TLS is not supported yet")),
            Scheme::Unix | Scheme::Unixs => {
                return Err(format!(
                    "{url} is not supported: only TCP addresses can be listened on yet"
                ));
            }
        }
    }
    // Later work: with peers a cluster may have any number of members.
    if config.initial_cluster.len() > 1 {
        let members: Vec<&str> = config.initial_cluster.keys().map(String::as_str).collect();
        return Err(format!(
            "--initial-cluster names {} members ({}): clusters of more than one member are not supported yet",
            members.len(),
            members.join(", ")
        ));
    }
    Ok(())
}

/// One listens on addresses only.
fn check_bindable(urls: &[Url]) -> Result<(), String> {
    for url in urls
        .iter()
        .filter(|url| !matches!(url.scheme(), Scheme::Unix | Scheme::Unixs))
    {
        if !url.is_bindable() {
            return Err(format!("expected IP in URL for binding ({url})"));
        }
    }
    Ok(())
}

/// What is advertised has to have a host.
fn check_advertised(flag: &str, urls: &[Url]) -> Result<(), String> {
    let all = || urls.iter().map(Url::as_str).collect::<Vec<&str>>().join(",");
    for url in urls {
        if matches!(url.scheme(), Scheme::Unix | Scheme::Unixs) && !url.host().contains(':') {
            let reason = format!("address {}: missing port in address", url.host());
            return Err(format!(
                "--{flag} {} must be \"host:port\" ({reason})",
                go_quote(&all())
            ));
        }
        if url.host().is_empty() {
            let reason = format!("unexpected empty host ({url})");
            return Err(format!(
                "--{flag} {} must be \"host:port\" ({reason})",
                go_quote(&all())
            ));
        }
    }
    Ok(())
}

/// Checks what only matters when a directory without a log begins a cluster (`advertised` are then this member's peer
/// URLs) or joins one. In etcd's words; names of hosts are compared as they are written.
///
/// # Errors
/// The sentence to fail with.
pub fn verify_bootstrap(name: &str, cluster: &InitialCluster, advertised: Option<&[Url]>) -> Result<(), String> {
    let Some(own) = cluster.get(name) else {
        let name = go_quote(name);
        return Err(format!(
            "couldn't find local name {name} in the initial cluster configuration"
        ));
    };
    if let Some(advertised) = advertised {
        let join = |urls: &[&Url], prefix: &str| {
            urls.iter()
                .map(|url| format!("{prefix}{url}"))
                .collect::<Vec<String>>()
                .join(",")
        };
        let advertised: Vec<&Url> = advertised.iter().collect();
        let prefix = format!("{name}=");
        let missing: Vec<&Url> = own.iter().filter(|url| !advertised.contains(url)).collect();
        if !missing.is_empty() {
            return Err(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
                join(&missing, &prefix),
                join(&advertised, "")
            ));
        }
        let missing: Vec<&Url> = advertised.iter().copied().filter(|url| !own.contains(url)).collect();
        if !missing.is_empty() {
            return Err(format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
                join(&missing, ""),
                join(&advertised, &prefix)
            ));
        }
    }
    let mut seen = Vec::new();
    for url in cluster.values().flatten() {
        if seen.contains(&url) {
            return Err(format!(
                "initial cluster {} has duplicate url",
                initial_cluster_text(cluster)
            ));
        }
        seen.push(url);
    }
    Ok(())
}

/// The members as a flag has them, sorted.
fn initial_cluster_text(cluster: &InitialCluster) -> String {
    let mut pairs: Vec<String> = Vec::new();
    for (name, urls) in cluster {
        pairs.extend(urls.iter().map(|url| format!("{name}={url}")));
    }
    pairs.sort();
    pairs.join(",")
}

impl Config {
    /// [`verify_bootstrap`] of this configuration. A member that has a log takes its cluster from there instead.
    ///
    /// # Errors
    /// The sentence to fail with.
    pub fn verify_bootstrap(&self) -> Result<(), String> {
        let is_new = self.initial_cluster_state == ClusterState::New;
        let advertised = is_new.then_some(&self.initial_advertise_peer_urls[..]);
        verify_bootstrap(&self.name, &self.initial_cluster, advertised)
    }

    /// The members as a flag has them, sorted.
    pub fn initial_cluster_text(&self) -> String {
        initial_cluster_text(&self.initial_cluster)
    }

    /// Ticks of raft without a leader until an election.
    pub fn election_ticks(&self) -> usize {
        let ticks = self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1);
        usize::try_from(ticks).unwrap_or(usize::MAX)
    }
}
