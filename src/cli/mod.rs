//! The program's command line: which of its faces is asked for, and the offline commands' own arguments.
//!
//! Parsing is pure and ends in an [`Invocation`]; carrying a [`Command`] out is `run`'s part, on a `Host`.

mod arguments;
mod check;
mod print;
mod restore;
mod run;
mod status;

use std::{io, path::Path, path::PathBuf};

use crate::{
    bench::Plan,
    config::{self, Config, Exit, InitialCluster, Loaded, Notice, Url},
};

pub use print::{OutputFormat, SnapshotStatus, print_status};
pub use run::run;

/// What the program was called for.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// Start the server.
    Serve {
        /// The configuration.
        config: Box<Config>,
        /// To be logged once the log is set up.
        notices: Vec<Notice>,
    },
    /// Work on files while no server runs on them.
    Offline(Command),
    /// Put load on a server.
    Bench(Box<Plan>),
    /// Look at this machine.
    Doctor {
        /// Where the data is, or is to be.
        directory: PathBuf,
        /// For programs rather than for people.
        is_json: bool,
    },
    /// Print and leave.
    Exit(Exit),
}

/// An offline command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `snapshot status FILE`
    SnapshotStatus {
        /// A saved snapshot, or any database file.
        file: PathBuf,
        /// How to print.
        format: OutputFormat,
    },
    /// `snapshot restore FILE`
    SnapshotRestore(Restore),
    /// `check DIR`: pages, buckets, records and what must agree between them.
    Check {
        /// A data directory.
        data_dir: PathBuf,
    },
    /// `wal dump DIR`: one line per record.
    WalDump {
        /// A data directory, or a directory of log segments.
        directory: PathBuf,
    },
}

/// `snapshot restore`: a data directory for one member of a new cluster, from a saved snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// The saved snapshot.
    pub file: PathBuf,
    /// Must not hold a member yet.
    pub data_dir: PathBuf,
    /// Where the log goes, if not into the data directory.
    pub wal_dir: Option<PathBuf>,
    /// This member's name.
    pub name: String,
    /// All members.
    pub initial_cluster: InitialCluster,
    /// Part of the cluster's id.
    pub initial_cluster_token: String,
    /// This member's peer URLs.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Whether the hash behind the database is not compared (a database file that was copied has none).
    pub skip_hash_check: bool,
    /// How far the revision is raised.
    pub bump_revision: u64,
    /// Whether the raised revision counts as compacted, so that watchers notice.
    pub mark_compacted: bool,
}

/// Reads the command line (without the program's name).
pub fn invocation(
    arguments: &[String],
    environment: &[(String, String)],
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Invocation {
    match arguments::command(arguments) {
        Some(Ok(invocation)) => invocation,
        Some(Err(exit)) => Invocation::Exit(exit),
        None => match config::load(arguments, environment, read_file) {
            Loaded::Run { config, notices } => Invocation::Serve { config, notices },
            Loaded::Exit(exit) => Invocation::Exit(exit),
        },
    }
}
