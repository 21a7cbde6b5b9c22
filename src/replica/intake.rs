//! Writes that wait until there is room for them: clients may send faster than the disk takes in. Writes wait in their
//! order while too much is on its way through the log, or while what is applied waits for the tree's file; reads pass them,
//! and small writes do while there is room in a reserve of their own: who writes little does not wait for who writes much.
//! What waits is bounded, too; beyond, writes are refused. None waits longer than its client would for an outcome: a write
//! that is carried out long after everybody has given it up is a surprise. Pure.

use std::{collections::VecDeque, time::Duration};

use crate::{
    base::Monotonic,
    limits::Limits,
    propose::{Admission, Call, Request},
};

/// Writes that wait.
pub struct Intake {
    limits: Limits,
    patience: Duration,
    held: VecDeque<Held>,
    held_bytes: usize,
}

struct Held {
    call: Call,
    bytes: usize,
    until: Monotonic,
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
    /// Nothing waits; what will, does so for as long as `patience`.
    pub fn new(limits: Limits, patience: Duration) -> Intake {
        Intake {
            limits,
            patience,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Looks at a call that has come.
    pub fn take(&mut self, call: Call, under_way: UnderWay, now: Monotonic) -> Admission {
        if !matches!(call.request, Request::Write(_)) {
            return Admission::Now(call);
        }
        if self.held.is_empty() && under_way.has_room(&self.limits) {
            return Admission::Now(call);
        }
        let bytes = call.request.message_bytes();
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
        let until = now + self.patience;
        self.held.push_back(Held { call, bytes, until });
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

    /// The next that has waited for too long.
    pub fn expire(&mut self, now: Monotonic) -> Option<Call> {
        let is_late = self.held.front().is_some_and(|held| held.until <= now);
        if is_late { self.pop() } else { None }
    }

    /// How many wait, and how many bytes they have.
    pub fn held(&self) -> (usize, usize) {
        (self.held.len(), self.held_bytes)
    }

    /// The next that waits, room or not: the loop ends.
    pub fn pop(&mut self) -> Option<Call> {
        let Held { call, bytes, .. } = self.held.pop_front()?;
        self.held_bytes -= bytes;
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        propose::{Method, Read, Ticket, Write},
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

    const NOW: Monotonic = Monotonic(1_000);
    const PATIENCE: Duration = Duration::from_secs(7);
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
        let mut intake = Intake::new(Limits::DEFAULT, PATIENCE);
        let idle = UnderWay::default();
        assert!(matches!(intake.take(put(1, LARGE), idle, NOW), Admission::Now(_)));
        assert!(matches!(intake.take(put(3, LARGE), FULL, NOW), Admission::Held));
        assert!(matches!(intake.take(put(5, LARGE), BEHIND, NOW), Admission::Held));
        let read = call(7, Request::Read(Read::Status));
        assert!(matches!(intake.take(read, FULL, NOW), Admission::Now(_)));
        assert!(intake.release(BEHIND).is_none());
        // There is room again, but others were first.
        assert!(matches!(intake.take(put(9, LARGE), idle, NOW), Admission::Held));
        let order: Vec<u32> = std::iter::from_fn(|| intake.release(idle))
            .map(|call| call.ticket.stream)
            .collect();
        assert_eq!(order, [3, 5, 9]);
        assert!(matches!(intake.take(put(11, LARGE), idle, NOW), Admission::Now(_)));
    }

    #[test]
    fn small_writes_pass_large_ones_until_their_reserve_is_gone() {
        let mut intake = Intake::new(Limits::DEFAULT, PATIENCE);
        assert!(matches!(intake.take(put(1, LARGE), BEHIND, NOW), Admission::Held));
        assert!(matches!(intake.take(put(3, 10), BEHIND, NOW), Admission::Now(_)));
        let exhausted = UnderWay {
            tree_bytes: Limits::DEFAULT.backend_open_bytes_max + Limits::DEFAULT.small_writes_reserve_bytes,
            ..BEHIND
        };
        assert!(matches!(intake.take(put(5, 10), exhausted, NOW), Admission::Held));
    }

    #[test]
    fn nothing_waits_for_longer_than_anybody_would() {
        let mut intake = Intake::new(Limits::DEFAULT, PATIENCE);
        assert!(matches!(intake.take(put(1, LARGE), FULL, NOW), Admission::Held));
        let later = NOW + Duration::from_secs(1);
        assert!(matches!(intake.take(put(3, LARGE), FULL, later), Admission::Held));
        assert!(intake.expire(later).is_none());
        assert_eq!(intake.expire(NOW + PATIENCE).map(|call| call.ticket.stream), Some(1));
        assert!(intake.expire(NOW + PATIENCE).is_none());
        assert_eq!(intake.held().0, 1);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut intake = Intake::new(Limits::DEFAULT, PATIENCE);
        let mut held = 0;
        while matches!(intake.take(put(1, 1 << 20), FULL, NOW), Admission::Held) {
            held += 1;
        }
        assert_eq!(held, (Limits::DEFAULT.proposals_pending_bytes_max >> 20) - 1);
        assert!(intake.pop().is_some());
        assert!(matches!(intake.take(put(1, 1 << 20), FULL, NOW), Admission::Held));
    }
}
