//! What an operator sees of a running server: logs, metrics, health.
//!
//! `health` and `metrics` are pure: facts in, bytes out. `log` is the one place that owns files and a thread outside
//! `ring/`: lines are written behind the cores' backs, so that a slow terminal never stops one.

pub mod access;
pub mod health;
pub mod log;
pub mod metrics;
pub mod process;

pub use metrics::{Counters, Counts, Gauges};
