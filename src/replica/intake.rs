//! Writes that wait until there is room for them: clients may send faster than the disk takes in. Writes wait in their
//! order while too much is on its way through the log, or while what is applied waits for the tree's file; reads pass them,
//! and small writes do while there is room in a reserve of their own: who writes little does not wait for who writes much.
//! What waits is bounded, too; beyond, writes are refused. Pure.

use std::collections::VecDeque;

use crate::{
    base::RequestId,
    limits::Limits,
    propose::{Call, Request, Write},
};

/// Writes that wait.
pub struct Intake {
    limits: Limits,
    held: VecDeque<(Call, usize)>,
    held_bytes: usize,
}

/// What is to become of a call.
#[derive(Debug)]
pub enum Admission {
    /// It goes on.
    Now(Call),
    /// It waits.
    Held,
    /// Too much waits already.
    Refused(Call),
}

/// What is under way, by which room is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Bytes of entries on their way through the log.
    pub log_bytes: usize,
    /// Bytes in the open batch, if the one before it is still being written: then it cannot be handed over.
    pub tree_bytes: usize,
}

impl UnderWay {
    fn has_room(self, limits: &Limits) -> bool {
        self.has_room_beyond(limits, 0)
    }

    fn has_room_beyond(self, limits: &Limits, reserve: usize) -> bool {
        self.log_bytes < limits.proposals_under_way_bytes_max + reserve
            && self.tree_bytes < limits.backend_open_bytes_max + reserve
    }
}

impl Intake {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Intake {
        Intake {
            limits,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Looks at a call that has come.
    pub fn take(&mut self, call: Call, under_way: UnderWay) -> Admission {
        let Request::Write(write) = &call.request else {
            return Admission::Now(call);
        };
        if self.held.is_empty() && under_way.has_room(&self.limits) {
            return Admission::Now(call);
        }
        let bytes = bytes_of(write);
        if bytes <= self.limits.small_write_bytes_max
            && under_way.has_room_beyond(&self.limits, self.limits.small_writes_reserve_bytes)
        {
            return Admission::Now(call);
        }
        if self.held_bytes + bytes > self.limits.proposals_pending_bytes_max
            || self.held.len() >= self.limits.proposals_pending_max
        {
            return Admission::Refused(call);
        }
        self.held_bytes += bytes;
        self.held.push_back((call, bytes));
        Admission::Held
    }

    /// Whether [`Intake::release`] would give one.
    pub fn has_ready(&self, under_way: UnderWay) -> bool {
        !self.held.is_empty() && under_way.has_room(&self.limits)
    }

    /// The next that waits, if there is room for it now.
    pub fn release(&mut self, under_way: UnderWay) -> Option<Call> {
        if under_way.has_room(&self.limits) {
            self.pop()
        } else {
            None
        }
    }

    /// How many wait, and how many bytes they have.
    pub fn held(&self) -> (usize, usize) {
        (self.held.len(), self.held_bytes)
    }

    /// The next that waits, room or not: the loop ends.
    pub fn pop(&mut self) -> Option<Call> {
        let (call, bytes) = self.held.pop_front()?;
        self.held_bytes -= bytes;
        Some(call)
    }
}

fn bytes_of(write: &Write) -> usize {
    write.encoded_len(RequestId(0))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        propose::{Method, Read, Ticket},
        wire::proto::etcdserverpb::PutRequest,
    };

    fn call(stream: u32, request: Request) -> Call {
        let ticket = Ticket {
            connection: 0,
            incarnation: 0,
            stream,
            method: Method::Put,
        };
        Call { ticket, request }
    }

    fn put(stream: u32, bytes: usize) -> Call {
        let put = PutRequest {
            key: Bytes::from_static(b"key"),
            value: vec![0; bytes].into(),
            ..Default::default()
        };
        call(stream, Request::Write(Write::Put(put)))
    }

    const LARGE: usize = Limits::DEFAULT.small_write_bytes_max + 1;
    const FULL: UnderWay = UnderWay {
        log_bytes: Limits::DEFAULT.proposals_under_way_bytes_max,
        tree_bytes: 0,
    };
    const BEHIND: UnderWay = UnderWay {
        log_bytes: 0,
        tree_bytes: Limits::DEFAULT.backend_open_bytes_max,
    };

    #[test]
    fn writes_wait_in_their_order_and_reads_pass() {
        let mut intake = Intake::new(Limits::DEFAULT);
        let idle = UnderWay::default();
        assert!(matches!(intake.take(put(1, LARGE), idle), Admission::Now(_)));
        assert!(matches!(intake.take(put(3, LARGE), FULL), Admission::Held));
        assert!(matches!(intake.take(put(5, LARGE), BEHIND), Admission::Held));
        let read = call(7, Request::Read(Read::Status));
        assert!(matches!(intake.take(read, FULL), Admission::Now(_)));
        assert!(intake.release(BEHIND).is_none());
        // There is room again, but others were first.
        assert!(matches!(intake.take(put(9, LARGE), idle), Admission::Held));
        let order: Vec<u32> = std::iter::from_fn(|| intake.release(idle))
            .map(|call| call.ticket.stream)
            .collect();
        assert_eq!(order, [3, 5, 9]);
        assert!(matches!(intake.take(put(11, LARGE), idle), Admission::Now(_)));
    }

    #[test]
    fn small_writes_pass_large_ones_until_their_reserve_is_gone() {
        let mut intake = Intake::new(Limits::DEFAULT);
        assert!(matches!(intake.take(put(1, LARGE), BEHIND), Admission::Held));
        assert!(matches!(intake.take(put(3, 10), BEHIND), Admission::Now(_)));
        let exhausted = UnderWay {
            tree_bytes: Limits::DEFAULT.backend_open_bytes_max + Limits::DEFAULT.small_writes_reserve_bytes,
            ..BEHIND
        };
        assert!(matches!(intake.take(put(5, 10), exhausted), Admission::Held));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut intake = Intake::new(Limits::DEFAULT);
        let mut held = 0;
        while matches!(intake.take(put(1, 1 << 20), FULL), Admission::Held) {
            held += 1;
        }
        assert_eq!(held, (Limits::DEFAULT.proposals_pending_bytes_max >> 20) - 1);
        assert!(intake.pop().is_some());
        assert!(matches!(intake.take(put(1, 1 << 20), FULL), Admission::Held));
    }
}
