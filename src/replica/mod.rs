//! The loop that turns requests into log entries and log entries into answers, and the order of its effects.

pub mod reads;
