//! Compactions under way: the index first, in slices on this core; then the records, on the store's thread. One at a
//! time, in the order of their entries.

use std::collections::VecDeque;

use super::{cycle::Replica, file_work::FileWorks, outputs::Outputs};
use crate::{
    backend::Backend,
    host::Map,
    mvcc::{Compaction, Store},
    propose::{Reply, Ticket},
};

/// Keys of the index that one turn walks over.
const INDEX_KEYS_PER_TURN: usize = 2_000;

/// Compactions under way.
#[derive(Default)]
pub struct Compactor {
    scheduled: VecDeque<Scheduled>,
}

struct Scheduled {
    /// The walk over the index; `None` for a request that only waits for what is before it.
    compaction: Option<Compaction>,
    held: Option<(Ticket, Reply)>,
}

impl Compactor {
    /// A compaction was applied; none stands for a request that only waits. `held` is told when the records are gone.
    pub fn schedule(&mut self, compaction: Option<Compaction>, held: Option<(Ticket, Reply)>) {
        self.scheduled.push_back(Scheduled { compaction, held });
    }

    /// Gives all of them up: the store is replaced by one that has them behind it, or resumes them.
    pub fn abandon(&mut self, outputs: &mut Outputs) {
        let held = self.scheduled.drain(..).filter_map(|scheduled| scheduled.held);
        outputs.replies.extend(held);
    }

    /// Whether [`Compactor::step`] has something to do.
    pub fn has_work(&self, store: &Store) -> bool {
        !self.scheduled.is_empty() && !self.awaits_readers(store)
    }

    /// Whether the oldest waits for those who read what it takes away.
    pub fn awaits_readers(&self, store: &Store) -> bool {
        let oldest = self
            .scheduled
            .front()
            .and_then(|scheduled| scheduled.compaction.as_ref());
        oldest.is_some_and(|compaction| store.oldest_pin().is_some_and(|pinned| pinned < compaction.revision()))
    }

    /// Carries the oldest compaction on by a slice; when the index is done, the store gets the rest.
    pub fn step<M: Map>(&mut self, replica: &mut Replica<Backend<M>>, works: &mut FileWorks<M>) {
        let Some(scheduled) = self.scheduled.front_mut() else {
            return;
        };
        if let Some(compaction) = &mut scheduled.compaction {
            let (store, _) = replica.state_mut().store_and_tree();
            if !store.compact_slice(compaction, INDEX_KEYS_PER_TURN) {
                return;
            }
        }
        let scheduled = self.scheduled.pop_front().expect("just seen");
        works.compact(scheduled.compaction.map(Compaction::into_physical), scheduled.held);
    }
}
