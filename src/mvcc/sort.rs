//! Putting a long range in order, in slices: runs are sorted as a whole, then merged, many at a time. A million keys sorted by
//! value at once would keep the core for more than a second.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    mem,
};

use super::{
    RangeItem, RangeResult, Record, Records, SortOrder, SortTarget,
    range::{Found, Order, Summary},
};

/// Items of a run that is sorted as a whole.
const RUN_ITEMS: usize = 512;
/// Runs that are merged at once.
const FAN_IN: usize = 64;

/// A range whose walk is over, on its way into its order. What sorts equal stays as it was found, which is by key.
#[derive(Clone, Debug)]
pub struct RangeSort {
    order: Option<Order>,
    summary: Summary,
    runs: Runs,
    items: Vec<RangeItem>,
}

impl RangeSort {
    pub(super) fn new(found: Vec<Found>, order: Option<Order>, summary: Summary) -> RangeSort {
        RangeSort {
            order,
            summary,
            runs: Runs::new(found),
            items: Vec::new(),
        }
    }

    /// Keys that are held.
    pub fn held(&self) -> usize {
        self.runs.items.len() + self.runs.merged.capacity() + self.items.capacity()
    }

    /// Goes on by about so many keys; true when [`RangeSort::finish`] may be called. `records` is looked at only to sort by
    /// value.
    pub fn slice<R: Records + ?Sized>(&mut self, records: &R, keys_max: usize) -> bool {
        use SortOrder::Descend;
        let runs = &mut self.runs;
        let is_sorted = match self.order {
            None | Some((SortTarget::Key, _)) => true,
            Some((SortTarget::Value, Descend)) => runs.slice(|found| Reverse(value_of(found, records)), keys_max),
            Some((SortTarget::Value, _)) => runs.slice(|found| value_of(found, records), keys_max),
            Some((_, Descend)) => runs.slice(|found| Reverse(found.rank), keys_max),
            Some((_, _)) => runs.slice(|found| found.rank, keys_max),
        };
        is_sorted && self.take(keys_max)
    }

    /// Takes the keys that the answer has; true when these are all.
    fn take(&mut self, keys_max: usize) -> bool {
        let sorted = &self.runs.items;
        let wanted = sorted.len().min(self.summary.limit);
        let end = wanted.min(self.items.len().saturating_add(keys_max));
        // The walk gives keys in ascending order.
        let is_reversed = matches!(self.order, Some((SortTarget::Key, SortOrder::Descend)));
        self.items.reserve_exact(wanted - self.items.len());
        self.items.extend((self.items.len()..end).map(|at| RangeItem {
            modified: sorted[if is_reversed { sorted.len() - 1 - at } else { at }].modified,
        }));
        end == wanted
    }

    /// The result, when it is in order.
    pub fn finish(self) -> RangeResult {
        RangeResult {
            revision: self.summary.current_revision,
            count: self.summary.count,
            more: self.summary.more,
            items: self.items,
        }
    }
}

fn value_of<'r, R: Records + ?Sized>(found: &Found, records: &'r R) -> &'r [u8] {
    let record = records.record(found.modified).expect("an indexed put has its record");
    Record::decode(record).expect("records are encoded key-values").value
}

/// A merge sort that rests between slices.
#[derive(Clone, Debug)]
struct Runs {
    items: Vec<Found>,
    /// Items of each run that is sorted, but for the last, which may have fewer; 0 while the first are being made.
    run_items: usize,
    /// Items of this pass that are done.
    done: usize,
    /// Of a pass that merges: its result so far, and where each run of the group that is being merged has come to.
    merged: Vec<Found>,
    heads: Vec<usize>,
}

impl Runs {
    fn new(items: Vec<Found>) -> Runs {
        Runs {
            items,
            run_items: 0,
            done: 0,
            merged: Vec::new(),
            heads: Vec::new(),
        }
    }

    /// Goes on by about so many items; true when they are sorted. The key of an item is the same each time.
    fn slice<K: Ord>(&mut self, key: impl Fn(&Found) -> K, items_max: usize) -> bool {
        let mut moved = 0;
        while !self.is_sorted() && moved < items_max {
            moved += match self.run_items {
                0 => self.sort_run(&key),
                _ => self.merge(&key, items_max - moved),
            };
        }
        self.is_sorted()
    }

    fn is_sorted(&self) -> bool {
        self.items.len() <= self.run_items.max(1)
    }

    fn sort_run<K: Ord>(&mut self, key: impl Fn(&Found) -> K) -> usize {
        let end = self.items.len().min(self.done + RUN_ITEMS);
        let run = &mut self.items[self.done..end];
        // A key is looked up once, and not for each comparison.
        run.sort_by_cached_key(key);
        let moved = run.len();
        self.done = end;
        if end == self.items.len() {
            (self.run_items, self.done) = (RUN_ITEMS, 0);
        }
        moved
    }

    /// Moves on at most so many items of a group of runs to the run that they become.
    fn merge<K: Ord>(&mut self, key: impl Fn(&Found) -> K, items_max: usize) -> usize {
        let len = self.items.len();
        let end = len.min(self.done + self.run_items * FAN_IN);
        if self.heads.is_empty() {
            self.merged.reserve_exact(len - self.merged.len());
            self.heads.extend((self.done..end).step_by(self.run_items));
        }
        let end_of = |run: usize| end.min(self.done + (run + 1) * self.run_items);
        let mut first: BinaryHeap<_> = (self.heads.iter().enumerate())
            .filter(|(run, head)| **head < end_of(*run))
            .map(|(run, head)| Reverse((key(&self.items[*head]), run)))
            .collect();
        let mut moved = 0;
        while moved < items_max
            && let Some(mut top) = first.peek_mut()
        {
            let run = top.0.1;
            let head = &mut self.heads[run];
            self.merged.push(self.items[*head]);
            moved += 1;
            *head += 1;
            if *head < end_of(run) {
                top.0.0 = key(&self.items[*head]);
            } else {
                PeekMut::pop(top);
            }
        }
        if first.is_empty() {
            self.heads.clear();
            self.done = end;
            if end == len {
                self.items = mem::take(&mut self.merged);
                self.run_items *= FAN_IN;
                self.done = 0;
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Revision;

    fn found(ranks: &[i64]) -> Vec<Found> {
        let place = |(at, rank): (usize, &i64)| Found {
            rank: *rank,
            modified: Revision {
                main: at as i64,
                sub: 0,
            },
        };
        ranks.iter().enumerate().map(place).collect()
    }

    proptest! {
        #[test]
        fn slices_sort_as_a_whole_does(
            ranks in prop::collection::vec(0_i64..50, 0..3_000),
            copies in 1_usize..40,
            items_max in 1_usize..5_000,
        ) {
            // Enough for two passes of merging in some cases.
            let ranks: Vec<i64> = ranks.iter().cycle().take(ranks.len() * copies).copied().collect();
            let mut runs = Runs::new(found(&ranks));
            let mut slices = 0;
            while !runs.slice(|found| Reverse(found.rank), items_max) {
                slices += 1;
                prop_assert!(slices <= 3 * ranks.len() / items_max.min(RUN_ITEMS) + 3 * FAN_IN + 3);
            }
            let mut expected = found(&ranks);
            expected.sort_by_key(|found| Reverse(found.rank));
            prop_assert_eq!(runs.items, expected);
        }
    }
}
