//! What can be wrong with a log. Texts begin as etcd's do, so that operators' searches find them.

use std::{fmt, io, path::PathBuf};

use crate::base::LogIndex;

/// Why a log cannot be read, written or created.
#[derive(Debug)]
pub enum WalFault {
    /// The machine refused an operation on a file.
    Io {
        /// What was tried, as a verb: "open", "write".
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another process holds a segment.
    Locked(PathBuf),
    /// There is a log already where one is to be created.
    Exists(PathBuf),
    /// No segment holds the wanted index, or one is missing between others.
    FileNotFound {
        /// Where it was looked for; nothing where the segments were at hand.
        directory: PathBuf,
        /// The snapshot that the log is to be read behind; 0 for the log's start.
        snapshot_index: LogIndex,
    },
    /// Two metadata records differ.
    MetadataConflict(Position),
    /// A checksum says that bytes changed, or a segment of another log stands in the sequence.
    CrcMismatch(Position),
    /// A record at the end is incomplete, as after a crash in mid-write. Opening repairs this once, in the last segment.
    UnexpectedEof(Position),
    /// A record that no version of etcd writes.
    BadRecord {
        /// Where.
        at: Position,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The log knows the snapshot's index under another term.
    SnapshotMismatch(Position),
    /// The log does not know the snapshot from which it is to be read.
    SnapshotNotFound,
    /// An entry's index leaves a gap behind the entry before it.
    SliceOutOfRange(Position),
}

/// A place in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Name of the segment's file.
    pub segment: String,
    /// Bytes from its start to the record's length word.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in file '{}' at position: {}", self.segment, self.offset)
    }
}

impl fmt::Display for WalFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFault::Io { operation, path, error } => {
                write!(f, "wal: cannot {operation} '{}': {error}", path.display())
            }
            WalFault::Locked(path) => write!(f, "wal: '{}' is locked by another process", path.display()),
            WalFault::Exists(path) => write!(f, "wal: a log exists already at '{}'", path.display()),
            WalFault::FileNotFound {
                directory,
                snapshot_index,
            } => write!(
                f,
                "wal: file not found: '{}' has no unbroken row of segments from entry {} on",
                directory.display(),
                snapshot_index.0 + 1
            ),
            WalFault::MetadataConflict(at) => write!(f, "wal: conflicting metadata found: {at}"),
            WalFault::CrcMismatch(at) => write!(f, "wal: crc mismatch: {at}"),
            WalFault::UnexpectedEof(at) => write!(f, "wal: unexpected EOF: {at}"),
            WalFault::BadRecord { at, what } => write!(f, "wal: {what}: {at}"),
            WalFault::SnapshotMismatch(at) => write!(f, "wal: snapshot mismatch: {at}"),
            WalFault::SnapshotNotFound => write!(f, "wal: snapshot not found"),
            WalFault::SliceOutOfRange(at) => write!(f, "wal: slice bounds out of range: {at}"),
        }
    }
}

impl std::error::Error for WalFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalFault::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Wraps what an operation on a file came back with.
pub(super) fn io_fault<'a>(
    operation: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> WalFault + 'a {
    move |error| WalFault::Io {
        operation,
        path: path.to_path_buf(),
        error,
    }
}
