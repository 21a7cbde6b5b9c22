//! /health, /livez, /readyz, /version, /metrics and /debug/vars: from facts to an HTTP answer, as etcd gives it.
//!
//! Pure, in steps. [`begin`] answers at once where it can; where a read has to be tried first it says which one, and
//! [`Pending::finish`] takes the outcomes. Knows nothing of sockets, of CORS (`access.rs`) or of whom the answer goes
//! to; an answer to HEAD loses its body in the HTTP layer.

use std::borrow::Cow;

use crate::config::version::SERVER_VERSION;

/// Content type of texts, errors among them.
const TEXT: &str = "text/plain; charset=utf-8";

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// `GET`, ...
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What stands behind `?`; empty if nothing does.
    pub query: &'a str,
}

/// An answer. Date, length and connection headers are added by the HTTP layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Names as Go writes them.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Which listener a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// A client URL: everything.
    Client,
    /// A metrics URL: /metrics and health.
    Metrics,
}

/// What is known without waiting.
#[derive(Clone, Copy, Debug)]
pub struct HealthFacts<'a> {
    /// Active alarms, in the order of etcd's list.
    pub alarms: &'a [HealthAlarm],
    /// Whether there is a leader.
    pub has_leader: bool,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Decided or not; three numbers.
    pub cluster_version: Option<&'a str>,
    /// From 3.6 on; three numbers.
    pub storage_version: Option<&'a str>,
    /// The command line, the program first.
    pub command_line: &'a [String],
    /// Limit of open file descriptors.
    pub fd_limit: u64,
}

/// An active alarm of any member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HealthAlarm {
    NoSpace,
    Corrupt,
    Unknown,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Step {
    /// Send this, and count what was checked.
    Done(Answer),
    /// Try the reads that [`Pending`] names (one key, keys only), then [`Pending::finish`].
    Read(Pending),
    /// Gather the counters and answer with [`metrics_response`].
    Metrics,
    /// None of ours: another handler's, or [`not_found`].
    Other,
}

/// An answer with what is to be counted.
#[derive(Debug)]
pub struct Answer {
    /// To be sent.
    pub response: HttpResponse,
    /// Set by /health: whether it answered that all is well.
    pub health: Option<bool>,
    /// Set by /livez and /readyz.
    pub checks: Vec<CheckOutcome>,
}

/// Outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// `livez` or `readyz`.
    pub kind: &'static str,
    /// The check's name.
    pub name: &'static str,
    /// Why it failed.
    pub result: Result<(), String>,
}

/// A request that waits for reads.
#[derive(Debug)]
pub struct Pending {
    /// Whether a serializable read is to be tried.
    pub serializable: bool,
    /// Whether a linearizable read is to be tried. It may take a request timeout to fail.
    pub linearizable: bool,
    question: Question,
}

#[derive(Debug)]
enum Question {
    Health,
    Checks {
        kind: &'static str,
        checks: Vec<Check>,
        is_verbose: bool,
        is_learner: bool,
        is_corrupt: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] = [
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

/// Looks at a request.
pub fn begin(request: HttpRequest<'_>, surface: Surface, facts: &HealthFacts<'_>) -> Step {
    match request.path {
        "/metrics" => return Step::Metrics,
        "/version" | "/debug/vars" if surface == Surface::Client => {}
        "/health" => {}
        path if checks_of(path).is_some() => {}
        _ => return Step::Other,
    }
    if request.method != "GET" {
        return Step::Done(Answer::plain(method_not_allowed()));
    }
    match request.path {
        "/version" => Step::Done(Answer::plain(version(facts))),
        "/debug/vars" => Step::Done(Answer::plain(debug_vars(facts))),
        "/health" => begin_health(request.query, facts),
        path => {
            let (kind, checks) = checks_of(path).expect("looked at above");
            begin_checks(kind, checks, path, request.query, facts)
        }
    }
}

/// The kind of check at a path, and which ones are meant.
fn checks_of(path: &str) -> Option<(&'static str, Vec<Check>)> {
    let path = path.strip_prefix('/')?;
    let (kind, all): (_, &[Check]) = match path.split('/').next()? {
        "livez" => ("livez", &LIVEZ),
        "readyz" => ("readyz", &READYZ),
        _ => return None,
    };
    match path[kind.len()..].strip_prefix('/') {
        None => Some((kind, all.to_vec())),
        Some(name) => all
            .iter()
            .find(|check| check.name() == name)
            .map(|check| (kind, vec![*check])),
    }
}

fn begin_health(query: &str, facts: &HealthFacts<'_>) -> Step {
    let excluded = query_values(query, "exclude");
    let is_serializable = query_values(query, "serializable")
        .first()
        .is_some_and(|value| value == "true");
    for alarm in facts.alarms {
        let (name, reason) = match alarm {
            HealthAlarm::NoSpace => ("NOSPACE", "ALARM NOSPACE"),
            HealthAlarm::Corrupt => ("CORRUPT", "ALARM CORRUPT"),
            HealthAlarm::Unknown => ("NONE", "ALARM UNKNOWN"),
        };
        if !excluded.iter().any(|value| value == name) {
            return Step::Done(health(Err(reason.to_string())));
        }
    }
    if !is_serializable && !facts.has_leader {
        return Step::Done(health(Err("RAFT NO LEADER".to_string())));
    }
    Step::Read(Pending {
        serializable: is_serializable,
        linearizable: !is_serializable,
        question: Question::Health,
    })
}

fn begin_checks(kind: &'static str, mut checks: Vec<Check>, path: &str, query: &str, facts: &HealthFacts<'_>) -> Step {
    // Only the root path knows `exclude`; a name that is no check is passed over.
    if path[1..] == *kind {
        let excluded = query_values(query, "exclude");
        checks.retain(|check| !excluded.iter().any(|name| name == check.name()));
    }
    let pending = Pending {
        serializable: checks.contains(&Check::SerializableRead),
        linearizable: checks.contains(&Check::LinearizableRead),
        question: Question::Checks {
            kind,
            checks,
            is_verbose: has_query_key(query, "verbose"),
            is_learner: facts.is_learner,
            is_corrupt: facts.alarms.contains(&HealthAlarm::Corrupt),
        },
    };
    if pending.serializable || pending.linearizable {
        Step::Read(pending)
    } else {
        Step::Done(pending.finish(Ok(()), Ok(())))
    }
}

impl Pending {
    /// The answer, with the errors' texts of the reads that were asked for; a read that was not is `Ok`.
    pub fn finish(self, serializable: Result<(), String>, linearizable: Result<(), String>) -> Answer {
        match self.question {
            Question::Health => {
                let outcome = serializable.and(linearizable);
                health(outcome.map_err(|error| format!("RANGE ERROR:{error}")))
            }
            Question::Checks {
                kind,
                checks,
                is_verbose,
                is_learner,
                is_corrupt,
            } => {
                let fail = |failed: bool, text: &str| if failed { Err(text.to_string()) } else { Ok(()) };
                let result = |check: &Check| match check {
                    Check::DataCorruption => fail(is_corrupt, "alarm activated: CORRUPT"),
                    Check::SerializableRead => serializable.clone(),
                    Check::LinearizableRead => linearizable.clone(),
                    Check::NonLearner => fail(is_learner, "not supported for learner"),
                };
                let outcome = |check: &Check| CheckOutcome {
                    kind,
                    name: check.name(),
                    result: result(check),
                };
                let outcomes: Vec<CheckOutcome> = checks.iter().map(outcome).collect();
                Answer {
                    response: checks_response(&outcomes, is_verbose),
                    health: None,
                    checks: outcomes,
                }
            }
        }
    }
}

fn checks_response(outcomes: &[CheckOutcome], is_verbose: bool) -> HttpResponse {
    let line = |outcome: &CheckOutcome| match &outcome.result {
        Ok(()) => format!("[+]{} ok\n", outcome.name),
        Err(error) => format!("[-]{} failed: {error}\n", outcome.name),
    };
    let lines: String = outcomes.iter().map(line).collect();
    if outcomes.iter().any(|outcome| outcome.result.is_err()) {
        return error_response(503, &lines);
    }
    let body = if is_verbose { lines + "ok\n" } else { "ok\n".to_string() };
    HttpResponse {
        status: 200,
        headers: vec![
            ("Content-Type", TEXT.into()),
            ("X-Content-Type-Options", "nosniff".into()),
        ],
        body: body.into_bytes(),
    }
}

fn health(outcome: Result<(), String>) -> Answer {
    let is_well = outcome.is_ok();
    let reason = outcome.err().unwrap_or_default();
    let body = format!(r#"{{"health":"{is_well}","reason":{}}}"#, json_string(&reason));
    let response = if is_well {
        // etcd sets no type here; Go looks at the body and calls it text.
        HttpResponse {
            status: 200,
            headers: vec![("Content-Type", TEXT.into())],
            body: body.into_bytes(),
        }
    } else {
        error_response(503, &body)
    };
    Answer {
        response,
        health: Some(is_well),
        checks: Vec::new(),
    }
}

impl Answer {
    fn plain(response: HttpResponse) -> Answer {
        Answer {
            response,
            health: None,
            checks: Vec::new(),
        }
    }
}

fn version(facts: &HealthFacts<'_>) -> HttpResponse {
    let cluster = facts.cluster_version.unwrap_or("not_decided");
    let storage = facts.storage_version.unwrap_or("unknown");
    let body = format!(
        r#"{{"etcdserver":{},"etcdcluster":{},"storage":{}}}"#,
        json_string(SERVER_VERSION),
        json_string(cluster),
        json_string(storage)
    );
    json_response("application/json", body)
}

fn debug_vars(facts: &HealthFacts<'_>) -> HttpResponse {
    let arguments: Vec<String> = facts
        .command_line
        .iter()
        .map(|argument| json_string(argument))
        .collect();
    // Go's memory statistics have no counterpart; an empty object keeps readers of the key going.
    let body = format!(
        "{{\n\"cmdline\": [{}],\n\"file_descriptor_limit\": {},\n\"memstats\": {{}}\n}}\n",
        arguments.join(","),
        facts.fd_limit
    );
    json_response("application/json; charset=utf-8", body)
}

/// The answer to a scrape.
pub fn metrics_response(text: String) -> HttpResponse {
    HttpResponse {
        status: 200,
        headers: vec![("Content-Type", crate::ops::metrics::CONTENT_TYPE.into())],
        body: text.into_bytes(),
    }
}

/// Go's answer to an unknown path.
pub fn not_found() -> HttpResponse {
    error_response(404, "404 page not found")
}

/// Go's answer to a wrong method where only GET is right.
pub fn method_not_allowed() -> HttpResponse {
    let mut response = error_response(405, "Method Not Allowed");
    response.headers.insert(0, ("Allow", "GET".into()));
    response
}

/// An error as Go's `http.Error` writes it: a line of text.
pub fn error_response(status: u16, text: &str) -> HttpResponse {
    HttpResponse {
        status,
        headers: vec![
            ("Content-Type", TEXT.into()),
            ("X-Content-Type-Options", "nosniff".into()),
        ],
        body: format!("{text}\n").into_bytes(),
    }
}

fn json_response(content_type: &'static str, body: String) -> HttpResponse {
    HttpResponse {
        status: 200,
        headers: vec![("Content-Type", content_type.into())],
        body: body.into_bytes(),
    }
}

/// A JSON string as Go's encoder writes it: `<`, `>` and `&` are escaped too.
pub(crate) fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                json.push_str(&format!("\\u{:04x}", character as u32));
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

fn has_query_key(query: &str, key: &str) -> bool {
    query_pairs(query).any(|(name, _)| name == key)
}

/// The values of a key, without empty ones.
fn query_values(query: &str, key: &str) -> Vec<String> {
    query_pairs(query)
        .filter(|(name, value)| name == key && !value.is_empty())
        .map(|(_, value)| value)
        .collect()
}

/// A query's pairs by Go's rules: a pair with a bad escape or a semicolon is left out.
fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(name)?, unescape(value)?))
        })
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = rest
                    .get(..2)
                    .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = &rest[2..];
            }
            other => bytes.push(other),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs outside bytes through the request reading.
pub fn fuzz_request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let facts = HealthFacts {
        alarms: &[HealthAlarm::Corrupt],
        has_leader: true,
        is_learner: false,
        cluster_version: None,
        storage_version: None,
        command_line: &[],
        fd_limit: 0,
    };
    if let Step::Read(pending) = begin(
        HttpRequest {
            method: "GET",
            path,
            query,
        },
        Surface::Client,
        &facts,
    ) {
        let answer = pending.finish(Ok(()), Err(query.to_string()));
        assert!(matches!(answer.response.status, 200 | 503));
    }
}

#[cfg(test)]
mod tests;
