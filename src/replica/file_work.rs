//! Work on the tree's file: who waits for which of the store's jobs. Requests go to the store behind a commit of what
//! was applied before them, so that they see it.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use prost::Message;

use super::{
    Fault,
    cycle::Replica,
    jobs::{CompactionJob, CompactionOutcome, CompactionPace, HashKvJob},
    outputs::Outputs,
};
use crate::{
    backend::{Backend, JobId, JobResult, SnapshotPart, StoreEvent, StoreRequest},
    base::{LogIndex, Monotonic, Reject, WallTime},
    host::{Map, Sender},
    mvcc::{KeyValueHash, KvHasher, PhysicalCompaction},
    ops::Counters,
    propose::{Reply, Ticket},
    wire::{
        proto::etcdserverpb::{DefragmentResponse, HashKvResponse, HashResponse},
        status::{Code, Status},
    },
};

/// Jobs on their way to the store, and those that it works on.
pub struct FileWorks<M: Map> {
    waiting: VecDeque<StoreRequest<M>>,
    /// With when they were asked for.
    running: HashMap<JobId, (Running, Monotonic), FixedState>,
    next_id: u64,
    counters: Rc<Counters>,
    pace: CompactionPace,
    now: Monotonic,
    compaction_last_seconds: u64,
    wall_seconds: u64,
    /// The applied index of the batch that was sealed last, and of the last that is durable.
    sealed_applied: LogIndex,
    durable_applied: LogIndex,
}

enum Running {
    Hash(Ticket),
    /// With the revision for the header: that of the call's beginning, as etcd has it.
    HashKv(Ticket, i64),
    Defragment(Ticket),
    Compact(Option<(Ticket, Reply)>),
}

impl<M: Map> FileWorks<M> {
    /// No work yet; counted into `counters`.
    pub fn new(counters: Rc<Counters>, pace: CompactionPace) -> Self {
        let running = HashMap::with_hasher(FixedState::default());
        FileWorks {
            waiting: VecDeque::new(),
            running,
            next_id: 0,
            counters,
            pace,
            now: Monotonic(0),
            compaction_last_seconds: 0,
            wall_seconds: 0,
            sealed_applied: LogIndex(0),
            durable_applied: LogIndex(0),
        }
    }

    /// The time of what is asked for and reported from now on.
    pub fn set_now(&mut self, now: Monotonic) {
        self.now = now;
    }

    /// The wall clock's time of what is reported next.
    pub fn set_wall_time(&mut self, now: WallTime) {
        self.wall_seconds = now.unix_millis() / 1000;
    }

    /// Whether the file is being rewritten.
    pub fn is_defragmenting(&self) -> bool {
        let mut running = self.running.values();
        running.any(|(running, _)| matches!(running, Running::Defragment(_)))
    }

    /// Whether a HashKV is under way.
    pub fn is_hashing(&self) -> bool {
        let mut running = self.running.values();
        running.any(|(running, _)| matches!(running, Running::HashKv(..)))
    }

    /// Who reads the tree at a version of its own: this core, and each hash under way.
    pub fn readers(&self) -> u64 {
        let hashes = self
            .running
            .values()
            .filter(|(running, _)| matches!(running, Running::Hash(_) | Running::HashKv(..)));
        1 + hashes.count() as u64
    }

    /// When the last compaction ended, in Unix time; 0 before.
    pub fn compaction_last_seconds(&self) -> u64 {
        self.compaction_last_seconds
    }

    fn start(&mut self, running: Running, request: impl FnOnce(JobId) -> StoreRequest<M>) {
        self.next_id += 1;
        let id = JobId(self.next_id);
        self.running.insert(id, (running, self.now));
        self.waiting.push_back(request(id));
    }

    /// `Maintenance.Hash`.
    pub fn hash(&mut self, ticket: Ticket) {
        self.start(Running::Hash(ticket), StoreRequest::Hash);
    }

    /// `Maintenance.HashKV` of a revision whose hash a compaction has left behind.
    pub fn remembered_hash(
        &mut self,
        ticket: Ticket,
        revision: i64,
        replica: &Replica<Backend<M>>,
        outputs: &mut Outputs,
    ) {
        let hash = replica
            .state()
            .store()
            .hashes
            .at(revision)
            .expect("the caller has looked");
        let revision = replica.state().store().current_revision();
        outputs.answer(ticket, Ok::<_, Status>(hash_kv_response(&hash, revision, replica)));
    }

    /// `Maintenance.HashKV`, whose walk over the index is done. `revision` is the store's when the call came.
    pub fn hash_kv(&mut self, ticket: Ticket, hasher: KvHasher, revision: i64) {
        self.start(Running::HashKv(ticket, revision), |id| {
            StoreRequest::Read(id, Box::new(HashKvJob::new(hasher)))
        });
    }

    /// `Maintenance.Defragment`.
    pub fn defragment(&mut self, ticket: Ticket) {
        self.start(Running::Defragment(ticket), StoreRequest::Defragment);
    }

    /// `Maintenance.Snapshot`: the store tells `sink` all there is to tell.
    pub fn snapshot(&mut self, sink: Sender<SnapshotPart>) {
        self.waiting.push_back(StoreRequest::Snapshot(sink));
    }

    /// The second part of a compaction; without one, `held` only waits for those before it.
    pub fn compact(&mut self, physical: Option<PhysicalCompaction>, held: Option<(Ticket, Reply)>) {
        let pace = self.pace;
        self.start(Running::Compact(held), |id| {
            StoreRequest::Job(id, Box::new(CompactionJob::new(physical, pace)))
        });
    }

    /// Gives everything up: the store has changed databases, and the new one holds `applied`. Streams of snapshots that
    /// were not begun wait for it.
    pub fn abandon(&mut self, applied: LogIndex, outputs: &mut Outputs) {
        self.waiting
            .retain(|request| matches!(request, StoreRequest::Snapshot(_)));
        // In the order in which they were asked for: that of the table would be another each time.
        let mut given_up: Vec<_> = self.running.drain().collect();
        given_up.sort_unstable_by_key(|(id, _)| *id);
        for (_, (running, _)) in given_up {
            match running {
                Running::Hash(ticket) | Running::HashKv(ticket, _) | Running::Defragment(ticket) => {
                    outputs.refuse(ticket, Reject::Timeout);
                }
                Running::Compact(held) => outputs.replies.extend(held),
            }
        }
        (self.sealed_applied, self.durable_applied) = (applied, applied);
    }

    /// Whether requests wait for a commit to go behind.
    pub fn wants_commit(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A batch with everything up to this index has just been sealed.
    pub fn sealed(&mut self, applied: LogIndex) {
        self.sealed_applied = applied;
    }

    /// There was nothing to seal: all that was applied is in the file.
    pub fn nothing_sealed(&mut self) {
        self.durable_applied = self.sealed_applied;
    }

    /// The applied index that the tree's file is known to hold.
    pub fn durable_applied(&self) -> LogIndex {
        self.durable_applied
    }

    /// Sends what waits. A commit of everything that was applied has just been sent.
    pub fn send(&mut self, store: &mut Sender<StoreRequest<M>>) -> Result<(), Fault> {
        while store.room() > 0 {
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            store.try_send(request).map_err(|_| Fault::StoreGone)?;
        }
        Ok(())
    }

    /// Something is done in the store.
    pub fn take_event(
        &mut self,
        event: StoreEvent<M>,
        replica: &mut Replica<Backend<M>>,
        outputs: &mut Outputs,
    ) -> Result<(), Fault> {
        match event {
            StoreEvent::Committed(report) => {
                if report.sequence.is_some() {
                    self.durable_applied = self.sealed_applied;
                }
                replica.state_mut().tree_mut().committed(report);
            }
            StoreEvent::JobDone(id, result) => self.finish_job(id, result, replica, outputs),
            StoreEvent::Hashed(id, report) => {
                let response = HashResponse {
                    header: Some(replica.state().header_message()),
                    hash: report.hash,
                };
                self.finish(id, Ok(response.encode_to_vec()), outputs);
            }
            StoreEvent::Defragmented(id, report) => {
                tracing::info!(
                    "current-db-size-bytes-diff" = report.size_after as i64 - report.size_before as i64,
                    "current-db-size-bytes" = report.size_after,
                    took = ?report.duration,
                    "finished defragmenting"
                );
                self.finish(id, Ok(DefragmentResponse { header: None }.encode_to_vec()), outputs);
            }
            StoreEvent::DefragmentFailed(id, fault) => {
                tracing::error!(error = %fault, "failed to defragment");
                self.finish(id, Err(internal(&fault)), outputs);
            }
            StoreEvent::Examined(_) | StoreEvent::Installed(_) => unreachable!("the installer's"),
            StoreEvent::JobFailed(_, fault) => return Err(Fault::Page(fault)),
            StoreEvent::Failed(fault) => return Err(Fault::Store(fault)),
        }
        Ok(())
    }

    fn finish_job(&mut self, id: JobId, result: JobResult, replica: &mut Replica<Backend<M>>, outputs: &mut Outputs) {
        let Some((running, since)) = self.running.remove(&id) else {
            return;
        };
        let took = self.now.since(since);
        match running {
            Running::HashKv(ticket, revision) => {
                self.counters.hash_rev.observe(took);
                let hash = *result.downcast::<KeyValueHash>().expect("a HashKV job gives a hash");
                outputs.answer(ticket, Ok::<_, Status>(hash_kv_response(&hash, revision, replica)));
            }
            Running::Compact(held) => {
                let outcome = *result
                    .downcast::<CompactionOutcome>()
                    .expect("a compaction gives its outcome");
                if let Some(revision) = outcome.revision {
                    self.compacted(revision, &outcome, took, replica);
                }
                if let Some(hash) = outcome.hash {
                    replica.state_mut().store_and_tree().0.hashes.store(hash);
                }
                outputs.replies.extend(held);
            }
            Running::Hash(_) | Running::Defragment(_) => unreachable!("not jobs"),
        }
    }

    fn compacted(&mut self, revision: i64, outcome: &CompactionOutcome, took: Duration, replica: &Replica<Backend<M>>) {
        self.counters.compaction_total.observe(took);
        self.counters.compaction_keys.add(outcome.deleted);
        self.compaction_last_seconds = self.wall_seconds;
        let tree = replica.state().tree();
        let hash = outcome.hash.as_ref();
        tracing::info!(
            "compact-revision" = revision,
            took = ?took,
            "number-of-deleted-keys" = outcome.deleted,
            hash = hash.map_or(0, |hash| hash.hash),
            "current-db-size-bytes" = tree.size(),
            "current-db-size-in-use-bytes" = tree.size_in_use(),
            "finished scheduled compaction"
        );
    }

    fn finish(&mut self, id: JobId, outcome: Result<Vec<u8>, Status>, outputs: &mut Outputs) {
        let Some((running, since)) = self.running.remove(&id) else {
            return;
        };
        if matches!(running, Running::Hash(_)) {
            self.counters.hash.observe(self.now.since(since));
        }
        if let Running::Hash(ticket) | Running::Defragment(ticket) = running {
            outputs.answer(ticket, outcome.map(Into::into));
        }
    }
}

/// `revision` is the store's when the call came, which the header tells.
fn hash_kv_response<M: Map>(hash: &KeyValueHash, revision: i64, replica: &Replica<Backend<M>>) -> Bytes {
    let mut header = replica.state().header_message();
    header.revision = revision;
    let response = HashKvResponse {
        header: Some(header),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    };
    response.encode_to_vec().into()
}

fn internal(fault: &dyn std::fmt::Display) -> Status {
    Status::new(Code::Unknown, fault.to_string())
}
