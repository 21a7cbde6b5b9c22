//! One data directory, two servers: what one wrote the other reads, and back again. Needs `ETCD_BIN` (and `ETCDUTL_BIN`,
//! `ETCDCTL_BIN`, `BBOLT_CHECK` for what they judge); without them a test says that it was skipped and passes.
//!
//! The same bodies run between two etcds, which judges the bodies.

#[path = "../support/mod.rs"]
mod support;

mod content;
mod snapshot;

use std::{os::unix::process::ExitStatusExt, path::Path, process::Command, rc::Rc};

use content::Content;
use snapshot::a_saved_snapshot_restores_into_the_other;
use support::{
    process::{Plain, Process, Program, on_this_thread, scratch, tool},
    world::{Stop, World},
};

macro_rules! pairs {
    ($($name:ident,)*) => {
        mod etcd_and_etcd {
            use crate::support::process::Program::Etcd;
            $(#[test] fn $name() { crate::$name(Etcd, Etcd) })*
        }
        mod etcd_and_ringd {
            use crate::support::process::Program::{Etcd, Ringd};
            $(#[test] fn $name() { crate::$name(Etcd, Ringd) })*
        }
        mod ringd_and_etcd {
            use crate::support::process::Program::{Etcd, Ringd};
            $(#[test] fn $name() { crate::$name(Ringd, Etcd) })*
        }
        mod ringd_and_ringd {
            use crate::support::process::Program::Ringd;
            $(#[test] fn $name() { crate::$name(Ringd, Ringd) })*
        }
    };
}

pairs! {
    there_and_back_after_clean_stops,
    there_and_back_after_kills,
    there_and_back_with_snapshot_files,
    there_and_back_with_snapshot_files_after_kills,
    alarms_and_compactions_cross_over,
    a_saved_snapshot_restores_into_the_other,
}

fn there_and_back_after_clean_stops(first: Program, second: Program) {
    there_and_back(first, second, Stop::Clean, &[]);
}

fn there_and_back_after_kills(first: Program, second: Program) {
    there_and_back(first, second, Stop::Kill, &[]);
}

fn there_and_back_with_snapshot_files(first: Program, second: Program) {
    there_and_back(first, second, Stop::Clean, &["--snapshot-count=20"]);
}

fn there_and_back_with_snapshot_files_after_kills(first: Program, second: Program) {
    there_and_back(first, second, Stop::Kill, &["--snapshot-count=20"]);
}

/// Whether both programs are at hand; says so when not.
pub fn at_hand(first: Program, second: Program) -> bool {
    let both = first.path().is_some() && second.path().is_some();
    if !both {
        println!("skipped: ETCD_BIN does not name a real etcd");
    }
    both
}

/// Runs a body against a process.
pub fn with<T, F: Future<Output = T>>(process: &Process, body: impl FnOnce(Rc<dyn World>) -> F) -> T {
    on_this_thread(body(Rc::new(Plain {
        address: process.address(),
    })))
}

pub fn end(process: &mut Process, stop: Stop) {
    match stop {
        Stop::Clean => {
            let status = process.stop();
            // etcd ends itself with the signal that it was sent.
            assert!(
                status.success() || status.signal() == Some(15),
                "{:?} ended with {status}",
                process.program()
            );
        }
        Stop::Kill => process.kill(),
    }
}

fn there_and_back(first: Program, second: Program, stop: Stop, flags: &[&str]) {
    if !at_hand(first, second) {
        return;
    }
    let root = scratch("interchange");
    let mut before: Option<Content> = None;
    for (leg, program) in [first, second, first, second].into_iter().enumerate() {
        let mut process = Process::start_in(program, &root, flags);
        let name = format!("leg {leg} on {}", program.name());
        if let Some(before) = &before {
            let found = with(&process, content::read);
            found.assert_same(before, &name, &process.log_tail());
        }
        with(&process, |world| content::write(world, leg as i64));
        before = Some(with(&process, content::read));
        end(&mut process, stop);
        judge_files(&root, &name);
    }
    let _ = std::fs::remove_dir_all(root);
}

/// bbolt's own check of the database file, where it is at hand.
pub fn judge_files(root: &Path, name: &str) {
    let Some(check) = tool("BBOLT_CHECK") else {
        println!("bbolt's check is skipped: BBOLT_CHECK is not set");
        return;
    };
    let database = root.join("data/member/snap/db");
    let output = Command::new(check).arg(&database).output().expect("the check runs");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn alarms_and_compactions_cross_over(first: Program, second: Program) {
    use ringd::wire::proto::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
    if !at_hand(first, second) {
        return;
    }
    let root = scratch("interchange");
    let alarm = |action: AlarmAction| pb::AlarmRequest {
        action: action as i32,
        member_id: 7,
        alarm: AlarmType::Nospace as i32,
    };
    let mut process = Process::start_in(first, &root, &[]);
    let before = with(&process, |world| async move {
        content::write(world.clone(), 0).await;
        let client = support::client::Client::connect(&world).await;
        client.compact(client.revision().await - 3).await;
        client.try_alarm(alarm(AlarmAction::Activate)).await.expect("an alarm");
        content::read(world).await
    });
    end(&mut process, Stop::Kill);
    let mut process = Process::start_in(second, &root, &[]);
    let found = with(&process, content::read);
    found.assert_same(&before, "after a kill", &process.log_tail());
    with(&process, |world| async move {
        let client = support::client::Client::connect(&world).await;
        let put = support::calls::put("x", "y");
        client
            .try_put(put.clone())
            .await
            .expect_err("the alarm is still raised");
        client
            .try_alarm(alarm(AlarmAction::Deactivate))
            .await
            .expect("the alarm is lowered");
        client.try_put(put).await.expect("a put");
    });
    let before = with(&process, content::read);
    end(&mut process, Stop::Clean);
    judge_files(&root, "compacted");
    let process = Process::start_in(first, &root, &[]);
    let found = with(&process, content::read);
    found.assert_same(&before, "back again", &process.log_tail());
    drop(process);
    let _ = std::fs::remove_dir_all(root);
}
