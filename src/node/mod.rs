//! Process life: cores and the threads on them, signals, panics, the data directory, accepting.
//!
//! ```text
//!   main ─▶ abort_on_panic ─▶ Signals::install ─▶ DataDirectory::open ─▶ start(cores, home, front, store)
//!              home core:   executor, `home(RingHost, Stop)`       ends when it likes; its end begins the stop
//!              fronts:      executor each, `front(RingHost, Stop)`
//!              store:       thread, `store(ThreadHost, Stop)`
//!   SIGTERM, SIGINT ─▶ Stop ─▶ everybody ends ─▶ join ─▶ Signals::end
//! ```
//!
//! What runs on the cores is given by the caller; nothing here knows requests, raft or files of the database.

pub mod bench;
pub mod directory;
pub mod doctor;
mod lines;
pub mod panic;
pub mod run;
pub mod signals;

use std::{future::Future, io, thread};

use crate::ring::{
    RingHost, ThreadHost,
    executor::{self, Executor, ExecutorConfig},
    placement::{self, CoreSet, Placement},
};

pub use crate::server::{AcceptConfig, Stop, serve};
pub use directory::DataDirectory;
pub use panic::abort_on_panic;
pub use signals::Signals;

/// Which core does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The core of raft, the log, apply and accepting; `None` leaves its thread unpinned (tests).
    pub home: Option<usize>,
    /// Cores that take connections from `home`.
    pub fronts: Vec<usize>,
    /// Cores that the store thread keeps to; empty leaves it where this thread may run.
    pub store: Vec<usize>,
}

/// Cores that take connections unless the operator says otherwise, at most: with more of them home would be what
/// limits, since framing and sockets cost about as much as all that home does for a request.
const FRONTS_MAX: usize = 4;

impl Cores {
    /// Roles of the cores of a placement, with so many fronts (`--fronts`). The store thread keeps off the home core where
    /// there is another, since its writes would take turns with the log's, and off the fronts where there is one more.
    ///
    /// # Errors
    /// A sentence for the operator, when there are not so many cores.
    pub fn new(placement: Placement, fronts: Option<usize>) -> Result<Cores, String> {
        let mut store = placement.others;
        let count = fronts.unwrap_or(store.len().saturating_sub(1).min(FRONTS_MAX));
        if count > store.len() {
            return Err(format!(
                "--fronts={count}, and there are {} cores besides the first (--cores)",
                store.len()
            ));
        }
        let mut fronts = store.split_off(store.len() - count);
        if store.is_empty() {
            store.clone_from(&fronts);
        }
        fronts.sort_unstable();
        Ok(Cores {
            home: Some(placement.home),
            fronts,
            store,
        })
    }
}

/// The threads of a running node.
pub struct Node {
    home: Executor<()>,
    fronts: Vec<Executor<()>>,
    store: thread::JoinHandle<()>,
    stop: Stop,
}

/// Starts the executors and the store thread. `home` and each of `fronts`, in the order of their cores, run as the main
/// future of their executor: when it ends, the tasks of that core are dropped.
pub fn start<HomeTask, FrontTask, StoreTask>(
    cores: &Cores,
    stop: &Stop,
    home: impl FnOnce(RingHost, Stop) -> HomeTask + Send + 'static,
    fronts: Vec<impl FnOnce(RingHost, Stop) -> FrontTask + Send + 'static>,
    store: impl FnOnce(ThreadHost, Stop) -> StoreTask + Send + 'static,
) -> io::Result<Node>
where
    HomeTask: Future<Output = ()> + 'static,
    FrontTask: Future<Output = ()> + 'static,
    StoreTask: Future<Output = ()> + 'static,
{
    let store_stop = stop.clone();
    let store_cores: CoreSet = cores.store.iter().copied().collect();
    let store = thread::Builder::new().name("store".to_owned()).spawn(move || {
        if !store_cores.is_empty()
            && let Err(error) = placement::keep_to(&store_cores)
        {
            tracing::warn!(%error, "cannot keep the store thread off the home core");
        }
        ThreadHost::run(|host| store(host, store_stop))
    })?;
    let home = on_core("home".to_owned(), cores.home, stop, home)?;
    assert_eq!(fronts.len(), cores.fronts.len(), "a task for each front");
    let mut running = Vec::with_capacity(fronts.len());
    for (number, (&core, front)) in cores.fronts.iter().zip(fronts).enumerate() {
        running.push(on_core(format!("front-{number}"), Some(core), stop, front)?);
    }
    Ok(Node {
        home,
        fronts: running,
        store,
        stop: stop.clone(),
    })
}

/// Runs a task as the main future of an executor of its own, pinned to `core`.
pub fn on_core<F: Future<Output = ()> + 'static>(
    name: String,
    core: Option<usize>,
    stop: &Stop,
    task: impl FnOnce(RingHost, Stop) -> F + Send + 'static,
) -> io::Result<Executor<()>> {
    let stop = stop.clone();
    executor::spawn(ExecutorConfig { name, core }, move |host| task(host, stop))
}

impl Node {
    /// The executors, home first: for their metrics.
    pub fn executors(&self) -> impl Iterator<Item = &Executor<()>> {
        std::iter::once(&self.home).chain(&self.fronts)
    }

    /// Waits until home ends, tells the others to stop, and waits for them: the fronts, then the store thread, which may
    /// still have to write what they left.
    pub fn join(self) -> io::Result<()> {
        let result = self.home.join();
        self.stop.request();
        let mut results = vec![result];
        results.extend(self.fronts.into_iter().map(Executor::join));
        if let Err(panic) = self.store.join() {
            std::panic::resume_unwind(panic);
        }
        results.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;
    use crate::host::{Host, mailbox};

    #[test]
    fn fronts_and_store_share_a_core_only_when_they_must() {
        let roles = |others: &[usize], fronts| {
            let placement = Placement {
                home: 9,
                others: others.to_vec(),
                serves_disk: true,
            };
            Cores::new(placement, fronts).map(|cores| (cores.fronts, cores.store))
        };
        assert_eq!(roles(&[], None), Ok((vec![], vec![])));
        assert_eq!(roles(&[0], None), Ok((vec![], vec![0])));
        assert_eq!(roles(&[0], Some(1)), Ok((vec![0], vec![0])));
        assert_eq!(roles(&[0, 1, 2], None), Ok((vec![1, 2], vec![0])));
        assert_eq!(
            roles(&[0, 1, 2, 3, 4, 5, 6], None),
            Ok((vec![3, 4, 5, 6], vec![0, 1, 2]))
        );
        assert_eq!(roles(&[0, 1], Some(0)), Ok((vec![], vec![0, 1])));
        assert!(roles(&[0], Some(2)).unwrap_err().contains("1 cores besides"));
    }

    #[test]
    fn every_role_runs_and_the_end_of_home_stops_the_others() {
        let allowed = placement::allowed_cores().unwrap();
        let cores = Cores {
            home: None,
            fronts: allowed.iter().copied().take(1).collect(),
            store: allowed.iter().copied().collect(),
        };
        let ended = Arc::new(AtomicUsize::new(0));
        let (front_ended, store_ended) = (Arc::clone(&ended), Arc::clone(&ended));
        let (mut to_store, mut from_home) = mailbox::<u32>(4);
        let (answers, answer) = mpsc::channel();
        let stop = Stop::new();
        let node = start(
            &cores,
            &stop,
            move |_, _| async move {
                to_store.send(7).await.unwrap();
            },
            vec![move |host: RingHost, stop: Stop| async move {
                stop.requested(&host).await;
                front_ended.fetch_add(1, Ordering::Relaxed);
            }],
            move |host, stop| async move {
                answers.send(from_home.receive().await).unwrap();
                stop.requested(&host).await;
                assert!(host.now() > crate::base::Monotonic(0));
                store_ended.fetch_add(1, Ordering::Relaxed);
            },
        )
        .unwrap();
        assert_eq!(node.executors().count(), 2);
        node.join().unwrap();
        assert_eq!(answer.recv().unwrap(), Some(7));
        assert_eq!(ended.load(Ordering::Relaxed), 2);
        assert!(stop.is_requested());
    }
}
