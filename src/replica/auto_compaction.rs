//! When the store compacts itself, by etcd's rules. Pure: the driver proposes what [`AutoCompactor::look`] says, and shows
//! it the time and the store's revisions.
//!
//! ```text
//! periodic   every tenth of min(period, 1 h) the revision is noted; once a period has passed, the revision of a period
//!            ago is compacted to, and from then on every min(period, 1 h)
//! revision   every 5 minutes: the current revision less those to be kept
//! ```
//!
//! Only the leader compacts. A member that is not goes on noting revisions, so that it can go on where the leader ended.

use std::{collections::VecDeque, time::Duration};

use crate::base::Monotonic;

/// Between looks in revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The longest time between compactions in periodic mode.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// Looks in the time between two compactions.
const LOOKS_PER_INTERVAL: u32 = 10;
/// Time after which a compaction that did not come counts as failed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// What is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// What is younger than this; more than zero.
    Period(Duration),
    /// This many revisions.
    Revisions(i64),
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing is to be done.
    Nothing,
    /// Compact to this revision.
    Compact(i64),
    /// The compaction to this revision has come, after this time.
    Completed(i64, Duration),
    /// The compaction to this revision did not come.
    Failed(i64),
}

/// Compacts by and by.
#[derive(Debug)]
pub struct AutoCompactor {
    retention: Retention,
    next_look: Monotonic,
    /// Noted revisions, oldest first; the first is a period old once there are enough.
    noted: VecDeque<i64>,
    last_revision: i64,
    last_success: Monotonic,
    has_compacted: bool,
    pending: Option<(i64, Monotonic)>,
}

impl AutoCompactor {
    /// Begins to look at a store that is at `revision`.
    pub fn new(retention: Retention, revision: i64, now: Monotonic) -> AutoCompactor {
        let mut compactor = AutoCompactor {
            retention,
            next_look: now,
            noted: VecDeque::new(),
            last_revision: 0,
            last_success: now,
            has_compacted: false,
            pending: None,
        };
        compactor.note(revision, now);
        compactor
    }

    /// What is kept.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// Time between looks.
    pub fn interval(&self) -> Duration {
        match self.retention {
            Retention::Period(period) => period.min(PERIODIC_INTERVAL_MAX) / LOOKS_PER_INTERVAL,
            Retention::Revisions(_) => REVISION_INTERVAL,
        }
    }

    /// To be called often; most of the time it is not time yet.
    pub fn look(&mut self, revision: i64, compact_revision: i64, is_leader: bool, now: Monotonic) -> Look {
        if let Some((pending, since)) = self.pending {
            let took = now.since(since);
            // Somebody else's compaction beyond it is as good.
            let look = if compact_revision >= pending {
                self.last_revision = pending;
                self.last_success = now;
                Look::Completed(pending, took)
            } else if took >= GIVE_UP_AFTER {
                Look::Failed(pending)
            } else {
                return Look::Nothing;
            };
            self.pending = None;
            self.note(revision, now);
            return look;
        }
        if now < self.next_look {
            return Look::Nothing;
        }
        match self.due(revision, now).filter(|_| is_leader) {
            Some(due) => {
                self.pending = Some((due, now));
                Look::Compact(due)
            }
            None => {
                self.note(revision, now);
                Look::Nothing
            }
        }
    }

    fn due(&mut self, revision: i64, now: Monotonic) -> Option<i64> {
        let due = match self.retention {
            Retention::Revisions(kept) => revision - kept,
            Retention::Period(period) => {
                let interval = if self.has_compacted {
                    period.min(PERIODIC_INTERVAL_MAX)
                } else {
                    period
                };
                let oldest = *self.noted.front()?;
                if now.since(self.last_success) < interval || oldest == self.last_revision {
                    return None;
                }
                self.has_compacted = true;
                oldest
            }
        };
        (due > 0 && due != self.last_revision).then_some(due)
    }

    fn note(&mut self, revision: i64, now: Monotonic) {
        self.next_look = now + self.interval();
        if let Retention::Period(period) = self.retention {
            self.noted.push_back(revision);
            let kept = (period.as_nanos() / self.interval().as_nanos().max(1)) as usize + 1;
            if self.noted.len() > kept {
                self.noted.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs a compactor second by second over a store that gains a revision each second and compacts at once.
    fn compactions(retention: Retention, seconds: u64, is_leader: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let mut now = Monotonic(0);
        let (mut revision, mut compact_revision) = (1, -1);
        let mut compactor = AutoCompactor::new(retention, revision, now);
        let mut compacted = Vec::new();
        for second in 1..=seconds {
            now = now + SECOND;
            revision += 1;
            if let Look::Compact(due) = compactor.look(revision, compact_revision, is_leader(second), now) {
                compacted.push((second, due));
                compact_revision = due;
                let completed = compactor.look(revision, compact_revision, true, now);
                assert_eq!(completed, Look::Completed(due, Duration::ZERO));
            }
        }
        compacted
    }

    // As in etcd the window slides by one before it is looked at: from the second time on, what is compacted to is a
    // period and a look old.

    #[test]
    fn a_short_period_is_compacted_each_period_to_what_was_a_period_ago() {
        let retention = Retention::Period(100 * SECOND);
        // At second s the revision is s + 1.
        let compacted = compactions(retention, 350, |_| true);
        assert_eq!(compacted, [(100, 1), (200, 91), (300, 191)]);
    }

    #[test]
    fn a_long_period_is_waited_for_once_and_then_compacted_each_hour() {
        let hour = 3600;
        let retention = Retention::Period(3 * hour as u32 * SECOND);
        let compacted = compactions(retention, 5 * hour + 1, |_| true);
        let look = hour as i64 / 10;
        let expected = [
            (3 * hour, 1),
            (4 * hour, 1 + hour as i64 - look),
            (5 * hour, 1 + 2 * hour as i64 - look),
        ];
        assert_eq!(compacted, expected);
    }

    #[test]
    fn revisions_are_counted_every_five_minutes() {
        let compacted = compactions(Retention::Revisions(400), 1000, |_| true);
        assert_eq!(compacted, [(600, 201), (900, 501)]);
    }

    #[test]
    fn only_a_leader_compacts_and_a_new_one_knows_what_is_old() {
        let retention = Retention::Period(100 * SECOND);
        assert_eq!(
            compactions(retention, 350, |second| second > 215),
            [(220, 111), (320, 211)]
        );
    }

    #[test]
    fn what_does_not_come_is_tried_again_and_an_idle_store_is_left_alone() {
        let retention = Retention::Period(100 * SECOND);
        let mut compactor = AutoCompactor::new(retention, 7, Monotonic(0));
        let at = |seconds: u32| Monotonic(0) + SECOND * seconds;
        let looks: Vec<_> = (1..=100)
            .map(|second| compactor.look(7, -1, true, at(second)))
            .filter(|look| *look != Look::Nothing)
            .collect();
        assert_eq!(looks, [Look::Compact(7)]);
        assert_eq!(compactor.look(7, -1, true, at(105)), Look::Nothing);
        assert_eq!(compactor.look(7, -1, true, at(110)), Look::Failed(7));
        assert_eq!(compactor.look(7, -1, true, at(120)), Look::Compact(7));
        assert_eq!(compactor.look(7, 7, true, at(121)), Look::Completed(7, SECOND));
        for second in 122..2000 {
            assert_eq!(compactor.look(7, 7, true, at(second)), Look::Nothing);
        }
    }
}
