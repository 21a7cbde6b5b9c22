//! Links that carry plain values between simulated machines, as datagrams: each arrives once or not at all, late or in
//! its time, in order or not, as the faults say. What a cut lies in the way of, or a machine that is down, is lost.
//!
//! Bytes have [`SimNet`](super::SimNet), whose connections keep TCP's promises; here nothing is promised, which is what a
//! protocol that is to live with loss should be shown first.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use super::{
    Sim,
    host::SimHost,
    world::{MachineId, World},
};

/// What goes wrong on links, shares of what is sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkFaults {
    /// Lost without a word.
    pub loss: f64,
    /// Late.
    pub delay: f64,
    /// How late at most.
    pub delay_for: Duration,
    /// Whether what is late may be overtaken.
    pub is_unordered: bool,
}

/// Addresses, and who listens there.
pub struct Links<T> {
    world: Rc<World>,
    listeners: RefCell<BTreeMap<u64, Listener<T>>>,
    faults: RefCell<LinkFaults>,
    /// When what was sent last from one machine to another arrives.
    arrivals: RefCell<BTreeMap<(MachineId, MachineId), u64>>,
    lost: Cell<u64>,
}

struct Listener<T> {
    machine: MachineId,
    incarnation: u64,
    deliver: Rc<dyn Fn(T)>,
}

impl<T> Clone for Listener<T> {
    fn clone(&self) -> Listener<T> {
        Listener {
            machine: self.machine,
            incarnation: self.incarnation,
            deliver: Rc::clone(&self.deliver),
        }
    }
}

impl<T: 'static> Links<T> {
    /// Links between the machines of a simulation, without faults.
    pub fn new(sim: &Sim) -> Rc<Links<T>> {
        Rc::new(Links {
            world: Rc::clone(&sim.world),
            listeners: RefCell::default(),
            faults: RefCell::default(),
            arrivals: RefCell::default(),
            lost: Cell::new(0),
        })
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: LinkFaults) {
        *self.faults.borrow_mut() = faults;
    }

    /// Values that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// What is sent to `address` goes to this life of a machine from now on.
    pub fn listen(&self, host: &SimHost, address: u64, deliver: impl Fn(T) + 'static) {
        let listener = Listener {
            machine: host.machine(),
            incarnation: host.incarnation(),
            deliver: Rc::new(deliver),
        };
        self.listeners.borrow_mut().insert(address, listener);
    }

    /// Sends a value off. `on_obstacle` is called when the sender could notice that it did not arrive: the way is cut, or
    /// nobody is there. `digest` stands for the value in the trace.
    pub fn send(
        self: &Rc<Self>,
        from: &SimHost,
        address: u64,
        value: T,
        digest: u64,
        on_obstacle: impl FnOnce() + 'static,
    ) {
        let faults = self.faults.borrow().clone();
        let Some(machine) = self.listeners.borrow().get(&address).map(|listener| listener.machine) else {
            return self.lose(from.clone(), on_obstacle);
        };
        let is_lost = self.world.strikes("message lost", faults.loss);
        let range = self.world.timing.borrow().wire_nanos.clone();
        let mut nanos = self.world.chaos.borrow_mut().within(range);
        if self.world.strikes("late message", faults.delay) {
            let late = self
                .world
                .chaos
                .borrow_mut()
                .below(faults.delay_for.as_nanos() as u64 + 1);
            nanos += late;
        }
        self.world.record(
            "link_sent",
            &[from.machine().0 as u64, machine.0 as u64, digest, u64::from(is_lost)],
        );
        if is_lost {
            self.lost.set(self.lost.get() + 1);
            return;
        }
        let mut at = self.world.now_nanos() + nanos;
        if !faults.is_unordered {
            let mut arrivals = self.arrivals.borrow_mut();
            let last = arrivals.entry((from.machine(), machine)).or_default();
            at = at.max(*last);
            *last = at;
        }
        let (this, from) = (Rc::clone(self), from.clone());
        self.world
            .at(at, move |_| this.arrive(&from, address, value, digest, on_obstacle));
    }

    fn arrive(
        self: &Rc<Self>,
        from: &SimHost,
        address: u64,
        value: T,
        digest: u64,
        on_obstacle: impl FnOnce() + 'static,
    ) {
        let listener = self.listeners.borrow().get(&address).cloned();
        let is_open = |listener: &Listener<T>| {
            self.world.is_alive(listener.machine, listener.incarnation)
                && !self.world.is_cut(from.machine(), listener.machine)
        };
        match listener.filter(is_open) {
            Some(listener) => {
                self.world.record("link_arrived", &[listener.machine.0 as u64, digest]);
                (listener.deliver)(value);
            }
            None => self.lose(from.clone(), on_obstacle),
        }
    }

    fn lose(&self, from: SimHost, on_obstacle: impl FnOnce() + 'static) {
        self.lost.set(self.lost.get() + 1);
        self.world.record("link_obstacle", &[from.machine().0 as u64]);
        if from.is_alive() {
            on_obstacle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_in_order_unless_told_otherwise_and_are_lost_at_cuts_and_ends() {
        let sim = Sim::new(5);
        let (one, two) = (sim.host("one"), sim.host("two"));
        let links: Rc<Links<u64>> = Links::new(&sim);
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let inbox = arrived.clone();
        links.listen(&two, 2, move |value| inbox.borrow_mut().push(value));
        let obstacles = Rc::new(Cell::new(0));
        let send = |value| {
            let obstacles = obstacles.clone();
            links.send(&one, 2, value, value, move || obstacles.set(obstacles.get() + 1));
        };
        let late = LinkFaults {
            delay: 0.5,
            delay_for: Duration::from_millis(10),
            ..LinkFaults::default()
        };
        links.set_faults(late.clone());
        (0..100).for_each(send);
        sim.run_for(Duration::from_millis(50));
        assert_eq!(*arrived.borrow(), (0..100).collect::<Vec<u64>>());

        links.set_faults(LinkFaults {
            is_unordered: true,
            loss: 0.2,
            ..late
        });
        arrived.borrow_mut().clear();
        (0..100).for_each(send);
        sim.run_for(Duration::from_millis(50));
        assert!((60..95).contains(&arrived.borrow().len()), "{}", arrived.borrow().len());
        assert!(!arrived.borrow().is_sorted());

        links.set_faults(LinkFaults::default());
        sim.cut(&one, &two);
        send(1);
        sim.run_for(Duration::from_millis(50));
        sim.mend(&one, &two);
        sim.crash(&two);
        send(2);
        sim.run_for(Duration::from_millis(50));
        assert_eq!(obstacles.get(), 2);
    }
}
