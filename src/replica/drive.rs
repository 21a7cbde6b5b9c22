//! The home core's loop: gathers what has happened, lets the replica take its turn, and carries out what that comes to.
//! Decides nothing that `cycle` does not.
//!
//! One task does it all, so that a write's completion, the calls that gathered meanwhile and the answers share one
//! wake-up. It never waits for the log or the store: both are polled.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use raft::eraftpb::Message;

use super::{
    Fault,
    answer::Facts,
    auto_compaction::{AutoCompactor, Look, Retention},
    backlog::Backlog,
    compactor::Compactor,
    cycle::{Publication, Replica},
    file_work::FileWorks,
    install::Installer,
    intake::{Intake, UnderWay},
    jobs::CompactionPace,
    leases::{self, Identity},
    outputs::{Outputs, Stopwatch},
    peers::Stopping,
    relay::Relay,
    scans::Scans,
    snapshotter::Snapshotter,
    telemetry::{self, Telemetry},
};
use crate::{
    backend::{Backend, StoreEvent, StoreRequest},
    base::{
        Monotonic, Reject,
        planted::{Planted, is_planted},
    },
    host::{Disk, File, Host, Notify, Receiver, Sender},
    mvcc::{Compaction, HistoryLimits, history_slice},
    ops::health::HealthAlarm,
    peer::Exchange,
    propose::{Admission, Call, Request, Write},
    rpc::{desk::Desk, http::MemberView, watch::Watches},
    snapshot::SnapshotFiles,
    wal::{Wal, WalFault, WriteReport},
    watch::ResponseIdentity,
    wire::proto::etcdserverpb::{AlarmType, CompactionRequest},
};

/// The mapping that a host's files give.
pub type MapOf<H> = <<<H as Host>::Disk as Disk>::File as File>::Map;

/// What the loop's timing is.
#[derive(Clone, Copy, Debug)]
pub struct LoopOptions {
    /// Between ticks of raft's clock (`--heartbeat-interval`).
    pub heartbeat: Duration,
    /// Longest time that changes wait for the tree's file (`--backend-batch-interval`).
    pub commit_interval: Duration,
    /// From when on an apply is logged (`--warning-apply-duration`).
    pub slow_apply: Duration,
    /// What of its history the store keeps by itself; `None` for all.
    pub auto_compaction: Option<Retention>,
    /// How compactions make room for others.
    pub compaction_pace: CompactionPace,
    /// Changes that are enough for a commit of their own (`--backend-batch-limit`).
    pub commit_operations_max: usize,
}

/// The home core's parts.
pub struct Home<H: Host, M: crate::host::Map> {
    /// The machine.
    pub host: H,
    /// Timing.
    pub options: LoopOptions,
    /// What never changes in answers.
    pub facts: Facts,
    /// Who this member is.
    pub identity: Identity,
    /// Consensus and state.
    pub replica: Replica<Backend<M>>,
    /// The log's files.
    pub wal: Rc<Wal<H>>,
    /// The way to the other members.
    pub exchange: Rc<Exchange>,
    /// Whether it leads anywhere.
    pub reaches_peers: bool,
    /// Connections of this core.
    pub desk: Rc<Desk>,
    /// Their watchers.
    pub watches: Rc<Watches>,
    /// To the thread that writes the tree's file.
    pub store: Sender<StoreRequest<M>>,
    /// From it.
    pub store_events: Receiver<StoreEvent<M>>,
    /// The directory of snapshots.
    pub snapshots: Rc<SnapshotFiles<H>>,
    /// `.snap` files, and what of the log they make needless.
    pub snapshotter: Snapshotter<H>,
    /// A compaction that a crash interrupted, to go on with.
    pub resumed_compaction: Option<Compaction>,
    /// Raised once, when the cluster knows this member by its name: clients may come.
    pub ready: Rc<Notify>,
    /// Raised to end the loop in an orderly way.
    pub stop: Rc<Notify>,
}

type Timer = Pin<Box<dyn Future<Output = ()>>>;
type LogWrite = Pin<Box<dyn Future<Output = Result<WriteReport, WalFault>>>>;

/// What the loop remembers from turn to turn.
pub(super) struct Progress<M: crate::host::Map> {
    pub(super) works: FileWorks<M>,
    pub(super) compactor: Compactor,
    pub(super) scans: Scans,
    pub(super) installer: Installer<M>,
    pub(super) relay: Relay,
    /// Followers that need a snapshot: raft's messages, which wait for a commit.
    pub(super) snapshots_wanted: Vec<Message>,
    telemetry: Telemetry,
    auto_compactor: Option<AutoCompactor>,
    pub(super) write: Option<LogWrite>,
    /// When the last write of the log began.
    pub(super) write_began: Option<Monotonic>,
    /// A leader whose disk is stalled tries to hand over again from this time on.
    pub(super) next_hand_over: Monotonic,
    pub(super) outputs: Outputs,
    calls: Vec<Call>,
    pub(super) intake: Intake,
    pub(super) backlog: Backlog,
    /// Since when entries wait for the write in flight to end.
    gathering_since: Option<Monotonic>,
    next_tick: Monotonic,
    next_lease_tick: Monotonic,
    committed_at: Monotonic,
    pub(super) stopping: Stopping,
    is_ready: bool,
    /// What the health endpoints know may have changed.
    pub(super) is_view_stale: bool,
    /// One timer for all that is due; it may fire early, never late.
    timer: Option<(Monotonic, Timer)>,
}

impl<M: crate::host::Map> Progress<M> {
    /// What the health endpoints know has changed.
    pub(super) fn set_view_stale(&mut self) {
        self.is_view_stale = true;
    }
}

/// What woke the loop.
#[derive(Default)]
struct Woken {
    written: Option<Result<WriteReport, WalFault>>,
    is_stopped: bool,
}

/// Runs the home core until it is told to stop, or cannot go on.
///
/// # Errors
/// When the log or the tree failed: what is acknowledged is safe, and the process must end.
pub async fn run<H: Host, M: crate::host::Map>(mut home: Home<H, M>) -> Result<Home<H, M>, Fault> {
    let now = home.host.now();
    let limits = *home.replica.limits();
    let mut progress = Progress {
        works: FileWorks::new(home.desk.counters().clone(), home.options.compaction_pace),
        compactor: Compactor::default(),
        scans: Scans::new(limits),
        installer: Installer::default(),
        relay: Relay::new(limits.questions_pending_max),
        snapshots_wanted: Vec::new(),
        auto_compactor: home.auto_compactor(now),
        telemetry: Telemetry::new(home.desk.counters().clone(), now),
        write: None,
        write_began: None,
        next_hand_over: now,
        outputs: Outputs {
            stopwatch: stopwatch(&home),
            ..Outputs::default()
        },
        calls: Vec::new(),
        intake: Intake::new(limits, home.replica.request_timeout()),
        backlog: Backlog::default(),
        gathering_since: None,
        next_tick: now + home.options.heartbeat,
        next_lease_tick: now,
        committed_at: now,
        stopping: Stopping::No,
        is_ready: false,
        is_view_stale: true,
        timer: None,
    };
    home.begin(&mut progress, now)?;
    loop {
        let woken = wait(&mut home, &mut progress).await?;
        let now = home.host.now();
        progress.works.set_now(now);
        // Before the written entries count as committed: what is committed and not applied yet, which it is further down,
        // must not pass for a member that cannot keep up.
        home.take_calls(&mut progress, now);
        if let Some(result) = woken.written {
            progress.telemetry.log_written(&result?);
            if !is_planted(Planted::AnswerBeforeDurable) {
                home.replica.persisted(&mut progress.outputs);
            }
        }
        home.take_news(&mut progress, now)?;
        home.install(&mut progress)?;
        home.feed_history();
        home.tick(&mut progress, now);
        home.replica.turn(now, &mut progress.outputs)?;
        home.start_write(&mut progress, now);
        home.send(&mut progress);
        progress
            .telemetry
            .applied(&mut progress.outputs.stopwatch, home.options.slow_apply);
        home.compact_index(&mut progress);
        home.snapshotter.step(
            &home.host,
            &home.desk,
            &mut home.replica,
            progress.works.durable_applied(),
            home.exchange.snapshots_in_flight() > 0,
        )?;
        home.carry_scan_on(&mut progress, now);
        home.carry_out(&mut progress, now);
        home.tell_ready(&mut progress);
        home.tell_view(&mut progress);
        home.commit(&mut progress, now)?;
        #[cfg(debug_assertions)]
        super::bounds::check(&home, &progress);
        home.desk.counters().turn_fine.observe(home.host.now().since(now));
        if woken.is_stopped {
            home.begin_stop(&mut progress, now);
        }
        home.end_hand_over(&mut progress, now);
        let is_idle =
            progress.write.is_none() && progress.backlog.is_empty() && !home.replica.state().tree().is_committing();
        if progress.stopping == Stopping::Yes && is_idle {
            while let Some(call) = progress.intake.pop() {
                home.replica.submit(call, now, &mut progress.outputs);
            }
            home.replica.stop(&mut progress.outputs);
            progress.outputs.replies.extend(progress.relay.stop());
            home.carry_out(&mut progress, now);
            return Ok(home);
        }
    }
}

fn stopwatch<H: Host, M: crate::host::Map>(home: &Home<H, M>) -> Stopwatch {
    let host = home.host.clone();
    Stopwatch::new(Box::new(move || host.now()), home.options.slow_apply)
}

async fn wait<H: Host, M: crate::host::Map>(home: &mut Home<H, M>, progress: &mut Progress<M>) -> Result<Woken, Fault> {
    // Between two slices of long work everybody else on this core has a turn, and the host its look at what came, even if
    // this loop was woken meanwhile: a list and the connection that takes it would else keep each other going.
    let store = home.replica.state().store();
    let has_long_work = progress.compactor.has_work(store) || progress.scans.has_work(&progress.works, &home.desk);
    if has_long_work {
        home.host.yield_now().await;
    }
    let has_work = has_long_work
        || home.desk.has_calls()
        || home.exchange.has_news()
        || progress.intake.has_ready(home.under_way())
        || home.replica.has_proposals()
        || !progress.backlog.is_empty();
    let wake_at = progress
        .next_tick
        .min(home.commit_due(progress))
        .min(progress.next_lease_tick);
    if progress.timer.as_ref().is_none_or(|(at, _)| wake_at < *at) {
        progress.timer = Some((wake_at, Box::pin(home.host.sleep_until(wake_at))));
    }
    // With work of its own the loop still lets the others of this core have their turn.
    let mut rest = (has_work && !has_long_work).then(|| Box::pin(home.host.yield_now()));
    poll_fn(|context| {
        let mut woken = Woken::default();
        let mut is_woken = has_long_work || rest.as_mut().is_some_and(|rest| rest.as_mut().poll(context).is_ready());
        is_woken |= home.desk.replica_notify().poll_notified(context).is_ready();
        is_woken |= poll_write(&mut progress.write, &mut woken, context);
        if home.stop.poll_notified(context).is_ready() {
            woken.is_stopped = true;
            is_woken = true;
        }
        while let Poll::Ready(event) = home.store_events.poll_receive(context) {
            let Some(event) = event else {
                return Poll::Ready(Err(Fault::StoreGone));
            };
            progress.telemetry.store_event(&event);
            progress.works.set_now(home.host.now());
            progress.works.set_wall_time(home.host.wall_time());
            match event {
                StoreEvent::Examined(examined) => progress.installer.examined = Some(examined),
                StoreEvent::Installed(report) => progress.installer.installed = Some(report),
                event => progress
                    .works
                    .take_event(event, &mut home.replica, &mut progress.outputs)?,
            }
            is_woken = true;
        }
        if let Some((_, timer)) = &mut progress.timer
            && timer.as_mut().poll(context).is_ready()
        {
            progress.timer = None;
            is_woken = true;
        }
        if is_woken {
            Poll::Ready(Ok(woken))
        } else {
            Poll::Pending
        }
    })
    .await
}

fn poll_write(write: &mut Option<LogWrite>, woken: &mut Woken, context: &mut Context<'_>) -> bool {
    let Some(future) = write else {
        return false;
    };
    match future.as_mut().poll(context) {
        Poll::Ready(result) => {
            *write = None;
            woken.written = Some(result);
            true
        }
        Poll::Pending => false,
    }
}

impl<H: Host, M: crate::host::Map> Home<H, M> {
    /// The first turn: what the log has committed is applied again, and a lone member elects itself.
    fn begin(&mut self, progress: &mut Progress<M>, now: Monotonic) -> Result<(), Fault> {
        self.replica.turn(now, &mut progress.outputs)?;
        let is_alone = self.replica.consensus().is_alone();
        if !is_alone && !self.reaches_peers {
            return Err(Fault::OtherVoters);
        }
        self.tell_peers();
        if let Some(compaction) = self.resumed_compaction.take() {
            progress.compactor.schedule(Some(compaction), None);
        }
        if is_alone {
            self.replica.campaign();
        }
        self.replica.turn(now, &mut progress.outputs)?;
        self.start_write(progress, now);
        self.carry_out(progress, now);
        Ok(())
    }

    fn tell_ready(&mut self, progress: &mut Progress<M>) {
        // A restarted member may be known by its name already. What it says of itself in this life is applied when all
        // that was committed before is: until then reads of its own state would be older than what it has acknowledged.
        if !progress.is_ready && self.replica.publication() == Publication::Done {
            progress.is_ready = true;
            tracing::info!(
                "local-member-id" = format!("{:x}", self.identity.member_id),
                "published local member to cluster through raft"
            );
            self.ready.notify();
        }
    }

    fn tell_view(&mut self, progress: &mut Progress<M>) {
        if !std::mem::take(&mut progress.is_view_stale) {
            return;
        }
        let state = self.replica.state();
        let alarms = state.alarms().list(0);
        self.watches.set_identity(ResponseIdentity {
            cluster_id: state.config().cluster_id.0,
            member_id: state.config().member_id.0,
            raft_term: self.replica.consensus().term().0,
        });
        self.desk.set_view(MemberView {
            alarms: alarms.iter().map(|alarm| health_alarm(alarm.alarm())).collect(),
            has_leader: self.replica.consensus().leader().is_some(),
            cluster_version: state.members().version().map(ToString::to_string),
        });
    }

    /// Reads one piece of history for watchers that are behind.
    fn feed_history(&mut self) {
        self.replica
            .state_mut()
            .set_previous_records(self.watches.previous_records());
        let Some(request) = self.watches.history_request() else {
            return;
        };
        let bounds = HistoryLimits {
            records_max: self.replica.limits().watch_history_records_max,
            bytes_max: self.replica.limits().watch_history_bytes_max,
        };
        let state = self.replica.state();
        let wants = |key: &[u8]| self.watches.wants_history_of(key);
        let (from, to, previous) = (request.from, request.to, request.previous);
        let slice = history_slice(state.store(), state.tree(), from, to, bounds, previous, wants);
        self.watches.feed_history(slice);
        // There may be more, for these watchers or for others.
        self.desk.replica_notify().notify();
    }

    fn take_calls(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        while let Some(call) = progress.intake.release(self.under_way()) {
            // Whose connection is gone wants it no more.
            if self.desk.unsent_bytes(&call.ticket).is_some() {
                self.replica.submit(call, now, &mut progress.outputs);
            }
        }
        let mut calls = std::mem::take(&mut progress.calls);
        self.desk.take_calls(&mut calls);
        for call in calls.drain(..) {
            let is_write = matches!(call.request, Request::Write(_));
            let admitted = match is_write {
                true => self.admit(call, 0, &mut progress.outputs),
                // Asked when it is answered.
                false => Some(call),
            };
            let Some(call) = admitted else { continue };
            match progress.intake.take(call, self.under_way(), now) {
                Admission::Now(call) => self.replica.submit(call, now, &mut progress.outputs),
                Admission::Held => {}
                Admission::Refused(call) => self.replica.refuse(call.ticket, &mut progress.outputs),
            }
        }
        progress.calls = calls;
    }

    fn under_way(&self) -> UnderWay {
        let tree = self.replica.state().tree();
        UnderWay {
            log_bytes: self.replica.waiting_bytes(),
            tree_bytes: if tree.is_committing() { tree.open_bytes() } else { 0 },
        }
    }

    fn tick(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        if now >= progress.next_tick {
            // A late tick is one tick: raft's clock may run slow, never fast.
            progress.next_tick = now + self.options.heartbeat;
            self.replica.tick(now, &mut progress.outputs);
            while let Some(call) = progress.intake.expire(now) {
                progress.outputs.refuse(call.ticket, Reject::Timeout);
            }
            progress.is_view_stale = true;
            self.publish(now);
            self.leave_stalled_disk(progress, now);
            progress.telemetry.tick(self.replica.consensus().leader(), now);
            self.desk.wake_due(now);
            self.watches.tick(now);
            self.compact_by_itself(&mut progress.auto_compactor, now);
        }
        if now >= progress.next_lease_tick {
            progress.next_lease_tick = now + crate::lease::EXPIRY_TICK;
            let expired = leases::tick(&mut self.replica, now, &mut progress.outputs);
            self.desk.counters().leases_expired.add(expired as u64);
            self.count_granted_ttls();
        }
    }

    fn auto_compactor(&self, now: Monotonic) -> Option<AutoCompactor> {
        let retention = self.options.auto_compaction?;
        Some(AutoCompactor::new(
            retention,
            self.replica.state().store().current_revision(),
            now,
        ))
    }

    fn compact_by_itself(&mut self, compactor: &mut Option<AutoCompactor>, now: Monotonic) {
        let Some(compactor) = compactor else {
            return;
        };
        let store = self.replica.state().store();
        let (revision, compact_revision) = (store.current_revision(), store.compact_revision());
        let look = compactor.look(revision, compact_revision, self.replica.consensus().is_leader(), now);
        if let Look::Compact(revision) = look {
            let request = CompactionRequest {
                revision,
                physical: false,
            };
            self.replica.propose_own(&Write::Compact(request), now);
            // Proposed by the turn that follows; the next look is far away.
        }
        telemetry::log_auto_compaction(compactor, look);
    }

    /// Carries a walk over the index on by a slice.
    fn carry_scan_on(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        let Progress {
            scans,
            works,
            outputs,
            compactor,
            ..
        } = progress;
        let is_awaited = compactor.awaits_readers(self.replica.state().store());
        scans.step(&mut self.replica, works, &self.desk, is_awaited, now, outputs);
    }

    /// Carries a compaction of the index on by a slice.
    fn compact_index(&mut self, progress: &mut Progress<M>) {
        if !progress.compactor.has_work(self.replica.state().store()) {
            return;
        }
        let began = self.host.now();
        progress.compactor.step(&mut self.replica, &mut progress.works);
        let pause = self.host.now().since(began);
        self.desk.counters().index_compaction_pause.observe(pause);
    }

    /// Begins the next write of the log if there is something to write and the one before has ended. Polled once, so
    /// that it is on its way before this turn's answers are made.
    fn start_write(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        if progress.write.is_some() {
            if progress.gathering_since.is_none() && self.replica.log_has_gathered() {
                progress.gathering_since = Some(now);
            }
            return;
        }
        let wal = self.wal.clone();
        if let Some(batch) = self.replica.seal_log(|len| wal.buffer(len)) {
            progress.write = Some(Box::pin(async move { wal.write(batch).await }));
            progress.write_began = Some(now);
            let waited = progress
                .gathering_since
                .take()
                .map_or(Duration::ZERO, |since| now.since(since));
            self.desk.counters().wal_batch_fine.observe(waited);
            if is_planted(Planted::AnswerBeforeDurable) {
                self.replica.persisted(&mut progress.outputs);
            }
        }
    }

    /// When the open batch has to go to the store at the latest.
    fn commit_due(&self, progress: &Progress<M>) -> Monotonic {
        let backend = self.replica.state().tree();
        if backend.is_committing() || backend.operations() == 0 || progress.installer.is_replacing() {
            return Monotonic(u64::MAX);
        }
        progress.committed_at + self.options.commit_interval
    }

    /// Hands the open batch to the store when it is time, or when work on the file waits for it.
    fn commit(&mut self, progress: &mut Progress<M>, now: Monotonic) -> Result<(), Fault> {
        let is_due = now >= self.commit_due(progress);
        let backend = self.replica.state().tree();
        let is_full = backend.operations() >= self.options.commit_operations_max
            || backend.open_bytes() >= self.replica.limits().backend_batch_bytes_max;
        let is_wanted = is_due
            || is_full
            || progress.works.wants_commit()
            || self.snapshotter.wants_commit()
            || self.owes_snapshots(progress)
            || progress.stopping == Stopping::Yes;
        let is_possible = !backend.is_committing() && !progress.installer.is_replacing() && self.store.room() > 0;
        if is_wanted && is_possible {
            progress.committed_at = now;
            progress.works.sealed(self.replica.state().applied().index);
            let meta = self.replica.state_mut().seal();
            if let Some(batch) = self.replica.state_mut().tree_mut().seal(meta) {
                send(&mut self.store, StoreRequest::Commit(batch))?;
            } else {
                progress.works.nothing_sealed();
            }
            if self.owes_snapshots(progress) {
                self.send_snapshots(progress);
            }
            progress.works.send(&mut self.store)?;
        }
        Ok(())
    }
}

/// Sends to the store. Its room has been looked at: that it is gone is the only way to fail.
pub(super) fn send<M: crate::host::Map>(
    store: &mut Sender<StoreRequest<M>>,
    request: StoreRequest<M>,
) -> Result<(), Fault> {
    store.try_send(request).map_err(|_| Fault::StoreGone)
}

fn health_alarm(alarm: AlarmType) -> HealthAlarm {
    match alarm {
        AlarmType::Nospace => HealthAlarm::NoSpace,
        AlarmType::Corrupt => HealthAlarm::Corrupt,
        AlarmType::None => HealthAlarm::Unknown,
    }
}
