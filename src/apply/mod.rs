//! The replicated state machine: takes committed entries in order and makes of each one deterministic change. Two
//! members that applied the same entries hold the same bytes; nothing here looks at a clock, at this member's identity
//! (but in headers of answers, which are not stored) or at the order in which batches were committed.
//!
//! ```text
//! entry ─▶ decode ─▶ gates (corrupt, space) ─▶ put | delete | txn | compact | lease | alarm | member ─▶ Applied
//!                                                   │
//!                                                   └▶ mvcc, lease, member ─▶ batch (sealed with the applied index)
//! ```
//!
//! The interface, as the replica and the services use it:
//! - [`check`]: what a request must look like, asked before it is proposed.
//! - [`quota`]: what a request costs.
//! - `State::apply(at, data) -> Applied`: a committed normal entry. `State::plan_conf_change` and
//!   `State::finish_conf_change` around raft's own step for a committed configuration change.
//! - `State::seal()`: what must stand in the same commit as everything applied so far.
//! - `State::read_*`: reads that do not pass the log.
//! - `State::lessor`, `State::members`: for the leader's leases and for peers.

pub mod outcome;
