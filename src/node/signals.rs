//! Signals. SIGTERM and SIGINT are blocked in every thread and taken by one thread that waits for them: the first asks
//! the node to stop, a second ends the process at once. SIGPIPE is ignored (Rust's runtime does so before main, and a
//! write to a closed socket is an error like others).
#![allow(unsafe_code)]

use std::{
    io, mem, process, ptr,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use super::Stop;

/// The signals that end a server, while they are taken care of.
#[derive(Clone, Debug)]
pub struct Signals {
    // The first signal taken; 0 before.
    received: Arc<AtomicI32>,
}

impl Signals {
    /// Blocks the signals in this thread and in all that it starts from now on, and starts the thread that takes them:
    /// call it before any other thread is started.
    pub fn install(stop: Stop) -> io::Result<Signals> {
        let set = ending_signals();
        mask_signals(libc::SIG_BLOCK, &set)?;
        let received = Arc::new(AtomicI32::new(0));
        let shared = Arc::clone(&received);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                let signal = wait_signal(&set);
                if shared
                    .compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire)
                    .is_err()
                {
                    tracing::warn!(signal = name(signal), "received a second signal; ending at once");
                    process::exit(128 + signal);
                }
                tracing::info!(signal = name(signal), "received signal; shutting down");
                stop.request();
            }
        })?;
        Ok(Signals { received })
    }

    /// The signal that asked for the stop, if one did.
    pub fn received(&self) -> Option<i32> {
        match self.received.load(Ordering::Acquire) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Ends the process as etcd does after an orderly stop: by the signal itself, so that a parent sees what it sent,
    /// except that process 1 exits with 0, since the kernel spares it unhandled signals. Without a signal: exit 0.
    pub fn end(&self) -> ! {
        if let Some(signal) = self.received()
            && process::id() != 1
        {
            raise_default(signal);
        }
        process::exit(0);
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGTERM => "terminated",
        libc::SIGINT => "interrupt",
        _ => "unknown",
    }
}

fn ending_signals() -> libc::sigset_t {
    // SAFETY: `sigset_t` is a plain C struct, made a valid empty set by the next call; the calls get pointers to it.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

fn mask_signals(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: takes a pointer to a set that outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn wait_signal(set: &libc::sigset_t) -> i32 {
    loop {
        let mut signal = 0;
        // SAFETY: takes pointers to a set and an integer that outlive the call.
        if unsafe { libc::sigwait(set, &mut signal) } == 0 {
            return signal;
        }
    }
}

fn raise_default(signal: i32) {
    // SAFETY: sets the default disposition, which runs no code of ours, and sends the signal to this process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(libc::getpid(), signal);
    }
    // The signal is pending for the process until some thread lets it in.
    if mask_signals(libc::SIG_UNBLOCK, &ending_signals()).is_ok() {
        thread::sleep(std::time::Duration::from_secs(1));
    }
}
