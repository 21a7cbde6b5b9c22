//! Long walks over the index on behalf of reads, in slices: lists, and the first part of HashKV. They take turns, so
//! that a short list does not wait for a long one, and none of them keeps the log waiting for more than a slice.
//!
//! A list's answer leaves in parts, as its client takes them, and is never in memory as a whole; a list whose client is slow
//! rests. When others wait for it, a compaction of what it reads or a list for which there is no room, it rests no longer than
//! [`PATIENCE`]: the rest is written to memory, or given up if there is too much of that already.
//!
//! Transactions that list much and change nothing go one after the other, each at the revision that it began at: their
//! answers are in memory as a whole.
//!
//! A list that is sorted has to hold its keys. Where many hold too many together, the oldest goes on and the others wait.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{backlog::Backlog, cycle::Replica, file_work::FileWorks, outputs::Outputs};
use crate::{
    apply::{put_range_head, range_query},
    backend::Backend,
    base::{Monotonic, Reject},
    host::Map,
    limits::Limits,
    mvcc::{HashJob, RangeEncoder, RangeList, RangeScan, RangeSort},
    propose::{Admission, Call, Part, Read, Reply, Request, Ticket},
    rpc::{
        desk::Desk,
        status::{self, Status},
    },
    wire::proto::etcdserverpb::RangeRequest,
};

/// How long a list waits for its client.
const PATIENCE: Duration = Duration::from_secs(10);

/// Walks under way. Each pins the revision that it reads.
pub struct Scans {
    limits: Limits,
    turns: VecDeque<Scan>,
    /// Lists that rest until their clients have taken more of what was sent.
    resting: Vec<Scan>,
    /// Lists that are to be sorted and wait for older ones to let go of their keys.
    waiting: Vec<Scan>,
    /// Hashes wait for one another: what each keeps is as much as there are keys.
    hashes: VecDeque<Scan>,
    /// Transactions wait for one another.
    txns: Backlog,
    begun: u64,
    /// Keys that all of these hold.
    keys_held: usize,
    /// Bytes of their requests.
    request_bytes: usize,
}

struct Scan {
    /// Grows with each.
    id: u64,
    ticket: Ticket,
    stage: Stage,
    /// Until when the list waits for its client, once there is something for it.
    patient_until: Option<Monotonic>,
    holds: Holds,
}

/// What a walk has for as long as it lasts.
#[derive(Clone, Copy)]
struct Holds {
    pinned_revision: i64,
    keys: usize,
    request_bytes: usize,
}

enum Stage {
    Walk {
        scan: RangeScan,
        header: Bytes,
        keys_only: bool,
    },
    /// A list whose keys are known, and are to be put in order.
    Sort {
        sort: RangeSort,
        header: Bytes,
        keys_only: bool,
    },
    Measure(RangeEncoder),
    Write(RangeEncoder),
    /// A list in the index's order.
    MeasureList(Box<RangeList>),
    WriteList(Box<RangeList>),
    /// With the store's revision when the call came.
    Hash(HashJob, i64),
    Txn(Box<TxnRead>),
}

/// A transaction that changes nothing, and how far it has been read.
struct TxnRead {
    answer: Vec<u8>,
    /// What is still to be read, the next at the end; all at revisions that are pinned.
    ranges: Vec<RangeRequest>,
    header: Bytes,
    range: Option<Stage>,
}

enum Step {
    More(Stage),
    /// A part of an answer, and what is left to be done for it.
    Part(Bytes, Part, Option<Stage>),
    /// The answer would be too long.
    Refused(Status),
    Hashed(crate::mvcc::KvHasher, i64),
}

impl Scans {
    /// None is under way.
    pub fn new(limits: Limits) -> Scans {
        Scans {
            limits,
            turns: VecDeque::new(),
            resting: Vec::new(),
            waiting: Vec::new(),
            hashes: VecDeque::new(),
            txns: Backlog::default(),
            begun: 0,
            keys_held: 0,
            request_bytes: 0,
        }
    }

    /// Begins to answer a range, of whose request so many bytes stay in memory, unless there are too many of those. `header` is the encoded response header.
    pub fn begin_range<M: Map>(
        &mut self,
        replica: &mut Replica<Backend<M>>,
        ticket: Ticket,
        scan: RangeScan,
        header: Bytes,
        keys_only: bool,
        request_bytes: usize,
    ) -> Result<(), Reject> {
        if self.request_bytes + request_bytes > self.limits.reads_pending_bytes_max {
            return Err(Reject::TooManyRequests);
        }
        self.request_bytes += request_bytes;
        let pinned_revision = scan.revision();
        let stage = Stage::of_range(scan, header, keys_only);
        let scan = self.begin(replica, ticket, pinned_revision, request_bytes, stage);
        self.turns.push_back(scan);
        Ok(())
    }

    /// Begins a HashKV.
    pub fn begin_hash<M: Map>(&mut self, replica: &mut Replica<Backend<M>>, ticket: Ticket, job: HashJob) {
        // Any later compaction waits, also one below the hashed revision: its records count. Behind the walk the store
        // keeps the order.
        let pinned_revision = job.compact_revision();
        let current_revision = replica.state().store().current_revision();
        let scan = self.begin(replica, ticket, pinned_revision, 0, Stage::Hash(job, current_revision));
        self.hashes.push_back(scan);
    }

    /// Takes a transaction that changes nothing ([`crate::apply::check::is_txn_read_only`]), unless too much waits already.
    pub fn queue_txn(&mut self, call: Call) -> Admission {
        self.txns.push(call, &self.limits)
    }

    /// Bytes of transactions that wait for others.
    pub fn waiting_bytes(&self) -> usize {
        self.txns.bytes()
    }

    /// Begins with the next transaction. Whose client is gone is not read.
    fn begin_txn<M: Map>(&mut self, replica: &mut Replica<Backend<M>>, desk: &Desk, outputs: &mut Outputs) {
        let Some(Call {
            ticket,
            request: Request::Read(Read::Txn(request)),
        }) = self.txns.pop()
        else {
            return;
        };
        if desk.unsent_bytes(&ticket).is_none() {
            return;
        }
        let state = replica.state();
        let revision = state.store().current_revision();
        let (head, mut ranges) = match state.begin_read_txn(&request) {
            Ok(begun) => begun,
            Err(reject) => return outputs.refuse(ticket, reject),
        };
        ranges.reverse();
        let pinned_revision = ranges.iter().map(|range| range.revision).fold(revision, i64::min);
        let read = TxnRead {
            answer: head.into(),
            ranges,
            header: state.nested_header(revision),
            range: None,
        };
        let scan = self.begin(replica, ticket, pinned_revision, 0, Stage::Txn(Box::new(read)));
        self.turns.push_back(scan);
    }

    fn begin<M: Map>(
        &mut self,
        replica: &mut Replica<Backend<M>>,
        ticket: Ticket,
        pinned_revision: i64,
        request_bytes: usize,
        stage: Stage,
    ) -> Scan {
        replica.state_mut().store_and_tree().0.pin(pinned_revision);
        self.begun += 1;
        Scan {
            id: self.begun,
            ticket,
            stage,
            patient_until: None,
            holds: Holds {
                pinned_revision,
                keys: 0,
                request_bytes,
            },
        }
    }

    /// Gives all walks up: the store that they walk over is replaced.
    pub fn abandon(&mut self, outputs: &mut Outputs) {
        let lists = self.resting.drain(..).chain(self.waiting.drain(..));
        for scan in self.turns.drain(..).chain(lists).chain(self.hashes.drain(..)) {
            outputs.refuse(scan.ticket, Reject::Timeout);
        }
        while let Some(call) = self.txns.pop() {
            outputs.refuse(call.ticket, Reject::Timeout);
        }
        (self.keys_held, self.request_bytes) = (0, 0);
    }

    /// Walks under way for one connection.
    pub fn of_connection(&self, ticket: &Ticket) -> usize {
        let is_same = |of: &&Ticket| (of.connection, of.incarnation) == (ticket.connection, ticket.incarnation);
        let lists = self.resting.iter().chain(&self.waiting);
        let all = self.turns.iter().chain(lists).chain(&self.hashes);
        let tickets = all.map(|scan| &scan.ticket).chain(self.txns.tickets());
        tickets.filter(is_same).count()
    }

    /// Whether [`Scans::step`] has something to do.
    pub fn has_work<M: Map>(&self, works: &FileWorks<M>, desk: &Desk) -> bool {
        !self.turns.is_empty() || self.may_hash(works) || self.may_read_txn(desk)
    }

    /// Whether the next transaction may begin: its answer will wait, too.
    fn may_read_txn(&self, desk: &Desk) -> bool {
        let is_txn = |scan: &Scan| matches!(scan.stage, Stage::Txn(_));
        !self.txns.is_empty() && !desk.is_full() && !self.turns.iter().any(is_txn)
    }

    /// Whether the next hash may begin.
    fn may_hash<M: Map>(&self, works: &FileWorks<M>) -> bool {
        let is_hash = |scan: &Scan| matches!(scan.stage, Stage::Hash(..));
        !self.hashes.is_empty() && !works.is_hashing() && !self.turns.iter().any(is_hash)
    }

    /// Carries the next walk on by a slice. `is_awaited` says whether a compaction waits for one of them.
    pub fn step<M: Map>(
        &mut self,
        replica: &mut Replica<Backend<M>>,
        works: &mut FileWorks<M>,
        desk: &Desk,
        is_awaited: bool,
        now: Monotonic,
        outputs: &mut Outputs,
    ) {
        let is_awaited = is_awaited || !self.waiting.is_empty();
        self.wake(desk, is_awaited, now);
        if self.may_hash(works) {
            self.turns.extend(self.hashes.pop_front());
        }
        if self.may_read_txn(desk) {
            self.begin_txn(replica, desk, outputs);
        }
        let Some(mut scan) = self.turns.pop_front() else {
            return;
        };
        if let Stage::Walk { .. } = scan.stage
            && self.keys_held >= self.limits.scan_keys_held_max
            && self.is_anyone_older(&scan)
        {
            return self.waiting.push(scan);
        }
        if let Stage::Write(_) | Stage::WriteList(_) = scan.stage {
            let patient_until = *scan.patient_until.get_or_insert(now + PATIENCE);
            match desk.unsent_bytes(&scan.ticket) {
                None => return self.end(scan.holds, replica),
                Some(unsent) if unsent <= self.limits.list_unsent_bytes_max => {}
                Some(_) if !is_awaited || now < patient_until => {
                    desk.await_room(&scan.ticket);
                    return self.resting.push(scan);
                }
                Some(_) if desk.is_full() => {
                    outputs.refuse(scan.ticket, status::unread());
                    return self.end(scan.holds, replica);
                }
                Some(_) => {}
            }
        }
        if let Stage::Txn(_) = scan.stage
            && desk.unsent_bytes(&scan.ticket).is_none()
        {
            return self.end(scan.holds, replica);
        }
        let ticket = scan.ticket;
        let rest = match step(replica, scan.stage, &self.limits) {
            Step::More(stage) => Some(stage),
            Step::Part(message, part, rest) => {
                if !(message.is_empty() && part == Part::Next) {
                    let reply = Reply {
                        stream: ticket.stream,
                        method: ticket.method,
                        outcome: Ok(message),
                        part,
                    };
                    outputs.replies.push((ticket, reply));
                }
                rest
            }
            Step::Refused(status) => {
                outputs.refuse(ticket, status);
                None
            }
            Step::Hashed(hasher, revision) => {
                works.hash_kv(ticket, hasher, revision);
                None
            }
        };
        let Some(stage) = rest else {
            return self.end(scan.holds, replica);
        };
        let held = stage.keys_held();
        self.keys_held = self.keys_held - scan.holds.keys + held;
        self.turns.push_back(Scan {
            stage,
            holds: Holds {
                keys: held,
                ..scan.holds
            },
            ..scan
        });
    }

    /// A walk is over, or given up.
    fn end<M: Map>(&mut self, holds: Holds, replica: &mut Replica<Backend<M>>) {
        replica.state_mut().store_and_tree().0.unpin(holds.pinned_revision);
        self.keys_held -= holds.keys;
        self.request_bytes -= holds.request_bytes;
        if holds.keys > 0 {
            self.turns.extend(self.waiting.drain(..));
        }
    }

    fn is_anyone_older(&self, scan: &Scan) -> bool {
        let mut others = self.turns.iter().chain(&self.resting).chain(&self.waiting);
        others.any(|other| other.holds.keys > 0 && other.id < scan.id)
    }

    /// Lists whose clients have room again, are gone, or have been waited for long enough, go on.
    fn wake(&mut self, desk: &Desk, is_awaited: bool, now: Monotonic) {
        let is_impatient = |scan: &Scan| is_awaited && scan.patient_until.is_some_and(|until| until <= now);
        if desk.take_room_made() || self.resting.iter().any(is_impatient) {
            self.turns.extend(self.resting.drain(..));
        }
    }
}

impl Stage {
    fn of_range(scan: RangeScan, header: Bytes, keys_only: bool) -> Stage {
        match scan.is_plain() {
            true => Stage::MeasureList(Box::new(RangeList::new(scan, header, keys_only))),
            false => Stage::Walk {
                scan,
                header,
                keys_only,
            },
        }
    }

    /// Keys that are held for as long as this stage lasts.
    fn keys_held(&self) -> usize {
        match self {
            Stage::Walk { scan, .. } => scan.held(),
            Stage::Sort { sort, .. } => sort.held(),
            Stage::Measure(encoder) | Stage::Write(encoder) => encoder.held(),
            // The first is counted otherwise; the others hold what a slice finds.
            Stage::Hash(..) | Stage::MeasureList(_) | Stage::WriteList(_) => 0,
            Stage::Txn(read) => read.range.as_ref().map_or(0, Stage::keys_held),
        }
    }
}

fn step<M: Map>(replica: &Replica<Backend<M>>, stage: Stage, limits: &Limits) -> Step {
    let (store, tree) = (replica.state().store(), replica.state().tree());
    match stage {
        Stage::Walk {
            mut scan,
            header,
            keys_only,
        } => {
            if store.range_slice(&mut scan, limits.scan_slice_keys_max) {
                Step::More(Stage::Sort {
                    sort: scan.into_sort(),
                    header,
                    keys_only,
                })
            } else {
                Step::More(Stage::Walk {
                    scan,
                    header,
                    keys_only,
                })
            }
        }
        Stage::Sort {
            mut sort,
            header,
            keys_only,
        } => {
            if sort.slice(tree, limits.scan_slice_records_max) {
                Step::More(Stage::Measure(RangeEncoder::new(&header, sort.finish(), keys_only)))
            } else {
                Step::More(Stage::Sort {
                    sort,
                    header,
                    keys_only,
                })
            }
        }
        Stage::Measure(mut encoder) => match encoder.measure(tree, limits.scan_slice_records_max) {
            true => match status::message_refusal(encoder.encoded_len()) {
                Some(status) => Step::Refused(status),
                None => Step::More(Stage::Write(encoder)),
            },
            false => Step::More(Stage::Measure(encoder)),
        },
        Stage::Write(mut encoder) => {
            let is_first = encoder.is_untouched();
            let chunk = encoder.chunk(tree, limits.scan_slice_bytes_max).unwrap_or_default();
            let part = part(is_first, encoder.is_done(), encoder.encoded_len());
            let rest = (!encoder.is_done()).then_some(Stage::Write(encoder));
            Step::Part(chunk, part, rest)
        }
        Stage::MeasureList(mut list) => match list.measure(store, tree, limits.scan_slice_records_max) {
            true => match status::message_refusal(list.encoded_len()) {
                Some(status) => Step::Refused(status),
                None => Step::More(Stage::WriteList(list)),
            },
            false => Step::More(Stage::MeasureList(list)),
        },
        Stage::WriteList(mut list) => {
            let is_first = list.is_untouched();
            let chunk = list.chunk(store, tree, limits.scan_slice_records_max, limits.scan_slice_bytes_max);
            let part = part(is_first, list.is_done(), list.encoded_len());
            let rest = (!list.is_done()).then_some(Stage::WriteList(list));
            Step::Part(chunk, part, rest)
        }
        Stage::Hash(mut job, revision) => {
            if store.hash_slice(&mut job, limits.scan_slice_keys_max) {
                Step::Hashed(job.into_hasher(), revision)
            } else {
                Step::More(Stage::Hash(job, revision))
            }
        }
        Stage::Txn(mut read) => match step_txn(replica, &mut read, limits) {
            Ok(true) => Step::Part(read.answer.into(), Part::Whole, None),
            Ok(false) => Step::More(Stage::Txn(read)),
            Err(status) => Step::Refused(status),
        },
    }
}

/// Reads a transaction on by a slice; true when its answer is done.
fn step_txn<M: Map>(replica: &Replica<Backend<M>>, read: &mut TxnRead, limits: &Limits) -> Result<bool, Status> {
    let Some(stage) = read.range.take() else {
        let Some(range) = read.ranges.pop() else {
            return Ok(true);
        };
        let scan = replica.state().store().range_begin(&range_query(&range))?;
        read.range = Some(Stage::of_range(scan, read.header.clone(), range.keys_only));
        return Ok(false);
    };
    match step(replica, stage, limits) {
        Step::More(stage) => read.range = Some(stage),
        Step::Part(message, part, rest) => {
            let begun_bytes = match part {
                Part::Whole => Some(message.len()),
                Part::First { message_bytes } => Some(message_bytes),
                Part::Next | Part::Last => None,
            };
            if let Some(bytes) = begun_bytes {
                if read.answer.len() + bytes > limits.answer_bytes_max {
                    return Err(Reject::AnswerTooLarge.into());
                }
                put_range_head(&mut read.answer, bytes);
            }
            read.answer.extend_from_slice(&message);
            read.range = rest;
        }
        Step::Refused(status) => return Err(status),
        Step::Hashed(..) => unreachable!("a range is not hashed"),
    }
    Ok(false)
}

fn part(is_first: bool, is_last: bool, message_bytes: usize) -> Part {
    match (is_first, is_last) {
        (true, true) => Part::Whole,
        (true, false) => Part::First { message_bytes },
        (false, false) => Part::Next,
        (false, true) => Part::Last,
    }
}
