//! The queues of a ring that glommio made, seen from beside it: the same shared memory, mapped a second time.
//!
//! Which of the queued entries the kernel takes, and when, is decided here rather than by liburing. The kernel takes
//! entries in the order of an array of places, as many as it is told, from where it stopped; it never reads the head
//! that it shows to the program. So entries may be put into another order, some may be left for later, and liburing
//! can be shown a head behind which nothing waits.
//!
//! What is left must not be written over by what glommio queues meanwhile. The ring therefore has [`ROOM`] times the
//! places that liburing is told of, and what is left moves on with the tail.
#![allow(unsafe_code)]

use std::{
    os::fd::RawFd,
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use super::setup::Parameters;

/// How many times the entries that glommio asks for the ring has.
pub(super) const ROOM: u32 = 4;

/// Entries that may wait: what glommio's rings have.
pub(super) const WAITING_MAX: usize = 512;

/// Where the kernel offers a ring's queues for mapping (IORING_OFF_SQ_RING, which has both, and IORING_OFF_SQES).
const QUEUES_OFFSET: i64 = 0;
const ENTRIES_OFFSET: i64 = 0x1000_0000;

/// Numbers of the operations (enum io_uring_op).
pub(super) const NOTHING: u8 = 0;
pub(super) const WRITE_FIXED: u8 = 5;
pub(super) const FSYNC: u8 = 3;
pub(super) const POLL_ADD: u8 = 6;
pub(super) const TIMEOUT: u8 = 11;
pub(super) const ASYNC_CANCEL: u8 = 14;
pub(super) const WRITE: u8 = 23;
/// The flag of an entry that the next one waits for (IOSQE_IO_LINK).
pub(super) const IO_LINK: u8 = 1 << 2;

/// `struct io_uring_sqe`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    priority: u16,
    pub(super) fd: i32,
    offset: u64,
    pub(super) address: u64,
    pub(super) len: u32,
    operation_flags: u32,
    pub(super) user_data: u64,
    rest: [u64; 3],
}

impl Entry {
    /// Has it do nothing; it completes under its name all the same.
    pub(super) fn neutralise(&mut self) {
        *self = Entry {
            opcode: NOTHING,
            flags: 0,
            priority: 0,
            fd: -1,
            offset: 0,
            address: 0,
            len: 0,
            operation_flags: 0,
            user_data: self.user_data,
            rest: [0; 3],
        };
    }
}

/// `struct io_uring_cqe`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    flags: u32,
}

/// `struct __kernel_timespec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timespec {
    pub(super) seconds: i64,
    pub(super) nanos: i64,
}

/// One ring of this thread. Its mappings stay for as long as the process runs; executors are made once.
pub(super) struct Queue {
    pub(super) fd: RawFd,
    head: *const AtomicU32,
    tail: *const AtomicU32,
    mask: u32,
    order: *mut u32,
    entries: *mut Entry,
    completions_head: *const AtomicU32,
    completions_tail: *const AtomicU32,
    completions_mask: u32,
    completions: *const Completion,
    /// How many entries the kernel has taken in all.
    taken: u32,
    /// Room for what is moved.
    moved: Vec<Entry>,
}

impl Queue {
    /// Maps the queues of a ring that has just been made with [`ROOM`] times `shown` entries, and shows liburing that
    /// many. `None` where the kernel is too old or refuses: then the ring is liburing's alone.
    pub(super) fn adopt(fd: RawFd, parameters: &Parameters, shown: u32) -> Option<Queue> {
        if !parameters.can_limit_waits() {
            return None;
        }
        let order_end = parameters.order_offset() as usize + parameters.entries() as usize * size_of::<u32>();
        let completions_end =
            parameters.completions_offset() as usize + parameters.completions() as usize * size_of::<Completion>();
        let queues = map(fd, QUEUES_OFFSET, order_end.max(completions_end))?;
        let entries = map(fd, ENTRIES_OFFSET, parameters.entries() as usize * size_of::<Entry>())?;
        // SAFETY: the kernel's offsets lie inside the mapping, whose length is by them. The masks never change, and the
        // number of entries is for the program to read: the kernel keeps its own.
        unsafe {
            let at = |offset: u32| queues.add(offset as usize);
            at(parameters.count_offset()).cast::<u32>().write(shown);
            Some(Queue {
                fd,
                head: at(parameters.head_offset()).cast(),
                tail: at(parameters.tail_offset()).cast(),
                mask: at(parameters.mask_offset()).cast::<u32>().read(),
                order: at(parameters.order_offset()).cast(),
                entries: entries.cast(),
                completions_head: at(parameters.completions_head_offset()).cast(),
                completions_tail: at(parameters.completions_tail_offset()).cast(),
                completions_mask: at(parameters.completions_mask_offset()).cast::<u32>().read(),
                completions: at(parameters.completions_offset()).cast(),
                taken: 0,
                moved: Vec::new(),
            })
        }
    }

    fn tail(&self) -> u32 {
        // SAFETY: the word lives in the mapping; this thread alone writes it.
        unsafe { (*self.tail).load(Ordering::Relaxed) }
    }

    /// Entries that are queued and not taken.
    pub(super) fn waiting(&self) -> u32 {
        self.tail().wrapping_sub(self.taken)
    }

    /// The waiting entry at a place in the order, 0 being the next that the kernel takes.
    pub(super) fn entry(&mut self, place: u32) -> &mut Entry {
        assert!(place < self.waiting());
        // SAFETY: the entry lies between the kernel's head and our tail, so that it is filled in and this thread's alone;
        // the order holds places of the ring, and the mask keeps the index inside it.
        unsafe {
            let place = *self.order.add((self.taken.wrapping_add(place) & self.mask) as usize);
            &mut *self.entries.add((place & self.mask) as usize)
        }
    }

    /// Puts the waiting entries for which `is_first` holds, told of place and entry, before the others, each kind in its own
    /// order. Says how many.
    pub(super) fn partition(&mut self, is_first: impl Fn(u32, &Entry) -> bool) -> u32 {
        let waiting = self.waiting();
        let mut later = [0; WAITING_MAX];
        let (mut first, mut left) = (0, 0);
        for place in 0..waiting {
            let is_first = is_first(place, self.entry(place));
            let at = |place: u32| (self.taken.wrapping_add(place) & self.mask) as usize;
            // SAFETY: as in `entry`; places are moved among the waiting ones.
            unsafe {
                let moved = *self.order.add(at(place));
                if is_first {
                    *self.order.add(at(first)) = moved;
                    first += 1;
                } else {
                    later[left] = moved;
                    left += 1;
                }
            }
        }
        for (at, moved) in (first..).zip(&later[..left]) {
            // SAFETY: as above.
            unsafe { *self.order.add((self.taken.wrapping_add(at) & self.mask) as usize) = *moved };
        }
        first
    }

    /// Takes note that the kernel has taken entries. Those that are left move to the places of the newest, where glommio
    /// will write last.
    pub(super) fn took(&mut self, count: u32) {
        self.taken = self.taken.wrapping_add(count);
        let mut moved = std::mem::take(&mut self.moved);
        moved.clear();
        moved.extend((0..self.waiting()).map(|place| *self.entry(place)));
        for (number, entry) in (self.taken..).zip(&moved) {
            let place = number & self.mask;
            // SAFETY: an entry is queued at the place of its number, so that these were filled in, and have been taken or
            // were just copied; nobody else uses them before the tail has gone once around.
            unsafe {
                *self.order.add(place as usize) = place;
                *self.entries.add(place as usize) = *entry;
            }
        }
        self.moved = moved;
    }

    /// Shows liburing that nothing waits, or all that does.
    pub(super) fn show(&self, is_empty: bool) {
        let shown = if is_empty { self.tail() } else { self.taken };
        // SAFETY: the word lives in the mapping; the kernel writes it when it takes entries and never reads it.
        unsafe { (*self.head).store(shown, Ordering::Release) };
    }

    /// Completions that are there.
    pub(super) fn completions(&self) -> u32 {
        // SAFETY: the words live in the mapping; this thread moves the head.
        unsafe {
            let tail = (*self.completions_tail).load(Ordering::Acquire);
            tail.wrapping_sub((*self.completions_head).load(Ordering::Relaxed))
        }
    }

    /// Completions that there ever were.
    pub(super) fn completions_seen(&self) -> u32 {
        // SAFETY: the word lives in the mapping; the kernel alone writes it.
        unsafe { (*self.completions_tail).load(Ordering::Acquire) }
    }

    /// The only completion that is there, if it is just one.
    pub(super) fn only_completion(&self) -> Option<Completion> {
        if self.completions() != 1 {
            return None;
        }
        // SAFETY: what lies between head and tail was written by the kernel, which does not touch it before the head moves;
        // the mask keeps the place inside the queue.
        unsafe {
            let head = (*self.completions_head).load(Ordering::Relaxed);
            Some(*self.completions.add((head & self.completions_mask) as usize))
        }
    }
}

/// The time that a waiting timer was given.
pub(super) fn time_of(timer: &Entry) -> Timespec {
    assert_eq!(timer.opcode, TIMEOUT);
    // SAFETY: a timer's entry holds the address of its time, which glommio keeps until the timer has completed.
    unsafe { (timer.address as *const Timespec).read() }
}

/// Gives a waiting timer another time.
pub(super) fn set_time(timer: &Entry, time: Timespec) {
    assert_eq!(timer.opcode, TIMEOUT);
    // SAFETY: as above, and nobody reads it before the kernel takes the entry.
    unsafe { (timer.address as *mut Timespec).write(time) };
}

fn map(fd: RawFd, offset: i64, len: usize) -> Option<*mut u8> {
    // SAFETY: a new mapping, of memory that the ring shares with its owner; nothing else is touched.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd,
            offset,
        )
    };
    (mapped != libc::MAP_FAILED).then_some(mapped.cast())
}
