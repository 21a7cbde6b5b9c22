//! A metric family as data: what stands between the counts and the text.

use std::borrow::Cow;

use super::{FineCounts, HistogramCounts};
use crate::ops::process::ProcessFacts;

/// The type that `# TYPE` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }
}

/// Samples of one name.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample>,
}

/// One set of label values and what it stands at. Labels are in the order of their names.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(f64),
    /// `counts` has one more element than `bounds` and is not cumulative.
    Histogram {
        bounds: Vec<f64>,
        counts: Vec<u64>,
        sum: f64,
    },
    Summary {
        quantiles: Vec<(f64, f64)>,
        sum: f64,
        count: u64,
    },
}

impl Sample {
    pub(super) fn new(labels: Vec<(&'static str, Cow<'static, str>)>, value: Value) -> Sample {
        Sample { labels, value }
    }

    pub(super) fn number(value: f64) -> Sample {
        Sample::new(Vec::new(), Value::Number(value))
    }
}

impl Family {
    /// A family of one number without labels.
    pub(super) fn single(name: &'static str, help: &'static str, kind: Kind, value: f64) -> Family {
        Family {
            name,
            help,
            kind,
            samples: vec![Sample::number(value)],
        }
    }

    /// A gauge that is 1 and says something in its label.
    pub(super) fn info(name: &'static str, help: &'static str, label: &'static str, value: String) -> Family {
        let sample = Sample::new(vec![(label, value.into())], Value::Number(1.0));
        Family {
            name,
            help,
            kind: Kind::Gauge,
            samples: vec![sample],
        }
    }
}

impl HistogramCounts {
    pub(super) fn value(&self) -> Value {
        Value::Histogram {
            bounds: (0..self.buckets.count).map(|index| self.buckets.bound(index)).collect(),
            counts: self.counts.clone(),
            sum: self.sum as f64 / self.buckets.unit as f64,
        }
    }
}

/// The quantiles that distributions are exported with.
const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

impl FineCounts {
    /// In microseconds.
    pub(super) fn value(&self) -> Value {
        let quantile = |&q: &f64| {
            let nanos = if self.window.is_empty() {
                f64::NAN
            } else {
                self.window.value_at_quantile(q) as f64
            };
            (q, nanos / 1e3)
        };
        Value::Summary {
            quantiles: QUANTILES.iter().map(quantile).collect(),
            sum: self.sum as f64 / 1e3,
            count: self.count,
        }
    }
}

/// What Prometheus's Go client says of a process, and etcd of its file descriptors.
pub(super) fn process_families(process: &ProcessFacts, families: &mut Vec<Family>) {
    let mut add = |name, help, kind, value: Option<f64>| {
        if let Some(value) = value {
            families.push(Family::single(name, help, kind, value));
        }
    };
    let number = |value: Option<u64>| value.map(|value| value as f64);
    let gauge = Kind::Gauge;
    add(
        "process_cpu_seconds_total",
        "CPU time in seconds, of user and kernel.",
        Kind::Counter,
        process.cpu_seconds,
    );
    add(
        "process_max_fds",
        "How many file descriptors may be open.",
        gauge,
        number(process.fd_limit),
    );
    add(
        "process_open_fds",
        "How many file descriptors are open.",
        gauge,
        number(process.fd_used),
    );
    add(
        "process_resident_memory_bytes",
        "Resident memory.",
        gauge,
        number(process.resident_bytes),
    );
    add(
        "process_virtual_memory_bytes",
        "Virtual memory.",
        gauge,
        number(process.virtual_bytes),
    );
    // Prometheus's client writes -1 where there is no limit, as the Go one does.
    let virtual_max = process.virtual_bytes_max.map_or(-1.0, |limit| limit as f64);
    add(
        "process_virtual_memory_max_bytes",
        "Virtual memory that may be had, or -1.",
        gauge,
        Some(virtual_max),
    );
    add(
        "process_start_time_seconds",
        "When the process began, as Unix time.",
        gauge,
        process.start_seconds,
    );
    let help = "Bytes that all interfaces of the network namespace took in.";
    add(
        "process_network_receive_bytes_total",
        help,
        Kind::Counter,
        number(process.network_received_bytes),
    );
    let help = "Bytes that all interfaces of the network namespace sent.";
    add(
        "process_network_transmit_bytes_total",
        help,
        Kind::Counter,
        number(process.network_sent_bytes),
    );
    add(
        "os_fd_limit",
        "How many file descriptors may be open.",
        gauge,
        number(process.fd_limit),
    );
    add(
        "os_fd_used",
        "How many file descriptors are open.",
        gauge,
        number(process.fd_used),
    );
    add(
        "go_threads",
        "Threads of the process, under the name that Go gives them.",
        gauge,
        number(process.threads),
    );
    let help = "Memory of the process that is not backed by a file.";
    add(
        "ringd_resident_anonymous_bytes",
        help,
        gauge,
        number(process.resident_anonymous_bytes),
    );
}
