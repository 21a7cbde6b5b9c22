//! A flag that glommio does not ask for. `build.rs` has the linker send every call of liburing's
//! `__sys_io_uring_setup` here (`--wrap`); for the ring that an executor is about to make as its main one
//! IORING_SETUP_COOP_TASKRUN is added, and the real function is called.
//!
//! Without the flag each completion raised from another core interrupts the running executor; with it completions wait
//! for the executor's next system call. It doubles the rate of a small-message server. Only the main ring has it: the
//! latency ring's completions are what tells a long-running task to yield.
//!
//! glommio makes its rings in this order: a probe of 2 entries once per process, then per executor the main ring, the
//! polled one, the latency one. An executor's thread says `expect_main_ring` before, and the first call on the thread
//! with that many entries and no flags is the main ring's.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    ffi::{c_int, c_uint},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Completion work waits for the task's next entry into the kernel (Linux 5.19).
const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
/// Place of `flags` among the 32-bit words of `struct io_uring_params`.
const FLAGS_WORD: usize = 2;

thread_local! {
    /// Entries of the main ring that this thread will make next; 0 when none is expected.
    static EXPECTED_ENTRIES: Cell<u32> = const { Cell::new(0) };
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

/// Announces that this thread makes an executor's main ring next, with `entries` entries.
pub(super) fn expect_main_ring(entries: u32) {
    EXPECTED_ENTRIES.set(entries);
}

/// Ends the announcement, whether the ring was made or not.
pub(super) fn expect_no_ring() {
    EXPECTED_ENTRIES.set(0);
}

unsafe extern "C" {
    fn __real___sys_io_uring_setup(entries: c_uint, parameters: *mut u32) -> c_int;
}

/// Stands in for liburing's function of the same name without `__wrap_`.
///
/// # Safety
/// As for the system call: `parameters` points to a `struct io_uring_params` that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: c_uint, parameters: *mut u32) -> c_int {
    // SAFETY: the caller's struct, of which the flags are the third word, is ours until we return.
    let flags = unsafe { &mut *parameters.add(FLAGS_WORD) };
    let is_main = *flags == 0 && EXPECTED_ENTRIES.get() == entries && !IS_DISABLED.load(Ordering::Relaxed);
    if is_main {
        EXPECTED_ENTRIES.set(0);
        *flags = IORING_SETUP_COOP_TASKRUN;
        // SAFETY: passes on the caller's own arguments.
        let fd = unsafe { __real___sys_io_uring_setup(entries, parameters) };
        if fd >= 0 {
            COOPERATIVE_RINGS.fetch_add(1, Ordering::Relaxed);
            return fd;
        }
        // An older kernel refuses flags that it does not know and leaves the struct alone. Any other error comes
        // again without the flag, and is then reported as glommio would have.
        REFUSED_RINGS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; the reference from before was not used across the call.
        unsafe { *parameters.add(FLAGS_WORD) = 0 };
    }
    // SAFETY: passes on the caller's own arguments.
    unsafe { __real___sys_io_uring_setup(entries, parameters) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_ring_is_asked_for_again_without_the_flag() {
        const TOO_MANY: u32 = 1 << 20;
        let mut parameters = [0u32; 30];
        let before = rings();
        expect_main_ring(TOO_MANY);
        // SAFETY: `struct io_uring_params` has 30 words.
        let result = unsafe { __wrap___sys_io_uring_setup(TOO_MANY, parameters.as_mut_ptr()) };
        // liburing's function gives -1 with errno, or the negative code.
        assert!(result < 0);
        assert_eq!(parameters[FLAGS_WORD], 0);
        assert!(rings().1 > before.1);
        assert_eq!(EXPECTED_ENTRIES.get(), 0);
    }
}
