//! The revisions of one key.
//!
//! etcd keeps a list of *generations*: a generation begins with the put that creates the key and ends with the tombstone
//! that deletes it. We keep one list of changes instead, in which each put knows its place within its generation and a
//! tombstone has place 0:
//!
//! ```text
//!   revision   2.0  3.0  5.0  5.1*  7.0  9.0         * deleted
//!   place       1    2    3    0     1    2          generation ends at 0, the next begins at 1
//! ```
//!
//! That says all: a put's version is its place, its creation the put at place 1. Only the first generation may have lost
//! its beginning to a compaction; `first` remembers version and creation of its oldest remaining put.
//!
//! Most keys have one change, so that one is held in place, in 24 bytes.

use std::num::NonZeroI64;

use super::KeyState;
use crate::base::Revision;

/// All changes of a key that compaction has left, at least one.
pub(super) enum History {
    One(One),
    Many(Box<Many>),
}

// Two thirds of the index are these when keys have one change each.
const _: () = assert!(size_of::<History>() == 24);

#[derive(Clone, Copy)]
pub(super) struct One {
    main: NonZeroI64,
    create_revision: i64,
    sub: u32,
    /// 0 for a tombstone.
    version: u32,
}

pub(super) struct Many {
    first: First,
    /// Ascending, at least one.
    changes: Vec<Change>,
}

/// Version and creation of the oldest change; zeros if that is a tombstone.
#[derive(Clone, Copy)]
struct First {
    version: i64,
    create_revision: i64,
}

#[derive(Clone, Copy)]
struct Change {
    main: i64,
    sub: u32,
    /// Place within its generation as far as it is in the list, from 1; 0 for a tombstone.
    place: u32,
}

/// What a compaction did to a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compacted {
    /// The one change at or below the compacted revision that stays.
    pub kept: Option<Revision>,
    /// Nothing is left of the key.
    pub is_empty: bool,
}

impl History {
    /// The history of a key that `revision` creates.
    pub fn created(revision: Revision) -> History {
        History::restored(revision, revision.main, 1)
    }

    /// A history of which nothing is known but a put and what its record says.
    pub fn restored(revision: Revision, create_revision: i64, version: i64) -> History {
        assert!(version > 0);
        let change = Change::new(revision, 1);
        let first = First {
            version,
            create_revision,
        };
        History::of_one(first, change)
    }

    /// A history of which nothing is known but that it ended.
    pub fn restored_tombstone(revision: Revision) -> History {
        let first = First {
            version: 0,
            create_revision: 0,
        };
        History::of_one(first, Change::new(revision, 0))
    }

    fn of_one(first: First, change: Change) -> History {
        match u32::try_from(first.version) {
            Ok(version) => History::One(One {
                main: NonZeroI64::new(change.main).expect("revisions are positive"),
                create_revision: first.create_revision,
                sub: change.sub,
                version,
            }),
            Err(_) => History::Many(Box::new(Many {
                first,
                changes: vec![change],
            })),
        }
    }

    pub fn is_live(&self) -> bool {
        match self {
            History::One(one) => one.version != 0,
            History::Many(many) => many.newest().place != 0,
        }
    }

    /// The newest change.
    pub fn modified(&self) -> Revision {
        match self {
            History::One(one) => one.revision(),
            History::Many(many) => many.newest().revision(),
        }
    }

    /// The key now, if it exists.
    pub fn latest(&self) -> Option<KeyState> {
        match self {
            History::One(one) => one.state(),
            History::Many(many) => many.state(many.changes.len() - 1),
        }
    }

    /// The key as it was at `main`, if it existed and compaction has left it.
    pub fn at(&self, main: i64) -> Option<KeyState> {
        match self {
            History::One(one) => one.state().filter(|state| state.modified.main <= main),
            History::Many(many) => many.state(many.newest_at(main)?),
        }
    }

    pub fn put(&mut self, revision: Revision) {
        let many = self.grow(revision);
        let place = match many.newest().place {
            0 => 1,
            place => place.checked_add(1).expect("a list in memory is shorter than 2^32"),
        };
        many.changes.push(Change::new(revision, place));
    }

    /// The key must exist.
    pub fn tombstone(&mut self, revision: Revision) {
        assert!(self.is_live(), "only an existing key can be deleted");
        self.grow(revision).changes.push(Change::new(revision, 0));
    }

    fn grow(&mut self, revision: Revision) -> &mut Many {
        assert!(revision > self.modified(), "a key's revisions ascend");
        if let History::One(one) = *self {
            let first = First {
                version: i64::from(one.version),
                create_revision: one.create_revision,
            };
            let mut changes = Vec::with_capacity(2);
            changes.push(Change::new(one.revision(), u32::from(one.version != 0)));
            *self = History::Many(Box::new(Many { first, changes }));
        }
        match self {
            History::Many(many) => many,
            History::One(_) => unreachable!("made so above"),
        }
    }

    /// The change at or below `main` that a compaction at `main` leaves, as HashKV counts it: a tombstone never.
    pub fn keep(&self, main: i64) -> Option<Revision> {
        self.at(main).map(|state| state.modified)
    }

    /// Forgets what nobody can read who reads at `main` or later. A tombstone of `main` itself stays, for the watcher
    /// that starts there.
    pub fn compact(&mut self, main: i64) -> Compacted {
        let many = match self {
            History::One(one) => return one.compact(main),
            History::Many(many) => many,
        };
        let Some(newest) = many.newest_at(main) else {
            return Compacted {
                kept: None,
                is_empty: false,
            };
        };
        let change = many.changes[newest];
        let is_kept = change.place != 0 || change.main == main;
        let dropped = if is_kept { newest } else { newest + 1 };
        let compacted = Compacted {
            kept: is_kept.then(|| change.revision()),
            is_empty: dropped == many.changes.len(),
        };
        if !compacted.is_empty {
            many.forget(dropped);
            if let [change] = many.changes[..] {
                *self = History::of_one(many.first, change);
            }
        }
        compacted
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            History::One(_) => 0,
            History::Many(many) => size_of::<Many>() + many.changes.capacity() * size_of::<Change>(),
        }
    }
}

impl One {
    fn revision(&self) -> Revision {
        Revision::new(self.main.get(), i64::from(self.sub))
    }

    fn state(&self) -> Option<KeyState> {
        (self.version != 0).then(|| KeyState {
            modified: self.revision(),
            create_revision: self.create_revision,
            version: i64::from(self.version),
        })
    }

    fn compact(&self, main: i64) -> Compacted {
        let modified = self.revision();
        let is_below = modified.main <= main;
        let is_gone = is_below && self.version == 0 && modified.main != main;
        Compacted {
            kept: (is_below && !is_gone).then_some(modified),
            is_empty: is_gone,
        }
    }
}

impl Many {
    fn newest(&self) -> Change {
        *self.changes.last().expect("a history has at least one change")
    }

    fn newest_at(&self, main: i64) -> Option<usize> {
        if self.newest().main <= main {
            return Some(self.changes.len() - 1);
        }
        self.changes
            .partition_point(|change| change.main <= main)
            .checked_sub(1)
    }

    fn state(&self, index: usize) -> Option<KeyState> {
        let change = self.changes[index];
        if change.place == 0 {
            return None;
        }
        let begin = index + 1 - change.place as usize;
        let (version, create_revision) = match begin {
            0 => (
                self.first.version + i64::from(change.place) - 1,
                self.first.create_revision,
            ),
            _ => (i64::from(change.place), self.changes[begin].main),
        };
        Some(KeyState {
            modified: change.revision(),
            create_revision,
            version,
        })
    }

    /// Drops the first `dropped` changes; at least one stays.
    fn forget(&mut self, dropped: usize) {
        if dropped == 0 {
            return;
        }
        self.first = match self.state(dropped) {
            Some(state) => First {
                version: state.version,
                create_revision: state.create_revision,
            },
            None => First {
                version: 0,
                create_revision: 0,
            },
        };
        self.changes.drain(..dropped);
        let cut = self.changes[0].place.saturating_sub(1);
        for change in &mut self.changes {
            if cut == 0 || change.place == 0 {
                break;
            }
            change.place -= cut;
        }
        self.changes.shrink_to_fit();
    }
}

impl Change {
    fn new(revision: Revision, place: u32) -> Change {
        assert!(revision.main > 0, "revisions are positive");
        Change {
            main: revision.main,
            sub: u32::try_from(revision.sub).expect("a transaction has less than 2^32 changes"),
            place,
        }
    }

    fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(main: i64, create_revision: i64, version: i64) -> Option<KeyState> {
        Some(KeyState {
            modified: Revision::new(main, 0),
            create_revision,
            version,
        })
    }

    fn two_lives() -> History {
        let mut history = History::created(Revision::new(2, 0));
        history.put(Revision::new(4, 0));
        history.tombstone(Revision::new(6, 0));
        history.put(Revision::new(8, 0));
        history.put(Revision::new(10, 0));
        history
    }

    #[test]
    fn each_life_counts_its_own_versions() {
        let history = two_lives();
        let expected = [
            (1, None),
            (2, state(2, 2, 1)),
            (3, state(2, 2, 1)),
            (5, state(4, 2, 2)),
            (6, None),
            (7, None),
            (9, state(8, 8, 1)),
            (99, state(10, 8, 2)),
        ];
        for (main, expected) in expected {
            assert_eq!(history.at(main), expected, "at {main}");
        }
        assert_eq!(history.latest(), state(10, 8, 2));
    }

    #[test]
    fn compaction_keeps_the_newest_change_and_a_tombstone_only_at_its_own_revision() {
        let kept = |main, kept: Option<i64>| {
            let mut history = two_lives();
            let compacted = history.compact(main);
            assert_eq!(compacted.kept, kept.map(|main| Revision::new(main, 0)), "at {main}");
            assert!(!compacted.is_empty);
            assert_eq!(history.latest(), state(10, 8, 2));
            history
        };
        kept(1, None);
        assert_eq!(kept(4, Some(4)).at(5), state(4, 2, 2));
        assert_eq!(kept(5, Some(4)).at(4), state(4, 2, 2));
        assert_eq!(kept(6, Some(6)).at(6), None);
        kept(7, None);
        kept(9, Some(8));
        kept(12, Some(10));
        assert_eq!(two_lives().keep(6), None);
        assert_eq!(two_lives().keep(5), Some(Revision::new(4, 0)));
    }

    #[test]
    fn version_survives_compaction_of_the_life_it_counts() {
        let mut history = History::created(Revision::new(2, 0));
        for main in 3..10 {
            history.put(Revision::new(main, 0));
        }
        history.compact(5);
        assert_eq!(history.at(5), state(5, 2, 4));
        assert_eq!(history.at(7), state(7, 2, 6));
        history.compact(7);
        assert_eq!(history.at(6), None);
        assert_eq!(history.at(8), state(8, 2, 7));
        history.compact(20);
        assert!(matches!(history, History::One(_)));
        history.put(Revision::new(21, 3));
        assert_eq!(history.latest().map(|state| state.version), Some(9));
    }

    #[test]
    fn deleted_key_is_gone_after_the_tombstones_revision() {
        let mut history = History::created(Revision::new(2, 0));
        history.tombstone(Revision::new(3, 0));
        let at_tombstone = history.compact(3);
        assert_eq!(at_tombstone.kept, Some(Revision::new(3, 0)));
        assert!(!at_tombstone.is_empty && !history.is_live());
        assert!(history.compact(4).is_empty);
    }

    #[test]
    fn version_beyond_32_bits_is_kept() {
        let version = i64::from(u32::MAX) + 5;
        let mut history = History::restored(Revision::new(9, 0), 2, version);
        assert_eq!(history.latest(), state(9, 2, version));
        history.put(Revision::new(10, 0));
        history.compact(10);
        assert_eq!(history.latest(), state(10, 2, version + 1));
        history.tombstone(Revision::new(11, 0));
        assert!(history.compact(12).is_empty);
    }
}
