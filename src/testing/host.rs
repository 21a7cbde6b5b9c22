//! One life of a simulated machine, as its tasks see it. After a crash the handle is dead: what it began never ends, and
//! what it spawns never runs.

use std::{future::Future, rc::Rc};

use super::{
    disk::SimDisk,
    net::SimNet,
    world::{Machine, MachineId, Wait, World},
};
use crate::{
    base::{Monotonic, WallTime},
    host::Host,
};

/// Time of day when a simulation begins: 2023-11-14 22:13:20 UTC.
const WALL_START_NANOS: u64 = 1_700_000_000_000_000_000;

/// A machine's host. Several cores of one machine share it.
#[derive(Clone)]
pub struct SimHost {
    world: Rc<World>,
    machine: MachineId,
    incarnation: u64,
    disk: SimDisk,
    net: SimNet,
}

impl SimHost {
    pub(super) fn new(world: &Rc<World>, machine: MachineId) -> SimHost {
        let (incarnation, boot) = world.with_machine(machine, |machine| (machine.incarnation, machine.boot));
        SimHost {
            world: Rc::clone(world),
            machine,
            incarnation,
            disk: SimDisk {
                world: Rc::clone(world),
                machine,
                incarnation,
                boot,
            },
            net: SimNet {
                world: Rc::clone(world),
                machine,
                incarnation,
            },
        }
    }

    /// Which machine this is.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether this life of the machine goes on.
    pub fn is_alive(&self) -> bool {
        self.world.is_alive(self.machine, self.incarnation)
    }
}

impl Machine {
    /// Its monotonic clock at a time of the simulation.
    pub fn clock_nanos(&self, now_nanos: u64) -> u64 {
        let (reading, since) = self.clock_base;
        let passed = u128::from(now_nanos - since);
        let rate = (1_000_000 + i64::from(self.clock.drift_ppm)).max(1) as u128;
        reading + u64::try_from(passed * rate / 1_000_000).unwrap_or(u64::MAX)
    }

    /// When, in the simulation's time, its clock will have come to `reading`, at its present rate.
    pub fn nanos_of_clock(&self, reading: u64, now_nanos: u64) -> u64 {
        let left = u128::from(reading.saturating_sub(self.clock_nanos(now_nanos)));
        let rate = (1_000_000 + i64::from(self.clock.drift_ppm)).max(1) as u128;
        now_nanos.saturating_add(u64::try_from((left * 1_000_000).div_ceil(rate)).unwrap_or(u64::MAX))
    }
}

impl Host for SimHost {
    type Disk = SimDisk;
    type Net = SimNet;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn net(&self) -> &SimNet {
        &self.net
    }

    fn now(&self) -> Monotonic {
        let now = self.world.now_nanos();
        Monotonic(
            self.world
                .with_machine(self.machine, |machine| machine.clock_nanos(now)),
        )
    }

    fn wall_time(&self) -> WallTime {
        let offset = self
            .world
            .with_machine(self.machine, |machine| machine.clock.wall_offset_nanos);
        WallTime((WALL_START_NANOS + self.now().0).saturating_add_signed(offset))
    }

    fn sleep_until(&self, at: Monotonic) -> impl Future<Output = ()> + 'static {
        let host = self.clone();
        async move {
            // Looked at again after waking: the clock may have been slowed down meanwhile.
            while host.now() < at {
                let now = host.world.now_nanos();
                let nanos = host
                    .world
                    .with_machine(host.machine, |machine| machine.nanos_of_clock(at.0, now));
                Wait::until(&host.world, nanos).await;
            }
        }
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        futures_lite::future::yield_now()
    }

    fn random_u64(&self) -> u64 {
        self.world
            .with_machine(self.machine, |machine| machine.random.next_u64())
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.is_alive() {
            self.world.spawn(Some((self.machine, self.incarnation)), Box::pin(task));
        }
    }
}
