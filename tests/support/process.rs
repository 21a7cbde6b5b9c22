//! Servers as processes of their own: started on free loopback ports, ended by signals, watched by their logs.

use std::{
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    calls::one,
    client::Client,
    signals,
    world::{Io, Local, Stop, World},
};

/// How long a server may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a server may take to stop when asked to.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Ports are free when chosen and may be taken when used; so often is it tried again.
const START_ATTEMPTS: u32 = 4;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ringd,
    /// ringd with all of its connections on a core of their own.
    Fronts,
    Etcd,
}

impl Program {
    /// The executable; `None` when it is not at hand (`ETCD_BIN` names a real etcd).
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Program::Ringd | Program::Fronts => Some(
                env::var_os("RINGD_BIN")
                    .map(PathBuf::from)
                    .unwrap_or_else(|| env!("CARGO_BIN_EXE_ringd").into()),
            ),
            Program::Etcd => tool("ETCD_BIN"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Program::Ringd => "ringd",
            Program::Fronts => "ringd-with-fronts",
            Program::Etcd => "etcd",
        }
    }

    /// Flags that make it what it is.
    fn own_flags(self) -> &'static [&'static str] {
        match self {
            Program::Fronts => &["--fronts=1", "--home-connections=0"],
            Program::Ringd | Program::Etcd => &[],
        }
    }
}

/// An executable named by an environment variable; `None` when the variable is not set.
pub fn tool(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable).filter(|value| !value.is_empty())?);
    assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
    Some(path)
}

/// A fresh directory for a server's files, on the disk that holds the build.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{count}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// A server process and its directory. Dropping it kills the process and removes what it made.
pub struct Process {
    program: Program,
    flags: Vec<String>,
    root: PathBuf,
    owns_root: bool,
    pub client_port: u16,
    pub peer_port: u16,
    child: Option<Child>,
}

impl Process {
    /// Starts a server of one member in a new directory and waits until it serves.
    pub fn start(program: Program, flags: &[&str]) -> Process {
        let mut process = Process::prepare(program, scratch(program.name()), flags);
        process.owns_root = true;
        process.start_again();
        process
    }

    /// Starts a server on `root` (its data in `root/data`), which stays when the process is gone.
    pub fn start_in(program: Program, root: &Path, flags: &[&str]) -> Process {
        let mut process = Process::prepare(program, root.to_path_buf(), flags);
        process.start_again();
        process
    }

    /// A server that has not been started yet.
    pub fn prepare(program: Program, root: PathBuf, flags: &[&str]) -> Process {
        Process {
            program,
            flags: flags.iter().map(|flag| flag.to_string()).collect(),
            root,
            owns_root: false,
            client_port: 0,
            peer_port: 0,
            child: None,
        }
    }

    /// Starts the process and waits until it serves.
    pub fn start_again(&mut self) {
        for attempt in 1..=START_ATTEMPTS {
            match self.try_start() {
                Ok(()) => return,
                Err(problem) => {
                    self.kill();
                    assert!(
                        attempt < START_ATTEMPTS && self.log().contains("address already in use"),
                        "{} does not serve: {problem}\n{}",
                        self.program.name(),
                        self.log_tail()
                    );
                }
            }
        }
    }

    /// Starts the process and waits for nothing.
    pub fn start_unawaited(&mut self) {
        self.spawn()
            .unwrap_or_else(|problem| panic!("{} does not start: {problem}", self.program.name()));
    }

    /// Starts the process and waits until it serves or is known not to.
    pub fn try_start(&mut self) -> Result<(), String> {
        self.spawn()?;
        self.wait_until_ready()
    }

    fn spawn(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "the process runs already");
        [self.client_port, self.peer_port] = free_ports();
        let program = self
            .program
            .path()
            .ok_or_else(|| format!("no {} at hand", self.program.name()))?;
        let client_url = format!("http://127.0.0.1:{}", self.client_port);
        // The peer address is part of a member's identity and stays the same on every start; nothing listens on it
        // in a cluster of one but the member itself.
        let peer_url = format!("http://127.0.0.1:{}", self.peer_port);
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log_path())
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command
            .arg("--name=default")
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg("--initial-advertise-peer-urls=http://127.0.0.1:2380")
            .arg("--initial-cluster=default=http://127.0.0.1:2380")
            .args(self.program.own_flags())
            .args(&self.flags)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log);
        self.child = Some(signals::spawn_bound_to_us(command).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        let address = self.address();
        loop {
            if let Some(status) = self.exited() {
                return Err(format!("it ended with {status}"));
            }
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() && serves(address) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready within {READY_WITHIN:?}"));
            }
            thread::sleep(Duration::from_millis(15));
        }
    }

    pub fn program(&self) -> Program {
        self.program
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.client_port).into()
    }

    /// Where the server keeps its files.
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().expect("a child can be waited for"))
    }

    /// Replaces the flags for the next start.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| flag.to_string()).collect();
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().expect("a killed child can be waited for");
        }
    }

    /// Asks the process to stop and waits for that.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the process runs");
        signals::terminate(child.id());
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "{} did not stop within {STOP_WITHIN:?}\n{}",
                    self.program.name(),
                    self.log_tail()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends and starts again.
    pub fn restart(&mut self, stop: Stop) {
        match stop {
            Stop::Kill => self.kill(),
            Stop::Clean => drop(self.stop()),
        }
        self.start_again();
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Everything the process wrote to its standard streams.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Memory and CPU of the process come from here.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if self.owns_root && !thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Two ports that nothing listens on at this moment.
fn free_ports() -> [u16; 2] {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    let listeners = [bind(), bind()];
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

/// Whether a linearizable read works. On a thread of its own: the caller may be inside a runtime.
fn serves(address: SocketAddr) -> bool {
    let probe = move || {
        on_this_thread(async move {
            let world: Rc<dyn World> = Rc::new(Plain { address });
            let attempt = async {
                let client = Client::connect(&world).await;
                client
                    .with_deadline(Duration::from_secs(2))
                    .try_range(one("ready?"))
                    .await
                    .is_ok()
            };
            let late = async {
                world.sleep(Duration::from_secs(3)).await;
                false
            };
            futures_lite::future::or(attempt, late).await
        })
    };
    thread::spawn(probe).join().unwrap_or(false)
}

/// Runs a body to its end on this thread, with a runtime of its own.
pub fn on_this_thread<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

/// A world around an address: nothing can be restarted in it.
pub struct Plain {
    pub address: SocketAddr,
}

impl World for Plain {
    fn dial(&self) -> Local<io::Result<Box<dyn Io>>> {
        let address = self.address;
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn spawn(&self, task: Local<()>) {
        tokio::task::spawn_local(task);
    }

    fn sleep(&self, duration: Duration) -> Local<()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn now(&self) -> Duration {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn restart(&self, _stop: Stop) -> Local<()> {
        panic!("the server at {} is shared and cannot be restarted", self.address)
    }

    fn name(&self) -> String {
        self.address.to_string()
    }
}

/// A world around a process of its own.
pub struct Own {
    process: std::cell::RefCell<Process>,
}

impl Own {
    pub fn new(process: Process) -> Own {
        Own {
            process: process.into(),
        }
    }

    fn plain(&self) -> Plain {
        Plain {
            address: self.process.borrow().address(),
        }
    }
}

impl World for Own {
    fn dial(&self) -> Local<io::Result<Box<dyn Io>>> {
        self.plain().dial()
    }

    fn spawn(&self, task: Local<()>) {
        self.plain().spawn(task);
    }

    fn sleep(&self, duration: Duration) -> Local<()> {
        self.plain().sleep(duration)
    }

    fn now(&self) -> Duration {
        self.plain().now()
    }

    fn restart(&self, stop: Stop) -> Local<()> {
        self.process.borrow_mut().restart(stop);
        Box::pin(async {})
    }

    fn name(&self) -> String {
        self.process.borrow().program().name().to_string()
    }
}
