//! What the benches of the disk share: their options, a directory of their own, the table, and the files that are written.
#![allow(dead_code)] // Each bench includes this module and uses a part of it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hdrhistogram::Histogram;
use ringd::{
    bench::{
        hgrm,
        json::Json,
        plot::{self, Curve, Panel},
        report::{latencies_json, row},
        tally,
    },
    doctor::Facts,
    ring::facts,
};

/// What the command line asks for.
pub struct Options {
    /// Where it is measured.
    pub directory: PathBuf,
    /// What the result's files begin with.
    pub out: PathBuf,
    /// How long a case runs, over all rounds.
    pub case_time: Duration,
    /// Cases take turns so often.
    pub rounds: u32,
    /// A few writes of each only (`cargo test`).
    pub is_tiny: bool,
}

impl Options {
    /// Reads the command line; a wrong one ends the program with a sentence.
    pub fn read(name: &str) -> Options {
        match Options::parse(name, std::env::args().skip(1)) {
            Ok(options) => options,
            Err(error) => {
                eprintln!("{name}: {error}");
                std::process::exit(1);
            }
        }
    }

    fn parse(name: &str, arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut arguments = arguments.peekable();
        let mut options = Options {
            directory: PathBuf::from("."),
            out: PathBuf::from(format!("target/{name}")),
            case_time: Duration::from_millis(1500),
            rounds: 2,
            // cargo passes `--bench`, but for `cargo test`.
            is_tiny: true,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => options.is_tiny = false,
                "--dir" => options.directory = value()?.into(),
                "--out" => options.out = value()?.into(),
                "--seconds" => {
                    let seconds: f64 = value()?.parse().map_err(|_| "--seconds needs a number")?;
                    options.case_time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
                }
                "--rounds" => {
                    let rounds = value()?.parse().map_err(|_| "--rounds needs a number")?;
                    options.rounds = if rounds > 0 {
                        rounds
                    } else {
                        return Err("--rounds must be above 0".to_owned());
                    };
                }
                "--help" | "-h" => {
                    println!(
                        "cargo bench --bench {name} -- [--dir DIR] [--out PREFIX] [--seconds S] [--rounds N]\n\nMeasures in \
                         DIR (default: here), S seconds a case over N rounds that take turns; prints a table, and writes \
                         PREFIX.json, PREFIX.svg and PREFIX.CASE.hgrm (default: target/{name})"
                    );
                    std::process::exit(0);
                }
                // A filter that cargo passes to every bench.
                _ if !argument.starts_with('-') => {}
                _ => return Err(format!("unknown argument {argument} (--help tells the known ones)")),
            }
        }
        if options.is_tiny {
            options.case_time = Duration::from_millis(2);
            options.rounds = 1;
            options.directory = std::env::temp_dir();
        }
        Ok(options)
    }

    /// How long a case runs in one round.
    pub fn slice(&self) -> Duration {
        self.case_time / self.rounds
    }
}

/// A scratch directory below the one asked for, removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it; an error ends the program with a sentence.
    pub fn new(name: &str, options: &Options) -> Scratch {
        let path = options.directory.join(format!("{name}.{}.tmp", std::process::id()));
        or_end(fs::create_dir(&path).map_err(|error| format!("cannot make {}: {error}", path.display())));
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// The value, or the end of the program with a sentence.
pub fn or_end<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        std::process::exit(1);
    })
}

/// A case's figures.
pub struct Case {
    /// Short: a row of the table, a name in the legend, part of a file's name.
    pub name: String,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
    /// Further figures: name and value.
    pub figures: Vec<(&'static str, f64)>,
}

impl Case {
    /// A case with nothing measured yet.
    pub fn new(name: impl Into<String>) -> Case {
        Case {
            name: name.into(),
            latencies: tally::histogram(),
            figures: Vec::new(),
        }
    }
}

/// Cases that belong together: a part of the table, and a drawing.
pub struct Group {
    /// What is compared.
    pub title: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// Prints the table and writes the files.
pub fn report(name: &str, options: &Options, facts: &Facts, groups: &[Group]) {
    let mut text = format!("{}\n{}\n", facts.line(), alignment(facts));
    for group in groups {
        let has_rows = group.cases.iter().any(|case| !case.latencies.is_empty());
        if !has_rows {
            continue;
        }
        let width = group
            .cases
            .iter()
            .map(|case| case.name.len())
            .max()
            .unwrap_or(0)
            .max(11);
        let _ = writeln!(
            text,
            "\n{}\n{:<width$}{:>11}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            group.title, "", "count", "per second", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        );
        for case in &group.cases {
            let rate = case.latencies.mean();
            let line = row("", (rate > 0.0).then(|| 1e9 / rate), &case.latencies);
            let _ = write!(text, "{:<width$}{}", case.name, &line[11..]);
            for (figure, value) in &case.figures {
                let _ = write!(text, "  {figure} {value:.1}");
            }
            text.push('\n');
        }
    }
    text.push_str("(latencies in microseconds; per second: one after the other)");
    println!("{text}");
    if options.is_tiny {
        return;
    }
    or_end(write_files(name, options, facts, groups));
    println!("{}.json, .svg, .hgrm", options.out.display());
}

fn alignment(facts: &Facts) -> String {
    let (memory, offset) = facts.filesystem.direct_align;
    let align = match (facts.filesystem.takes_direct, memory) {
        (Some(false), _) => "no O_DIRECT".to_owned(),
        (_, 0) => "O_DIRECT, alignment not told".to_owned(),
        _ => format!("O_DIRECT aligned to {memory} in memory and {offset} on disk"),
    };
    let disk = facts.disk.as_ref();
    let setting = |name: &str| disk.and_then(|disk| disk.setting(name)).unwrap_or("?");
    let start = disk.and_then(|disk| disk.partition_start);
    format!(
        "{align}; sectors {}/{}, partition at {}; {} requests, wbt {} us; io_uring: {} operations, features {:#x}",
        setting("logical_block_size"),
        setting("physical_block_size"),
        start.map_or("-".to_owned(), |start| start.to_string()),
        setting("nr_requests"),
        setting("wbt_lat_usec"),
        facts.host.ring_operations,
        facts.host.ring_features,
    )
}

fn write_files(name: &str, options: &Options, facts: &Facts, groups: &[Group]) -> Result<(), String> {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let mut all = Vec::new();
    let mut panels = Vec::new();
    let mut files = Vec::new();
    for group in groups {
        let mut cases = Vec::new();
        let mut curves: Vec<Curve> = Vec::new();
        for case in group.cases.iter().filter(|case| !case.latencies.is_empty()) {
            let mut object = latencies_json(&case.latencies);
            for (figure, value) in &case.figures {
                object.insert(figure, Json::Number(*value));
            }
            cases.push((case.name.clone(), object));
            curves.push(plot::percentiles(&case.name, &case.latencies));
            let word: String = format!("{}-{}", group.title.split(':').next().unwrap_or(""), case.name)
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
                .collect();
            files.push((format!("{word}.hgrm"), hgrm::hgrm(&case.latencies)));
        }
        all.push((group.title.clone(), Json::Object(cases)));
        panels.push(Panel::Percentiles {
            title: group.title.clone(),
            curves,
        });
    }
    let json = Json::object([
        ("bench", Json::text(name)),
        ("command", Json::text(&command.join(" "))),
        ("machine", facts.json()),
        ("groups", Json::Object(all)),
    ]);
    files.push(("json".to_owned(), format!("{json}\n")));
    files.push(("svg".to_owned(), plot::page(name, &facts.line(), &panels)));
    if let Some(parent) = options.out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
    }
    for (ending, text) in files {
        let path = PathBuf::from(format!("{}.{ending}", options.out.display()));
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Where it is measured.
pub fn facts_of(options: &Options) -> Facts {
    let directory = &options.directory;
    or_end(facts::read(Path::new("/"), directory).map_err(|error| format!("{}: {error}", directory.display())))
}
