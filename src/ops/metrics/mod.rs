//! Metrics under etcd's names, in Prometheus's text format.
//!
//! Each core owns one [`Counters`], plain cells without atomics, and counts into it as it works. At a scrape each core
//! hands out a [`Counts`] (plain numbers, `Send`); they are added up, and [`render`] turns the sum, the [`Gauges`] of
//! the core `home` and the facts of the process into text. Nothing here knows cores, sockets or time.
//!
//! Names, types, labels and buckets are etcd's (checked against `tests/golden/metrics/`); what etcd has not is named
//! `ringd_*`.

mod counter;
mod family;
mod grpc;
mod table;
mod text;

pub use counter::{Buckets, Counter, Fine, FineCounts, Histogram, HistogramCounts, Labelled, LabelledHistograms};
pub use grpc::{GrpcCounters, GrpcCounts};
pub use table::{ClusterVersion, Counters, Counts, Gauges};

use crate::{config::MetricsLevel, ops::process::ProcessFacts};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The answer to a scrape: every family in the order of its name.
pub fn render(gauges: &Gauges, counts: &Counts, process: &ProcessFacts, level: MetricsLevel) -> String {
    let mut families = Vec::with_capacity(160);
    table::gauge_families(gauges, &mut families);
    table::count_families(counts, &mut families);
    counts.grpc.families(level, &mut families);
    family::process_families(process, &mut families);
    families.sort_by_key(|family| family.name);
    text::write_families(&families)
}
