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
    // To this thread alone: sent to the process, the thread that waits for signals might take it as a second one.
    // SAFETY: sets the default disposition, which runs no code of ours, and sends the signal to this thread.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    // It is pending until this thread lets it in.
    if mask_signals(libc::SIG_UNBLOCK, &ending_signals()).is_ok() {
        thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Child, Command, Stdio},
        time::Duration,
    };

    use super::*;

    const CHILD: &str = "RINGD_TEST_SIGNALS";

    /// Not a test of its own: the process that the tests below send signals to.
    #[test]
    fn child() {
        let Ok(role) = std::env::var(CHILD) else {
            return;
        };
        let stop = Stop::new();
        let signals = Signals::install(stop.clone()).unwrap();
        eprintln!("ready");
        if role == "panics" {
            crate::node::abort_on_panic();
            let _ = thread::spawn(|| panic!("a bug")).join();
        }
        while !stop.is_requested() {
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("stopping");
        if role == "hangs" {
            thread::sleep(Duration::from_secs(20));
        }
        signals.end();
    }

    fn start_child(role: &str) -> (Child, thread::JoinHandle<Vec<String>>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        // The child is a test harness, whose main thread was there before `install`: it inherits the mask from here.
        // SAFETY: changes the new process's mask before exec and touches no memory.
        unsafe { command.pre_exec(|| mask_signals(libc::SIG_BLOCK, &ending_signals())) };
        let mut child = command
            .args([
                "--exact",
                "node::signals::tests::child",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, role)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready")));
        // Read to the end, so that the child can go on writing.
        let rest = thread::spawn(move || lines.map_while(Result::ok).collect());
        (child, rest)
    }

    fn send(child: &Child, signal: i32) {
        // SAFETY: sends a signal to a process of ours that has not been waited for yet.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    #[test]
    fn the_first_signal_stops_in_order_and_the_process_ends_by_it() {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let (mut child, rest) = start_child("stops");
            send(&child, signal);
            assert_eq!(child.wait().unwrap().signal(), Some(signal));
            assert!(rest.join().unwrap().iter().any(|line| line == "stopping"));
        }
    }

    #[test]
    fn a_second_signal_ends_the_process_at_once() {
        let (mut child, _) = start_child("hangs");
        // Two signals may count as one if the first has not been taken yet.
        let mut status = None;
        for _ in 0..200 {
            send(&child, libc::SIGTERM);
            thread::sleep(Duration::from_millis(50));
            status = child.try_wait().unwrap();
            if status.is_some() {
                break;
            }
        }
        let status = status.expect("ended");
        assert_eq!(status.code(), Some(128 + libc::SIGTERM));
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process() {
        let (mut child, rest) = start_child("panics");
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGABRT));
        let rest = rest.join().unwrap().join("\n");
        assert!(rest.contains("panic in thread") && rest.contains("a bug"), "{rest}");
    }
}
