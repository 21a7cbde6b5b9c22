//! The HTTP endpoints on the client port: health, version, metrics. What they say is `ops`' matter; here they are asked,
//! and the reads that some of them try are put to the replica like anybody's.

use std::borrow::Cow;

use super::desk::Desk;
use crate::{
    config::{AllowList, MetricsLevel},
    ops::{
        access::{self, Access},
        health::{self, HealthAlarm, HealthFacts, Pending, Step, Surface},
        metrics,
        process::ProcessFacts,
    },
    wire::grpc::{invalid_content_type, percent_encode},
    wire::server::{HttpBody, HttpRequest, HttpResponse},
};

/// What the endpoints tell and the replica knows; it is told anew when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// What the port is for.
    pub port: Port,
    /// Detail of the metrics.
    pub metrics_level: MetricsLevel,
    /// Origins that browsers may come from.
    pub cors: AllowList,
    /// `Host` headers that requests may carry.
    pub host_whitelist: AllowList,
    /// What the kernel says of the process.
    pub process_facts: fn() -> ProcessFacts,
}

/// Headers that an answer carries besides its own.
pub type ExtraHeaders = Vec<(&'static str, Cow<'static, str>)>;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Clients, with gRPC and HTTP.
    Clients,
    /// gRPC alone: HTTP has ports of its own (`--listen-client-http-urls`).
    Grpc,
    /// HTTP alone.
    Http,
    /// Metrics and health (`--listen-metrics-urls`).
    Metrics,
}

impl Port {
    /// Whether calls are served.
    pub fn has_grpc(self) -> bool {
        matches!(self, Port::Clients | Port::Grpc)
    }

    /// Whether HTTP is served.
    pub fn has_http(self) -> bool {
        self != Port::Grpc
    }
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
            &desk.counts(),
            &(self.process_facts)(),
            self.metrics_level,
        );
        counters.scrapes.increment(["200"]);
        health::metrics_response(text)
    }

    /// Looks at who asks, which goes before what is asked. Gives the headers that belong to the answer, or the answer.
    pub fn admit(&self, request: &HttpRequest) -> Result<ExtraHeaders, HttpResponse> {
        // As in etcd, what has a port of its own answers whoever reaches it.
        if self.port == Port::Metrics {
            return Ok(Vec::new());
        }
        let origin = request.headers.text("origin").unwrap_or_default();
        let is_secure = false;
        let access = access::check(
            &self.cors,
            &self.host_whitelist,
            is_secure,
            &request.method,
            &request.authority,
            origin,
        );
        match access {
            Access::Granted(headers) => Ok(headers),
            Access::Answered(answer) => Err(response(answer)),
        }
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
        let surface = if self.port == Port::Metrics {
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

/// The answer to a call over HTTP/2 whose content type is not gRPC's, as grpc-go gives it.
pub fn not_grpc(request: &HttpRequest) -> HttpResponse {
    let content_type = request.headers.value("content-type").unwrap_or_default();
    let status = invalid_content_type(content_type);
    let header = |name, value| (Cow::Borrowed(name), value);
    HttpResponse {
        status: 415,
        headers: vec![
            header("content-type", Cow::Borrowed("application/grpc")),
            header("grpc-status", Cow::Owned((status.code as u32).to_string())),
            header("grpc-message", Cow::Owned(percent_encode(&status.message).into_owned())),
        ],
        body: HttpBody::Full(bytes::Bytes::new()),
    }
}

/// An answer with headers besides its own.
pub fn with_headers(mut response: HttpResponse, headers: &ExtraHeaders) -> HttpResponse {
    let extra = headers
        .iter()
        .map(|(name, value)| (Cow::Owned(name.to_ascii_lowercase()), value.clone()));
    response.headers.extend(extra);
    response
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
