//! A whole server, on whatever host: the parts that a configuration asks for, put together. Knows neither cores nor
//! threads nor signals; `node` starts it on the machine, the simulator starts it in memory.
//!
//! ```text
//!  store task:  opens the database ─▶ serves commits and jobs
//!  home task:   waits for it, boots the replica, listens; accepts when the member has told the cluster who it is
//! ```

pub mod accept;
mod clients;
pub mod front;
pub(crate) mod lines;
pub mod stop;

use std::{path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use tracing::info;

pub use accept::{AcceptConfig, serve};
pub use front::{FrontChannels, FrontEnds, front, front_ends};
pub use stop::Stop;

use clients::Surface;

use crate::{
    apply::quota,
    backend::{Backend, CommitReport, JobId, Store, StoreEvent, StoreOptions, StoreRequest},
    base::MemberId,
    config::{AutoCompaction, Config, Feature, Url, WalSync as WalSyncChoice, format_duration, version},
    host::{Host, Map, Notify, Receiver, Sender},
    lease::{LessorConfig, ttl_floor_seconds},
    limits::Limits,
    ops::process::ProcessFacts,
    peer::{Exchange, Transport},
    raft::Timing,
    replica::{
        answer::Facts,
        auto_compaction::Retention,
        boot::{self, BootOptions},
        cycle::{Replica, ReplicaOptions},
        drive::{Home, LoopOptions, MapOf, run as run_home},
        founding::NewCluster,
        install,
        jobs::CompactionPace,
        leases::Identity,
        snapshotter::{SnapshotOptions, Snapshotter},
    },
    rpc::{desk::Desk, snapshot::Pump, watch::Watches},
    wal::{WalOptions, WalSync},
    watch::{ResponseIdentity, WatchHub, WatchLimits},
};

/// How opening the database ended, as home is told.
pub type Opened<M> = Result<CommitReport<M>, String>;

/// Messages that may wait for the store, and for home.
pub const STORE_MAILBOX: usize = 64;

/// Where the files are, and what of their making is not configured.
pub struct Paths {
    /// The log's directory.
    pub wal: PathBuf,
    /// `member/snap`.
    pub snap: PathBuf,
    /// What the kernel says of this process, for the metrics.
    pub process_facts: fn() -> ProcessFacts,
    /// How the log is laid out. How it is synced is the configuration's to say.
    pub wal_options: WalOptions,
    /// What may wait, and what goes at once.
    pub limits: Limits,
}

/// Home's ends of the ways to the store.
pub struct Channels<H: Host, M: Map> {
    /// What it is to do.
    pub requests: Sender<StoreRequest<M>>,
    /// What it has done.
    pub events: Receiver<StoreEvent<M>>,
    /// Told once.
    pub opened: Receiver<Opened<M>>,
    /// The ways to cores that take connections.
    pub fronts: Vec<FrontEnds<H>>,
}

/// The store: opens the database, tells home, and serves it until home is gone or the file fails.
pub async fn store<H: Host>(
    host: H,
    options: StoreOptions,
    wal_directory: PathBuf,
    requests: Receiver<StoreRequest<MapOf<H>>>,
    events: Sender<StoreEvent<MapOf<H>>>,
    mut opened: Sender<Opened<MapOf<H>>>,
) {
    let path = options.path.clone();
    let snap_directory = path.parent().unwrap_or(&path);
    if let Err(fault) = install::finish_interrupted(&host, &wal_directory, snap_directory).await {
        // If home is gone there is nobody to tell.
        let _told = opened.send(Err(fault.to_string())).await;
        return;
    }
    match Store::open(host, options).await {
        Ok((store, report)) => {
            if opened.send(Ok(report)).await.is_ok() {
                store.run(requests, events).await;
            }
        }
        Err(fault) => {
            // If home is gone there is nobody to tell.
            let _told = opened.send(Err(format!("{}: {fault}", path.display()))).await;
        }
    }
}

/// The home core, until it is told to stop. `transport` is the way to other members.
///
/// # Errors
/// A sentence for the operator: what is in the way, and where.
pub async fn home<H: Host, M: Map, T: Transport<H>>(
    host: H,
    stop: Stop,
    config: Arc<Config>,
    paths: Paths,
    mut channels: Channels<H, M>,
    clients_max: usize,
    transport: T,
) -> Result<(), String> {
    let listeners = clients::listen_all(&host, &config)?;
    let began = host.now();
    let mut report = match channels.opened.receive().await {
        Some(opened) => opened?,
        None => return Err("the store thread ended".to_owned()),
    };
    let database = paths.snap.join("db");
    info!(path = %database.display(), took = format_duration(host.now().since(began)), "opened backend db");
    defragment_first(&config, &mut channels, &mut report).await?;
    let booted = boot::boot(&host, &boot_options(&config, &paths), Backend::new(report))
        .await
        .map_err(|fault| fault.sentence(&database))?;

    let desk = Rc::new(Desk::with_limits(paths.limits));
    let exchange = Rc::new(Exchange::new(
        booted.member_id,
        booted.cluster_id,
        desk.replica_notify().clone(),
        paths.limits,
    ));
    let snapshots = Rc::new(booted.snapshots);
    transport.start(&host, exchange.clone(), snapshots.clone());
    let pump = Rc::new(Pump::default());
    host.spawn(pump.clone().run());
    let watches = watches(&host, &config, &booted.replica, &desk);
    let wal = Rc::new(booted.wal);
    let snapshot_options = SnapshotOptions {
        entries: config.snapshot_count,
        bytes: paths.limits.log_bytes_between_snapshots,
        catchup_entries: config.snapshot_catchup_entries,
        catchup_bytes: paths.limits.log_catch_up_bytes_max,
        wanted_bytes: paths.limits.log_wanted_bytes_max,
        snapshots_max: config.snapshot_files_max as usize,
        wals_max: config.wal_files_max as usize,
    };
    let snapshotter = Snapshotter::new(
        snapshot_options,
        snapshots.clone(),
        wal.clone(),
        booted.snapshot_index,
        host.now(),
    );
    let stop_notify = Rc::new(Notify::new());
    let ready = Rc::new(Notify::new());
    spawn_stop(&host, stop.clone(), stop_notify.clone(), desk.clone(), config.clone());
    let fronts = Rc::new(clients::fronts(
        &host,
        &desk,
        &watches,
        channels.fronts,
        config.home_connections,
    ));
    let surface = Surface {
        config: config.clone(),
        clients_max,
        process_facts: paths.process_facts,
        desk: desk.clone(),
        pump,
    };
    clients::spawn_accept(
        &host,
        &stop,
        surface,
        &watches,
        fronts.clone(),
        ready.clone(),
        listeners,
    );

    let home = Home {
        host: host.clone(),
        options: LoopOptions {
            heartbeat: config.heartbeat_interval,
            commit_interval: config.backend_batch_interval,
            commit_operations_max: config.backend_batch_operations as usize,
            slow_apply: config.warning_apply_duration,
            auto_compaction: retention(config.auto_compaction),
            compaction_pace: CompactionPace {
                slice_records: config.compaction_batch_revisions as usize,
                pause: config.compaction_sleep,
            },
        },
        facts: Facts {
            version: version::SERVER_VERSION.to_owned(),
            storage_version: String::new(),
            quota_bytes: config.quota_backend_bytes.unwrap_or(0),
            features: config.features.states(),
        },
        identity: identity(&config, booted.member_id),
        replica: booted.replica,
        resumed_compaction: booted.resumed_compaction,
        wal: wal.clone(),
        exchange,
        reaches_peers: T::REACHES_PEERS,
        desk,
        watches,
        store: channels.requests,
        store_events: channels.events,
        snapshots,
        snapshotter,
        ready,
        stop: stop_notify,
    };
    let ended = run_home(home).await;
    fronts.end(&host).await;
    let ended = ended.map_err(|fault| fault.sentence(&database))?;
    drop(ended);
    wal.close().await;
    Ok(())
}

/// Rewrites the database before anything uses it, if that frees enough (`--bootstrap-defrag-threshold-megabytes`).
async fn defragment_first<H: Host, M: Map>(
    config: &Config,
    channels: &mut Channels<H, M>,
    report: &mut CommitReport<M>,
) -> Result<(), String> {
    let Some(threshold) = config.bootstrap_defrag_threshold_bytes.filter(|bytes| *bytes > 0) else {
        return Ok(());
    };
    let free = report.size - report.size_in_use;
    if free < threshold {
        info!(
            "current-db-size-bytes" = report.size,
            "current-db-size-in-use-bytes" = report.size_in_use,
            "bootstrap-defrag-threshold-bytes" = threshold,
            "skipping defragmentation"
        );
        return Ok(());
    }
    info!(
        "current-db-size-bytes" = report.size,
        "current-db-size-in-use-bytes" = report.size_in_use,
        "defragmenting"
    );
    let request = StoreRequest::Defragment(JobId(0));
    channels
        .requests
        .send(request)
        .await
        .map_err(|_| "the store thread ended".to_owned())?;
    loop {
        match channels.events.receive().await {
            Some(StoreEvent::Committed(newer)) => *report = newer,
            Some(StoreEvent::Defragmented(_, done)) => {
                info!(
                    "current-db-size-bytes-diff" = done.size_after as i64 - done.size_before as i64,
                    "current-db-size-bytes" = done.size_after,
                    "current-db-size-in-use-bytes" = report.size_in_use,
                    took = format_duration(done.duration),
                    "finished defragmenting directory"
                );
                return Ok(());
            }
            Some(StoreEvent::DefragmentFailed(_, fault)) => {
                return Err(format!("cannot defragment the database: {fault}"));
            }
            Some(StoreEvent::Failed(fault)) => return Err(fault.to_string()),
            Some(_) => {}
            None => return Err("the store thread ended".to_owned()),
        }
    }
}

fn retention(auto_compaction: AutoCompaction) -> Option<Retention> {
    match auto_compaction {
        AutoCompaction::Off => None,
        AutoCompaction::Periodic(period) => Some(Retention::Period(period)),
        AutoCompaction::Revision(kept) => Some(Retention::Revisions(kept)),
    }
}

fn identity(config: &Config, member_id: MemberId) -> Identity {
    let (major, minor) = config.hold_cluster_version.unwrap_or((3, 6));
    Identity {
        member_id,
        name: config.name.clone(),
        client_urls: config
            .advertise_client_urls
            .iter()
            .map(|url| url.as_str().to_owned())
            .collect(),
        cluster_version: format!("{major}.{minor}.0"),
        election_timeout: config.election_timeout,
    }
}

fn watches<H: Host, M: Map>(host: &H, config: &Config, replica: &Replica<Backend<M>>, desk: &Rc<Desk>) -> Rc<Watches> {
    let state = replica.state();
    let identity = ResponseIdentity {
        cluster_id: state.config().cluster_id.0,
        member_id: state.config().member_id.0,
        raft_term: replica.consensus().term().0,
    };
    let hub = WatchHub::new(
        identity,
        WatchLimits::new(config.request_bytes_max as usize, replica.limits()),
        state.store().current_revision(),
        state.store().compact_revision(),
        host.random_u64(),
    );
    Rc::new(Watches::new(
        hub,
        config.watch_progress_notify_interval,
        desk.replica_notify().clone(),
    ))
}

fn boot_options(config: &Config, paths: &Paths) -> BootOptions {
    let election_ticks = config.election_ticks() as u32;
    let sync = match config.wal_sync {
        _ if config.unsafe_no_fsync => WalSync::None,
        WalSyncChoice::Auto => WalSync::Auto,
        WalSyncChoice::Dsync => WalSync::Dsync,
        WalSyncChoice::Fdatasync => WalSync::WriteThenSync,
    };
    BootOptions {
        wal_directory: paths.wal.clone(),
        snap_directory: paths.snap.clone(),
        wal: WalOptions {
            sync,
            ..paths.wal_options
        },
        cluster: NewCluster {
            token: config.initial_cluster_token.clone(),
            name: config.name.clone(),
            members: founders(config),
        },
        timing: Timing {
            election_ticks,
            heartbeat_ticks: 1,
            pre_vote: config.pre_vote,
        },
        replica: ReplicaOptions {
            request_timeout: Duration::from_secs(5) + 2 * config.election_timeout,
            request_bytes_max: config.request_bytes_max as usize,
            election_timeout: config.election_timeout,
            limits: paths.limits,
        },
        lease: LessorConfig {
            ttl_floor_seconds: ttl_floor_seconds(election_ticks, config.heartbeat_interval),
            checkpoints: config.features.is_on(Feature::LeaseCheckpoint),
            checkpoints_persist: config.features.is_on(Feature::LeaseCheckpointPersist),
            ..LessorConfig::default()
        },
        quota_bytes: config.quota_backend_bytes.or_else(|| quota::quota_bytes(-1)),
        learners_max: config.learners_max as usize,
    }
}

/// Names and peer URLs of a new cluster's members.
fn founders(config: &Config) -> Vec<(String, Vec<String>)> {
    let texts = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect();
    let founders = config.initial_cluster.iter();
    founders.map(|(name, urls)| (name.clone(), texts(urls))).collect()
}

fn spawn_stop<H: Host>(host: &H, stop: Stop, stop_notify: Rc<Notify>, desk: Rc<Desk>, config: Arc<Config>) {
    let task_host = host.clone();
    host.spawn(async move {
        stop.requested(&task_host).await;
        lines::closing(&config, "closing etcd server");
        desk.close_all();
        stop_notify.notify();
    });
}
