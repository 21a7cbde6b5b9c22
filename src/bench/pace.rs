//! Intended start times of an open loop: a schedule that does not care how the server is doing.

use super::{plan::Arrivals, random::Random};
use crate::base::Monotonic;

/// The start times of one connection's requests.
///
/// Equally spaced arrivals of `streams` connections together lie on one grid: request `i` of connection `c` belongs at
/// `start + (i * streams + c) / rate`. The grid is computed, not summed up: it does not drift.
#[derive(Clone, Debug)]
pub struct Pace {
    start: Monotonic,
    rate: f64,
    stream: u64,
    streams: u64,
    sent: u64,
    gaps: Option<(Random, f64)>,
}

impl Pace {
    /// `rate` is that of all `streams` together, per second.
    pub fn new(start: Monotonic, rate: f64, stream: u64, streams: u64, arrivals: Arrivals, seed: u64) -> Pace {
        assert!(rate > 0.0 && stream < streams);
        let mut pace = Pace {
            start,
            rate,
            stream,
            streams,
            sent: 0,
            gaps: (arrivals == Arrivals::Poisson).then(|| (Random::new(seed), 0.0)),
        };
        pace.draw_gap();
        pace
    }

    /// When the next request belongs.
    pub fn next(&self) -> Monotonic {
        let seconds = match &self.gaps {
            Some((_, at)) => *at,
            None => (self.sent * self.streams + self.stream) as f64 / self.rate,
        };
        Monotonic(self.start.0 + (seconds * 1e9) as u64)
    }

    /// The next request was sent, or has to wait for a client: the one behind it is next.
    pub fn advance(&mut self) {
        self.sent += 1;
        self.draw_gap();
    }

    fn draw_gap(&mut self) {
        let mean = self.streams as f64 / self.rate;
        if let Some((random, at)) = &mut self.gaps {
            *at += random.exponential() * mean;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_one_grid_that_does_not_drift() {
        let start = Monotonic(5_000);
        let mut times = Vec::new();
        for stream in 0..3 {
            let mut pace = Pace::new(start, 3_000.0, stream, 3, Arrivals::Constant, 0);
            for _ in 0..1000 {
                times.push(pace.next().0);
                pace.advance();
            }
        }
        times.sort_unstable();
        for (number, time) in times.iter().enumerate() {
            let exact = 5_000.0 + number as f64 * 1e9 / 3_000.0;
            assert!((*time as f64 - exact).abs() < 2.0, "{number}: {time} {exact}");
        }
    }

    #[test]
    fn strangers_come_at_the_rate_that_is_asked_for() {
        let mut pace = Pace::new(Monotonic(0), 2_000.0, 0, 2, Arrivals::Poisson, 7);
        let mut short = 0;
        for _ in 0..20_000 {
            let before = pace.next();
            pace.advance();
            short += u64::from(pace.next().since(before).as_nanos() < 500_000);
        }
        let mean = pace.next().0 as f64 / 20_001.0;
        assert!((0.97e6..1.03e6).contains(&mean), "{mean}");
        // 1 - e^(-1/2) of exponential gaps are below half their mean.
        assert!((7_500..8_250).contains(&short), "{short}");
    }
}
