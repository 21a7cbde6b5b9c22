//! Long walks over the index on behalf of reads, in slices: lists, and the first part of HashKV. They take turns, so
//! that a short list does not wait for a long one, and none of them keeps the log waiting for more than a slice.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    cycle::{Replica, refusal},
    file_work::FileWorks,
    outputs::Outputs,
};
use crate::{
    backend::Backend,
    base::Reject,
    host::Map,
    mvcc::{HashJob, RangeEncoder, RangeScan},
    propose::{Reply, Ticket},
};

/// Keys of the index that one slice walks over.
const KEYS_PER_SLICE: usize = 1_000;
/// Records that one slice measures.
const RECORDS_PER_SLICE: usize = 500;
/// Bytes of an answer that one slice writes.
const BYTES_PER_SLICE: usize = 128 * 1024;

/// Walks under way. Each pins the revision that it reads.
#[derive(Default)]
pub struct Scans {
    turns: VecDeque<Scan>,
}

struct Scan {
    ticket: Ticket,
    pinned_revision: i64,
    stage: Stage,
}

enum Stage {
    Walk {
        scan: RangeScan,
        header: Bytes,
        keys_only: bool,
    },
    Measure(RangeEncoder),
    Write {
        encoder: RangeEncoder,
        answer: BytesMut,
    },
    /// With the store's revision when the call came.
    Hash(HashJob, i64),
}

enum Step {
    More(Stage),
    Answer(Bytes),
    Hashed(crate::mvcc::KvHasher, i64),
}

impl Scans {
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
        self.turns.push_back(Scan {
            ticket,
            pinned_revision,
            stage: Stage::Walk {
                scan,
                header,
                keys_only,
            },
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
        });
    }

    /// Gives all walks up: the store that they walk over is replaced.
    pub fn abandon(&mut self, outputs: &mut Outputs) {
        for scan in self.turns.drain(..) {
            outputs
                .replies
                .push((scan.ticket, refusal(scan.ticket, Reject::Timeout)));
        }
    }

    /// Walks under way for one connection.
    pub fn of_connection(&self, ticket: &Ticket) -> usize {
        let is_same =
            |scan: &&Scan| (scan.ticket.connection, scan.ticket.incarnation) == (ticket.connection, ticket.incarnation);
        self.turns.iter().filter(is_same).count()
    }

    /// Whether [`Scans::step`] has something to do.
    pub fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Carries the next walk on by a slice.
    pub fn step<M: Map>(&mut self, replica: &mut Replica<Backend<M>>, works: &mut FileWorks<M>, outputs: &mut Outputs) {
        let Some(Scan {
            ticket,
            pinned_revision,
            stage,
        }) = self.turns.pop_front()
        else {
            return;
        };
        match step(replica, stage) {
            Step::More(stage) => {
                self.turns.push_back(Scan {
                    ticket,
                    pinned_revision,
                    stage,
                });
                return;
            }
            Step::Answer(answer) => {
                let reply = Reply {
                    stream: ticket.stream,
                    method: ticket.method,
                    outcome: Ok(answer),
                };
                outputs.replies.push((ticket, reply));
            }
            Step::Hashed(hasher, revision) => works.hash_kv(ticket, hasher, revision),
        }
        replica.state_mut().store_and_tree().0.unpin(pinned_revision);
    }
}

fn step<M: Map>(replica: &Replica<Backend<M>>, stage: Stage) -> Step {
    let (store, tree) = (replica.state().store(), replica.state().tree());
    match stage {
        Stage::Walk {
            mut scan,
            header,
            keys_only,
        } => {
            if store.range_slice(&mut scan, KEYS_PER_SLICE) {
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
        Stage::Measure(mut encoder) => {
            if encoder.measure(tree, RECORDS_PER_SLICE) {
                let answer = BytesMut::with_capacity(encoder.encoded_len());
                Step::More(Stage::Write { encoder, answer })
            } else {
                Step::More(Stage::Measure(encoder))
            }
        }
        Stage::Write {
            mut encoder,
            mut answer,
        } => match encoder.chunk(tree, BYTES_PER_SLICE) {
            Some(chunk) => {
                answer.extend_from_slice(&chunk);
                Step::More(Stage::Write { encoder, answer })
            }
            None => Step::Answer(answer.freeze()),
        },
        Stage::Hash(mut job, revision) => {
            if store.hash_slice(&mut job, KEYS_PER_SLICE) {
                Step::Hashed(job.into_hasher(), revision)
            } else {
                Step::More(Stage::Hash(job, revision))
            }
        }
    }
}
