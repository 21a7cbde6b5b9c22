//! What home and store say to each other.

use std::{any::Any, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::host::{Map, Sender};

use super::{
    batch::{Batch, SealedBatch},
    fault::{Fault, OpenFault, StoreFault},
    root::Pin,
};

/// How the store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The database file; created if missing. Its directory exists.
    pub path: PathBuf,
    /// Bytes of address space that the mapping starts with; when the file outgrows it, it is mapped anew.
    pub map_bytes: u64,
    /// Whether pages are made resident at open and after growth.
    pub populate: bool,
    /// Whether pages are locked into memory (`--memory-mlock`); opening fails if that cannot be.
    pub lock: bool,
    /// Whether commits wait for the device. Without it a crash of the machine can leave a broken file
    /// (`--unsafe-no-fsync`).
    pub sync: bool,
    /// How long the changes of a job may wait for a commit to go with.
    pub job_commit_interval: Duration,
}

impl StoreOptions {
    /// The usual choices for a file.
    pub fn new(path: PathBuf) -> StoreOptions {
        StoreOptions {
            path,
            map_bytes: 16 << 30,
            populate: true,
            lock: false,
            sync: true,
            job_commit_interval: Duration::from_millis(100),
        }
    }
}

/// Names a request in its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Work for the store. Requests are begun in order; commits overtake the slices of jobs.
pub enum StoreRequest<M: Map> {
    /// Puts a batch into the tree, durably.
    Commit(Arc<SealedBatch>),
    /// Runs a job in slices, after everything before it is committed. One such job runs at a time, in order.
    Job(JobId, Box<dyn StoreJob<M>>),
    /// Runs a job that changes nothing, beside all others; its first slice is at once, over a root that has everything
    /// sent before.
    Read(JobId, Box<dyn StoreJob<M>>),
    /// The checksum of all buckets, over a root that has everything sent before.
    Hash(JobId),
    /// Streams a valid database file that has everything sent before. What comes when is told in [`SnapshotPart`]; there
    /// is no event. It holds its version of the tree until it ends, or the receiver goes.
    Snapshot(Sender<SnapshotPart>),
    /// Rewrites the file without free pages, while commits and reads go on.
    Defragment(JobId),
    /// Looks through a file that came from another member. One at a time.
    Examine(PathBuf),
    /// Takes a file that was examined as the database, in place of the one in use. Jobs that were asked for before are
    /// given up without a word; commits must not be under way.
    Install(PathBuf),
}

/// What the store has done.
pub enum StoreEvent<M: Map> {
    /// A commit is durable: hand it to [`Backend::committed`](super::Backend::committed).
    Committed(CommitReport<M>),
    /// A job came to its end, and everything it changed is durable.
    JobDone(JobId, JobResult),
    /// A job found a damaged page and was given up.
    JobFailed(JobId, Fault),
    /// The checksum.
    Hashed(JobId, HashReport),
    /// The file was rewritten. A [`StoreEvent::Committed`] with the new root came before.
    Defragmented(JobId, DefragmentReport),
    /// Defragmentation was given up; the old file is still in use.
    DefragmentFailed(JobId, OpenFault),
    /// A file was looked through.
    Examined(Result<Received, OpenFault>),
    /// Another file is in use: [`Backend::new`](super::Backend::new) takes the report.
    Installed(CommitReport<M>),
    /// The store has stopped, and the process must end.
    Failed(StoreFault),
}

/// What a sound file that came from another member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// The applied index that it holds.
    pub applied_index: u64,
}

/// A piece of a snapshot: `Begin`, then `Data` until all bytes have come, then `End`; or `Failed`, as the last, at any time.
pub enum SnapshotPart {
    /// The file will have this many bytes.
    Begin(u64),
    /// The next bytes, at most 256 KiB.
    Data(Bytes),
    /// That was all, and this is its SHA-256.
    End([u8; 32]),
    /// The file could not be read.
    Failed(StoreFault),
}

/// A commit, and what it cost.
pub struct CommitReport<M: Map> {
    /// The tree as it is now.
    pub root: Pin<M>,
    /// The batch that was committed, if one was (a job's changes are committed alone when nothing else comes).
    pub sequence: Option<u64>,
    /// Bytes up to the last page in use; what etcd calls the size, and what the quota counts.
    pub size: u64,
    /// `size` less free pages.
    pub size_in_use: u64,
    /// Time for merging underfull pages and changing leaves. etcd's name: rebalance.
    pub rebalance: Duration,
    /// Time for placing and filling pages. etcd's name: spill.
    pub spill: Duration,
    /// Time for writing and syncing.
    pub write: Duration,
    /// Time from request to event.
    pub total: Duration,
    /// Bytes written, the meta page included.
    pub bytes_written: u64,
    /// Writes they took, the meta page's not counted.
    pub runs: u32,
    /// How long the store was busy with each slice of a job that changes the tree, since the last report.
    pub job_slices: Vec<Duration>,
}

/// etcd's `Maintenance.Hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashReport {
    /// CRC-32C over all buckets: names, keys and values, without applied index, term and storage version.
    pub hash: u32,
}

/// What defragmentation brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefragmentReport {
    /// Bytes before.
    pub size_before: u64,
    /// Bytes after.
    pub size_after: u64,
    /// Time it took.
    pub duration: Duration,
}

/// What a job has to tell at its end.
pub type JobResult = Box<dyn Any + Send>;

/// Work in slices over the tree, on the store's thread. Between slices commits and other requests are served.
pub trait StoreJob<M: Map>: Send {
    /// One slice: a few milliseconds at most. `root` is the newest committed tree, and has every batch that was sent
    /// before the job; a job that needs one version throughout clones it at its first step. Changes go into `changes`,
    /// which are committed with the next batch, or on their own soon after; keep to a thousand or so per slice, and do not
    /// touch keys that home may change.
    fn step(&mut self, root: &Pin<M>, changes: &mut Batch) -> Result<Progress, Fault>;
}

/// How far a job is.
pub enum Progress {
    /// More to do, at once if nothing else waits.
    More,
    /// More to do, after a pause and after the changes so far are committed.
    Pause(Duration),
    /// Finished.
    Done(JobResult),
}
