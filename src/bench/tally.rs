//! What was measured: for each operation a histogram of latencies, and for each moment how many ended and how long the
//! longest took. Times are nanoseconds.

use hdrhistogram::Histogram;

/// Length of a moment.
pub const MOMENT_NANOS: u64 = 100_000_000;
/// Moments that are kept apart (an hour's); what comes later counts to the last.
pub const MOMENTS_MAX: usize = 36_000;
/// The longest latency that is told from longer ones.
const NANOS_MAX: u64 = 3_600_000_000_000;

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Put,
    Range,
    TxnPut,
    TxnRead,
    TxnWrite,
    Grant,
    Revoke,
    KeepAlive,
    Compact,
    /// From the intended start of a put to its event.
    Event,
    /// A watcher made.
    Watch,
    /// A request for progress, until its answer.
    Progress,
    /// A compare-and-swap.
    Update,
    Get,
    /// One page of a list.
    Page,
    /// A list, from its first page to its last.
    List,
}

const OPERATIONS: [(Operation, &str); 16] = [
    (Operation::Put, "put"),
    (Operation::Range, "range"),
    (Operation::TxnPut, "txn-put"),
    (Operation::TxnRead, "txn-read"),
    (Operation::TxnWrite, "txn-write"),
    (Operation::Grant, "grant"),
    (Operation::Revoke, "revoke"),
    (Operation::KeepAlive, "keepalive"),
    (Operation::Compact, "compact"),
    (Operation::Event, "event"),
    (Operation::Watch, "watch"),
    (Operation::Progress, "progress"),
    (Operation::Update, "update"),
    (Operation::Get, "get"),
    (Operation::Page, "list-page"),
    (Operation::List, "list"),
];

impl Operation {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        OPERATIONS[self as usize].1
    }
}

/// Ends within one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// How many.
    pub count: u64,
    /// The longest of them.
    pub nanos_max: u64,
}

/// One operation's figures.
#[derive(Clone)]
pub struct Series {
    /// Latencies.
    pub latencies: Histogram<u64>,
    /// By time, from the start of what is measured.
    pub moments: Vec<Moment>,
}

impl Default for Series {
    fn default() -> Series {
        Series {
            latencies: histogram(),
            moments: Vec::new(),
        }
    }
}

/// A histogram of nanoseconds: three digits, up to an hour.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("bounds that a histogram can have")
}

impl Series {
    /// Records a latency that ended `at` nanoseconds after the start.
    #[inline]
    pub fn record(&mut self, nanos: u64, at: u64) {
        self.latencies.saturating_record(nanos.max(1));
        let moment = ((at / MOMENT_NANOS) as usize).min(MOMENTS_MAX - 1);
        if moment >= self.moments.len() {
            self.moments.resize(moment + 1, Moment::default());
        }
        let moment = &mut self.moments[moment];
        moment.count += 1;
        moment.nanos_max = moment.nanos_max.max(nanos);
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: &Series) {
        self.latencies.add(&other.latencies).expect("the same bounds");
        if other.moments.len() > self.moments.len() {
            self.moments.resize(other.moments.len(), Moment::default());
        }
        for (mine, theirs) in self.moments.iter_mut().zip(&other.moments) {
            mine.count += theirs.count;
            mine.nanos_max = mine.nanos_max.max(theirs.nanos_max);
        }
    }
}

/// All operations' figures.
#[derive(Clone, Default)]
pub struct Tally {
    series: [Option<Box<Series>>; OPERATIONS.len()],
    /// How late requests left although a client was free: the generator's own delay.
    pub own_delay: Option<Box<Series>>,
    /// Compare-and-swaps that found another revision than expected.
    pub conflicts: u64,
    /// Requests that an overloaded server refused, and that were sent again.
    pub refusals: u64,
}

impl Tally {
    /// Records.
    #[inline]
    pub fn record(&mut self, operation: Operation, nanos: u64, at: u64) {
        self.series[operation as usize]
            .get_or_insert_default()
            .record(nanos, at);
    }

    /// Records the generator's own delay.
    #[inline]
    pub fn record_own_delay(&mut self, nanos: u64, at: u64) {
        self.own_delay.get_or_insert_default().record(nanos, at);
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.series.iter_mut().zip(&other.series) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().add(theirs);
            }
        }
        if let Some(theirs) = &other.own_delay {
            self.own_delay.get_or_insert_default().add(theirs);
        }
        self.conflicts += other.conflicts;
        self.refusals += other.refusals;
    }

    /// What there is, in a fixed order.
    pub fn series(&self) -> impl Iterator<Item = (Operation, &Series)> {
        OPERATIONS
            .iter()
            .zip(&self.series)
            .filter_map(|((operation, _), series)| Some((*operation, &**series.as_ref()?)))
    }

    /// One operation's figures.
    pub fn of(&self, operation: Operation) -> Option<&Series> {
        self.series[operation as usize].as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_their_number() {
        for (number, (operation, _)) in OPERATIONS.iter().enumerate() {
            assert_eq!(*operation as usize, number);
        }
    }

    #[test]
    fn what_threads_measured_adds_up() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.record(Operation::Put, 1_000, 0);
        other.record(Operation::Put, 3_000_000, 250_000_000);
        other.record(Operation::Event, 7, u64::MAX);
        one.add(&other);
        let puts = one.of(Operation::Put).unwrap();
        assert_eq!(puts.latencies.len(), 2);
        assert_eq!(puts.moments.len(), 3);
        assert_eq!(
            puts.moments[2],
            Moment {
                count: 1,
                nanos_max: 3_000_000
            }
        );
        assert_eq!(one.of(Operation::Event).unwrap().moments.len(), MOMENTS_MAX);
        assert_eq!(one.series().count(), 2);
    }
}
