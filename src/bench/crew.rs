//! What the connections of one thread share: what is left to do, what the next request says, whether an answer is right,
//! and what was measured. Knows no bytes of HTTP/2 and no sockets.
//!
//! ```text
//!   Idle ─▶ Load ─▶ Watch ─▶ Ready ─▶ Run ─▶ Drain
//!           keys    streams          measured  last answers
//! ```
//! The thread's main task moves the phase on when nothing of the one before is on its way.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::{
    kubernetes::Objects,
    plan::{Consistency, Plan, RangeWork, Workload},
    random::{KeySource, Random, ValueSource},
    tally::{Operation, Tally},
    watching::Watching,
};
use crate::{
    base::Monotonic,
    host::Notify,
    wire::proto::etcdserverpb::{
        CompactionRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, PutRequest, PutResponse,
        RangeRequest, RangeResponse, RequestOp, StatusRequest, StatusResponse, TxnRequest, TxnResponse, range_request,
        request_op,
    },
};

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    Load,
    Watch,
    Ready,
    Run,
    Drain,
    /// Connections may end.
    Over,
}

/// A unary method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Put,
    Range,
    Txn,
    Compact,
    Grant,
    Revoke,
    Status,
}

/// Paths, in the order of [`Method`].
pub(super) const PATHS: [&str; 7] = [
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Maintenance/Status",
];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Part of the preparation.
    Job,
    /// Part of the load.
    Load,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub client: u32,
    pub purpose: Purpose,
    pub operation: Operation,
    pub method: Method,
    pub intended: Monotonic,
    /// What the workload remembers of it: a key's or an object's number.
    pub subject: u64,
    pub answer: Option<Bytes>,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// The client is free.
    Free,
    /// The client goes on at once (the next page of its list).
    Again,
}

/// One client's memory.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientState {
    /// A lease to be revoked, or kept alive.
    pub lease: i64,
}

/// What the connections of a thread share.
pub(super) struct Crew {
    pub plan: Arc<Plan>,
    pub thread: u32,
    pub phase: Phase,
    pub random: Random,
    pub keys: KeySource,
    pub values: ValueSource,
    pub clients: Vec<ClientState>,
    /// Requests that are still to be measured.
    pub remaining: Option<u64>,
    /// From when on requests are measured.
    pub record_from: Monotonic,
    /// Until when requests start.
    pub end: Monotonic,
    /// Connections whose schedules have requests left that belong before `end`: they are sent, however late.
    pub schedules_open: u32,
    /// Requests on their way.
    pub in_flight: u64,
    pub tally: Tally,
    /// Answers so far: of the preparation, and of the load.
    pub jobs_done: u64,
    pub ended: u64,
    /// When the last answer of the load came.
    pub last_ended: Monotonic,
    pub failure: Option<String>,
    /// What the server says it is.
    pub server_version: String,
    pub watching: Watching,
    pub objects: Objects,
    /// Wakes each connection.
    pub notifies: Vec<Rc<Notify>>,
    start: Monotonic,
    jobs_next: u64,
    jobs_end: u64,
    is_status_asked: bool,
    last_revision: i64,
    next_compaction: Monotonic,
    mix_credit: f64,
}

impl Crew {
    /// The part of thread `thread`, which has `clients` clients.
    pub fn new(plan: Arc<Plan>, thread: u32, clients: u32) -> Rc<RefCell<Crew>> {
        let mut random = Random::new(plan.seed ^ (u64::from(thread) + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let threads = plan.threads;
        let share = |all: u64| all / u64::from(threads) + u64::from(all % u64::from(threads) > u64::from(thread));
        let jobs_end = match &plan.workload {
            Workload::Range(read) | Workload::TxnMixed { read, .. } if read.loads => share(plan.keys.space),
            Workload::Kubernetes(kubernetes) => share(kubernetes.objects),
            Workload::LeaseKeepAlive { .. } => u64::from(clients),
            _ => 0,
        };
        let crew = Crew {
            thread,
            phase: Phase::Connect,
            keys: KeySource::new(plan.keys.clone(), thread, threads),
            values: ValueSource::new(plan.values, &mut random),
            clients: vec![ClientState::default(); clients as usize],
            remaining: plan.load.total.map(share),
            record_from: Monotonic(u64::MAX),
            end: Monotonic(u64::MAX),
            schedules_open: 0,
            in_flight: 0,
            tally: Tally::default(),
            jobs_done: 0,
            ended: 0,
            last_ended: Monotonic(0),
            failure: None,
            server_version: String::new(),
            watching: Watching::new(&plan),
            objects: Objects::new(&plan, thread, clients),
            notifies: Vec::new(),
            start: Monotonic(u64::MAX),
            jobs_next: 0,
            jobs_end,
            is_status_asked: thread != 0,
            last_revision: 0,
            next_compaction: Monotonic(u64::MAX),
            mix_credit: 0.0,
            random,
            plan,
        };
        Rc::new(RefCell::new(crew))
    }

    /// The load begins at `start`.
    pub fn run_from(&mut self, start: Monotonic) {
        self.phase = Phase::Run;
        self.start = start;
        self.record_from = start + self.plan.load.warm_up;
        if let Some(duration) = self.plan.load.duration {
            self.end = self.record_from + duration;
        }
        if let Workload::Put {
            compaction: Some(compaction),
        } = &self.plan.workload
            && self.thread == 0
        {
            self.next_compaction = start + compaction.interval;
        }
    }

    /// When the load began.
    pub fn start(&self) -> Monotonic {
        self.start
    }

    /// Whether no further request starts.
    pub fn is_exhausted(&self, now: Monotonic) -> bool {
        (now >= self.end && self.schedules_open == 0) || self.remaining == Some(0)
    }

    /// Notes the first thing that went wrong.
    pub fn fail(&mut self, text: String) {
        self.failure.get_or_insert(text);
    }

    /// Wakes all connections.
    pub fn wake_all(&self) {
        for notify in &self.notifies {
            notify.notify();
        }
    }

    /// The next request of the preparation, if there is one; its message goes to `output`.
    pub fn next_job(&mut self, client: u32, now: Monotonic, output: &mut BytesMut) -> Option<Flight> {
        let flight = |operation, method, subject| Flight {
            client,
            purpose: Purpose::Job,
            operation,
            method,
            intended: now,
            subject,
            answer: None,
        };
        if !self.is_status_asked {
            self.is_status_asked = true;
            write(&StatusRequest {}, output);
            return Some(flight(Operation::Get, Method::Status, 0));
        }
        if self.jobs_next == self.jobs_end {
            return None;
        }
        let number = self.jobs_next;
        self.jobs_next += 1;
        if let Workload::LeaseKeepAlive { ttl } = self.plan.workload {
            write(&LeaseGrantRequest { ttl, id: 0 }, output);
            return Some(flight(Operation::Grant, Method::Grant, number));
        }
        let key = match self.plan.workload {
            Workload::Kubernetes(_) => self.objects.key_of(number),
            _ => self
                .keys
                .key(number * u64::from(self.plan.threads) + u64::from(self.thread)),
        };
        let value = self.values.draw(&mut self.random);
        write(&put(key, value), output);
        Some(flight(Operation::Put, Method::Put, number))
    }

    /// Whether the preparation's requests have all been sent.
    pub fn are_jobs_sent(&self) -> bool {
        self.is_status_asked && self.jobs_next == self.jobs_end
    }

    /// The load's next request of a client; its message goes to `output`.
    pub fn next_request(&mut self, client: u32, intended: Monotonic, output: &mut BytesMut) -> Flight {
        let plan = self.plan.clone();
        let (operation, method, subject) = match &plan.workload {
            Workload::Put { compaction } => match compaction {
                Some(compaction) if intended >= self.next_compaction && self.last_revision > compaction.index_delta => {
                    self.next_compaction = intended + compaction.interval;
                    let revision = self.last_revision - compaction.index_delta;
                    let request = CompactionRequest {
                        revision,
                        physical: false,
                    };
                    write(&request, output);
                    (Operation::Compact, Method::Compact, 0)
                }
                _ => self.write_put(intended, output),
            },
            Workload::Watch(_) => self.write_put(intended, output),
            Workload::Range(read) => {
                let request = self.range(read);
                write(&request, output);
                (Operation::Range, Method::Range, 0)
            }
            Workload::TxnPut { puts } => {
                let first = self.keys.draw(&mut self.random);
                let success = (0..u64::from(*puts)).map(|at| self.put_op(first + at)).collect();
                write(&txn(success), output);
                (Operation::TxnPut, Method::Txn, first)
            }
            Workload::TxnMixed { read, reads_per_write } => self.write_mixed(read, *reads_per_write, output),
            Workload::LeaseGrant { ttl } => {
                write(&LeaseGrantRequest { ttl: *ttl, id: 0 }, output);
                (Operation::Grant, Method::Grant, 0)
            }
            Workload::LeaseRevoke { ttl } => match self.clients[client as usize].lease {
                0 => {
                    write(&LeaseGrantRequest { ttl: *ttl, id: 0 }, output);
                    (Operation::Grant, Method::Grant, 0)
                }
                id => {
                    self.clients[client as usize].lease = 0;
                    write(&LeaseRevokeRequest { id }, output);
                    (Operation::Revoke, Method::Revoke, 0)
                }
            },
            Workload::LeaseKeepAlive { .. } => unreachable!("sent on its own stream"),
            Workload::Kubernetes(_) => {
                let value = self.values.draw(&mut self.random);
                self.objects
                    .next_request(client, intended, &mut self.random, value, output)
            }
        };
        Flight {
            client,
            purpose: Purpose::Load,
            operation,
            method,
            intended,
            subject,
            answer: None,
        }
    }

    fn write_put(&mut self, intended: Monotonic, output: &mut BytesMut) -> (Operation, Method, u64) {
        let number = self.keys.draw(&mut self.random);
        let mut value = self.values.draw(&mut self.random);
        if let Workload::Watch(_) = self.plan.workload {
            value = stamped(&value, intended);
        }
        write(&put(self.keys.key(number), value), output);
        (Operation::Put, Method::Put, number)
    }

    fn put_op(&mut self, number: u64) -> RequestOp {
        let key = self.keys.key(number % self.keys.space());
        let value = self.values.draw(&mut self.random);
        operation(request_op::Request::RequestPut(put(key, value)))
    }

    fn range(&mut self, read: &RangeWork) -> RangeRequest {
        let (key, range_end) = match &read.fixed {
            Some((key, end)) => (key.clone().into(), end.clone().into()),
            None => {
                let number = self.keys.draw(&mut self.random);
                (self.keys.key(number), Bytes::new())
            }
        };
        RangeRequest {
            key,
            range_end,
            limit: read.limit,
            serializable: read.consistency == Consistency::Serializable,
            keys_only: read.is_keys_only,
            count_only: read.is_count_only,
            sort_order: range_request::SortOrder::None as i32,
            ..RangeRequest::default()
        }
    }

    /// Reads and writes in their ratio: `mix_credit` is what is still owed to the writes.
    fn write_mixed(
        &mut self,
        read: &RangeWork,
        reads_per_write: f64,
        output: &mut BytesMut,
    ) -> (Operation, Method, u64) {
        self.mix_credit += 1.0 / (1.0 + reads_per_write);
        if self.mix_credit >= 1.0 {
            self.mix_credit -= 1.0;
            let number = self.keys.draw(&mut self.random);
            let put = self.put_op(number);
            write(&txn(vec![put]), output);
            return (Operation::TxnWrite, Method::Txn, number);
        }
        let range = self.range(read);
        write(&txn(vec![operation(request_op::Request::RequestRange(range))]), output);
        (Operation::TxnRead, Method::Txn, 0)
    }

    /// Looks at an answer, and counts it.
    ///
    /// # Errors
    /// What is wrong with it, for the operator.
    pub fn answered(&mut self, flight: &Flight, now: Monotonic) -> Result<Follow, String> {
        let Some(answer) = flight.answer.clone() else {
            return Err("the server sent no message".to_owned());
        };
        if flight.purpose == Purpose::Job {
            self.jobs_done += 1;
            self.job_answered(flight, answer)?;
            return Ok(Follow::Free);
        }
        let follow = self.load_answered(flight, answer, now)?;
        // A list counts when its last page is there.
        if flight.operation != Operation::Page {
            self.record(flight.operation, flight.intended, now);
        }
        Ok(follow)
    }

    fn job_answered(&mut self, flight: &Flight, answer: Bytes) -> Result<(), String> {
        match flight.method {
            Method::Status => self.server_version = decoded::<StatusResponse>(answer)?.version,
            Method::Grant => {
                let client = flight.subject as usize;
                self.clients[client].lease = decoded::<LeaseGrantResponse>(answer)?.id;
            }
            _ => {
                let response: PutResponse = decoded(answer)?;
                let revision = response.header.map_or(0, |header| header.revision);
                self.objects.loaded(flight.subject, revision);
            }
        }
        Ok(())
    }

    fn load_answered(&mut self, flight: &Flight, answer: Bytes, now: Monotonic) -> Result<Follow, String> {
        match (&self.plan.workload, flight.method) {
            (Workload::Kubernetes(_), _) => {
                let expected_events = self.watching.watchers_of(0);
                let outcome = self.objects.answered(flight, answer)?;
                if outcome.is_written {
                    self.watching.expect(expected_events);
                }
                if outcome.is_conflict {
                    self.tally.conflicts += 1;
                }
                if let Some(start) = outcome.list_started {
                    self.record(Operation::List, start, now);
                }
                if flight.operation == Operation::Page {
                    self.record_only(Operation::Page, flight.intended, now);
                }
                return Ok(outcome.follow);
            }
            (Workload::Watch(_), _) => {
                let expected = self.watching.watchers_of(flight.subject);
                self.watching.expect(expected);
            }
            (Workload::Put { compaction: Some(_) }, Method::Put) => {
                let response: PutResponse = decoded(answer)?;
                let revision = response.header.map_or(0, |header| header.revision);
                self.last_revision = self.last_revision.max(revision);
            }
            (Workload::LeaseRevoke { .. }, Method::Grant) => {
                let response: LeaseGrantResponse = decoded(answer)?;
                self.clients[flight.client as usize].lease = response.id;
            }
            (Workload::Range(RangeWork { loads: true, .. }), Method::Range) => {
                let response: RangeResponse = decoded(answer)?;
                if response.count == 0 {
                    return Err("a key that was put is not found".to_owned());
                }
            }
            (_, Method::Txn) => {
                let response: TxnResponse = decoded(answer)?;
                if !response.succeeded {
                    return Err("a transaction without a condition took its other branch".to_owned());
                }
            }
            _ => {}
        }
        Ok(Follow::Free)
    }

    /// Counts an operation that began (or was to begin) at `intended`.
    #[inline]
    pub fn record(&mut self, operation: Operation, intended: Monotonic, now: Monotonic) {
        self.ended += 1;
        self.last_ended = now;
        self.record_only(operation, intended, now);
    }

    /// As [`Crew::record`], for what is not a request of its own.
    #[inline]
    pub fn record_only(&mut self, operation: Operation, intended: Monotonic, now: Monotonic) {
        if intended >= self.record_from {
            let nanos = now.0.saturating_sub(intended.0);
            self.tally.record(operation, nanos, now.0 - self.record_from.0);
        }
    }

    /// Counts a request that leaves, and how late it does although its client was free.
    #[inline]
    pub fn sent(&mut self, intended: Monotonic, free_since: Monotonic, now: Monotonic) {
        if intended < self.record_from {
            return;
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(1);
        }
        if self.plan.load.rate.is_some() {
            let could = intended.max(free_since);
            let at = now.0 - self.record_from.0.min(now.0);
            self.tally.record_own_delay(now.0.saturating_sub(could.0), at);
        }
    }
}

/// Appends a message.
pub(super) fn write(message: &impl Message, output: &mut BytesMut) {
    message.encode(output).expect("memory that grows");
}

/// Reads an answer.
pub(super) fn decoded<M: Message + Default>(answer: Bytes) -> Result<M, String> {
    M::decode(answer).map_err(|error| format!("an answer cannot be read: {error}"))
}

pub(super) fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

pub(super) fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

/// Bytes at the start of a value that say when it was to be put.
pub(super) const STAMP_BYTES: usize = 8;

/// A value that says when it was to be put.
pub(super) fn stamped(value: &Bytes, intended: Monotonic) -> Bytes {
    let mut stamped = value.to_vec();
    assert!(stamped.len() >= STAMP_BYTES, "arguments see to it");
    stamped[..STAMP_BYTES].copy_from_slice(&intended.0.to_be_bytes());
    stamped.into()
}
