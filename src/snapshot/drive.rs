//! (API; bodies follow.) The directory of snapshots.
use std::{
    io,
    path::{Path, PathBuf},
};

use raft::eraftpb::Snapshot;

use crate::{base::LogIndex, host::Host, wal::WalSnapshot};

/// `.snap` files of one member.
pub struct SnapshotFiles<H: Host> {
    host: H,
    directory: PathBuf,
}

impl<H: Host> SnapshotFiles<H> {
    /// Snapshots in `directory` (`member/snap`), which exists.
    pub fn new(host: &H, directory: &Path) -> SnapshotFiles<H> {
        SnapshotFiles {
            host: host.clone(),
            directory: directory.to_path_buf(),
        }
    }
    /// Saves a snapshot durably. The caller then records it in the log.
    pub async fn save(&self, _snapshot: &Snapshot) -> io::Result<()> {
        todo!()
    }
    /// The newest whole snapshot that the log knows (`Wal::valid_snapshots`); broken files are renamed to `.broken`.
    pub async fn load_newest(&self, _known: &[WalSnapshot]) -> io::Result<Option<Snapshot>> {
        todo!()
    }
    /// Removes the oldest `.snap` and `.snap.db` files beyond `snapshots_max` each (0: never). Returns the names.
    pub async fn purge(&self, _snapshots_max: usize) -> io::Result<Vec<String>> {
        todo!()
    }
    /// Removes received databases (`<index>.snap.db`) older than the snapshot at `index`.
    pub async fn release_databases(&self, _index: LogIndex) -> io::Result<Vec<String>> {
        todo!()
    }
    /// Removes what a crash left: `db.tmp*` of a defragmentation, unfinished snapshots.
    pub async fn remove_orphans(&self) -> io::Result<Vec<String>> {
        todo!()
    }
    /// Where a database received with the snapshot at `index` is kept.
    pub fn database_path(&self, index: LogIndex) -> PathBuf {
        self.directory.join(format!("{index:016x}.snap.db"))
    }
}
