//! A run's result: a table for people, a JSON object for programs.

use std::{fmt::Write, time::Duration};

use hdrhistogram::Histogram;

use super::{
    json::Json,
    tally::{MOMENT_NANOS, Moment, Operation, Series, Tally},
};

/// The percentiles that are shown.
pub const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

/// What the run used of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerUse {
    /// Its processor time while the load was measured.
    pub processor_time: Duration,
    /// Its largest resident set so far, in bytes.
    pub resident_bytes_max: u64,
}

/// A run's result.
pub struct Report {
    /// The command line, as it was given.
    pub command: String,
    /// The workload's subcommand.
    pub workload: &'static str,
    /// `HOST:PORT` of the servers.
    pub endpoints: Vec<String>,
    /// What the server says it is.
    pub server_version: String,
    /// Connections, clients and threads.
    pub connections: u32,
    /// Clients.
    pub clients: u32,
    /// Threads of the generator.
    pub threads: u32,
    /// Requests per second that were asked for; `None` in a closed loop.
    pub rate: Option<f64>,
    /// What was measured.
    pub tally: Tally,
    /// How long.
    pub elapsed: Duration,
    /// Processor time of the generator's threads, warm-up included.
    pub processor_time: Duration,
    /// Wall time that belongs to it.
    pub processor_wall: Duration,
    /// Requests that belong to it.
    pub processor_requests: u64,
    /// What the server used, if it is known.
    pub server_use: Option<ServerUse>,
}

impl Report {
    /// Operations that are requests of their own (events, pages and the making of watchers are not).
    fn requests(&self) -> u64 {
        let is_request = |operation: &Operation| {
            !matches!(
                operation,
                Operation::Event | Operation::Watch | Operation::Progress | Operation::Page
            )
        };
        let series = self.tally.series();
        let requests = series.filter(|(operation, _)| is_request(operation));
        requests.map(|(_, series)| series.latencies.len()).sum()
    }

    /// Requests per second of the generator's own processor time: what one core of it can drive.
    pub fn requests_per_core_second(&self) -> f64 {
        self.processor_requests as f64 / self.processor_time.as_secs_f64().max(1e-9)
    }

    /// How much of its threads the generator used, 1 being all.
    pub fn busy_share(&self) -> f64 {
        self.processor_time.as_secs_f64() / (self.processor_wall.as_secs_f64() * f64::from(self.threads)).max(1e-9)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let loop_kind = match self.rate {
            Some(rate) => format!("open loop, {rate} requests/s at intended times"),
            None => "closed loop".to_owned(),
        };
        let _ = writeln!(
            text,
            "{} on {} (which says it is {}): {} clients on {} connections, {loop_kind}; {:.2} s measured",
            self.workload,
            self.endpoints.join(","),
            self.server_version,
            self.clients,
            self.connections,
            self.elapsed.as_secs_f64()
        );
        let quantiles: String = QUANTILES.iter().map(|(name, _)| format!("{name:>10}")).collect();
        let _ = writeln!(
            text,
            "\n{:<11}{:>11}{:>11}{:>10}{quantiles}{:>10}",
            "", "count", "per second", "mean", "max"
        );
        for (operation, series) in self.tally.series() {
            self.write_row(operation, series, &mut text);
        }
        if let Some(delay) = &self.tally.own_delay {
            let _ = writeln!(text, "{}", row("own delay", None, &delay.latencies));
        }
        text.push_str("(latencies in microseconds");
        text.push_str(match self.tally.own_delay {
            Some(_) => ", from intended starts; own delay: how late the generator itself was)\n",
            None => ")\n",
        });
        self.write_time(&mut text);
        self.write_uses(&mut text);
        text
    }

    fn write_row(&self, operation: Operation, series: &Series, text: &mut String) {
        let rate = (operation != Operation::Watch)
            .then(|| series.latencies.len() as f64 / self.elapsed.as_secs_f64().max(1e-9));
        let _ = writeln!(text, "{}", row(operation.name(), rate, &series.latencies));
    }

    /// Throughput over time, in at most twenty steps.
    fn write_time(&self, text: &mut String) {
        let moments = self.moments();
        if moments.len() < 2 {
            return;
        }
        let step = moments.len().div_ceil(20);
        text.push_str("\nover time:      per second   slowest\n");
        for (number, part) in moments.chunks(step).enumerate() {
            let from = (number * step) as f64 * MOMENT_NANOS as f64 / 1e9;
            let last = self.elapsed.as_secs_f64() - from;
            let length = (part.len() as f64 * MOMENT_NANOS as f64 / 1e9).min(last.max(1e-3));
            let count: u64 = part.iter().map(|moment| moment.count).sum();
            let slowest = part.iter().map(|moment| moment.nanos_max).max().unwrap_or(0);
            let rate = count as f64 / length;
            let _ = writeln!(text, "{from:>8.1} s {rate:>15.0}{:>10}", micros(slowest));
        }
    }

    fn write_uses(&self, text: &mut String) {
        let each = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        let _ = writeln!(
            text,
            "\nthis generator used {:.0} % of its {} thread{}: {:.2} us of processor time a request, {:.0} requests a second \
             and core",
            100.0 * self.busy_share(),
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            each(self.processor_time, self.processor_requests),
            self.requests_per_core_second(),
        );
        if self.busy_share() > BUSY_SHARE_MAX && self.rate.is_none() {
            text.push_str("it may have been what bounds the rate: give it more --threads, or cores of its own\n");
        }
        if let Some(server) = &self.server_use {
            let _ = writeln!(
                text,
                "the server used {:.2} us of processor time a request; its largest resident set is {:.0} MiB",
                each(server.processor_time, self.requests()),
                server.resident_bytes_max as f64 / f64::from(1 << 20)
            );
            if let Some(events) = self.tally.of(Operation::Event) {
                let events = events.latencies.len();
                let _ = writeln!(text, "that is {:.2} us an event", each(server.processor_time, events));
            }
        }
        if self.tally.refusals > 0 {
            let _ = writeln!(
                text,
                "{} times the server refused with \"too many requests\": sent again, their latencies counting on",
                self.tally.refusals
            );
        }
        if self.tally.conflicts > 0 {
            let _ = writeln!(
                text,
                "{} compare-and-swaps found another's change",
                self.tally.conflicts
            );
        }
    }

    /// What ended in each moment, of all requests.
    pub fn moments(&self) -> Vec<Moment> {
        let mut all: Vec<Moment> = Vec::new();
        for (operation, series) in self.tally.series() {
            if matches!(operation, Operation::Watch | Operation::Page) {
                continue;
            }
            if series.moments.len() > all.len() {
                all.resize(series.moments.len(), Moment::default());
            }
            for (sum, moment) in all.iter_mut().zip(&series.moments) {
                sum.count += moment.count;
                sum.nanos_max = sum.nanos_max.max(moment.nanos_max);
            }
        }
        all
    }

    /// For programs.
    pub fn json(&self) -> Json {
        let operations = self.tally.series().map(|(operation, series)| {
            let mut object = latencies_json(&series.latencies);
            let rate = series.latencies.len() as f64 / self.elapsed.as_secs_f64().max(1e-9);
            object.insert("per_second", Json::Number(rate));
            object.insert("moments", moments_json(&series.moments));
            (operation.name().to_owned(), object)
        });
        let mut object = Json::object([
            ("command", Json::text(&self.command)),
            ("workload", Json::text(self.workload)),
            (
                "endpoints",
                Json::Array(self.endpoints.iter().map(|name| Json::text(name)).collect()),
            ),
            ("server_version", Json::text(&self.server_version)),
            ("connections", Json::Number(f64::from(self.connections))),
            ("clients", Json::Number(f64::from(self.clients))),
            ("threads", Json::Number(f64::from(self.threads))),
            ("rate_asked", self.rate.map_or(Json::Null, Json::Number)),
            ("elapsed_seconds", Json::Number(self.elapsed.as_secs_f64())),
            ("requests", Json::Number(self.requests() as f64)),
            ("conflicts", Json::Number(self.tally.conflicts as f64)),
            ("refusals", Json::Number(self.tally.refusals as f64)),
            ("generator_busy_share", Json::Number(self.busy_share())),
            (
                "generator_requests_per_core_second",
                Json::Number(self.requests_per_core_second()),
            ),
            ("moment_seconds", Json::Number(MOMENT_NANOS as f64 / 1e9)),
            ("operations", Json::Object(operations.collect())),
        ]);
        if let Some(delay) = &self.tally.own_delay {
            object.insert("own_delay", latencies_json(&delay.latencies));
        }
        if let Some(server) = &self.server_use {
            object.insert(
                "server_processor_seconds",
                Json::Number(server.processor_time.as_secs_f64()),
            );
            object.insert(
                "server_resident_bytes_max",
                Json::Number(server.resident_bytes_max as f64),
            );
        }
        object
    }
}

/// Above this share of its threads the generator says that it may be the bottleneck.
const BUSY_SHARE_MAX: f64 = 0.9;

/// One row: a name, how many, how often, and how long.
pub fn row(name: &str, rate: Option<f64>, nanos: &Histogram<u64>) -> String {
    let quantiles: String = QUANTILES
        .iter()
        .map(|(_, quantile)| format!("{:>10}", micros(nanos.value_at_quantile(*quantile))))
        .collect();
    let rate = rate.map_or(String::new(), |rate| format!("{rate:.0}"));
    format!(
        "{name:<11}{:>11}{rate:>11}{:>10}{quantiles}{:>10}",
        nanos.len(),
        micros(nanos.mean() as u64),
        micros(nanos.max())
    )
}

/// Nanoseconds as microseconds with as many digits as are worth reading.
pub fn micros(nanos: u64) -> String {
    let micros = nanos as f64 / 1000.0;
    match nanos {
        0..100_000 => format!("{micros:.1}"),
        _ => format!("{micros:.0}"),
    }
}

/// Count, mean and percentiles in microseconds.
pub fn latencies_json(nanos: &Histogram<u64>) -> Json {
    let micros = |nanos: u64| Json::Number(nanos as f64 / 1000.0);
    let mut object = Json::object([
        ("count", Json::Number(nanos.len() as f64)),
        ("mean_us", Json::Number(nanos.mean() / 1000.0)),
        ("min_us", micros(nanos.min())),
    ]);
    for (name, quantile) in QUANTILES {
        object.insert(&format!("{name}_us"), micros(nanos.value_at_quantile(quantile)));
    }
    object.insert("max_us", micros(nanos.max()));
    object
}

fn moments_json(moments: &[Moment]) -> Json {
    let pair = |moment: &Moment| {
        let slowest = moment.nanos_max as f64 / 1000.0;
        Json::Array(vec![Json::Number(moment.count as f64), Json::Number(slowest)])
    };
    Json::Array(moments.iter().map(pair).collect())
}
