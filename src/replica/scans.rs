//! Long walks over the index on behalf of reads, in slices: lists, and the first part of HashKV. They take turns, so
//! that a short list does not wait for a long one, and none of them keeps the log waiting for more than a slice.
//!
//! A list's answer leaves in parts, as its client takes them, and is never in memory as a whole; a list whose client is slow
//! rests. It holds back compaction of what it reads, so after [`PATIENCE`] the rest is written to memory all the same.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{
    cycle::{Replica, refusal},
    file_work::FileWorks,
    outputs::Outputs,
};
use crate::{
    backend::Backend,
    base::{Monotonic, Reject},
    host::Map,
    limits::Limits,
    mvcc::{HashJob, RangeEncoder, RangeList, RangeScan},
    propose::{Part, Reply, Ticket},
    rpc::{
        desk::Desk,
        status::{self, Status},
    },
};

/// How long a list waits for its client.
const PATIENCE: Duration = Duration::from_secs(10);

/// Walks under way. Each pins the revision that it reads.
pub struct Scans {
    limits: Limits,
    turns: VecDeque<Scan>,
    /// Lists that rest until their clients have taken more of what was sent.
    resting: Vec<Scan>,
}

struct Scan {
    ticket: Ticket,
    pinned_revision: i64,
    stage: Stage,
    /// Until when the list waits for its client, once there is something for it.
    patient_until: Option<Monotonic>,
}

enum Stage {
    Walk {
        scan: RangeScan,
        header: Bytes,
        keys_only: bool,
    },
    /// A sorted list, whose keys are known.
    Measure(RangeEncoder),
    Write(RangeEncoder),
    /// A list in the index's order.
    MeasureList(Box<RangeList>),
    WriteList(Box<RangeList>),
    /// With the store's revision when the call came.
    Hash(HashJob, i64),
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
        }
    }

    /// Begins to answer a range. `header` is the encoded response header.
    pub fn begin_range<M: Map>(
        &mut self,
        replica: &mut Replica<Backend<M>>,
        ticket: Ticket,
        scan: RangeScan,
        header: Bytes,
        keys_only: bool,
    ) {
        let pinned_revision = scan.revision();
        replica.state_mut().store_and_tree().0.pin(pinned_revision);
        let stage = match scan.is_plain() {
            true => Stage::MeasureList(Box::new(RangeList::new(scan, header, keys_only))),
            false => Stage::Walk {
                scan,
                header,
                keys_only,
            },
        };
        self.turns.push_back(Scan {
            ticket,
            pinned_revision,
            stage,
            patient_until: None,
        });
    }

    /// Begins a HashKV.
    pub fn begin_hash<M: Map>(&mut self, replica: &mut Replica<Backend<M>>, ticket: Ticket, job: HashJob) {
        // Any later compaction waits, also one below the hashed revision: its records count. Behind the walk the store
        // keeps the order.
        let pinned_revision = job.compact_revision();
        let current_revision = replica.state().store().current_revision();
        replica.state_mut().store_and_tree().0.pin(pinned_revision);
        self.turns.push_back(Scan {
            ticket,
            pinned_revision,
            stage: Stage::Hash(job, current_revision),
            patient_until: None,
        });
    }

    /// Gives all walks up: the store that they walk over is replaced.
    pub fn abandon(&mut self, outputs: &mut Outputs) {
        for scan in self.turns.drain(..).chain(self.resting.drain(..)) {
            outputs
                .replies
                .push((scan.ticket, refusal(scan.ticket, Reject::Timeout)));
        }
    }

    /// Walks under way for one connection.
    pub fn of_connection(&self, ticket: &Ticket) -> usize {
        let is_same =
            |scan: &&Scan| (scan.ticket.connection, scan.ticket.incarnation) == (ticket.connection, ticket.incarnation);
        self.turns.iter().chain(&self.resting).filter(is_same).count()
    }

    /// Whether [`Scans::step`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Carries the next walk on by a slice.
    pub fn step<M: Map>(
        &mut self,
        replica: &mut Replica<Backend<M>>,
        works: &mut FileWorks<M>,
        desk: &Desk,
        now: Monotonic,
        outputs: &mut Outputs,
    ) {
        self.wake(desk, now);
        let Some(mut scan) = self.turns.pop_front() else {
            return;
        };
        if let Stage::Write(_) | Stage::WriteList(_) = scan.stage {
            let patient_until = *scan.patient_until.get_or_insert(now + PATIENCE);
            match desk.unsent_bytes(&scan.ticket) {
                None => return replica.state_mut().store_and_tree().0.unpin(scan.pinned_revision),
                Some(unsent) if unsent > self.limits.list_unsent_bytes_max && now < patient_until => {
                    desk.await_room(&scan.ticket);
                    return self.resting.push(scan);
                }
                Some(_) => {}
            }
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
                let reply = Reply {
                    stream: ticket.stream,
                    method: ticket.method,
                    outcome: Err(status),
                    part: Part::Whole,
                };
                outputs.replies.push((ticket, reply));
                None
            }
            Step::Hashed(hasher, revision) => {
                works.hash_kv(ticket, hasher, revision);
                None
            }
        };
        match rest {
            Some(stage) => self.turns.push_back(Scan { stage, ..scan }),
            None => replica.state_mut().store_and_tree().0.unpin(scan.pinned_revision),
        }
    }

    /// Lists whose clients have room again, are gone, or have been waited for long enough, go on.
    fn wake(&mut self, desk: &Desk, now: Monotonic) {
        let is_impatient = |scan: &Scan| scan.patient_until.is_some_and(|until| until <= now);
        if desk.take_room_made() || self.resting.iter().any(is_impatient) {
            self.turns.extend(self.resting.drain(..));
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
                let encoder = RangeEncoder::new(&header, scan.finish(tree), keys_only);
                Step::More(Stage::Measure(encoder))
            } else {
                Step::More(Stage::Walk {
                    scan,
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
    }
}

fn part(is_first: bool, is_last: bool, message_bytes: usize) -> Part {
    match (is_first, is_last) {
        (true, true) => Part::Whole,
        (true, false) => Part::First { message_bytes },
        (false, false) => Part::Next,
        (false, true) => Part::Last,
    }
}
