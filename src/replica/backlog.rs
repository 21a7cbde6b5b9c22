//! Reads that may answer much, and wait: for a turn with room for their answers (a turn makes so many bytes of those and no
//! more, lest everybody waits for the answers to a few; who asks for one key passes), or for other long transactions. What waits
//! is bounded. Pure.

use std::collections::VecDeque;

use crate::{
    limits::Limits,
    propose::{Admission, Call, Ticket},
};

/// Reads that wait, in their order.
#[derive(Default)]
pub struct Backlog {
    calls: VecDeque<Call>,
    bytes: usize,
}

impl Backlog {
    /// A read is to wait, unless too much does already ([`Limits::reads_pending_bytes_max`]).
    pub fn push(&mut self, call: Call, limits: &Limits) -> Admission {
        let bytes = call.memory_bytes();
        if self.bytes + bytes > limits.reads_pending_bytes_max {
            return Admission::Refused(call);
        }
        self.bytes += bytes;
        self.calls.push_back(call);
        Admission::Held
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Call> {
        let call = self.calls.pop_front()?;
        self.bytes -= call.memory_bytes();
        Some(call)
    }

    /// Whose they are.
    pub fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.calls.iter().map(|call| &call.ticket)
    }

    /// Bytes of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        propose::{Method, Read, Request},
        wire::proto::etcdserverpb::RangeRequest,
    };

    fn list(stream: u32, key_bytes: usize) -> Call {
        let ticket = Ticket {
            connection: 0,
            incarnation: 0,
            stream,
            method: Method::Range,
        };
        let request = RangeRequest {
            key: vec![b'k'; key_bytes].into(),
            ..RangeRequest::default()
        };
        Call {
            ticket,
            request: Request::Read(Read::Range(request)),
        }
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_and_goes_in_its_order() {
        let mut backlog = Backlog::default();
        let limits = Limits {
            reads_pending_bytes_max: 3 * list(0, 100).memory_bytes() - 1,
            ..Limits::DEFAULT
        };
        for stream in [1, 3] {
            assert!(matches!(backlog.push(list(stream, 100), &limits), Admission::Held));
        }
        let refused = backlog.push(list(5, 100), &limits);
        assert!(matches!(refused, Admission::Refused(call) if call.ticket.stream == 5));
        assert_eq!(backlog.pop().unwrap().ticket.stream, 1);
        assert!(matches!(backlog.push(list(7, 100), &limits), Admission::Held));
        let rest: Vec<_> = std::iter::from_fn(|| backlog.pop())
            .map(|call| call.ticket.stream)
            .collect();
        assert_eq!(rest, [3, 7]);
        assert!(backlog.is_empty() && backlog.bytes() == 0);
    }
}
