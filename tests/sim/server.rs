//! One life of the server on its simulated machine: the tasks of `ringd::server`, and what becomes of them.

use std::{
    cell::RefCell,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use ringd::{
    backend::{StoreEvent, StoreOptions, StoreRequest},
    cli,
    config::{Config, Loaded, load, parse_initial_cluster},
    host::{Disk, Host, Notify, mailbox},
    limits::Limits,
    ops::process::ProcessFacts,
    peer::{Alone, Transport},
    replica::drive::MapOf,
    server::{self, Channels, Opened, Paths, STORE_MAILBOX, Stop},
    testing::{Random, SimHost},
    wal::WalOptions,
};

/// Where the server listens: the first machine that is named has this address.
pub const ADDRESS: &str = "10.0.0.1:2379";
const DIRECTORY: &str = "/data";

/// What a seed draws for the server; the same for all its lives but for what may be changed at a restart.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    flags: Vec<String>,
    election_timeout: Duration,
    segment_bytes: u64,
    job_commit_interval: Duration,
    limits: Limits,
    fronts: usize,
}

impl ServerOptions {
    /// Draws.
    pub fn draw(random: &mut Random) -> ServerOptions {
        let heartbeat_ms = [20, 50, 100][random.index(3)];
        let mut flags = vec![
            format!("--data-dir={DIRECTORY}"),
            format!("--listen-client-urls=http://{ADDRESS}"),
            format!("--advertise-client-urls=http://{ADDRESS}"),
            format!("--heartbeat-interval={heartbeat_ms}"),
            format!("--election-timeout={}", heartbeat_ms * 10),
            format!("--grpc-keepalive-min-time={}ms", 500),
            format!("--snapshot-count={}", 5 + random.below(300)),
            format!("--snapshot-catchup-entries={}", random.below(60)),
            format!("--max-snapshots={}", random.below(4)),
            format!("--max-wals={}", random.below(4)),
            format!("--backend-batch-interval={}ms", [1, 5, 20, 100, 500][random.index(5)]),
            format!("--backend-batch-limit={}", [1, 10, 100, 10_000][random.index(4)]),
            format!("--wal-sync={}", ["auto", "dsync", "fdatasync"][random.index(3)]),
            format!("--compaction-batch-limit={}", [1, 3, 20, 1000][random.index(4)]),
            format!("--compaction-sleep-interval={}ms", [1, 10, 50][random.index(3)]),
            format!("--home-connections={}", random.below(4)),
            format!("--watch-progress-notify-interval={}ms", 100 + random.below(1500)),
        ];
        if random.chance(0.3) {
            flags.push("--max-request-bytes=40000".to_owned());
        }
        ServerOptions {
            flags,
            election_timeout: Duration::from_millis(heartbeat_ms * 10),
            segment_bytes: 4096 * (4 + random.below(120)),
            job_commit_interval: Duration::from_millis([1, 20, 100][random.index(3)]),
            limits: Limits::DEFAULT,
            fronts: [0, 0, 1, 2][random.index(4)],
        }
    }

    /// The same, with other bounds.
    pub fn with_limits(self, limits: Limits) -> ServerOptions {
        ServerOptions { limits, ..self }
    }

    /// Time without a leader after which a member campaigns, at the earliest.
    pub fn election_timeout(&self) -> Duration {
        self.election_timeout
    }

    /// As it is told: `flags` besides those that a member cannot do without, of which the last of a name counts.
    pub fn fixed(flags: &[String], segment_bytes: u64) -> ServerOptions {
        let common = [
            format!("--data-dir={DIRECTORY}"),
            "--heartbeat-interval=100".to_owned(),
            "--election-timeout=1000".to_owned(),
            "--grpc-keepalive-min-time=500ms".to_owned(),
        ];
        ServerOptions {
            flags: common.into_iter().chain(flags.iter().cloned()).collect(),
            segment_bytes,
            election_timeout: Duration::from_secs(1),
            job_commit_interval: Duration::from_millis(100),
            limits: Limits::DEFAULT,
            fronts: 0,
        }
    }

    fn config(&self) -> Config {
        self.config_of(&self.flags)
    }

    /// The configuration of one of several members, `place` of `count`, each on the machine of its place.
    pub fn config_of_member(&self, place: usize, count: usize) -> Config {
        let name = |place| format!("m{place}");
        let peer_url = |place| format!("http://10.0.0.{}:2380", place + 1);
        let mut flags = self.flags.clone();
        flags.retain(|flag| !flag.contains("-client-urls"));
        flags.extend([
            format!("--name={}", name(place)),
            format!("--listen-client-urls=http://{}", member_address(place)),
            format!("--advertise-client-urls=http://{}", member_address(place)),
            format!("--initial-advertise-peer-urls={}", peer_url(place)),
            format!("--initial-cluster={}={}", name(place), peer_url(place)),
        ]);
        let mut config = self.config_of(&flags);
        // The command line does not take more than one member yet.
        let members: Vec<String> = (0..count)
            .map(|place| format!("{}={}", name(place), peer_url(place)))
            .collect();
        config.initial_cluster = parse_initial_cluster(&members.join(",")).expect("URLs");
        config
    }

    fn config_of(&self, flags: &[String]) -> Config {
        match load(flags, &[], &|_| Err(std::io::ErrorKind::NotFound.into())) {
            Loaded::Run { config, .. } => *config,
            Loaded::Exit(exit) => panic!("{}{}{:?}", exit.stdout, exit.stderr, exit.notices),
        }
    }
}

/// Where clients find the member on the machine of that place.
pub fn member_address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, place as u8 + 1], 2379))
}

/// The place of the member that clients find there.
pub fn place_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => unreachable!("machines have addresses of version 4"),
    }
}

/// A running server.
pub struct Server {
    /// Its machine, in this life.
    pub host: SimHost,
    stop: Stop,
    outcome: Rc<RefCell<Option<Result<(), String>>>>,
    ended: Rc<Notify>,
}

impl Server {
    /// Where clients find it.
    pub fn address() -> SocketAddr {
        ADDRESS.parse().expect("an address")
    }

    /// Makes the directories that `node` would make.
    pub async fn prepare(host: &SimHost) {
        let disk = host.disk();
        let snap = PathBuf::from(DIRECTORY).join("member/snap");
        disk.create_directory(&snap).await.expect("a new disk");
        for directory in ["/data/member", "/data", "/"] {
            disk.sync_directory(Path::new(directory)).await.expect("a new disk");
        }
    }

    /// Starts it on a machine that is up.
    pub fn start(host: &SimHost, options: &ServerOptions) -> Server {
        Server::start_with(host, options, options.config(), Alone)
    }

    /// Starts it as one of several.
    pub fn start_with(
        host: &SimHost,
        options: &ServerOptions,
        config: Config,
        transport: impl Transport<SimHost>,
    ) -> Server {
        type Map = MapOf<SimHost>;
        let (request_sender, request_receiver) = mailbox::<StoreRequest<Map>>(STORE_MAILBOX);
        let (event_sender, event_receiver) = mailbox::<StoreEvent<Map>>(STORE_MAILBOX);
        let (opened_sender, opened_receiver) = mailbox::<Opened<Map>>(1);
        let member = PathBuf::from(DIRECTORY).join("member");
        let store_options = StoreOptions {
            map_bytes: 8 << 20,
            job_commit_interval: options.job_commit_interval,
            ..StoreOptions::new(member.join("snap/db"))
        };
        let paths = Paths {
            wal: member.join("wal"),
            snap: member.join("snap"),
            process_facts: ProcessFacts::default,
            wal_options: WalOptions {
                segment_bytes: options.segment_bytes,
                ..WalOptions::default()
            },
            limits: options.limits,
        };
        let server = Server {
            host: host.clone(),
            stop: Stop::new(),
            outcome: Rc::default(),
            ended: Rc::default(),
        };
        let store = server::store(
            host.clone(),
            store_options,
            member.join("wal"),
            request_receiver,
            event_sender,
            opened_sender,
        );
        host.spawn(async move {
            store.await;
        });
        let config = Arc::new(config);
        let mut channels = Channels {
            requests: request_sender,
            events: event_receiver,
            opened: opened_receiver,
            fronts: Vec::new(),
        };
        for _ in 0..options.fronts {
            let (ends, front_channels) = server::front_ends::<SimHost>();
            channels.fronts.push(ends);
            let (stop, config) = (server.stop.clone(), config.clone());
            host.spawn(server::front(
                host.clone(),
                stop,
                config,
                front_channels,
                1000,
                ProcessFacts::default,
                options.limits,
            ));
        }
        let home = server::home(
            host.clone(),
            server.stop.clone(),
            config,
            paths,
            channels,
            1000,
            transport,
        );
        let (outcome, ended) = (server.outcome.clone(), server.ended.clone());
        host.spawn(async move {
            let result = home.await;
            *outcome.borrow_mut() = Some(result);
            ended.notify();
        });
        server
    }

    /// Asks it to end.
    pub fn request_stop(&self) {
        self.stop.request();
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Result<(), String>> {
        self.outcome.borrow().clone()
    }

    /// Waits for home's end.
    pub async fn ended(&self) {
        while self.outcome.borrow().is_none() {
            self.ended.notified().await;
        }
    }
}

/// What `ringd check` says of the directory of a server that does not run; empty if nothing is wrong.
pub async fn check_directory(host: &SimHost) -> String {
    let command = cli::Command::Check {
        data_dir: PathBuf::from(DIRECTORY),
    };
    let mut lines = String::new();
    match cli::run(host, &command, &mut |line| lines.push_str(line)).await {
        Ok(()) => String::new(),
        Err(error) => format!("{lines}{error}"),
    }
}
