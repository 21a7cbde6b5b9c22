//! Go's flag syntax: `-name value`, `--name=value`, bare booleans, `--` as the end.

use super::{
    duration::go_quote,
    flags::{Flag, Kind, flag},
    value::Values,
};

/// Why a command line is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    /// `-h`, `--help`.
    Help,
    /// A flag that is wrong; Go's sentence. Leads to the usage and exit code 2.
    Flag(String),
    /// A word that is no flag. Leads to exit code 1.
    Word(String),
}

/// Sets what the arguments say.
pub(super) fn parse(arguments: &[String], values: &mut Values) -> Result<(), ParseError> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument.len() < 2 || !argument.starts_with('-') {
            return Err(ParseError::Word(argument.clone()));
        }
        if argument == "--" {
            return match rest.next() {
                Some(word) => Err(ParseError::Word(word.clone())),
                None => Ok(()),
            };
        }
        let body = argument.strip_prefix("--").unwrap_or(&argument[1..]);
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(ParseError::Flag(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = flag(name) else {
            return Err(match name {
                "h" | "help" => ParseError::Help,
                _ => ParseError::Flag(format!("flag provided but not defined: -{name}")),
            });
        };
        if takes_no_word(flag) {
            set_bool(flag, value, values)?;
            continue;
        }
        let Some(value) = value.or_else(|| rest.next().map(String::as_str)) else {
            return Err(ParseError::Flag(format!("flag needs an argument: -{name}")));
        };
        values.set(flag, value).map_err(|error| {
            ParseError::Flag(format!("invalid value {} for flag -{name}: {error}", go_quote(value)))
        })?;
    }
    Ok(())
}

/// Booleans never take the next word as their value.
fn takes_no_word(flag: &Flag) -> bool {
    matches!(flag.kind, Kind::Bool | Kind::Nothing)
}

fn set_bool(flag: &Flag, value: Option<&str>, values: &mut Values) -> Result<(), ParseError> {
    let text = value.unwrap_or("true");
    values.set(flag, text).map_err(|error| {
        ParseError::Flag(format!(
            "invalid boolean value {} for -{}: {error}",
            go_quote(text),
            flag.name
        ))
    })
}

/// Runs outside bytes, one argument per line, through the parser.
pub fn fuzz_arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let arguments: Vec<String> = text.split('\n').map(str::to_string).collect();
    let _ = parse(&arguments, &mut Values::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Values, ParseError> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        let mut values = Values::new();
        parse(&arguments, &mut values).map(|()| values)
    }

    #[test]
    fn every_spelling_of_go_is_read() {
        let values =
            parsed("-name a --data-dir=b --wal-dir c -pre-vote=false --memory-mlock -snapshot-count=0x10 --").unwrap();
        assert_eq!(
            (values.text("name"), values.text("data-dir"), values.text("wal-dir")),
            ("a", "b", "c")
        );
        assert!(!values.bool("pre-vote"));
        assert!(values.bool("memory-mlock"));
        assert_eq!(values.uint("snapshot-count"), 16);
        assert!(!values.is_set("max-wals"));
    }

    #[test]
    fn mistakes_are_called_by_go_s_names() {
        let flag = |text: &str| Err(ParseError::Flag(text.to_string()));
        for (line, expected) in [
            ("--foo", flag("flag provided but not defined: -foo")),
            ("--foo=1", flag("flag provided but not defined: -foo")),
            ("--snapshot-count", flag("flag needs an argument: -snapshot-count")),
            (
                "--snapshot-count=abc",
                flag(r#"invalid value "abc" for flag -snapshot-count: parse error"#),
            ),
            (
                "--pre-vote=maybe",
                flag(r#"invalid boolean value "maybe" for -pre-vote: parse error"#),
            ),
            ("-=x", flag("bad flag syntax: -=x")),
            ("---x", flag("bad flag syntax: ---x")),
            (
                "--max-concurrent-streams=abc",
                flag(
                    r#"invalid value "abc" for flag -max-concurrent-streams: strconv.ParseUint: parsing "abc": invalid syntax"#,
                ),
            ),
            (
                "--initial-cluster-state=bad",
                flag(r#"invalid value "bad" for flag -initial-cluster-state: invalid value"#),
            ),
            (
                "--v2-deprecation=foo",
                flag(r#"invalid value "foo" for flag -v2-deprecation: invalid value "foo""#),
            ),
            ("--pre-vote false", Err(ParseError::Word("false".to_string()))),
            ("-- extra", Err(ParseError::Word("extra".to_string()))),
            ("-", Err(ParseError::Word("-".to_string()))),
            ("-h", Err(ParseError::Help)),
            ("--help", Err(ParseError::Help)),
        ] {
            assert_eq!(parsed(line).map(drop), expected, "{line}");
        }
    }

    #[test]
    fn seeded_bytes_do_no_harm() {
        crate::config::fuzz_seeds(fuzz_arguments);
    }
}
