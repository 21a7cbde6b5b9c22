//! A leader's snapshot takes the place of this member's state: for a follower that needs more of the log than there is.
//!
//! ```text
//!  received ─▶ database in place, message ─▶ examined ─▶ raft wants it ─▶ `.snap` durable ─▶ recorded in the log, durable
//!                                              └ damaged: dropped           ─▶ database takes its name ─▶ state opened anew
//! ```
//!
//! The order is etcd's, so that a crash at any point leaves a directory that starts: before the record is durable the
//! old state counts, from then on the new one; a start finds the database that has not got its name yet
//! ([`finish_interrupted`]). Nothing is applied, and raft waits, from the second line on.

use std::{cell::RefCell, path::Path, rc::Rc};

use raft::eraftpb::{Message, Snapshot};

use super::{
    Fault, boot,
    drive::{Home, Progress, send},
};
use crate::{
    apply::{EntryAt, StateConfig},
    backend::{self, Backend, CommitReport, OpenFault, Received, StoreRequest},
    base::{
        LogIndex, Term,
        planted::{Planted, is_planted},
    },
    host::{Disk, Host, Map},
    peer::Receipt,
    snapshot::SnapshotFiles,
    wal::Wal,
};

/// A snapshot on its way in.
pub(super) struct Installer<M: Map> {
    stage: Stage,
    /// What the store has said.
    pub(super) examined: Option<Result<Received, OpenFault>>,
    pub(super) installed: Option<CommitReport<M>>,
}

enum Stage {
    Idle,
    /// The store looks through the database.
    Examining(Box<Message>, Receipt),
    /// The `.snap` file is being written.
    Saving(Rc<RefCell<Option<std::io::Result<()>>>>),
    /// The log's write is awaited, and commits of the old database.
    Recording,
    /// The store changes databases.
    Replacing,
}

impl<M: Map> Default for Installer<M> {
    fn default() -> Self {
        Installer {
            stage: Stage::Idle,
            examined: None,
            installed: None,
        }
    }
}

impl<M: Map> Installer<M> {
    /// Whether the store has been told to change databases: nothing is committed any more.
    pub(super) fn is_replacing(&self) -> bool {
        matches!(self.stage, Stage::Replacing)
    }
}

fn index_of(snapshot: &Snapshot) -> LogIndex {
    LogIndex(snapshot.get_metadata().index)
}

impl<H: Host, M: Map> Home<H, M> {
    /// A snapshot has come, and its database is in place. One is dealt with at a time; others are dropped.
    pub(super) fn offer_snapshot(
        &mut self,
        progress: &mut Progress<M>,
        message: Message,
        receipt: Receipt,
    ) -> Result<(), Fault> {
        let is_busy = !matches!(progress.installer.stage, Stage::Idle) || self.replica.is_installing();
        if is_busy || self.store.room() == 0 {
            return Ok(());
        }
        let path = self.snapshots.database_path(index_of(message.get_snapshot()));
        send(&mut self.store, StoreRequest::Examine(path))?;
        progress.installer.stage = Stage::Examining(Box::new(message), receipt);
        Ok(())
    }

    /// Carries an installation on as far as it goes.
    pub(super) fn install(&mut self, progress: &mut Progress<M>) -> Result<(), Fault> {
        match std::mem::replace(&mut progress.installer.stage, Stage::Idle) {
            Stage::Idle if self.replica.snapshot_to_save().is_some() && self.snapshotter.rest() => {
                progress.installer.stage = Stage::Saving(self.save_snapshot());
            }
            Stage::Idle => {}
            Stage::Examining(message, receipt) => match progress.installer.examined.take() {
                None => progress.installer.stage = Stage::Examining(message, receipt),
                Some(examined) => self.take_examined(*message, receipt, examined),
            },
            Stage::Saving(outcome) => {
                let ended = outcome.borrow_mut().take();
                match ended {
                    None => progress.installer.stage = Stage::Saving(outcome),
                    Some(result) => {
                        result?;
                        self.replica.snapshot_saved();
                        progress.installer.stage = Stage::Recording;
                    }
                }
            }
            Stage::Recording => self.replace_when_recorded(progress)?,
            Stage::Replacing => match progress.installer.installed.take() {
                None => progress.installer.stage = Stage::Replacing,
                Some(report) => self.replace(progress, report)?,
            },
        }
        Ok(())
    }

    fn take_examined(&mut self, message: Message, receipt: Receipt, examined: Result<Received, OpenFault>) {
        let index = index_of(message.get_snapshot());
        match examined {
            Ok(received) if received.applied_index >= index.0 => {
                tracing::info!(
                    "incoming-snapshot-index" = index.0,
                    size = received.size,
                    "received and examined database snapshot"
                );
                match self.replica.consensus_mut().step(message) {
                    Ok(()) => receipt.taken(),
                    Err(error) => tracing::warn!(%error, "snapshot dropped"),
                }
            }
            Ok(received) => tracing::error!(
                "incoming-snapshot-index" = index.0,
                "database-applied-index" = received.applied_index,
                "the database of a snapshot does not belong to it; dropped"
            ),
            Err(fault) => tracing::error!(
                "incoming-snapshot-index" = index.0,
                error = %fault,
                "the database of a snapshot is damaged; dropped"
            ),
        }
    }

    fn save_snapshot(&self) -> Rc<RefCell<Option<std::io::Result<()>>>> {
        let snapshot = self.replica.snapshot_to_save().expect("looked at before").clone();
        tracing::info!("incoming-snapshot-index" = index_of(&snapshot).0, "applying snapshot");
        let outcome = Rc::new(RefCell::new(None));
        let (files, ended, wake) = (
            self.snapshots.clone(),
            outcome.clone(),
            self.desk.replica_notify().clone(),
        );
        self.host.spawn(async move {
            let result = files.save(&snapshot).await.map(|_| ());
            *ended.borrow_mut() = Some(result);
            wake.notify();
        });
        outcome
    }

    fn replace_when_recorded(&mut self, progress: &mut Progress<M>) -> Result<(), Fault> {
        let is_committing = self.replica.state().tree().is_committing();
        progress.installer.stage = Stage::Recording;
        if let Some(snapshot) = self.replica.snapshot_to_open()
            && !is_committing
            && self.store.room() > 0
        {
            let path = self.snapshots.database_path(index_of(snapshot));
            send(&mut self.store, StoreRequest::Install(path))?;
            progress.installer.stage = Stage::Replacing;
        }
        Ok(())
    }

    /// The store has the new database: everything that was read from the old one is given up.
    fn replace(&mut self, progress: &mut Progress<M>, report: CommitReport<M>) -> Result<(), Fault> {
        let snapshot = self
            .replica
            .snapshot_to_open()
            .expect("an installation goes on")
            .clone();
        let metadata = snapshot.get_metadata();
        let config = StateConfig {
            snapshot: EntryAt {
                index: LogIndex(metadata.index),
                term: Term(metadata.term),
            },
            snapshot_members: boot::snapshot_members(Some(&snapshot))?,
            ..self.replica.state().config().clone()
        };
        let (state, resumed_compaction) = boot::open_state(Backend::new(report), config)?;
        let applied = state.applied().index;
        self.replica.replace_state(state);
        progress.scans.abandon(&mut progress.outputs);
        progress.works.abandon(applied, &mut progress.outputs);
        progress.compactor.abandon(&mut progress.outputs);
        let store = self.replica.state().store();
        if !is_planted(Planted::SnapshotUntold) {
            self.watches
                .restored(store.current_revision(), store.compact_revision());
        }
        let growth = self.replica.consensus().log().grown_to();
        self.snapshotter.restored(LogIndex(metadata.index), growth);
        if let Some(compaction) = resumed_compaction {
            progress.compactor.schedule(Some(compaction), None);
        }
        self.tell_peers();
        progress.set_view_stale();
        tracing::info!(
            "incoming-snapshot-index" = metadata.index,
            "applied-index" = applied.0,
            "applied snapshot"
        );
        // raft has been waiting.
        self.desk.replica_notify().notify();
        Ok(())
    }
}

/// Before the database is opened: a crash may have come when the log had recorded a leader's snapshot, and its database
/// had not got its name yet.
///
/// # Errors
/// Where log, snapshots or databases cannot be read.
pub async fn finish_interrupted<H: Host>(host: &H, wal_directory: &Path, snap_directory: &Path) -> Result<(), Fault> {
    let files = SnapshotFiles::new(host, snap_directory);
    if !files.has_databases().await? || !Wal::exists(host, wal_directory).await? {
        return Ok(());
    }
    let known = Wal::valid_snapshots(host, wal_directory).await?;
    let Some(snapshot) = files.load_newest(&known).await? else {
        return Ok(());
    };
    let received = files.database_path(index_of(&snapshot));
    let database = snap_directory.join("db");
    if !host.disk().exists(&received).await? {
        return Ok(());
    }
    let present = match host.disk().exists(&database).await? {
        true => backend::applied_index(host, &database).await,
        false => Ok(0),
    };
    // One that cannot be read is replaced: what it had, the snapshot has.
    if present.unwrap_or(0) >= index_of(&snapshot).0 {
        return Ok(());
    }
    tracing::info!(
        "snapshot-index" = index_of(&snapshot).0,
        path = %received.display(),
        "recovering the database from a received snapshot"
    );
    host.disk().rename(&received, &database).await?;
    host.disk().sync_directory(snap_directory).await?;
    Ok(())
}
