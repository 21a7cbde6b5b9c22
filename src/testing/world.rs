//! The simulation's heart: virtual time, tasks, and the order in which things happen, all drawn from the seed.
//!
//! One turn: events whose time has come happen, in the order of their times; then one of the ready tasks, chosen by the
//! seed, is polled, which takes a little time. With no task ready, time jumps to the next event. Everything that happens
//! goes into the trace hash: two runs with one seed have one hash, or something outside the seed leaked in.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::{
    faults::{Clock, Faults, Timing},
    net::Network,
    random::Random,
    trap::Trap,
    tree::{Inode, Tree},
};

/// A machine, by its place in the order in which they were named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineId(pub(super) usize);

/// The task that a run waits for; it belongs to no machine.
pub(super) const MAIN_TASK: u64 = 0;
/// A stretch of simulated time, in nanoseconds,
const STRETCH_NANOS: u64 = 10_000_000_000;
/// and the turns in one after which a run is given up: something goes round without ever waiting. Busy seeds come to a
/// fifth of it.
const TURNS_MAX: u64 = 3_000_000;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A file and the lock on it.
type Lingering = (Inode, (u64, u64));

/// A simulated machine.
pub(super) struct Machine {
    pub name: String,
    /// Which of its lives this is; a crash begins the next.
    pub incarnation: u64,
    /// How often its power has failed.
    pub boot: u64,
    /// Whether its process runs.
    pub is_up: bool,
    /// Whether its system runs, and answers for sockets.
    pub is_powered: bool,
    pub is_paused: bool,
    /// Tasks that became ready while it was paused.
    pub parked: Vec<u64>,
    pub clock: Clock,
    /// Reading of its monotonic clock, and the simulation's time, when the drift last changed.
    pub clock_base: (u64, u64),
    pub faults: Faults,
    /// Where its power is to fail.
    pub trap: Option<Trap>,
    pub random: Random,
    pub tree: Tree,
    pub next_handle: u64,
    pub next_write: u64,
    pub next_port: u16,
    /// Operations on files that have not ended, of each life.
    pub under_way: BTreeMap<u64, u64>,
    /// Locks of lives that were killed, held until the last of those has ended.
    pub lingering: BTreeMap<u64, Vec<Lingering>>,
}

struct Task {
    owner: Option<(MachineId, u64)>,
    // Taken out while it is polled.
    future: Option<LocalFuture>,
    waker: Waker,
    flag: Arc<TaskFlag>,
}

struct TaskFlag {
    id: u64,
    is_queued: AtomicBool,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().expect("no panic while it is held").push(self.id);
        }
    }
}

/// An event's place in time; unique.
pub(super) type EventKey = (u64, u64);
type Event = Box<dyn FnOnce(&World)>;

/// Everything there is.
pub(super) struct World {
    now_nanos: Cell<u64>,
    next_event: Cell<u64>,
    next_task: Cell<u64>,
    /// Turns in the stretch that ends then.
    turns: Cell<u64>,
    stretch_end: Cell<u64>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Mutex<Vec<u64>>>,
    runnable: RefCell<Vec<u64>>,
    schedule: RefCell<Random>,
    /// Faults and durations are drawn from here.
    pub chaos: RefCell<Random>,
    seeds: RefCell<Random>,
    pub machines: RefCell<Vec<Machine>>,
    pub timing: RefCell<Timing>,
    pub network: RefCell<Network>,
    trace: Cell<u64>,
    log: RefCell<Option<Vec<String>>>,
    /// How often what went wrong.
    injected: RefCell<BTreeMap<&'static str, u64>>,
}

/// What one turn came to.
pub(super) enum Turn {
    /// The main task is due.
    Main,
    /// Something else happened.
    Other,
    /// Nothing is ready, and nothing is to come.
    Stalled,
}

impl World {
    pub fn new(seed: u64) -> Rc<World> {
        let mut random = Random::new(seed);
        let (schedule, chaos, seeds) = (random.fork(1), random.fork(2), random.fork(3));
        Rc::new(World {
            now_nanos: Cell::new(0),
            next_event: Cell::new(0),
            next_task: Cell::new(MAIN_TASK + 1),
            turns: Cell::new(0),
            stretch_end: Cell::new(0),
            events: RefCell::default(),
            tasks: RefCell::default(),
            ready: Arc::default(),
            runnable: RefCell::default(),
            schedule: RefCell::new(schedule),
            chaos: RefCell::new(chaos),
            seeds: RefCell::new(seeds),
            machines: RefCell::default(),
            timing: RefCell::default(),
            network: RefCell::default(),
            trace: Cell::new(seed),
            log: RefCell::new(None),
            injected: RefCell::default(),
        })
    }

    pub fn now_nanos(&self) -> u64 {
        self.now_nanos.get()
    }

    /// The machine of a name, made if it is new.
    pub fn machine(&self, name: &str) -> MachineId {
        let mut machines = self.machines.borrow_mut();
        if let Some(place) = machines.iter().position(|machine| machine.name == name) {
            return MachineId(place);
        }
        let place = machines.len();
        machines.push(Machine {
            name: name.to_owned(),
            incarnation: 0,
            boot: 0,
            is_up: true,
            is_powered: true,
            is_paused: false,
            parked: Vec::new(),
            clock: Clock::default(),
            clock_base: (0, 0),
            faults: Faults::default(),
            trap: None,
            random: self.seeds.borrow_mut().fork(place as u64),
            tree: Tree::default(),
            next_handle: 0,
            next_write: 0,
            next_port: 20_000,
            under_way: BTreeMap::new(),
            lingering: BTreeMap::new(),
        });
        MachineId(place)
    }

    pub fn with_machine<T>(&self, id: MachineId, act: impl FnOnce(&mut Machine) -> T) -> T {
        act(&mut self.machines.borrow_mut()[id.0])
    }

    /// Whether that life of a machine goes on.
    pub fn is_alive(&self, id: MachineId, incarnation: u64) -> bool {
        self.with_machine(id, |machine| machine.is_up && machine.incarnation == incarnation)
    }

    /// Takes note of something that happened.
    pub fn record(&self, what: &'static str, numbers: &[u64]) {
        let mut hash = self.trace.get() ^ self.now_nanos.get();
        for byte in what.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        for &number in numbers {
            hash = (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.trace.set(hash);
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.push(format!("{:>12} {what} {numbers:?}", self.now_nanos.get()));
        }
    }

    /// Counts a fault that happens now.
    pub fn count(&self, fault: &'static str) {
        *self.injected.borrow_mut().entry(fault).or_default() += 1;
    }

    /// Whether a fault of that share happens now.
    pub fn strikes(&self, fault: &'static str, share: f64) -> bool {
        let strikes = self.chaos.borrow_mut().chance(share);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    pub fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.injected.borrow().clone()
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.get()
    }

    pub fn keep_log(&self) {
        self.log.borrow_mut().get_or_insert_default();
    }

    pub fn take_log(&self) -> Vec<String> {
        self.log.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Lets something happen at a time; what has been waiting longest for one time happens first.
    pub fn at(&self, nanos: u64, event: impl FnOnce(&World) + 'static) -> EventKey {
        let number = self.next_event.get();
        self.next_event.set(number + 1);
        let key = (nanos.max(self.now_nanos.get()), number);
        self.events.borrow_mut().insert(key, Box::new(event));
        key
    }

    pub fn after(&self, nanos: u64, event: impl FnOnce(&World) + 'static) -> EventKey {
        self.at(self.now_nanos.get().saturating_add(nanos), event)
    }

    pub fn cancel(&self, key: EventKey) {
        let event = self.events.borrow_mut().remove(&key);
        // Outside the borrow: what it holds may cancel others when dropped.
        drop(event);
    }

    fn new_flag(&self, id: u64) -> (Arc<TaskFlag>, Waker) {
        let flag = Arc::new(TaskFlag {
            id,
            is_queued: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        flag.wake_by_ref();
        (Arc::clone(&flag), Waker::from(flag))
    }

    /// A waker for the main task, which is ready from the start.
    pub fn main_waker(&self) -> MainWaker {
        let (flag, waker) = self.new_flag(MAIN_TASK);
        MainWaker { flag, waker }
    }

    pub fn spawn(&self, owner: Option<(MachineId, u64)>, future: LocalFuture) {
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        let (flag, waker) = self.new_flag(id);
        let future = Some(future);
        let task = Task {
            owner,
            future,
            waker,
            flag,
        };
        self.tasks.borrow_mut().insert(id, task);
    }

    /// Ends all tasks of a machine's life. Their destructors run here.
    pub fn end_tasks(&self, owner: (MachineId, u64)) {
        let mut ended = Vec::new();
        self.tasks.borrow_mut().retain(|_, task| {
            if task.owner != Some(owner) {
                return true;
            }
            ended.extend(task.future.take());
            false
        });
        drop(ended);
    }

    /// Makes one thing happen.
    pub fn turn(&self) -> Turn {
        if self.now_nanos.get() >= self.stretch_end.get() {
            self.stretch_end.set(self.now_nanos.get() + STRETCH_NANOS);
            self.turns.set(0);
        }
        self.turns.set(self.turns.get() + 1);
        assert!(
            self.turns.get() < TURNS_MAX,
            "{TURNS_MAX} turns in ten seconds: something goes round without waiting"
        );
        self.fire_due();
        if let Some(id) = self.choose_ready() {
            let nanos = self.timing.borrow().turn_nanos;
            self.now_nanos.set(self.now_nanos.get() + nanos);
            if id == MAIN_TASK {
                self.record("main", &[]);
                return Turn::Main;
            }
            self.poll(id);
            return Turn::Other;
        }
        let next = self.events.borrow().keys().next().copied();
        match next {
            Some((nanos, _)) => {
                self.now_nanos.set(nanos.max(self.now_nanos.get()));
                Turn::Other
            }
            None => Turn::Stalled,
        }
    }

    fn fire_due(&self) {
        loop {
            let mut events = self.events.borrow_mut();
            match events.first_entry() {
                Some(first) if first.key().0 <= self.now_nanos.get() => {
                    let event = first.remove();
                    drop(events);
                    event(self);
                }
                _ => return,
            }
        }
    }

    fn choose_ready(&self) -> Option<u64> {
        let mut runnable = self.runnable.borrow_mut();
        loop {
            runnable.append(&mut self.ready.lock().expect("no panic while it is held"));
            if runnable.is_empty() {
                return None;
            }
            let place = self.schedule.borrow_mut().index(runnable.len());
            let id = runnable.swap_remove(place);
            if !self.park_if_paused(id) {
                return Some(id);
            }
        }
    }

    fn park_if_paused(&self, id: u64) -> bool {
        let owner = self.tasks.borrow().get(&id).and_then(|task| task.owner);
        owner.is_some_and(|(machine, _)| {
            self.with_machine(machine, |machine| {
                if machine.is_paused {
                    machine.parked.push(id);
                }
                machine.is_paused
            })
        })
    }

    /// Lets a paused machine's tasks go on.
    pub fn resume(&self, id: MachineId) {
        let mut parked = self.with_machine(id, |machine| {
            machine.is_paused = false;
            std::mem::take(&mut machine.parked)
        });
        self.runnable.borrow_mut().append(&mut parked);
    }

    fn poll(&self, id: u64) {
        let taken = self.tasks.borrow_mut().get_mut(&id).and_then(|task| {
            task.flag.is_queued.store(false, Ordering::Relaxed);
            Some((task.future.take()?, task.waker.clone()))
        });
        // A task that has ended may have been woken before.
        let Some((mut future, waker)) = taken else {
            return;
        };
        self.record("poll", &[id]);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            let ended = self.tasks.borrow_mut().remove(&id);
            drop(ended);
            return;
        }
        // The machine may have crashed meanwhile, and its tasks with it.
        let mut left = Some(future);
        if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
            task.future = left.take();
        }
        drop(left);
    }

    /// Takes everything down: tasks and events hold the world that holds them.
    pub fn clear(&self) {
        let events = std::mem::take(&mut *self.events.borrow_mut());
        drop(events);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let network = std::mem::take(&mut *self.network.borrow_mut());
        drop(network);
    }
}

/// The main task's waker and flag.
pub(super) struct MainWaker {
    flag: Arc<TaskFlag>,
    waker: Waker,
}

impl MainWaker {
    pub fn poll<F: Future>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        self.flag.is_queued.store(false, Ordering::Relaxed);
        future.poll(&mut Context::from_waker(&self.waker))
    }
}

/// A hash of bytes, for the trace.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    (bytes.len() as u64) << 32 | u64::from(crc32c::crc32c(bytes))
}

/// A wait that an event ends; dropped, it takes the event back.
pub(super) struct Wait {
    world: Rc<World>,
    nanos: u64,
    armed: Option<(EventKey, Rc<RefCell<Waker>>)>,
}

impl Wait {
    /// Until the simulation's time is `nanos`.
    pub fn until(world: &Rc<World>, nanos: u64) -> Wait {
        Wait {
            world: Rc::clone(world),
            nanos,
            armed: None,
        }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now_nanos() >= self.nanos {
            return Poll::Ready(());
        }
        match &self.armed {
            Some((_, waker)) => waker.borrow_mut().clone_from(context.waker()),
            None => {
                let waker = Rc::new(RefCell::new(context.waker().clone()));
                let shared = Rc::clone(&waker);
                let key = self.world.at(self.nanos, move |_| shared.borrow().wake_by_ref());
                self.armed = Some((key, waker));
            }
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some((key, _)) = self.armed.take() {
            self.world.cancel(key);
        }
    }
}

/// The outcome of an operation that goes on even if nobody waits for it.
pub(super) struct Outcome<T> {
    result: Option<T>,
    waker: Option<Waker>,
}

impl<T> Outcome<T> {
    pub fn new() -> Rc<RefCell<Outcome<T>>> {
        Rc::new(RefCell::new(Outcome {
            result: None,
            waker: None,
        }))
    }

    pub fn set(this: &Rc<RefCell<Outcome<T>>>, result: T) {
        let waker = {
            let mut this = this.borrow_mut();
            this.result = Some(result);
            this.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub async fn get(this: Rc<RefCell<Outcome<T>>>) -> T {
        std::future::poll_fn(|context| {
            let mut this = this.borrow_mut();
            match this.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    this.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
