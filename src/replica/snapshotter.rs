//! Snapshots of the log: when enough entries were applied, a `.snap` file says so, and the entries before it may go.
//!
//! ```text
//!  due ─▶ tree commits what was applied ─▶ `.snap` written and synced ─▶ recorded in the log ─▶ durable ─▶ entries go
//! ```
//!
//! The order matters: entries are given up only when neither raft's restart (the `.snap`) nor the tree (its durable
//! applied index) needs them.

use std::{cell::RefCell, rc::Rc, time::Duration};

use raft::eraftpb::{Snapshot, SnapshotMetadata};

use super::{Fault, cycle::Replica};
use crate::{
    backend::Backend,
    base::{LogIndex, Monotonic, Term},
    host::{Host, Map},
    rpc::desk::Desk,
    snapshot::{SnapshotFiles, StoreImage, StoreMember, v2store},
    wal::{Wal, WalSnapshot},
};

/// How often old files are looked for (etcd: 30 s).
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// When snapshots are made and what is kept.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotOptions {
    /// Entries between snapshots (`--snapshot-count`).
    pub entries: u64,
    /// Bytes of entries between snapshots.
    pub bytes: u64,
    /// Entries kept in memory behind a snapshot, for followers that are slow (`--snapshot-catchup-entries`).
    pub catchup_entries: u64,
    /// Bytes of them at most.
    pub catchup_bytes: u64,
    /// Bytes of entries beyond which they are not kept for a member that is sent a snapshot.
    pub wanted_bytes: u64,
    /// `.snap` files kept (`--max-snapshots`); 0 for all.
    pub snapshots_max: usize,
    /// Log segments kept (`--max-wals`); 0 for all.
    pub wals_max: usize,
}

/// Snapshots on their way.
pub struct Snapshotter<H: Host> {
    options: SnapshotOptions,
    files: Rc<SnapshotFiles<H>>,
    wal: Rc<Wal<H>>,
    last_index: LogIndex,
    /// How far the log had grown then ([`MemoryLog::grown_to`]).
    ///
    /// [`MemoryLog::grown_to`]: crate::raft::MemoryLog::grown_to
    last_growth: u64,
    stage: Stage,
    next_purge: Monotonic,
    is_purging: Rc<RefCell<Option<Result<(), Fault>>>>,
}

enum Stage {
    Idle,
    /// Waits for a commit of the tree that covers the index.
    Committing(Box<Snapshot>),
    /// Its file is being written.
    Saving {
        snapshot: Box<WalSnapshot>,
        outcome: Rc<RefCell<Option<Result<(), Fault>>>>,
    },
    /// The log has gathered its record, which the next write makes durable.
    Recording(Box<WalSnapshot>),
}

impl<H: Host> Snapshotter<H> {
    /// Goes on behind the snapshot at `last_index`.
    pub fn new(
        options: SnapshotOptions,
        files: Rc<SnapshotFiles<H>>,
        wal: Rc<Wal<H>>,
        last_index: LogIndex,
        now: Monotonic,
    ) -> Snapshotter<H> {
        Snapshotter {
            options,
            files,
            wal,
            last_index,
            last_growth: 0,
            stage: Stage::Idle,
            // As with etcd: a server that is started often must purge, too.
            next_purge: now,
            is_purging: Rc::new(RefCell::new(Some(Ok(())))),
        }
    }

    /// Whether the tree is to be committed soon: a snapshot waits for it.
    pub fn wants_commit(&self) -> bool {
        matches!(self.stage, Stage::Committing(_))
    }

    /// A leader's snapshot at this index was installed, when the log had grown so far.
    pub fn restored(&mut self, index: LogIndex, growth: u64) {
        self.last_index = index;
        self.last_growth = growth;
        self.wal.release_to(index);
    }

    /// Makes way for a leader's snapshot: what has not been begun is given up. `false` while something still goes on.
    pub fn rest(&mut self) -> bool {
        if let Stage::Committing(_) = self.stage {
            self.stage = Stage::Idle;
        }
        matches!(self.stage, Stage::Idle)
    }

    /// Does what can be done now. `durable_applied` is the applied index that the tree's file holds. While the log is
    /// wanted (a follower that installs a snapshot will ask for what comes behind it), none of it is dropped.
    pub fn step<M: Map>(
        &mut self,
        host: &H,
        desk: &Rc<Desk>,
        replica: &mut Replica<Backend<M>>,
        durable_applied: LogIndex,
        is_log_wanted: bool,
    ) -> Result<(), Fault> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => self.begin_if_due(replica),
            Stage::Committing(snapshot) if durable_applied.0 < snapshot.get_metadata().index => {
                self.stage = Stage::Committing(snapshot);
            }
            Stage::Committing(snapshot) => self.save(host, desk, snapshot),
            Stage::Saving { snapshot, outcome } => {
                let ended = outcome.borrow_mut().take();
                match ended {
                    None => self.stage = Stage::Saving { snapshot, outcome },
                    Some(result) => {
                        result?;
                        tracing::info!("snapshot-index" = snapshot.index.0, "saved snapshot to disk");
                        replica.log_snapshot(&snapshot);
                        self.stage = Stage::Recording(snapshot);
                    }
                }
            }
            Stage::Recording(snapshot) if replica.log_has_unsynced() => self.stage = Stage::Recording(snapshot),
            Stage::Recording(snapshot) => self.release(replica, *snapshot, is_log_wanted),
        }
        self.purge_if_due(host, desk)
    }

    fn begin_if_due<M: Map>(&mut self, replica: &Replica<Backend<M>>) {
        let applied = replica.state().applied();
        let growth = replica.consensus().log().grown_to();
        let is_long = applied.index.0 > self.last_index.0 + self.options.entries;
        let is_large = applied.index > self.last_index && growth > self.last_growth + self.options.bytes;
        let is_due = is_long || is_large;
        if !is_due || replica.is_installing() || !replica.has_caught_up() {
            return;
        }
        tracing::info!(
            "local-member-applied-index" = applied.index.0,
            "local-member-snapshot-index" = self.last_index.0,
            "local-member-snapshot-count" = self.options.entries,
            "triggering snapshot"
        );
        let snapshot = snapshot_of(replica);
        self.last_index = applied.index;
        self.last_growth = growth;
        self.stage = Stage::Committing(Box::new(snapshot));
    }

    fn save(&mut self, host: &H, service: &Rc<Desk>, snapshot: Box<Snapshot>) {
        let metadata = snapshot.get_metadata();
        let record = WalSnapshot {
            index: LogIndex(metadata.index),
            term: Term(metadata.term),
            conf_state: Some(metadata.get_conf_state().clone()),
        };
        let outcome = Rc::new(RefCell::new(None));
        let (files, ended, service) = (self.files.clone(), outcome.clone(), service.clone());
        let clock = host.clone();
        host.spawn(async move {
            let began = clock.now();
            let result = files.save(&snapshot).await;
            service.counters().snap_save.observe(clock.now().since(began));
            if let Ok(report) = &result {
                service.counters().snap_marshal.observe(report.encode);
                service.counters().snap_fsync.observe(report.sync);
            }
            *ended.borrow_mut() = Some(result.map(|_| ()).map_err(Fault::from));
            service.replica_notify().notify();
        });
        self.stage = Stage::Saving {
            snapshot: Box::new(record),
            outcome,
        };
    }

    fn release<M: Map>(&mut self, replica: &mut Replica<Backend<M>>, snapshot: WalSnapshot, is_log_wanted: bool) {
        let index = snapshot.index;
        self.wal.release_to(index);
        replica.consensus_mut().snapshot_taken(SnapshotMetadata {
            conf_state: snapshot.conf_state.into(),
            index: index.0,
            term: snapshot.term.0,
            ..SnapshotMetadata::default()
        });
        let log = replica.consensus().log();
        if is_log_wanted && log.bytes() <= self.options.wanted_bytes {
            tracing::info!("skip compaction since there is an inflight snapshot");
            return;
        }
        let compact_to = log.catch_up_from(index, self.options.catchup_entries, self.options.catchup_bytes);
        if compact_to.0 > 0 {
            replica.consensus_mut().discard_to(compact_to);
            tracing::info!("compact-index" = compact_to.0, "compacted Raft logs");
        }
    }

    fn purge_if_due(&mut self, host: &H, service: &Rc<Desk>) -> Result<(), Fault> {
        let now = host.now();
        if now < self.next_purge {
            return Ok(());
        }
        let Some(last) = self.is_purging.borrow_mut().take() else {
            return Ok(());
        };
        last?;
        self.next_purge = now + PURGE_INTERVAL;
        let (files, wal, ended, options) = (
            self.files.clone(),
            self.wal.clone(),
            self.is_purging.clone(),
            self.options,
        );
        let (service, last_index) = (service.clone(), self.last_index);
        host.spawn(async move {
            let result = async {
                wal.purge(options.wals_max).await?;
                files.release_databases(last_index).await?;
                files.purge(options.snapshots_max).await?;
                Ok::<(), Fault>(())
            };
            *ended.borrow_mut() = Some(result.await);
            service.replica_notify().notify();
        });
        Ok(())
    }
}

/// The snapshot of what is applied now.
pub fn snapshot_of<M: Map>(replica: &Replica<Backend<M>>) -> Snapshot {
    assert!(replica.has_caught_up(), "raft needs entries before the snapshot's");
    let applied = replica.state().applied();
    let metadata = SnapshotMetadata {
        conf_state: Some(replica.consensus().conf_state()).into(),
        index: applied.index.0,
        term: applied.term.0,
        ..SnapshotMetadata::default()
    };
    Snapshot {
        data: v2store::encode(&store_image(replica)).into(),
        metadata: Some(metadata).into(),
        ..Snapshot::default()
    }
}

/// The cluster as the v2 store in a `.snap` tells it.
fn store_image<M: Map>(replica: &Replica<Backend<M>>) -> StoreImage {
    let membership = replica.state().members();
    let members = membership.members().map(|member| StoreMember {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: member.client_urls.clone(),
    });
    StoreImage {
        members: members.collect(),
        has_user_data: false,
        removed: membership.removed().collect(),
        cluster_version: membership.version().map(ToString::to_string),
    }
}
