//! The data directory: `member/` with `wal/` and `snap/`, for its owner alone, and held by one process.
//!
//! etcd holds the log's last segment and the database file by locks of their own, which whoever opens those takes
//! ([`crate::host::File::try_lock`]). The lock here is on the `member` directory itself: it keeps a second ringd out before
//! anything is read, and leaves no file behind that etcd would not know.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A data directory that this process holds. Released when dropped, and when the process ends in whatever way.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    wal: PathBuf,
    _lock: File,
}

/// Permissions of every directory of ours.
const DIRECTORY_MODE: u32 = 0o700;

impl DataDirectory {
    /// Creates what is missing, and takes the lock. `wal_path` is a log directory elsewhere, if the operator chose one.
    /// Errors name the path.
    pub fn open(path: &Path, wal_path: Option<&Path>) -> io::Result<DataDirectory> {
        let member = path.join("member");
        let wal = wal_path.map_or_else(|| member.join("wal"), Path::to_owned);
        for directory in [path, &member, &member.join("snap"), &wal] {
            create(directory).map_err(|error| named("cannot use directory", directory, &error))?;
            sync_name(directory).map_err(|error| named("cannot sync the parent of", directory, &error))?;
        }
        let lock = File::open(&member).map_err(|error| named("cannot open directory", &member, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("data directory {} is in use by another process", path.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            Err(TryLockError::Error(error)) => return Err(named("cannot lock directory", &member, &error)),
        }
        Ok(DataDirectory {
            path: path.to_owned(),
            wal,
            _lock: lock,
        })
    }

    /// The directory as the operator gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where log segments are.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// Where `.snap` files and the database are.
    pub fn snap(&self) -> PathBuf {
        self.path.join("member").join("snap")
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.snap().join("db")
    }
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

fn create(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)?;
    let mode = fs::metadata(directory)?.permissions().mode() & 0o777;
    if mode != DIRECTORY_MODE {
        tracing::warn!(
            path = %directory.display(),
            permission = format!("{mode:03o}"),
            recommended = format!("{DIRECTORY_MODE:03o}"),
            "directory exists with other permissions than recommended; others may read the data"
        );
    }
    Ok(())
}

/// Makes a directory's name durable, and those of the directories that it is in as far as they may be opened: which of
/// them a process made that was killed before it could do this, nobody knows.
fn sync_name(directory: &Path) -> io::Result<()> {
    for parent in std::path::absolute(directory)?.ancestors().skip(1) {
        match File::open(parent).and_then(|parent| parent.sync_all()) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Err(error),
            // A directory of others, or on a filesystem that cannot do this.
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_data_directory_has_etcds_layout_for_its_owner_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b.etcd");
        let directory = DataDirectory::open(&path, None).unwrap();
        for name in ["", "member", "member/wal", "member/snap"] {
            let mode = fs::metadata(path.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
        assert_eq!(directory.wal(), path.join("member/wal"));
        assert_eq!(directory.database(), path.join("member/snap/db"));
    }

    #[test]
    fn a_second_opening_is_refused_until_the_first_ends() {
        let scratch = tempfile::tempdir().unwrap();
        let elsewhere = scratch.path().join("log");
        let first = DataDirectory::open(scratch.path(), Some(&elsewhere)).unwrap();
        assert_eq!(first.wal(), elsewhere);
        let error = DataDirectory::open(scratch.path(), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(first);
        DataDirectory::open(scratch.path(), None).unwrap();
    }

    #[test]
    fn a_path_that_is_a_file_is_named_in_the_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDirectory::open(file.path(), None).unwrap_err();
        assert!(
            error.to_string().contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
