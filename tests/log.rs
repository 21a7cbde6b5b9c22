//! The log of a process: one per process, so one test.

use std::{
    ffi::CString,
    fs,
    io::Read,
    os::{fd::FromRawFd, unix::ffi::OsStrExt},
    time::{Duration, Instant},
};

use ringd::{
    config::{LogConfig, LogFormat, LogLevel, LogOutput, Notice},
    ops::log,
};

/// A named pipe, and its reading end, which is not read yet.
#[allow(unsafe_code)]
fn pipe(path: &std::path::Path) -> fs::File {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `name` is a valid string for both calls; the descriptor is new and owned by nobody else.
    unsafe {
        assert_eq!(libc::mkfifo(name.as_ptr(), 0o600), 0);
        let descriptor = libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_NONBLOCK);
        assert!(descriptor >= 0);
        fs::File::from_raw_fd(descriptor)
    }
}

#[test]
fn lines_are_zap_s_and_a_reader_that_stands_still_stops_nobody() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("ringd.log");
    let pipe_path = scratch.path().join("pipe");
    let mut reader = pipe(&pipe_path);
    let config = LogConfig {
        level: LogLevel::Info,
        format: LogFormat::Json,
        outputs: vec![LogOutput::File(path.clone()), LogOutput::File(pipe_path)],
        rotation: None,
    };
    log::start(&config).unwrap();
    assert!(log::start(&config).is_err(), "one log per process");

    let urls = ["http://127.0.0.1:2380", "http://127.0.0.1:2381"];
    tracing::info!("listen-peer-urls" = ?urls, "configuring peer listeners");
    tracing::warn!("local-member-id" = %"8e9e05c52164694d", took = ?Duration::from_millis(3), count = 7u64, ok = true, "slow");
    tracing::error!(zap.level = "fatal", zap.logger = "raft", "the end");
    tracing::debug!("never seen");
    log::tell(&[
        Notice::new(LogLevel::Warn, "told").with("flag-name", "x"),
        Notice::new(LogLevel::Debug, "not told"),
    ]);
    log::flush();
    let lines: Vec<serde_json::Value> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[0]["level"], "info");
    assert_eq!(lines[0]["msg"], "configuring peer listeners");
    assert_eq!(lines[0]["listen-peer-urls"][1], urls[1]);
    assert!(lines[0]["caller"].as_str().unwrap().starts_with("tests/log.rs:"));
    let ts = lines[0]["ts"].as_str().unwrap();
    assert!(ts.len() == 27 && ts.ends_with('Z') && ts.contains('T'), "{ts}");
    assert_eq!(
        (&lines[1]["local-member-id"], &lines[1]["took"]),
        (&"8e9e05c52164694d".into(), &"3ms".into())
    );
    assert_eq!((&lines[1]["count"], &lines[1]["ok"]), (&7.into(), &true.into()));
    assert_eq!(
        (&lines[2]["level"], &lines[2]["logger"]),
        (&"fatal".into(), &"raft".into())
    );
    assert_eq!(
        (&lines[3]["msg"], &lines[3]["flag-name"]),
        (&"told".into(), &"x".into())
    );

    // Nobody reads the pipe: the writing thread stands still behind its 64 KiB, and the queue fills up.
    let began = Instant::now();
    let text = "x".repeat(100);
    for index in 0..50_000 {
        tracing::info!(index, text, "a line");
    }
    let elapsed = began.elapsed();
    println!("50,000 lines in {elapsed:?}, {} dropped", log::lines_dropped());
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert!(log::lines_dropped() > 10_000, "{}", log::lines_dropped());

    // When it is read again, the loss is told.
    let mut bytes = vec![0; 1 << 20];
    let mut text = String::new();
    for _ in 0..2_000 {
        match reader.read(&mut bytes) {
            Ok(count) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        if text.contains("log lines were dropped") {
            return;
        }
    }
    panic!("nothing was told of {} lines", log::lines_dropped());
}
