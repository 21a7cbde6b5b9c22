//! Executors: one thread pinned to one core, with glommio's rings, a guard timer, and the host that tasks see.
//!
//! glommio can park although a task is ready to run (its loop reports "nothing ran" when it was due to yield before the
//! first task), and then sleeps until something happens on a ring. The guard timer makes something happen: a lost
//! wake-up costs one period instead of for ever. It never spins, and a parked executor costs 0.4 % of a core for it.

use std::{
    cell::Cell,
    future::Future,
    io, process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement, timer};

use super::{disk::RingDisk, enter, net::RingNet, setup, system};
use crate::{
    base::{Monotonic, WallTime},
    host::Host,
};

/// Period of the guard timer: the longest that a lost wake-up can last.
pub const GUARD_PERIOD: Duration = Duration::from_millis(10);
/// A guard tick later than this after its time is counted: the core was held too long, or taken away.
pub const GUARD_LATE: Duration = Duration::from_millis(5);
/// Entries of each ring (glommio's default; `setup` recognises the main ring by it).
const RING_ENTRIES: usize = 128;
/// Registered memory of an executor, for direct writes; what does not fit comes from the heap. glommio registers it with
/// each of its three rings, and two executors then still fit the usual unprivileged limit of 8 MiB.
pub const IO_MEMORY_BYTES: usize = 1 << 20;

const _: () = assert!(IO_MEMORY_BYTES >= 1 << 20 && IO_MEMORY_BYTES <= 4 << 20);

/// How an executor is made.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// Name of its thread.
    pub name: String,
    /// Core that its thread is pinned to; `None` leaves it to the scheduler (tests).
    pub core: Option<usize>,
}

/// How an executor has been doing; shared with whoever shows metrics.
#[derive(Debug, Default)]
pub struct ExecutorStats {
    guard_ticks: AtomicU64,
    guard_ticks_late: AtomicU64,
    guard_late_nanos_max: AtomicU64,
}

impl ExecutorStats {
    /// Guard ticks so far.
    pub fn guard_ticks(&self) -> u64 {
        self.guard_ticks.load(Ordering::Relaxed)
    }

    /// Guard ticks that came more than [`GUARD_LATE`] after their time.
    pub fn guard_ticks_late(&self) -> u64 {
        self.guard_ticks_late.load(Ordering::Relaxed)
    }

    /// The latest that a guard tick came after its time.
    pub fn guard_late_max(&self) -> Duration {
        Duration::from_nanos(self.guard_late_nanos_max.load(Ordering::Relaxed))
    }

    fn record_tick(&self, late: Duration) {
        self.guard_ticks.fetch_add(1, Ordering::Relaxed);
        if late > GUARD_LATE {
            self.guard_ticks_late.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.guard_late_nanos_max.fetch_max(nanos, Ordering::Relaxed);
    }
}

/// An executor that runs on a thread of its own.
pub struct Executor<T> {
    thread: thread::JoinHandle<io::Result<T>>,
    stats: Arc<ExecutorStats>,
}

impl<T> Executor<T> {
    /// How it has been doing.
    pub fn stats(&self) -> &Arc<ExecutorStats> {
        &self.stats
    }

    /// Whether its main future has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the executor's main future. A panic there is passed on.
    pub fn join(self) -> io::Result<T> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside an executor, so that tasks can be spawned.
pub(super) fn is_running() -> bool {
    IS_RUNNING.get()
}

/// Starts an executor on a thread of its own and runs `main` there to its end; tasks that still run then are dropped.
/// glommio leaks a descriptor per executor, so they are made once, when the process starts.
pub fn spawn<F, T>(config: ExecutorConfig, main: impl FnOnce(RingHost) -> F + Send + 'static) -> io::Result<Executor<T>>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let stats = Arc::new(ExecutorStats::default());
    let shared = Arc::clone(&stats);
    let thread = thread::Builder::new()
        .name(config.name.clone())
        .spawn(move || run_here(&config, &shared, main))?;
    Ok(Executor { thread, stats })
}

/// Runs an executor on this thread until `main` ends.
pub fn run_here<F, T>(
    config: &ExecutorConfig,
    stats: &Arc<ExecutorStats>,
    main: impl FnOnce(RingHost) -> F,
) -> io::Result<T>
where
    F: Future<Output = T> + 'static,
    T: 'static,
{
    setup::expect_rings(RING_ENTRIES as u32);
    let made = LocalExecutorBuilder::new(config.core.map_or(Placement::Unbound, Placement::Fixed))
        .name(&config.name)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_ENTRIES)
        // Beside the pinned core rather than on it: what blocks should not take turns with what must not wait.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make();
    setup::expect_no_ring();
    let executor = made.map_err(|error| io::Error::other(format!("cannot make an io_uring executor: {error}")))?;

    let host = RingHost::new();
    let guard = guard_loop(Arc::clone(stats));
    IS_RUNNING.set(true);
    let result = executor.run(async move {
        glommio::spawn_local(guard).detach();
        main(host).await
    });
    IS_RUNNING.set(false);
    Ok(result)
}

async fn guard_loop(stats: Arc<ExecutorStats>) {
    loop {
        let due = Instant::now() + GUARD_PERIOD;
        timer::sleep(GUARD_PERIOD).await;
        stats.record_tick(due.elapsed());
    }
}

/// The machine as seen by one executor's tasks. Made by [`spawn`] and [`run_here`]; clones are cheap.
///
/// glommio counts the wakers of a task in 16 bits and panics at the 32,768th: a task is to be waited on through few
/// wakers (one per connection, never one per request or watcher).
#[derive(Clone)]
pub struct RingHost {
    disk: RingDisk,
    net: RingNet,
    origin: Instant,
}

impl RingHost {
    /// Has this thread's executor look for work for so long before it sleeps, where few sockets keep it busy. It does not
    /// at all until it is told so.
    pub fn watch_for(&self, longest: Duration) {
        enter::watch_for(longest);
    }

    fn new() -> RingHost {
        RingHost {
            disk: RingDisk::new(),
            net: RingNet::new(),
            origin: time_origin(),
        }
    }
}

/// Where monotonic time starts: one origin for all hosts of the process, so that cores can compare times.
pub(super) fn time_origin() -> Instant {
    use std::sync::OnceLock;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Nanoseconds from `origin` to now.
pub(super) fn monotonic_since(origin: Instant) -> Monotonic {
    Monotonic(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The machine's time of day; the epoch itself for a clock set before it.
pub(super) fn machine_wall_time() -> WallTime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A number from the operating system's generator. Without one there are no safe ids or timeouts: the process ends.
pub(super) fn machine_random() -> u64 {
    let mut bytes = [0; 8];
    system::random(&mut bytes).expect("the operating system gives random numbers");
    u64::from_ne_bytes(bytes)
}

/// Ends the process if dropped while a panic unwinds.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("a task panicked; the process ends");
            process::abort();
        }
    }
}

impl Host for RingHost {
    type Disk = RingDisk;
    type Net = RingNet;

    fn disk(&self) -> &RingDisk {
        &self.disk
    }

    fn net(&self) -> &RingNet {
        &self.net
    }

    fn now(&self) -> Monotonic {
        monotonic_since(self.origin)
    }

    fn wall_time(&self) -> WallTime {
        machine_wall_time()
    }

    fn sleep_until(&self, at: Monotonic) -> impl Future<Output = ()> + 'static {
        let delay = at.since(self.now());
        async move {
            if !delay.is_zero() {
                timer::sleep(delay).await;
            }
        }
    }

    // An `async fn` would borrow the host for as long as it waits.
    #[expect(clippy::manual_async_fn)]
    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        async {
            // While a task is ready the executor looks at its rings only when it is preempted.
            super::enter::rest();
            futures_lite::future::yield_now().await;
        }
    }

    fn random_u64(&self) -> u64 {
        machine_random()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(async move {
            let _guard = AbortOnPanic;
            task.await;
        })
        .detach();
    }
}

/// Runs a test on an executor of its own, unpinned.
#[cfg(test)]
pub(crate) fn run_test<F, T>(main: impl FnOnce(RingHost) -> F + Send + 'static) -> T
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let config = ExecutorConfig {
        name: "test".to_owned(),
        core: None,
    };
    spawn(config, main).expect("a thread").join().expect("an executor")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::host::{Notify, mailbox};

    #[test]
    fn the_main_ring_of_each_executor_has_the_flag_that_glommio_does_not_ask_for() {
        let before = setup::rings();
        run_test(|_| async {});
        let after = setup::rings();
        // Other tests make executors meanwhile, all alike.
        assert!(
            after.0 > before.0,
            "{before:?} {after:?}: kernels from 5.19 on take the flag"
        );
        assert_eq!(after.1, 0);
    }

    #[test]
    fn sleeps_end_after_their_time_and_not_much_later() {
        run_test(|host| async move {
            for millis in [0, 1, 5, 30] {
                let at = host.now() + Duration::from_millis(millis);
                host.sleep_until(at).await;
                let late = host.now().since(at);
                assert!(host.now() >= at);
                assert!(late < Duration::from_secs(5), "{millis} ms: late by {late:?}");
            }
            assert!(host.wall_time().unix_millis() > 1_600_000_000_000);
            assert_ne!(host.random_u64(), host.random_u64());
        });
    }

    #[test]
    fn the_guard_ticks_and_a_held_core_is_counted() {
        let config = ExecutorConfig {
            name: "test".to_owned(),
            core: None,
        };
        let executor = spawn(config, |host| async move {
            host.sleep_until(host.now() + Duration::from_millis(50)).await;
            thread::sleep(Duration::from_millis(40));
            host.sleep_until(host.now() + Duration::from_millis(30)).await;
        })
        .unwrap();
        let stats = Arc::clone(executor.stats());
        executor.join().unwrap();
        assert!(stats.guard_ticks() >= 3);
        assert!(stats.guard_ticks_late() >= 1);
        assert!(stats.guard_late_max() >= Duration::from_millis(20));
    }

    #[test]
    fn spawned_tasks_run_beside_each_other() {
        run_test(|host| async move {
            let ping = Rc::new(Notify::new());
            let pong = Rc::new(Notify::new());
            let pings = Rc::new(Cell::new(0));
            let (task_ping, task_pong, task_pings) = (Rc::clone(&ping), Rc::clone(&pong), Rc::clone(&pings));
            host.spawn(async move {
                for _ in 0..1000 {
                    task_ping.notified().await;
                    task_pings.set(task_pings.get() + 1);
                    task_pong.notify();
                }
            });
            for round in 0..1000 {
                assert_eq!(pings.get(), round);
                ping.notify();
                pong.notified().await;
            }
            assert_eq!(pings.get(), 1000);
        });
    }

    #[test]
    fn messages_cross_between_executors_in_both_directions() {
        let (mut to_echo, mut from_home) = mailbox::<u32>(16);
        let (mut to_home, mut from_echo) = mailbox::<u32>(16);
        let config = ExecutorConfig {
            name: "echo".to_owned(),
            core: None,
        };
        let echo = spawn(config, |_| async move {
            while let Some(number) = from_home.receive().await {
                to_home.send(number).await.expect("home lives");
            }
        })
        .unwrap();
        run_test(|_| async move {
            for number in 0..2000 {
                to_echo.send(number).await.expect("echo lives");
                assert_eq!(from_echo.receive().await, Some(number));
            }
        });
        echo.join().unwrap();
    }
}
