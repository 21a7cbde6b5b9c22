//! What may start when. A turn takes in what has gathered and gives out what it comes to:
//!
//! ```text
//!  calls ─▶ admit ─▶ propose (one step for all) ─▶ raft's cycle ─┬─▶ messages           may leave at once (leader)
//!                                                                ├─▶ entries ─▶ log     gathers; one write in flight
//!                                                                ├─▶ committed ─▶ apply ─▶ events, answers
//!                                                                └─▶ reads confirmed ─▶ applied far enough ─▶ answers
//!  log durable ─▶ `persisted` ─▶ raft's cycle ─▶ …
//! ```
//!
//! Rules, each with the reason:
//! - A leader sends before its own sync: its copy counts towards the quorum only after `persisted`. A follower's answers
//!   wait for it, since they promise survival (raft thesis section 10.2.1).
//! - Only committed entries are applied, so that an answer promises durability: a lone member's commit needs its own
//!   sync, because raft counts its copy after `persisted` only.
//! - A hard state in which only the commit moved causes no write: it goes with the next one. What it forgets is found
//!   again by the next election.
//! - A read asks raft after it arrived and is answered when what was committed then is applied.

use std::collections::VecDeque;

use bytes::BytesMut;
use raft::eraftpb::{Entry, EntryType, Message};

use super::{
    outputs::{Outputs, Requested},
    proposals::{Origin, Proposals},
    reads::ReadQueue,
    takeover::Installing,
};
use crate::{
    apply::{Applied, ApplyFault, Effect, EntryAt, State, Tree},
    base::{
        LeaseId, LogIndex, MemberId, Monotonic, Reject, RequestId, Term,
        planted::{Planted, is_planted},
    },
    limits::Limits,
    propose::{Call, Read, Reply, Request, RequestIds, Ticket, Waiters, Write},
    raft::Consensus,
    wal::{Batch, LogEncoder, WalSnapshot},
    wire::proto::etcdserverpb::{AlarmRequest, AlarmType, LeaseRevokeRequest, alarm_request::AlarmAction},
};

/// What does not change while a replica runs.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaOptions {
    /// How long a proposal or a linearizable read may take (etcd: 5 s and twice the election timeout).
    pub request_timeout: std::time::Duration,
    /// Bytes that an entry may have (`--max-request-bytes`).
    pub request_bytes_max: usize,
    /// Time without a leader after which a member campaigns, at the earliest (`--election-timeout`).
    pub election_timeout: std::time::Duration,
    /// What may wait.
    pub limits: Limits,
}

/// Memory from which entries are cut. One allocation serves many; entries that came together go together when the log
/// is discarded.
const ARENA_BYTES: usize = 64 * 1024;

/// The replica: consensus, the log that gathers, and the state machine.
pub struct Replica<T: Tree> {
    pub(super) options: ReplicaOptions,
    member_id: MemberId,
    pub(super) consensus: Consensus,
    pub(super) log: LogEncoder,
    pub(super) state: State<T>,
    pub(super) waiters: Waiters<Waiter>,
    /// Renewals of leases that have ended but are not revoked yet.
    renewals: Vec<Call>,
    pub(super) waiting_bytes: usize,
    pub(super) reads: ReadQueue<Call>,
    /// Of these.
    pub(super) reads_bytes: usize,
    ids: RequestIds,
    arena: BytesMut,
    pub(super) proposals: Proposals,
    /// Number of the newest cycle whose records the log has gathered.
    pub(super) gathered_number: u64,
    /// The newest cycle that the write in flight covers.
    write_in_flight: Option<u64>,
    pub(super) refused: Refused,
    /// Follower's answers that wait for the log, by the cycle that they belong to.
    messages_after_sync: VecDeque<(u64, Vec<Message>)>,
    /// A leader's snapshot has come, and takes the place of everything: raft waits until it is installed.
    pub(super) installing: Option<Installing>,
    pub(super) publication: Publication,
    /// Who led last, and since when.
    led_by: Option<MemberId>,
    pub(super) led_since: Monotonic,
}

/// Whether this member has told the cluster who it is, in this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Not yet, or in vain.
    Due,
    /// It is proposed.
    Proposed,
    /// It is applied, and with it all that was committed before this life began.
    Done,
}

/// What waited in vain since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Proposals without an outcome in time.
    pub proposals: u64,
    /// Reads that the cluster did not confirm in time.
    pub reads: u64,
}

/// Who waits for a proposal.
pub(super) enum Waiter {
    /// A client.
    Client {
        ticket: Ticket,
        /// Bytes of the entry, held against the bound of what may be pending.
        entry_bytes: usize,
    },
    /// This member itself.
    Own,
    /// A client whose request is done, but who is told only when this entry is applied.
    Held(Ticket, Reply),
    /// A read that goes on when this entry is applied.
    Read(Box<Call>),
    /// This member's name and addresses.
    Publication,
}

impl<T: Tree> Replica<T> {
    /// A replica over a recovered state and log.
    pub fn new(
        options: ReplicaOptions,
        consensus: Consensus,
        log: LogEncoder,
        state: State<T>,
        member_id: MemberId,
        ids: RequestIds,
        entropy: u64,
    ) -> Replica<T> {
        Replica {
            options,
            member_id,
            consensus,
            log,
            renewals: Vec::new(),
            state,
            waiters: Waiters::default(),
            waiting_bytes: 0,
            reads: ReadQueue::new(member_id, entropy),
            reads_bytes: 0,
            ids,
            arena: BytesMut::with_capacity(ARENA_BYTES),
            proposals: Proposals::default(),
            gathered_number: 0,
            write_in_flight: None,
            refused: Refused::default(),
            messages_after_sync: VecDeque::new(),
            installing: None,
            publication: Publication::Due,
            led_by: None,
            led_since: Monotonic(0),
        }
    }

    /// Takes a client's call in. Writes are encoded and proposed by the next [`Replica::turn`], reads wait to be
    /// confirmed; refusals are answered at once.
    pub fn submit(&mut self, call: Call, now: Monotonic, outputs: &mut Outputs) {
        match call.request {
            Request::Write(write) => {
                if let Err(reject) = self.admit(call.ticket, write, now) {
                    outputs.refuse(call.ticket, reject);
                }
            }
            Request::Read(ref read) if is_serializable(read) => outputs.reads.push(call),
            // The leader finds out whether it still leads; this member need not.
            Request::Read(ref read) if is_leaders(read) && !self.consensus.is_leader() => outputs.reads.push(call),
            Request::Read(_) => {
                let bytes = self.reads_bytes + call.memory_bytes();
                if bytes > self.options.limits.reads_pending_bytes_max {
                    return self.refuse(call.ticket, outputs);
                }
                self.reads_bytes = bytes;
                self.reads.push(now, call);
            }
            Request::File(_) => outputs.reads.push(call),
        }
    }

    /// Answers a call that finds no room.
    pub fn refuse(&self, ticket: Ticket, outputs: &mut Outputs) {
        outputs.refuse(ticket, Reject::TooManyRequests);
    }

    /// What may wait, and what goes at once.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Bytes of clients' writes on their way through the log.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of reads that wait to be confirmed.
    pub fn reads_bytes(&self) -> usize {
        self.reads_bytes
    }

    fn admit(&mut self, ticket: Ticket, mut write: Write, now: Monotonic) -> Result<(), Reject> {
        let is_behind = self.consensus.committed().0
            > self.state.applied().index.0 + self.options.limits.committed_ahead_of_applied_max;
        if is_behind
            || self.waiters.len() >= self.options.limits.proposals_pending_max
            || self.waiting_bytes >= self.options.limits.proposals_pending_bytes_max
        {
            return Err(Reject::TooManyRequests);
        }
        if let Write::LeaseGrant(grant) = &mut write
            && grant.id == 0
        {
            grant.id = self.ids.next_lease().0;
        }
        let id = self.ids.next_request();
        let entry_bytes = write.encoded_len(id);
        if entry_bytes > self.options.request_bytes_max {
            return Err(Reject::RequestTooLarge);
        }
        self.enqueue(id, &write, now, Origin::Member, Waiter::Client { ticket, entry_bytes });
        self.waiting_bytes += entry_bytes;
        Ok(())
    }

    /// Proposes what this member, as the leader, finds due. It is dropped if another leads by then.
    pub fn propose_own(&mut self, write: &Write, now: Monotonic) {
        let id = self.ids.next_request();
        self.enqueue(id, write, now, Origin::Leader, Waiter::Own);
    }

    /// Proposes what this member tells of itself.
    pub fn publish(&mut self, write: &Write, now: Monotonic) {
        assert!(self.publication == Publication::Due);
        self.publication = Publication::Proposed;
        let id = self.ids.next_request();
        self.enqueue(id, write, now, Origin::Member, Waiter::Publication);
    }

    fn enqueue(&mut self, id: RequestId, write: &Write, now: Monotonic, origin: Origin, waiter: Waiter) {
        if self.arena.capacity() < 512 {
            self.arena = BytesMut::with_capacity(ARENA_BYTES);
        }
        let deadline = now + self.options.request_timeout;
        self.proposals.push(deadline, origin, write.encode(id, &mut self.arena));
        self.waiters.wait(id, deadline, waiter);
    }

    /// Proposes what has been submitted, and carries raft on as far as it goes without the disk.
    ///
    /// # Errors
    /// If a committed entry cannot be applied: the member must stop.
    pub fn turn(&mut self, now: Monotonic, outputs: &mut Outputs) -> Result<(), ApplyFault> {
        if !self.proposals.is_empty() && self.consensus.takes_proposals() {
            self.propose();
        }
        if self.may_ask()
            && let Some(context) = self.reads.ask(now)
        {
            self.consensus.read_index(context);
            if is_planted(Planted::ReadWhileHandingOver) && self.consensus.is_handing_over() {
                self.reads.confirm(context, self.consensus.committed());
            }
        }
        self.cycle(now, outputs)?;
        let applied = match is_planted(Planted::ReadBeforeApplied) {
            true => LogIndex(u64::MAX),
            false => self.state.applied().index,
        };
        while let Some(call) = self.reads.pop_ready(applied) {
            self.reads_bytes -= call.memory_bytes();
            outputs.reads.push(call);
        }
        Ok(())
    }

    /// Gives raft what waits. What it does not take is lost, which those who wait learn by their time-out: it takes
    /// everything but what comes between its last cycle and a change of roles.
    fn propose(&mut self) {
        if self.consensus.is_leader() {
            let _is_taken = self.consensus.propose(self.proposals.drain());
            return;
        }
        while !self.proposals.is_empty() {
            let mut few = self
                .proposals
                .drain_to_leader(self.options.limits.forward_bytes_max)
                .peekable();
            if few.peek().is_some() {
                let _is_taken = self.consensus.propose(few);
            }
        }
    }

    /// Whether raft would answer a question: it drops it without a word where no leader is known, and where the leader
    /// has not committed in its term.
    fn may_ask(&self) -> bool {
        match self.consensus.is_leader() {
            true => self.consensus.has_committed_in_term(),
            false => self.consensus.leader().is_some(),
        }
    }

    fn cycle(&mut self, now: Monotonic, outputs: &mut Outputs) -> Result<(), ApplyFault> {
        while self.installing.is_none()
            && let Some(mut cycle) = self.consensus.cycle()
        {
            if cycle.role_changed {
                outputs.role_changed = true;
                self.note_leader(now);
            }
            outputs.messages.append(&mut cycle.messages);
            if !cycle.messages_after_sync.is_empty() {
                self.messages_after_sync
                    .push_back((cycle.number, cycle.messages_after_sync));
            }
            if let Some(snapshot) = cycle.snapshot {
                assert!(cycle.entries.is_empty() && cycle.committed.is_empty());
                self.installing = Some(Installing::File {
                    snapshot: Box::new(snapshot),
                    number: cycle.number,
                    hard_state: cycle.hard_state,
                });
                return Ok(());
            }
            self.log.append(&cycle.entries, cycle.hard_state.as_ref());
            self.gathered_number = cycle.number;
            for read in &cycle.reads {
                let context = read.request_ctx.as_slice().try_into().map(u64::from_be_bytes);
                if let Ok(context) = context {
                    self.reads.confirm(context, LogIndex(read.index));
                }
            }
            if !cycle.committed.is_empty() {
                outputs.stopwatch.start();
            }
            for entry in &cycle.committed {
                self.apply(entry, now, outputs)?;
                outputs.stopwatch.lap(&entry.data);
            }
            if let Some(last) = cycle.committed.last() {
                self.consensus.applied(LogIndex(last.index));
            }
            if self.write_in_flight.is_none() && !self.log.must_sync() {
                // Nothing waits for the disk.
                self.release(cycle.number, outputs);
            }
        }
        Ok(())
    }

    /// Someone else leads, or nobody: questions that were asked before may have been asked in vain.
    fn note_leader(&mut self, now: Monotonic) {
        let leader = self.consensus.leader();
        if leader.is_some() && leader != self.led_by {
            self.led_since = now;
            self.reads.ask_again();
        }
        self.led_by = leader;
    }

    fn apply(&mut self, entry: &Entry, now: Monotonic, outputs: &mut Outputs) -> Result<(), ApplyFault> {
        let at = EntryAt {
            index: LogIndex(entry.index),
            term: Term(entry.term),
        };
        self.state
            .set_answer_bytes_max(outputs.answer_room(&self.options.limits));
        let applied = match entry.entry_type {
            EntryType::EntryNormal => self.state.apply(at, entry.data.clone(), now)?,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                let plan = self.state.plan_conf_change(at, &entry.data)?;
                let conf_state = self.consensus.apply_conf_change(&plan.to_raft);
                self.state.finish_conf_change(plan, conf_state)
            }
        };
        self.complete(applied, outputs);
        Ok(())
    }

    fn complete(&mut self, applied: Applied, outputs: &mut Outputs) {
        outputs.commits.extend(applied.commit);
        let waiter = applied.request_id.and_then(|id| self.waiters.complete(id));
        let mut answer = None;
        match (waiter, applied.answer) {
            (Some(Waiter::Client { ticket, entry_bytes }), outcome) => {
                self.waiting_bytes -= entry_bytes;
                // None if a leader's snapshot brought it: that it is done is known, and not how.
                let outcome = outcome.unwrap_or(Err(Reject::Timeout));
                outputs.stopwatch.operation(ticket.method, outcome.is_ok());
                let outcome = outputs.take_answer(outcome, &self.options.limits);
                answer = Some((ticket, Reply::whole(ticket, outcome)));
            }
            (Some(Waiter::Held(ticket, reply)), _) => outputs.replies.push((ticket, reply)),
            (Some(Waiter::Read(call)), _) => outputs.reads.push(*call),
            (Some(Waiter::Publication), _) => self.publication = Publication::Done,
            (Some(Waiter::Own) | None, _) => {}
        }
        match applied.effect {
            None => outputs.replies.extend(answer),
            Some(effect) => {
                let held = if holds_answer(&effect) {
                    answer
                } else {
                    outputs.replies.extend(answer);
                    None
                };
                outputs.effects.push(Requested { effect, held });
            }
        }
    }

    /// Seals what the log has gathered, if it must be durable before raft goes on and no write is in flight. The caller
    /// writes the batch and then says [`Replica::persisted`].
    pub fn seal_log<B: AsMut<[u8]>>(&mut self, allocate: impl FnOnce(usize) -> B) -> Option<Batch<B>> {
        if self.write_in_flight.is_some() || !self.log.must_sync() {
            return None;
        }
        let batch = self.log.seal(allocate)?;
        self.write_in_flight = Some(self.gathered_number);
        Some(batch)
    }

    /// Gathers a snapshot's record; it is written like entries.
    pub fn log_snapshot(&mut self, snapshot: &WalSnapshot) {
        self.log.append_snapshot(snapshot);
    }

    /// The write in flight is durable. A [`Replica::turn`] follows.
    pub fn persisted(&mut self, outputs: &mut Outputs) {
        let written = self.write_in_flight.take().expect("a write was in flight");
        // Later cycles in which only the commit moved promise nothing, so they need not wait for their write.
        let number = if self.log.must_sync() {
            written
        } else {
            self.gathered_number
        };
        self.release(number, outputs);
    }

    fn release(&mut self, number: u64, outputs: &mut Outputs) {
        self.consensus.persisted(number);
        while self.messages_after_sync.front().is_some_and(|(of, _)| *of <= number) {
            let (_, mut messages) = self.messages_after_sync.pop_front().expect("just seen");
            outputs.messages.append(&mut messages);
        }
        self.installing = match self.installing.take() {
            Some(Installing::Record {
                snapshot,
                number: recorded,
            }) if recorded <= number => Some(Installing::State(snapshot)),
            other => other,
        };
    }

    /// Starts an election at once: right for a lone member, whom nobody can prefer another to.
    pub fn campaign(&mut self) {
        self.consensus
            .campaign()
            .expect("a member of its own cluster may campaign");
    }

    /// Whether the log still has to write something that must be durable.
    pub fn log_has_unsynced(&self) -> bool {
        self.write_in_flight.is_some() || self.log.must_sync()
    }

    /// Whether something waits for the next write of the log.
    pub fn log_has_gathered(&self) -> bool {
        self.log.must_sync()
    }

    /// The state machine.
    pub fn state(&self) -> &State<T> {
        &self.state
    }

    /// The state machine, to be changed only as the log says.
    pub fn state_mut(&mut self) -> &mut State<T> {
        &mut self.state
    }

    /// Consensus.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Consensus, for messages and elections.
    pub fn consensus_mut(&mut self) -> &mut Consensus {
        &mut self.consensus
    }

    /// Whether something waits for the next turn to be proposed.
    pub fn has_proposals(&self) -> bool {
        !self.proposals.is_empty() && self.consensus.takes_proposals()
    }

    /// Whether the cluster knows this member by what it tells of itself in this life.
    pub fn publication(&self) -> Publication {
        self.publication
    }

    /// How long a proposal or a read may take.
    pub fn request_timeout(&self) -> std::time::Duration {
        self.options.request_timeout
    }

    /// Bytes that an entry may have.
    pub fn request_bytes_max(&self) -> usize {
        self.options.request_bytes_max
    }

    /// What waited in vain.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// Writes that wait for the log.
    pub fn pending(&self) -> usize {
        self.waiters.len()
    }

    /// Proposes that an alarm be raised for this member. `held` is told when it is.
    pub fn raise_alarm(&mut self, alarm: AlarmType, held: Option<(Ticket, Reply)>, now: Monotonic) {
        let request = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.member_id.0,
            alarm: alarm as i32,
        };
        let waiter = held.map_or(Waiter::Own, |(ticket, reply)| Waiter::Held(ticket, reply));
        let id = self.ids.next_request();
        self.enqueue(id, &Write::Alarm(request), now, Origin::Member, waiter);
    }

    /// Proposes something of this member's own, and goes on with `call` when it is applied.
    pub fn propose_before(&mut self, write: &Write, call: Call, now: Monotonic) {
        let id = self.ids.next_request();
        self.enqueue(id, write, now, Origin::Leader, Waiter::Read(Box::new(call)));
    }

    /// Puts a lease's renewal aside: the lease has ended, and what becomes of it shows soon.
    pub fn postpone_renewal(&mut self, call: Call) {
        self.renewals.push(call);
    }

    /// Renewals that were put aside are tried again.
    pub fn retry_renewals(&mut self, outputs: &mut Outputs) {
        outputs.reads.append(&mut self.renewals);
    }

    /// Proposes that a lease that has ended be revoked.
    pub fn revoke_lease(&mut self, lease_id: LeaseId, now: Monotonic) {
        let write = Write::LeaseRevoke(LeaseRevokeRequest { id: lease_id.0 });
        if is_planted(Planted::LeaseByFollower) {
            let id = self.ids.next_request();
            return self.enqueue(id, &write, now, Origin::Member, Waiter::Own);
        }
        self.propose_own(&write, now);
    }
}

fn holds_answer(effect: &Effect) -> bool {
    match effect {
        Effect::RaiseAlarm(_) => true,
        Effect::Compact { is_physical, .. } | Effect::AwaitCompaction { is_physical } => *is_physical,
        _ => false,
    }
}

/// Whether only the leader knows the answer.
fn is_leaders(read: &Read) -> bool {
    matches!(read, Read::LeaseKeepAlive(_) | Read::LeaseTimeToLive(_))
}

fn is_serializable(read: &Read) -> bool {
    match read {
        Read::Range(request) => request.serializable,
        Read::Txn(request) => crate::apply::check::is_txn_serializable(request),
        Read::MemberList(request) => !request.linearizable,
        Read::Status | Read::Gauges => true,
        Read::Barrier { serializable } => *serializable,
        Read::LeaseKeepAlive(_) | Read::LeaseTimeToLive(_) | Read::LeaseLeases | Read::Ask(_) => false,
    }
}
