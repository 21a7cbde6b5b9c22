//! Proposals between their admission and raft: they wait for a leader, in order and not longer than those who wait for
//! their outcome.

use bytes::Bytes;

use crate::base::Monotonic;

/// Whose wish a proposal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anybody's: a follower sends it to the leader.
    Member,
    /// The leader's alone, by what it knows as the leader: one that leads no longer must not have it carried out by the
    /// next (a lease that it saw end may have been renewed there since).
    Leader,
}

#[derive(Debug)]
struct Proposal {
    deadline: Monotonic,
    origin: Origin,
    data: Bytes,
}

/// Proposals that raft has not been given.
#[derive(Debug, Default)]
pub struct Proposals {
    waiting: Vec<Proposal>,
}

impl Proposals {
    /// Adds an entry's data. Deadlines come in order.
    pub fn push(&mut self, deadline: Monotonic, origin: Origin, data: Bytes) {
        self.waiting.push(Proposal { deadline, origin, data });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All of them, for the log of a leader.
    pub fn drain(&mut self) -> impl Iterator<Item = Bytes> {
        self.waiting.drain(..).map(|proposal| proposal.data)
    }

    /// The next that go to another member's log in one message; empty at the end. What only a leader may propose is
    /// dropped. `bytes_max` bounds the message; one is taken whatever its size.
    pub fn drain_to_leader(&mut self, bytes_max: usize) -> impl Iterator<Item = Bytes> {
        self.waiting.retain(|proposal| proposal.origin == Origin::Member);
        let mut bytes = 0;
        let is_within = |proposal: &&Proposal| {
            let is_first = bytes == 0;
            bytes += proposal.data.len() + 1;
            is_first || bytes <= bytes_max
        };
        let count = self.waiting.iter().take_while(is_within).count();
        self.waiting.drain(..count).map(|proposal| proposal.data)
    }

    /// Drops those for which nobody waits any more.
    pub fn expire(&mut self, now: Monotonic) {
        let count = self
            .waiting
            .iter()
            .take_while(|proposal| proposal.deadline <= now)
            .count();
        self.waiting.drain(..count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1000;

    #[test]
    fn a_follower_passes_on_what_is_anybodys_in_messages_of_bounded_size() {
        let mut proposals = Proposals::default();
        let big = Bytes::from(vec![0; BYTES_MAX]);
        for data in [big.clone(), Bytes::from_static(b"a"), Bytes::from_static(b"b")] {
            proposals.push(Monotonic(1), Origin::Member, data);
            proposals.push(Monotonic(1), Origin::Leader, Bytes::from_static(b"of the leader"));
        }
        assert_eq!(proposals.drain_to_leader(BYTES_MAX).collect::<Vec<_>>(), [big]);
        assert_eq!(proposals.drain_to_leader(BYTES_MAX).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(proposals.drain_to_leader(BYTES_MAX).count(), 0);
        assert!(proposals.is_empty());
    }

    #[test]
    fn what_nobody_waits_for_is_never_proposed() {
        let mut proposals = Proposals::default();
        for deadline in 1..=3 {
            proposals.push(Monotonic(deadline), Origin::Member, Bytes::from(vec![deadline as u8]));
        }
        proposals.expire(Monotonic(2));
        assert_eq!(proposals.drain().collect::<Vec<_>>(), [vec![3]]);
    }
}
