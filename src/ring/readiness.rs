//! Which sockets of this thread's executor can go on: one epoll has all of them, each told of once when it becomes ready
//! (EPOLLET), and the executor sleeps on it ([`enter`](super::enter)).
//!
//! glommio would ask its ring anew to watch a socket after each read: a source on the heap, an entry, a poll in the kernel,
//! a completion, for every request. Here a request costs one event of many that one call brings.
//!
//! ```text
//!   new ──▶ readable ──read took less than there was room for, or nothing──▶ not readable
//!              ▲                                                                  │
//!              └───────────────────── the kernel tells of an edge ────────────────┘
//! ```
//!
//! A socket that was told to be hung up stays readable: what is left of it is an end or an error. Invariant: between the
//! kernel's telling of an edge and the task's being woken for it no task runs.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use slab::Slab;

use super::{
    system::{self, EpollEvent},
    vigil::Crowd,
};

/// Sockets that one call tells of at most. When thousands become ready at once, the others have their turn when what these
/// brought is on its way to the disk: else all of them would wait for one write, and the disk for all of them.
const EVENTS_MAX: usize = 512;
/// The name of the executor's ring among the sockets.
const RING: u64 = u64::MAX;

/// The sockets of this thread's executor.
struct Readiness {
    epoll: OwnedFd,
    sockets: Slab<Rc<Interest>>,
    events: Vec<EpollEvent>,
    crowd: Crowd,
    /// When the kernel was last asked.
    looked: Instant,
    /// Tasks were woken, and none has run since that reads or writes.
    has_woken: bool,
}

thread_local! {
    static READINESS: RefCell<Option<Readiness>> = const { RefCell::new(None) };
}

/// What is known of a socket, and who waits for more.
#[derive(Default)]
struct Interest {
    is_readable: Cell<bool>,
    is_hung_up: Cell<bool>,
    reader: Waiter,
    writer: Waiter,
}

/// A task that may be waiting. Its waker is kept from one wait to the next.
#[derive(Default)]
struct Waiter {
    is_waiting: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn wait(&self, context: &Context<'_>) {
        self.is_waiting.set(true);
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    fn wake(&self) -> bool {
        let was_waiting = self.is_waiting.replace(false);
        if was_waiting && let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
        was_waiting
    }
}

/// A socket's place here. Dropped, it is watched no more; the socket must live as long.
pub(super) struct Registration {
    socket: RawFd,
    place: usize,
    interest: Rc<Interest>,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slept {
    /// Tasks were woken for their sockets.
    Woken,
    /// The time came, the ring has something, or the kernel had work for this thread.
    Interrupted,
}

/// A ring was made on this thread: its executor will sleep here. What an executor before it had is forgotten.
pub(super) fn begin(ring: RawFd) -> io::Result<()> {
    let readiness = Readiness::new()?;
    system::epoll_add(&readiness.epoll, ring, libc::EPOLLIN | libc::EPOLLET, RING)?;
    READINESS.set(Some(readiness));
    Ok(())
}

/// Watches a socket from now on, which counts as readable until a read says otherwise.
pub(super) fn register(socket: &impl AsRawFd) -> io::Result<Registration> {
    READINESS.with_borrow_mut(|readiness| {
        let readiness = readiness.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        let interest = Rc::new(Interest::default());
        interest.is_readable.set(true);
        let place = readiness.sockets.insert(Rc::clone(&interest));
        let wanted = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let socket = socket.as_raw_fd();
        if let Err(error) = system::epoll_add(&readiness.epoll, socket, wanted, place as u64) {
            readiness.sockets.remove(place);
            return Err(error);
        }
        Ok(Registration {
            socket,
            place,
            interest,
        })
    })
}

impl Registration {
    /// Reads by `call`, which never waits, if there may be something; `room` is how much it can take.
    pub(super) fn poll_read(
        &self,
        context: &Context<'_>,
        room: usize,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let interest = &self.interest;
        while interest.is_readable.get() {
            match call() {
                Ok(count) => {
                    // Less than there was room for: all that had come. What comes later is told of.
                    let has_more = count == room || count == 0 || interest.is_hung_up.get();
                    interest.is_readable.set(has_more);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => interest.is_readable.set(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        interest.reader.wait(context);
        Poll::Pending
    }

    /// Writes by `call`, which never waits. It is always tried: there nearly always is room.
    pub(super) fn poll_write(
        &self,
        context: &Context<'_>,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.interest.writer.wait(context);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // When the thread ends there is nothing left to forget.
        let _forgotten = READINESS.try_with(|readiness| {
            let Ok(mut readiness) = readiness.try_borrow_mut() else {
                return;
            };
            let Some(readiness) = readiness.as_mut() else { return };
            let is_ours = |known: &Rc<Interest>| Rc::ptr_eq(known, &self.interest);
            if readiness.sockets.get(self.place).is_some_and(is_ours) {
                readiness.sockets.remove(self.place);
                // A closed socket is forgotten by itself; one that goes on under another descriptor is not.
                _ = system::epoll_remove(&readiness.epoll, self.socket);
            }
        });
    }
}

/// Wakes the tasks of sockets that became ready, if the kernel was not asked for longer than `patience`.
pub(super) fn look(patience: Duration) {
    with(|readiness| {
        if readiness.looked.elapsed() > patience {
            _ = readiness.take_events(Some(Duration::ZERO));
        }
    });
}

/// Sleeps until a socket is ready, the ring has something, the kernel has work for this thread, or `limit` has passed.
/// Does not sleep if tasks were woken that have not run.
pub(super) fn sleep(limit: Option<Duration>) -> Slept {
    let slept = with(|readiness| {
        if std::mem::take(&mut readiness.has_woken) {
            return Slept::Woken;
        }
        let slept = readiness.take_events(limit);
        readiness.has_woken = false;
        slept
    });
    slept.unwrap_or(Slept::Interrupted)
}

/// How many sockets became ready at once of late.
pub(super) fn crowd() -> Crowd {
    with(|readiness| readiness.crowd).unwrap_or_default()
}

/// Tasks run that read and write: those that were woken have their turn.
pub(super) fn running() {
    with(|readiness| readiness.has_woken = false);
}

fn with<T>(call: impl FnOnce(&mut Readiness) -> T) -> Option<T> {
    READINESS.with_borrow_mut(|readiness| readiness.as_mut().map(call))
}

impl Readiness {
    fn new() -> io::Result<Readiness> {
        Ok(Readiness {
            epoll: system::epoll()?,
            sockets: Slab::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            crowd: Crowd::default(),
            looked: Instant::now(),
            has_woken: false,
        })
    }

    fn take_events(&mut self, limit: Option<Duration>) -> Slept {
        let mut has_woken = false;
        // Whatever the error, it is as if a signal had come.
        if system::epoll_wait(&self.epoll, &mut self.events, limit).is_err() {
            self.events.clear();
        }
        for event in &self.events {
            // The ring's own event is nobody's here: who sleeps looks at the ring.
            let interest = self.sockets.get(event.name() as usize);
            has_woken |= interest.is_some_and(|interest| interest.tell(event.what()));
        }
        if has_woken {
            self.crowd.came(self.events.len());
        }
        self.looked = Instant::now();
        self.has_woken |= has_woken;
        match has_woken {
            true => Slept::Woken,
            false => Slept::Interrupted,
        }
    }
}

impl Interest {
    /// Takes in what the kernel tells; whether a task was woken.
    fn tell(&self, what: u32) -> bool {
        let has = |flags: i32| what & flags as u32 != 0;
        let mut has_woken = false;
        if has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) {
            self.is_hung_up.set(true);
        }
        if has(libc::EPOLLIN) || self.is_hung_up.get() {
            self.is_readable.set(true);
            has_woken |= self.reader.wake();
        }
        if has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) {
            has_woken |= self.writer.wake();
        }
        has_woken
    }
}
