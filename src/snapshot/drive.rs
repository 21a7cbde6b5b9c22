//! The directory of snapshots (`member/snap`): saves, loads, sets broken files aside, removes what is not needed. The
//! database in it belongs to `backend`.
//!
//! A snapshot gets its name when its bytes are durable; the caller then records it in the log. One that the log does not
//! know does not count: the crash came between the two.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use raft::eraftpb::Snapshot;

use super::file::{self, SnapName};
use crate::{
    base::LogIndex,
    host::{Disk, File, Host, OpenMode},
    wal::WalSnapshot,
};

/// `.snap` files of one member.
pub struct SnapshotFiles<H: Host> {
    host: H,
    directory: PathBuf,
}

/// What a saved snapshot took.
#[derive(Clone, Copy, Debug)]
pub struct SaveReport {
    /// Time to encode it.
    pub encode: Duration,
    /// Time to sync its file.
    pub sync: Duration,
}

/// Name of a snapshot that is being written. A name of this form etcd passes over.
const UNFINISHED_NAME: &str = "snap.tmp";

impl<H: Host> SnapshotFiles<H> {
    /// Snapshots in `directory` (`member/snap`), which exists.
    pub fn new(host: &H, directory: &Path) -> SnapshotFiles<H> {
        SnapshotFiles {
            host: host.clone(),
            directory: directory.to_path_buf(),
        }
    }

    pub(super) fn host(&self) -> &H {
        &self.host
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a snapshot stands.
    pub fn path_of(&self, name: SnapName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    /// Saves a snapshot durably; one at a time. The caller then records it in the log.
    pub async fn save(&self, snapshot: &Snapshot) -> io::Result<SaveReport> {
        assert!(snapshot.get_metadata().index > 0, "an empty snapshot is not saved");
        let disk = self.host.disk();
        let unfinished = self.directory.join(UNFINISHED_NAME);
        if disk.exists(&unfinished).await.map_err(at("look for", &unfinished))? {
            disk.remove(&unfinished).await.map_err(at("remove", &unfinished))?;
        }
        let began = self.host.now();
        let bytes = file::encode(snapshot);
        let encode = self.host.now().since(began);
        let created = disk.open(&unfinished, OpenMode::CreateNew).await;
        let created = created.map_err(at("create", &unfinished))?;
        let is_written = created.write_bytes_at(0, &bytes).await;
        is_written.map_err(at("write", &unfinished))?;
        let written = self.host.now();
        created.sync_data().await.map_err(at("sync", &unfinished))?;
        let sync = self.host.now().since(written);
        drop(created);
        let path = self.path_of(SnapName::of(snapshot));
        disk.rename(&unfinished, &path).await.map_err(at("name", &path))?;
        let is_named = disk.sync_directory(&self.directory).await;
        is_named.map_err(at("sync", &self.directory))?;
        Ok(SaveReport { encode, sync })
    }

    /// The newest whole snapshot that the log knows (`Wal::valid_snapshots`); broken files are renamed to `.broken`.
    pub async fn load_newest(&self, known: &[WalSnapshot]) -> io::Result<Option<Snapshot>> {
        let is_known = |snapshot: &Snapshot| {
            let name = SnapName::of(snapshot);
            let mut newest_first = known.iter().rev();
            newest_first.any(|known| known.index == name.index && known.term == name.term)
        };
        self.load_newest_where(is_known).await
    }

    /// The newest whole snapshot that `is_wanted`; broken files are renamed to `.broken`.
    pub async fn load_newest_where(&self, is_wanted: impl Fn(&Snapshot) -> bool) -> io::Result<Option<Snapshot>> {
        let mut names = self.list(".snap").await?;
        names.sort_unstable();
        for name in names.iter().rev() {
            let path = self.directory.join(name);
            let bytes = self.host.disk().read_file(&path).await;
            match file::decode(&bytes.map_err(at("read", &path))?) {
                Ok(snapshot) if is_wanted(&snapshot) => return Ok(Some(snapshot)),
                Ok(_) => {}
                Err(fault) => self.set_aside(&path, fault).await?,
            }
        }
        Ok(None)
    }

    async fn set_aside(&self, path: &Path, fault: file::SnapFault) -> io::Result<()> {
        let mut broken_path = path.as_os_str().to_os_string();
        broken_path.push(".broken");
        let broken_path = PathBuf::from(broken_path);
        tracing::warn!(path = %path.display(), error = %fault, "failed to read a snap file");
        let is_renamed = self.host.disk().rename(path, &broken_path).await;
        is_renamed.map_err(at("set aside", path))?;
        tracing::warn!(
            path = %path.display(), broken_path = %broken_path.display(), "renamed to a broken snap file"
        );
        Ok(())
    }

    /// Removes the oldest `.snap` and `.snap.db` files beyond `snapshots_max` each (0: never). Returns the names.
    pub async fn purge(&self, snapshots_max: usize) -> io::Result<Vec<String>> {
        let mut purged = Vec::new();
        if snapshots_max == 0 {
            return Ok(purged);
        }
        for suffix in [".snap", ".snap.db"] {
            let mut names = self.list(suffix).await?;
            names.sort_unstable();
            names.truncate(names.len().saturating_sub(snapshots_max));
            purged.append(&mut names);
        }
        self.remove("purged", purged).await
    }

    /// Removes received databases (`<index>.snap.db`) older than the snapshot at `index`.
    pub async fn release_databases(&self, index: LogIndex) -> io::Result<Vec<String>> {
        let mut names = self.list(".snap.db").await?;
        names.retain(|name| file::parse_database_name(name).is_some_and(|received_at| received_at < index));
        self.remove("found orphaned .snap.db file; deleting", names).await
    }

    /// Removes what a crash left: `db.tmp*` of a defragmentation, unfinished snapshots and unfinished received
    /// databases (`tmp` and digits). Call it before any of these is begun.
    pub async fn remove_orphans(&self) -> io::Result<Vec<String>> {
        let mut names = self.list("").await?;
        names.retain(|name| {
            let is_received = name
                .strip_prefix("tmp")
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
            name.starts_with("db.tmp") || name == UNFINISHED_NAME || is_received
        });
        self.remove("found orphaned file; deleting", names).await
    }

    /// Whether there is a database that another member sent.
    pub async fn has_databases(&self) -> io::Result<bool> {
        Ok(!self.list(".snap.db").await?.is_empty())
    }

    /// Where a database received with the snapshot at `index` is kept.
    pub fn database_path(&self, index: LogIndex) -> PathBuf {
        self.directory.join(file::database_name(index))
    }

    async fn list(&self, suffix: &str) -> io::Result<Vec<String>> {
        let names = self.host.disk().list(&self.directory).await;
        let mut names = names.map_err(at("list", &self.directory))?;
        names.retain(|name| name.ends_with(suffix));
        Ok(names)
    }

    async fn remove(&self, why: &str, names: Vec<String>) -> io::Result<Vec<String>> {
        for name in &names {
            let path = self.directory.join(name);
            self.host.disk().remove(&path).await.map_err(at("remove", &path))?;
            tracing::info!(path = %path.display(), "{why}");
        }
        Ok(names)
    }
}

/// What was wanted of which file, before the system's words on why it failed.
pub(super) fn at<'p>(operation: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> io::Error + 'p {
    move |error| {
        io::Error::new(
            error.kind(),
            format!("cannot {operation} '{}': {error}", path.display()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::Term, wal::test_host::TestHost};
    use raft::eraftpb::ConfState;

    const DIRECTORY: &str = "/member/snap";

    fn snapshot(term: u64, index: u64) -> Snapshot {
        let mut snapshot = Snapshot {
            data: vec![b'x'; 600].into(),
            ..Snapshot::default()
        };
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = term;
        *snapshot.mut_metadata().mut_conf_state() = ConfState::default();
        snapshot
    }

    fn known(term: u64, index: u64) -> WalSnapshot {
        WalSnapshot {
            index: LogIndex(index),
            term: Term(term),
            conf_state: None,
        }
    }

    #[test]
    fn the_newest_that_is_whole_and_known_is_loaded() {
        let host = TestHost::new(1);
        host.run(async {
            let files = SnapshotFiles::new(&host, Path::new(DIRECTORY));
            assert_eq!(files.load_newest(&[known(1, 1)]).await.unwrap(), None);
            for (term, index) in [(1, 5), (2, 9), (2, 300), (3, 301)] {
                files.save(&snapshot(term, index)).await.unwrap();
            }
            let all = [known(0, 0), known(1, 5), known(2, 9), known(2, 300)];
            assert_eq!(files.load_newest(&all).await.unwrap(), Some(snapshot(2, 300)));
            assert_eq!(files.load_newest(&all[..3]).await.unwrap(), Some(snapshot(2, 9)));
            let path = Path::new(DIRECTORY).join("0000000000000002-000000000000012c.snap");
            let mut bytes = host.file(&path).unwrap();
            bytes[100] ^= 1;
            host.put_file(&path, &bytes);
            assert_eq!(files.load_newest(&all).await.unwrap(), Some(snapshot(2, 9)));
            assert_eq!(host.file(path.with_extension("snap.broken")), Some(bytes));
            assert_eq!(host.file(&path), None);
        });
    }

    #[test]
    fn purge_keeps_the_newest_and_orphans_go() {
        let host = TestHost::new(1);
        host.run(async {
            let files = SnapshotFiles::new(&host, Path::new(DIRECTORY));
            for index in 1..=4 {
                files.save(&snapshot(1, index)).await.unwrap();
                host.put_file(files.database_path(LogIndex(index)), b"db");
            }
            for name in [
                "db",
                "db.tmp.123",
                "snap.tmp",
                "tmp12345",
                "tmpfile",
                "0000000000000001-0000000000000009.snap.broken",
            ] {
                host.put_file(Path::new(DIRECTORY).join(name), b"");
            }
            assert_eq!(files.purge(0).await.unwrap().len(), 0);
            assert_eq!(
                files.remove_orphans().await.unwrap(),
                ["db.tmp.123", "snap.tmp", "tmp12345"]
            );
            assert_eq!(
                files.release_databases(LogIndex(2)).await.unwrap(),
                ["0000000000000001.snap.db"]
            );
            let purged = files.purge(2).await.unwrap();
            let expected = [
                "0000000000000001-0000000000000001.snap",
                "0000000000000001-0000000000000002.snap",
                "0000000000000002.snap.db",
            ];
            assert_eq!(purged, expected);
            let left = host.names(DIRECTORY);
            assert!(left.contains(&"db".to_string()) && left.contains(&"tmpfile".to_string()));
            assert_eq!(left.len(), 2 + 2 + 3);
        });
    }

    #[test]
    fn a_crash_in_mid_save_leaves_the_snapshots_before_it() {
        for seed in 0..50 {
            let host = TestHost::new(seed);
            host.run(async {
                let files = SnapshotFiles::new(&host, Path::new(DIRECTORY));
                files.save(&snapshot(1, 1)).await.unwrap();
                host.die_after(seed % 2);
                let saved = files.save(&snapshot(1, 2)).await;
                host.crash();
                files.remove_orphans().await.unwrap();
                let newest = files.load_newest_where(|_| true).await.unwrap().unwrap();
                assert_eq!(newest, snapshot(1, if saved.is_ok() { 2 } else { 1 }), "seed {seed}");
            });
        }
    }
}
