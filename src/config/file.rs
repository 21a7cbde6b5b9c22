//! The YAML file of `--config-file`. It is read as etcd reads it: through JSON, with keys in any case, unknown keys
//! passed over, and every value of its own type. One thing is taken beyond that: durations as Go writes them (etcd
//! takes nanoseconds only).

use serde_norway::Value;

use super::{
    duration::go_quote,
    flags::{FLAGS, Flag, Kind},
    value::Values,
};

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FileError {
    /// To be told as any wrong flag is.
    Value(String),
    /// A URL list that is none: etcd writes this line as it is and leaves.
    Urls(String),
}

/// Sets what the file says.
pub(super) fn apply(bytes: &[u8], values: &mut Values) -> Result<(), FileError> {
    let file: Value = serde_norway::from_slice(bytes)
        .map_err(|error| FileError::Value(format!("error converting YAML to JSON: yaml: {error}")))?;
    let mapping = match &file {
        Value::Mapping(mapping) => mapping,
        Value::Null => return Ok(()),
        other => {
            let kind = json_kind(other);
            return Err(unmarshal(format!(
                "cannot unmarshal {kind} into Go value of type embed.configYAML"
            )));
        }
    };
    for flag in FLAGS {
        let Some(key) = flag.file_key() else { continue };
        let (group, name) = key
            .split_once('.')
            .map_or((None, key), |(group, name)| (Some(group), name));
        let value = match group {
            None => member(mapping, name),
            Some(group) => match member(mapping, group) {
                None | Some(Value::Null) => None,
                Some(Value::Mapping(inner)) => member(inner, name),
                Some(other) => return Err(wrong_group(group, other)),
            },
        };
        match value {
            None | Some(Value::Null) => {}
            Some(value) => set(flag, key, value, values)?,
        }
    }
    Ok(())
}

/// A mapping's value by its key in any case, as Go's JSON finds fields; the last one wins.
fn member<'a>(mapping: &'a serde_norway::Mapping, name: &str) -> Option<&'a Value> {
    let is_named = |(key, value): (&'a Value, &'a Value)| {
        key.as_str()
            .is_some_and(|key| key.eq_ignore_ascii_case(name))
            .then_some(value)
    };
    mapping.iter().filter_map(is_named).last()
}

fn set(flag: &'static Flag, key: &str, value: &Value, values: &mut Values) -> Result<(), FileError> {
    let text = text_of(flag, value).ok_or_else(|| {
        let shown = json_shown(flag, value);
        unmarshal(format!(
            "cannot unmarshal {shown} into Go struct field {}.{key} of type {}",
            go_struct(flag),
            go_type(flag)
        ))
    })?;
    // An empty text in a file leaves a default that is not empty alone only where etcd parses it further.
    if text.is_empty() && matches!(flag.kind, Kind::Urls | Kind::Origins | Kind::List | Kind::Features) {
        return Ok(());
    }
    values.set(flag, &text).map_err(|error| match flag.kind {
        Kind::Urls if flag.name != "listen-metrics-urls" => {
            FileError::Urls(format!("unexpected error setting up {}: {error}\n", shown_name(flag)))
        }
        Kind::Urls => FileError::Urls(format!("unexpected error setting up listen-metrics-urls: {error}\n")),
        Kind::Origins => FileError::Urls(format!("invalid value {} for cors: {error}\n", go_quote(&text))),
        Kind::Choice(_) if flag.name == "initial-cluster-state" => {
            FileError::Value(format!("unexpected clusterState {}", go_quote(&text)))
        }
        Kind::Features => FileError::Value(error),
        _ => FileError::Value(format!("invalid value {} for {key}: {error}", go_quote(&text))),
    })
}

/// etcd calls the clients' list by the peers' name here.
fn shown_name(flag: &Flag) -> &'static str {
    match flag.name {
        "advertise-client-urls" => "advertise-peer-urls",
        name => name,
    }
}

/// The text that a flag would have; `None` if the value is of another type.
fn text_of(flag: &Flag, value: &Value) -> Option<String> {
    match (flag.kind, value) {
        (Kind::Bool, Value::Bool(value)) => Some(value.to_string()),
        (Kind::Uint(bits), Value::Number(number)) => {
            let number = whole(number)?;
            (number >= 0 && (bits == 64 || number >> bits == 0) && number <= i128::from(u64::MAX))
                .then(|| number.to_string())
        }
        (Kind::Int, Value::Number(number)) => i64::try_from(whole(number)?).ok().map(|number| number.to_string()),
        (Kind::Duration, Value::Number(number)) => i64::try_from(whole(number)?).ok().map(|nanos| format!("{nanos}ns")),
        (Kind::Duration, Value::String(text)) => super::parse_duration(text).ok().map(|_| text.clone()),
        (Kind::List, Value::Sequence(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        (Kind::List, Value::String(text)) if is_comma_text(flag) => Some(text.clone()),
        (Kind::Text | Kind::Urls | Kind::Origins | Kind::Choice(_) | Kind::Choices(_) | Kind::Features, value) => {
            value.as_str().map(str::to_string)
        }
        _ => None,
    }
}

/// A number without a fraction. Go's JSON takes `1e3` for none, and so do we: YAML has made it a float.
fn whole(number: &serde_norway::Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
}

/// Lists that etcd's file has as one text.
fn is_comma_text(flag: &Flag) -> bool {
    matches!(flag.name, "host-whitelist")
}

fn unmarshal(text: String) -> FileError {
    FileError::Value(format!("error unmarshaling JSON: while decoding JSON: json: {text}"))
}

fn wrong_group(group: &str, value: &Value) -> FileError {
    let (of, kind) = match group {
        "socket-options" => ("configYAML.Config", "transport.SocketOpts"),
        "discovery-config" => ("configYAML.Config", "v3discovery.DiscoveryConfig"),
        _ => ("configYAML.configJSON", "embed.securityConfig"),
    };
    unmarshal(format!(
        "cannot unmarshal {} into Go struct field {of}.{group} of type {kind}",
        json_kind(value)
    ))
}

fn go_struct(flag: &Flag) -> &'static str {
    let is_text_only = matches!(flag.kind, Kind::Urls | Kind::Origins | Kind::Features)
        || flag.name == "host-whitelist"
        || flag.file_key().is_some_and(|key| key.contains("-transport-security."));
    if is_text_only && flag.name != "listen-metrics-urls" {
        "configYAML.configJSON"
    } else {
        "configYAML.Config"
    }
}

fn go_type(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Bool => "bool",
        Kind::Uint(32) => "uint32",
        Kind::Uint(_) if flag.name.contains("snapshot-c") => "uint64",
        Kind::Uint(_) => "uint",
        Kind::Int if flag.name == "quota-backend-bytes" => "int64",
        Kind::Int => "int",
        Kind::Duration => "time.Duration",
        Kind::List if !is_comma_text(flag) => "[]string",
        _ => "string",
    }
}

/// What Go's JSON calls a value: numbers that do not fit a number are shown, all others only named.
fn json_shown(flag: &Flag, value: &Value) -> String {
    match value {
        Value::Number(number) if matches!(flag.kind, Kind::Uint(_) | Kind::Int | Kind::Duration) => {
            format!("number {number}")
        }
        other => json_kind(other).to_string(),
    }
}

fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Sequence(_) => "array",
        Value::Mapping(_) => "object",
        Value::Tagged(tagged) => json_kind(&tagged.value),
    }
}

/// Runs outside bytes through the reader.
pub fn fuzz_file(bytes: &[u8]) {
    let _ = apply(bytes, &mut Values::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Values, FileError> {
        let mut values = Values::new();
        apply(yaml.as_bytes(), &mut values).map(|()| values)
    }

    #[test]
    fn values_of_every_type_are_read() {
        let values = read(
            "name: a\nSnapshot-Count: 7\npre-vote: false\ngrpc-keepalive-min-time: 1000000\n\
             watch-progress-notify-interval: 2m\nlog-outputs: [stderr, /tmp/x]\nhost-whitelist: a,b\n\
             listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\nquota-backend-bytes: -1\n\
             peer-transport-security:\n  cert-file: c\n  allowed-cn: [x, y]\nsocket-options:\n  reuse-port: true\n\
             unknown: [1, 2]\nwal-dir: ~\n",
        )
        .unwrap();
        assert_eq!(values.text("name"), "a");
        assert_eq!(values.uint("snapshot-count"), 7);
        assert!(!values.bool("pre-vote"));
        assert_eq!(values.nanos("grpc-keepalive-min-time"), 1_000_000);
        assert_eq!(values.nanos("watch-progress-notify-interval"), 120_000_000_000);
        assert_eq!(values.list("log-outputs"), ["/tmp/x", "stderr"]);
        assert_eq!(values.list("host-whitelist"), ["a", "b"]);
        assert_eq!(values.urls("listen-client-urls").len(), 2);
        assert_eq!(values.int("quota-backend-bytes"), -1);
        assert_eq!(values.text("peer-cert-file"), "c");
        assert_eq!(values.text("peer-cert-allowed-cn"), "x,y");
        assert!(values.bool("socket-reuse-port"));
        assert!(!values.is_set("wal-dir"));
    }

    #[test]
    fn wrong_types_are_told_in_go_s_words() {
        let into = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ";
        for (yaml, expected) in [
            (
                "snapshot-count: abc",
                "string into Go struct field configYAML.Config.snapshot-count of type uint64",
            ),
            (
                "snapshot-count: 1.5",
                "number 1.5 into Go struct field configYAML.Config.snapshot-count of type uint64",
            ),
            (
                "snapshot-count: -1",
                "number -1 into Go struct field configYAML.Config.snapshot-count of type uint64",
            ),
            (
                "log-outputs: stderr",
                "string into Go struct field configYAML.Config.log-outputs of type []string",
            ),
            (
                "pre-vote: \"true\"",
                "string into Go struct field configYAML.Config.pre-vote of type bool",
            ),
            (
                "name: [1]",
                "array into Go struct field configYAML.Config.name of type string",
            ),
            ("- a", "array into Go value of type embed.configYAML"),
            (
                "max-concurrent-streams: 99999999999",
                "number 99999999999 into Go struct field configYAML.Config.max-concurrent-streams of type uint32",
            ),
            (
                "client-transport-security: 5",
                "number into Go struct field configYAML.configJSON.client-transport-security of type embed.securityConfig",
            ),
        ] {
            assert_eq!(
                read(yaml).map(drop),
                Err(FileError::Value(format!("{into}{expected}"))),
                "{yaml}"
            );
        }
    }

    #[test]
    fn a_number_where_a_text_belongs_is_only_named() {
        let expected = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct \
                        field configYAML.Config.name of type string";
        assert_eq!(read("name: 5").map(drop), Err(FileError::Value(expected.to_string())));
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert!(read("").is_ok());
        assert!(read("# nothing\n").is_ok());
        assert!(matches!(read("a: [").map(drop), Err(FileError::Value(_))));
    }

    #[test]
    fn seeded_bytes_do_no_harm() {
        crate::config::fuzz_seeds(fuzz_file);
    }
}
