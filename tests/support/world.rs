//! What a test body may use of its surroundings: connections, time, and a server that can be restarted.

use std::{cell::Cell, future::Future, io, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;

/// A future of the test's own thread.
pub type Local<T> = Pin<Box<dyn Future<Output = T>>>;

/// A connection to the server.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Asked to, with time to tidy up (SIGTERM).
    Clean,
    /// At once, losing whatever is not on disk in the eyes of the kernel (SIGKILL).
    Kill,
}

/// The surroundings of one test: a server of one member, and time.
pub trait World {
    /// Connects to the client port.
    fn dial(&self) -> Local<io::Result<Box<dyn Io>>>;
    /// Runs beside the body until the body ends.
    fn spawn(&self, task: Local<()>);
    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> Local<()>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Ends the server and starts it again on the same directory; resolves when it serves.
    fn restart(&self, stop: Stop) -> Local<()>;
    /// A name for messages.
    fn name(&self) -> String;
}

/// A body's handle to its world.
#[derive(Clone)]
pub struct Target {
    world: Rc<dyn World>,
    /// Distinguishes the keys of this body from those of others on the same server.
    prefix: String,
    minor: Rc<Cell<Option<u32>>>,
}

impl Target {
    pub fn new(world: Rc<dyn World>, prefix: impl Into<String>) -> Target {
        Target {
            world,
            prefix: prefix.into(),
            minor: Rc::new(Cell::new(None)),
        }
    }

    /// A new connection.
    pub async fn client(&self) -> Client {
        Client::connect(&self.world).await
    }

    /// A new connection with small flow-control windows, in bytes.
    pub async fn client_with_window(&self, window: u32) -> Client {
        Client::connect_with_window(&self.world, window).await
    }

    pub fn world(&self) -> &Rc<dyn World> {
        &self.world
    }

    /// A key under this body's own prefix.
    pub fn key(&self, suffix: &str) -> Bytes {
        Bytes::from(format!("{}/{suffix}", self.prefix))
    }

    /// The span of all of this body's keys.
    pub fn all(&self) -> (Bytes, Bytes) {
        (
            Bytes::from(format!("{}/", self.prefix)),
            Bytes::from(format!("{}0", self.prefix)),
        )
    }

    pub async fn sleep(&self, duration: Duration) {
        self.world.sleep(duration).await;
    }

    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// The body's patience: panics with `what` when `future` takes longer than `duration`.
    pub async fn within<T>(&self, duration: Duration, what: &str, future: impl Future<Output = T>) -> T {
        let late = async {
            self.world.sleep(duration).await;
            panic!("{}: no {what} within {duration:?}", self.world.name());
        };
        futures_lite::future::or(future, late).await
    }

    /// `None` when `future` takes longer than `duration`; it is dropped then.
    pub async fn at_most<T>(&self, duration: Duration, future: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.world.sleep(duration).await;
            None
        };
        futures_lite::future::or(async { Some(future.await) }, late).await
    }

    pub async fn restart(&self, stop: Stop) {
        self.world.restart(stop).await;
    }

    /// Whether the server answers as etcd 3.6 does (ringd always; the etcd that judges may be older).
    pub async fn is_36(&self, client: &Client) -> bool {
        if self.minor.get().is_none() {
            let version = client.status().await.version;
            let minor = version.split('.').nth(1).and_then(|m| m.parse().ok());
            self.minor.set(Some(
                minor.unwrap_or_else(|| panic!("version {version:?} is not X.Y.Z")),
            ));
        }
        self.minor.get() >= Some(6)
    }
}
