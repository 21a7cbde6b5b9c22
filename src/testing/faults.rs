//! What goes wrong, and how long things take: plain data, which a test sets for each machine and may change at any time.
//! By default nothing goes wrong.

use std::{ops::RangeInclusive, time::Duration};

/// What goes wrong on one machine. Shares are of operations, from 0 (never) to 1 (always).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Of its disk.
    pub disk: DiskFaults,
    /// Of what it sends.
    pub net: NetFaults,
}

/// What goes wrong on a disk. Short reads are no fault of [`crate::host::File`], which gives fewer bytes than asked for only
/// at the end: `ring/` asks again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskFaults {
    /// Reads that fail (EIO).
    pub read_error: f64,
    /// Reads that come back with one bit flipped, this time only.
    pub read_flip: f64,
    /// Writes that fail (EIO); part of the sectors may have been written.
    pub write_error: f64,
    /// Writes that are reported as done and change nothing.
    pub write_lost: f64,
    /// Writes that land in the same file, some blocks away from where they should.
    pub write_misdirected: f64,
    /// Syncs that fail (EIO). As on Linux what was to be made durable counts as clean afterwards, and is lost by a crash
    /// even if a later sync succeeds.
    pub sync_error: f64,
    /// Operations that take `stall_for` longer.
    pub stall: f64,
    /// Syncs and durable writes that do so besides.
    pub sync_stall: f64,
    /// How long a stall is.
    pub stall_for: Duration,
    /// Bytes that all files together may have; more is ENOSPC. `None`: no bound.
    pub capacity_bytes: Option<u64>,
}

/// What goes wrong on connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetFaults {
    /// Attempts to accept that fail for want of descriptors (EMFILE).
    pub accept_error: f64,
    /// Writes after which the connection is reset.
    pub reset: f64,
    /// Writes whose bytes, and what follows them, arrive `delay_for` later: a lost segment, in TCP's terms.
    pub delay: f64,
    /// How much later.
    pub delay_for: Duration,
    /// Reads that return fewer bytes than there are.
    pub short_read: f64,
    /// Writes that take fewer bytes than there is room for.
    pub short_write: f64,
    /// Writes after which neither end hears of the other any more: each has a connection that is half open.
    pub half_open: f64,
}

/// How long things take, in nanoseconds; each operation draws from its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One turn of a task.
    pub turn_nanos: u64,
    /// Reads and directory operations.
    pub read_nanos: RangeInclusive<u64>,
    /// Writes to the page cache, and direct writes that are not durable.
    pub write_nanos: RangeInclusive<u64>,
    /// Syncs, and durable writes.
    pub sync_nanos: RangeInclusive<u64>,
    /// One way between two machines.
    pub wire_nanos: RangeInclusive<u64>,
    /// One way within a machine.
    pub local_nanos: RangeInclusive<u64>,
    /// How long a connection attempt goes on without an answer.
    pub connect_timeout: Duration,
    /// Bytes under way or unread on one direction of a connection before its writer waits.
    pub pipe_bytes: usize,
}

impl Default for Timing {
    /// A quick NVMe device and a local network.
    fn default() -> Timing {
        Timing {
            turn_nanos: 1_000,
            read_nanos: 10_000..=40_000,
            write_nanos: 5_000..=20_000,
            sync_nanos: 70_000..=150_000,
            wire_nanos: 50_000..=300_000,
            local_nanos: 10_000..=30_000,
            connect_timeout: Duration::from_secs(5),
            pipe_bytes: 256 * 1024,
        }
    }
}

/// A machine's clocks against the simulation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Parts per million by which its monotonic clock runs fast (or slow, if negative).
    pub drift_ppm: i32,
    /// Nanoseconds by which its time of day is ahead (or behind). Changing it makes the clock jump.
    pub wall_offset_nanos: i64,
}

/// What a power failure leaves of what was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// By the seed: each sector of 512 bytes as of any of the writes to it, any of the lengths that a file had, and the
    /// directory operations up to some point.
    Torn,
}
