//! What may go wrong in a seed. Each kind is switched off in some seeds altogether, and in one of twelve everything is: what
//! one fault always hides another never gets to show.
//!
//! What is promised under each, and the limit beyond which nothing is:
//!
//! | kind | drawn as | promised |
//! |---|---|---|
//! | stalls | reads, writes, syncs that take up to 4 s longer; syncs alone, often | everything; the server waits |
//! | connections | resets, late bytes, short reads and writes, no descriptors | everything; whose answer was lost knows nothing |
//! | half open | neither end hears of the other, nobody is told | everything; whoever asks gives up by itself, and the server stops all the same |
//! | cuts | one way or both, mended before the end of a spell | as above |
//! | slow readers | a client that takes nothing for up to 2 s (`Channel::stop_reading`) | everything; nobody else waits |
//! | clocks | drift up to `DRIFT_PPM_MAX`, changed while leases run; a time of day that jumps by 10 s | leases end in their time by the server's own clock; the time of day decides nothing |
//! | pauses | the whole process, up to 3 s | leases that were renewed before the pause ended do not end |
//! | failing disk | writes or syncs that fail (EIO), while it runs or while it starts | it ends and names the file; what was acknowledged is there on a sound disk after the machine was started again |
//! | full disk | no room to grow (ENOSPC), as above | as above |
//! | unreadable disk | reads that fail (EIO) while it starts | it starts or ends with the file's name. Reads through the map are the kernel's to fail: SIGBUS, not drawn |
//! | damage | bits that rot at rest; a block that a misdirected write put over another | it stops and says where, or what was damaged was not in use. Limits: see `rot` |
//!
//! Beside these a seed draws bounds (`limits.rs`): in half of them each is as a server has it or a small one, so that what
//! waits is held back or refused, what goes in slices has many, and what does not keep up is told from history. That is no
//! fault: everything is promised, but that a request may be refused with `too many requests`, and then has not happened.
//!
//! Not drawn: reads of files that come back with a flipped bit (`DiskFaults::read_flip`). The database is read through a map,
//! every other read is of something with a checksum but for the log's last segment, where a flip in a record's length looks
//! like a torn write, and is cut off as one (as etcd does): see `rot`.
//!
//! Short reads of files are below what runs here (see `DiskFaults`), and so is what memory the kernel gives: buffers are
//! bounded by `limits.rs`, and `tests/hostile` watches a real process.

use std::time::Duration;

use ringd::{
    limits::Limits,
    testing::{DiskFaults, Faults, NetFaults, Random},
};

/// Longest stall of a disk, in milliseconds.
pub const STALL_MS_MAX: u64 = 4_000;

/// What may go wrong.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // See the table above.
pub struct Menu {
    pub stalls: bool,
    pub connections: bool,
    pub half_open: bool,
    pub cuts: bool,
    pub clocks: bool,
    pub pauses: bool,
    pub failing_disk: bool,
    pub full_disk: bool,
    pub unreadable_disk: bool,
    pub damage: bool,
}

impl Menu {
    /// Draws.
    pub fn draw(random: &mut Random) -> Menu {
        if random.chance(1.0 / 12.0) {
            return Menu::default();
        }
        let mut is_on = || random.chance(0.75);
        Menu {
            stalls: is_on(),
            connections: is_on(),
            half_open: is_on(),
            cuts: is_on(),
            clocks: is_on(),
            pauses: is_on(),
            failing_disk: is_on(),
            full_disk: is_on(),
            unreadable_disk: is_on(),
            damage: is_on(),
        }
    }

    /// Faults of a spell that a server must live through.
    pub fn spell(&self, random: &mut Random) -> Faults {
        let mut faults = Faults::default();
        if self.stalls && random.chance(0.4) {
            let longest = [50, 300, STALL_MS_MAX][random.index(3)];
            faults.disk.stall_for = Duration::from_millis(1 + random.below(longest));
            match random.chance(0.6) {
                true => faults.disk.stall = 0.02,
                false => faults.disk.sync_stall = [0.1, 0.5][random.index(2)],
            }
        }
        if self.connections && random.chance(0.4) {
            faults.net = NetFaults {
                accept_error: if random.chance(0.2) { 0.3 } else { 0.0 },
                reset: if random.chance(0.3) { 0.005 } else { 0.0 },
                delay: 0.02,
                delay_for: Duration::from_millis(1 + random.below(200)),
                short_read: 0.2,
                short_write: 0.2,
                half_open: 0.0,
            };
        }
        if self.half_open && random.chance(0.2) {
            faults.net.half_open = [0.001, 0.02][random.index(2)];
        }
        faults
    }

    /// A disk with which a server cannot go on for long, if there is one on the menu. `used_bytes` are those that its files
    /// have.
    pub fn bad_disk(&self, random: &mut Random, used_bytes: u64) -> Option<DiskFaults> {
        let sound = DiskFaults::default();
        let mut kinds = Vec::new();
        if self.full_disk {
            let capacity = [used_bytes, used_bytes + random.below(1 << 20), random.below(3 << 20)];
            kinds.push(DiskFaults {
                capacity_bytes: Some(capacity[random.index(3)]),
                ..sound.clone()
            });
        }
        if self.failing_disk {
            // Where few syncs fail, a sync that is done again passes, and the server goes on to where that shows.
            let (write_error, sync_error) = [(0.3, 0.0), (0.0, 0.1), (0.0, 0.3), (0.1, 1.0)][random.index(4)];
            kinds.push(DiskFaults {
                write_error,
                sync_error,
                ..sound.clone()
            });
        }
        if kinds.is_empty() {
            return None;
        }
        let kind = random.index(kinds.len());
        Some(kinds.swap_remove(kind))
    }

    /// As [`Menu::bad_disk`], for a server that is started on it.
    pub fn bad_disk_at_start(&self, random: &mut Random, used_bytes: u64) -> Option<DiskFaults> {
        if self.unreadable_disk && random.chance(0.5) {
            return Some(DiskFaults {
                read_error: [0.01, 0.1, 0.5][random.index(3)],
                ..DiskFaults::default()
            });
        }
        self.bad_disk(random, used_bytes)
    }
}

/// Bounds: those of a server, or in half of all seeds some that its short life comes to. How many there are changes nothing else.
pub fn limits(random: &mut Random) -> Limits {
    let random = &mut random.fork(0);
    if random.chance(0.5) {
        return Limits::DEFAULT;
    }
    macro_rules! draw {
        ($($field:ident: $small:expr,)*) => {
            Limits { $($field: if random.chance(0.5) {
                let small = $small;
                small[random.index(small.len())]
            } else {
                Limits::DEFAULT.$field
            },)* }
        };
    }
    let mut limits = draw! {
        committed_ahead_of_applied_max: [1, 10, 100],
        backend_batch_bytes_max: [1, 2_000, 50_000],
        backend_open_bytes_max: [4_000, 50_000],
        watch_queue_bytes_max: [1, 500, 20_000],
        watch_queue_responses_max: [1, 2, 10],
        watch_credit_bytes: [1, 500, 20_000],
        watch_catch_up_watchers_max: [1, 2],
        watch_history_records_max: [1, 3, 20],
        watch_history_bytes_max: [1, 1_000, 20_000],
        list_at_once_keys_max: [0, 1, 5],
        scan_slice_keys_max: [1, 3],
        scan_slice_records_max: [1, 3],
        scan_slice_bytes_max: [1, 300, 5_000],
        connection_unsent_bytes_max: [4_000, 60_000],
        list_unsent_bytes_max: [1, 1_000, 10_000],
        scan_unsent_bytes: [2_000, 20_000],
        proposals_pending_max: [1, 2, 5],
        proposals_under_way_bytes_max: [1, 1_000, 20_000],
        small_write_bytes_max: [0, 100, 1_000],
        small_writes_reserve_bytes: [0, 500, 5_000],
        proposals_pending_bytes_max: [2_000, 40_000],
        peer_queue_messages_max: [1, 2, 8],
        peer_queue_bytes_max: [1_000, 20_000],
        peer_inbox_messages_max: [2, 4, 16],
        peer_inbox_bytes_max: [1_000, 40_000],
        peer_snapshots_max: [1],
        questions_pending_max: [1, 2],
        forward_bytes_max: [1, 500, 5_000],
        log_bytes_between_snapshots: [3_000, 50_000],
        log_catch_up_bytes_max: [0, 1_000, 20_000],
        log_wanted_bytes_max: [0, 1_000, 50_000],
        all_unsent_bytes_max: [4_000, 100_000],
        unsent_bytes_free: [0, 1_000],
        scan_keys_held_max: [0, 3],
        connection_answers_bytes_max: [4_000, 60_000],
        turn_answers_bytes_max: [1_000, 40_000],
        turn_reads_bytes_max: [1, 2_000],
        answer_bytes_max: [500, 5_000],
        list_at_once_bytes_max: [0, 300],
        reads_pending_bytes_max: [2_000, 20_000],
    };
    // What must have room in another has it.
    limits.backend_batch_bytes_max = limits.backend_batch_bytes_max.min(limits.backend_open_bytes_max);
    limits.proposals_under_way_bytes_max = limits
        .proposals_under_way_bytes_max
        .min(limits.proposals_pending_bytes_max);
    limits.scan_unsent_bytes = limits.scan_unsent_bytes.min(limits.connection_unsent_bytes_max - 1);
    limits.list_unsent_bytes_max = limits.list_unsent_bytes_max.min(limits.scan_unsent_bytes - 1);
    limits.unsent_bytes_free = limits.unsent_bytes_free.min(limits.connection_unsent_bytes_max);
    limits.connection_answers_bytes_max = limits
        .connection_answers_bytes_max
        .max(limits.connection_unsent_bytes_max);
    limits.all_unsent_bytes_max = limits.all_unsent_bytes_max.max(limits.connection_answers_bytes_max);
    limits.log_wanted_bytes_max = limits.log_wanted_bytes_max.max(limits.log_catch_up_bytes_max);
    limits.peer_queue_bytes_max = limits.peer_queue_bytes_max.min(limits.peer_inbox_bytes_max);
    limits.forward_bytes_max = limits.forward_bytes_max.min(limits.peer_queue_bytes_max - 1);
    assert!(limits.are_related());
    limits
}

/// Whether the words with which a server ends say what the disk refused, and where.
pub fn is_clear(why: &str) -> bool {
    let has_place = why.contains("/data/member");
    let has_reason = ["(os error 5)", "(os error 28)"]
        .iter()
        .any(|reason| why.contains(reason));
    has_place && has_reason
}
