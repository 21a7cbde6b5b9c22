//! Crashes at a chosen effect: the power of a machine fails when an operation of one kind on one kind of file begins, or
//! when it has ended and before whoever asked for it hears of it. For the cases that a seed would seldom draw.

use std::path::Path;

use super::{
    faults::Unsynced,
    random::Random,
    world::{MachineId, World},
};

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Of bytes of a file; also a write that is durable when it ends.
    Write,
    /// Of a file's content.
    Sync,
    /// Of a file or directory; the new name counts.
    Rename,
    /// Of a directory's names.
    SyncDirectory,
}

/// At which end of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It has been asked for, and has changed nothing that is durable.
    Begin,
    /// It is done, and nobody knows.
    End,
}

/// When the power of a machine fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The kind of operation.
    pub operation: Operation,
    /// What the file's path, as it was when it was opened, ends with or has in it.
    pub path: PathPart,
    /// At which of these operations from now on, from 1.
    pub number: u32,
    /// At which end of it.
    pub moment: Moment,
    /// What becomes of what was not synced.
    pub unsynced: Unsynced,
}

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPart {
    /// Those whose path ends so.
    End(String),
    /// Those that have this in their path.
    Anywhere(String),
}

impl PathPart {
    fn fits(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        match self {
            PathPart::End(end) => path.ends_with(end.as_str()),
            PathPart::Anywhere(part) => path.contains(part.as_str()),
        }
    }
}

impl World {
    /// An operation has come to one of its ends: a trap that was set for it closes, before anything else happens.
    pub(super) fn pass_trap(&self, id: MachineId, operation: Operation, moment: Moment, path: &Path) {
        let closed = self.with_machine(id, |machine| {
            let trap = machine.trap.as_mut()?;
            if trap.operation != operation || trap.moment != moment || !trap.path.fits(path) {
                return None;
            }
            trap.number -= 1;
            (trap.number == 0).then(|| machine.trap.take().expect("just looked at"))
        });
        if let Some(trap) = closed {
            self.record("trap", &[id.0 as u64]);
            self.after(0, move |world| {
                // Two things may have ended it in the same instant.
                if world.with_machine(id, |machine| machine.is_up) {
                    world.crash(id, trap.unsynced);
                }
            });
        }
    }

    /// The power of a machine fails.
    pub(super) fn crash(&self, id: MachineId, unsynced: Unsynced) {
        self.count("power failure");
        let owner = self.end_life(id, true);
        self.end_tasks(owner);
        let mut chaos: Random = self.chaos.borrow_mut().fork(4);
        self.with_machine(id, |machine| {
            machine.boot += 1;
            machine.under_way.clear();
            machine.lingering.clear();
            machine.tree.crash(unsynced, &mut chaos);
        });
    }

    /// Ends a life but for its tasks; whose they are.
    pub(super) fn end_life(&self, id: MachineId, is_power_failure: bool) -> (MachineId, u64) {
        let owner = self.with_machine(id, |machine| {
            assert!(machine.is_up, "{} is down already", machine.name);
            machine.is_up = false;
            machine.is_powered = !is_power_failure;
            machine.is_paused = false;
            machine.parked.clear();
            machine.trap = None;
            (id, machine.incarnation)
        });
        self.record("end", &[id.0 as u64, u64::from(is_power_failure)]);
        self.end_sockets(owner, is_power_failure);
        owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{Disk, File, Host, OpenMode},
        testing::Sim,
    };

    /// What is left of two synced writes when the power fails at a chosen one of their effects.
    fn left_after(operation: Operation, number: u32, moment: Moment) -> Vec<u8> {
        let sim = Sim::new(3);
        let host = sim.host("a");
        let path = Path::new("/log");
        sim.run_until(async {
            let file = host.disk().open(path, OpenMode::CreateNew).await.unwrap();
            file.write_bytes_at(0, b"0").await.unwrap();
            file.sync_data().await.unwrap();
            host.disk().sync_directory(Path::new("/")).await.unwrap();
        });
        sim.crash_at(
            &host,
            Trap {
                operation,
                path: PathPart::End("/log".to_owned()),
                number,
                moment,
                unsynced: Unsynced::Lost,
            },
        );
        let writer = host.clone();
        host.spawn(async move {
            let file = writer.disk().open(path, OpenMode::Write).await.unwrap();
            for (place, byte) in [b"1", b"2"].into_iter().enumerate() {
                file.write_bytes_at(place as u64 + 1, byte).await.unwrap();
                file.sync_data().await.unwrap();
            }
        });
        sim.run_for(std::time::Duration::from_secs(1));
        assert!(!host.is_alive(), "the trap closed");
        let host = sim.restart(&host);
        sim.run_until(async { host.disk().read_file(path).await.unwrap() })
    }

    #[test]
    fn the_power_fails_at_the_chosen_end_of_the_chosen_operation() {
        assert_eq!(left_after(Operation::Sync, 1, Moment::Begin), b"0");
        assert_eq!(left_after(Operation::Sync, 1, Moment::End), b"01");
        assert_eq!(left_after(Operation::Write, 2, Moment::End), b"01");
        assert_eq!(left_after(Operation::Sync, 2, Moment::Begin), b"01");
        assert_eq!(left_after(Operation::Sync, 2, Moment::End), b"012");
    }
}
