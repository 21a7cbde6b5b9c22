//! `ETCD_*` variables: each flag that no argument has set may be set by its variable.

use super::{LogLevel, Notice, duration::go_quote, flags::FLAGS, value::Values};

/// What starts every variable.
const PREFIX: &str = "ETCD_";

/// A variable and a flag say the same thing: etcd ends the process over it, with this as its last line.
pub(super) const CONFLICT: &str = "conflicting environment variable is shadowed by corresponding command-line flag \
                                   (either unset environment variable or disable flag))";

/// Why the environment cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum EnvironmentError {
    /// A variable whose flag is set too.
    Conflict(Notice),
    /// A value that is none; etcd's sentence.
    Value(String),
}

/// Sets what the variables say, and adds a notice for each that was used or not known.
pub(super) fn apply(
    environment: &[(String, String)],
    values: &mut Values,
    notices: &mut Vec<Notice>,
) -> Result<(), EnvironmentError> {
    let set_before: Vec<bool> = FLAGS.iter().map(|flag| values.is_set(flag.name)).collect();
    let mut failure = None;
    let mut used = Vec::new();
    // etcd goes through the flags in the order of their names, and the last failure is the one that it tells.
    let mut by_name: Vec<(usize, String)> = FLAGS.iter().map(|flag| flag.variable()).enumerate().collect();
    by_name.sort_by_key(|(index, _)| FLAGS[*index].name);
    for (index, variable) in &by_name {
        let Some((_, value)) = environment
            .iter()
            .find(|(name, value)| name == variable && !value.is_empty())
        else {
            continue;
        };
        if set_before[*index] || variable == "ETCD_VERSION" {
            continue;
        }
        used.push(variable.as_str());
        match values.set(&FLAGS[*index], value) {
            Ok(()) => notices.push(
                Notice::new(LogLevel::Info, "recognized and used environment variable")
                    .with("variable-name", variable)
                    .with("variable-value", value),
            ),
            Err(error) => failure = Some(format!("invalid value {} for {variable}: {error}", go_quote(value))),
        }
    }
    for (name, value) in environment {
        if used.contains(&name.as_str()) {
            continue;
        }
        if by_name
            .iter()
            .any(|(index, variable)| variable == name && set_before[*index])
        {
            let notice = Notice::new(LogLevel::Fatal, CONFLICT).with("environment-variable", name);
            return Err(EnvironmentError::Conflict(notice));
        }
        if name == "ETCD_VERSION" {
            let notice = Notice::new(LogLevel::Warn, "cannot set special environment variable");
            notices.push(notice.with("key", name).with("value", value));
        } else if name.starts_with(PREFIX) {
            notices.push(
                Notice::new(LogLevel::Warn, "unrecognized environment variable")
                    .with("environment-variable", format!("{name}={value}")),
            );
        }
    }
    match failure {
        Some(error) => Err(EnvironmentError::Value(error)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags::flag;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    #[test]
    fn variables_fill_what_flags_left_open() {
        let mut values = Values::new();
        let mut notices = Vec::new();
        let environment = pairs(&[
            ("ETCD_NAME", "n"),
            ("ETCD_FOO", "bar"),
            ("HOME", "/"),
            ("ETCD_WAL_DIR", ""),
        ]);
        apply(&environment, &mut values, &mut notices).unwrap();
        assert_eq!(values.text("name"), "n");
        assert!(!values.is_set("wal-dir"));
        let told: Vec<&str> = notices.iter().map(|notice| notice.message.as_str()).collect();
        assert_eq!(
            told,
            [
                "recognized and used environment variable",
                "unrecognized environment variable",
                "unrecognized environment variable"
            ]
        );
    }

    #[test]
    fn a_variable_beside_its_flag_is_fatal() {
        let mut values = Values::new();
        values.set(flag("name").unwrap(), "a").unwrap();
        let outcome = apply(&pairs(&[("ETCD_NAME", "b")]), &mut values, &mut Vec::new());
        assert!(matches!(outcome, Err(EnvironmentError::Conflict(_))));
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let outcome = apply(
            &pairs(&[("ETCD_SNAPSHOT_COUNT", "x")]),
            &mut Values::new(),
            &mut Vec::new(),
        );
        let expected = r#"invalid value "x" for ETCD_SNAPSHOT_COUNT: parse error"#;
        assert_eq!(outcome, Err(EnvironmentError::Value(expected.to_string())));
    }
}
