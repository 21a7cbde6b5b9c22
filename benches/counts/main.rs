//! Instructions of the hot pure parts. Unlike times they do not depend on what else the machine does, so that a regression
//! shows in review: `cargo bench --bench counts` prints each beside what `baseline.txt` says, `-- --save` writes that anew.
//!
//! Each case runs in a process of its own under valgrind's cachegrind, once with N operations and once with 2N: the
//! difference, over N, is an operation's own, without what setting up costs. Run by `cargo test` each case runs once without.

mod cases;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use cases::CASES;

/// A change that is worth a word, in percent.
const CHANGE_PERCENT: f64 = 2.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let [flag, name, operations] = &arguments[..]
        && flag == "--case"
    {
        let (_, _, run) = CASES.iter().find(|(known, ..)| known == name).expect("a case of ours");
        println!("digest {}", run(operations.parse().expect("a number")));
        return ExitCode::SUCCESS;
    }
    if !has("--bench") {
        for (name, _, run) in CASES {
            println!("{name}: digest {}", run(3));
        }
        return ExitCode::SUCCESS;
    }
    match count_all(has("--save"), &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count_all(saves: bool, arguments: &[String]) -> Result<(), String> {
    let valgrind = Command::new("valgrind").arg("--version").output();
    if !valgrind.is_ok_and(|output| output.status.success()) {
        return Err(
            "valgrind is not on PATH, and nothing else here counts instructions (Debian: apt install valgrind)"
                .to_owned(),
        );
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/counts/baseline.txt");
    let baseline = read_baseline(&path);
    let mut lines = format!(
        "# {}\n# instructions of one operation: cargo bench --bench counts -- --save\n",
        compiler()
    );
    println!(
        "{:<44}{:>14}{:>14}{:>9}",
        "instructions of one operation", "now", "baseline", "change"
    );
    for (name, operations, _) in CASES {
        if !filters.iter().all(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let (once, twice) = (instructions(name, *operations)?, instructions(name, 2 * operations)?);
        let each = twice.saturating_sub(once) as f64 / *operations as f64;
        lines.push_str(&format!("{each:.0} {name}\n"));
        let (known, change) = match baseline.get(*name) {
            Some(known) => {
                let percent = (each / known - 1.0) * 100.0;
                let mark = if percent.abs() > CHANGE_PERCENT { " !" } else { "" };
                (format!("{known:.0}"), format!("{percent:+.1} %{mark}"))
            }
            None => ("-".to_owned(), String::new()),
        };
        println!("{name:<44}{each:>14.0}{known:>14}   {change}");
    }
    if saves {
        fs::write(&path, lines).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

fn read_baseline(path: &PathBuf) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let entry = |line: &str| {
        let (count, name) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

fn compiler() -> String {
    let output = Command::new(std::env::var("RUSTC").unwrap_or("rustc".to_owned()))
        .arg("--version")
        .output();
    let version = output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    let lto = std::env::var("CARGO_PROFILE_BENCH_LTO").unwrap_or("as in Cargo.toml".to_owned());
    format!("{version}, {}, link-time optimization {lto}", std::env::consts::ARCH)
}

/// All instructions of a process that runs a case.
fn instructions(name: &str, operations: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .args(["--case", name, &operations.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name} failed under valgrind: {text}"));
    }
    // "==123== I   refs:      12,345" or, in newer releases, "==123== I refs:        12,345".
    let line = text
        .lines()
        .find(|line| line.contains(" refs:"))
        .ok_or(format!("valgrind says no count: {text}"))?;
    let digits: String = line
        .rsplit(':')
        .next()
        .unwrap_or("")
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().map_err(|_| format!("valgrind says no count: {line}"))
}
