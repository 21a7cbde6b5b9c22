//! Every bound of the server in one place, and how the bounds relate.

/// Bytes that a request may have over `--max-request-bytes` for the gRPC layer to still take it in (etcd's overhead).
pub const GRPC_OVERHEAD_BYTES: u32 = 512 * 1024;
/// Committed entries that may wait to be applied before proposals are refused (etcd: "too many requests").
pub const COMMITTED_AHEAD_OF_APPLIED_MAX: u64 = 5_000;
/// Bytes of a log segment before the next one is begun (etcd's size).
pub const WAL_SEGMENT_BYTES: u64 = 64_000_000;
/// Changes that a tree commit may cover before one is begun out of turn (etcd's batch limit).
pub const BACKEND_BATCH_OPERATIONS_MAX: usize = 10_000;
/// Bytes of one tree write; larger ones disturb the log's tail latency.
pub const BACKEND_WRITE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of answers that may wait for one client before its next large request waits, too.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 4 << 20;
/// Writes on their way through the log before further ones are refused (etcd: "too many requests").
pub const PROPOSALS_PENDING_MAX: usize = 100_000;
/// Bytes of writes on their way through the log before further ones are refused.
pub const PROPOSALS_PENDING_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(WAL_SEGMENT_BYTES.is_multiple_of(4096));
const _: () = assert!(BACKEND_WRITE_BYTES_MAX.is_multiple_of(4096));
