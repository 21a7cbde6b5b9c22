//! The few system calls that std has no name for: signals to own children, and children that do not outlive the tests.
#![allow(unsafe_code)]

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{
        Mutex, OnceLock,
        mpsc::{self, SyncSender},
    },
    thread,
};

/// Asks a process to stop (SIGTERM). `pid` is that of a child not yet waited for, so it cannot have been reused.
pub fn terminate(pid: u32) {
    // SAFETY: kill(2) touches no memory of ours.
    let result = unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
    assert_eq!(result, 0, "signal to child {pid}: {}", io::Error::last_os_error());
}

/// Pauses (SIGSTOP) or resumes (SIGCONT) a child.
pub fn pause(pid: u32, paused: bool) {
    let signal = if paused { libc::SIGSTOP } else { libc::SIGCONT };
    // SAFETY: kill(2) touches no memory of ours.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "signal to child {pid}: {}", io::Error::last_os_error());
}

type Spawn = (Command, SyncSender<io::Result<Child>>);

/// Starts a child that the kernel kills when this process ends, however it ends. The kernel ties that to the thread
/// which forked, so all children are forked by one thread that never ends.
pub fn spawn_bound_to_us(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Spawn>>> = OnceLock::new();
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Spawn>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, answered) = mpsc::sync_channel(1);
    let sender = spawner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    sender
        .send((command, answer))
        .expect("the spawner thread lives as long as the process");
    answered.recv().expect("the spawner answers each request")
}

/// Runs `at_exit` when the process leaves through `exit`, as the test runner does.
pub fn register_at_exit(at_exit: extern "C" fn()) {
    // SAFETY: the function lives as long as the program.
    let result = unsafe { libc::atexit(at_exit) };
    assert_eq!(result, 0, "atexit refused the handler");
}
