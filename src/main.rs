//! The program: what it was called for, and its exit code.

use std::{path::Path, process::ExitCode};

use ringd::{
    bench::Plan,
    cli::{self, Command, Invocation},
    config::{Config, Exit, Notice},
    node::{self, Signals, Stop},
    ops::log,
    ring::{ThreadHost, probe},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let environment: Vec<(String, String)> = std::env::vars().collect();
    match cli::invocation(&arguments, &environment, &|path| std::fs::read(path)) {
        Invocation::Serve { config, notices } => serve(*config, &notices),
        Invocation::Offline(command) => offline(&command),
        Invocation::Bench(plan) => bench(*plan, &arguments),
        Invocation::Doctor { directory, is_json } => doctor(&directory, is_json),
        Invocation::Exit(exit) => leave(&exit),
    }
}

fn leave(exit: &Exit) -> ExitCode {
    print!("{}", exit.stdout);
    eprint!("{}", exit.stderr);
    log::tell(&exit.notices);
    ExitCode::from(u8::try_from(exit.code).unwrap_or(1))
}

/// Works on files that no server has open.
fn offline(command: &Command) -> ExitCode {
    let outcome = ThreadHost::run(|host| {
        let command = command.clone();
        async move { cli::run(&host, &command, &mut |text: &str| print!("{text}")).await }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Looks at this machine; fails if something stands in the way.
fn doctor(directory: &Path, is_json: bool) -> ExitCode {
    match node::doctor::run(directory, is_json) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Puts load on a server.
fn bench(plan: Plan, arguments: &[String]) -> ExitCode {
    let outcome = probe::check_machine()
        .map_err(|obstacle| obstacle.to_string())
        .and_then(|_| node::bench::run(plan, format!("ringd {}", arguments.join(" "))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config, notices: &[Notice]) -> ExitCode {
    let stop = Stop::new();
    // Before any thread is started: those that come later inherit what is blocked.
    let signals = match Signals::install(stop.clone()) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("ringd: cannot take care of signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = log::start(&config.log) {
        eprintln!("ringd: {error}");
        return ExitCode::FAILURE;
    }
    log::tell(notices);
    node::abort_on_panic();
    let outcome = probe::check_machine()
        .map_err(|obstacle| obstacle.to_string())
        .and_then(|clients_max| node::run::run(config, &stop, clients_max));
    if let Err(error) = &outcome {
        tracing::error!(error, "ringd cannot go on");
    }
    log::flush();
    match outcome {
        Ok(()) => signals.end(),
        Err(_) => ExitCode::FAILURE,
    }
}
