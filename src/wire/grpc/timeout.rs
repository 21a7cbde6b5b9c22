//! `grpc-timeout` (gRPC over HTTP/2, "Requests"): at most eight digits and a unit.

use std::{fmt, time::Duration};

/// Why a timeout cannot be read. Displays as grpc-go says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeoutError {
    /// No digit or no unit.
    TooShort(String),
    /// More than eight digits.
    TooLong(String),
    /// Not one of H, M, S, m, u, n.
    UnknownUnit(String),
    /// The digits are none.
    NotANumber(String),
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::go_quoted;
        match self {
            TimeoutError::TooShort(text) => {
                write!(
                    formatter,
                    "transport: timeout string is too short: {}",
                    go_quoted(text.as_bytes())
                )
            }
            TimeoutError::TooLong(text) => {
                write!(
                    formatter,
                    "transport: timeout string is too long: {}",
                    go_quoted(text.as_bytes())
                )
            }
            TimeoutError::UnknownUnit(text) => {
                write!(
                    formatter,
                    "transport: timeout unit is not recognized: {}",
                    go_quoted(text.as_bytes())
                )
            }
            TimeoutError::NotANumber(digits) => {
                write!(
                    formatter,
                    "strconv.ParseUint: parsing {}: invalid syntax",
                    go_quoted(digits.as_bytes())
                )
            }
        }
    }
}

/// Reads a timeout.
pub fn parse_timeout(text: &[u8]) -> Result<Duration, TimeoutError> {
    let owned = || String::from_utf8_lossy(text).into_owned();
    let (&unit, digits) = match text.split_last() {
        Some((unit, digits)) if !digits.is_empty() => (unit, digits),
        _ => return Err(TimeoutError::TooShort(owned())),
    };
    if digits.len() > 8 {
        return Err(TimeoutError::TooLong(owned()));
    }
    let unit_nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return Err(TimeoutError::UnknownUnit(owned())),
    };
    let mut count = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(TimeoutError::NotANumber(String::from_utf8_lossy(digits).into_owned()));
        }
        count = count * 10 + u64::from(digit - b'0');
    }
    // Go's durations end at 2^63 - 1 ns, some 292 years.
    let nanos = count.saturating_mul(unit_nanos).min(i64::MAX as u64);
    Ok(Duration::from_nanos(nanos))
}

/// Writes a timeout in the finest unit that eight digits allow, rounded up.
pub fn encode_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    for (unit_nanos, unit) in [
        (1u128, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
    ] {
        let count = nanos.div_ceil(unit_nanos);
        if count < 100_000_000 {
            return format!("{count}{unit}");
        }
    }
    format!("{}H", nanos.div_ceil(3_600_000_000_000).min(99_999_999))
}
