//! `snapshot restore`: from a saved snapshot a data directory on which etcd starts as well as ringd.
//!
//! ```text
//! member/snap/db                        the snapshot's database; its members replaced by the new cluster's, the applied
//!                                       index and term set to the log's
//! member/wal/0000000000000000-….wal     metadata; one configuration change per member; hard state; snapshot record
//! member/snap/0000000000000001-….snap   the members again, as the v2 store's JSON
//! ```
//!
//! The log is created last of all: without it no server takes the directory for a finished one.

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use sha2::{Digest, Sha256};

use super::{
    Restore,
    status::{HASH_BYTES, has_hash},
};
use crate::{
    backend::{Backend, Bucket, Store, StoreEvent, StoreOptions, StoreRequest},
    base::{LogIndex, MemberId, Revision, Term},
    config::verify_bootstrap,
    host::{Disk, File, Host, Map, OpenMode, mailbox},
    member::{Member, ids, json},
    snapshot::{SnapshotFiles, StoreImage, StoreMember, v2store},
    wal::{Wal, WalOptions, WalSnapshot},
    wire::proto::{raftpb, walpb},
};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// The term of everything in a fresh log.
const TERM: u64 = 1;

/// The new member's id.
pub(super) async fn restore<H: Host>(host: &H, command: &Restore) -> Result<MemberId, String> {
    command.verify()?;
    let members = members_of(command);
    let own = members
        .iter()
        .find(|member| member.name == command.name)
        .expect("verified")
        .id;
    let snap_dir = command.data_dir.join("member").join("snap");
    let wal_dir = command
        .wal_dir
        .clone()
        .unwrap_or_else(|| command.data_dir.join("member").join("wal"));
    refuse_used(host, command).await?;
    create_directory(host, &snap_dir).await?;
    let database = snap_dir.join("db");
    copy_database(host, &command.file, &database, command.skip_hash_check).await?;
    let start = Start::of(&members);
    write_database(host, &database, command, &members, start.commit()).await?;
    save_snapshot(host, &snap_dir, &members, &start).await?;
    if let Some(parent) = wal_dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directory(host, parent).await?;
    }
    create_log(host, &wal_dir, own, &members, &start).await?;
    Ok(own)
}

impl Restore {
    /// What a new cluster's flags must be among each other, in etcd's words.
    fn verify(&self) -> Result<(), String> {
        verify_bootstrap(
            &self.name,
            &self.initial_cluster,
            Some(&self.initial_advertise_peer_urls),
        )
    }
}

/// Members in order of id, as a new cluster has them.
fn members_of(command: &Restore) -> Vec<Member> {
    let mut members: Vec<Member> = command
        .initial_cluster
        .iter()
        .map(|(name, urls)| {
            let peer_urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
            Member {
                id: ids::initial_member_id(&peer_urls, &command.initial_cluster_token),
                peer_urls,
                name: name.clone(),
                ..Member::default()
            }
        })
        .collect();
    members.sort_by_key(|member| member.id);
    members
}

async fn refuse_used<H: Host>(host: &H, command: &Restore) -> Result<(), String> {
    let data_dir = &command.data_dir;
    let unreadable = || {
        format!(
            "data-dir {:?} not empty or could not be read",
            data_dir.display().to_string()
        )
    };
    if host.disk().exists(data_dir).await.map_err(|_| unreadable())? {
        let names = host.disk().list(data_dir).await.map_err(|_| unreadable())?;
        if !names.is_empty() {
            return Err(unreadable());
        }
    }
    if let Some(wal_dir) = &command.wal_dir
        && host.disk().exists(wal_dir).await.map_err(|error| error.to_string())?
    {
        return Err(format!("wal-dir {:?} exists", wal_dir.display().to_string()));
    }
    Ok(())
}

async fn create_directory<H: Host>(host: &H, path: &Path) -> Result<(), String> {
    host.disk()
        .create_directory(path)
        .await
        .map_err(|error| format!("create {}: {error}", path.display()))
}

/// Copies the database out of the snapshot, and compares the hash behind it.
async fn copy_database<H: Host>(host: &H, source: &Path, target: &Path, skip_hash_check: bool) -> Result<(), String> {
    let from = |error| format!("{}: {error}", source.display());
    let to = |error| format!("{}: {error}", target.display());
    let source_file = host
        .disk()
        .open(source, OpenMode::Read)
        .await
        .map_err(|error| format!("open {}", from(error)))?;
    let source_bytes = source_file.size().await.map_err(from)?;
    let has_hash = has_hash(source_bytes);
    if !has_hash && !skip_hash_check {
        return Err("snapshot missing hash but --skip-hash-check=false".to_string());
    }
    let database_bytes = if has_hash {
        source_bytes - HASH_BYTES
    } else {
        source_bytes
    };
    let target_file = host.disk().open(target, OpenMode::CreateNew).await.map_err(to)?;
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < database_bytes {
        let wanted = COPY_BYTES.min(usize::try_from(database_bytes - offset).unwrap_or(COPY_BYTES));
        let bytes = source_file.read_at(offset, wanted).await.map_err(from)?;
        if bytes.is_empty() {
            return Err(format!("{}: the file ends at {offset}", source.display()));
        }
        hash.update(&bytes);
        target_file.write_bytes_at(offset, &bytes).await.map_err(to)?;
        offset += bytes.len() as u64;
    }
    target_file.sync_data().await.map_err(to)?;
    if has_hash && !skip_hash_check {
        let expected = source_file
            .read_at(database_bytes, HASH_BYTES as usize)
            .await
            .map_err(from)?;
        let found = hash.finalize();
        if expected[..] != found[..] {
            return Err(format!("expected sha256 {}, got {}", hex(&expected), hex(&found)));
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts the new cluster into the database: one commit.
async fn write_database<H: Host>(
    host: &H,
    path: &Path,
    command: &Restore,
    members: &[Member],
    commit: u64,
) -> Result<(), String> {
    let shown = path.display();
    let fault = |error: &dyn std::fmt::Display| format!("{shown}: {error}");
    let options = StoreOptions {
        populate: false,
        ..StoreOptions::new(path.to_path_buf())
    };
    let (store, opened) = Store::open(host.clone(), options)
        .await
        .map_err(|error| fault(&error))?;
    let mut backend = Backend::new(opened);
    for bucket in [Bucket::Members, Bucket::MembersRemoved] {
        let mut old = Vec::new();
        for pair in backend.range(bucket, b"", None) {
            let (key, _) = pair.map_err(|error| fault(&error))?;
            old.push(key.to_vec());
        }
        for key in old {
            backend.delete(bucket, &key[..]);
        }
    }
    for member in members {
        backend.put(
            Bucket::Members,
            json::member_key(member.id).as_str(),
            json::member(member),
        );
    }
    if command.mark_compacted {
        let newest = newest_revision(&backend).map_err(|error| fault(&error))?;
        let raised = Revision::new(newest.main + command.bump_revision as i64, 0).encode();
        backend.put(Bucket::Key, &raised[..], Bytes::new());
        backend.put(
            Bucket::Meta,
            &b"scheduledCompactRev"[..],
            Bytes::copy_from_slice(&raised),
        );
    }
    let number = |value: u64| Bytes::copy_from_slice(&value.to_be_bytes());
    let meta: [(&'static [u8], Bytes); 2] = [(b"consistent_index", number(commit)), (b"term", number(TERM))];
    let sealed = backend.seal(meta).expect("the applied index is a change");
    let (mut requests, store_requests) = mailbox(1);
    let (store_events, mut events) = mailbox(1);
    host.spawn(store.run(store_requests, store_events));
    if requests.try_send(StoreRequest::Commit(sealed)).is_err() {
        return Err(fault(&"the store has ended"));
    }
    match events.receive().await {
        Some(StoreEvent::Committed(_)) => Ok(()),
        Some(StoreEvent::Failed(error)) => Err(fault(&error)),
        _ => Err(fault(&"the store has ended")),
    }
}

fn newest_revision<M: Map>(backend: &Backend<M>) -> Result<Revision, crate::backend::Fault> {
    let root = backend.pin();
    let newest = root.cursor(Bucket::Key).seek_last()?;
    Ok(newest
        .and_then(|(key, _)| Revision::decode(key))
        .map_or(Revision::default(), |(revision, _)| revision))
}

/// What a fresh log begins with.
struct Start {
    entries: Vec<Entry>,
    hard_state: HardState,
    conf_state: ConfState,
}

impl Start {
    /// One configuration change for each member, all committed, the first member voted for.
    fn of(members: &[Member]) -> Start {
        let entry = |(place, member): (usize, &Member)| {
            let change = raftpb::ConfChange {
                id: Some(0),
                r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode.into()),
                node_id: Some(member.id.0),
                context: Some(json::member(member)),
            };
            let mut entry = Entry::default();
            entry.set_entry_type(EntryType::EntryConfChange);
            entry.term = TERM;
            entry.index = place as u64 + 1;
            entry.data = change.encode_to_vec().into();
            entry
        };
        let entries: Vec<Entry> = members.iter().enumerate().map(entry).collect();
        let hard_state = HardState {
            term: TERM,
            vote: members.first().map_or(0, |member| member.id.0),
            commit: entries.len() as u64,
            ..HardState::default()
        };
        let conf_state = ConfState {
            voters: members.iter().map(|member| member.id.0).collect(),
            ..ConfState::default()
        };
        Start {
            entries,
            hard_state,
            conf_state,
        }
    }

    fn commit(&self) -> u64 {
        self.hard_state.commit
    }
}

async fn save_snapshot<H: Host>(host: &H, snap_dir: &Path, members: &[Member], start: &Start) -> Result<(), String> {
    let member = |member: &Member| StoreMember {
        id: member.id,
        peer_urls: member.peer_urls.clone(),
        is_learner: false,
        // A name is published when a member starts; its context in the log has it until then.
        name: String::new(),
        client_urls: Vec::new(),
    };
    let image = StoreImage {
        members: members.iter().map(member).collect(),
        ..StoreImage::default()
    };
    let mut snapshot = Snapshot {
        data: v2store::encode(&image).into(),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = start.commit();
    metadata.term = TERM;
    metadata.set_conf_state(start.conf_state.clone());
    let saved = SnapshotFiles::new(host, snap_dir).save(&snapshot).await;
    saved
        .map(|_report| ())
        .map_err(|error| format!("save a snapshot in {}: {error}", snap_dir.display()))
}

async fn create_log<H: Host>(
    host: &H,
    wal_dir: &Path,
    own: MemberId,
    members: &[Member],
    start: &Start,
) -> Result<(), String> {
    let text = |fault: crate::wal::WalFault| fault.to_string();
    let all: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    let metadata = walpb::Metadata {
        node_id: Some(own.0),
        cluster_id: Some(ids::cluster_id(&all).0),
    };
    let created = Wal::create(host, wal_dir, &metadata.encode_to_vec(), WalOptions::default()).await;
    let (wal, mut encoder) = created.map_err(text)?;
    encoder.append(&start.entries, Some(&start.hard_state));
    encoder.append_snapshot(&WalSnapshot {
        index: LogIndex(start.commit()),
        term: Term(TERM),
        conf_state: Some(start.conf_state.clone()),
    });
    if let Some(batch) = encoder.seal(|len| wal.buffer(len)) {
        wal.write(batch).await.map_err(text)?;
    }
    wal.close().await;
    Ok(())
}
