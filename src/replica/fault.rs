//! Why a member cannot start or go on. Every one of these ends the process, with the message that names file and place.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{apply, backend, base::LogIndex, snapshot::v2store::StoreFault, wal::WalFault};

/// Why a member cannot start or go on.
#[derive(Debug)]
pub enum Fault {
    /// The log.
    Wal(WalFault),
    /// The log's first record does not say whose it is.
    LogWithoutMetadata(PathBuf),
    /// A page of the tree.
    Page(backend::Fault),
    /// The tree's file.
    Store(backend::StoreFault),
    /// The store thread ended.
    StoreGone,
    /// The tree's content.
    Open {
        /// What is wrong with it.
        fault: apply::OpenFault,
        /// Where in the database file the entry that is to blame lies, in bytes.
        offset: Option<u64>,
    },
    /// An entry that cannot be applied.
    Apply(apply::ApplyFault),
    /// The tree lacks entries that the log no longer has.
    TreeBehindSnapshot {
        /// What the tree has.
        applied: LogIndex,
        /// Where the log begins.
        snapshot: LogIndex,
    },
    /// The newest `.snap` file cannot be had, and the log does not reach back to an older one.
    SnapshotLost {
        /// The file.
        path: PathBuf,
        /// What the log lacks.
        lacks: WalFault,
    },
    /// The content of the newest `.snap` file.
    SnapshotData(StoreFault),
    /// The log names other members, and there is no way to them.
    OtherVoters,
    /// A new cluster's members do not include this one, or not under the id that its log was begun with.
    NotAFounder,
    /// A file beside the log and the tree.
    File(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wal(fault) => write!(f, "write-ahead log: {fault}"),
            Fault::LogWithoutMetadata(path) => {
                write!(f, "write-ahead log {}: no readable metadata record", path.display())
            }
            Fault::Page(fault) => write!(f, "{fault}"),
            Fault::Store(fault) => write!(f, "{fault}"),
            Fault::StoreGone => write!(f, "the store thread has ended"),
            Fault::Open { fault, offset } => {
                write!(f, "{fault}")?;
                match offset {
                    Some(offset) => write!(f, " (file offset {offset})"),
                    None => Ok(()),
                }
            }
            Fault::Apply(fault) => write!(f, "cannot apply a log entry: {fault}"),
            Fault::TreeBehindSnapshot { applied, snapshot } => write!(
                f,
                "applied index {applied} is behind the snapshot's {snapshot}: it belongs to an older state"
            ),
            Fault::SnapshotLost { path, lacks } => write!(
                f,
                "{} is missing or damaged, and the log does not reach back to an older one: {lacks}",
                path.display()
            ),
            Fault::SnapshotData(fault) => write!(f, "snapshot file: v2 store: {}", fault.0),
            Fault::OtherVoters => {
                write!(
                    f,
                    "the data directory is of a member of a larger cluster, which is not supported yet"
                )
            }
            Fault::NotAFounder => {
                write!(f, "--initial-cluster does not name this member as its log does")
            }
            Fault::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// The sentence for the operator. What reads and writes the database knows its file by no name.
    pub fn sentence(&self, database: &Path) -> String {
        match self {
            Fault::Page(_) | Fault::Store(_) | Fault::Open { .. } | Fault::TreeBehindSnapshot { .. } => {
                format!("{}: {self}", database.display())
            }
            _ => self.to_string(),
        }
    }
}

macro_rules! from {
    ($($variant:ident($inner:ty);)*) => {
        $(impl From<$inner> for Fault {
            fn from(fault: $inner) -> Fault {
                Fault::$variant(fault)
            }
        })*
    };
}

from! {
    Wal(WalFault);
    Store(backend::StoreFault);
    Apply(apply::ApplyFault);
    File(io::Error);
}
