//! A panic is a bug, and a node with a bug must not go on: it says where, and ends.

use std::{backtrace::Backtrace, panic, process, thread};

/// From now on a panic in any thread logs one line and ends the process (SIGABRT).
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|info| {
        let message = info
            .payload()
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let location = info
            .location()
            .map_or_else(|| "unknown place".to_owned(), ToString::to_string);
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        tracing::error!(thread = name, %location, backtrace = %Backtrace::capture(), "panic: {message}");
        // The log may go nowhere yet, or to a pipe that nobody reads.
        eprintln!("panic in thread {name} at {location}: {message}");
        process::abort();
    }));
}
