//! raft-rs's log lines, which it hands to a slog logger, as `tracing` events. The one place where `raft/` logs.

use std::fmt;

use slog::{Drain, Key, Level, Logger, Never, OwnedKVList, Record, o};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let text = Text { record };
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{text}"),
            Level::Warning => tracing::warn!(target: "raft", "{text}"),
            Level::Info => tracing::info!(target: "raft", "{text}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "raft", "{text}"),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Debug | Level::Trace => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
            _ => true,
        }
    }
}

/// A record's message with its values behind it.
struct Text<'a> {
    record: &'a Record<'a>,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.record.msg())?;
        let mut values = Values { f };
        slog::KV::serialize(&self.record.kv(), self.record, &mut values).map_err(|_| fmt::Error)
    }
}

struct Values<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
}

impl slog::Serializer for Values<'_, '_> {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        Ok(write!(self.f, " {key}={value}")?)
    }
}

/// A logger for raft-rs.
pub(super) fn to_tracing() -> Logger {
    Logger::root(ToTracing, o!())
}
