//! A database that another member sends: written beside the one in use, under a name that a restart removes, and given
//! its own name (`<index>.snap.db`) when it is whole and durable.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{SnapshotFiles, drive::at};
use crate::{
    base::LogIndex,
    host::{Disk, File, Host, OpenMode},
};

/// A database on its way in. Dropped, it leaves a file that the next start removes.
pub struct Reception<H: Host> {
    host: H,
    directory: PathBuf,
    unfinished: PathBuf,
    path: PathBuf,
    file: <H::Disk as Disk>::File,
    size: u64,
}

impl<H: Host> SnapshotFiles<H> {
    /// Begins to receive the database of the snapshot at `index`.
    pub async fn receive_database(&self, index: LogIndex) -> io::Result<Reception<H>> {
        let (host, directory) = (self.host(), self.directory());
        // etcd's temporary files have names of this form.
        let unfinished = directory.join(format!("tmp{:020}", host.random_u64()));
        let file = host.disk().open(&unfinished, OpenMode::CreateNew).await;
        let file = file.map_err(at("create", &unfinished))?;
        Ok(Reception {
            host: host.clone(),
            directory: directory.to_path_buf(),
            unfinished,
            path: self.database_path(index),
            file,
            size: 0,
        })
    }
}

impl<H: Host> Reception<H> {
    /// The next bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_written = self.file.write_bytes_at(self.size, bytes).await;
        is_written.map_err(at("write", &self.unfinished))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// That was all: the database has its name when this ends, durably.
    pub async fn finish(self) -> io::Result<()> {
        self.file.sync_data().await.map_err(at("sync", &self.unfinished))?;
        drop(self.file);
        let disk = self.host.disk();
        let is_named = disk.rename(&self.unfinished, &self.path).await;
        is_named.map_err(at("name", &self.path))?;
        let is_durable = disk.sync_directory(&self.directory).await;
        is_durable.map_err(at("sync", &self.directory))
    }

    /// Gives up, and removes what has come.
    pub async fn abandon(self) -> io::Result<()> {
        drop(self.file);
        let is_removed = self.host.disk().remove(&self.unfinished).await;
        is_removed.map_err(at("remove", &self.unfinished))
    }

    /// Where the database will be.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
