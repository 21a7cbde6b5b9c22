//! (API; bodies follow.) The log's files.
use std::{path::Path, time::Duration};

use super::{Batch, LogEncoder, Replay, WalFault, WalSnapshot};
use crate::{
    base::LogIndex,
    host::{Disk, File, Host},
};

/// How a batch becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// One write to a file opened O_DSYNC.
    Dsync,
    /// A write, then fdatasync.
    WriteThenSync,
    /// A write alone (`--unsafe-no-fsync`): what is acknowledged may be lost with the machine.
    None,
}

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// How a batch becomes durable.
    pub sync: WalSync,
}

/// What one write took, for the caller's metrics.
#[derive(Clone, Copy, Debug)]
pub struct WriteReport {
    /// Bytes written, filler included.
    pub bytes: u64,
    /// From the call to durability.
    pub duration: Duration,
    /// Whether a segment was begun.
    pub began_segment: bool,
}

type Buffer<H> = <<<H as Host>::Disk as Disk>::File as File>::Buffer;

/// The log's files. Share it as `Rc`: `release_to` and `purge` may be called while a write is in flight.
pub struct Wal<H: Host> {
    host: H,
}

impl<H: Host> Wal<H> {
    /// Whether `directory` holds a log.
    pub async fn exists(_host: &H, _directory: &Path) -> Result<bool, WalFault> {
        todo!()
    }
    /// Creates a log with its first records durable; atomic: it exists with its head, or not at all.
    pub async fn create(
        _host: &H,
        _directory: &Path,
        _metadata: &[u8],
        _options: WalOptions,
    ) -> Result<(Wal<H>, LogEncoder), WalFault> {
        todo!()
    }
    /// Opens a log behind a snapshot (default: from the start), repairs a torn tail once, and says what was in it.
    pub async fn open(
        _host: &H,
        _directory: &Path,
        _from: &WalSnapshot,
        _options: WalOptions,
    ) -> Result<(Wal<H>, LogEncoder, Replay), WalFault> {
        todo!()
    }
    /// Snapshots that the log knows of and that are committed, oldest first: a `.snap` that is not among them does not
    /// count. Reads only; takes no lock.
    pub async fn valid_snapshots(_host: &H, _directory: &Path) -> Result<Vec<WalSnapshot>, WalFault> {
        todo!()
    }
    /// Memory for [`LogEncoder::seal`].
    pub fn buffer(&self, _len: usize) -> Buffer<H> {
        todo!()
    }
    /// Makes a batch durable. One at a time, in the order of sealing. After an error the log's end is unknown: the
    /// process must end.
    pub async fn write(&self, _batch: Batch<Buffer<H>>) -> Result<WriteReport, WalFault> {
        todo!()
    }
    /// Gives up the segments that hold only entries before `index`. The caller has a `.snap` at or beyond `index`
    /// synced and recorded, and the tree's durable applied index is there too.
    pub fn release_to(&self, _index: LogIndex) {
        todo!()
    }
    /// Removes the oldest released segments beyond `wals_max` (0: never). Returns how many.
    pub async fn purge(&self, _wals_max: usize) -> Result<usize, WalFault> {
        todo!()
    }
    /// Ends the background task and removes the segment that was prepared.
    pub async fn close(&self) -> Result<(), WalFault> {
        todo!()
    }
}
