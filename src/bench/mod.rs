//! `ringd bench`: a load generator for any etcd endpoint, on our own wire core.
//!
//! ```text
//! arguments ─▶ Plan ─▶ crew (one per thread) ─▶ Session (one per connection) ─▶ ClientConnection ─▶ socket
//!                        │  what to send next, what is left, who failed          pace: intended start times
//!                        └─▶ Tally (histograms, a count for each moment) ─▶ report: table, JSON, .hgrm, SVG
//! ```
//!
//! Two kinds of load. Closed: each client sends its next request when the last one is answered, so that a slow server is
//! asked less. Open (`--rate`): requests have intended start times, and their latency counts from those, also when all
//! clients were busy then: what a stall delays is in the figures (no coordinated omission).
//!
//! A run in which any request failed unexpectedly is not reported. All of this is pure but for `drive.rs`; the threads,
//! the progress bar and the files are `node::bench`'s.

mod arguments;
mod control;
mod crew;
pub mod drive;
pub mod hgrm;
pub mod json;
mod keepalive;
mod kubernetes;
pub mod pace;
mod plan;
pub mod plot;
mod random;
pub mod report;
mod session;
pub mod tally;
mod watching;

#[cfg(test)]
mod tests;

pub use arguments::{fuzz_arguments, plan, program};
pub use control::Control;
pub use plan::{
    Arrivals, Consistency, KeyOrder, Kubernetes, Load, Outputs, Plan, PrintFormat, RangeWork, ValueSizes, WatchWork,
    Workload,
};
