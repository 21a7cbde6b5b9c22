//! A moment of looking for work before the core may halt.
//!
//! A core with nothing to do halts, and is awake again some microseconds later on bare metal, 20 to 50 in a virtual machine,
//! where the hypervisor has to fetch it. A lone client waits for that twice with each request: when it comes, and when the
//! disk is done. So an executor looks on for a while, with a call in each round that gives the core to whoever else is to run
//! on it (the kernel's workers do the disk's completions there).
//!
//! It does so where that has paid of late: where what it waited for mostly came within that while. What came last tells
//! what it waits for: the disk behind a request, the next request behind the disk. (The hypervisor's and the guest's own
//! halt polling learn in the same way, and know less.) With many clients it is no gain, since one sleep is shared by many
//! requests: there the executor sleeps at once.

use std::time::{Duration, Instant};

use super::system;

/// Sockets that become ready at once up to which an executor is thought to have few clients.
const FEW: u32 = 2;
/// What one socket counts for in a [`Crowd`], which forgets an eighth each time.
const UNIT: u32 = 8;

/// How many sockets became ready at once of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crowd(u32);

impl Crowd {
    /// So many became ready at once, not none.
    pub fn came(&mut self, sockets: usize) {
        let sockets = u32::try_from(sockets).unwrap_or(u32::MAX).min(u32::MAX / UNIT);
        self.0 = (self.0 - self.0 / 8).max(sockets * UNIT);
    }

    fn is_small(self) -> bool {
        self.0 <= FEW * UNIT
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Sockets.
    Sockets,
    /// A completion.
    Completion,
    /// The time of the wait's limit.
    Time,
}

/// How often a wait was short of late: 0 for never, [`ALWAYS`] for always. The last four count for most of it.
type Score = u32;
const ALWAYS: Score = 256;

/// Looking for work before sleep.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    longest: Duration,
    /// What the last wait brought that did not end by time; and the scores of those that followed on each.
    is_behind_sockets: bool,
    scores: [Score; 2],
    began: Option<Instant>,
    is_worth_it: bool,
}

impl Vigil {
    /// One that looks for so long; not at all for zero.
    pub fn new(longest: Duration) -> Vigil {
        Vigil {
            longest,
            ..Vigil::default()
        }
    }

    fn score(&mut self) -> &mut Score {
        &mut self.scores[usize::from(self.is_behind_sockets)]
    }

    /// Whether to look once more rather than sleep, for an executor that has nothing to do. Others have had the core then.
    pub fn goes_on(&mut self, crowd: Crowd) -> bool {
        if self.longest.is_zero() {
            return false;
        }
        let is_worth_it = *self.score() > ALWAYS / 2 && crowd.is_small();
        let Some(began) = self.began else {
            self.began = Some(Instant::now());
            self.is_worth_it = is_worth_it;
            return is_worth_it;
        };
        self.is_worth_it &= began.elapsed() < self.longest;
        if self.is_worth_it {
            system::yield_core();
        }
        self.is_worth_it
    }

    /// The executor goes on with its work.
    pub fn end(&mut self, end: End) {
        let Some(began) = self.began.take() else { return };
        let is_short = end != End::Time && began.elapsed() < self.longest;
        let score = self.score();
        *score = (*score * 3 + if is_short { ALWAYS } else { 0 }) / 4;
        if end != End::Time {
            self.is_behind_sockets = end == End::Sockets;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_remembered_for_a_while() {
        let mut crowd = Crowd::default();
        assert!(crowd.is_small());
        crowd.came(2);
        assert!(crowd.is_small());
        crowd.came(64);
        for _ in 0..20 {
            assert!(!crowd.is_small());
            crowd.came(1);
        }
        for _ in 0..20 {
            crowd.came(1);
        }
        assert!(crowd.is_small());
        crowd.came(usize::MAX);
        assert!(!crowd.is_small());
    }

    fn wait(vigil: &mut Vigil, crowd: Crowd, end: End) -> bool {
        let looks = vigil.goes_on(crowd);
        vigil.end(end);
        looks
    }

    #[test]
    fn it_looks_on_where_that_has_paid() {
        let mut vigil = Vigil::new(Duration::from_secs(60));
        let few = Crowd::default();
        assert!(!wait(&mut vigil, few, End::Completion), "nothing is known yet");
        for _ in 0..3 {
            wait(&mut vigil, few, End::Completion);
        }
        assert!(wait(&mut vigil, few, End::Completion));
        assert!(vigil.goes_on(few) && vigil.goes_on(few), "for as long as it takes");
        vigil.end(End::Sockets);
        assert!(
            !wait(&mut vigil, few, End::Time),
            "nothing is known of what follows on sockets"
        );
        wait(&mut vigil, few, End::Completion);
        assert!(vigil.goes_on(few), "what was known of the other is still");
        vigil.end(End::Time);
        for _ in 0..2 {
            wait(&mut vigil, few, End::Time);
        }
        assert!(!wait(&mut vigil, few, End::Time), "it has not paid for a while");
    }

    #[test]
    fn it_does_not_look_on_in_a_crowd_or_when_told_so() {
        let mut vigil = Vigil::new(Duration::from_secs(60));
        let mut never = Vigil::new(Duration::ZERO);
        let mut crowd = Crowd::default();
        crowd.came(100);
        for _ in 0..10 {
            assert!(!wait(&mut never, Crowd::default(), End::Completion));
            assert!(!wait(&mut vigil, crowd, End::Completion));
        }
        assert!(wait(&mut vigil, Crowd::default(), End::Completion));
    }
}
