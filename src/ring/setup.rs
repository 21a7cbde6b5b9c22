//! How an executor's rings are made, where glommio does not ask for what we want. `build.rs` has the linker send every
//! call of liburing's `__sys_io_uring_setup` here (`--wrap`).
//!
//! The main ring gets IORING_SETUP_COOP_TASKRUN. Without the flag each completion raised from another core interrupts the
//! running executor; with it completions wait for the executor's next system call. It doubles the rate of a
//! small-message server. Only the main ring has it: the latency ring's completions are what tells a long-running task
//! to yield. Both rings get more places than glommio knows of, and their queues are [`enter`]'s from then on.
//!
//! glommio makes its rings in this order: a probe of 2 entries once per process, then per executor the main ring, the
//! polled one, the latency one. An executor's thread says `expect_rings` before, and the first and the second call on
//! the thread with that many entries and no flags are the main ring's and the latency ring's.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    ffi::{c_int, c_uint},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    enter::{self, Role},
    queue::ROOM,
};

/// Completion work waits for the task's next entry into the kernel (Linux 5.19).
const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
const IORING_FEAT_EXT_ARG: u32 = 1 << 8;
/// `struct io_uring_params`, in 32-bit words; the kernel fills in what the caller left zero.
#[repr(transparent)]
pub(super) struct Parameters([u32; 30]);

impl Parameters {
    /// Entries of the submission queue, and of the completion queue.
    pub(super) fn entries(&self) -> u32 {
        self.0[0]
    }

    pub(super) fn completions(&self) -> u32 {
        self.0[1]
    }

    /// Where in the queues' mapping the submission queue's head, its tail, the mask of its places, their number and the
    /// order of entries are.
    pub(super) fn head_offset(&self) -> u32 {
        self.0[10]
    }

    pub(super) fn tail_offset(&self) -> u32 {
        self.0[11]
    }

    pub(super) fn mask_offset(&self) -> u32 {
        self.0[12]
    }

    pub(super) fn count_offset(&self) -> u32 {
        self.0[13]
    }

    pub(super) fn order_offset(&self) -> u32 {
        self.0[16]
    }

    /// The same of the completion queue.
    pub(super) fn completions_head_offset(&self) -> u32 {
        self.0[20]
    }

    pub(super) fn completions_tail_offset(&self) -> u32 {
        self.0[21]
    }

    pub(super) fn completions_mask_offset(&self) -> u32 {
        self.0[22]
    }

    pub(super) fn completions_offset(&self) -> u32 {
        self.0[25]
    }

    /// Whether a wait can be given a time (Linux 5.11).
    pub(super) fn can_limit_waits(&self) -> bool {
        self.0[5] & IORING_FEAT_EXT_ARG != 0
    }

    fn flags_mut(&mut self) -> &mut u32 {
        &mut self.0[2]
    }
}

thread_local! {
    /// Entries of the rings that this thread will make next, and which comes first.
    static EXPECTED: Cell<Option<(u32, Role)>> = const { Cell::new(None) };
}

static COOPERATIVE_RINGS: AtomicU64 = AtomicU64::new(0);
static REFUSED_RINGS: AtomicU64 = AtomicU64::new(0);
static IS_DISABLED: AtomicBool = AtomicBool::new(false);

/// Main rings that have the flag, and those whose kernel refused it, since the process started.
pub fn rings() -> (u64, u64) {
    (
        COOPERATIVE_RINGS.load(Ordering::Relaxed),
        REFUSED_RINGS.load(Ordering::Relaxed),
    )
}

/// Leaves the flag away from now on, to measure what it does.
pub fn disable() {
    IS_DISABLED.store(true, Ordering::Relaxed);
}

/// Announces that this thread makes an executor's rings next, with `entries` entries.
pub(super) fn expect_rings(entries: u32) {
    EXPECTED.set(Some((entries, Role::Main)));
}

/// Ends the announcement, whether the rings were made or not.
pub(super) fn expect_no_ring() {
    EXPECTED.set(None);
}

unsafe extern "C" {
    fn __real___sys_io_uring_setup(entries: c_uint, parameters: *mut Parameters) -> c_int;
}

/// Stands in for liburing's function of the same name without `__wrap_`.
///
/// # Safety
/// As for the system call: `parameters` points to a `struct io_uring_params` that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: c_uint, parameters: *mut Parameters) -> c_int {
    // SAFETY: the caller's struct is ours until we return.
    let has_flags = unsafe { *(*parameters).flags_mut() != 0 };
    let role = match EXPECTED.get() {
        Some((expected, role)) if expected == entries && !has_flags => role,
        // SAFETY: passes on the caller's own arguments.
        _ => return unsafe { __real___sys_io_uring_setup(entries, parameters) },
    };
    EXPECTED.set(match role {
        Role::Main => Some((entries, Role::Latency)),
        Role::Latency => None,
    });
    let is_cooperative = role == Role::Main && !IS_DISABLED.load(Ordering::Relaxed);
    if is_cooperative {
        // SAFETY: as above.
        unsafe { *(*parameters).flags_mut() = IORING_SETUP_COOP_TASKRUN };
    }
    // SAFETY: as above.
    let fd = unsafe { __real___sys_io_uring_setup(entries.saturating_mul(ROOM), parameters) };
    if fd >= 0 {
        COOPERATIVE_RINGS.fetch_add(u64::from(is_cooperative), Ordering::Relaxed);
        // SAFETY: as above; the kernel has filled in the struct.
        enter::adopt(role, fd, unsafe { &*parameters }, entries);
        return fd;
    }
    // An older kernel refuses flags that it does not know and leaves the struct alone. Any other error comes again, and
    // is then reported as glommio would have.
    REFUSED_RINGS.fetch_add(u64::from(is_cooperative), Ordering::Relaxed);
    // SAFETY: as above.
    unsafe {
        *(*parameters).flags_mut() = 0;
        __real___sys_io_uring_setup(entries, parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_ring_is_asked_for_again_without_the_flag() {
        const TOO_MANY: u32 = 1 << 20;
        let mut parameters = Parameters([0; 30]);
        let before = rings();
        expect_rings(TOO_MANY);
        // SAFETY: the struct is ours.
        let result = unsafe { __wrap___sys_io_uring_setup(TOO_MANY, &raw mut parameters) };
        // liburing's function gives -1 with errno, or the negative code.
        assert!(result < 0);
        assert_eq!(*parameters.flags_mut(), 0);
        assert!(rings().1 > before.1);
        expect_no_ring();
    }
}
