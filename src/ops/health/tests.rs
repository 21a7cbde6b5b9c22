//! What a running etcd answers, and what noise does.

use super::*;

const ALL_WELL: HealthFacts<'static> = HealthFacts {
    alarms: &[],
    has_leader: true,
    is_learner: false,
    cluster_version: Some("3.5.0"),
    storage_version: None,
    command_line: &[],
    fd_limit: 20_000,
};

fn begin_get(target: &str, facts: &HealthFacts<'_>) -> Step {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    begin(
        HttpRequest {
            method: "GET",
            path,
            query,
        },
        Surface::Client,
        facts,
    )
}

/// Status and body, when both reads go well.
fn get(target: &str, facts: &HealthFacts<'_>) -> (u16, String) {
    get_with(target, facts, Ok(()), Ok(()))
}

fn get_with(
    target: &str,
    facts: &HealthFacts<'_>,
    serializable: Result<(), String>,
    linearizable: Result<(), String>,
) -> (u16, String) {
    let answer = match begin_get(target, facts) {
        Step::Done(answer) => answer,
        Step::Read(pending) => pending.finish(serializable, linearizable),
        Step::Metrics => panic!("{target} is /metrics"),
        Step::Other => return (404, String::from_utf8(not_found().body).unwrap()),
    };
    (answer.response.status, String::from_utf8(answer.response.body).unwrap())
}

/// Captured from etcd 3.5.30 with `curl -si http://127.0.0.1:2379TARGET`.
#[test]
fn answers_are_etcd_s() {
    let well = r#"{"health":"true","reason":""}"#;
    for (target, status, body) in [
        ("/health", 200, well),
        ("/health?serializable=true", 200, well),
        ("/health?exclude=FOO", 200, well),
        ("/livez", 200, "ok\n"),
        ("/livez?verbose", 200, "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", 200, "ok\n"),
        ("/readyz/non_learner?verbose", 200, "[+]non_learner ok\nok\n"),
        (
            "/readyz?exclude=serializable_read&verbose",
            200,
            "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
        ("/readyz/foo", 404, "404 page not found\n"),
        ("/livez/", 404, "404 page not found\n"),
        ("/livez/serializable_read/x", 404, "404 page not found\n"),
        ("/livezz", 404, "404 page not found\n"),
        ("/health/", 404, "404 page not found\n"),
        // Found by noise: a path that does not begin with a slash.
        ("\u{e9}/livez", 404, "404 page not found\n"),
        ("/", 404, "404 page not found\n"),
        ("", 404, "404 page not found\n"),
    ] {
        assert_eq!(get(target, &ALL_WELL), (status, body.to_string()), "{target}");
    }
}

#[test]
fn every_reason_of_ill_health_is_told() {
    let alarmed = HealthFacts {
        alarms: &[HealthAlarm::NoSpace, HealthAlarm::Corrupt],
        ..ALL_WELL
    };
    let leaderless = HealthFacts {
        has_leader: false,
        ..ALL_WELL
    };
    let body = |reason: &str| (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"));
    assert_eq!(get("/health", &alarmed), body("ALARM NOSPACE"));
    assert_eq!(get("/health?exclude=NOSPACE", &alarmed), body("ALARM CORRUPT"));
    assert_eq!(get("/health?exclude=NOSPACE&exclude=CORRUPT", &alarmed).0, 200);
    assert_eq!(get("/health", &leaderless), body("RAFT NO LEADER"));
    assert_eq!(get("/health?serializable=true", &leaderless).0, 200);
    let timeout = Err("etcdserver: request timed out".to_string());
    assert_eq!(
        get_with("/health", &ALL_WELL, Ok(()), timeout.clone()),
        body("RANGE ERROR:etcdserver: request timed out")
    );
    let learner = HealthFacts {
        is_learner: true,
        alarms: &[HealthAlarm::Corrupt],
        ..ALL_WELL
    };
    assert_eq!(
        get_with("/readyz", &learner, Ok(()), timeout),
        (
            503,
            "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[-]linearizable_read \
             failed: etcdserver: request timed out\n[-]non_learner failed: not supported for learner\n\n"
                .to_string()
        )
    );
}

#[test]
fn only_the_reads_that_are_needed_are_asked_for() {
    let reads = |target: &str| match begin_get(target, &ALL_WELL) {
        Step::Read(pending) => (pending.serializable, pending.linearizable),
        Step::Done(_) => (false, false),
        _ => panic!("{target} is no health endpoint"),
    };
    assert_eq!(reads("/health"), (false, true));
    assert_eq!(reads("/health?serializable=true"), (true, false));
    assert_eq!(reads("/livez"), (true, false));
    assert_eq!(reads("/livez?exclude=serializable_read"), (false, false));
    assert_eq!(reads("/readyz"), (true, true));
    assert_eq!(reads("/readyz/data_corruption"), (false, false));
    // A subpath does not know `exclude`.
    assert_eq!(
        reads("/livez/serializable_read?exclude=serializable_read"),
        (true, false)
    );
}

#[test]
fn other_methods_are_refused_but_for_metrics() {
    let begin = |method: &str, path: &str, surface| {
        begin(
            HttpRequest {
                method,
                path,
                query: "",
            },
            surface,
            &ALL_WELL,
        )
    };
    for path in ["/health", "/livez", "/readyz/non_learner", "/version", "/debug/vars"] {
        for method in ["POST", "HEAD", "PUT"] {
            let Step::Done(answer) = begin(method, path, Surface::Client) else {
                panic!("{method} {path}")
            };
            assert_eq!(
                (answer.response.status, &answer.response.body[..]),
                (405, &b"Method Not Allowed\n"[..])
            );
            assert!(answer.response.headers.contains(&("Allow", "GET".into())));
        }
    }
    assert!(matches!(begin("POST", "/metrics", Surface::Client), Step::Metrics));
    assert!(matches!(begin("GET", "/version", Surface::Metrics), Step::Other));
    assert!(matches!(begin("GET", "/readyz", Surface::Metrics), Step::Read(_)));
}

#[test]
fn versions_are_told_as_3_6_does() {
    let body = get("/version", &ALL_WELL).1;
    assert_eq!(
        body,
        r#"{"etcdserver":"3.6.14","etcdcluster":"3.5.0","storage":"unknown"}"#
    );
    let early = HealthFacts {
        cluster_version: None,
        ..ALL_WELL
    };
    assert!(get("/version", &early).1.contains(r#""etcdcluster":"not_decided""#));
}

#[test]
fn debug_vars_are_json() {
    let command_line = ["ringd".to_string(), "--name=\"<a>\"".to_string()];
    let facts = HealthFacts {
        command_line: &command_line,
        ..ALL_WELL
    };
    let json: serde_json::Value = serde_json::from_str(&get("/debug/vars", &facts).1).unwrap();
    assert_eq!(json["cmdline"][1], "--name=\"<a>\"");
    assert_eq!(json["file_descriptor_limit"], 20_000);
}

#[test]
fn queries_are_read_by_go_s_rules() {
    let values = |query: &str| query_values(query, "exclude");
    assert_eq!(values("exclude=a%20b&exclude=c+d&exclude=&exclude"), ["a b", "c d"]);
    assert_eq!(values("exclude=%zz&excl%75de=x&exclude=a;b"), ["x"]);
    assert!(has_query_key("verbose", "verbose") && has_query_key("a&verbose=", "verbose"));
}

#[test]
fn seeded_bytes_do_no_harm() {
    crate::config::fuzz_seeds(fuzz_request);
}
