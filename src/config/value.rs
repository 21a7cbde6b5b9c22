//! Flag values as texts, checked by Go's rules when they are set, and read as types when the configuration is built.

use std::time::Duration;

use super::{
    duration::{go_quote, parse_duration},
    feature::FeatureGates,
    flags::{FLAGS, Flag, Kind},
    url::{Url, parse_urls},
};

/// A value for each flag, or its default.
#[derive(Clone, Debug)]
pub(super) struct Values(Vec<Option<String>>);

impl Values {
    pub(super) fn new() -> Values {
        Values(vec![None; FLAGS.len()])
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// Why the value is none, as etcd says it behind `invalid value ... for flag ...: `.
    pub(super) fn set(&mut self, flag: &Flag, text: &str) -> Result<(), String> {
        check(flag, text)?;
        self.0[index(flag.name)] = Some(text.to_string());
        Ok(())
    }

    /// Whether a flag was set, to whatever.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0[index(name)].is_some()
    }

    /// What a flag was set to.
    pub(super) fn explicit(&self, name: &str) -> Option<&str> {
        self.0[index(name)].as_deref()
    }

    /// A flag's text.
    pub(super) fn text(&self, name: &str) -> &str {
        let index = index(name);
        self.0[index].as_deref().unwrap_or(FLAGS[index].default)
    }

    /// Forgets what a flag was set to.
    pub(super) fn clear(&mut self, name: &str) {
        self.0[index(name)] = None;
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        parse_bool(self.text(name)).expect("checked when it was set")
    }

    pub(super) fn uint(&self, name: &str) -> u64 {
        parse_uint(self.text(name), 64).expect("checked when it was set")
    }

    /// A number that no sane configuration puts beyond 32 bits; what is larger counts as the largest.
    pub(super) fn uint32(&self, name: &str) -> u32 {
        u32::try_from(self.uint(name)).unwrap_or(u32::MAX)
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name)).expect("checked when it was set")
    }

    /// A duration; less than nothing counts as nothing.
    pub(super) fn duration(&self, name: &str) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos(name)).unwrap_or(0))
    }

    pub(super) fn nanos(&self, name: &str) -> i64 {
        parse_duration(self.text(name)).expect("checked when it was set")
    }

    /// URLs, sorted and each once. An empty text stands for the default, as with etcd.
    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        let index = index(name);
        let text = match self.text(name) {
            "" => FLAGS[index].default,
            text => text,
        };
        if text.is_empty() {
            return Vec::new();
        }
        let mut urls = parse_urls(text).expect("checked when it was set");
        urls.dedup();
        urls
    }

    /// Texts between commas, sorted and each once.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        if text.is_empty() {
            return Vec::new();
        }
        let mut list: Vec<String> = text.split(',').map(str::to_string).collect();
        list.sort();
        list.dedup();
        list
    }
}

/// Where a flag stands in the table. A name that is not there is a mistake in this program, found by any test.
fn index(name: &str) -> usize {
    match FLAGS.iter().position(|flag| flag.name == name) {
        Some(index) => index,
        None => panic!("no flag is called {name}"),
    }
}

fn check(flag: &Flag, text: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Bool => parse_bool(text).map(drop).ok_or_else(|| "parse error".to_string()),
        Kind::Uint(64) => parse_uint(text, 64)
            .map(drop)
            .map_err(|error| error.short().to_string()),
        Kind::Uint(bits) => parse_uint(text, bits)
            .map(drop)
            .map_err(|error| format!("strconv.ParseUint: parsing {}: {}", go_quote(text), error.long())),
        Kind::Int => parse_int(text).map(drop).map_err(|error| error.short().to_string()),
        Kind::Duration => parse_duration(text).map(drop).map_err(|_| "parse error".to_string()),
        Kind::Urls if text.is_empty() => Ok(()),
        Kind::Origins if text == "*" => Ok(()),
        Kind::Urls | Kind::Origins => parse_urls(text).map(drop).map_err(|error| error.to_string()),
        Kind::Choice(choices) if choices.contains(&text) => Ok(()),
        Kind::Choice(_) => Err("invalid value".to_string()),
        Kind::Choices(choices) => match text.split(',').find(|part| !choices.contains(part)) {
            Some(unknown) => Err(format!("invalid value {}", go_quote(unknown))),
            None => Ok(()),
        },
        Kind::Features => FeatureGates::default().apply(text),
        Kind::Text | Kind::List | Kind::Nothing => Ok(()),
    }
}

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    Syntax,
    Range,
}

impl NumberError {
    fn short(self) -> &'static str {
        match self {
            NumberError::Syntax => "parse error",
            NumberError::Range => "value out of range",
        }
    }

    fn long(self) -> &'static str {
        match self {
            NumberError::Syntax => "invalid syntax",
            NumberError::Range => "value out of range",
        }
    }
}

/// Go's spellings.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number as in Go's source: `10`, `0x_ff`, `0b1`, `0o7`, `017`.
pub(super) fn parse_uint(text: &str, bits: u32) -> Result<u64, NumberError> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits, is_prefixed) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..], true),
        [b'0', b'b', ..] => (2, &lower[2..], true),
        [b'0', b'o', ..] => (8, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[1..], true),
        _ => (10, lower.as_str(), false),
    };
    // An underscore stands between digits, or between the prefix and a digit.
    let is_spaced_well = !digits.contains("__") && !digits.ends_with('_') && (is_prefixed || !digits.starts_with('_'));
    let plain: String = digits.chars().filter(|&c| c != '_').collect();
    if plain.is_empty() || !is_spaced_well || !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    let number = u64::from_str_radix(&plain, radix).map_err(|_| NumberError::Range)?;
    if bits < 64 && number >> bits != 0 {
        return Err(NumberError::Range);
    }
    Ok(number)
}

/// The same with a sign.
pub(super) fn parse_int(text: &str) -> Result<i64, NumberError> {
    let (is_negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number = parse_uint(digits, 64)?;
    let limit = if is_negative { 1 << 63 } else { i64::MAX as u64 };
    if number > limit {
        return Err(NumberError::Range);
    }
    Ok(if is_negative {
        0i64.wrapping_sub_unsigned(number)
    } else {
        number as i64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_writes_them() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("10", Ok(10)),
            ("0x_fF", Ok(255)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("1_000", Ok(1000)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(NumberError::Range)),
            ("", Err(NumberError::Syntax)),
            ("0x", Err(NumberError::Syntax)),
            ("08", Err(NumberError::Syntax)),
            ("1__0", Err(NumberError::Syntax)),
            ("_1", Err(NumberError::Syntax)),
            ("1_", Err(NumberError::Syntax)),
            ("-1", Err(NumberError::Syntax)),
            ("+1", Err(NumberError::Syntax)),
            ("1.0", Err(NumberError::Syntax)),
        ] {
            assert_eq!(parse_uint(text, 64), expected, "{text}");
        }
        assert_eq!(parse_uint("4294967296", 32), Err(NumberError::Range));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(NumberError::Range));
        assert_eq!(parse_int("+0x10"), Ok(16));
    }

    #[test]
    fn every_default_is_a_value() {
        for flag in FLAGS {
            // Defaults that are empty mean "not set" where the type has no empty value.
            if !flag.default.is_empty() {
                assert_eq!(check(flag, flag.default), Ok(()), "--{}", flag.name);
            }
        }
    }
}
