//! `ringd bench` as a program: what it prints and writes, its exit code, and that it agrees with what the server counted.
//! Runs against ringd, and against a real etcd when `ETCD_BIN` is set.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use crate::support::process::{Process, Program};

fn bench(words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringd"))
        .arg("bench")
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn refusal(words: &str) -> String {
    let output = bench(words);
    assert!(!output.status.success(), "{words}");
    assert!(output.stdout.is_empty(), "{words}: no result is printed");
    String::from_utf8(output.stderr).unwrap()
}

fn programs() -> impl Iterator<Item = Program> {
    [Program::Ringd, Program::Etcd]
        .into_iter()
        .filter(|program| program.path().is_some())
}

/// A counter of the server's, over all its labels.
fn metric(process: &Process, name: &str) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", process.client_port)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn figures_agree_with_the_server_s_own_and_are_written() {
    let puts = r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV""#;
    for program in programs() {
        let process = Process::start(program, &[]);
        let prefix = process.root().join("result");
        let before = metric(&process, puts);
        let output = bench(&format!(
            "put --endpoints 127.0.0.1:{} --total 500 --clients 20 --conns 5 --key-space-size 30 -w json --server-pid {} \
             --save {}",
            process.client_port,
            process.pid().unwrap(),
            prefix.display()
        ));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", program.name());
        assert_eq!(metric(&process, puts) - before, 500.0, "{}", program.name());
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let put = &printed["operations"]["put"];
        assert_eq!(put["count"], 500);
        let quantiles =
            ["p50_us", "p90_us", "p99_us", "p99.9_us", "p99.99_us", "max_us"].map(|name| put[name].as_f64().unwrap());
        assert!(quantiles.is_sorted() && quantiles[0] > 1.0, "{quantiles:?}");
        let moments = put["moments"].as_array().unwrap();
        assert_eq!(
            moments.iter().map(|moment| moment[0].as_u64().unwrap()).sum::<u64>(),
            500
        );
        assert!(printed["server_resident_bytes_max"].as_f64().unwrap() > 1e6);
        let saved = fs::read_to_string(prefix.with_extension("json")).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&saved).unwrap(), printed);
        assert!(
            fs::read_to_string(prefix.with_extension("put.hgrm"))
                .unwrap()
                .contains("Total count    =          500")
        );
        assert!(
            fs::read_to_string(prefix.with_extension("svg"))
                .unwrap()
                .starts_with("<svg")
        );
    }
}

#[test]
fn watches_leases_and_a_control_plane_run_on_real_servers() {
    for program in programs() {
        let process = Process::start(program, &[]);
        for (words, row) in [
            (
                "watch --streams 2 --watch-per-stream 20 --put-total 20 --conns 2",
                "event              800",
            ),
            (
                "watch-latency --put-total 20 --put-rate 400 --prevkv",
                "event             2000",
            ),
            ("lease-keepalive --clients 5 --total 50", "keepalive           50"),
            ("lease-revoke --clients 5 --total 50", "revoke "),
            (
                "kubernetes --objects 50 --page 20 --total 200 --clients 5 --conns 2 --watches 3",
                "update ",
            ),
            (
                "txn-mixed --load --key-space-size 20 --total 50",
                "txn-write           25",
            ),
            (
                "put --total 300 --compact-interval 5ms --compact-index-delta 10 --rate 2000 --clients 9",
                "compact ",
            ),
        ] {
            let output = bench(&format!("{words} --endpoints 127.0.0.1:{}", process.client_port));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} {words}: {stderr}", program.name());
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                text.lines().any(|line| line.starts_with(row)),
                "{} {words}: {text}",
                program.name()
            );
        }
    }
}

#[test]
fn a_server_killed_under_load_leaves_no_result() {
    let mut process = Process::start(Program::Ringd, &[]);
    let port = process.client_port;
    let load = thread::spawn(move || {
        refusal(&format!(
            "put --endpoints 127.0.0.1:{port} --duration 30s --clients 8 --conns 2"
        ))
    });
    thread::sleep(Duration::from_millis(800));
    process.kill();
    let error = load.join().unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains("Unavailable") || error.contains("ended a connection"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_is_said_in_one_sentence() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (words, sentence) in [
        (format!("put --endpoints {closed}"), format!("cannot reach {closed}: ")),
        (
            "put --endpoints https://a:1".to_owned(),
            "TLS is not supported yet".to_owned(),
        ),
        (
            "put --endpoints here".to_owned(),
            "\"here\" is not HOST:PORT".to_owned(),
        ),
        (
            "put --clients 0".to_owned(),
            "--clients must be from 1 to 100000".to_owned(),
        ),
        (
            "put --key-size 2 --key-space-size 101".to_owned(),
            "too few bytes to tell 101 keys apart".to_owned(),
        ),
        (
            "watch --val-size 4".to_owned(),
            "--val-size must be at least 8".to_owned(),
        ),
        ("kubernetes --mix 1,2".to_owned(), "not three weights".to_owned()),
        ("put --duration 5".to_owned(), "missing unit in duration".to_owned()),
        (
            "put --save /nonexistent/here".to_owned(),
            "directory /nonexistent cannot be written".to_owned(),
        ),
        (
            "put --server-pid 999999999".to_owned(),
            "there is no process 999999999".to_owned(),
        ),
    ] {
        let error = refusal(&words);
        assert!(
            error.contains(&sentence) && error.lines().count() == 1,
            "{words}: {error}"
        );
    }
    // clap's own: with the usage behind the sentence.
    assert!(refusal("put --totl 5").contains("unexpected argument '--totl'"));
    assert!(refusal("puts").contains("unrecognized subcommand 'puts'"));
}

#[test]
fn a_server_that_is_no_etcd_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = refusal(&format!("range key --endpoints {address}"));
    assert!(
        error.contains("does not answer as an etcd") || error.contains("ended a connection"),
        "{error}"
    );
    other.join().unwrap();
}
