//! A server on this machine: its directory, its cores, and the tasks of `server` on them.

use std::{path::Path, sync::Arc};

use super::{Cores, DataDirectory, Stop, lines};
use crate::{
    backend::{StoreEvent, StoreOptions, StoreRequest},
    config::{ClusterState, Config},
    host::mailbox,
    limits::Limits,
    ops::process::{ProcTexts, ProcessFacts},
    peer::Alone,
    ring::{FileMap, RingHost, placement, probe},
    server::{self, Channels, Opened, Paths, STORE_MAILBOX},
    wal::WalOptions,
};

/// Runs a server until it is told to stop.
///
/// # Errors
/// A sentence for the operator: what is in the way, and where.
pub fn run(config: Config, stop: &Stop, clients_max: usize) -> Result<(), String> {
    let directory =
        DataDirectory::open(&config.data_dir, config.wal_dir.as_deref()).map_err(|error| error.to_string())?;
    for path in [directory.snap(), directory.wal().to_path_buf()] {
        probe::check_writable(&path).map_err(|obstacle| obstacle.to_string())?;
    }
    if !probe::takes_direct(directory.wal()).map_err(|error| error.to_string())? {
        tracing::warn!("{}", probe::no_direct_warning(directory.wal()));
    }
    let cores = choose_cores(&config, directory.wal())?;
    lines::starting(&config, &directory, &cores);
    lines::features_without_effect(&config);
    if !lines::has_log(directory.wal()) {
        if config.initial_cluster_state == ClusterState::Existing {
            return Err(
                "--initial-cluster-state=existing, and there is no data: joining a cluster is not supported yet"
                    .to_owned(),
            );
        }
        config.verify_bootstrap()?;
    }

    let (request_sender, request_receiver) = mailbox::<StoreRequest<FileMap>>(STORE_MAILBOX);
    let (event_sender, event_receiver) = mailbox::<StoreEvent<FileMap>>(STORE_MAILBOX);
    let (opened_sender, opened_receiver) = mailbox::<Opened<FileMap>>(1);
    let (failure_sender, mut failure_receiver) = mailbox::<String>(1);

    let mut store_options = StoreOptions::new(directory.database());
    store_options.sync = !config.unsafe_no_fsync;
    store_options.lock = config.memory_mlock;
    if config.unsafe_no_fsync {
        tracing::warn!("--unsafe-no-fsync: what is acknowledged is lost when the machine stops");
    }
    let config = Arc::new(config);
    let paths = Paths {
        wal: directory.wal().to_path_buf(),
        snap: directory.snap(),
        wal_options: WalOptions::default(),
        limits: Limits::DEFAULT,
        process_facts,
    };
    let wal_directory = paths.wal.clone();
    let home_config = config.clone();
    let ended_config = config.clone();
    let (front_ends, front_channels): (Vec<_>, Vec<_>) =
        cores.fronts.iter().map(|_| server::front_ends::<RingHost>()).unzip();
    let fronts = front_channels.into_iter().map(|channels| {
        let config = config.clone();
        move |host, stop| {
            server::front(
                host,
                stop,
                config,
                channels,
                clients_max,
                process_facts,
                Limits::DEFAULT,
            )
        }
    });
    let fronts: Vec<_> = fronts.collect();
    let node = super::start(
        &cores,
        stop,
        move |host, stop| async move {
            let channels = Channels {
                requests: request_sender,
                events: event_receiver,
                opened: opened_receiver,
                fronts: front_ends,
            };
            let mut failure = failure_sender;
            host.watch_for(home_config.idle_poll);
            let ended = server::home(host, stop, home_config, paths, channels, clients_max, Alone);
            if let Err(error) = ended.await {
                // The mailbox has room: it is used once.
                let _sent = failure.try_send(error);
            }
        },
        fronts,
        move |host, _stop| {
            server::store(
                host,
                store_options,
                wal_directory,
                request_receiver,
                event_sender,
                opened_sender,
            )
        },
    )
    .map_err(|error| format!("cannot start: {error}"))?;
    let joined = node.join().map_err(|error| error.to_string());
    server::lines::closing(&ended_config, "closed etcd server");
    joined?;
    match failure_receiver.try_receive() {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn choose_cores(config: &Config, directory: &Path) -> Result<Cores, String> {
    let allowed = placement::allowed_cores().map_err(|error| error.to_string())?;
    let asked = config
        .cores
        .as_ref()
        .map(|cores| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let usable = placement::usable_cores(asked.as_deref(), &allowed)?;
    let placement = placement::choose(&usable, &placement::queues_of(Path::new("/"), directory));
    Cores::new(placement, config.fronts)
}

/// What the kernel says of this process.
fn process_facts() -> ProcessFacts {
    let texts = ProcTexts::read(
        |path| std::fs::read_to_string(path).ok(),
        |path| Some(std::fs::read_dir(path).ok()?.count() as u64),
    );
    ProcessFacts::parse(&texts)
}
