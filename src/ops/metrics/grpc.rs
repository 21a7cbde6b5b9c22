//! Counters per gRPC method. etcd shows each method of its services from the start, at zero for each code; the lock
//! and election services appear once they are called.

use std::time::Duration;

use super::{
    Counter,
    family::{Family, Kind, Sample, Value},
};
use crate::{config::MetricsLevel, propose::Method, wire::status::Code};

/// Bounds of `grpc_server_handling_seconds`, in nanoseconds: Prometheus's defaults, which do not double.
const HANDLING_NANOS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// The same as they are written.
const HANDLING_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// gRPC's codes by number, as the label `grpc_code` has them.
const CODE_LABELS: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug, Default)]
struct MethodCells {
    started: Counter,
    received: Counter,
    sent: Counter,
    handled: [Counter; CODE_LABELS.len()],
    handling: [Counter; HANDLING_NANOS.len() + 1],
    handling_nanos: Counter,
}

/// One core's counters of gRPC calls.
#[derive(Debug)]
pub struct GrpcCounters(Box<[MethodCells]>);

impl Default for GrpcCounters {
    fn default() -> GrpcCounters {
        GrpcCounters(Method::ALL.iter().map(|_| MethodCells::default()).collect())
    }
}

impl GrpcCounters {
    /// A call has begun.
    #[inline]
    pub fn started(&self, method: Method) {
        self.0[method as usize].started.increment();
    }

    /// Messages of the client.
    #[inline]
    pub fn received(&self, method: Method, messages: u64) {
        self.0[method as usize].received.add(messages);
    }

    /// Messages to the client.
    #[inline]
    pub fn sent(&self, method: Method, messages: u64) {
        self.0[method as usize].sent.add(messages);
    }

    /// A call has ended with `code` after `elapsed`.
    #[inline]
    pub fn handled(&self, method: Method, code: Code, elapsed: Duration) {
        let cells = &self.0[method as usize];
        cells.handled[code as usize].increment();
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        // Nearly every call ends in the first bucket; the search is linear for that reason.
        let bucket = HANDLING_NANOS
            .iter()
            .position(|&bound| nanos <= bound)
            .unwrap_or(HANDLING_NANOS.len());
        cells.handling[bucket].increment();
        cells.handling_nanos.add(nanos);
    }

    /// A whole unary call at once: one message in, one message out when `code` is OK.
    #[inline]
    pub fn unary(&self, method: Method, code: Code, elapsed: Duration) {
        self.started(method);
        self.received(method, 1);
        if code == Code::Ok {
            self.sent(method, 1);
        }
        self.handled(method, code, elapsed);
    }

    pub(super) fn counts(&self) -> GrpcCounts {
        let counts = |cells: &MethodCells| MethodCounts {
            started: cells.started.value(),
            received: cells.received.value(),
            sent: cells.sent.value(),
            handled: std::array::from_fn(|code| cells.handled[code].value()),
            handling: std::array::from_fn(|bucket| cells.handling[bucket].value()),
            handling_nanos: cells.handling_nanos.value(),
        };
        GrpcCounts(self.0.iter().map(counts).collect())
    }
}

#[derive(Clone, Debug, Default)]
struct MethodCounts {
    started: u64,
    received: u64,
    sent: u64,
    handled: [u64; CODE_LABELS.len()],
    handling: [u64; HANDLING_NANOS.len() + 1],
    handling_nanos: u64,
}

/// [`GrpcCounters`] at one moment.
#[derive(Clone, Debug)]
pub struct GrpcCounts(Vec<MethodCounts>);

impl GrpcCounts {
    pub(super) fn merge(&mut self, other: &GrpcCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.started += theirs.started;
            mine.received += theirs.received;
            mine.sent += theirs.sent;
            mine.handling_nanos = mine.handling_nanos.wrapping_add(theirs.handling_nanos);
            for (mine, theirs) in mine.handled.iter_mut().zip(&theirs.handled) {
                *mine += theirs;
            }
            for (mine, theirs) in mine.handling.iter_mut().zip(&theirs.handling) {
                *mine += theirs;
            }
        }
    }

    pub(super) fn families(&self, level: MetricsLevel, families: &mut Vec<Family>) {
        let mut methods: Vec<(Method, &MethodCounts)> = Method::ALL
            .iter()
            .copied()
            .zip(&self.0)
            .filter(|(method, counts)| counts.started > 0 || is_shown_from_the_start(*method))
            .collect();
        methods.sort_by_key(|(method, _)| (method.name(), method.service()));
        let mut add = |name, help, value: fn(&MethodCounts) -> u64| {
            let samples = methods
                .iter()
                .map(|(method, counts)| Sample::new(method_labels(*method), Value::Number(value(counts) as f64)));
            families.push(Family {
                name,
                help,
                kind: Kind::Counter,
                samples: samples.collect(),
            });
        };
        add("grpc_server_started_total", "Calls begun.", |counts| counts.started);
        add("grpc_server_msg_received_total", "Messages taken in.", |counts| {
            counts.received
        });
        add("grpc_server_msg_sent_total", "Messages sent.", |counts| counts.sent);
        families.push(handled_family(&methods));
        if level == MetricsLevel::Extensive {
            families.push(handling_family(&methods));
        }
    }
}

fn is_shown_from_the_start(method: Method) -> bool {
    !matches!(method.service(), "v3electionpb.Election" | "v3lockpb.Lock")
}

fn method_labels(method: Method) -> Vec<(&'static str, std::borrow::Cow<'static, str>)> {
    vec![
        ("grpc_method", method.name().into()),
        ("grpc_service", method.service().into()),
        ("grpc_type", method.kind_label().into()),
    ]
}

fn handled_family(methods: &[(Method, &MethodCounts)]) -> Family {
    let mut codes: Vec<usize> = (0..CODE_LABELS.len()).collect();
    codes.sort_by_key(|&code| CODE_LABELS[code]);
    let mut samples = Vec::with_capacity(codes.len() * methods.len());
    for code in codes {
        for (method, counts) in methods {
            let mut labels = method_labels(*method);
            labels.insert(0, ("grpc_code", CODE_LABELS[code].into()));
            samples.push(Sample::new(labels, Value::Number(counts.handled[code] as f64)));
        }
    }
    Family {
        name: "grpc_server_handled_total",
        help: "Calls ended, by their code.",
        kind: Kind::Counter,
        samples,
    }
}

fn handling_family(methods: &[(Method, &MethodCounts)]) -> Family {
    let sample = |(method, counts): &(Method, &MethodCounts)| {
        let value = Value::Histogram {
            bounds: HANDLING_BOUNDS.to_vec(),
            counts: counts.handling.to_vec(),
            sum: counts.handling_nanos as f64 / 1e9,
        };
        Sample::new(method_labels(*method), value)
    };
    Family {
        name: "grpc_server_handling_seconds",
        help: "Time from a call's begin to its end.",
        kind: Kind::Histogram,
        samples: methods.iter().map(sample).collect(),
    }
}
