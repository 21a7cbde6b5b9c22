//! From keys to the watchers that are to hear of them.
//!
//! Watchers of the same keys stand in one list: what one of them is told, all are told, so it is put together once for
//! the list. Single keys are found in a hash table, ranges in an interval tree.

use bytes::Bytes;
use foldhash::quality::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use super::{interval::IntervalTree, spec::Keys};

/// Names a watcher of the hub.
pub(super) type WatcherKey = usize;

pub(super) struct Interest {
    lists: Slab<List>,
    single: HashMap<Bytes, usize, FixedState>,
    ranges: IntervalTree,
    touched: Vec<usize>,
}

/// Watchers of the same keys.
pub(super) struct List {
    pub watchers: Vec<WatcherKey>,
    /// Numbers of the events that are to be told, while a batch is matched.
    pub hits: Vec<u32>,
}

/// Where a watcher stands, so that it is taken away without a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    list: usize,
    position: usize,
}

impl Interest {
    /// `seed` keeps clients from choosing keys that collide.
    pub fn new(seed: u64) -> Interest {
        Interest {
            lists: Slab::new(),
            single: HashMap::with_hasher(FixedState::with_seed(seed)),
            ranges: IntervalTree::new(seed),
            touched: Vec::new(),
        }
    }

    pub fn insert(&mut self, keys: &Keys, watcher: WatcherKey) -> Place {
        let lists = &mut self.lists;
        let mut new_list = || {
            lists.insert(List {
                watchers: Vec::new(),
                hits: Vec::new(),
            })
        };
        let list = match keys {
            Keys::One(key) => *self.single.entry(key.clone()).or_insert_with(&mut new_list),
            Keys::Range(start, end) => match self.ranges.find(start, end) {
                Some(list) => list,
                None => {
                    let list = new_list();
                    self.ranges.insert(start.clone(), end.clone(), list);
                    list
                }
            },
        };
        let watchers = &mut self.lists[list].watchers;
        watchers.push(watcher);
        Place {
            list,
            position: watchers.len() - 1,
        }
    }

    /// Takes a watcher away; the watcher that stands in its place now, if another does.
    pub fn remove(&mut self, keys: &Keys, place: Place) -> Option<WatcherKey> {
        let watchers = &mut self.lists[place.list].watchers;
        watchers.swap_remove(place.position);
        let moved = watchers.get(place.position).copied();
        if watchers.is_empty() {
            self.lists.remove(place.list);
            match keys {
                Keys::One(key) => _ = self.single.remove(key),
                Keys::Range(start, end) => self.ranges.remove(start, end),
            }
        }
        moved
    }

    /// Whether any watcher wants to hear of the key.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.single.contains_key(key) {
            return true;
        }
        let mut is_hit = false;
        self.ranges.stab(key, &mut |_| is_hit = true);
        is_hit
    }

    /// Notes that the event of this number is about `key`.
    pub fn hit(&mut self, key: &[u8], event: u32) {
        let (lists, touched) = (&mut self.lists, &mut self.touched);
        let mut note = |list: usize| {
            let hits = &mut lists[list].hits;
            if hits.is_empty() {
                touched.push(list);
            }
            hits.push(event);
        };
        if let Some(list) = self.single.get(key) {
            note(*list);
        }
        if !self.ranges.is_empty() {
            self.ranges.stab(key, &mut note);
        }
    }

    /// One of the lists that were hit, to be told; its hits are taken out.
    pub fn next_touched(&mut self) -> Option<(&[WatcherKey], Vec<u32>)> {
        let list = &mut self.lists[self.touched.pop()?];
        Some((&list.watchers, std::mem::take(&mut list.hits)))
    }
}

impl Place {
    /// The same watcher after another was taken away from before it.
    pub fn moved_to(self, place: Place) -> Place {
        Place {
            list: self.list,
            position: place.position,
        }
    }
}
