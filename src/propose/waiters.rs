//! Who waits for which proposal, and until when.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::{Monotonic, RequestId};

/// Waiting requests by id. All wait equally long, so that the oldest is always the next to time out. The ids are our own:
/// no client chooses what is hashed.
#[derive(Debug)]
pub struct Waiters<T> {
    waiting: HashMap<RequestId, T, FixedState>,
    deadlines: VecDeque<(Monotonic, RequestId)>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters {
            waiting: HashMap::with_hasher(FixedState::default()),
            deadlines: VecDeque::new(),
        }
    }
}

impl<T> Waiters<T> {
    /// Waits for `id` until `deadline`, which is not before that of those who wait already.
    pub fn wait(&mut self, id: RequestId, deadline: Monotonic, waiter: T) {
        debug_assert!(self.deadlines.back().is_none_or(|last| last.0 <= deadline));
        let previous = self.waiting.insert(id, waiter);
        assert!(previous.is_none(), "request id {id} is waited for already");
        self.deadlines.push_back((deadline, id));
    }

    /// The wait for `id` is over. `None` if nobody waits (any more), or the request came from another member.
    pub fn complete(&mut self, id: RequestId) -> Option<T> {
        let waiter = self.waiting.remove(&id)?;
        // Proposals commit in the order in which they were made, so that what is complete is at the front.
        while let Some((_, front)) = self.deadlines.front() {
            if self.waiting.contains_key(front) {
                break;
            }
            self.deadlines.pop_front();
        }
        Some(waiter)
    }

    /// The next waiter whose time is over.
    pub fn expire(&mut self, now: Monotonic) -> Option<T> {
        while let Some((deadline, id)) = self.deadlines.front() {
            if *deadline > now {
                return None;
            }
            let id = *id;
            self.deadlines.pop_front();
            if let Some(waiter) = self.waiting.remove(&id) {
                return Some(waiter);
            }
        }
        None
    }

    /// Ends all waits, oldest first.
    pub fn drain(&mut self) -> Vec<T> {
        let ids = std::mem::take(&mut self.deadlines);
        ids.into_iter().filter_map(|(_, id)| self.waiting.remove(&id)).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_is_completed_or_expires_but_not_both() {
        let mut waiters = Waiters::default();
        for n in 1..=4 {
            waiters.wait(RequestId(n), Monotonic(n * 10), n);
        }
        assert_eq!(waiters.complete(RequestId(2)), Some(2));
        assert_eq!(waiters.complete(RequestId(2)), None);
        assert_eq!(waiters.expire(Monotonic(9)), None);
        assert_eq!(waiters.expire(Monotonic(30)), Some(1));
        assert_eq!(waiters.expire(Monotonic(30)), Some(3));
        assert_eq!(waiters.expire(Monotonic(30)), None);
        assert_eq!(waiters.complete(RequestId(1)), None);
        assert_eq!(waiters.drain(), [4]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn completed_waits_leave_nothing_behind() {
        let mut waiters = Waiters::default();
        for n in 1..=1000 {
            waiters.wait(RequestId(n), Monotonic(n), ());
        }
        for n in 1..=1000 {
            waiters.complete(RequestId(n));
        }
        assert_eq!((waiters.len(), waiters.deadlines.len()), (0, 0));
    }
}
