//! Entries into the kernel, as few as the work needs. `build.rs` has the linker send liburing's calls of
//! `__sys_io_uring_enter` and `__sys_io_uring_enter2` here (`--wrap`).
//!
//! glommio enters the kernel a dozen times for each wake-up of an executor: each pass of its loop arms and cancels a timer
//! that preempts, one that wakes, and one that counts completions; the two rings it sleeps on are linked anew for each
//! sleep, by a call of its own. On the kernels measured that was two thirds of the cost of a lone put. Here
//!
//! - timers and their cancellations are left in the queue until [`LEFT_MAX`] entries have gathered; then they go together,
//!   those that were cancelled meanwhile as entries that do nothing, since glommio waits for their completion;
//! - the time of the last timer that was not cancelled becomes the limit of the wait itself, which is one for sockets and
//!   completions alike ([`readiness`]), after a moment without sleep ([`vigil`](super::vigil));
//! - the poll that links the rings goes before the wait, and stays for the next one until it has fired;
//! - a write and the fsync behind it, announced by [`expect`], go as one chain (IOSQE_IO_LINK): the kernel begins the
//!   fsync when the write has ended in full, and cancels it otherwise. The write's own completion wakes nobody.
//!
//! Everything else goes at once, as glommio asks. Since the timer that preempts is not in the kernel, what runs long asks
//! by [`relax`] whether the rings have waited long enough. Where a ring's queues cannot be mapped all is as without this.
#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    ffi::{c_int, c_uint, c_void},
    os::fd::RawFd,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    queue::{
        ASYNC_CANCEL, Entry, FSYNC, IO_LINK, NOTHING, POLL_ADD, Queue, TIMEOUT, Timespec, WAITING_MAX, WRITE,
        WRITE_FIXED, set_time, time_of,
    },
    readiness::{self, Slept},
    setup::Parameters,
    system,
    vigil::{End, Vigil},
};

/// Entries that may wait in a ring's queue before those that were left go.
const LEFT_MAX: u32 = 64;
/// The same where the moment is not good. glommio may queue as many entries as it knows places before it submits, and
/// all of them together stay below what the ring has.
const LEFT_AT_ALL_MAX: u32 = 3 * LEFT_MAX;
/// Completions of a cooperative ring are noticed when this thread enters the kernel: it does so this often.
const ENTRY_PERIOD: Duration = Duration::from_micros(100);
/// How long tasks may run before the rings are looked at, if they ask.
const RUN_MAX: Duration = Duration::from_millis(1);

/// IORING_ENTER_GETEVENTS.
const GET_EVENTS: c_uint = 1 << 0;
/// Bytes of the kernel's set of signals.
const SIGNALS_BYTES: c_int = 8;

/// A write and an fsync of one file, announced.
struct Pair {
    fd: RawFd,
    /// When it was found and linked, the write's name and length.
    write: Option<(u64, u32)>,
}

/// The rings of this thread's executor.
#[derive(Default)]
struct Rings {
    main: Option<Queue>,
    /// The one with glommio's timers and its wake-ups by others.
    latency: Option<Queue>,
    /// What the wait is limited to: the last timer that was not cancelled, by name and time.
    limit: Option<(u64, Timespec)>,
    /// The poll that links the rings: its name, and how many completions the latency ring had seen when it was set. The next
    /// one makes it fire.
    link: Option<(u64, u32)>,
    pair: Option<Pair>,
    /// When the main ring was last entered.
    entered: Option<Instant>,
    vigil: Vigil,
    /// A main ring whose queues could not be mapped.
    unmapped: Option<RawFd>,
}

thread_local! {
    static RINGS: RefCell<Rings> = RefCell::default();
}

static LINKED: AtomicU64 = AtomicU64::new(0);

/// Writes that were linked with the sync behind them, since the process started.
pub fn linked() -> u64 {
    LINKED.load(Ordering::Relaxed)
}

/// Which ring of an executor it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Latency,
}

/// Takes charge of a ring that has just been made for this thread.
pub(super) fn adopt(role: Role, fd: RawFd, parameters: &Parameters, shown: u32) {
    let queue = Queue::adopt(fd, parameters, shown);
    if role == Role::Main {
        // Without it no socket can be had on this thread, and whoever asks for one is told.
        _ = readiness::begin(fd);
        // What the kernel cannot do at once, an fsync above all, is done by workers of its own. On another core they are
        // woken by an interrupt, and wake this one by another: without this a lone put takes 10 to 50 us more.
        _ = system::keep_workers_here(fd);
    }
    RINGS.with_borrow_mut(|rings| match role {
        Role::Main => {
            *rings = Rings {
                unmapped: queue.is_none().then_some(fd),
                main: queue,
                ..Rings::default()
            }
        }
        Role::Latency => rings.latency = queue,
    });
}

/// An announcement of a write and an fsync of one file. Dropped, it is over.
pub(super) struct Expectation {
    is_announced: bool,
}

/// Announces that this thread queues a write to `fd` and an fsync of it, back to back. One pair at a time: a second one
/// meanwhile is not linked.
pub(super) fn expect(fd: RawFd) -> Expectation {
    RINGS.with_borrow_mut(|rings| {
        let is_announced = rings.pair.is_none() && rings.main.is_some();
        if is_announced {
            rings.pair = Some(Pair { fd, write: None });
        }
        Expectation { is_announced }
    })
}

impl Expectation {
    /// Whether the kernel was told that the fsync waits for the write. If not, they may have been carried out in any order.
    pub(super) fn is_met(&self) -> bool {
        let is_linked = |rings: &Rings| rings.pair.as_ref().is_some_and(|pair| pair.write.is_some());
        self.is_announced && RINGS.with_borrow(is_linked)
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        if self.is_announced {
            RINGS.with_borrow_mut(|rings| rings.pair = None);
        }
    }
}

/// From now on this thread's executor looks for work for so long before it sleeps.
pub(super) fn watch_for(longest: Duration) {
    RINGS.with_borrow_mut(|rings| rings.vigil = Vigil::new(longest));
}

/// For tasks that may find work without end: has the executor look at its rings soon, if it has not for [`RUN_MAX`].
pub(super) fn relax() {
    relax_after(RUN_MAX);
}

/// For tasks with long work of their own, between two pieces of it: the same, if the executor has not looked at its rings
/// for [`ENTRY_PERIOD`].
pub(super) fn rest() {
    relax_after(ENTRY_PERIOD);
}

fn relax_after(patience: Duration) {
    RINGS.with_borrow_mut(|rings| {
        if rings.entered.is_some_and(|entered| entered.elapsed() > patience) {
            rings.entered = Some(Instant::now());
            rings.preempt();
        }
    });
}

/// Timers that were cancelled before the kernel knew of them, and their cancellations, do nothing.
fn neutralise(queue: &mut Queue) {
    for place in 0..queue.waiting() {
        let cancellation = *queue.entry(place);
        if cancellation.opcode != ASYNC_CANCEL {
            continue;
        }
        let timer = (0..place).find(|place| {
            let entry = queue.entry(*place);
            entry.opcode == TIMEOUT && entry.user_data == cancellation.address
        });
        if let Some(timer) = timer {
            let is_chained = queue.entry(timer).flags & IO_LINK != 0;
            queue.entry(timer).neutralise();
            if is_chained {
                queue.entry(timer + 1).neutralise();
            }
            queue.entry(place).neutralise();
        }
    }
}

/// Puts those of the newest `asked` entries that cannot be left before all others, and says how many they are; what waited
/// before was looked at when it came. Left are timers; cancellations of what is left itself (once something is in the
/// kernel its name may be given to another by the time that a late cancellation comes); and the poll of the ring `linked`,
/// which goes with the wait.
fn put_urgent_first(queue: &mut Queue, asked: u32, linked: Option<RawFd>) -> u32 {
    let waiting = queue.waiting();
    let known = waiting.saturating_sub(asked);
    let mut is_urgent = [false; WAITING_MAX];
    let mut count = 0;
    for place in known..waiting {
        let entry = *queue.entry(place);
        let is_left = match entry.opcode {
            TIMEOUT | NOTHING => true,
            ASYNC_CANCEL => (0..place).any(|before| {
                let timer = queue.entry(before);
                timer.opcode == TIMEOUT && timer.user_data == entry.address
            }),
            POLL_ADD => linked == Some(entry.fd),
            // A timer that counts completions is chained to a write that would preempt.
            WRITE => place > 0 && is_chained_timer(queue.entry(place - 1)),
            _ => false,
        };
        is_urgent[(place - known) as usize] = !is_left;
        count += u32::from(!is_left);
    }
    if count > 0 {
        queue.partition(|place, _| place >= known && is_urgent[(place - known) as usize]);
    }
    count
}

fn is_chained_timer(entry: &Entry) -> bool {
    entry.opcode == TIMEOUT && entry.flags & IO_LINK != 0
}

/// How many entries at the end are a timer that is not cancelled yet, with the write that is chained to it. They stay:
/// in the kernel they would have to be cancelled at once the next time.
fn live_timer_len(queue: &mut Queue) -> u32 {
    let waiting = queue.waiting();
    if waiting < 2 {
        return 0;
    }
    match is_chained_timer(queue.entry(waiting - 2)) {
        true => 2,
        false => 0,
    }
}

impl Rings {
    /// Has the timer that preempts fire at once: glommio then ends the turn of the task that runs.
    fn preempt(&mut self) {
        let Some(queue) = &mut self.latency else { return };
        let waiting = queue.waiting();
        let Some(last) = (0..waiting).rev().find(|place| queue.entry(*place).opcode == TIMEOUT) else {
            return;
        };
        set_time(queue.entry(last), Timespec { seconds: 0, nanos: 1 });
        // Whatever the kernel says, glommio will see to what is left.
        take(queue, waiting);
        queue.show(true);
    }

    /// glommio submits to the latency ring.
    fn submit_timers(&mut self, count: c_uint) -> c_int {
        let Some(queue) = &mut self.latency else { return 0 };
        let waiting = queue.waiting();
        for place in waiting.saturating_sub(count)..waiting {
            let entry = queue.entry(place);
            match entry.opcode {
                TIMEOUT => self.limit = Some((entry.user_data, time_of(entry))),
                ASYNC_CANCEL => {
                    self.limit.take_if(|(name, _)| *name == entry.address);
                }
                _ => {}
            }
        }
        // A completion on this ring means that tasks are to make room, and one that comes between two turns has glommio
        // sleep although tasks are ready. What was left therefore goes when glommio has just cancelled: then it looks at
        // what has completed before it goes on.
        let is_moment = queue.entry(waiting - 1).opcode == ASYNC_CANCEL || waiting >= LEFT_AT_ALL_MAX;
        let is_due = waiting >= LEFT_MAX && is_moment;
        let urgent = put_urgent_first(queue, count, None);
        if urgent == 0 && !is_due {
            queue.show(true);
            return count as c_int;
        }
        if is_due {
            neutralise(queue);
        }
        submit(queue, if is_due { waiting } else { urgent }, count)
    }

    /// glommio submits to the main ring.
    fn submit(&mut self, count: c_uint) -> c_int {
        self.link_pair();
        let latency = self.latency.as_ref().map(|queue| queue.fd);
        let seen = self.latency.as_ref().map(Queue::completions_seen);
        let Some(queue) = &mut self.main else { return 0 };
        let waiting = queue.waiting();
        // Once it has fired its name may be another's.
        if let Some((link, then)) = self.link
            && seen == Some(then)
        {
            for place in waiting.saturating_sub(count)..waiting {
                let entry = queue.entry(place);
                if entry.opcode == ASYNC_CANCEL && entry.address == link {
                    entry.neutralise();
                }
            }
        }
        let urgent = put_urgent_first(queue, count, latency);
        let is_late = self.entered.is_none_or(|entered| entered.elapsed() > ENTRY_PERIOD);
        let is_due = waiting >= LEFT_MAX || is_late;
        if urgent == 0 && !is_due {
            queue.show(true);
            return count as c_int;
        }
        self.entered = Some(Instant::now());
        if !is_due {
            return submit(queue, urgent, count);
        }
        neutralise(queue);
        let all = queue.waiting() - live_timer_len(queue);
        submit(queue, all.max(urgent), count)
    }

    /// Links the pair that was announced, if both are there.
    fn link_pair(&mut self) {
        let (Some(queue), Some(pair)) = (&mut self.main, &mut self.pair) else {
            return;
        };
        if pair.write.is_some() {
            return;
        }
        for place in 1..queue.waiting() {
            let second = *queue.entry(place);
            let first = queue.entry(place - 1);
            let is_write = matches!(first.opcode, WRITE | WRITE_FIXED) && first.fd == pair.fd;
            if is_write && second.opcode == FSYNC && second.fd == pair.fd {
                first.flags |= IO_LINK;
                pair.write = Some((first.user_data, first.len));
                LINKED.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// glommio sleeps on the main ring.
    fn wait(&mut self) -> c_int {
        let Some(queue) = &mut self.main else { return 0 };
        if let Some(latency) = &self.latency {
            let seen = latency.completions_seen();
            let is_linked = self.link.is_some_and(|(_, then)| then == seen);
            let is_link = |entry: &Entry| entry.opcode == POLL_ADD && entry.fd == latency.fd;
            for place in 0..queue.waiting() {
                let entry = queue.entry(place);
                if is_link(entry) && is_linked {
                    entry.neutralise();
                } else if is_link(entry) {
                    self.link = Some((entry.user_data, seen));
                }
            }
            let count = queue.partition(|_, entry| is_link(entry));
            if count > 0 && take(queue, count) < 0 {
                queue.show(true);
                return -1;
            }
        }
        queue.show(true);
        let until = self
            .limit
            .map(|(_, limit)| Instant::now() + Duration::new(limit.seconds.max(0) as u64, limit.nanos.max(0) as u32));
        loop {
            // A write whose sync is still to come is nothing to wake up for.
            let write = self.pair.as_ref().and_then(|pair| pair.write);
            let only = queue.only_completion();
            let is_write =
                |(name, len): (u64, u32)| only.is_some_and(|only| only.user_data == name && only.result == len as i32);
            let is_early = write.is_some_and(is_write);
            if queue.completions() > 0 && !is_early {
                self.vigil.end(End::Completion);
                return 0;
            }
            // For glommio all that is not a completion is as if a signal had come: it looks at its timers, and runs who is
            // ready.
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.vigil.end(End::Time);
                set_errno(libc::EINTR);
                return -1;
            }
            let slept = readiness::sleep(match self.vigil.goes_on(readiness::crowd()) {
                true => Some(Duration::ZERO),
                false => left,
            });
            self.entered = Some(Instant::now());
            if slept == Slept::Woken {
                self.vigil.end(End::Sockets);
                set_errno(libc::EINTR);
                return -1;
            }
        }
    }
}

/// Has the kernel take the next `count` entries, and says to liburing what it expects to hear of the `asked` that it
/// knows of.
fn submit(queue: &mut Queue, count: u32, asked: c_uint) -> c_int {
    match take(queue, count) {
        taken if taken == count as c_int => {
            queue.show(true);
            asked as c_int
        }
        taken => {
            queue.show(false);
            taken.min(asked as c_int)
        }
    }
}

/// Enters the kernel for the next `count` entries; how many it took, or -1 with the reason in errno.
fn take(queue: &mut Queue, count: u32) -> c_int {
    // SAFETY: the ring is this thread's, and so are the entries.
    let taken = unsafe { enter(queue.fd, count, 0, 0, std::ptr::null(), SIGNALS_BYTES) };
    if taken > 0 {
        queue.took(taken as u32);
    }
    taken
}

/// The wait where the queues are not ours to see: until a socket is ready, or perhaps something has completed. liburing looks,
/// and comes again if not.
fn wait_for_any() -> c_int {
    match readiness::sleep(None) {
        Slept::Woken => {
            set_errno(libc::EINTR);
            -1
        }
        Slept::Interrupted => 0,
    }
}

fn set_errno(code: c_int) {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = code };
}

unsafe extern "C" {
    /// The system call. liburing's other function calls this one, which the linker would send back here.
    #[link_name = "__real___sys_io_uring_enter2"]
    fn enter(
        fd: c_int,
        to_submit: c_uint,
        min_complete: c_uint,
        flags: c_uint,
        argument: *const c_void,
        argument_bytes: c_int,
    ) -> c_int;
}

/// Which ring a call is for.
fn role_of(rings: &Rings, fd: c_int) -> Option<Role> {
    let is = |queue: &Option<Queue>| queue.as_ref().is_some_and(|queue| queue.fd == fd);
    match (is(&rings.main), is(&rings.latency)) {
        (true, _) => Some(Role::Main),
        (_, true) => Some(Role::Latency),
        _ => None,
    }
}

/// Stands in for liburing's function of the same name without `__wrap_`: submissions.
///
/// # Safety
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_enter(
    fd: c_int,
    to_submit: c_uint,
    min_complete: c_uint,
    flags: c_uint,
    signals: *const c_void,
) -> c_int {
    let is_submission = min_complete == 0 && flags == 0;
    // Each pass of glommio's loop comes by here, also where tasks run without end.
    readiness::look(ENTRY_PERIOD);
    let answer = RINGS.with_borrow_mut(|rings| match role_of(rings, fd) {
        Some(Role::Main) if is_submission => Some(rings.submit(to_submit)),
        Some(Role::Latency) if is_submission => Some(rings.submit_timers(to_submit)),
        _ => None,
    });
    match answer {
        Some(answer) => answer,
        // SAFETY: passes on the caller's own arguments.
        None => unsafe { enter(fd, to_submit, min_complete, flags, signals, SIGNALS_BYTES) },
    }
}

/// Stands in for liburing's function of the same name without `__wrap_`: waits.
///
/// # Safety
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_enter2(
    fd: c_int,
    to_submit: c_uint,
    min_complete: c_uint,
    flags: c_uint,
    argument: *const c_void,
    argument_bytes: c_int,
) -> c_int {
    let is_wait = to_submit == 0 && min_complete == 1 && flags == GET_EVENTS && argument.is_null();
    let answer = RINGS.with_borrow_mut(|rings| match role_of(rings, fd) {
        Some(Role::Main) if is_wait => Some(rings.wait()),
        None if is_wait && rings.unmapped == Some(fd) => Some(wait_for_any()),
        _ => None,
    });
    match answer {
        Some(answer) => answer,
        // SAFETY: passes on the caller's own arguments.
        None => unsafe { enter(fd, to_submit, min_complete, flags, argument, argument_bytes) },
    }
}
