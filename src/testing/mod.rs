//! The host in memory: machines with disks and networks that fail as told, in virtual time, on one thread, all from one
//! seed. What runs on [`SimHost`] runs the same way each time; [`Sim::trace_hash`] shows it.
//!
//! ```
//! use ringd::{host::{Disk, File, Host, OpenMode}, testing::Sim};
//! use std::path::Path;
//!
//! let sim = Sim::new(7);
//! let host = sim.host("a");
//! sim.run_until(async {
//!     let file = host.disk().open(Path::new("/log"), OpenMode::CreateNew).await?;
//!     file.write_bytes_at(0, b"gone").await
//! })?;
//! sim.crash(&host);
//! let host = sim.restart(&host);
//! // Neither the file's name nor its content was synced.
//! let found = sim.run_until(async { host.disk().exists(Path::new("/log")).await })?;
//! # let _ = found;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Faults are data ([`Faults`], [`Timing`], [`Clock`]), set per machine and changed at any time; cuts, crashes, pauses and
//! flipped bits are calls. Nothing here knows what is being tested.

mod disk;
mod faults;
pub mod fuzz;
mod host;
pub mod linear;
mod link;
mod memory;
mod net;
mod random;
mod storage;
mod trap;
mod tree;
mod world;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    path::Path,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

pub use disk::{SimBuffer, SimDisk, SimFile};
pub use faults::{Clock, DiskFaults, Faults, NetFaults, Timing, Unsynced};
pub use host::SimHost;
pub use link::{LinkFaults, Links};
pub use memory::{Region, SimMap};
pub use net::{SimListener, SimNet, SimStream};
pub use random::Random;
pub use storage::SECTOR_BYTES;
pub use trap::{Moment, Operation, PathPart, Trap};
pub use world::MachineId;

use crate::base::Monotonic;
use world::{MainWaker, Turn, World};

/// A simulation. Dropping it drops every task and everything under way.
pub struct Sim {
    world: Rc<World>,
}

impl Sim {
    /// A world without machines, at time 0.
    pub fn new(seed: u64) -> Sim {
        Sim {
            world: World::new(seed),
        }
    }

    /// The machine of that name, made and started when first named. Several handles are several cores of one machine.
    pub fn host(&self, name: &str) -> SimHost {
        SimHost::new(&self.world, self.world.machine(name))
    }

    /// The simulation's time, which all machines' clocks follow in their own way.
    pub fn now(&self) -> Monotonic {
        Monotonic(self.world.now_nanos())
    }

    /// A stream of numbers for the test itself, from the seed; `purpose` tells several apart.
    pub fn random(&self, purpose: u64) -> Random {
        self.world.chaos.borrow_mut().fork(purpose)
    }

    /// Runs until `future` is done. The future is polled outside any machine, and may use any.
    ///
    /// # Panics
    /// When nothing can happen any more and `future` is not done: a deadlock.
    pub fn run_until<F: Future>(&self, future: F) -> F::Output {
        match self.run(future, u64::MAX) {
            Some(output) => output,
            None => panic!("nothing can happen any more at {} ns: deadlock", self.world.now_nanos()),
        }
    }

    /// Runs until `future` is done or so much time has passed; `None` for the latter, and when nothing can happen.
    pub fn run_until_or_for<F: Future>(&self, future: F, limit: Duration) -> Option<F::Output> {
        self.run(future, (self.now() + limit).0)
    }

    /// Runs for a time.
    pub fn run_for(&self, duration: Duration) {
        let end = (self.now() + duration).0;
        let wait = world::Wait::until(&self.world, end);
        self.run(wait, u64::MAX);
    }

    fn run<F: Future>(&self, future: F, end_nanos: u64) -> Option<F::Output> {
        let mut future = pin!(future);
        let main = self.world.main_waker();
        // Without it time could jump past the end.
        let end = (end_nanos < u64::MAX).then(|| self.world.at(end_nanos, |_| {}));
        let output = self.run_turns(&main, future.as_mut(), end_nanos);
        end.into_iter().for_each(|end| self.world.cancel(end));
        output
    }

    fn run_turns<F: Future>(&self, main: &MainWaker, mut future: Pin<&mut F>, end_nanos: u64) -> Option<F::Output> {
        while self.world.now_nanos() < end_nanos {
            match self.world.turn() {
                Turn::Main => {
                    if let Poll::Ready(output) = main.poll(future.as_mut()) {
                        return Some(output);
                    }
                }
                Turn::Other => {}
                Turn::Stalled => return None,
            }
        }
        None
    }

    /// The power of a machine fails: its tasks end, peers hear nothing, and what was not synced is torn by the seed.
    pub fn crash(&self, host: &SimHost) {
        self.crash_with(host, Unsynced::Torn);
    }

    /// As [`Sim::crash`], with a say in what becomes of what was not synced.
    pub fn crash_with(&self, host: &SimHost, unsynced: Unsynced) {
        self.world.crash(host.machine(), unsynced);
    }

    /// The power of a machine will fail at an effect of its present life; the trap set before is forgotten.
    pub fn crash_at(&self, host: &SimHost, trap: Trap) {
        assert!(trap.number > 0, "operations are counted from 1");
        self.world
            .with_machine(host.machine(), |machine| machine.trap = Some(trap));
    }

    /// The machine's process is killed: its tasks end and its sockets are closed, but the system goes on, and with it what
    /// was written and not synced. The machine is down until it is restarted.
    pub fn kill(&self, host: &SimHost) {
        self.world.count("kill");
        let owner = self.world.end_life(host.machine(), false);
        self.world.end_tasks(owner);
    }

    /// Starts a machine that is down: a new life on the same disk.
    pub fn restart(&self, host: &SimHost) -> SimHost {
        let id = host.machine();
        self.world.with_machine(id, |machine| {
            assert!(!machine.is_up, "{} is up", machine.name);
            machine.is_up = true;
            machine.is_powered = true;
            machine.incarnation += 1;
        });
        self.world.record("restart", &[id.0 as u64]);
        self.world.wake_links(id);
        SimHost::new(&self.world, id)
    }

    /// Stops a machine's tasks without ending them (a stopped process, a stalled virtual machine); its clock goes on.
    pub fn pause(&self, host: &SimHost) {
        self.world.count("pause");
        self.world.record("pause", &[host.machine().0 as u64]);
        self.world
            .with_machine(host.machine(), |machine| machine.is_paused = true);
    }

    /// Lets a paused machine go on.
    pub fn resume(&self, host: &SimHost) {
        self.world.record("resume", &[host.machine().0 as u64]);
        self.world.resume(host.machine());
    }

    /// Cuts the way from one machine to another; the way back stays.
    pub fn cut(&self, from: &SimHost, to: &SimHost) {
        self.world.count("one way cut");
        self.world
            .record("cut", &[from.machine().0 as u64, to.machine().0 as u64]);
        self.world.set_cut(from.machine(), to.machine(), true);
    }

    /// Mends the way from one machine to another; what was sent meanwhile arrives.
    pub fn mend(&self, from: &SimHost, to: &SimHost) {
        self.world
            .record("mend", &[from.machine().0 as u64, to.machine().0 as u64]);
        self.world.set_cut(from.machine(), to.machine(), false);
    }

    /// Cuts both ways.
    pub fn partition(&self, one: &SimHost, other: &SimHost) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Mends both ways.
    pub fn heal(&self, one: &SimHost, other: &SimHost) {
        self.mend(one, other);
        self.mend(other, one);
    }

    /// Sets what goes wrong on a machine from now on.
    pub fn set_faults(&self, host: &SimHost, faults: Faults) {
        self.world
            .with_machine(host.machine(), |machine| machine.faults = faults);
    }

    /// What goes wrong on a machine.
    pub fn faults(&self, host: &SimHost) -> Faults {
        self.world
            .with_machine(host.machine(), |machine| machine.faults.clone())
    }

    /// Sets how long things take, on all machines.
    pub fn set_timing(&self, timing: Timing) {
        *self.world.timing.borrow_mut() = timing;
    }

    /// How long things take.
    pub fn timing(&self) -> Timing {
        self.world.timing.borrow().clone()
    }

    /// Sets a machine's clocks. The monotonic one goes on from where it is.
    pub fn set_clock(&self, host: &SimHost, clock: Clock) {
        let now = self.world.now_nanos();
        self.world.count("clock changed");
        self.world.with_machine(host.machine(), |machine| {
            machine.clock_base = (machine.clock_nanos(now), now);
            machine.clock = clock;
        });
    }

    /// Flips bits of a byte of a file, at rest and as seen: rot.
    pub fn flip(&self, host: &SimHost, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let inode = self
            .world
            .with_machine(host.machine(), |machine| machine.tree.file(path))?;
        inode.borrow_mut().flip(offset, mask);
        self.world.count("bit rot");
        self.world
            .record("flip", &[host.machine().0 as u64, offset, u64::from(mask)]);
        Ok(())
    }

    /// Puts bytes over others of a file, at rest and as seen, which nobody asked for: as a write that went astray does, or
    /// whoever mends what one did. What lies beyond the file's end is left out.
    pub fn overwrite(&self, host: &SimHost, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inode = self
            .world
            .with_machine(host.machine(), |machine| machine.tree.file(path))?;
        inode.borrow_mut().overwrite(offset, bytes);
        self.world.count("bytes put over others");
        self.world
            .record("overwrite", &[host.machine().0 as u64, offset, world::digest(bytes)]);
        Ok(())
    }

    /// Bytes that a machine's files have together.
    pub fn used_bytes(&self, host: &SimHost) -> u64 {
        self.world.with_machine(host.machine(), |machine| machine.used_bytes())
    }

    /// How often what went wrong until now, by the fault's name.
    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.world.injected()
    }

    /// A hash of all that has happened: equal for equal seeds and equal programs.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// Keeps a line for each thing that happens, from now on, for [`Sim::take_log`].
    pub fn keep_log(&self) {
        self.world.keep_log();
    }

    /// The lines kept since the last call.
    pub fn take_log(&self) -> Vec<String> {
        self.world.take_log()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.clear();
    }
}

#[cfg(test)]
mod tests;
