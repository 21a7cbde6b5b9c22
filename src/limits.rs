//! Every bound of the server in one place, and how the bounds relate.

use std::time::Duration;

/// Bytes that a request may have over `--max-request-bytes` for the gRPC layer to still take it in (etcd's overhead).
pub const GRPC_OVERHEAD_BYTES: u32 = 512 * 1024;
/// Bytes of a log segment before the next one is begun (etcd's size).
pub const WAL_SEGMENT_BYTES: u64 = 64_000_000;
/// Bytes before a segment's end where the next batch begins another: an ordinary batch then stays within what was zeroed
/// ahead. Only a larger one lets a segment grow.
pub const WAL_CUT_MARGIN_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes of memory that the log's gathering buffer keeps between batches.
pub const WAL_GATHER_KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that one step writes when the next segment is zeroed ahead; larger ones disturb the log's tail latency.
pub const WAL_ZERO_STEP_BYTES: usize = 64 * 1024;
/// Rest between two such steps. A segment then takes about two seconds, unless the log needs it earlier.
pub const WAL_ZERO_REST: Duration = Duration::from_millis(1);
/// Bytes that one read takes from a segment when the log is read back.
pub const WAL_READ_BYTES: usize = 1024 * 1024;
/// Changes that a tree commit may cover before one is begun out of turn (etcd's batch limit).
pub const BACKEND_BATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes of one tree write; larger ones disturb the log's tail latency.
pub const BACKEND_WRITE_BYTES_MAX: usize = 256 * 1024;

/// Bounds of what waits, of what one turn does, and of what goes at once. A server has [`Limits::DEFAULT`]; the simulator draws
/// smaller ones, since no run of it is long enough to come near these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Committed entries that may wait to be applied before proposals are refused (etcd: "too many requests").
    pub committed_ahead_of_applied_max: u64,
    /// Bytes of changes that a tree commit may cover before one is begun out of turn.
    pub backend_batch_bytes_max: usize,
    /// Bytes of changes that may gather while a commit is under way before further writes wait.
    pub backend_open_bytes_max: usize,
    /// Bytes of events that wait to be sent on one watch stream; beyond, its watchers are told from history later.
    pub watch_queue_bytes_max: usize,
    /// Responses that wait to be sent on one watch stream.
    pub watch_queue_responses_max: usize,
    /// Bytes of a watch stream's responses that may be on their way to another core and wait there.
    pub watch_credit_bytes: usize,
    /// Watchers that one piece of history is read for (etcd's number).
    pub watch_catch_up_watchers_max: usize,
    /// Records of history that one slice looks at for watchers that are behind.
    pub watch_history_records_max: usize,
    /// Bytes of events that one such slice gives.
    pub watch_history_bytes_max: usize,
    /// Keys that a range may span to be answered at once; longer ones go in slices.
    pub list_at_once_keys_max: u64,
    /// Bytes that the answer to such a range may have.
    pub list_at_once_bytes_max: usize,
    /// Keys of the index that one slice of a walk looks at.
    pub scan_slice_keys_max: usize,
    /// Records that one slice of a walk measures.
    pub scan_slice_records_max: usize,
    /// Bytes of an answer that one slice of a walk writes.
    pub scan_slice_bytes_max: usize,
    /// Bytes of answers that may wait for one client before its next request waits, too; and of requests that wait so.
    pub connection_unsent_bytes_max: usize,
    /// Bytes of answers that wait for one client beyond which answers to what was under way already are dropped.
    pub connection_answers_bytes_max: usize,
    /// Bytes that the answer to a transaction, or to a deletion with what was there, may have; such an answer is in memory as a
    /// whole, and a transaction may ask for everything many times over.
    pub answer_bytes_max: usize,
    /// Bytes of answers to writes that one turn may make before the large ones are dropped.
    pub turn_answers_bytes_max: usize,
    /// Bytes of answers to reads of several keys that one turn may make before further such reads wait for the next.
    pub turn_reads_bytes_max: usize,
    /// Bytes of such reads that wait for a turn, of long transactions that wait for one another, and of reads that wait to be
    /// confirmed, before further ones are refused.
    pub reads_pending_bytes_max: usize,
    /// Bytes of answers that may wait for all clients together. Beyond, only connections that have at most
    /// [`Limits::unsent_bytes_free`] go on, beyond twice as many none for several keys; and those are closed
    /// that take nothing.
    pub all_unsent_bytes_max: usize,
    /// Bytes of answers that may wait for each client whatever the others have.
    pub unsent_bytes_free: usize,
    /// Bytes of answers that wait for a client beyond which its long list is not carried on.
    pub list_unsent_bytes_max: usize,
    /// What a long list that is being gathered counts as among them: its size is not known before.
    pub scan_unsent_bytes: usize,
    /// Keys that sorted lists may hold together before all but the oldest of them wait: up to 48 bytes each.
    pub scan_keys_held_max: usize,
    /// Writes on their way through the log before further ones are refused (etcd: "too many requests").
    pub proposals_pending_max: usize,
    /// Bytes of writes on their way through the log before further ones wait. Each may be in memory three times: as the entry,
    /// in the batch that gathers, and in the batch that is being written.
    pub proposals_under_way_bytes_max: usize,
    /// A write of so many bytes passes larger ones that wait, while there is room in the reserve.
    pub small_write_bytes_max: usize,
    /// What small writes may have under way over the bounds for all.
    pub small_writes_reserve_bytes: usize,
    /// Bytes of writes that wait before further ones are refused.
    pub proposals_pending_bytes_max: usize,
    /// Bytes of entries between two snapshots of the log, however few they are: `--snapshot-count` entries of the largest size
    /// would be 15 GiB of memory.
    pub log_bytes_between_snapshots: u64,
    /// Bytes of entries that stay in memory behind a snapshot, for slow followers.
    pub log_catch_up_bytes_max: u64,
    /// Bytes of entries beyond which they go though a member that is sent a snapshot would want them.
    pub log_wanted_bytes_max: u64,
    /// Messages that wait for one other member before further ones are dropped (etcd's buffer of a stream).
    pub peer_queue_messages_max: usize,
    /// Bytes of messages that wait for one other member before further ones are dropped; one is taken whatever its size.
    pub peer_queue_bytes_max: usize,
    /// Messages of other members that wait for the home core before further ones are dropped (etcd's number).
    pub peer_inbox_messages_max: usize,
    /// Bytes of them.
    pub peer_inbox_bytes_max: usize,
    /// Snapshots that are on their way to other members at once (etcd's number).
    pub peer_snapshots_max: usize,
    /// Questions about leases that wait for the leader, or for this member as the leader, before further ones are refused.
    pub questions_pending_max: usize,
    /// Bytes of proposals that one message takes to the leader.
    pub forward_bytes_max: usize,
}

impl Limits {
    /// Those of a server.
    pub const DEFAULT: Limits = Limits {
        committed_ahead_of_applied_max: 5_000,
        backend_batch_bytes_max: 32 << 20,
        backend_open_bytes_max: 64 << 20,
        watch_queue_bytes_max: 512 * 1024,
        watch_queue_responses_max: 1024,
        watch_credit_bytes: 256 * 1024,
        watch_catch_up_watchers_max: 512,
        watch_history_records_max: 1_000,
        watch_history_bytes_max: 256 * 1024,
        list_at_once_keys_max: 256,
        list_at_once_bytes_max: 1 << 20,
        scan_slice_keys_max: 1_000,
        scan_slice_records_max: 500,
        scan_slice_bytes_max: 128 * 1024,
        connection_unsent_bytes_max: 4 << 20,
        connection_answers_bytes_max: 64 << 20,
        answer_bytes_max: 128 << 20,
        turn_answers_bytes_max: 128 << 20,
        turn_reads_bytes_max: 4 << 20,
        reads_pending_bytes_max: 256 << 20,
        all_unsent_bytes_max: 512 << 20,
        unsent_bytes_free: 64 << 10,
        list_unsent_bytes_max: 256 << 10,
        scan_unsent_bytes: 1 << 20,
        scan_keys_held_max: 4_000_000,
        proposals_pending_max: 100_000,
        proposals_under_way_bytes_max: 64 << 20,
        small_write_bytes_max: 16 << 10,
        small_writes_reserve_bytes: 16 << 20,
        proposals_pending_bytes_max: 256 << 20,
        log_bytes_between_snapshots: 64 << 20,
        log_catch_up_bytes_max: 64 << 20,
        log_wanted_bytes_max: 512 << 20,
        peer_queue_messages_max: 4096,
        peer_queue_bytes_max: 64 << 20,
        peer_inbox_messages_max: 4096,
        peer_inbox_bytes_max: 128 << 20,
        peer_snapshots_max: 16,
        questions_pending_max: 10_000,
        forward_bytes_max: 1 << 20,
    };

    /// Whether the bounds go together: what one takes in the next has room for.
    pub const fn are_related(&self) -> bool {
        self.backend_batch_bytes_max <= self.backend_open_bytes_max
            && self.proposals_under_way_bytes_max <= self.proposals_pending_bytes_max
            && self.list_unsent_bytes_max < self.scan_unsent_bytes
            && self.scan_unsent_bytes < self.connection_unsent_bytes_max
            && self.unsent_bytes_free <= self.connection_unsent_bytes_max
            && self.connection_unsent_bytes_max <= self.connection_answers_bytes_max
            && self.connection_answers_bytes_max <= self.all_unsent_bytes_max
            && self.log_catch_up_bytes_max <= self.log_wanted_bytes_max
            && self.forward_bytes_max < self.peer_queue_bytes_max
            && self.peer_queue_bytes_max <= self.peer_inbox_bytes_max
    }
}

const _: () = assert!(Limits::DEFAULT.are_related());
const _: () = assert!(WAL_SEGMENT_BYTES.is_multiple_of(4096));
const _: () = assert!(WAL_CUT_MARGIN_BYTES < WAL_SEGMENT_BYTES);
const _: () = assert!(WAL_ZERO_STEP_BYTES.is_multiple_of(4096) && WAL_READ_BYTES.is_multiple_of(4096));
const _: () = assert!(BACKEND_WRITE_BYTES_MAX.is_multiple_of(4096));
