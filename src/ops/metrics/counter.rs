//! Cells to count in. One core, no atomics: an increment is a load, an add and a store.
//!
//! Durations are kept in nanoseconds and only become seconds or milliseconds when they are written out.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// One more.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// Takes over what is counted elsewhere.
    pub fn set(&self, total: u64) {
        self.0.set(total);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// Counters that share a name and differ in the values of their labels. Few and rarely touched: a list is searched.
/// A combination exists from its first increment on, as with Prometheus's vectors.
#[derive(Debug, Default)]
pub struct Labelled<const LABELS: usize>(RefCell<Vec<([&'static str; LABELS], u64)>>);

impl<const LABELS: usize> Labelled<LABELS> {
    /// One more for these label values, in the order in which the table names the labels.
    pub fn increment(&self, values: [&'static str; LABELS]) {
        self.add(values, 1);
    }

    /// `count` more; 0 makes the combination visible.
    pub fn add(&self, values: [&'static str; LABELS], count: u64) {
        add_labelled(&mut self.0.borrow_mut(), values, count);
    }

    pub(super) fn counts(&self) -> Vec<([&'static str; LABELS], u64)> {
        self.0.borrow().clone()
    }
}

pub(super) fn add_labelled<const LABELS: usize>(
    list: &mut Vec<([&'static str; LABELS], u64)>,
    values: [&'static str; LABELS],
    count: u64,
) {
    match list.iter_mut().find(|(known, _)| *known == values) {
        Some((_, total)) => *total += count,
        None => list.push((values, count)),
    }
}

/// The bounds of a histogram's buckets: `count` of them, each twice the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buckets {
    /// The first upper bound, in the exported unit.
    pub first: f64,
    /// How many bounds there are, without `+Inf`.
    pub count: usize,
    /// How many nanoseconds the exported unit has; 1 for plain numbers.
    pub unit: u64,
}

/// Buckets in seconds.
pub(super) const fn seconds(first: f64, count: usize) -> Buckets {
    Buckets {
        first,
        count,
        unit: 1_000_000_000,
    }
}

/// Buckets in milliseconds.
pub(super) const fn milliseconds(first: f64, count: usize) -> Buckets {
    Buckets {
        first,
        count,
        unit: 1_000_000,
    }
}

/// Buckets in whatever is observed.
pub(super) const fn plain(first: f64, count: usize) -> Buckets {
    Buckets { first, count, unit: 1 }
}

impl Buckets {
    /// Upper bound of a bucket, in the exported unit.
    pub fn bound(&self, index: usize) -> f64 {
        self.first * (1u64 << index) as f64
    }

    fn first_raw(&self) -> u64 {
        (self.first * self.unit as f64).round() as u64
    }

    /// The bucket a raw value belongs to; `count` for what lies above all bounds.
    #[inline]
    fn index(first_raw: u64, count: usize, raw: u64) -> usize {
        // Bound `i` is `first << i`: the index is the position of the highest bit of ceil(raw / first), rounded up.
        if raw <= first_raw {
            return 0;
        }
        let multiple = raw.div_ceil(first_raw);
        let index = (u64::BITS - (multiple - 1).leading_zeros()) as usize;
        index.min(count)
    }
}

/// How often values fell into which bucket.
#[derive(Debug)]
pub struct Histogram {
    buckets: Buckets,
    first_raw: u64,
    counts: Box<[Cell<u64>]>,
    sum: Cell<u64>,
}

impl Histogram {
    pub(super) fn new(buckets: Buckets) -> Histogram {
        let first_raw = buckets.first_raw();
        assert!(first_raw > 0, "a bucket is at least one raw unit wide");
        assert!(buckets.count < 40);
        Histogram {
            buckets,
            first_raw,
            counts: (0..=buckets.count).map(|_| Cell::new(0)).collect(),
            sum: Cell::new(0),
        }
    }

    /// Counts a duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        self.observe_raw(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a number (for histograms that are not of time, such as a lease's TTL), or a duration in nanoseconds.
    #[inline]
    pub fn observe_raw(&self, raw: u64) {
        let cell = &self.counts[Buckets::index(self.first_raw, self.buckets.count, raw)];
        cell.set(cell.get() + 1);
        self.sum.set(self.sum.get().wrapping_add(raw));
    }

    pub(super) fn counts(&self) -> HistogramCounts {
        HistogramCounts {
            buckets: self.buckets,
            counts: self.counts.iter().map(Cell::get).collect(),
            sum: self.sum.get(),
        }
    }
}

/// A histogram's numbers at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramCounts {
    /// The bounds.
    pub buckets: Buckets,
    /// Per bucket (not cumulative); the last one is for values above all bounds.
    pub counts: Vec<u64>,
    /// Sum of the observed values, in nanoseconds or plain.
    pub sum: u64,
}

impl HistogramCounts {
    /// How many values were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn merge(&mut self, other: &HistogramCounts) {
        assert_eq!(self.counts.len(), other.counts.len());
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Histograms that share a name and differ in the values of their labels, as [`Labelled`] counters do.
#[derive(Debug)]
pub struct LabelledHistograms<const LABELS: usize> {
    buckets: Buckets,
    list: RefCell<Vec<([&'static str; LABELS], Histogram)>>,
}

impl<const LABELS: usize> LabelledHistograms<LABELS> {
    pub(super) fn new(buckets: Buckets) -> LabelledHistograms<LABELS> {
        LabelledHistograms {
            buckets,
            list: RefCell::default(),
        }
    }

    /// Counts a duration for these label values, in the order in which the table names the labels.
    #[inline]
    pub fn observe(&self, values: [&'static str; LABELS], duration: Duration) {
        let mut list = self.list.borrow_mut();
        match list.iter().find(|(known, _)| *known == values) {
            Some((_, histogram)) => histogram.observe(duration),
            None => {
                let histogram = Histogram::new(self.buckets);
                histogram.observe(duration);
                list.push((values, histogram));
            }
        }
    }

    pub(super) fn counts(&self) -> Vec<([&'static str; LABELS], HistogramCounts)> {
        let list = self.list.borrow();
        list.iter()
            .map(|(values, histogram)| (*values, histogram.counts()))
            .collect()
    }
}

pub(super) fn merge_labelled<const LABELS: usize>(
    list: &mut Vec<([&'static str; LABELS], HistogramCounts)>,
    others: &[([&'static str; LABELS], HistogramCounts)],
) {
    for (values, counts) in others {
        match list.iter_mut().find(|(known, _)| known == values) {
            Some((_, mine)) => mine.merge(counts),
            None => list.push((*values, counts.clone())),
        }
    }
}

/// The longest duration a [`Fine`] tells apart; longer ones count as this.
const FINE_NANOS_MAX: u64 = 100_000_000_000;

/// A distribution fine enough for NVMe, exported in microseconds as quantiles of the last one to two windows. etcd's
/// own buckets begin at a millisecond, ten times a device's sync.
#[derive(Debug)]
pub struct Fine {
    current: RefCell<hdrhistogram::Histogram<u32>>,
    previous: RefCell<hdrhistogram::Histogram<u32>>,
    count: Cell<u64>,
    sum: Cell<u64>,
}

impl Fine {
    pub(super) fn new() -> Fine {
        Fine {
            current: RefCell::new(fine_histogram()),
            previous: RefCell::new(fine_histogram()),
            count: Cell::new(0),
            sum: Cell::new(0),
        }
    }

    /// Counts a duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.current
            .borrow_mut()
            .saturating_record(nanos.clamp(1, FINE_NANOS_MAX));
        self.count.set(self.count.get() + 1);
        self.sum.set(self.sum.get().wrapping_add(nanos));
    }

    /// Begins a new window; the one before the previous is forgotten.
    pub fn roll(&self) {
        self.previous.swap(&self.current);
        self.current.borrow_mut().reset();
    }

    pub(super) fn counts(&self) -> FineCounts {
        let mut window = self.current.borrow().clone();
        window += &*self.previous.borrow();
        FineCounts {
            window,
            count: self.count.get(),
            sum: self.sum.get(),
        }
    }
}

fn fine_histogram() -> hdrhistogram::Histogram<u32> {
    hdrhistogram::Histogram::new_with_bounds(1, FINE_NANOS_MAX, 2).expect("constant bounds are in hdrhistogram's range")
}

/// A [`Fine`]'s numbers at one moment.
#[derive(Clone, Debug)]
pub struct FineCounts {
    /// What the quantiles are of.
    pub window: hdrhistogram::Histogram<u32>,
    /// Values since the start.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub sum: u64,
}

impl FineCounts {
    pub(super) fn merge(&mut self, other: &FineCounts) {
        self.window += &other.window;
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_the_bucket_below() {
        let histogram = Histogram::new(seconds(0.001, 14));
        let expected = |nanos: u64| {
            (0..14)
                .find(|&index| nanos as f64 / 1e9 <= histogram.buckets.bound(index))
                .unwrap_or(14)
        };
        for base in [
            1_000_000u64,
            2_000_000,
            3_000_000,
            4_000_000,
            8_192_000_000,
            16_000_000_000,
        ] {
            for nanos in [base - 1, base, base + 1] {
                assert_eq!(
                    Buckets::index(histogram.first_raw, 14, nanos),
                    expected(nanos),
                    "{nanos}"
                );
            }
        }
        assert_eq!(Buckets::index(histogram.first_raw, 14, 0), 0);
        assert_eq!(Buckets::index(histogram.first_raw, 14, u64::MAX), 14);
    }

    #[test]
    fn fine_quantiles_forget_after_two_windows_but_counts_stay() {
        let fine = Fine::new();
        fine.observe(Duration::from_micros(80));
        fine.roll();
        assert_eq!(fine.counts().window.len(), 1);
        fine.roll();
        assert_eq!(fine.counts().window.len(), 0);
        assert_eq!((fine.counts().count, fine.counts().sum), (1, 80_000));
        fine.observe(Duration::MAX);
        assert_eq!(fine.counts().window.len(), 1);
    }
}
