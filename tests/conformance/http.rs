//! HTTP/1.1 on the client port: version, health, metrics, and what is not there.

use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::Fixture,
    support::{http1, world::Target},
};

bodies! {
    standing {
        version_is_two_versions,
        health_is_a_json_object_of_strings,
        livez_and_readyz_are_plain_ok,
        livez_and_readyz_list_their_checks_when_asked,
        single_checks_have_paths_of_their_own,
        checks_can_be_excluded,
        other_paths_are_not_found,
        other_methods_are_not_allowed,
        every_answer_has_cors_headers_and_options_is_ok,
        metrics_have_the_names_that_dashboards_use,
        metrics_count_puts_and_calls,
        every_family_of_etcd_is_scraped,
        metrics_count_compactions_and_writes_of_the_log,
        debug_vars_is_json,
        pprof_is_off,
        several_requests_share_a_connection,
    }
}

async fn version_is_two_versions(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = http1::get(t.world(), "/version").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let server = f.status().await.version;
    let head = format!("{{\"etcdserver\":\"{server}\",\"etcdcluster\":\"3.5.0\"");
    if f.is_36().await {
        assert!(
            answer.body.starts_with(&head) && answer.body.contains("\"storage\":"),
            "{}",
            answer.body
        );
    } else {
        assert_eq!(answer.body, format!("{head}}}"));
    }
}

async fn health_is_a_json_object_of_strings(t: Target) {
    for path in [
        "/health",
        "/health?serializable=true",
        "/health?exclude=NOSPACE",
        "/health?exclude=CORRUPT&serializable=false",
    ] {
        let answer = http1::get(t.world(), path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"health":"true","reason":""}"#),
            "{path}"
        );
    }
}

async fn livez_and_readyz_are_plain_ok(t: Target) {
    for path in ["/livez", "/readyz"] {
        let answer = http1::get(t.world(), path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

/// Lines of a verbose answer: the checks, sorted (their order is not kept), and the last line.
fn checks(body: &str) -> (Vec<&str>, Option<&str>) {
    let mut lines: Vec<_> = body.lines().collect();
    let last = lines.pop();
    lines.sort_unstable();
    (lines, last)
}

async fn livez_and_readyz_list_their_checks_when_asked(t: Target) {
    let live = http1::get(t.world(), "/livez?verbose").await;
    assert_eq!(checks(&live.body), (vec!["[+]serializable_read ok"], Some("ok")));
    let ready = http1::get(t.world(), "/readyz?verbose").await;
    let expected = [
        "[+]data_corruption ok",
        "[+]linearizable_read ok",
        "[+]non_learner ok",
        "[+]serializable_read ok",
    ];
    assert_eq!(checks(&ready.body), (expected.to_vec(), Some("ok")));
}

async fn single_checks_have_paths_of_their_own(t: Target) {
    for path in [
        "/livez/serializable_read",
        "/readyz/data_corruption",
        "/readyz/serializable_read",
        "/readyz/linearizable_read",
        "/readyz/non_learner",
    ] {
        let answer = http1::get(t.world(), path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
    for path in ["/livez/nope", "/livez/linearizable_read"] {
        assert_eq!(http1::get(t.world(), path).await.status, 404, "{path}");
    }
}

async fn checks_can_be_excluded(t: Target) {
    let ready = http1::get(t.world(), "/readyz?exclude=data_corruption&verbose").await;
    let expected = [
        "[+]linearizable_read ok",
        "[+]non_learner ok",
        "[+]serializable_read ok",
    ];
    assert_eq!(checks(&ready.body), (expected.to_vec(), Some("ok")));
    assert_eq!(http1::get(t.world(), "/readyz?exclude=nope").await.body, "ok\n");
}

async fn other_paths_are_not_found(t: Target) {
    for path in ["/", "/nope", "/v2/keys", "/members", "/config/local/log", "/version/x"] {
        let answer = http1::get(t.world(), path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
    }
}

async fn other_methods_are_not_allowed(t: Target) {
    for path in ["/version", "/health", "/livez", "/readyz"] {
        let answer = http1::request(t.world(), "POST", path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{path}");
        assert_eq!(answer.body, "Method Not Allowed\n");
    }
    let head = http1::request(t.world(), "HEAD", "/version", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (405, ""));
}

async fn every_answer_has_cors_headers_and_options_is_ok(t: Target) {
    for (method, path, status) in [
        ("GET", "/version", 200),
        ("GET", "/nope", 404),
        ("OPTIONS", "/version", 200),
        ("OPTIONS", "/nope", 200),
    ] {
        let answer = http1::request(t.world(), method, path, &[("Origin", "http://elsewhere")], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("POST, GET, OPTIONS, PUT, DELETE")
        );
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("accept, content-type, authorization")
        );
    }
}

async fn metrics_have_the_names_that_dashboards_use(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let answer = http1::get(t.world(), "/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4"),
        "{answer:?}"
    );
    let sample = |name: &str| {
        answer
            .body
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
    };
    let missing: Vec<_> = METRICS.iter().filter(|name| !sample(name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

/// Names that alert rules, dashboards and Kubernetes read.
const METRICS: [&str; 34] = [
    "etcd_server_has_leader",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_id",
    "etcd_server_version",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_pending",
    "etcd_server_proposals_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_quota_backend_bytes",
    "etcd_server_health_success",
    "etcd_cluster_version",
    "etcd_disk_wal_fsync_duration_seconds_bucket",
    "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_bucket",
    "etcd_disk_backend_snapshot_duration_seconds_count",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_lease_granted_total",
    "grpc_server_handled_total",
    "process_resident_memory_bytes",
];

/// Value of a metric without labels.
async fn metric(t: &Target, name: &str) -> f64 {
    let body = http1::get(t.world(), "/metrics").await.body;
    let line = body
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_string));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

async fn metrics_count_puts_and_calls(t: Target) {
    let f = Fixture::new(&t).await;
    let puts = metric(&t, "etcd_mvcc_put_total").await;
    let calls = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    f.put_at("a", "1", 1).await;
    let handled = metric(&t, calls).await;
    f.put_at("a", "2", 2).await;
    f.put_at("b", "2", 3).await;
    assert_eq!(metric(&t, "etcd_mvcc_put_total").await, puts + 3.0);
    assert_eq!(metric(&t, calls).await, handled + 2.0);
    assert_eq!(
        metric(&t, "etcd_debugging_mvcc_current_revision").await,
        (f.base + 3) as f64
    );
    assert_eq!(metric(&t, "etcd_server_has_leader").await, 1.0);
    let status: pb::StatusResponse = f.status().await;
    assert_eq!(
        metric(&t, "etcd_mvcc_db_total_size_in_bytes").await,
        status.db_size as f64
    );
}

async fn metrics_count_compactions_and_writes_of_the_log(t: Target) {
    let pauses = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count";
    let f = Fixture::new(&t).await;
    let before = metric(&t, pauses).await;
    for revision in 1..=20 {
        f.put_at("a", "1", revision).await;
    }
    f.compact(f.base + 20).await;
    f.put_at("a", "1", 21).await;
    // A store may tell of its batches with its next commit.
    t.sleep(std::time::Duration::from_millis(300)).await;
    assert!(metric(&t, pauses).await > before, "a compaction has batches");
    for name in [
        "etcd_disk_wal_write_duration_seconds",
        "etcd_disk_wal_fsync_duration_seconds",
    ] {
        assert!(metric(&t, &format!("{name}_count")).await > 0.0, "{name}");
        assert!(metric(&t, &format!("{name}_sum")).await > 0.0, "{name}");
    }
    assert!(metric(&t, "etcd_mvcc_db_open_read_transactions").await >= 1.0);
    assert_eq!(metric(&t, "etcd_debugging_mvcc_pending_events_total").await, 0.0);
}

/// Families that etcd 3.5 shows and ringd, like 3.6, does not: of the v2 store, and an old name.
const GONE: [&str; 3] = [
    "# TYPE etcd_debugging_mvcc_range_total counter",
    "# TYPE etcd_debugging_store_reads_total counter",
    "# TYPE etcd_debugging_store_writes_total counter",
];

async fn every_family_of_etcd_is_scraped(t: Target) {
    const CAPTURED: &str = include_str!("../golden/metrics/etcd-3.5.30.txt");
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    for path in ["/livez", "/readyz"] {
        http1::get(t.world(), path).await;
    }
    let body = http1::get(t.world(), "/metrics").await.body;
    let scraped: std::collections::BTreeSet<&str> = body.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let is_expected = |line: &&str| line.starts_with("# TYPE ") && !GONE.contains(line);
    let missing: Vec<_> = CAPTURED
        .lines()
        .filter(is_expected)
        // Only with --metrics extensive.
        .filter(|line| !line.contains("grpc_server_handling_seconds"))
        .filter(|line| !scraped.contains(line))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

async fn debug_vars_is_json(t: Target) {
    let answer = http1::get(t.world(), "/debug/vars").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json; charset=utf-8"))
    );
    let value: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert!(
        value.get("cmdline").is_some() && value.get("memstats").is_some(),
        "{}",
        answer.body
    );
}

async fn pprof_is_off(t: Target) {
    for path in ["/debug/pprof/", "/debug/pprof/heap", "/debug/requests"] {
        assert_eq!(http1::get(t.world(), path).await.status, 404, "{path}");
    }
}

async fn several_requests_share_a_connection(t: Target) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut io = t.world().dial().await.expect("a connection");
    let request = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..3 {
        io.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(br#""reason":""}"#) {
            let mut buffer = [0; 1024];
            let length = io.read(&mut buffer).await.unwrap();
            assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..length]);
        }
        assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}
