//! Real processes on a machine that fails them for a while: stopped (SIGSTOP) under load, on a disk without room, and on one that
//! stands still. Nothing acknowledged may be missing afterwards, leases do not end early, watchers are told everything.
//! A real etcd, when `ETCD_BIN` names one, goes through the first two as well, which judges the test.
//!
//! The full disk is a small ext4 on a loop device, in a mount namespace of this process's own, so that it is gone when this
//! process is. Where that is not allowed the scene says so and passes.

#[path = "../support/mod.rs"]
mod support;

mod frozen;
mod full;
mod pause;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, ExitCode},
};

use support::process::Program;

/// Set for the process that has a namespace of its own.
const INSIDE: &str = "RINGD_OUTAGE_INSIDE";

fn main() -> ExitCode {
    let mut filters = env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    if filters.any(|filter| !"outage".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if env::var_os(INSIDE).is_none() {
        return inside_namespace();
    }
    let mut is_sound = true;
    for program in [Program::Ringd, Program::Etcd] {
        if program.path().is_none() {
            println!("outage: {}: skipped, not at hand", program.name());
            continue;
        }
        is_sound &= scene("stopped under load", program, pause::run);
        is_sound &= scene("full disk", program, full::run);
    }
    is_sound &= scene("disk that stands still", Program::Ringd, frozen::run);
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program again where its mounts are its own; where that is not allowed, where they are everybody's.
fn inside_namespace() -> ExitCode {
    let own = env::current_exe().expect("this program");
    let has_namespaces = Command::new("unshare")
        .args(["-m", "true"])
        .status()
        .is_ok_and(|status| status.success());
    let mut command = match has_namespaces {
        true => {
            let mut command = Command::new("unshare");
            command.args(["-m", "--propagation", "private"]).arg(own);
            command.env(INSIDE, "own mounts");
            command
        }
        false => {
            let mut command = Command::new(own);
            command.env(INSIDE, "no mounts");
            command
        }
    };
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        outcome => {
            println!("outage: {outcome:?}");
            ExitCode::FAILURE
        }
    }
}

/// Whether mounts are this process's own.
fn may_mount() -> bool {
    env::var(INSIDE).is_ok_and(|value| value == "own mounts")
}

fn scene(name: &str, program: Program, run: fn(Program) -> String) -> bool {
    match catch_unwind(AssertUnwindSafe(|| run(program))) {
        Ok(told) => {
            println!("outage: {}, {name}: {told}", program.name());
            true
        }
        Err(_) => {
            println!("outage: {}, {name}: FAILED", program.name());
            false
        }
    }
}
