//! Consensus: raft-rs, with the log in memory as its storage. Knows nothing of disks, sockets or what the entries mean;
//! the caller makes durable and sends what a [`Cycle`] says, and tells when it is done.

mod log;
mod logger;

pub use log::MemoryLog;
use raft::{
    Config, RawNode, ReadOnlyOption, ReadState, SnapshotStatus, StateRole,
    eraftpb::{
        ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot,
        SnapshotMetadata,
    },
};

use crate::{
    base::{
        LogIndex, MemberId, Term,
        planted::{Planted, is_planted},
    },
    limits::Limits,
    wire::proto::raftpb,
};

/// Bytes of entries in one message to a follower (etcd: 1 MiB).
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages on the way to one follower (etcd: 512).
const INFLIGHT_MESSAGES_MAX: usize = 512;
/// Bytes of committed entries that one cycle hands over, so that a long replay comes in slices.
const COMMITTED_BYTES_PER_CYCLE_MAX: u64 = 4 << 20;
/// Bytes of entries that a leader takes ahead of what is committed: its own clients' and what followers pass on. Beyond,
/// proposals are lost.
const UNCOMMITTED_BYTES_MAX: u64 = 2 * Limits::DEFAULT.proposals_pending_bytes_max as u64;

/// How the members time each other.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Ticks without a leader before a member campaigns. Drawn from `election_ticks..2 * election_ticks`.
    pub election_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// Whether a member asks first whether it could win (raft thesis section 9.6).
    pub pre_vote: bool,
}

/// What raft wants done. The order that is allowed stands in `replica/cycle.rs`.
#[derive(Debug)]
pub struct Cycle {
    /// Number to tell to [`Consensus::persisted`] when `entries` and `hard_state` are durable.
    pub number: u64,
    /// To append to the log.
    pub entries: Vec<Entry>,
    /// To write to the log, behind the entries.
    pub hard_state: Option<HardState>,
    /// Whether anything may depend on this being durable. A hard state in which only the commit moved may wait for the
    /// next write.
    pub must_sync: bool,
    /// A leader's snapshot, which takes the place of the log and of the state before anything else happens. It comes
    /// without `entries` and `committed`.
    pub snapshot: Option<Snapshot>,
    /// To send at once.
    pub messages: Vec<Message>,
    /// To send only when `entries` and `hard_state` are durable.
    pub messages_after_sync: Vec<Message>,
    /// Committed: to be applied in this order.
    pub committed: Vec<Entry>,
    /// Reads whose leadership is confirmed, by the context they were asked with.
    pub reads: Vec<ReadState>,
    /// Whether the leader or this member's role changed.
    pub role_changed: bool,
}

/// One member's consensus.
pub struct Consensus {
    node: RawNode<MemoryLog>,
    /// Election time-outs are drawn from it, term by term.
    entropy: u64,
    /// The term that the present election time-out is for, and the time-out.
    election_timeout: (Term, usize),
}

impl Consensus {
    /// Consensus over a replayed log. `applied` is the index of the snapshot that the log follows: entries behind it are
    /// handed over again, and the state machine knows which it has seen. `entropy` is the host's: raft-rs draws election
    /// time-outs from a thread-local generator, which would not replay.
    pub fn new(member_id: MemberId, log: MemoryLog, applied: LogIndex, timing: Timing, entropy: u64) -> Consensus {
        let config = Config {
            id: member_id.0,
            election_tick: timing.election_ticks as usize,
            heartbeat_tick: timing.heartbeat_ticks as usize,
            applied: applied.0,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: timing.pre_vote,
            read_only_option: match is_planted(Planted::ReadUnconfirmed) {
                true => ReadOnlyOption::LeaseBased,
                false => ReadOnlyOption::Safe,
            },
            max_committed_size_per_ready: COMMITTED_BYTES_PER_CYCLE_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let node = RawNode::new(&config, log, &logger::to_tracing()).expect("the configuration is valid");
        let mut consensus = Consensus {
            node,
            entropy,
            election_timeout: (Term(u64::MAX), 0),
        };
        consensus.settle_election_timeout();
        consensus
    }

    /// Whether proposals are taken now: this member leads and leadership is not on its way elsewhere, or it knows who
    /// leads.
    pub fn takes_proposals(&self) -> bool {
        match self.node.raft.state {
            StateRole::Leader => self.node.raft.lead_transferee.is_none(),
            _ => self.leader().is_some(),
        }
    }

    /// Appends one entry for each of `data` in one step, or sends them to the leader, which may be lost. `false` if
    /// proposals are not taken now: what was proposed is gone.
    pub fn propose(&mut self, data: impl Iterator<Item = bytes::Bytes>) -> bool {
        let entries = data
            .map(|data| Entry {
                data,
                ..Entry::default()
            })
            .collect::<Vec<_>>();
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.node.raft.id,
            entries: entries.into(),
            ..Message::default()
        };
        self.takes_proposals() && self.node.raft.step(message).is_ok()
    }

    /// Proposes a change of the members, as etcd marshals it.
    pub fn propose_conf_change(&mut self, data: bytes::Bytes) -> bool {
        let entry = Entry {
            entry_type: EntryType::EntryConfChange,
            data,
            ..Entry::default()
        };
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.node.raft.id,
            entries: vec![entry].into(),
            ..Message::default()
        };
        self.is_leader() && self.node.raft.step(message).is_ok()
    }

    /// A committed change of the members takes effect, and the members after it come back. Node 0 stands for a change
    /// that was refused; an update of addresses changes nothing here either.
    pub fn apply_conf_change(&mut self, change: &raftpb::ConfChange) -> raftpb::ConfState {
        let (change_type, node_id) = match change.r#type() {
            raftpb::ConfChangeType::ConfChangeAddNode => (ConfChangeType::AddNode, change.node_id()),
            raftpb::ConfChangeType::ConfChangeAddLearnerNode => (ConfChangeType::AddLearnerNode, change.node_id()),
            raftpb::ConfChangeType::ConfChangeRemoveNode => (ConfChangeType::RemoveNode, change.node_id()),
            raftpb::ConfChangeType::ConfChangeUpdateNode => (ConfChangeType::AddNode, raft::INVALID_ID),
        };
        let change = ConfChange {
            change_type,
            node_id,
            ..ConfChange::default()
        };
        let conf_state = self
            .node
            .apply_conf_change(&change)
            .expect("one member changes at a time");
        conf_state_to_etcd(&conf_state)
    }

    /// The members as raft has them now.
    pub fn conf_state(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    /// Whether this leader waits for another member to take leadership over.
    pub fn is_handing_over(&self) -> bool {
        self.is_leader() && self.node.raft.lead_transferee.is_some()
    }

    /// One heartbeat interval has passed. While a leader's snapshot is taken over, raft's clock stands still: a campaign
    /// would look at entries that went with the snapshot.
    pub fn tick(&mut self) {
        if !self.is_restoring() {
            self.node.tick();
            self.settle_election_timeout();
        }
    }

    /// Whether the log begins behind a leader's snapshot that is not applied yet.
    fn is_restoring(&self) -> bool {
        self.log().first().0 > self.applied_to().0 + 1
    }

    /// A message from another member.
    ///
    /// # Errors
    /// If it comes from nobody we know of, or is of a kind that does not travel.
    pub fn step(&mut self, message: Message) -> raft::Result<()> {
        // A leader that hands over finds another member, or keeps what it has.
        if message.msg_type == MessageType::MsgTimeoutNow && self.is_restoring() {
            return Ok(());
        }
        let outcome = self.node.step(message);
        self.settle_election_timeout();
        outcome
    }

    /// Starts an election at once instead of waiting for a time-out: right for a lone member.
    pub fn campaign(&mut self) -> raft::Result<()> {
        let outcome = self.node.campaign();
        self.settle_election_timeout();
        outcome
    }

    /// A message to this member was lost on the way.
    pub fn report_unreachable(&mut self, member: MemberId) {
        self.node.report_unreachable(member.0);
    }

    /// What became of a snapshot that was sent to this member.
    pub fn report_snapshot(&mut self, member: MemberId, is_received: bool) {
        let status = match is_received {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.node.report_snapshot(member.0, status);
    }

    /// Hands leadership over to a voter; given up after an election time-out.
    pub fn transfer_leader(&mut self, member: MemberId) {
        self.node.transfer_leader(member.0);
    }

    /// The voter to hand leadership over to: of those that answered lately, the one that has most of the log, by id
    /// where that says nothing.
    pub fn successor(&self) -> Option<MemberId> {
        let raft = &self.node.raft;
        let voters = raft.prs().conf().to_conf_state().voters;
        let candidates = raft.prs().iter().filter(|(id, progress)| {
            **id != raft.id && progress.recent_active && voters.contains(id) && progress.matched > 0
        });
        let best = candidates.max_by_key(|(id, progress)| (progress.matched, std::cmp::Reverse(**id)));
        best.map(|(id, _)| MemberId(*id))
    }

    /// Asks whether this member may answer reads. The context comes back in [`Cycle::reads`], or is lost without a word
    /// when there is no leader or the leader has not committed in its term: ask again with a new one.
    pub fn read_index(&mut self, context: u64) {
        self.node.read_index(context.to_be_bytes().to_vec());
    }

    /// A snapshot of this index, term and membership is durable: a follower that needs more of the log than there is
    /// is sent one.
    pub fn snapshot_taken(&mut self, metadata: SnapshotMetadata) {
        self.node.mut_store().set_snapshot(metadata);
    }

    /// What is to be done now; `None` when there is nothing. The log in memory has the entries and the hard state
    /// already; the one in the file must get them, and [`Consensus::persisted`] the number, in order.
    pub fn cycle(&mut self) -> Option<Cycle> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let log = self.node.mut_store();
        let snapshot = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty()).cloned();
        if let Some(snapshot) = &snapshot {
            log.restore(snapshot.get_metadata());
        }
        log.append(ready.entries());
        let hard_state = ready.hs().cloned();
        if let Some(hard_state) = &hard_state {
            log.set_hard_state(hard_state.clone());
        }
        let mut messages = ready.take_messages();
        let mut messages_after_sync = ready.take_persisted_messages();
        if !messages_after_sync.is_empty() {
            // What is only passed on to the leader promises nothing, and waits for no disk.
            messages.extend(messages_after_sync.extract_if(.., |message| is_passed_on(message) || is_rushed(message)));
        }
        let cycle = Cycle {
            number: ready.number(),
            must_sync: ready.must_sync(),
            snapshot,
            messages,
            messages_after_sync,
            committed: ready.take_committed_entries(),
            reads: ready.take_read_states(),
            role_changed: ready.ss().is_some(),
            entries: ready.take_entries(),
            hard_state,
        };
        self.node.advance_append_async(ready);
        Some(cycle)
    }

    /// Everything up to the cycle of this number is durable.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
    }

    /// Entries up to `index` are applied.
    pub fn applied(&mut self, index: LogIndex) {
        self.node.advance_apply_to(index.0);
    }

    /// A snapshot covers the entries up to `index`: they are not needed to restart.
    pub fn discard_to(&mut self, index: LogIndex) {
        self.node.mut_store().discard_to(index);
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<MemberId> {
        (self.node.raft.leader_id != raft::INVALID_ID).then_some(MemberId(self.node.raft.leader_id))
    }

    /// The present term.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// Index of the newest committed entry.
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// Index of the newest entry that has been handed over to be applied, and was. After a restart it begins with the
    /// snapshot's, however far the state has come: entries are handed over again as raft hears that they are committed.
    pub fn applied_to(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.applied)
    }

    /// The log in memory.
    pub fn log(&self) -> &MemoryLog {
        self.node.store()
    }

    /// Whether this leader has committed an entry of its own term, and so knows what is committed (raft thesis section
    /// 6.4).
    pub fn has_committed_in_term(&self) -> bool {
        self.is_leader() && self.node.raft.commit_to_current_term()
    }

    /// Whether this member is the only voter.
    pub fn is_alone(&self) -> bool {
        self.node.raft.prs().is_singleton()
    }

    /// Sets the election time-out that belongs to the present term. raft-rs may have drawn another, whenever its role
    /// or term changed; nothing can have depended on that yet.
    fn settle_election_timeout(&mut self) {
        let term = self.term();
        if self.election_timeout.0 != term {
            let base = self.node.raft.election_timeout() as u64;
            let ticks = base + mix(self.entropy ^ term.0) % base;
            self.election_timeout = (term, ticks as usize);
        }
        self.node.raft.set_randomized_election_timeout(self.election_timeout.1);
    }
}

/// Spreads a number over all bits (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Whether a follower's message only passes a client's wish on.
fn is_passed_on(message: &Message) -> bool {
    matches!(message.msg_type, MessageType::MsgPropose | MessageType::MsgReadIndex)
}

/// Whether a planted bug lets a promise leave before the disk has it.
fn is_rushed(message: &Message) -> bool {
    match message.msg_type {
        MessageType::MsgAppendResponse => is_planted(Planted::AppendAnsweredEarly),
        MessageType::MsgRequestVoteResponse => is_planted(Planted::VoteAnsweredEarly),
        _ => false,
    }
}

fn conf_state_to_etcd(conf_state: &ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: conf_state.voters.clone(),
        learners: conf_state.learners.clone(),
        voters_outgoing: conf_state.voters_outgoing.clone(),
        learners_next: conf_state.learners_next.clone(),
        auto_leave: Some(conf_state.auto_leave),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
    };

    fn lone_member() -> Consensus {
        let conf_state = ConfState {
            voters: vec![1],
            ..ConfState::default()
        };
        let log = MemoryLog::new(LogIndex(0), Term(0), conf_state, HardState::default(), Vec::new());
        Consensus::new(MemberId(1), log, LogIndex(0), TIMING, 7)
    }

    /// Runs cycles, all durable at once, and gives the committed entries' data.
    fn settle(consensus: &mut Consensus) -> Vec<bytes::Bytes> {
        let mut committed = Vec::new();
        while let Some(cycle) = consensus.cycle() {
            if let Some(last) = cycle.committed.last() {
                consensus.applied(LogIndex(last.index));
            }
            committed.extend(cycle.committed.into_iter().map(|entry| entry.data));
            consensus.persisted(cycle.number);
        }
        committed
    }

    #[test]
    fn a_lone_member_elects_itself_and_commits_what_is_durable() {
        let mut consensus = lone_member();
        assert!(!consensus.propose(["too early".into()].into_iter()));
        consensus.campaign().unwrap();
        assert_eq!(settle(&mut consensus), [bytes::Bytes::new()]);
        assert!(consensus.is_leader() && consensus.has_committed_in_term() && consensus.is_alone());

        assert!(consensus.propose(["a".into(), "b".into()].into_iter()));
        let cycle = consensus.cycle().expect("entries to write");
        assert!(cycle.must_sync && cycle.committed.is_empty());
        assert_eq!(cycle.entries.len(), 2);
        assert!(consensus.cycle().is_none(), "nothing is committed before it is durable");
        consensus.persisted(cycle.number);
        assert_eq!(settle(&mut consensus), ["a", "b"]);
    }

    #[test]
    fn a_member_that_takes_a_snapshot_over_does_not_campaign() {
        let conf_state = ConfState {
            voters: vec![1, 2, 3],
            ..ConfState::default()
        };
        let log = MemoryLog::new(
            LogIndex(0),
            Term(0),
            conf_state.clone(),
            HardState::default(),
            Vec::new(),
        );
        let mut consensus = Consensus::new(MemberId(1), log, LogIndex(0), TIMING, 7);
        let of_leader = |msg_type| Message {
            msg_type,
            from: 2,
            to: 1,
            term: 3,
            ..Message::default()
        };
        let mut message = of_leader(MessageType::MsgSnapshot);
        message.set_snapshot(Snapshot {
            metadata: Some(SnapshotMetadata {
                conf_state: Some(conf_state).into(),
                index: 10,
                term: 3,
                ..SnapshotMetadata::default()
            })
            .into(),
            ..Snapshot::default()
        });
        consensus.step(message).unwrap();
        let cycle = consensus.cycle().expect("a snapshot to take over");
        assert!(cycle.snapshot.is_some());
        consensus.persisted(cycle.number);
        consensus.step(of_leader(MessageType::MsgTimeoutNow)).unwrap();
        (0..3 * TIMING.election_ticks).for_each(|_| consensus.tick());
        assert!(consensus.cycle().is_none_or(|cycle| cycle.messages.is_empty()));
        consensus.applied(LogIndex(10));
        (0..3 * TIMING.election_ticks).for_each(|_| consensus.tick());
        let cycle = consensus.cycle().expect("a campaign");
        assert!(
            cycle
                .messages_after_sync
                .iter()
                .chain(&cycle.messages)
                .any(|message| message.msg_type == MessageType::MsgRequestPreVote)
        );
    }

    #[test]
    fn proposals_gather_while_a_write_is_in_flight() {
        let mut consensus = lone_member();
        consensus.campaign().unwrap();
        settle(&mut consensus);
        consensus.propose(["a".into()].into_iter());
        let first = consensus.cycle().unwrap();
        consensus.propose(["b".into()].into_iter());
        let second = consensus.cycle().unwrap();
        assert!(second.committed.is_empty());
        consensus.persisted(first.number);
        let third = consensus.cycle().unwrap();
        assert_eq!(third.committed.len(), 1);
        assert!(!third.must_sync && third.hard_state.is_some());
        consensus.persisted(third.number);
        assert_eq!(settle(&mut consensus), ["b"]);
    }

    #[test]
    fn a_read_is_confirmed_at_once_when_alone_and_dropped_before_the_first_commit() {
        let mut consensus = lone_member();
        consensus.read_index(1);
        consensus.campaign().unwrap();
        consensus.read_index(2);
        settle(&mut consensus);
        consensus.read_index(3);
        let cycle = consensus.cycle().unwrap();
        assert_eq!(cycle.reads.len(), 1);
        assert_eq!(cycle.reads[0].request_ctx, 3u64.to_be_bytes());
        assert_eq!(cycle.reads[0].index, consensus.committed().0);
    }
}
