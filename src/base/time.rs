//! Two kinds of time, which must not be mixed: one that only goes forward, and one that people read.

use std::{ops::Add, time::Duration};

/// Nanoseconds since an arbitrary origin of this process; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Monotonic;
    fn add(self, duration: Duration) -> Monotonic {
        Monotonic(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// Nanoseconds since the Unix epoch, as the machine's clock has it; may jump either way. For ids and log lines only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Whole milliseconds since the Unix epoch.
    pub fn unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}
