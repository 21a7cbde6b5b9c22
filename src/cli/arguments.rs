//! The offline commands' arguments, as etcdutl takes them.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command as Program};

use super::{Command, Invocation, OutputFormat, Restore};
use crate::{
    bench,
    config::{Exit, parse_initial_cluster, parse_urls},
};

/// The command that the arguments name; `None` if they are the server's.
pub(super) fn command(arguments: &[String]) -> Option<Result<Invocation, Exit>> {
    match arguments.first().map(String::as_str) {
        Some("snapshot" | "check" | "wal" | "bench" | "doctor") => {}
        // etcd has these; their absence should not look like a misspelt flag.
        Some(name @ ("gateway" | "grpc-proxy")) => {
            let stderr = format!("ringd {name} is not supported yet; etcd's own {name} works with ringd\n");
            return Some(Err(Exit {
                stderr,
                code: 1,
                ..Exit::default()
            }));
        }
        _ => return None,
    }
    let words = std::iter::once("ringd").chain(arguments.iter().map(String::as_str));
    Some(match program().try_get_matches_from(words) {
        Ok(matches) => match matches.subcommand() {
            Some(("bench", matches)) => bench::plan(matches)
                .map(|plan| Invocation::Bench(Box::new(plan)))
                .map_err(|error| failure(&error)),
            Some(("doctor", matches)) => Ok(Invocation::Doctor {
                directory: path(matches, "dir"),
                is_json: text(matches, "write-out") == "json",
            }),
            _ => command_of(&matches).map(Invocation::Offline),
        },
        Err(error) => Err(clap_exit(&error)),
    })
}

fn failure(error: &str) -> Exit {
    Exit {
        stderr: format!("Error: {error}\n"),
        code: 1,
        ..Exit::default()
    }
}

fn clap_exit(error: &clap::Error) -> Exit {
    let text = error.to_string();
    match error.use_stderr() {
        true => Exit {
            stderr: text,
            code: 1,
            ..Exit::default()
        },
        false => Exit {
            stdout: text,
            ..Exit::default()
        },
    }
}

fn program() -> Program {
    let text = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        // `--flag=false` is Go's way to say no.
        Arg::new(name)
            .long(name)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .action(ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .help(help)
    };
    let file = || {
        Arg::new("file")
            .value_name("FILE")
            .required(true)
            .help("A saved snapshot")
    };
    let write_out = Arg::new("write-out")
        .short('w')
        .long("write-out")
        .default_value("simple")
        .value_parser(["simple", "table", "json", "fields"])
        .help("How to print");
    let status = Program::new("status")
        .about("Prints what a saved snapshot holds")
        .arg(file())
        .arg(write_out);
    let restore = Program::new("restore")
        .about("Makes a data directory for a member of a new cluster from a saved snapshot")
        .arg(file())
        .arg(text("data-dir", "", "Directory to make; NAME.etcd if empty"))
        .arg(text(
            "wal-dir",
            "",
            "Directory of the log, if it is to be on another disk",
        ))
        .arg(text("name", "default", "This member's name"))
        .arg(text(
            "initial-cluster",
            "default=http://localhost:2380",
            "The members: name=URL,...",
        ))
        .arg(text(
            "initial-cluster-token",
            "etcd-cluster",
            "Makes the cluster's ids its own",
        ))
        .arg(text(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "This member's peer URLs",
        ))
        .arg(switch(
            "skip-hash-check",
            "Do not compare the hash behind the database (a copied file has none)",
        ))
        .arg(
            Arg::new("bump-revision")
                .long("bump-revision")
                .default_value("0")
                .value_parser(clap::value_parser!(u64))
                .help("How far to raise the revision"),
        )
        .arg(switch("mark-compacted", "Let the raised revision count as compacted"))
        .arg(
            // The file is never mapped here, so its size does not matter.
            Arg::new("initial-memory-map-size")
                .long("initial-memory-map-size")
                .value_parser(clap::value_parser!(u64))
                .help("Has no effect"),
        );
    let directory = |help: &'static str| Arg::new("directory").value_name("DIR").required(true).help(help);
    Program::new("ringd")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(bench::program())
        .subcommand(
            Program::new("doctor")
                .about("Looks at this machine: what costs latency, and what mends it. Changes nothing")
                .arg(text("dir", ".", "Where the data is, or is to be"))
                .arg(
                    text("write-out", "simple", "How to print")
                        .short('w')
                        .value_parser(["simple", "json"]),
                ),
        )
        .subcommand(
            Program::new("snapshot")
                .about("Work on saved snapshots")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(status)
                .subcommand(restore),
        )
        .subcommand(
            Program::new("check")
                .about("Checks a data directory that no server runs on")
                .arg(directory("A data directory")),
        )
        .subcommand(
            Program::new("wal")
                .about("Look at a log")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Program::new("dump")
                        .about("Prints the records of a log")
                        .arg(directory("A data directory, or a directory of log segments")),
                ),
        )
}

fn command_of(matches: &ArgMatches) -> Result<Command, Exit> {
    match matches.subcommand() {
        Some(("check", matches)) => Ok(Command::Check {
            data_dir: path(matches, "directory"),
        }),
        Some(("wal", matches)) => {
            let (_, matches) = matches.subcommand().expect("clap requires one");
            Ok(Command::WalDump {
                directory: path(matches, "directory"),
            })
        }
        Some(("snapshot", matches)) => match matches.subcommand() {
            Some(("status", matches)) => {
                let format = match text(matches, "write-out") {
                    "json" => OutputFormat::Json,
                    "table" => OutputFormat::Table,
                    "fields" => OutputFormat::Fields,
                    _ => OutputFormat::Simple,
                };
                Ok(Command::SnapshotStatus {
                    file: path(matches, "file"),
                    format,
                })
            }
            Some((_, matches)) => restore_of(matches)
                .map(Command::SnapshotRestore)
                .map_err(|error| failure(&error)),
            None => unreachable!("clap requires a subcommand"),
        },
        _ => unreachable!("clap knows no other subcommand"),
    }
}

fn restore_of(matches: &ArgMatches) -> Result<Restore, String> {
    let name = text(matches, "name").to_string();
    let data_dir = match text(matches, "data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        dir => PathBuf::from(dir),
    };
    let bump_revision = *matches.get_one::<u64>("bump-revision").expect("has a default");
    let mark_compacted = *matches.get_one::<bool>("mark-compacted").expect("has a default");
    if mark_compacted != (bump_revision > 0) {
        return Err("--mark-compacted required if --revision-bump > 0".to_string());
    }
    let urls = text(matches, "initial-advertise-peer-urls");
    Ok(Restore {
        file: path(matches, "file"),
        data_dir,
        wal_dir: Some(text(matches, "wal-dir"))
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from),
        name,
        initial_cluster: parse_initial_cluster(text(matches, "initial-cluster"))?,
        initial_cluster_token: text(matches, "initial-cluster-token").to_string(),
        initial_advertise_peer_urls: parse_urls(urls).map_err(|error| error.to_string())?,
        skip_hash_check: *matches.get_one::<bool>("skip-hash-check").expect("has a default"),
        bump_revision,
        mark_compacted,
    })
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches
        .get_one::<String>(name)
        .map(String::as_str)
        .expect("required, or has a default")
}

fn path(matches: &ArgMatches, name: &str) -> PathBuf {
    PathBuf::from(text(matches, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Result<Command, Exit>> {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        Some(command(&words)?.map(|invocation| match invocation {
            Invocation::Offline(command) => command,
            other => panic!("{other:?}"),
        }))
    }

    #[test]
    fn the_server_s_flags_are_left_alone() {
        assert!(parsed("--name a").is_none());
        assert!(parsed("").is_none());
        assert!(parsed("extra").is_none());
    }

    #[test]
    fn commands_are_read_as_etcdutl_reads_them() {
        assert_eq!(
            parsed("snapshot status a.db -w json").unwrap(),
            Ok(Command::SnapshotStatus {
                file: "a.db".into(),
                format: OutputFormat::Json
            })
        );
        let restored = parsed(
            "snapshot restore a.db --data-dir d --skip-hash-check --name n --initial-cluster n=http://a:1 \
                               --initial-advertise-peer-urls=http://a:1",
        );
        let Some(Ok(Command::SnapshotRestore(restore))) = restored else {
            panic!("{restored:?}")
        };
        assert!(restore.skip_hash_check);
        assert_eq!(restore.data_dir, PathBuf::from("d"));
        assert_eq!(restore.initial_cluster["n"], restore.initial_advertise_peer_urls);
        assert_eq!(parsed("check d").unwrap(), Ok(Command::Check { data_dir: "d".into() }));
        assert_eq!(
            parsed("wal dump d").unwrap(),
            Ok(Command::WalDump { directory: "d".into() })
        );
    }

    #[test]
    fn mistakes_end_with_one() {
        for line in [
            "snapshot",
            "snapshot status",
            "snapshot status a -w xml",
            "wal",
            "check",
            "check a b",
            "gateway",
        ] {
            assert_eq!(parsed(line).unwrap().unwrap_err().code, 1, "{line}");
        }
        assert_eq!(parsed("snapshot restore a --help").unwrap().unwrap_err().code, 0);
    }
}
