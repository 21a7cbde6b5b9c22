//! The store: takes requests in order, commits, and runs what is long in slices between commits.
//!
//! It runs on a thread of its own or as one task among others; it is the only one that writes the file. A fault in a commit
//! ends it, and with it the process, since nobody knows any more what is durable.

mod burial;
mod defragment;
mod install;
mod snapshot;
mod volume;

pub use install::applied_index;

#[cfg(test)]
mod memory_host;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_lite::future::or;

use crate::{
    base::Monotonic,
    host::{Host, Map, Receiver, Sender},
    limits::BACKEND_BATCH_OPERATIONS_MAX,
};

use super::{
    CommitReport, DefragmentReport, Fault, HashReport, JobId, OpenFault, Progress, SealedBatch, StoreEvent, StoreFault,
    StoreJob, StoreOptions, StoreRequest, batch::Batch, hash::HashJob, messages::JobResult,
};
use defragment::{Defragmentation, Missed};
use volume::{Cost, Durability, MapOf, Volume};

/// The owner of the database file.
pub struct Store<H: Host> {
    host: H,
    volume: Volume<H>,
    /// Jobs that change the tree, in order; the first is under way.
    jobs: VecDeque<(JobId, JobOf<H>)>,
    job: JobState,
    /// Jobs that only read; all are under way, by turns.
    reads: VecDeque<Read<H>>,
    /// In order; the first is under way.
    defragments: VecDeque<JobId>,
    /// What had the last slice: the others come before it has another.
    last: Lane,
    /// The batch of the last commit, until this time. Home lets go of it when it hears of the commit, and should not be the last
    /// to: freeing ten thousand values takes a good part of a millisecond.
    retired: Option<(Arc<SealedBatch>, Monotonic)>,
    defragmentation: Option<Defragmentation<H>>,
}

/// The job under way.
struct JobState {
    /// Its changes that are in no commit yet.
    changes: Batch,
    /// When the first of them came.
    changes_since: Monotonic,
    /// How long each slice took, since the last report; bounded.
    slices: Vec<Duration>,
    /// It goes on only when its changes are committed.
    is_held: bool,
    /// And not before this time.
    paused_until: Monotonic,
}

type JobOf<H> = Box<dyn StoreJob<MapOf<H>>>;

enum Read<H: Host> {
    Job(JobId, JobOf<H>),
    Hash(JobId, HashJob<MapOf<H>>),
}

/// A defragmentation whose file has taken the place of the old one.
struct Replaced<H: Host> {
    old: Volume<H>,
    report: DefragmentReport,
    started: Monotonic,
}

/// What goes on side by side. A compaction may take minutes, and nobody who asks for a hash waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Reads,
    Jobs,
    Defragments,
}

/// Whether to go on.
enum Outcome {
    GoOn,
    /// Home is gone.
    End,
}

impl<H: Host> Store<H> {
    /// Opens or makes the database; [`Backend::new`](super::Backend::new) takes the report.
    pub async fn open(host: H, options: StoreOptions) -> Result<(Store<H>, CommitReport<MapOf<H>>), OpenFault> {
        let started = host.now();
        let volume = Volume::open(host.clone(), options).await?;
        let store = Store {
            host,
            volume,
            jobs: VecDeque::new(),
            reads: VecDeque::new(),
            defragments: VecDeque::new(),
            last: Lane::Reads,
            job: JobState {
                changes: Batch::new(),
                changes_since: started,
                slices: Vec::new(),
                is_held: false,
                paused_until: started,
            },
            retired: None,
            defragmentation: None,
        };
        let report = store.report(None, Cost::default(), started);
        Ok((store, report))
    }

    /// Serves requests until the other side of either mailbox is gone, or until a fault, which it tells as its last event.
    pub async fn run(
        mut self,
        mut requests: Receiver<StoreRequest<MapOf<H>>>,
        mut events: Sender<StoreEvent<MapOf<H>>>,
    ) {
        loop {
            match self.turn(&mut requests, &mut events).await {
                Ok(Outcome::GoOn) => {}
                Ok(Outcome::End) => return,
                Err(fault) => {
                    tracing::error!(%fault, "the database cannot be written");
                    _ = events.send(StoreEvent::Failed(fault)).await;
                    return;
                }
            }
        }
    }

    async fn turn(
        &mut self,
        requests: &mut Receiver<StoreRequest<MapOf<H>>>,
        events: &mut Sender<StoreEvent<MapOf<H>>>,
    ) -> Result<Outcome, StoreFault> {
        let request = match requests.try_receive() {
            Some(request) => Some(request),
            None => match self.next_wake() {
                Wake::Now => None,
                Wake::Request => match requests.receive().await {
                    Some(request) => Some(request),
                    None => return Ok(Outcome::End),
                },
                Wake::At(time) => {
                    let timer = async {
                        self.host.sleep_until(time).await;
                        Some(None)
                    };
                    match or(async { requests.receive().await.map(Some) }, timer).await {
                        Some(request) => request,
                        None => return Ok(Outcome::End),
                    }
                }
            },
        };
        if let Some(request) = request {
            return self.serve(request, events).await;
        }
        let outcome = self.advance(events).await?;
        self.host.yield_now().await;
        Ok(outcome)
    }

    async fn serve(
        &mut self,
        request: StoreRequest<MapOf<H>>,
        events: &mut Sender<StoreEvent<MapOf<H>>>,
    ) -> Result<Outcome, StoreFault> {
        match request {
            StoreRequest::Commit(sealed) => return self.commit(Some(sealed), events).await,
            StoreRequest::Job(id, job) => self.jobs.push_back((id, job)),
            // The first slice at once: it takes hold of the version that is current at its place among the requests.
            StoreRequest::Read(id, job) => return self.read(Read::Job(id, job), events).await,
            StoreRequest::Hash(id) => return self.read(Read::Hash(id, HashJob::new()), events).await,
            StoreRequest::Defragment(id) => self.defragments.push_back(id),
            StoreRequest::Examine(path) => return Ok(self.examine(&path, events).await),
            StoreRequest::Install(path) => return self.install(&path, events).await,
            StoreRequest::Snapshot(sink) => {
                let pin = self.volume.current().clone();
                self.host
                    .spawn(snapshot::stream(self.host.clone(), self.volume.file.clone(), pin, sink));
            }
        }
        Ok(Outcome::GoOn)
    }

    /// Commits a batch together with what the job under way has changed.
    async fn commit(
        &mut self,
        sealed: Option<Arc<SealedBatch>>,
        events: &mut Sender<StoreEvent<MapOf<H>>>,
    ) -> Result<Outcome, StoreFault> {
        let started = self.host.now();
        let job = Some(std::mem::take(&mut self.job.changes)).filter(|job| !job.is_empty());
        self.job.is_held = false;
        let batches: Vec<&Batch> = sealed
            .as_deref()
            .map(SealedBatch::changes)
            .into_iter()
            .chain(&job)
            .collect();
        let cost = self.volume.commit(&batches, Durability::Synced).await?;
        let sequence = sealed.as_ref().map(|sealed| sealed.sequence());
        let retired = sealed.clone();
        if let Some(defragmentation) = &mut self.defragmentation {
            defragmentation.missed(Missed { sealed, job });
        }
        self.retired = retired.map(|sealed| (sealed, self.host.now() + RETIREMENT));
        let mut report = self.report(sequence, cost, started);
        report.job_slices = std::mem::take(&mut self.job.slices);
        Ok(tell(events, StoreEvent::Committed(report)).await)
    }

    fn report(&self, sequence: Option<u64>, cost: Cost, started: Monotonic) -> CommitReport<MapOf<H>> {
        CommitReport {
            root: self.volume.current().clone(),
            sequence,
            size: self.volume.size(),
            size_in_use: self.volume.size_in_use(),
            rebalance: cost.rebalance,
            spill: cost.spill,
            write: cost.write,
            total: self.host.now().since(started),
            bytes_written: cost.bytes_written,
            runs: cost.runs,
            job_slices: Vec::new(),
        }
    }

    /// When there is something to do besides requests.
    fn next_wake(&self) -> Wake {
        if !self.reads.is_empty() || !self.defragments.is_empty() {
            return Wake::Now;
        }
        let due = match (self.job_due(), &self.retired) {
            (Some(due), _) => due,
            (None, Some((_, due))) => *due,
            (None, None) => return Wake::Request,
        };
        if due <= self.host.now() {
            Wake::Now
        } else {
            Wake::At(due)
        }
    }

    /// When the first job has its next slice, or its changes are to be committed.
    fn job_due(&self) -> Option<Monotonic> {
        if self.job.is_held || !self.job.changes.is_empty() && self.jobs.is_empty() {
            return Some(self.job_commit_due());
        }
        (!self.jobs.is_empty()).then_some(self.job.paused_until)
    }

    fn job_commit_due(&self) -> Monotonic {
        self.job.changes_since + self.volume.options().job_commit_interval
    }

    /// One slice of something, or a commit of what the job has changed if no other commit took that along.
    async fn advance(&mut self, events: &mut Sender<StoreEvent<MapOf<H>>>) -> Result<Outcome, StoreFault> {
        let now = self.host.now();
        if !self.job.changes.is_empty() && self.job_commit_due() <= now {
            return self.commit(None, events).await;
        }
        let Some(lane) = self.next_lane(now) else {
            self.retired.take_if(|(_, due)| *due <= now);
            return Ok(Outcome::GoOn);
        };
        self.last = lane;
        match lane {
            Lane::Reads => {
                let read = self.reads.pop_front().expect("a read to go on with");
                self.read(read, events).await
            }
            Lane::Jobs => self.job(events).await,
            Lane::Defragments => {
                let id = self.defragments.pop_front().expect("a defragmentation to go on with");
                self.defragment(id, events).await
            }
        }
    }

    fn next_lane(&self, now: Monotonic) -> Option<Lane> {
        let is_ready = |lane: &Lane| match lane {
            Lane::Reads => !self.reads.is_empty(),
            Lane::Jobs => !self.jobs.is_empty() && !self.job.is_held && self.job.paused_until <= now,
            Lane::Defragments => !self.defragments.is_empty(),
        };
        let lanes = match self.last {
            Lane::Reads => [Lane::Jobs, Lane::Defragments, Lane::Reads],
            Lane::Jobs => [Lane::Defragments, Lane::Reads, Lane::Jobs],
            Lane::Defragments => [Lane::Reads, Lane::Jobs, Lane::Defragments],
        };
        lanes.into_iter().find(is_ready)
    }

    /// One slice of a job that only reads.
    async fn read(
        &mut self,
        mut read: Read<H>,
        events: &mut Sender<StoreEvent<MapOf<H>>>,
    ) -> Result<Outcome, StoreFault> {
        let mut unchanged = Batch::new();
        let (id, progress) = match &mut read {
            Read::Job(id, job) => (*id, job.step(self.volume.current(), &mut unchanged)),
            Read::Hash(id, job) => (*id, job.step(self.volume.current(), &mut unchanged)),
        };
        assert!(unchanged.is_empty(), "a job that only reads has changed something");
        match progress {
            Ok(Progress::More | Progress::Pause(_)) => {
                self.reads.push_back(read);
                Ok(Outcome::GoOn)
            }
            Ok(Progress::Done(result)) => Ok(tell(events, done(&read, id, result)).await),
            Err(fault) => given_up(id, fault, events).await,
        }
    }

    /// One slice of the first job.
    async fn job(&mut self, events: &mut Sender<StoreEvent<MapOf<H>>>) -> Result<Outcome, StoreFault> {
        let Some((id, job)) = self.jobs.front_mut() else {
            return Ok(Outcome::GoOn);
        };
        let (id, now) = (*id, self.host.now());
        if self.job.changes.is_empty() {
            self.job.changes_since = now;
        }
        let progress = job.step(self.volume.current(), &mut self.job.changes);
        if self.job.slices.len() < JOB_SLICES_REPORTED_MAX {
            self.job.slices.push(self.host.now().since(now));
        }
        self.job.is_held = self.job.changes.operations() >= BACKEND_BATCH_OPERATIONS_MAX;
        match progress {
            Ok(Progress::More) => Ok(Outcome::GoOn),
            Ok(Progress::Pause(duration)) => {
                self.job.is_held = !self.job.changes.is_empty();
                self.job.paused_until = now + duration;
                Ok(Outcome::GoOn)
            }
            Ok(Progress::Done(result)) => {
                self.jobs.pop_front();
                if !self.job.changes.is_empty()
                    && let Outcome::End = self.commit(None, events).await?
                {
                    return Ok(Outcome::End);
                }
                Ok(tell(events, StoreEvent::JobDone(id, result)).await)
            }
            Err(fault) => {
                self.jobs.pop_front();
                given_up(id, fault, events).await
            }
        }
    }

    /// One slice of a defragmentation.
    async fn defragment(
        &mut self,
        id: JobId,
        events: &mut Sender<StoreEvent<MapOf<H>>>,
    ) -> Result<Outcome, StoreFault> {
        match self.defragment_slice().await {
            Ok(None) => {
                self.defragments.push_front(id);
                Ok(Outcome::GoOn)
            }
            Ok(Some(Replaced { old, report, started })) => {
                // From here on nobody can say which of the files a restart would find, until this is done: no way back.
                self.volume.sync_name().await?;
                self.host.spawn(burial::bury(self.host.clone(), old));
                let committed = StoreEvent::Committed(self.report(None, Cost::default(), started));
                match tell(events, committed).await {
                    Outcome::GoOn => Ok(tell(events, StoreEvent::Defragmented(id, report)).await),
                    Outcome::End => Ok(Outcome::End),
                }
            }
            Err(fault) => {
                tracing::error!(%fault, "the database was not defragmented");
                if let Some(defragmentation) = self.defragmentation.take()
                    && let Err(fault) = defragmentation.abandon().await
                {
                    tracing::warn!(%fault, "a file stays behind");
                }
                Ok(tell(events, StoreEvent::DefragmentFailed(id, fault)).await)
            }
        }
    }

    async fn defragment_slice(&mut self) -> Result<Option<Replaced<H>>, OpenFault> {
        let Some(defragmentation) = &mut self.defragmentation else {
            self.defragmentation = Some(Defragmentation::begin(&self.host, &self.volume).await?);
            return Ok(None);
        };
        if !defragmentation.step().await? {
            return Ok(None);
        }
        let started = defragmentation.started;
        let successor = defragmentation.finish(&self.volume).await?;
        defragmentation.rename(&self.volume).await?;
        let report = DefragmentReport {
            size_before: self.volume.size(),
            size_after: successor.size(),
            duration: self.host.now().since(started),
        };
        // Versions of the old file live on in whoever holds them, with its mapping.
        let old = std::mem::replace(&mut self.volume, successor);
        self.defragmentation = None;
        Ok(Some(Replaced { old, report, started }))
    }
}

/// How long home may take to hear of a commit, ordinarily.
const RETIREMENT: Duration = Duration::from_millis(100);

enum Wake {
    Now,
    At(Monotonic),
    Request,
}

fn done<H: Host>(read: &Read<H>, id: JobId, result: JobResult) -> StoreEvent<MapOf<H>> {
    match read {
        Read::Hash(..) => match result.downcast::<HashReport>() {
            Ok(report) => StoreEvent::Hashed(id, *report),
            Err(result) => StoreEvent::JobDone(id, result),
        },
        Read::Job(..) => StoreEvent::JobDone(id, result),
    }
}

async fn given_up<M: Map>(id: JobId, fault: Fault, events: &mut Sender<StoreEvent<M>>) -> Result<Outcome, StoreFault> {
    tracing::error!(%fault, "a job over the database found it damaged");
    Ok(tell(events, StoreEvent::JobFailed(id, fault)).await)
}

async fn tell<T>(events: &mut Sender<T>, event: T) -> Outcome {
    match events.send(event).await {
        Ok(()) => Outcome::GoOn,
        Err(_) => Outcome::End,
    }
}
/// Slices of which one report tells; only a job that finds nothing to change for long has more.
const JOB_SLICES_REPORTED_MAX: usize = 1024;
