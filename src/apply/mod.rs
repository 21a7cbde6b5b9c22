//! The replicated state machine: takes committed entries in order and makes of each one deterministic change. Two
//! members that applied the same entries hold the same bytes; nothing here looks at a clock (the time that leases need
//! is an argument, and nothing that is stored depends on it) or at the order in which batches were committed.
//!
//! ```text
//! entry ─▶ decode ─▶ gates (corrupt, space) ─▶ put | delete | txn | compact | lease | alarm | member ─▶ Applied
//!                                                   │
//!                                                   └▶ mvcc, lease, member ─▶ tree (sealed with the applied index)
//! ```
//!
//! The interface, as the replica and the services use it:
//! - [`check`]: what a request must look like, asked before it is proposed; [`quota`]: what it costs.
//! - [`State::open`]: over a tree, with the store that [`restore_store`] rebuilt from it.
//! - [`State::apply`]: a committed normal entry. [`State::plan_conf_change`] and [`State::finish_conf_change`]: around
//!   raft's own step, for a committed configuration change.
//! - [`State::seal`]: what must stand in the same commit as everything applied so far.
//! - [`State::read_range`], [`State::read_txn`] ([`State::begin_read_txn`] for long ones), [`State::lease_time_to_live`], [`State::lease_leases`],
//!   [`State::alarm_list`], [`State::member_list`]: reads that do not pass the log, as encoded responses.
//! - [`State::lessor_mut`], [`State::members`], [`State::store_and_tree`], [`State::tree_mut`]: for the leader's leases,
//!   peers, compactions, hashes and the backend's commits.

mod alarm;
pub mod check;
mod compaction;
mod compare;
mod decode;
mod delete_range;
mod lease;
mod member;
mod open;
mod outcome;
mod overlap;
mod put;
pub mod quota;
mod read;
mod respond;
mod state;
mod tree;
mod txn;
mod view;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use alarm::Alarms;
pub use decode::fuzz_request;
pub use open::{OpenFault, restore_store};
pub use outcome::{Answer, Applied, ApplyFault, ConfChangePlan, Effect, EntryAt};
pub use state::{State, StateConfig};
pub use tree::Tree;
pub use txn::put_range_head;
pub use view::range_query;
