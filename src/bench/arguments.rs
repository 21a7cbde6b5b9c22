//! The command line of `ringd bench`: subcommands and flags as etcd's benchmark tool names them, and some of our own.

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command as Program};

use super::plan::{
    Arrivals, Compaction, Consistency, KeyOrder, Keys, Kubernetes, Load, Outputs, Plan, PrintFormat, RangeWork,
    ValueSizes, Values, WatchWork, Workload,
};
use super::random::ValueSource;
use crate::config::parse_duration;

/// Clients of one run at the most.
const CLIENTS_MAX: u64 = 100_000;
/// Bytes of a value at the most, on average.
const VALUE_BYTES_MAX: u64 = 64 << 20;
/// Watchers of one run at the most.
const WATCHERS_MAX: u64 = 10_000_000;

/// The program, as a subcommand.
pub fn program() -> Program {
    let program = Program::new("bench")
        .about("Puts load on an etcd endpoint and measures it")
        .subcommand_required(true)
        .arg_required_else_help(true);
    let sized = |program: Program, key: &'static str, value: &'static str| {
        program.args(key_flags(key)).args(value_flags(value))
    };
    let paced = |program: Program, total: &'static str| {
        program
            .arg(number(
                "total",
                total,
                "Requests (with --duration and no --total: as many as fit)",
            ))
            .args(load_flags("rate", "0"))
    };
    let subcommands = [
        paced(sized(Program::new("put").about("Puts"), "8", "8"), "10000").args([
            text("compact-interval", "0", "Compact from time to time, e.g. 5m"),
            number(
                "compact-index-delta",
                "1000",
                "How far behind the newest revision to compact",
            ),
        ]),
        paced(key_range(Program::new("range").about("Range requests"), "0"), "10000"),
        paced(
            sized(Program::new("txn-put").about("Transactions of puts"), "8", "8"),
            "10000",
        )
        .arg(number("txn-ops", "1", "Puts of a transaction")),
        paced(
            key_range(
                Program::new("txn-mixed").about("Transactions that read, and such that write"),
                "1000",
            ),
            "10000",
        )
        .arg(text("rw-ratio", "1", "Reads for each write")),
        watch_flags(
            Program::new("watch").about("Many watchers, and puts that they are told of"),
            false,
        ),
        watch_flags(
            Program::new("watch-latency").about("From the start of a put to its event"),
            true,
        ),
        lease(Program::new("lease-grant").about("Grants (the leases end by themselves)")),
        lease(Program::new("lease-revoke").about("A grant and a revoke in turns")),
        lease(Program::new("lease-keepalive").about("Leases kept alive, a stream for each client")),
        paced(kubernetes(Program::new("kubernetes")), "10000"),
    ];
    let subcommands = subcommands.map(|subcommand| subcommand.args(common_flags()));
    program.subcommands(subcommands)
}

fn text(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).default_value(default).help(help)
}

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    text(name, default, help).value_parser(clap::value_parser!(u64))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
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
}

fn common_flags() -> Vec<Arg> {
    vec![
        text(
            "endpoints",
            "127.0.0.1:2379",
            "Servers, separated by commas; connections take turns",
        ),
        number("conns", "1", "Connections"),
        number("clients", "1", "Clients: each has one request on its way"),
        number("threads", "1", "Threads, each with its share of the connections"),
        text("dial-timeout", "5s", "How long a connection may take to be made"),
        number("seed", "1", "Of keys, values and gaps: the same seed asks the same"),
        text("write-out", "table", "What is printed")
            .short('w')
            .value_parser(["table", "json"]),
        switch(
            "retry-too-many-requests",
            "Send what an overloaded server refuses with these words again after 10 ms; its latency counts on",
        ),
        Arg::new("save")
            .long("save")
            .value_name("PREFIX")
            .help("Write PREFIX.json, PREFIX.svg and PREFIX.OPERATION.hgrm"),
        Arg::new("server-pid")
            .long("server-pid")
            .value_parser(clap::value_parser!(u32))
            .help("The server's process on this machine: show what it uses"),
    ]
}

fn load_flags(rate: &'static str, default: &'static str) -> Vec<Arg> {
    vec![
        text(
            rate,
            default,
            "Requests per second, at intended times (an open loop); 0: as fast as answers come",
        ),
        text("arrivals", "constant", "How intended times lie").value_parser(["constant", "poisson"]),
        text(
            "duration",
            "0",
            "How long to measure, e.g. 10s; 0: until --total is reached",
        ),
        text("warm-up", "0", "Load before what is measured"),
    ]
}

fn key_flags(bytes: &'static str) -> Vec<Arg> {
    vec![
        number("key-size", bytes, "Bytes of a key"),
        number("key-space-size", "1", "How many keys there are"),
        text("key-prefix", "", "What all keys begin with (counts to --key-size)"),
        switch("sequential-keys", "Keys one after the other"),
        text("key-order", "uniform", "Which key is next").value_parser(["uniform", "sequential", "zipfian"]),
    ]
}

fn value_flags(bytes: &'static str) -> Vec<Arg> {
    vec![
        number("val-size", bytes, "Bytes of a value, on average"),
        text("val-sizes", "fixed", "How they lie around it").value_parser(["fixed", "uniform", "exponential"]),
    ]
}

fn key_range(program: Program, limit: &'static str) -> Program {
    program
        .arg(
            Arg::new("key")
                .value_name("KEY")
                .help("A key; without it, keys of the key space are drawn"),
        )
        .arg(Arg::new("range-end").value_name("RANGE-END").help("End of the range"))
        .arg(text("end-key", "", "End of the range"))
        .arg(text("consistency", "l", "Linearizable (l) or serializable (s)").value_parser(["l", "s"]))
        .arg(number("limit", limit, "Most keys of an answer; 0: all"))
        .arg(switch("count-only", "Ask for the number of keys only"))
        .arg(switch("keys-only", "Ask for keys without values"))
        .arg(switch("load", "Put every key of the key space first"))
        .args(key_flags("8"))
        .args(value_flags("8"))
}

fn watch_flags(program: Program, is_latency: bool) -> Program {
    let defaults = if is_latency {
        ["10", "10", "100"]
    } else {
        ["10", "100", "0"]
    };
    program
        .arg(number("streams", defaults[0], "Watch streams, over all connections"))
        .arg(number("watch-per-stream", defaults[1], "Watchers of each stream").alias("watchers-per-stream"))
        .arg(number("watched-key-total", "1", "Keys that are watched"))
        .arg(number("put-total", "1000", "Puts").alias("total"))
        .args(load_flags("put-rate", defaults[2]))
        .arg(switch("prevkv", "Events carry the value before"))
        .args(key_flags("32"))
        .args(value_flags("32"))
}

fn lease(program: Program) -> Program {
    program
        .arg(number("total", "10000", "Requests"))
        .args(load_flags("rate", "0"))
        .arg(number("ttl", "60", "Seconds that a lease lives"))
}

fn kubernetes(program: Program) -> Program {
    program
        .about("A control plane: objects renewed by compare-and-swap, read, listed in pages and watched")
        .arg(number("objects", "100000", "Objects, divided among the clients"))
        .arg(number("page", "500", "Objects of a page"))
        .arg(number("watches", "10", "Watch streams on all objects"))
        .arg(text(
            "progress-interval",
            "5s",
            "Time between two requests for progress on each stream",
        ))
        .arg(text("mix", "900,99,1", "Weights of update, get and list"))
        .args(value_flags("512"))
}

/// The plan that the arguments of a subcommand ask for.
///
/// # Errors
/// A sentence on the first argument that cannot be.
pub fn plan(matches: &ArgMatches) -> Result<Plan, String> {
    let (name, matches) = matches.subcommand().expect("clap requires one");
    let rate_flag = if name.starts_with("watch") { "put-rate" } else { "rate" };
    let mut plan = Plan {
        endpoints: endpoints(string(matches, "endpoints"))?,
        connections: bounded(matches, "conns", 1, CLIENTS_MAX)? as u32,
        clients: bounded(matches, "clients", 1, CLIENTS_MAX)? as u32,
        threads: bounded(matches, "threads", 1, 1024)? as u32,
        dial_timeout: duration(matches, "dial-timeout")?,
        load: load(matches, rate_flag)?,
        keys: keys(matches)?,
        values: values(matches)?,
        workload: workload(name, matches)?,
        seed: integer(matches, "seed"),
        retries_refused: *matches
            .get_one::<bool>("retry-too-many-requests")
            .expect("has a default"),
        outputs: Outputs {
            format: match string(matches, "write-out") {
                "json" => PrintFormat::Json,
                _ => PrintFormat::Table,
            },
            save: matches.get_one::<String>("save").map(PathBuf::from),
        },
        server_pid: matches.get_one::<u32>("server-pid").copied(),
    };
    if plan.dial_timeout.is_zero() {
        plan.dial_timeout = Duration::from_secs(5);
    }
    check(&mut plan)?;
    Ok(plan)
}

/// What flags must hold together.
fn check(plan: &mut Plan) -> Result<(), String> {
    // Etcd's tool, too, makes no more connections than there are clients.
    plan.connections = plan.connections.min(plan.clients.max(plan.watch_streams()));
    if plan.threads > plan.connections {
        let (threads, connections) = (plan.threads, plan.connections);
        return Err(format!(
            "--threads is {threads}, and only {connections} connections are there to share"
        ));
    }
    match &plan.workload {
        Workload::TxnPut { puts } if u64::from(*puts) > plan.keys.space => {
            let space = plan.keys.space;
            return Err(format!(
                "--txn-ops is {puts}, and a transaction cannot put one of only {space} keys twice"
            ));
        }
        Workload::Watch(watch) => {
            if watch.watched_keys > plan.keys.space {
                plan.keys.space = watch.watched_keys;
            }
            if plan.values.bytes < 8 || plan.values.sizes != ValueSizes::Fixed {
                return Err("--val-size must be at least 8, and fixed: values carry the time of their put".to_owned());
            }
        }
        Workload::Kubernetes(kubernetes) => {
            if kubernetes.objects < u64::from(plan.clients) {
                return Err("--objects must be at least --clients: each client owns some".to_owned());
            }
            if plan.values.bytes < 8 || plan.values.sizes != ValueSizes::Fixed {
                return Err("--val-size must be at least 8, and fixed: values carry the time of their put".to_owned());
            }
        }
        _ => {}
    }
    let digits = plan.keys.bytes.saturating_sub(plan.keys.prefix.len());
    let needed = (plan.keys.space - 1).checked_ilog10().map_or(1, |log| log as usize + 1);
    if digits < needed {
        let (space, bytes) = (plan.keys.space, plan.keys.bytes);
        return Err(format!(
            "--key-size is {bytes}, too few bytes to tell {space} keys apart"
        ));
    }
    if ValueSource::bytes_max(&plan.values) as u64 > VALUE_BYTES_MAX {
        return Err(format!(
            "--val-size asks for values of more than {VALUE_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}

impl Plan {
    fn watch_streams(&self) -> u32 {
        match &self.workload {
            Workload::Watch(watch) => watch.streams,
            Workload::Kubernetes(kubernetes) => kubernetes.watches,
            _ => 0,
        }
    }
}

fn endpoints(list: &str) -> Result<Vec<String>, String> {
    let endpoint = |text: &str| {
        if text.starts_with("https://") {
            return Err(format!("--endpoints: {text}: TLS is not supported yet"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(rest.to_owned()),
            _ => Err(format!("--endpoints: {text:?} is not HOST:PORT")),
        }
    };
    list.split(',').map(|text| endpoint(text.trim())).collect()
}

fn load(matches: &ArgMatches, rate_flag: &str) -> Result<Load, String> {
    let total_flag = if rate_flag == "put-rate" { "put-total" } else { "total" };
    let length = duration(matches, "duration")?;
    let is_total_given = matches.value_source(total_flag) == Some(clap::parser::ValueSource::CommandLine);
    let total = bounded(matches, total_flag, 1, u64::MAX)?;
    let rate: f64 = parsed(matches, rate_flag)?;
    if !(0.0..=1e9).contains(&rate) {
        return Err(format!("--{rate_flag} must be from 0 to 1000000000"));
    }
    Ok(Load {
        total: (length.is_zero() || is_total_given).then_some(total),
        duration: Some(length).filter(|length| !length.is_zero()),
        warm_up: duration(matches, "warm-up")?,
        rate: Some(rate).filter(|rate| *rate > 0.0),
        arrivals: match string(matches, "arrivals") {
            "poisson" => Arrivals::Poisson,
            _ => Arrivals::Constant,
        },
    })
}

fn keys(matches: &ArgMatches) -> Result<Keys, String> {
    if !has(matches, "key-size") {
        // Of no use: leases and objects have names of their own.
        return Ok(Keys {
            bytes: 8,
            prefix: String::new(),
            space: 1,
            order: KeyOrder::Uniform,
        });
    }
    let is_sequential = *matches.get_one::<bool>("sequential-keys").expect("has a default");
    Ok(Keys {
        bytes: bounded(matches, "key-size", 1, 1 << 20)? as usize,
        prefix: string(matches, "key-prefix").to_owned(),
        space: bounded(matches, "key-space-size", 1, 1 << 40)?,
        order: match string(matches, "key-order") {
            "zipfian" => KeyOrder::Zipfian,
            "sequential" => KeyOrder::Sequential,
            _ if is_sequential => KeyOrder::Sequential,
            _ => KeyOrder::Uniform,
        },
    })
}

fn values(matches: &ArgMatches) -> Result<Values, String> {
    if !has(matches, "val-size") {
        return Ok(Values {
            bytes: 8,
            sizes: ValueSizes::Fixed,
        });
    }
    Ok(Values {
        bytes: bounded(matches, "val-size", 0, VALUE_BYTES_MAX)? as usize,
        sizes: match string(matches, "val-sizes") {
            "uniform" => ValueSizes::Uniform,
            "exponential" => ValueSizes::Exponential,
            _ => ValueSizes::Fixed,
        },
    })
}

fn workload(name: &str, matches: &ArgMatches) -> Result<Workload, String> {
    Ok(match name {
        "put" => {
            let interval = duration(matches, "compact-interval")?;
            let compaction = Compaction {
                interval,
                index_delta: bounded(matches, "compact-index-delta", 1, i64::MAX as u64)? as i64,
            };
            Workload::Put {
                compaction: Some(compaction).filter(|compaction| !compaction.interval.is_zero()),
            }
        }
        "range" => Workload::Range(range(matches)?),
        "txn-put" => Workload::TxnPut {
            puts: bounded(matches, "txn-ops", 1, 100_000)? as u32,
        },
        "txn-mixed" => {
            let reads_per_write: f64 = parsed(matches, "rw-ratio")?;
            if !(0.0..=1e9).contains(&reads_per_write) {
                return Err("--rw-ratio must not be negative".to_owned());
            }
            Workload::TxnMixed {
                read: range(matches)?,
                reads_per_write,
            }
        }
        "lease-grant" => Workload::LeaseGrant { ttl: ttl(matches)? },
        "lease-revoke" => Workload::LeaseRevoke { ttl: ttl(matches)? },
        "lease-keepalive" => Workload::LeaseKeepAlive { ttl: ttl(matches)? },
        "kubernetes" => Workload::Kubernetes(Kubernetes {
            objects: bounded(matches, "objects", 1, 999_999)?,
            page: bounded(matches, "page", 1, 1_000_000)? as i64,
            watches: bounded(matches, "watches", 0, WATCHERS_MAX)? as u32,
            progress_interval: duration(matches, "progress-interval")?.max(Duration::from_millis(1)),
            weights: weights(string(matches, "mix"))?,
        }),
        _ => Workload::Watch(watch(name, matches)?),
    })
}

fn watch(name: &str, matches: &ArgMatches) -> Result<WatchWork, String> {
    let work = WatchWork {
        is_latency: name == "watch-latency",
        streams: bounded(matches, "streams", 1, WATCHERS_MAX)? as u32,
        watchers_per_stream: bounded(matches, "watch-per-stream", 1, WATCHERS_MAX)? as u32,
        watched_keys: bounded(matches, "watched-key-total", 1, WATCHERS_MAX)?,
        has_prev_kv: *matches.get_one::<bool>("prevkv").expect("has a default"),
    };
    let watchers = u64::from(work.streams) * u64::from(work.watchers_per_stream);
    match watchers > WATCHERS_MAX {
        true => Err(format!("{watchers} watchers are more than {WATCHERS_MAX}")),
        false => Ok(work),
    }
}

fn range(matches: &ArgMatches) -> Result<RangeWork, String> {
    let key = matches.get_one::<String>("key");
    let end = matches
        .get_one::<String>("range-end")
        .map_or(string(matches, "end-key"), String::as_str);
    let loads = *matches.get_one::<bool>("load").expect("has a default");
    if key.is_none() && !end.is_empty() {
        return Err("--end-key needs a KEY where the range begins".to_owned());
    }
    Ok(RangeWork {
        fixed: key.map(|key| (key.clone().into_bytes(), end.to_owned().into_bytes())),
        consistency: match string(matches, "consistency") {
            "s" => Consistency::Serializable,
            _ => Consistency::Linearizable,
        },
        limit: bounded(matches, "limit", 0, i64::MAX as u64)? as i64,
        is_count_only: *matches.get_one::<bool>("count-only").expect("has a default"),
        is_keys_only: *matches.get_one::<bool>("keys-only").expect("has a default"),
        loads: loads && key.is_none(),
    })
}

fn weights(list: &str) -> Result<[u32; 3], String> {
    let wrong = || format!("--mix: {list:?} is not three weights: update,get,list");
    let weights: Vec<u32> = list
        .split(',')
        .map(|weight| weight.trim().parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let weights: [u32; 3] = weights.try_into().map_err(|_| wrong())?;
    match weights.iter().all(|weight| *weight == 0) {
        true => Err(wrong()),
        false => Ok(weights),
    }
}

fn ttl(matches: &ArgMatches) -> Result<i64, String> {
    bounded(matches, "ttl", 1, 9_000_000_000).map(|ttl| ttl as i64)
}

fn has(matches: &ArgMatches, name: &str) -> bool {
    matches.try_contains_id(name).unwrap_or(false)
}

fn string<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches
        .get_one::<String>(name)
        .map(String::as_str)
        .expect("has a default")
}

fn integer(matches: &ArgMatches, name: &str) -> u64 {
    *matches.get_one::<u64>(name).expect("has a default")
}

fn bounded(matches: &ArgMatches, name: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = integer(matches, name);
    match (min..=max).contains(&value) {
        true => Ok(value),
        false if max == u64::MAX => Err(format!("--{name} must be at least {min}")),
        false => Err(format!("--{name} must be from {min} to {max}")),
    }
}

fn parsed<T: std::str::FromStr>(matches: &ArgMatches, name: &str) -> Result<T, String> {
    let text = string(matches, name);
    text.parse().map_err(|_| format!("--{name}: {text:?} is not a number"))
}

fn duration(matches: &ArgMatches, name: &str) -> Result<Duration, String> {
    let nanos = parse_duration(string(matches, name)).map_err(|error| format!("--{name}: {error}"))?;
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| format!("--{name} must not be negative"))
}

/// Runs outside bytes, one argument per line, through the command line of `ringd bench`.
pub fn fuzz_arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let arguments = std::iter::once("bench").chain(text.split('\n'));
    if let Ok(matches) = program().try_get_matches_from(arguments) {
        let _ = plan(&matches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Plan, String> {
        let words = format!("bench {line}");
        plan(&program().try_get_matches_from(words.split_whitespace()).unwrap())
    }

    #[test]
    fn defaults_are_those_of_etcd_s_tool() {
        let put = parsed("put").unwrap();
        assert_eq!(put.endpoints, ["127.0.0.1:2379"]);
        assert_eq!((put.connections, put.clients, put.threads), (1, 1, 1));
        assert_eq!((put.keys.bytes, put.values.bytes, put.keys.space), (8, 8, 1));
        assert_eq!(
            (put.load.total, put.load.duration, put.load.rate),
            (Some(10_000), None, None)
        );
        let Workload::Watch(watch) = parsed("watch").unwrap().workload else {
            panic!("a watch");
        };
        assert_eq!(
            (watch.streams, watch.watchers_per_stream, watch.watched_keys),
            (10, 100, 1)
        );
        let latency = parsed("watch-latency").unwrap();
        assert_eq!((latency.load.rate, latency.load.total), (Some(100.0), Some(1000)));
        let Workload::TxnMixed { read, reads_per_write } = parsed("txn-mixed key").unwrap().workload else {
            panic!("a mix");
        };
        assert_eq!((read.limit, reads_per_write), (1000, 1.0));
    }

    #[test]
    fn a_duration_replaces_the_default_number_but_not_one_that_was_asked_for() {
        let timed = parsed("put --duration 3s").unwrap().load;
        assert_eq!((timed.total, timed.duration), (None, Some(Duration::from_secs(3))));
        assert_eq!(parsed("put --duration 3s --total 5").unwrap().load.total, Some(5));
    }

    #[test]
    fn connections_are_no_more_than_clients_and_streams() {
        assert_eq!(parsed("put --conns 10 --clients 4").unwrap().connections, 4);
        assert_eq!(parsed("watch --conns 10 --streams 7").unwrap().connections, 7);
        assert!(parsed("put --conns 10 --clients 4 --threads 5").is_err());
    }

    #[test]
    fn endpoints_are_hosts_with_ports() {
        let many = parsed("put --endpoints http://a:1,b:2/,[::1]:3").unwrap().endpoints;
        assert_eq!(many, ["a:1", "b:2", "[::1]:3"]);
        for wrong in ["a", ":1", "a:x", "a:70000", "https://a:1"] {
            assert!(parsed(&format!("put --endpoints {wrong}")).is_err(), "{wrong}");
        }
    }
}
