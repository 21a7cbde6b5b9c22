//! `benches/compare` without a measurement: what is missing is said in a sentence, and a table is made of several runs, one
//! of them cut short. Needs python3, and passes where there is none.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

fn compare(words: &[&str]) -> Option<Output> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare");
    Command::new("python3")
        .arg(program)
        .args(words)
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .ok()
}

#[test]
fn what_is_missing_is_said_in_one_sentence() {
    let scratch = tempfile::tempdir().unwrap();
    let save = scratch.path().join("save");
    let (save, ringd) = (save.to_str().unwrap(), env!("CARGO_BIN_EXE_ringd"));
    for (words, sentence) in [
        (
            &["/nonexistent/etcd", "--ringd", ringd][..],
            "/nonexistent/etcd is not there: ",
        ),
        (
            &[ringd, "--ringd", "/nonexistent/ringd"],
            "/nonexistent/ringd is not there: ",
        ),
        (&[ringd, "--ringd", ringd, "--dir", "/proc/x"], "--dir /proc/x: "),
        (
            &[ringd, "--ringd", ringd, "--dir", "/dev/shm", "--save", save],
            "RAM disk",
        ),
        (
            &[ringd, "--ringd", ringd, "--dir", save, "--save", "/proc/x"],
            "--save /proc/x: ",
        ),
        (
            &[
                ringd,
                "--ringd",
                ringd,
                "--dir",
                save,
                "--save",
                save,
                "--keys",
                "9000000000",
            ],
            "MiB free",
        ),
        (
            &[ringd, "--ringd", ringd, "--only", "put-17x3"],
            "--only put-17x3: there is no such case",
        ),
        (&["--table", save], "there are no measurements in"),
    ] {
        let Some(output) = compare(words) else { return };
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {error}");
        assert!(
            error.contains(sentence) && error.lines().count() == 1,
            "{words:?}: {error}"
        );
    }
}

#[test]
fn a_table_is_made_of_several_runs_and_a_cut_one_loses_its_last_line() {
    let scratch = tempfile::tempdir().unwrap();
    let pair = |turn: u32, ours: f64| {
        let figures = |micros: f64| format!(r#"{{"server_us":{micros},"per_second":50000,"p99_us":100,"mean_us":90}}"#);
        format!(
            r#"{{"is":"pair","case":"lease-keepalive","turn":{turn},"took_s":1,"figures":{{"ringd":{},"etcd":{}}}}}"#,
            figures(ours).replace('}', r#","p50_us":1,"p99.9_us":1,"max_us":1,"generator_busy":0.5}"#),
            figures(10.0).replace('}', r#","p50_us":1,"p99.9_us":1,"max_us":1,"generator_busy":0.5}"#),
        )
    };
    let run =
        r#"{"is":"run","when":"now","commit":"c","etcd":"e","machine":"m","keys":1,"quick":false,"load_before":0}"#;
    let failure = r#"{"is":"failure","case":"put-16x4","turn":0,"why":"etcd: the server ended a connection"}"#;
    let directories = ["first", "second"].map(|name| scratch.path().join(name));
    for directory in &directories {
        fs::create_dir(directory).unwrap();
    }
    let first = format!("{run}\n{}\n{failure}\n", pair(0, 1.0));
    fs::write(directories[0].join("raw.jsonl"), first).unwrap();
    let cut = format!("{}\n{}", pair(1, 1.8), &pair(2, 9.0)[..60]);
    fs::write(directories[1].join("raw.jsonl"), cut).unwrap();
    let names = directories.each_ref().map(|directory| directory.to_str().unwrap());
    let Some(output) = compare(&["--table", names[0], names[1]]) else {
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "a case was not reported: {text}");
    let row = text.lines().find(|line| line.ends_with("holds")).expect("a bar");
    // The median of the two whole pairs, against a fifth of etcd's.
    assert!(row.contains("1.40") && row.contains("<= 2.00: 1/5 etcd's"), "{row}");
    assert!(text.contains("put-16x4: not reported: etcd: the server ended a connection"));
    let page = fs::read_to_string(directories[0].join("report.html")).unwrap();
    assert!(page.contains("lease-keepalive") && !page.contains("<script"));
}
