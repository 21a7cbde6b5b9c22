//! What waits on the home core stays within `limits.rs`, and watchers know of every compaction: looked at after each turn
//! in builds with assertions, and so throughout every run of the simulator. A stream's events are not among it: one change of any size is taken where
//! nothing waits, so that only the stream itself can tell.

use super::{
    drive::{Home, Progress},
    relay::Waiting,
};
use crate::{
    host::{Host, Map},
    lease::REVOKES_PER_TICK,
};

/// Proposals of a member's own that may wait beside its clients': ended leases for as long as a proposal may take, which
/// is some ten seconds of two ticks each, and a few others.
const OWN_PROPOSALS_MAX: usize = 64 * REVOKES_PER_TICK;

/// # Panics
/// If something waits that should have been refused, held back or dropped.
pub(super) fn check<H: Host, M: Map>(home: &Home<H, M>, progress: &Progress<M>) {
    let within = |what: &str, count: usize, max: usize| assert!(count <= max, "{count} {what}, of {max} at most");
    let (replica, limits) = (&home.replica, home.replica.limits());
    within(
        "proposals wait",
        replica.pending(),
        limits.proposals_pending_max + OWN_PROPOSALS_MAX,
    );
    let bytes_max =
        limits.proposals_under_way_bytes_max + limits.small_writes_reserve_bytes + replica.request_bytes_max();
    within("bytes of proposals are under way", replica.waiting_bytes(), bytes_max);
    let (held, held_bytes) = progress.intake.held();
    within("writes are held back", held, limits.proposals_pending_max);
    within(
        "bytes of writes are held back",
        held_bytes,
        limits.proposals_pending_bytes_max,
    );
    for (what, bytes) in [
        ("bytes of reads wait for a turn", progress.backlog.bytes()),
        ("bytes of transactions wait for others", progress.scans.waiting_bytes()),
        ("bytes of reads wait to be confirmed", replica.reads_bytes()),
    ] {
        within(what, bytes, limits.reads_pending_bytes_max);
    }
    let Waiting { passed_on, taken_in } = progress.relay.waiting();
    within("questions wait for the leader", passed_on, limits.questions_pending_max);
    within("questions of others wait", taken_in, limits.questions_pending_max);
    within(
        "snapshots are on their way",
        home.exchange.snapshots_in_flight(),
        limits.peer_snapshots_max,
    );
    assert_eq!(
        home.watches.compact_revision(),
        replica.state().store().compact_revision(),
        "watchers and the store know of the same compaction"
    );
    home.exchange.for_each_outbox(|messages, bytes, questions| {
        within("messages wait for a member", messages, limits.peer_queue_messages_max);
        // One is taken whatever its size.
        let bytes_max = if messages == 1 {
            usize::MAX
        } else {
            limits.peer_queue_bytes_max
        };
        within("bytes wait for a member", bytes, bytes_max);
        within("questions wait for a member", questions, limits.questions_pending_max);
    });
}
