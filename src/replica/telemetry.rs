//! What the home core counts of its work, and what it tells a scrape of itself.

use std::{rc::Rc, time::Duration};

use super::{
    auto_compaction::{AutoCompactor, Look, Retention},
    drive::Home,
    file_work::FileWorks,
    outputs::Stopwatch,
};
use crate::{
    backend::{CommitReport, StoreEvent},
    base::Monotonic,
    config::format_duration,
    host::{Host, Map},
    ops::{Counters, Gauges},
    propose::{Method, describe},
    wal::WriteReport,
    wire::proto::etcdserverpb::AlarmType,
};

/// How long the quantiles of the `ringd_*` distributions look back, in part.
const WINDOW: Duration = Duration::from_secs(60);

/// What the loop remembers for its counting.
pub struct Telemetry {
    counters: Rc<Counters>,
    next_roll: Monotonic,
    had_leader: Option<crate::base::MemberId>,
}

impl Telemetry {
    /// Counts into `counters`.
    pub fn new(counters: Rc<Counters>, now: Monotonic) -> Telemetry {
        Telemetry {
            counters,
            next_roll: now + WINDOW,
            had_leader: None,
        }
    }

    /// The log's write is durable.
    pub fn log_written(&self, report: &WriteReport) {
        self.counters.wal_bytes.add(report.bytes);
        self.counters.wal_fsync.observe(report.duration);
        self.counters.wal_write.observe(report.write);
        self.counters.wal_sync_fine.observe(report.duration);
    }

    /// Entries were applied.
    pub fn applied(&self, stopwatch: &mut Stopwatch, slow_after: Duration) {
        if stopwatch.total.is_zero() {
            return;
        }
        self.counters.apply_fine.observe(std::mem::take(&mut stopwatch.total));
        for (method, is_ok, took) in stopwatch.laps.drain(..) {
            let operation = if method == Method::Compact {
                "Compaction"
            } else {
                method.name()
            };
            let success = if is_ok { "true" } else { "false" };
            self.counters.applies.observe([operation, success, "v3"], took);
        }
        for slow in stopwatch.slow.drain(..) {
            self.counters.slow_applies.increment();
            tracing::warn!(
                took = format_duration(slow.took),
                "expected-duration" = format_duration(slow_after),
                prefix = "",
                request = describe::entry(&slow.data),
                "apply request took too long"
            );
        }
    }

    /// Something is done in the store.
    pub fn store_event<M: Map>(&self, event: &StoreEvent<M>) {
        match event {
            StoreEvent::Committed(report) if report.bytes_written > 0 => self.committed(report),
            StoreEvent::Defragmented(_, report) => self.counters.backend_defrag.observe(report.duration),
            _ => {}
        }
    }

    fn committed<M: Map>(&self, report: &CommitReport<M>) {
        self.counters.commit_rebalance.observe(report.rebalance);
        self.counters.commit_spill.observe(report.spill);
        self.counters.commit_write.observe(report.write);
        for slice in &report.job_slices {
            self.counters.compaction_pause.observe(*slice);
        }
        self.counters.backend_commit.observe(report.total);
        self.counters.backend_commit_fine.observe(report.total);
    }

    /// Time passes.
    pub fn tick(&mut self, leader: Option<crate::base::MemberId>, now: Monotonic) {
        if now >= self.next_roll {
            self.next_roll = now + WINDOW;
            self.counters.roll();
        }
        self.leader_seen(leader);
    }

    /// Who leads, after it may have changed.
    pub fn leader_seen(&mut self, leader: Option<crate::base::MemberId>) {
        if leader.is_some() && leader != self.had_leader {
            self.had_leader = leader;
            self.counters.leader_changes.increment();
        }
    }
}

impl<H: Host, M: Map> Home<H, M> {
    /// Lays what a scrape tells of this core on the desk, and brings up to date what is counted elsewhere.
    pub(super) fn tell_gauges(&mut self, works: &FileWorks<M>) {
        self.take_totals();
        let (state, consensus) = (self.replica.state(), self.replica.consensus());
        let (store, tree, watch) = (state.store(), state.tree(), self.watches.counts());
        let gauges = Gauges {
            member_id: self.identity.member_id.0,
            server_version: self.facts.version.clone(),
            cluster_version: state
                .members()
                .version()
                .map(|version| format!("{}.{}", version.major, version.minor)),
            has_leader: consensus.leader().is_some(),
            is_leader: consensus.is_leader(),
            is_learner: false,
            proposals_committed: consensus.committed().0,
            proposals_applied: state.applied().index.0,
            proposals_pending: self.replica.pending() as u64,
            quota_backend_bytes: self.facts.quota_bytes,
            snapshot_apply_in_progress: false,
            db_total_bytes: tree.size(),
            db_in_use_bytes: tree.size_in_use(),
            db_open_read_transactions: works.readers(),
            defrag_inflight: works.is_defragmenting(),
            compact_revision: store.compact_revision(),
            current_revision: store.current_revision(),
            compaction_last_seconds: works.compaction_last_seconds(),
            keys: store.live_keys(),
            pending_events: watch.pending_events as u64,
            slow_watchers: watch.behind as u64,
            watch_streams: watch.streams as u64,
            watchers: watch.watchers as u64,
            auth_revision: 1,
            alarms: self.alarm_gauges(),
            health_checks: self.desk.health_checks(),
            features: self.facts.features.clone(),
            log_lines_dropped: crate::ops::log::lines_dropped(),
        };
        self.desk.set_gauges(gauges);
    }

    fn alarm_gauges(&self) -> Vec<(String, &'static str)> {
        let alarms = self.replica.state().alarms().list(AlarmType::None as i32);
        let gauge = |alarm: &crate::wire::proto::etcdserverpb::AlarmMember| {
            (format!("{:x}", alarm.member_id), alarm.alarm().as_str_name())
        };
        alarms.iter().map(gauge).collect()
    }

    /// What pure parts have added up on their own.
    fn take_totals(&mut self) {
        let counters = self.desk.counters().clone();
        let totals = self.replica.state().store().totals();
        counters.puts.set(totals.puts);
        counters.put_bytes.set(totals.put_bytes);
        counters.deletes.set(totals.deletes);
        counters.ranges.set(totals.ranges.get());
        counters.txns.set(totals.txns);
        let lessor = self.replica.state_mut().lessor_mut();
        counters.leases_granted.set(lessor.totals().granted);
        counters.leases_revoked.set(lessor.totals().revoked);
        counters.leases_renewed.set(lessor.totals().renewed);
        self.count_granted_ttls();
        let refused = self.replica.refused();
        counters.events.set(self.watches.events_sent());
        counters.proposals_failed.set(refused.proposals);
        counters.read_indexes_failed.set(refused.reads);
    }

    /// Leases granted since the last time, by their TTL.
    pub(super) fn count_granted_ttls(&mut self) {
        for ttl in self.replica.state_mut().lessor_mut().take_granted_ttls() {
            let seconds = u64::try_from(ttl).unwrap_or(0);
            self.desk.counters().lease_ttl.observe_raw(seconds);
        }
    }
}

/// The lines that etcd writes when a store compacts itself.
pub(super) fn log_auto_compaction(compactor: &AutoCompactor, look: Look) {
    let mode = match compactor.retention() {
        Retention::Period(_) => "periodic",
        Retention::Revisions(_) => "revision",
    };
    // The field's name depends on the mode, and names are fixed at compile time.
    macro_rules! log {
        ($level:ident, $text:literal, $revision:expr $(, $name:literal = $value:expr)*) => {
            match compactor.retention() {
                Retention::Period(period) => {
                    let period = format_duration(period);
                    tracing::$level!(revision = $revision, "compact-period" = period $(, $name = $value)*, "{} {mode} compaction", $text)
                }
                Retention::Revisions(kept) => {
                    tracing::$level!(revision = $revision, "revision-compaction-retention" = kept $(, $name = $value)*, "{} {mode} compaction", $text)
                }
            }
        };
    }
    match look {
        Look::Nothing => {}
        Look::Compact(revision) => log!(info, "starting auto", revision),
        Look::Completed(revision, took) => log!(info, "completed auto", revision, "took" = format_duration(took)),
        Look::Failed(revision) => {
            let interval = format_duration(compactor.interval());
            log!(warn, "failed auto", revision, "retry-interval" = interval);
        }
    }
}
