//! Go's durations: `1h15m30.918s`, as flags take them and as log lines show them.

use std::{fmt, time::Duration};

/// Why a text is no duration, in the words of Go's time package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationError(String);

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DurationError {}

/// Nanoseconds of a text such as `-1.5h`, `300ms` or `0`, by the rules of Go's `ParseDuration`.
///
/// # Errors
/// A text without a unit, with an unknown unit or without digits; a value beyond 2^63 - 1 nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError(format!("time: invalid duration {}", go_quote(text)));
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // One more than the largest positive value may be reached if it is negative.
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = parse_part(text, rest)?;
        total = total
            .checked_add(nanos)
            .filter(|&total| total <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = tail;
    }
    match (is_negative, total) {
        (true, total) => Ok(0i64.wrapping_sub_unsigned(total)),
        (false, total) => i64::try_from(total).map_err(|_| invalid()),
    }
}

/// One number with its unit: nanoseconds, and what is behind it.
fn parse_part<'a>(text: &str, part: &'a str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError(format!("time: invalid duration {}", go_quote(text)));
    let whole_len = digits_len(part);
    let (whole_text, rest) = part.split_at(whole_len);
    let (fraction_text, rest) = match rest.strip_prefix('.') {
        Some(behind) => behind.split_at(digits_len(behind)),
        None => ("", rest),
    };
    if whole_text.is_empty() && fraction_text.is_empty() {
        return Err(invalid());
    }
    let whole = parse_whole(whole_text).ok_or_else(invalid)?;
    let unit_len = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit_text, tail) = rest.split_at(unit_len);
    if unit_text.is_empty() {
        return Err(DurationError(format!(
            "time: missing unit in duration {}",
            go_quote(text)
        )));
    }
    let Some(unit) = unit_nanos(unit_text) else {
        let unit = go_quote(unit_text);
        return Err(DurationError(format!(
            "time: unknown unit {unit} in duration {}",
            go_quote(text)
        )));
    };
    let nanos = whole
        .checked_mul(unit)
        .filter(|&nanos| nanos <= 1 << 63)
        .ok_or_else(invalid)?;
    let nanos = nanos + fraction_nanos(fraction_text, unit);
    if nanos > 1 << 63 {
        return Err(invalid());
    }
    Ok((nanos, tail))
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Up to 2^63.
fn parse_whole(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse::<u64>().ok().filter(|&whole| whole <= 1 << 63)
}

/// Digits beyond what 63 bits hold are cut off, and the product goes through a float, as in Go.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let mut fraction: u64 = 0;
    let mut scale = 1.0f64;
    for digit in digits.bytes() {
        let next = fraction.checked_mul(10).map(|tens| tens + u64::from(digit - b'0'));
        match next.filter(|&next| next < 1 << 63) {
            Some(next) => fraction = next,
            None => break,
        }
        scale *= 10.0;
    }
    (fraction as f64 * (unit as f64 / scale)) as u64
}

fn unit_nanos(unit: &str) -> Option<u64> {
    match unit {
        "ns" => Some(1),
        // The micro sign and the Greek letter are both taken.
        "us" | "\u{b5}s" | "\u{3bc}s" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    }
}

/// A duration as Go prints it: `1h0m0s`, `1.5ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_string();
    }
    if nanos < 1_000_000_000 {
        let (unit, name) = match nanos {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{name}", decimal(nanos / unit, nanos % unit, unit));
    }
    let seconds = duration.as_secs();
    let tail = format!(
        "{}s",
        decimal(u128::from(seconds % 60), nanos % 1_000_000_000, 1_000_000_000)
    );
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => tail,
        (0, minutes) => format!("{minutes}m{tail}"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
    }
}

/// `whole.rest`, where `rest` counts in `1/unit`, without trailing zeros.
fn decimal(whole: u128, rest: u128, unit: u128) -> String {
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// A text in Go's double quotes.
pub(super) fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() && (control as u32) < 0x80 => {
                quoted.push_str(&format!("\\x{:02x}", control as u32));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Runs outside bytes through the parser.
pub fn fuzz_duration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(nanos) = parse_duration(&text)
        && nanos >= 0
    {
        let printed = format_duration(Duration::from_nanos(nanos.unsigned_abs()));
        assert_eq!(parse_duration(&printed), Ok(nanos), "{text:?} printed as {printed}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("+0", 0),
            ("5s", 5_000_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            ("-.5m", -30_000_000_000),
            ("1.s", 1_000_000_000),
            ("39h9m14.425s", 140_954_425_000_000),
            ("\u{b5}s".to_string().as_str(), -1),
            ("3000ns", 3000),
            ("7us7\u{b5}s7\u{3bc}s", 21_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("9007199254.740993ms", 9_007_199_254_740_993),
        ] {
            if expected == -1 {
                assert!(parse_duration(text).is_err());
            } else {
                assert_eq!(parse_duration(text), Ok(expected), "{text}");
            }
        }
    }

    #[test]
    fn errors_are_in_go_s_words() {
        for (text, expected) in [
            ("", r#"time: invalid duration """#),
            ("3", r#"time: missing unit in duration "3""#),
            ("-", r#"time: invalid duration "-""#),
            ("s", r#"time: invalid duration "s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("1x", r#"time: unknown unit "x" in duration "1x""#),
            (
                "9223372036854775808ns",
                r#"time: invalid duration "9223372036854775808ns""#,
            ),
            ("3000000h", r#"time: invalid duration "3000000h""#),
            ("1s 2s", r#"time: unknown unit "s " in duration "1s 2s""#),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (2_200_000, "2.2ms"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos in 0..i64::MAX) {
            let printed = format_duration(Duration::from_nanos(nanos.unsigned_abs()));
            prop_assert_eq!(parse_duration(&printed), Ok(nanos));
        }

        #[test]
        fn parts_add_up(hours in 0u64..1000, minutes in 0u64..1000, seconds in 0u64..1000, millis in 0u64..1000) {
            let text = format!("{hours}h{minutes}m{seconds}.{millis:03}s");
            let expected = ((hours * 3600 + minutes * 60 + seconds) * 1000 + millis) * 1_000_000;
            // The fraction goes through a float, in Go too, and may lose a nanosecond.
            let parsed = parse_duration(&text).unwrap().unsigned_abs();
            prop_assert!(expected - parsed <= 1, "{} {}", text, parsed);
        }

        #[test]
        fn any_text_ends_in_a_value_or_an_error(text in "[-+.0-9nsuµmh ]{0,20}") {
            fuzz_duration(text.as_bytes());
        }
    }

    #[test]
    fn seeded_bytes_do_no_harm() {
        crate::config::fuzz_seeds(fuzz_duration);
    }
}
