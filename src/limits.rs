//! Every bound of the server in one place, and how the bounds relate.

use std::time::Duration;

/// Bytes that a request may have over `--max-request-bytes` for the gRPC layer to still take it in (etcd's overhead).
pub const GRPC_OVERHEAD_BYTES: u32 = 512 * 1024;
/// Committed entries that may wait to be applied before proposals are refused (etcd: "too many requests").
pub const COMMITTED_AHEAD_OF_APPLIED_MAX: u64 = 5_000;
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
/// Bytes of changes that a tree commit may cover before one is begun out of turn.
pub const BACKEND_BATCH_BYTES_MAX: usize = 32 << 20;
/// Bytes of changes that may gather while a commit is under way before further writes wait.
pub const BACKEND_OPEN_BYTES_MAX: usize = 64 << 20;
/// Bytes of one tree write; larger ones disturb the log's tail latency.
pub const BACKEND_WRITE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of events that wait to be sent on one watch stream; beyond, its watchers are told from history later.
pub const WATCH_QUEUE_BYTES_MAX: usize = 512 * 1024;
/// Responses that wait to be sent on one watch stream.
pub const WATCH_QUEUE_RESPONSES_MAX: usize = 1024;
/// Watchers that one piece of history is read for (etcd's number).
pub const WATCH_CATCH_UP_WATCHERS_MAX: usize = 512;
/// Bytes of answers that may wait for one client before its next large request waits, too.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 4 << 20;
/// Bytes of answers that wait for a client beyond which its long list is not carried on.
pub const LIST_UNSENT_BYTES_MAX: usize = 256 << 10;
/// What a long list that is being gathered counts as among them: its size is not known before.
pub const SCAN_UNSENT_BYTES: usize = 1 << 20;
/// Writes on their way through the log before further ones are refused (etcd: "too many requests").
pub const PROPOSALS_PENDING_MAX: usize = 100_000;
/// Bytes of writes on their way through the log before further ones wait. Each may be in memory three times: as the entry,
/// in the batch that gathers, and in the batch that is being written.
pub const PROPOSALS_UNDER_WAY_BYTES_MAX: usize = 64 << 20;
/// A write of so many bytes passes larger ones that wait, while there is room in the reserve.
pub const SMALL_WRITE_BYTES_MAX: usize = 16 << 10;
/// What small writes may have under way over the bounds for all.
pub const SMALL_WRITES_RESERVE_BYTES: usize = 16 << 20;
/// Bytes of writes that wait before further ones are refused.
pub const PROPOSALS_PENDING_BYTES_MAX: usize = 256 << 20;
/// Messages that wait for one other member before further ones are dropped (etcd's buffer of a stream).
pub const PEER_QUEUE_MESSAGES_MAX: usize = 4096;
/// Bytes of messages that wait for one other member before further ones are dropped; one is taken whatever its size.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Messages of other members that wait for the home core before further ones are dropped (etcd's number).
pub const PEER_INBOX_MESSAGES_MAX: usize = 4096;
/// Bytes of them.
pub const PEER_INBOX_BYTES_MAX: usize = 128 << 20;
/// Snapshots that are on their way to other members at once (etcd's number).
pub const PEER_SNAPSHOTS_MAX: usize = 16;
/// Questions about leases that wait for the leader, or for this member as the leader, before further ones are refused.
pub const QUESTIONS_PENDING_MAX: usize = 10_000;
/// Bytes of proposals that one message takes to the leader.
pub const FORWARD_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(WAL_SEGMENT_BYTES.is_multiple_of(4096));
const _: () = assert!(WAL_CUT_MARGIN_BYTES < WAL_SEGMENT_BYTES);
const _: () = assert!(WAL_ZERO_STEP_BYTES.is_multiple_of(4096) && WAL_READ_BYTES.is_multiple_of(4096));
const _: () = assert!(BACKEND_BATCH_BYTES_MAX <= BACKEND_OPEN_BYTES_MAX);
const _: () = assert!(PROPOSALS_UNDER_WAY_BYTES_MAX <= PROPOSALS_PENDING_BYTES_MAX);
const _: () = assert!(LIST_UNSENT_BYTES_MAX < SCAN_UNSENT_BYTES);
const _: () = assert!(SCAN_UNSENT_BYTES < CONNECTION_UNSENT_BYTES_MAX);
const _: () = assert!(BACKEND_WRITE_BYTES_MAX.is_multiple_of(4096));
const _: () = assert!(FORWARD_BYTES_MAX < PEER_QUEUE_BYTES_MAX && PEER_QUEUE_BYTES_MAX <= PEER_INBOX_BYTES_MAX);
