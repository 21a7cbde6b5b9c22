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

use bytes::{Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, Message};

use super::{
    outputs::{Outputs, Requested},
    reads::ReadQueue,
};
use crate::{
    apply::{Applied, ApplyFault, Effect, EntryAt, State, Tree},
    base::{LeaseId, LogIndex, MemberId, Monotonic, Reject, RequestId, Term},
    limits,
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
}

/// Memory from which entries are cut. One allocation serves many; entries that came together go together when the log
/// is discarded.
const ARENA_BYTES: usize = 64 * 1024;

/// The replica: consensus, the log that gathers, and the state machine.
pub struct Replica<T: Tree> {
    options: ReplicaOptions,
    member_id: MemberId,
    consensus: Consensus,
    log: LogEncoder,
    state: State<T>,
    waiters: Waiters<Waiter>,
    /// Renewals of leases that have ended but are not revoked yet.
    renewals: Vec<Call>,
    waiting_bytes: usize,
    reads: ReadQueue<Call>,
    ids: RequestIds,
    arena: BytesMut,
    proposals: Vec<Bytes>,
    /// Number of the newest cycle whose records the log has gathered.
    gathered_number: u64,
    /// The newest cycle that the write in flight covers.
    write_in_flight: Option<u64>,
    refused: Refused,
    /// Follower's answers that wait for the log, by the cycle that they belong to.
    messages_after_sync: VecDeque<(u64, Vec<Message>)>,
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
enum Waiter {
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
            ids,
            arena: BytesMut::with_capacity(ARENA_BYTES),
            proposals: Vec::new(),
            gathered_number: 0,
            write_in_flight: None,
            refused: Refused::default(),
            messages_after_sync: VecDeque::new(),
        }
    }

    /// Takes a client's call in. Writes are encoded and proposed by the next [`Replica::turn`], reads wait to be
    /// confirmed; refusals are answered at once.
    pub fn submit(&mut self, call: Call, now: Monotonic, outputs: &mut Outputs) {
        match call.request {
            Request::Write(write) => {
                if let Err(reject) = self.admit(call.ticket, write, now) {
                    outputs.replies.push((call.ticket, refusal(call.ticket, reject)));
                }
            }
            Request::Read(ref read) if is_serializable(read) => outputs.reads.push(call),
            Request::Read(_) => self.reads.push(now, call),
            Request::File(_) => outputs.reads.push(call),
        }
    }

    /// Answers a call that finds no room.
    pub fn refuse(&self, ticket: Ticket, outputs: &mut Outputs) {
        outputs.replies.push((ticket, refusal(ticket, Reject::TooManyRequests)));
    }

    /// Bytes of clients' writes on their way through the log.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    fn admit(&mut self, ticket: Ticket, mut write: Write, now: Monotonic) -> Result<(), Reject> {
        let is_behind =
            self.consensus.committed().0 > self.state.applied().index.0 + limits::COMMITTED_AHEAD_OF_APPLIED_MAX;
        if is_behind
            || self.waiters.len() >= limits::PROPOSALS_PENDING_MAX
            || self.waiting_bytes >= limits::PROPOSALS_PENDING_BYTES_MAX
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
        self.enqueue(id, &write, now, Waiter::Client { ticket, entry_bytes });
        self.waiting_bytes += entry_bytes;
        Ok(())
    }

    /// Proposes something of this member's own.
    pub fn propose_own(&mut self, write: &Write, now: Monotonic) {
        let id = self.ids.next_request();
        self.enqueue(id, write, now, Waiter::Own);
    }

    fn enqueue(&mut self, id: RequestId, write: &Write, now: Monotonic, waiter: Waiter) {
        if self.arena.capacity() < 512 {
            self.arena = BytesMut::with_capacity(ARENA_BYTES);
        }
        self.proposals.push(write.encode(id, &mut self.arena));
        self.waiters.wait(id, now + self.options.request_timeout, waiter);
    }

    /// Proposes what has been submitted, and carries raft on as far as it goes without the disk.
    ///
    /// # Errors
    /// If a committed entry cannot be applied: the member must stop.
    pub fn turn(&mut self, now: Monotonic, outputs: &mut Outputs) -> Result<(), ApplyFault> {
        if !self.proposals.is_empty() && self.consensus.is_leader() {
            let proposals = std::mem::take(&mut self.proposals);
            // Not taken only while leadership is on its way elsewhere: those who wait learn it by their time-out.
            let _is_taken = self.consensus.propose(proposals);
        }
        if (self.consensus.has_committed_in_term() || !self.consensus.is_alone())
            && let Some(context) = self.reads.ask(now)
        {
            self.consensus.read_index(context);
        }
        self.cycle(now, outputs)?;
        let applied = self.state.applied().index;
        while let Some(call) = self.reads.pop_ready(applied) {
            outputs.reads.push(call);
        }
        Ok(())
    }

    fn cycle(&mut self, now: Monotonic, outputs: &mut Outputs) -> Result<(), ApplyFault> {
        while let Some(mut cycle) = self.consensus.cycle() {
            outputs.role_changed |= cycle.role_changed;
            outputs.messages.append(&mut cycle.messages);
            self.log.append(&cycle.entries, cycle.hard_state.as_ref());
            self.gathered_number = cycle.number;
            if !cycle.messages_after_sync.is_empty() {
                self.messages_after_sync
                    .push_back((cycle.number, cycle.messages_after_sync));
            }
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

    fn apply(&mut self, entry: &Entry, now: Monotonic, outputs: &mut Outputs) -> Result<(), ApplyFault> {
        let at = EntryAt {
            index: LogIndex(entry.index),
            term: Term(entry.term),
        };
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
                let outcome = outcome
                    .expect("what a client proposed is applied once")
                    .map_err(Into::into);
                outputs.stopwatch.operation(ticket.method, outcome.is_ok());
                answer = Some((
                    ticket,
                    Reply {
                        stream: ticket.stream,
                        method: ticket.method,
                        outcome,
                    },
                ));
            }
            (Some(Waiter::Held(ticket, reply)), _) => outputs.replies.push((ticket, reply)),
            (Some(Waiter::Read(call)), _) => outputs.reads.push(*call),
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
    }

    /// A heartbeat interval has passed: raft's clock moves, and those who waited too long are told.
    pub fn tick(&mut self, now: Monotonic, outputs: &mut Outputs) {
        self.consensus.tick();
        let reject = match self.consensus.leader() {
            Some(_) => Reject::Timeout,
            None => Reject::TimeoutLeaderFail,
        };
        while let Some(waiter) = self.waiters.expire(now) {
            self.give_up(waiter, reject, outputs);
        }
        let timeout = u64::try_from(self.options.request_timeout.as_nanos()).unwrap_or(u64::MAX);
        let earliest = Monotonic(now.0.saturating_sub(timeout));
        while let Some(call) = self.reads.pop_expired(earliest) {
            self.refused.reads += 1;
            outputs
                .replies
                .push((call.ticket, refusal(call.ticket, Reject::Timeout)));
        }
    }

    /// Ends all waits: the server stops.
    pub fn stop(&mut self, outputs: &mut Outputs) {
        for waiter in self.waiters.drain() {
            self.give_up(waiter, Reject::Stopped, outputs);
        }
        while let Some(call) = self.reads.pop_expired(Monotonic(u64::MAX)) {
            outputs
                .replies
                .push((call.ticket, refusal(call.ticket, Reject::Stopped)));
        }
    }

    fn give_up(&mut self, waiter: Waiter, reject: Reject, outputs: &mut Outputs) {
        self.refused.proposals += 1;
        match waiter {
            Waiter::Client { ticket, entry_bytes } => {
                self.waiting_bytes -= entry_bytes;
                outputs.replies.push((ticket, refusal(ticket, reject)));
            }
            Waiter::Held(ticket, reply) => outputs.replies.push((ticket, reply)),
            Waiter::Read(call) => outputs.replies.push((call.ticket, refusal(call.ticket, reject))),
            Waiter::Own => {}
        }
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
        !self.proposals.is_empty() && self.consensus.is_leader()
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
        self.enqueue(id, &Write::Alarm(request), now, waiter);
    }

    /// Proposes something of this member's own, and goes on with `call` when it is applied.
    pub fn propose_before(&mut self, write: &Write, call: Call, now: Monotonic) {
        let id = self.ids.next_request();
        self.enqueue(id, write, now, Waiter::Read(Box::new(call)));
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
        self.propose_own(&Write::LeaseRevoke(LeaseRevokeRequest { id: lease_id.0 }), now);
    }
}

/// The answer that says why there is none.
pub fn refusal(ticket: Ticket, reject: Reject) -> Reply {
    Reply {
        stream: ticket.stream,
        method: ticket.method,
        outcome: Err(reject.into()),
    }
}

fn holds_answer(effect: &Effect) -> bool {
    match effect {
        Effect::RaiseAlarm(_) => true,
        Effect::Compact { is_physical, .. } | Effect::AwaitCompaction { is_physical } => *is_physical,
        _ => false,
    }
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
