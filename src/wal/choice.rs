//! Which of the two ways to make a batch durable is the better one just now (`--wal-sync=auto`).
//!
//! One write to a file opened O_DSYNC is the shorter way by one wake-up, and by a whole request to a device that takes FUA
//! or has no volatile cache. But the kernel ends it in a worker that gets no preference on a busy core and may wait for a
//! scheduler tick, milliseconds, every time; the fdatasync of the other way is carried out by a thread that does not wait
//! so. What the core will be busy with cannot be known beforehand: the short way is taken until it was late, then avoided
//! for a number of batches that doubles each time that it is late again.

use std::time::Duration;

/// A durable write that takes longer than this was late. Well above what a sound device needs, and below a tick.
const LATE: Duration = Duration::from_millis(1);
/// Batches for which the short way is avoided, at first and at most: the most makes one late batch in eight thousand.
const REST_MIN: u32 = 64;
const REST_MAX: u32 = 8192;
/// Batches in time after which the short way is trusted as at first.
const TRUST_AFTER: u32 = 256;

/// The choice, batch by batch.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Batches for which the short way is still avoided.
    rest: u32,
    /// The next rest.
    rest_next: u32,
    /// Batches in time since the last late one.
    in_time: u32,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice {
            rest: 0,
            rest_next: REST_MIN,
            in_time: 0,
        }
    }
}

impl Choice {
    /// Whether the next batch goes the short way. Asked once for each batch.
    pub(super) fn is_at_once(&mut self) -> bool {
        let is_at_once = self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
        is_at_once
    }

    /// What a batch took that went the short way.
    pub(super) fn took(&mut self, duration: Duration) {
        if duration > LATE {
            self.rest = self.rest_next;
            self.rest_next = (self.rest_next * 2).min(REST_MAX);
            self.in_time = 0;
            return;
        }
        self.in_time = (self.in_time + 1).min(TRUST_AFTER);
        if self.in_time == TRUST_AFTER {
            self.rest_next = REST_MIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(80);
    const SLOW: Duration = Duration::from_millis(4);

    /// Of so many batches, those that go the short way, each of which takes `duration`.
    fn at_once(choice: &mut Choice, batches: u32, duration: Duration) -> u32 {
        (0..batches)
            .filter(|_| {
                let is_at_once = choice.is_at_once();
                if is_at_once {
                    choice.took(duration);
                }
                is_at_once
            })
            .count() as u32
    }

    #[test]
    fn what_is_in_time_stays() {
        assert_eq!(at_once(&mut Choice::default(), 100_000, FAST), 100_000);
    }

    #[test]
    fn what_is_always_late_is_tried_ever_more_rarely() {
        let mut choice = Choice::default();
        // Each rest is twice the one before, up to 8192: then one batch in 8193.
        assert_eq!(at_once(&mut choice, 16_384, SLOW), 9);
        assert!(at_once(&mut choice, 8_193 * 10, SLOW) <= 11);
    }

    #[test]
    fn one_late_batch_is_forgiven_and_forgotten() {
        let mut choice = Choice::default();
        assert_eq!(at_once(&mut choice, 1, SLOW), 1);
        assert_eq!(at_once(&mut choice, REST_MIN, FAST), 0);
        assert_eq!(at_once(&mut choice, TRUST_AFTER, FAST), TRUST_AFTER);
        assert_eq!(at_once(&mut choice, 1, SLOW), 1);
        assert_eq!(
            at_once(&mut choice, REST_MIN + 1, FAST),
            1,
            "the rest is as short as at first"
        );
    }

    #[test]
    fn now_and_then_late_is_avoided_for_longer() {
        let mut choice = Choice::default();
        for rest in [64, 128, 256] {
            assert_eq!(at_once(&mut choice, 1, SLOW), 1);
            assert_eq!(at_once(&mut choice, rest, FAST), 0);
            assert_eq!(at_once(&mut choice, 10, FAST), 10);
        }
    }
}
