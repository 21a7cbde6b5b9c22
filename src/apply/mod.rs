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
//! - `State::open(tree, restored, config) -> Result<State<T>, OpenFault>`.
//! - `State::apply(at, data, now) -> Result<Applied, ApplyFault>`: a committed normal entry, in order.
//! - `State::plan_conf_change(at, data) -> Result<ConfChangePlan, ApplyFault>`, then raft's own step with the plan's
//!   `to_raft`, then `State::finish_conf_change(plan, conf_state) -> Applied`.
//! - `State::seal()`: writes what must stand in the same commit as everything applied so far; call it, then hand the
//!   tree's batch over.
//! - `State::read_range`, `read_txn`, `lease_time_to_live`, `lease_leases`, `alarm_list`, `member_list`: reads that do
//!   not pass the log. They answer with encoded responses.
//! - `State::lessor()`, `members()`, `store()`, `tree()` and their `_mut` forms, for the leader's leases, peers,
//!   compaction, hashes and the backend's commits.

pub mod outcome;
pub mod state;
pub mod tree;
