//! How a line looks. Pure.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};

use crate::{base::WallTime, config::LogFormat, ops::health::json_string};

/// A line while it is put together.
pub(super) struct Line {
    time: WallTime,
    level: String,
    logger: Option<String>,
    caller: String,
    message: String,
    /// `"name":value,...` without braces.
    fields: String,
}

impl Line {
    pub(super) fn new(time: WallTime, level: &str) -> Line {
        Line {
            time,
            level: level.to_string(),
            logger: None,
            caller: String::new(),
            message: String::new(),
            fields: String::with_capacity(128),
        }
    }

    pub(super) fn level(&self) -> &str {
        &self.level
    }

    /// File and line, with the file's directory, as zap shortens it.
    pub(super) fn set_caller(&mut self, file: &str, line: u32) {
        let directory_end = file.rfind('/').unwrap_or(0);
        let from = file[..directory_end].rfind('/').map_or(0, |slash| slash + 1);
        self.caller = format!("{}:{line}", &file[from..]);
    }

    pub(super) fn set_message(&mut self, message: &str) {
        self.message = message.to_string();
    }

    pub(super) fn add_text(&mut self, name: &str, value: &str) {
        self.add_raw(name, &json_string(value));
    }

    fn add_raw(&mut self, name: &str, json: &str) {
        if !self.fields.is_empty() {
            self.fields.push(',');
        }
        self.fields.push_str(&json_string(name));
        self.fields.push(':');
        self.fields.push_str(json);
    }

    pub(super) fn finish(self, format: LogFormat) -> String {
        let time = format_timestamp(self.time);
        let mut text = String::with_capacity(self.fields.len() + self.message.len() + 128);
        match format {
            LogFormat::Json => {
                let _ = write!(text, r#"{{"level":{},"ts":"{time}""#, json_string(&self.level));
                if let Some(logger) = &self.logger {
                    let _ = write!(text, r#","logger":{}"#, json_string(logger));
                }
                let _ = write!(
                    text,
                    r#","caller":{},"msg":{}"#,
                    json_string(&self.caller),
                    json_string(&self.message)
                );
                if !self.fields.is_empty() {
                    text.push(',');
                    text.push_str(&self.fields);
                }
                text.push_str("}\n");
            }
            LogFormat::Console => {
                let _ = write!(text, "{time}\t{}\t", self.level);
                if let Some(logger) = &self.logger {
                    let _ = write!(text, "{logger}\t");
                }
                let _ = write!(text, "{}\t{}", self.caller, self.message);
                if !self.fields.is_empty() {
                    let _ = write!(text, "\t{{{}}}", self.fields);
                }
                text.push('\n');
            }
        }
        text
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what is not finite; zap writes it as text.
        match value.is_finite() {
            true => self.add_raw(field.name(), &value.to_string()),
            false => self.add_text(field.name(), &value.to_string()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_raw(field.name(), &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_raw(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add_raw(field.name(), if value { "true" } else { "false" });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_string(),
            "zap.level" => self.level = value.to_string(),
            "zap.logger" => self.logger = Some(value.to_string()),
            "zap.caller" => self.caller = value.to_string(),
            name => self.add_text(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        // A list of texts or numbers looks in Rust as it does in JSON, and zap writes lists as JSON.
        if text.starts_with('[')
            && field.name() != "message"
            && let Ok(list) = serde_json::from_str::<serde_json::Value>(&text)
        {
            return self.add_raw(field.name(), &list.to_string());
        }
        self.record_str(field, &text);
    }
}

/// UTC with microseconds: `2026-11-21T06:51:17.966927Z`.
pub fn format_timestamp(time: WallTime) -> String {
    let seconds = time.0 / 1_000_000_000;
    let micros = time.0 / 1_000 % 1_000_000;
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a number of days since 1970. Years are taken to begin in March, so that a leap day is the
/// last day of its year and months have a regular length.
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days_since_epoch + DAYS_FROM_MARCH_OF_YEAR_0;
    let era = days / DAYS_OF_400_YEARS;
    let day_of_era = days % DAYS_OF_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_utc_with_microseconds() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_795_243_877_966_927_000, "2026-11-21T06:51:17.966927Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(format_timestamp(WallTime(nanos)), expected);
        }
    }

    #[test]
    fn lines_have_zap_s_names_and_order() {
        let mut line = Line::new(WallTime(0), "info");
        line.set_caller("src/embed/etcd.rs", 132);
        line.set_message("configuring \"peer\" listeners");
        line.add_text("listen-peer-urls", "a<b");
        let clone = |format| {
            let mut copy = Line::new(WallTime(0), "info");
            copy.set_caller("etcd.rs", 1);
            copy.set_message("m");
            copy.finish(format)
        };
        assert_eq!(
            line.finish(LogFormat::Json),
            "{\"level\":\"info\",\"ts\":\"1970-01-01T00:00:00.000000Z\",\"caller\":\"embed/etcd.rs:132\",\
             \"msg\":\"configuring \\\"peer\\\" listeners\",\"listen-peer-urls\":\"a\\u003cb\"}\n"
        );
        assert_eq!(
            clone(LogFormat::Console),
            "1970-01-01T00:00:00.000000Z\tinfo\tetcd.rs:1\tm\n"
        );
    }
}
