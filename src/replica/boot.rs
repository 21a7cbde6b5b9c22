//! From a data directory to a replica that can take its first turn: finds out what is there, checks that it belongs
//! together, and reads it back. The order is etcd's: the newest `.snap` that the log knows, the log behind it, the tree.

use std::path::PathBuf;

use prost::Message;
use raft::eraftpb::HardState;

use super::{
    Fault,
    cycle::{Replica, ReplicaOptions},
    founding::NewCluster,
};
use crate::{
    apply::{self, EntryAt, State, StateConfig},
    backend::{Backend, Bucket},
    base::{
        ClusterId, LogIndex, MemberId, Term,
        planted::{Planted, is_planted},
    },
    host::{Host, Map},
    lease::LessorConfig,
    member::{self, ClusterVersion, Member, Membership},
    mvcc::Compaction,
    propose::RequestIds,
    raft::{Consensus, MemoryLog, Timing},
    snapshot::{SnapName, SnapshotFiles, v2store},
    wal::{LogEncoder, Replay, Wal, WalFault, WalOptions, WalSnapshot},
    wire::proto::walpb,
};

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// `member/wal`, or where the operator wants the log.
    pub wal_directory: PathBuf,
    /// `member/snap`.
    pub snap_directory: PathBuf,
    /// How the log is written.
    pub wal: WalOptions,
    /// Who a new cluster is made of; for a restart it does not matter.
    pub cluster: NewCluster,
    /// Timing of raft.
    pub timing: Timing,
    /// Bounds of requests.
    pub replica: ReplicaOptions,
    /// Leases.
    pub lease: LessorConfig,
    /// Bytes that the database may have; `None` for no bound.
    pub quota_bytes: Option<u64>,
    /// Learners that the cluster may have.
    pub learners_max: usize,
}

/// What a start finds or makes.
pub struct Booted<H: Host, M: Map> {
    /// The replica.
    pub replica: Replica<Backend<M>>,
    /// The log's files.
    pub wal: Wal<H>,
    /// `.snap` files.
    pub snapshots: SnapshotFiles<H>,
    /// Index of the newest `.snap`; 0 if there is none.
    pub snapshot_index: LogIndex,
    /// A compaction that a crash interrupted.
    pub resumed_compaction: Option<Compaction>,
    /// This member.
    pub member_id: MemberId,
    /// Its cluster.
    pub cluster_id: ClusterId,
}

/// The log as it was found or made.
struct Log<H: Host> {
    wal: Wal<H>,
    encoder: LogEncoder,
    replay: Replay,
    member_id: MemberId,
    cluster_id: ClusterId,
    snapshot: Option<raft::eraftpb::Snapshot>,
}

/// Opens the log and the state over `backend`, whose file the store has opened already.
pub async fn boot<H: Host, M: Map>(
    host: &H,
    options: &BootOptions,
    backend: Backend<M>,
) -> Result<Booted<H, M>, Fault> {
    let snapshots = SnapshotFiles::new(host, &options.snap_directory);
    snapshots.remove_orphans().await?;
    let log = if Wal::exists(host, &options.wal_directory).await? {
        reopen(host, options, &snapshots).await?
    } else {
        found(host, options).await?
    };
    let applied = applied_index(&backend)?;
    let metadata = log
        .snapshot
        .as_ref()
        .map(|snapshot| snapshot.get_metadata().clone())
        .unwrap_or_default();
    if applied < metadata.index && applied != 0 {
        return Err(Fault::TreeBehindSnapshot {
            applied: LogIndex(applied),
            snapshot: LogIndex(metadata.index),
        });
    }
    let config = StateConfig {
        cluster_id: log.cluster_id,
        member_id: log.member_id,
        quota_bytes: options.quota_bytes,
        answer_bytes_max: options.replica.limits.answer_bytes_max,
        learners_max: options.learners_max,
        snapshot: EntryAt {
            index: LogIndex(metadata.index),
            term: Term(metadata.term),
        },
        snapshot_members: snapshot_members(log.snapshot.as_ref())?,
        lease: LessorConfig {
            hash_seed: host.random_u64(),
            ..options.lease
        },
    };
    let (state, resumed_compaction) = open_state(backend, config)?;
    let memory = MemoryLog::new(
        LogIndex(metadata.index),
        Term(metadata.term),
        metadata.get_conf_state().clone(),
        log.replay.hard_state,
        log.replay.entries,
    );
    let applied = LogIndex(metadata.index);
    let consensus = Consensus::new(log.member_id, memory, applied, options.timing, host.random_u64());
    let ids = RequestIds::new(log.member_id, host.wall_time());
    let entropy = host.random_u64();
    let replica = Replica::new(
        options.replica,
        consensus,
        log.encoder,
        state,
        log.member_id,
        ids,
        entropy,
    );
    Ok(Booted {
        replica,
        wal: log.wal,
        snapshots,
        snapshot_index: LogIndex(metadata.index),
        resumed_compaction,
        member_id: log.member_id,
        cluster_id: log.cluster_id,
    })
}

/// Opens the state over a tree; with it comes a compaction that was interrupted, to be carried on.
pub fn open_state<M: Map>(
    backend: Backend<M>,
    config: StateConfig,
) -> Result<(State<Backend<M>>, Option<Compaction>), Fault> {
    let tree = backend.pin();
    let at = |fault: apply::OpenFault| Fault::Open {
        offset: fault.entry().and_then(|(bucket, key)| tree.locate(bucket, key)),
        fault,
    };
    let mut restored = apply::restore_store(&backend).map_err(at)?;
    let resumed = restored.resumed.take();
    Ok((State::open(backend, restored, config).map_err(at)?, resumed))
}

/// A log that is there already.
async fn reopen<H: Host>(host: &H, options: &BootOptions, snapshots: &SnapshotFiles<H>) -> Result<Log<H>, Fault> {
    let directory = &options.wal_directory;
    let known = Wal::valid_snapshots(host, directory).await?;
    let snapshot = snapshots.load_newest(&known).await?;
    let from = snapshot.as_ref().map(|snapshot| WalSnapshot {
        index: LogIndex(snapshot.get_metadata().index),
        term: Term(snapshot.get_metadata().term),
        conf_state: Some(snapshot.get_metadata().get_conf_state().clone()),
    });
    let from = from.unwrap_or_default();
    let newest = known.iter().max_by_key(|snapshot| snapshot.index);
    let (wal, mut encoder, mut replay) = match (Wal::open(host, directory, &from, options.wal).await, newest) {
        (Err(lacks @ WalFault::FileNotFound { .. }), Some(newest)) if newest.index > from.index => {
            let path = snapshots.path_of(SnapName {
                term: newest.term,
                index: newest.index,
            });
            return Err(Fault::SnapshotLost { path, lacks });
        }
        (opened, _) => opened?,
    };
    let metadata =
        walpb::Metadata::decode(&replay.metadata[..]).map_err(|_| Fault::LogWithoutMetadata(directory.clone()))?;
    let (member_id, cluster_id) = (MemberId(metadata.node_id()), ClusterId(metadata.cluster_id()));
    // A crash while the log was founded leaves its head, and not or only in part what comes first. Nobody was told
    // anything yet: it is written again.
    if snapshot.is_none() && replay.hard_state.term == 0 && !is_planted(Planted::FoundingCutShort) {
        if options.cluster.founders().0 != Some(member_id) {
            return Err(Fault::NotAFounder);
        }
        write_founding(&wal, &mut encoder, &mut replay, &options.cluster).await?;
    }
    tracing::info!(
        "cluster-id" = format!("{cluster_id:x}"),
        "local-member-id" = format!("{member_id:x}"),
        "commit-index" = replay.hard_state.commit,
        "restarting local member"
    );
    Ok(Log {
        wal,
        encoder,
        replay,
        member_id,
        cluster_id,
        snapshot,
    })
}

/// A new cluster's log: its metadata, and the entries that add its first members, which count as committed (raft's
/// bootstrap as etcd does it).
async fn found<H: Host>(host: &H, options: &BootOptions) -> Result<Log<H>, Fault> {
    let cluster = &options.cluster;
    let (member_id, founders) = cluster.founders();
    let member_id = member_id.ok_or(Fault::NotAFounder)?;
    let ids: Vec<MemberId> = founders.iter().map(|member| member.id).collect();
    let cluster_id = member::ids::cluster_id(&ids);
    let metadata = walpb::Metadata {
        node_id: Some(member_id.0),
        cluster_id: Some(cluster_id.0),
    };
    let (wal, mut encoder) = Wal::create(host, &options.wal_directory, &metadata.encode_to_vec(), options.wal).await?;
    let mut replay = Replay::default();
    write_founding(&wal, &mut encoder, &mut replay, cluster).await?;
    tracing::info!(
        "cluster-id" = format!("{cluster_id:x}"),
        "local-member-id" = format!("{member_id:x}"),
        "starting local member"
    );
    Ok(Log {
        wal,
        encoder,
        replay,
        member_id,
        cluster_id,
        snapshot: None,
    })
}

/// Writes the entries that add the founding members, and that they are committed. All members write the same.
async fn write_founding<H: Host>(
    wal: &Wal<H>,
    encoder: &mut LogEncoder,
    replay: &mut Replay,
    cluster: &NewCluster,
) -> Result<(), Fault> {
    let entries = cluster.entries();
    let hard_state = HardState {
        term: 1,
        commit: entries.len() as u64,
        ..HardState::default()
    };
    encoder.append(&entries, Some(&hard_state));
    let batch = encoder.seal(|len| wal.buffer(len)).expect("entries have gathered");
    wal.write(batch).await?;
    replay.hard_state = hard_state;
    replay.entries = entries;
    Ok(())
}

/// The applied index that the tree holds; 0 if it was never saved.
fn applied_index<M: Map>(backend: &Backend<M>) -> Result<u64, Fault> {
    let stored = backend.get(Bucket::Meta, b"consistent_index").map_err(Fault::Page)?;
    Ok(stored
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes))
}

/// The members as a snapshot has them.
pub(super) fn snapshot_members(snapshot: Option<&raft::eraftpb::Snapshot>) -> Result<Membership, Fault> {
    let Some(snapshot) = snapshot else {
        return Ok(Membership::default());
    };
    let image = v2store::decode(snapshot.get_data()).map_err(Fault::SnapshotData)?;
    let members = image.members.into_iter().map(|member| Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    });
    let version = image.cluster_version.as_deref().and_then(ClusterVersion::parse);
    Ok(Membership::restore(members, image.removed, version, None))
}
