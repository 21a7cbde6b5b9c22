//! Which pages may be used, and where new ones go: together, wherever there is room for that, since scattered writes
//! cost the log's tail a factor of ten.
//!
//! A page that transaction `n` gave up was reachable from versions before `n`, back to the one that made it. It is
//! pending until none of these lives: a version that is held for long (a snapshot on a slow connection) keeps its own pages,
//! and not those that came and went since.

use crate::base::planted::{Planted, is_planted};
use std::collections::{BTreeMap, VecDeque};

/// Free and pending pages.
#[derive(Debug, Default)]
pub(super) struct Freelist {
    /// First page of each free extent, and its length. Neighbours are joined.
    extents: BTreeMap<u64, u64>,
    free_count: u64,
    /// What each transaction gave up, in order of transactions.
    pending: VecDeque<Pending>,
    pending_count: u64,
    /// First page and transaction of runs that are younger than the oldest version that lives. What is not in here is
    /// older, or there is no need to know.
    born: BTreeMap<u64, u64>,
    oldest: u64,
}

/// Runs given up by one transaction.
#[derive(Debug)]
struct Pending {
    txid: u64,
    runs: Vec<Run>,
    /// Transactions that made them; 0 for long ago.
    born: Vec<u64>,
    /// The youngest living version from before `txid`, when this was last looked through.
    youngest_reader: Option<u64>,
}

/// Pages that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) count: u64,
}

/// Free extents shorter than this are left for small commits, as long as they do not add up: 64 KiB of 4 KiB pages.
const RUN_PAGES_MIN: u64 = 16;
/// Short extents are used by large commits, too, when they make up more than this part of the file.
const SCATTERED_PART_MAX: u64 = 4;

impl Freelist {
    /// A list with the pages for which `is_used` says no, from 2 up to `high_water`.
    pub(super) fn rebuild(high_water: u64, is_used: impl Fn(u64) -> bool) -> Freelist {
        let mut list = Freelist::default();
        let mut start = None;
        for id in 2..=high_water {
            let is_free = id < high_water && !is_used(id);
            match (start, is_free) {
                (None, true) => start = Some(id),
                (Some(id_first), false) => {
                    list.extents.insert(id_first, id - id_first);
                    list.free_count += id - id_first;
                    start = None;
                }
                _ => {}
            }
        }
        list
    }

    /// Pages that may be used now.
    pub(super) fn free_count(&self) -> u64 {
        self.free_count
    }

    /// Pages that some version may still need.
    #[cfg(test)]
    pub(super) fn pending_count(&self) -> u64 {
        self.pending_count
    }

    /// Free extents, ascending.
    pub(super) fn extents(&self) -> impl Iterator<Item = Run> {
        self.extents.iter().map(|(id, count)| Run { id: *id, count: *count })
    }

    /// Pages given up by transaction `txid`, the newest so far.
    pub(super) fn free(&mut self, txid: u64, runs: Vec<Run>) {
        assert!(self.pending.back().is_none_or(|newest| newest.txid < txid));
        self.pending_count += runs.iter().map(|run| run.count).sum::<u64>();
        if !runs.is_empty() {
            let born = runs.iter().map(|run| self.born.remove(&run.id).unwrap_or(0)).collect();
            self.pending.push_back(Pending {
                txid,
                runs,
                born,
                youngest_reader: None,
            });
        }
    }

    /// Frees what none of the living versions reaches; `living` ascends and has the newest version at least.
    pub(super) fn release(&mut self, living: &[u64]) {
        let living = match is_planted(Planted::PagesReusedEarly) {
            true => &living[living.len() - 1..],
            false => living,
        };
        let oldest = living.first().copied().unwrap_or(u64::MAX);
        if oldest > self.oldest {
            self.oldest = oldest;
            self.born.retain(|_, born| *born > oldest);
        }
        let mut released = Vec::new();
        self.pending.retain_mut(|pending| {
            let older = living.partition_point(|version| *version < pending.txid);
            let Some(youngest) = older.checked_sub(1).map(|index| living[index]) else {
                released.append(&mut pending.runs);
                return false;
            };
            if pending.youngest_reader.replace(youngest) != Some(youngest) {
                pending.release_younger(youngest, &mut released);
            }
            !pending.runs.is_empty()
        });
        for run in released {
            self.pending_count -= run.count;
            self.insert(run);
        }
    }

    fn insert(&mut self, run: Run) {
        let mut run = run;
        self.free_count += run.count;
        if let Some((before, count)) = self
            .extents
            .range(..run.id)
            .next_back()
            .map(|(id, count)| (*id, *count))
        {
            assert!(before + count <= run.id, "page {} freed twice", run.id);
            if before + count == run.id {
                run = Run {
                    id: before,
                    count: count + run.count,
                };
            }
        }
        let end = run.id + run.count;
        if let Some((after, count)) = self.extents.range(run.id + 1..).next().map(|(id, count)| (*id, *count)) {
            assert!(end <= after, "page {after} freed twice");
            if end == after {
                self.extents.remove(&after);
                run.count += count;
            }
        }
        self.extents.insert(run.id, run.count);
    }

    fn remove(&mut self, extent: Run, count: u64) {
        assert!(count <= extent.count);
        self.extents.remove(&extent.id);
        if count < extent.count {
            self.extents.insert(extent.id + count, extent.count - count);
        }
        self.free_count -= count;
    }

    /// Places runs of transaction `txid`, of the given lengths and in their order: their first pages. All in one extent, the smallest that has room;
    /// else in the longest extents there are; what is left goes to the end of the file.
    pub(super) fn place(&mut self, txid: u64, counts: &[u64], high_water: &mut u64) -> Vec<u64> {
        let total: u64 = counts.iter().sum();
        let mut placed = Vec::with_capacity(counts.len());
        let best = self
            .extents()
            .filter(|extent| extent.count >= total)
            .min_by_key(|extent| extent.count);
        let candidates = match best {
            Some(extent) => vec![extent],
            None => self.place_candidates(),
        };
        let mut counts = counts.iter().copied().peekable();
        for extent in candidates {
            let mut taken = 0;
            while let Some(count) = counts.next_if(|count| taken + count <= extent.count) {
                placed.push(extent.id + taken);
                taken += count;
            }
            if taken > 0 {
                self.remove(extent, taken);
            }
            if counts.peek().is_none() {
                break;
            }
        }
        for count in counts {
            placed.push(*high_water);
            *high_water += count;
        }
        self.born.extend(placed.iter().map(|id| (*id, txid)));
        placed
    }

    /// Extents worth using for a commit that does not fit into any, the longest first.
    fn place_candidates(&self) -> Vec<Run> {
        let scattered: u64 = self
            .extents()
            .filter(|extent| extent.count < RUN_PAGES_MIN)
            .map(|extent| extent.count)
            .sum();
        let total = self.extents.last_key_value().map_or(0, |(id, count)| id + count);
        let count_min = if scattered > total / SCATTERED_PART_MAX {
            1
        } else {
            RUN_PAGES_MIN
        };
        let mut candidates: Vec<_> = self.extents().filter(|extent| extent.count >= count_min).collect();
        candidates.sort_unstable_by_key(|extent| (u64::MAX - extent.count, extent.id));
        candidates
    }
}

impl Pending {
    /// Takes out what was made after version `reader`, which therefore does not reach it.
    fn release_younger(&mut self, reader: u64, released: &mut Vec<Run>) {
        let mut kept = 0;
        for index in 0..self.runs.len() {
            if self.born[index] > reader {
                released.push(self.runs[index]);
            } else {
                (self.runs[kept], self.born[kept]) = (self.runs[index], self.born[index]);
                kept += 1;
            }
        }
        self.runs.truncate(kept);
        self.born.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_commit_goes_to_the_smallest_extent_that_has_room_for_all_of_it() {
        let mut list = Freelist::rebuild(100, |id| {
            !(10..15).contains(&id) && !(20..30).contains(&id) && !(50..90).contains(&id)
        });
        assert_eq!(list.free_count(), 55);
        let mut high_water = 100;
        assert_eq!(list.place(1, &[1, 3, 2], &mut high_water), [20, 21, 24]);
        assert_eq!(list.place(1, &[1, 1], &mut high_water), [26, 27]);
        // Too long for any: the long extent is used up, short ones are spared, the rest goes to the end.
        assert_eq!(list.place(1, &[39, 5], &mut high_water), [50, 100]);
        assert_eq!(high_water, 105);
    }

    #[test]
    fn pages_are_pending_while_an_older_version_lives() {
        let mut list = Freelist::default();
        list.free(5, vec![Run { id: 10, count: 2 }]);
        list.free(6, vec![Run { id: 12, count: 1 }]);
        list.release(&[4, 6]);
        assert_eq!((list.free_count(), list.pending_count()), (0, 3));
        list.release(&[5, 6]);
        assert_eq!((list.free_count(), list.pending_count()), (2, 1));
        list.release(&[9]);
        assert_eq!(list.extents().collect::<Vec<_>>(), [Run { id: 10, count: 3 }]);
    }

    #[test]
    fn a_version_held_for_long_keeps_its_own_pages_only() {
        let mut list = Freelist::default();
        let mut high_water = 2;
        let held = list.place(10, &[4], &mut high_water);
        let mut previous = list.place(11, &[3], &mut high_water);
        list.free(11, vec![Run { id: held[0], count: 4 }]);
        for txid in 12..100 {
            list.release(&[10, txid - 1]);
            let next = list.place(txid, &[3], &mut high_water);
            list.free(
                txid,
                vec![Run {
                    id: previous[0],
                    count: 3,
                }],
            );
            previous = next;
        }
        assert_eq!(high_water, 2 + 4 + 2 * 3);
        list.release(&[99]);
        assert_eq!((list.pending_count(), list.free_count()), (0, 7));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_page_is_given_twice_and_none_is_lost_or_taken_from_a_reader(
            steps in prop::collection::vec((prop::collection::vec(1u64..9, 1..12), any::<u32>()), 1..40),
        ) {
            let mut list = Freelist::default();
            let mut high_water = 2;
            let mut used: Vec<Run> = Vec::new();
            // Versions that are held, and what they reach.
            let mut living: BTreeMap<u64, Vec<Run>> = BTreeMap::from([(0, Vec::new())]);
            for (txid, (counts, choice)) in steps.into_iter().enumerate() {
                let txid = txid as u64 + 1;
                let versions: Vec<u64> = living.keys().copied().collect();
                list.release(&versions);
                let held: BTreeSet<u64> = living.values().flatten().flat_map(|run| run.id..run.id + run.count).collect();
                let placed = list.place(txid, &counts, &mut high_water);
                prop_assert_eq!(placed.len(), counts.len());
                let placed: Vec<_> = placed.into_iter().zip(&counts).map(|(id, count)| Run { id, count: *count }).collect();
                for id in placed.iter().flat_map(|run| run.id..run.id + run.count) {
                    prop_assert!(!held.contains(&id));
                }
                // A transaction gives up pages of the version before it, and adds its own.
                let kept = (choice as usize) % (used.len() + 1);
                list.free(txid, used.split_off(kept));
                used.extend(placed);
                let mut seen = BTreeSet::new();
                for run in used.iter().copied().chain(list.extents()) {
                    for id in run.id..run.id + run.count {
                        prop_assert!(id < high_water);
                        prop_assert!(seen.insert(id));
                    }
                }
                prop_assert_eq!(seen.len() as u64 + list.pending_count(), high_water - 2);
                living.insert(txid, used.clone());
                let gone = choice as usize / 7 % living.len();
                let gone = living.keys().copied().nth(gone).filter(|gone| *gone != txid);
                if let Some(gone) = gone.filter(|_| choice % 5 != 0) {
                    living.remove(&gone);
                }
            }
        }
    }
}
