//! The state of a member: the store, its leases, its members and alarms, over one tree; and how far it has come.

use bytes::Bytes;

use super::{
    alarm::Alarms,
    decode::{self, Command},
    member::restore_membership,
    open::{OpenFault, open_auth, open_lessor, stored_number},
    outcome::{Answer, Applied, ApplyFault, Effect, EntryAt},
    quota,
    respond::HeaderForm,
    tree::Tree,
};
use crate::backend::Bucket;
use crate::base::planted::{Planted, is_planted};
use crate::base::{ClusterId, LeaseId, LogIndex, MemberId, Monotonic, Reject, Term};
use crate::lease::{Lessor, LessorConfig};
use crate::member::{Membership, json};
use crate::mvcc::{Commit, PreviousRecords, Restored, Store};
use crate::wire::proto::etcdserverpb::{AlarmType, ResponseHeader};
use crate::wire::proto::raftpb::ConfState;

const META_INDEX: &[u8] = b"consistent_index";
const META_TERM: &[u8] = b"term";
const META_CONF_STATE: &[u8] = b"confState";
pub(super) const META_SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub(super) const META_FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";

/// What a state is opened with.
#[derive(Clone, Debug)]
pub struct StateConfig {
    /// The cluster, for headers.
    pub cluster_id: ClusterId,
    /// This member, for headers and to notice its own removal.
    pub member_id: MemberId,
    /// Bytes that the database may occupy; `None` for no quota. See [`quota::quota_bytes`].
    pub quota_bytes: Option<u64>,
    /// Bytes that the answer to a transaction or a deletion may have at most ([`crate::limits::Limits::answer_bytes_max`]).
    pub answer_bytes_max: usize,
    /// Learners that the cluster may have.
    pub learners_max: usize,
    /// Leases.
    pub lease: LessorConfig,
    /// The snapshot that the log begins after; index 0 for none.
    pub snapshot: EntryAt,
    /// The members as the snapshot has them, for judging configuration changes between it and the applied index again.
    /// Empty without a snapshot.
    pub snapshot_members: Membership,
}

/// The replicated state machine of one member.
pub struct State<T: Tree> {
    pub(super) tree: T,
    pub(super) store: Store,
    pub(super) lessor: Lessor,
    pub(super) members: Membership,
    /// The members as of the last entry that was replayed, while the log is behind the tree.
    pub(super) replayed: Membership,
    pub(super) alarms: Alarms,
    pub(super) config: StateConfig,
    pub(super) header: HeaderForm,
    pub(super) previous_records: PreviousRecords,
    pub(super) answer_bytes_max: usize,
    pub(super) conf_state: Option<ConfState>,
    pub(super) is_conf_state_dirty: bool,
    applied: EntryAt,
    sealed: EntryAt,
}

impl<T: Tree> State<T> {
    /// Opens the state over a tree. `restored` is the store rebuilt from the `key` bucket (see [`super::restore_store`]); a
    /// compaction to carry on stays the caller's.
    pub fn open(mut tree: T, restored: Restored, config: StateConfig) -> Result<State<T>, OpenFault> {
        open_auth(&mut tree)?;
        let stored = EntryAt {
            index: LogIndex(stored_number(&tree, META_INDEX)?),
            term: Term(stored_number(&tree, META_TERM)?),
        };
        let conf_state = match tree.value(Bucket::Meta, META_CONF_STATE) {
            Some(stored) => {
                let fault = || OpenFault::unreadable(Bucket::Meta, META_CONF_STATE);
                Some(json::parse_conf_state(&stored).ok_or_else(fault)?)
            }
            None => None,
        };
        let members = restore_membership(&tree, conf_state.as_ref())?;
        let mut alarm_keys = Vec::new();
        tree.visit(Bucket::Alarm, &mut |key, _| alarm_keys.push(key.to_vec()));
        let alarms = Alarms::restore(alarm_keys.iter().map(|key| &key[..]))
            .map_err(|key| OpenFault::unreadable(Bucket::Alarm, &key))?;
        let lessor = open_lessor(&tree, config.lease, &restored.attachments)?;
        let applied = match stored.index >= config.snapshot.index {
            true => stored,
            false => config.snapshot,
        };
        let is_ahead = is_planted(Planted::SnapshotIndexAhead) && config.snapshot.index.0 > 0;
        let applied = EntryAt {
            index: LogIndex(applied.index.0 + u64::from(is_ahead)),
            ..applied
        };
        Ok(State {
            tree,
            store: restored.store,
            lessor,
            members,
            replayed: config.snapshot_members.clone(),
            alarms,
            header: HeaderForm::new(config.cluster_id, config.member_id, applied.term),
            answer_bytes_max: config.answer_bytes_max,
            config,
            previous_records: PreviousRecords::Skip,
            conf_state,
            is_conf_state_dirty: false,
            applied,
            sealed: stored,
        })
    }

    /// Applies a committed normal entry. Entries come in order; those that were applied before (after a restart, from
    /// the last snapshot on) may come again and change nothing. `now` is the leader's business alone: it says when
    /// leases end.
    pub fn apply(&mut self, at: EntryAt, data: Bytes, now: Monotonic) -> Result<Applied, ApplyFault> {
        self.begin_entry(at)?;
        if self.is_applied(at) {
            return Ok(Applied::default());
        }
        if data.is_empty() {
            self.advance(at);
            return Ok(Applied {
                effect: Some(Effect::TermBegun),
                ..Applied::default()
            });
        }
        let (request_id, command) = decode::request(&data).map_err(|_| ApplyFault::Malformed(at.index))?;
        let applied = self.apply_command(at, command, now)?;
        self.advance(at);
        Ok(Applied {
            request_id: Some(request_id),
            ..applied
        })
    }

    fn apply_command(&mut self, at: EntryAt, command: Command, now: Monotonic) -> Result<Applied, ApplyFault> {
        Ok(match command {
            Command::Put(request) if is_planted(Planted::ApplyByClock) && self.is_about_to_end(request.lease, now) => {
                Applied::refused(Reject::LeaseNotFound)
            }
            Command::Put(request) => self.apply_put(&request),
            Command::Txn(request) => self.apply_txn(&request),
            Command::DeleteRange(request) => self.apply_delete_range(&request),
            Command::Range(request) => match self.alarms.is_raised(AlarmType::Corrupt) {
                true => Applied::refused(Reject::Corrupt),
                false => Applied::answered(self.read_range(&request)),
            },
            Command::Compaction(request) => self.apply_compaction(&request),
            Command::LeaseGrant(request) => self.apply_lease_grant(&request, now),
            Command::LeaseRevoke(request) => self.apply_lease_revoke(&request),
            Command::LeaseCheckpoint(request) => self.apply_lease_checkpoint(&request, now),
            Command::Alarm(request) => self.apply_alarm(&request),
            Command::ClusterVersionSet(request) => self.apply_cluster_version(at, &request.ver)?,
            Command::ClusterMemberAttrSet(request) => {
                let attributes = request.member_attributes.unwrap_or_default();
                let id = MemberId(request.member_id);
                self.apply_member_attributes(at, id, attributes.name, attributes.client_urls)?
            }
            Command::DowngradeInfoSet(request) => self.apply_downgrade(request.enabled, request.ver),
            Command::V2(request) => self.apply_v2(at, &request)?,
            Command::AuthChange => return Err(ApplyFault::AuthUnsupported(at.index)),
            Command::Nothing => Applied::nothing(),
        })
    }

    /// Whether this member thinks that a lease has less than a second left; not what an entry's effect may depend on.
    fn is_about_to_end(&self, lease_id: i64, now: Monotonic) -> bool {
        let known = self.lessor.time_to_live(LeaseId(lease_id), now);
        known
            .and_then(|known| known.remaining)
            .is_some_and(|remaining| remaining <= 0)
    }

    /// What must be committed together with everything applied so far: for the `meta` bucket, in the batch that is being
    /// closed. Empty if nothing was applied since the last time.
    pub fn seal(&mut self) -> Vec<(&'static [u8], Bytes)> {
        let mut meta = Vec::new();
        if self.sealed != self.applied && self.applied.index.0 > 0 {
            let is_apart = is_planted(Planted::AppliedApart);
            let index = if is_apart {
                self.sealed.index
            } else {
                self.applied.index
            };
            meta.push((META_INDEX, number(index.0)));
            if self.applied.term.0 > 0 {
                meta.push((META_TERM, number(self.applied.term.0)));
            }
            self.sealed = self.applied;
        }
        if let Some(conf_state) = self.conf_state.as_ref().filter(|_| self.is_conf_state_dirty) {
            meta.push((META_CONF_STATE, json::conf_state(conf_state)));
            self.is_conf_state_dirty = false;
        }
        meta
    }

    pub(super) fn begin_entry(&mut self, at: EntryAt) -> Result<(), ApplyFault> {
        if at.index.0 > self.applied.index.0 + 1 {
            return Err(ApplyFault::Gap {
                applied: self.applied.index,
                given: at.index,
            });
        }
        // Answers show the term of their entry at least; that of raft may be ahead.
        if at.term > self.header.term() {
            self.header.set_term(at.term);
        }
        Ok(())
    }

    pub(super) fn is_applied(&self, at: EntryAt) -> bool {
        at.index <= self.applied.index
    }

    pub(super) fn advance(&mut self, at: EntryAt) {
        assert!(at.index.0 == self.applied.index.0 + 1);
        self.applied = at;
    }

    /// Why nothing may be written that takes space, if so.
    #[inline]
    pub(super) fn write_gate(&self) -> Option<Reject> {
        if self.alarms.is_raised(AlarmType::Corrupt) {
            Some(Reject::Corrupt)
        } else if self.alarms.is_raised(AlarmType::Nospace) {
            Some(Reject::NoSpace)
        } else {
            None
        }
    }

    #[inline]
    pub(super) fn fits(&self, cost: u64) -> bool {
        quota::fits(cost, self.tree.allocated_bytes(), self.config.quota_bytes)
    }

    /// What a write came to. One that did not fit is in place on every member, but its client is told that there is no
    /// space, and an alarm is to keep the next ones out.
    #[inline]
    pub(super) fn written(&self, answer: Answer, commit: Option<Commit>, fits: bool) -> Applied {
        Applied {
            request_id: None,
            answer: Some(if fits { answer } else { Err(Reject::NoSpace) }),
            commit,
            effect: (!fits).then_some(Effect::RaiseAlarm(AlarmType::Nospace)),
        }
    }

    /// The response header as it stands now.
    pub fn header_message(&self) -> ResponseHeader {
        self.header.message(self.store.current_revision())
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> EntryAt {
        self.applied
    }

    /// raft's term as this member knows it, for headers.
    pub fn set_raft_term(&mut self, term: Term) {
        self.header.set_term(term);
    }

    /// An encoded response header at a revision; 0 for one that shows none.
    pub fn encoded_header(&self, revision: i64) -> Bytes {
        Bytes::copy_from_slice(self.header.at(revision).as_slice())
    }

    /// Bytes that the answer to the next entry may have: fewer than [`StateConfig::answer_bytes_max`] where others were made in the
    /// same turn. What is beyond is refused with [`Reject::AnswerTooLarge`].
    pub fn set_answer_bytes_max(&mut self, bytes: usize) {
        self.answer_bytes_max = bytes.min(self.config.answer_bytes_max);
    }

    /// Whether events are to carry the records that they replace: whether any watcher asked for them.
    pub fn set_previous_records(&mut self, previous: PreviousRecords) {
        self.previous_records = previous;
    }

    /// raft's configuration at the applied index; `None` in databases of old releases.
    pub fn conf_state(&self) -> Option<&ConfState> {
        self.conf_state.as_ref()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store and the tree, for compactions, hashes and pins.
    pub fn store_and_tree(&mut self) -> (&mut Store, &mut T) {
        (&mut self.store, &mut self.tree)
    }

    /// The tree.
    pub fn tree(&self) -> &T {
        &self.tree
    }

    /// The tree, for its commits. What is written past the state machine is written on this member alone.
    pub fn tree_mut(&mut self) -> &mut T {
        &mut self.tree
    }

    /// The leases.
    pub fn lessor(&self) -> &Lessor {
        &self.lessor
    }

    /// The leases, for what only the primary does.
    pub fn lessor_mut(&mut self) -> &mut Lessor {
        &mut self.lessor
    }

    /// The cluster.
    pub fn members(&self) -> &Membership {
        &self.members
    }

    /// The alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// What it was opened with.
    pub fn config(&self) -> &StateConfig {
        &self.config
    }

    /// Closes the state and gives the tree back.
    pub fn into_tree(self) -> T {
        self.tree
    }
}

impl Applied {
    /// Refused; nothing changed.
    pub(super) fn refused(reject: Reject) -> Applied {
        Applied::answered(Err(reject))
    }

    pub(super) fn answered(answer: super::outcome::Answer) -> Applied {
        Applied {
            answer: Some(answer),
            ..Applied::default()
        }
    }

    /// Nothing changed, and there is nothing to say.
    pub(super) fn nothing() -> Applied {
        Applied::answered(Ok(Bytes::new()))
    }
}

pub(super) fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}
