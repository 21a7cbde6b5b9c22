//! The seam between logic and machine. Everything above it runs on the real machine (`ring/`) and in the simulator
//! (`testing/`) alike: whatever is not a function of its inputs comes through here.
//!
//! Tasks of one host run on one thread; futures are not `Send`. Dropping a future cancels the wait, never an operation
//! on a file that has been handed to the kernel.

use std::{future::Future, io, net::SocketAddr, path::Path, task};

use crate::base::{Monotonic, WallTime};

mod mailbox;
mod notify;

pub use mailbox::{Receiver, Sender, TrySendError, mailbox};
pub use notify::Notify;

/// One core's view of the machine.
pub trait Host: Clone + 'static {
    /// Files.
    type Disk: Disk;
    /// Sockets.
    type Net: Net;

    /// Files.
    fn disk(&self) -> &Self::Disk;
    /// Sockets.
    fn net(&self) -> &Self::Net;
    /// Time that only goes forward.
    fn now(&self) -> Monotonic;
    /// Time of day.
    fn wall_time(&self) -> WallTime;
    /// Resolves when `now()` has reached `at`, or soon after.
    fn sleep_until(&self, at: Monotonic) -> impl Future<Output = ()> + 'static;
    /// Lets other tasks of this core run, and what has arrived meanwhile be noticed.
    fn yield_now(&self) -> impl Future<Output = ()> + 'static;
    /// Entropy: from the operating system, or from the seed.
    fn random_u64(&self) -> u64;
    /// Runs a task on this core until it ends; its panics end the process.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Through the page cache; must exist; writes fail.
    Read,
    /// Through the page cache; read and write; must exist.
    Write,
    /// Through the page cache; read and write; created with mode 0600, must not exist.
    CreateNew,
    /// Past the page cache (O_DIRECT), where the filesystem can (see [`File::is_direct`]); must exist. Offsets,
    /// lengths and memory are multiples of [`DIRECT_ALIGN`].
    Direct,
    /// As `Direct`, and each write is durable when it completes (O_DSYNC).
    DirectDurable,
}

/// Alignment of direct reads and writes, in bytes.
pub const DIRECT_ALIGN: usize = 4096;

/// Files of one core. Paths are as the operator gave them.
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: File;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<Self::File>>;
    /// Whole content of a small file.
    fn read_file(&self, path: &Path) -> impl Future<Output = io::Result<Vec<u8>>>;
    /// Names of a directory's entries, sorted.
    fn list(&self, directory: &Path) -> impl Future<Output = io::Result<Vec<String>>>;
    /// Whether anything is at `path`.
    fn exists(&self, path: &Path) -> impl Future<Output = io::Result<bool>>;
    /// Creates a directory and its parents with mode 0700; done if it is there already.
    fn create_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Renames a file, replacing what has the name.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
    /// Makes a directory's entries durable.
    fn sync_directory(&self, path: &Path) -> impl Future<Output = io::Result<()>>;
}

/// An open file. One owner; several operations may be in flight unless a method says otherwise.
pub trait File: 'static {
    /// Memory for a write, aligned for direct writes. Zeroed when new.
    type Buffer: AsRef<[u8]> + AsMut<[u8]> + 'static;
    /// A view of the file's content that stays while the file grows.
    type Map: Map;

    /// Present length in bytes.
    fn size(&self) -> impl Future<Output = io::Result<u64>>;
    /// Whether direct mode took; where the filesystem refuses O_DIRECT the file is buffered, and durable modes sync
    /// after each write.
    fn is_direct(&self) -> bool;
    /// New zeroed memory of `len` bytes (a multiple of [`DIRECT_ALIGN`]).
    fn buffer(&self, len: usize) -> Self::Buffer;
    /// Writes the whole buffer at `offset` and gives the memory back, whatever happened.
    fn write_at(&self, offset: u64, buffer: Self::Buffer) -> impl Future<Output = (io::Result<()>, Self::Buffer)>;
    /// As [`File::write_at`], and makes durable what is written then, with all that was written to the file before. An
    /// error leaves open how much of it is; after a failed sync nobody may trust the file again.
    fn write_durably_at(
        &self,
        offset: u64,
        buffer: Self::Buffer,
    ) -> impl Future<Output = (io::Result<()>, Self::Buffer)> {
        async move {
            match self.write_at(offset, buffer).await {
                (Ok(()), buffer) => (self.sync_data().await, buffer),
                failed => failed,
            }
        }
    }
    /// Writes borrowed bytes through the page cache (not for direct files).
    fn write_bytes_at(&self, offset: u64, bytes: &[u8]) -> impl Future<Output = io::Result<()>>;
    /// Reads up to `len` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = io::Result<Vec<u8>>>;
    /// Makes content and what is needed to read it durable (fdatasync).
    fn sync_data(&self) -> impl Future<Output = io::Result<()>>;
    /// Starts writeback of a range and waits for it, without a device flush (sync_file_range): no durability.
    fn write_back(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Reserves space and sets the length to at least `len` bytes.
    fn allocate(&self, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Sets the length.
    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>>;
    /// Takes the exclusive advisory lock (flock) that etcd takes on the same file; an error of kind `WouldBlock` when
    /// another process has it.
    fn try_lock(&self) -> io::Result<()>;
    /// Maps the file for reading, with room for `capacity` bytes of growth. Content written later through a file of
    /// the same disk is seen.
    fn map(&self, capacity: u64) -> io::Result<Self::Map>;
}

/// A file seen as memory. Reading past the file's present end is not allowed and may end the process.
pub trait Map: Clone + Send + Sync + 'static {
    /// Bytes that may ever be read through this map.
    fn capacity(&self) -> u64;
    /// `len` bytes at `offset`. The caller sees to it that nothing is written there while the slice lives: in a
    /// copy-on-write tree, that its pages are reachable from a pinned root.
    fn bytes(&self, offset: u64, len: usize) -> &[u8];
    /// Asks for these bytes to be made resident, so that reading them does not wait for the disk.
    fn populate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Keeps these bytes resident, where the host can.
    fn lock(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Sockets of one core.
pub trait Net: Clone + 'static {
    /// A bound socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// A connection.
    type Stream: Stream;
    /// A connection on its way to another core.
    type Moved: 'static;

    /// Binds and listens. Never shares a port with another process (no SO_REUSEPORT).
    fn listen(&self, address: SocketAddr) -> io::Result<Self::Listener>;
    /// Connects.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;
    /// Lets a connection go to another core. Nothing may have been read from it.
    fn release(&self, stream: Self::Stream) -> Self::Moved;
    /// Takes over a connection that another core has released.
    fn adopt(&self, moved: Self::Moved) -> io::Result<Self::Stream>;
}

/// A bound socket.
pub trait Listener: 'static {
    /// What is accepted.
    type Stream: Stream;
    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;
    /// Where it listens (the port that was chosen, if 0 was asked for).
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// A connection: polled, so that one task can wait for the peer and for its own side at once.
pub trait Stream: Unpin + 'static {
    /// Reads into `buffer`; 0 at the end.
    fn poll_read(&mut self, context: &mut task::Context<'_>, buffer: &mut [u8]) -> task::Poll<io::Result<usize>>;
    /// Writes some of `buffer`.
    fn poll_write(&mut self, context: &mut task::Context<'_>, buffer: &[u8]) -> task::Poll<io::Result<usize>>;
    /// Ends our direction; the peer reads to the end.
    fn shutdown_write(&mut self) -> io::Result<()>;
}
