//! What a turn came to is carried out, in an order that clients can rely on: messages leave, watchers are told, then come
//! effects on this member and answers.

use super::{
    answer,
    compactor::Compactor,
    cycle::Replica,
    drive::{Home, Progress},
    leases,
    outputs::{Outputs, Requested},
};
use crate::{
    apply::Effect,
    backend::Backend,
    base::{
        Monotonic,
        planted::{Planted, is_planted},
    },
    host::{Host, Map},
    propose::{Admission, Call, FileWork, Read, Request, Ticket},
    wire::proto::etcdserverpb::AlarmType,
};

impl<H: Host, M: Map> Home<H, M> {
    /// Carries out what has gathered in `progress`.
    pub(super) fn carry_out(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        self.send(progress);
        let outputs = &mut progress.outputs;
        if outputs.role_changed {
            leases::follow_role(&mut self.replica);
            let term = self.replica.consensus().term();
            self.replica.state_mut().set_raft_term(term);
        }
        progress.is_view_stale |= outputs.role_changed || !outputs.effects.is_empty();
        outputs.role_changed = false;
        // Before they hear of a compaction: whoever finds no room for a change of this turn needs it from history, which a
        // compaction of this turn may have taken, and is told that it did. And before any answer: who has one finds that
        // the watchers were told.
        if !is_planted(Planted::CompactionToldFirst) {
            self.tell_watchers(progress);
        }
        for requested in std::mem::take(&mut progress.outputs.effects) {
            self.carry_out_effect(requested, &mut progress.compactor, now);
        }
        self.tell_watchers(progress);
        let mut reads = std::mem::take(&mut progress.outputs.reads);
        for call in reads.drain(..) {
            if call.request.may_answer_much() {
                if let Admission::Refused(call) = progress.backlog.push(call, self.replica.limits()) {
                    self.replica.refuse(call.ticket, &mut progress.outputs);
                }
            } else {
                self.answer(call, progress, now);
            }
        }
        progress.outputs.reads = reads;
        self.work_backlog_off(progress, now);
        self.pass_on(progress, now);
        progress.outputs.answer_bytes = 0;
        for (ticket, reply) in progress.outputs.replies.drain(..) {
            if let Some((ticket, reply)) = progress.relay.answer(ticket, reply) {
                self.desk.reply(ticket, reply);
            }
        }
    }

    fn tell_watchers(&self, progress: &mut Progress<M>) {
        let commits = &mut progress.outputs.commits;
        if !commits.is_empty() {
            self.watches.publish(commits);
            commits.clear();
        }
    }

    /// Answers reads that may answer much, until their answers are enough for a turn.
    fn work_backlog_off(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        let mut bytes = 0;
        while bytes < self.replica.limits().turn_reads_bytes_max
            && let Some(call) = progress.backlog.pop()
        {
            // Whose connection is gone wants it no more.
            if self.desk.unsent_bytes(&call.ticket).is_none() {
                continue;
            }
            let answered = progress.outputs.replies.len();
            self.answer(call, progress, now);
            bytes += progress.outputs.bytes_since(answered);
        }
    }

    fn answer(&mut self, call: Call, progress: &mut Progress<M>, now: Monotonic) {
        match call.request {
            Request::File(work) => begin_file_work(&mut self.replica, progress, call.ticket, work),
            Request::Read(Read::Gauges) => {
                self.tell_gauges(&progress.works);
                self.read(call, progress, now);
            }
            Request::Read(_) => {
                let scans = progress.scans.of_connection(&call.ticket);
                let under_way_bytes = scans * self.replica.limits().scan_unsent_bytes;
                if let Some(call) = self.admit(call, under_way_bytes, &mut progress.outputs) {
                    let answered = progress.outputs.replies.len();
                    self.read(call, progress, now);
                    for (ticket, reply) in &progress.outputs.replies[answered..] {
                        self.desk.expect(*ticket, reply.message_bytes());
                    }
                }
            }
            Request::Write(_) => unreachable!("writes pass the log"),
        }
    }

    /// The call, if its connection takes its answers well enough for another.
    pub(super) fn admit(&mut self, call: Call, under_way_bytes: usize, outputs: &mut Outputs) -> Option<Call> {
        match self.desk.admit(call, under_way_bytes) {
            Admission::Now(call) => Some(call),
            Admission::Held => None,
            Admission::Refused(call) => {
                self.replica.refuse(call.ticket, outputs);
                None
            }
        }
    }

    fn read(&mut self, call: Call, progress: &mut Progress<M>, now: Monotonic) {
        let Progress { scans, outputs, .. } = progress;
        answer::read(&mut self.replica, &self.facts, scans, call, now, outputs);
    }

    fn carry_out_effect(&mut self, requested: Requested, compactor: &mut Compactor, now: Monotonic) {
        match requested.effect {
            Effect::TermBegun => leases::begin_term(&mut self.replica, &self.identity, now),
            Effect::RaiseAlarm(alarm) => self.replica.raise_alarm(alarm, requested.held, now),
            Effect::AlarmChanged {
                alarm,
                member,
                is_raised,
            } => {
                let alarm = AlarmType::try_from(alarm).map_or("unknown", |alarm| alarm.as_str_name());
                let what = if is_raised { "alarm raised" } else { "alarm disarmed" };
                tracing::warn!(alarm, from = format!("{member:x}"), "{what}");
            }
            Effect::Compact { compaction, .. } => {
                self.watches.compacted(compaction.revision());
                compactor.schedule(Some(*compaction), requested.held);
            }
            Effect::AwaitCompaction { .. } => compactor.schedule(None, requested.held),
            Effect::MembersChanged => {
                tracing::info!("membership changed");
                self.tell_peers();
            }
            Effect::ClusterVersionChanged => tracing::info!("set cluster version"),
            Effect::RemovedSelf => {
                tracing::error!("permanently removed from the cluster");
                self.stop.notify();
            }
        }
    }
}

/// Begins work on the file. What walks over the index first does so in slices.
fn begin_file_work<M: Map>(
    replica: &mut Replica<Backend<M>>,
    progress: &mut Progress<M>,
    ticket: Ticket,
    work: FileWork,
) {
    match work {
        FileWork::Hash => progress.works.hash(ticket),
        FileWork::Defragment => progress.works.defragment(ticket),
        FileWork::HashKv(request) if replica.state().store().hashes.at(request.revision).is_some() => {
            progress
                .works
                .remembered_hash(ticket, request.revision, replica, &mut progress.outputs);
        }
        FileWork::HashKv(request) => match replica.state().store().hash_begin(request.revision) {
            Ok(job) => progress.scans.begin_hash(replica, ticket, job),
            Err(reject) => progress.outputs.refuse(ticket, reject),
        },
        FileWork::Snapshot(sink) => progress.works.snapshot(sink),
    }
}
