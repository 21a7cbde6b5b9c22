//! The loop that turns requests into log entries and log entries into answers, and the order of its effects.
//!
//! [`cycle`] is the core: what may start when ([`waits`]: and how long who waits; [`takeover`]: a leader's snapshot in between).
//! [`drive`] turns it round on the home core, [`effects`] carries out what a turn came to; [`boot`] brings a member from
//! its data directory to its first turn; [`founding`] begins a cluster. [`peers`] is what the loop has to do with other
//! members, [`relay`] what is asked of the leader, [`install`] how its snapshot is taken over. The rest is what takes
//! longer than a turn: [`scans`] over the index, [`file_work`] on the tree's file, the [`compactor`], the
//! [`snapshotter`]. `bounds` looks at what waits.

pub mod answer;
pub mod auto_compaction;
pub mod backlog;
pub mod boot;
#[cfg(debug_assertions)]
mod bounds;
pub mod compactor;
pub mod cycle;
pub mod drive;
pub mod effects;
mod fault;
pub mod file_work;
pub mod founding;
pub mod install;
pub mod intake;
pub mod jobs;
pub mod leases;
pub mod outputs;
pub(crate) mod peers;
pub mod proposals;
pub mod questions;
pub mod reads;
pub mod relay;
pub mod scans;
pub mod snapshotter;
pub mod takeover;
pub mod telemetry;
pub mod waits;

pub use fault::Fault;
