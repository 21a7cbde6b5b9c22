//! Where a body runs.

use std::{
    fs,
    future::Future,
    path::PathBuf,
    rc::Rc,
    sync::{Mutex, MutexGuard, OnceLock},
    thread,
    time::Duration,
};

use crate::support::{
    process::{Own, Plain, Process, Program, on_this_thread},
    signals,
    world::{Target, World},
};

/// No body takes longer; one that does hangs.
const BODY_WITHIN: Duration = Duration::from_secs(120);

/// Runs a body on the standing server, with no other body beside it.
pub fn standing<F: Future<Output = ()>>(program: Program, name: &str, body: impl FnOnce(Target) -> F) {
    if skipped(program, name) {
        return;
    }
    let server = standing_server(program);
    let world = Rc::new(Plain {
        address: server.address(),
    });
    run_body(world, program, name, body);
}

/// Runs a body on a server of its own.
pub fn fresh<F: Future<Output = ()>>(program: Program, name: &str, flags: &[&str], body: impl FnOnce(Target) -> F) {
    if skipped(program, name) {
        return;
    }
    let world = Rc::new(Own::new(Process::start(program, flags)));
    run_body(world, program, name, body);
}

fn run_body<F: Future<Output = ()>>(
    world: Rc<dyn World>,
    program: Program,
    name: &str,
    body: impl FnOnce(Target) -> F,
) {
    on_this_thread(async {
        let target = Target::new(world, name);
        let what = format!("end of {name} on {}", program.name());
        target.within(BODY_WITHIN, &what, body(target.clone())).await;
    });
}

fn skipped(program: Program, name: &str) -> bool {
    let reason = match program {
        Program::Fronts if thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) => "there is one core",
        _ if program.path().is_none() => "ETCD_BIN does not name a real etcd",
        _ => return false,
    };
    println!("skipped {name}: {reason}");
    true
}

/// Roots of the standing servers' files, removed at exit.
static STANDING_ROOTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn standing_server(program: Program) -> MutexGuard<'static, Process> {
    static RINGD: OnceLock<Mutex<Process>> = OnceLock::new();
    static FRONTS: OnceLock<Mutex<Process>> = OnceLock::new();
    static ETCD: OnceLock<Mutex<Process>> = OnceLock::new();
    let slot = match program {
        Program::Ringd => &RINGD,
        Program::Fronts => &FRONTS,
        Program::Etcd => &ETCD,
    };
    let server = slot.get_or_init(|| {
        let process = Process::start(program, &[]);
        let mut roots = STANDING_ROOTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if roots.is_empty() {
            signals::register_at_exit(remove_standing_roots);
        }
        roots.push(process.root().to_path_buf());
        Mutex::new(process)
    });
    // A body that failed leaves nothing behind that the next one minds: keys are its own, revisions are relative.
    let mut server = server.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(status) = server.exited() {
        panic!(
            "the standing {} ended with {status}\n{}",
            program.name(),
            server.log_tail()
        );
    }
    server
}

extern "C" fn remove_standing_roots() {
    if let Ok(roots) = STANDING_ROOTS.lock() {
        for root in roots.iter() {
            let _ = fs::remove_dir_all(root);
        }
    }
}
