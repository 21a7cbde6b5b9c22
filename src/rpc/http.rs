//! The HTTP endpoints on the client port: health, version, metrics. What they say is `ops`' matter; here they are asked,
//! and the reads that some of them try are put to the replica like anybody's.

use std::borrow::Cow;

use super::desk::Desk;
use crate::{
    config::MetricsLevel,
    ops::{
        health::{self, HealthAlarm, HealthFacts, Pending, Step, Surface},
        metrics,
        process::ProcessFacts,
    },
    wire::server::{HttpBody, HttpRequest, HttpResponse},
};

/// What the endpoints tell and the replica knows; it is told anew when it changes.
#[derive(Clone, Debug, Default)]
pub struct MemberView {
    /// Alarms of all members.
    pub alarms: Vec<HealthAlarm>,
    /// Whether there is a leader.
    pub has_leader: bool,
    /// The cluster's version, once it is decided.
    pub cluster_version: Option<String>,
}

/// What the endpoints tell and never changes.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// Descriptors that the process may have.
    pub fd_limit: u64,
    /// Which port this is.
    pub is_metrics_only: bool,
    /// Detail of the metrics.
    pub metrics_level: MetricsLevel,
    /// What the kernel says of the process.
    pub process_facts: fn() -> ProcessFacts,
}

/// What becomes of a request.
pub enum Asked {
    /// This is the answer.
    Answer(HttpResponse),
    /// These reads are to be tried first.
    Reads(Pending),
    /// The metrics are wanted.
    Metrics,
}

impl Pages {
    /// The answer to a scrape, for which the replica has told of itself.
    pub fn metrics(&self, desk: &Desk) -> health::HttpResponse {
        let counters = desk.counters();
        let text = metrics::render(
            &desk.gauges(),
            &counters.counts(),
            &(self.process_facts)(),
            self.metrics_level,
        );
        counters.scrapes.increment(["200"]);
        health::metrics_response(text)
    }

    /// Looks at a request.
    pub fn ask(&self, request: &HttpRequest, desk: &Desk) -> Asked {
        let view = desk.view();
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let facts = HealthFacts {
            alarms: &view.alarms,
            has_leader: view.has_leader,
            is_learner: false,
            cluster_version: view.cluster_version.as_deref(),
            storage_version: view.cluster_version.as_deref(),
            command_line: &self.command_line,
            fd_limit: self.fd_limit,
        };
        let surface = if self.is_metrics_only {
            Surface::Metrics
        } else {
            Surface::Client
        };
        let asked = health::HttpRequest {
            method: &request.method,
            path,
            query,
        };
        match health::begin(asked, surface, &facts) {
            Step::Done(answer) => {
                desk.count_health(&answer);
                Asked::Answer(response(answer.response))
            }
            Step::Read(pending) => Asked::Reads(pending),
            Step::Metrics => Asked::Metrics,
            Step::Other => Asked::Answer(response(health::not_found())),
        }
    }
}

/// An answer of `ops` as the wire takes it.
pub fn response(response: health::HttpResponse) -> HttpResponse {
    HttpResponse {
        status: response.status,
        headers: response
            .headers
            .into_iter()
            .map(|(name, value)| (Cow::Owned(name.to_ascii_lowercase()), value))
            .collect(),
        body: HttpBody::Full(response.body.into()),
    }
}
