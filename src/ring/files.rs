//! What both hosts do with files, as blocking calls. The ring's host runs them on its executor's blocking thread, the
//! store thread runs them in place.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use super::system;
use crate::host::OpenMode;

/// Bits of a new directory: its owner alone.
const DIRECTORY_MODE: u32 = 0o700;
/// Bits of a new file: its owner alone.
const FILE_MODE: u32 = 0o600;

/// An open file, and whether its reads and writes go past the page cache.
pub struct Opened {
    pub file: File,
    pub is_direct: bool,
}

/// Opens a file. Where the filesystem refuses O_DIRECT (EINVAL) the file is opened without; O_DSYNC then still makes
/// each write durable.
pub fn open(path: &Path, mode: OpenMode) -> io::Result<Opened> {
    let flags = match mode {
        OpenMode::Read | OpenMode::Write | OpenMode::CreateNew => return open_buffered(path, mode, 0),
        OpenMode::Direct => 0,
        OpenMode::DirectDurable => libc::O_DSYNC,
    };
    match open_buffered(path, mode, flags | libc::O_DIRECT) {
        Ok(opened) => Ok(Opened {
            is_direct: true,
            ..opened
        }),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open_buffered(path, mode, flags),
        Err(error) => Err(error),
    }
}

/// Opens a file through the page cache.
pub fn open_buffered(path: &Path, mode: OpenMode, flags: libc::c_int) -> io::Result<Opened> {
    let file = OpenOptions::new()
        .read(true)
        .write(mode != OpenMode::Read)
        .create_new(mode == OpenMode::CreateNew)
        .mode(FILE_MODE)
        .custom_flags(flags)
        .open(path)?;
    Ok(Opened { file, is_direct: false })
}

/// The flags beyond access that a direct mode asks for.
pub fn durable_flags(mode: OpenMode) -> libc::c_int {
    match mode {
        OpenMode::DirectDurable => libc::O_DSYNC,
        _ => 0,
    }
}

/// Names of a directory's entries, sorted. A name that is not UTF-8 is an error: nothing of ours has one.
pub fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        names.push(
            name.into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("file name {name:?} is not UTF-8"))
            })?,
        );
    }
    names.sort_unstable();
    Ok(names)
}

/// Creates a directory and its parents, for the owner alone.
pub fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Makes a directory's entries durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
pub fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let filled = read_into(file, offset, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Fills `bytes` from `offset`; fewer only at the end of the file.
pub fn read_into(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Takes both locks by which etcd and bbolt keep a second process out: flock (bbolt, on the database file) and the open
/// file's own lock (etcd, on log segments; needs a file open for writing). They do not see each other on Linux.
pub fn try_lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let is_writable = system::status_flags(file)? & libc::O_ACCMODE != libc::O_RDONLY;
    if is_writable {
        system::lock_open_file(file)
    } else {
        Ok(())
    }
}
