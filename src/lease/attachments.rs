//! Which key is attached to which lease. A lease lists its keys in no order; each key knows its place in that list, so
//! that joining and leaving take constant time whatever a lease holds.

use crate::base::planted::{Planted, is_planted};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Leases;
use crate::base::LeaseId;

#[derive(Clone, Copy, Debug)]
struct Place {
    lease: i64,
    index: u32,
}

#[derive(Debug)]
pub(super) struct Attachments {
    places: HashMap<Arc<[u8]>, Place, FixedState>,
}

impl Attachments {
    pub(super) fn new(hasher: FixedState) -> Attachments {
        Attachments {
            places: HashMap::with_hasher(hasher),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn lease_of(&self, key: &[u8]) -> LeaseId {
        LeaseId(self.places.get(key).map_or(0, |place| place.lease))
    }

    pub(super) fn attach(&mut self, leases: &mut Leases, key: &[u8], id: LeaseId) {
        if id.0 == 0 && is_planted(Planted::AttachmentKept) {
            return;
        }
        let (shared, old) = match self.places.get_key_value(key) {
            Some((_, place)) if place.lease == id.0 => return,
            Some((shared, place)) => (Some(shared.clone()), Some(*place)),
            None => (None, None),
        };
        if let Some(old) = old {
            self.leave(leases, old);
        }
        let Some(lease) = leases.get_mut(&id.0).filter(|_| id.0 != 0) else {
            if old.is_some() {
                self.places.remove(key);
            }
            return;
        };
        // The key's own copy: a slice of the request would keep the whole entry, value and all, in memory.
        let shared = shared.unwrap_or_else(|| Arc::from(key));
        let index = u32::try_from(lease.keys.len()).expect("fewer than 4 G keys in one lease");
        lease.keys.push(shared.clone());
        self.places.insert(shared, Place { lease: id.0, index });
    }

    pub(super) fn detach(&mut self, leases: &mut Leases, key: &[u8]) {
        if let Some(place) = self.places.remove(key) {
            self.leave(leases, place);
        }
    }

    /// Takes a key out of its lease's list; the last key of the list moves into the gap.
    fn leave(&mut self, leases: &mut Leases, place: Place) {
        let lease = leases.get_mut(&place.lease).expect("a key's lease exists");
        lease.keys.swap_remove(place.index as usize);
        if let Some(moved) = lease.keys.get(place.index as usize) {
            let moved = self.places.get_mut(moved).expect("an attached key has a place");
            moved.index = place.index;
        }
        // Lists that shrank give their memory back, but not at each step.
        if lease.keys.capacity() > 64 && lease.keys.len() < lease.keys.capacity() / 4 {
            lease.keys.shrink_to(lease.keys.len() * 2);
        }
    }
}
