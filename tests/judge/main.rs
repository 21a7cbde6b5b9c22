//! The simulator's checkers, judged: they accept histories of a real ringd and of a real etcd (when `ETCD_BIN` names one),
//! killed and stopped in between, and refuse the same histories once they have been doctored.

#[path = "../support/mod.rs"]
mod support;

#[path = "../sim/check.rs"]
#[allow(dead_code)]
mod check;
#[path = "../sim/history.rs"]
#[allow(dead_code)] // The simulator uses all of it.
mod history;
#[path = "../sim/linear.rs"]
mod linear;
#[path = "../sim/model.rs"]
#[allow(dead_code)]
mod model;

mod doctor;
mod load;

use history::History;
use support::process::Program;

fn accepted(program: Program) -> History {
    let history = load::record(program);
    match check::check(&history) {
        Ok(summary) => println!("{}: {} requests, {summary:?}", program.name(), history.ops.len()),
        Err(fault) => panic!("a history of {} was refused: {fault:.2000}", program.name()),
    }
    history
}

#[test]
fn a_history_of_ringd_is_accepted_and_doctored_ones_are_refused() {
    doctor::each_is_refused(&accepted(Program::Ringd));
}

#[test]
fn a_history_of_etcd_is_accepted_and_doctored_ones_are_refused() {
    if Program::Etcd.path().is_none() {
        println!("skipped: ETCD_BIN does not name a real etcd");
        return;
    }
    doctor::each_is_refused(&accepted(Program::Etcd));
}
