//! The other members, as the loop sees them: what comes from them goes to raft, what raft says goes to them, and
//! leadership goes to one of them when this member is about to stop, or its disk does.

use std::time::Duration;

use raft::eraftpb::MessageType;

use super::{
    Fault, answer,
    cycle::Publication,
    drive::{Home, Progress},
    leases,
    relay::is_of_peer,
    snapshotter,
};
use crate::{
    base::{MemberId, Monotonic, Reject},
    host::{Host, Map, mailbox},
    peer::{News, Parcel, Peer},
    propose::Reply,
};

/// Parts of a snapshot (256 KiB at most) that wait for who sends it.
const PARCEL_PARTS: usize = 4;

/// How the loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    /// It goes on.
    No,
    /// Leadership is on its way to another member; no longer than until this time.
    HandingOver(Monotonic),
    /// What was acknowledged is made durable, then it ends.
    Yes,
}

impl<H: Host, M: Map> Home<H, M> {
    /// Tells the exchange who the members are.
    pub(super) fn tell_peers(&self) {
        let members = self.replica.state().members().members();
        self.exchange.set_peers(members.map(|member| Peer {
            id: member.id,
            urls: member.peer_urls.clone(),
        }));
    }

    /// Gives raft what has come from others. A member that ends takes nothing more: what a busy leader sends would keep
    /// its log and its tree from ever coming to rest.
    pub(super) fn take_news(&mut self, progress: &mut Progress<M>, now: Monotonic) -> Result<(), Fault> {
        while let Some(news) = self.exchange.next_news() {
            if progress.stopping == Stopping::Yes {
                continue;
            }
            let consensus = self.replica.consensus_mut();
            match news {
                News::Snapshot(message, receipt) => self.offer_snapshot(progress, message, receipt)?,
                News::Message(message) => {
                    // What it refuses is of a member that is none, or a proposal that came too late: lost, as on the way.
                    if let Err(error) = consensus.step(message) {
                        tracing::debug!(%error, "message of another member dropped");
                    }
                }
                News::Question(question, asker) => {
                    // Without room it is dropped, and asked again.
                    if let Some(call) = progress.relay.take_in(question, asker) {
                        self.replica.submit(call, now, &mut progress.outputs);
                    }
                }
                News::Answer(number, answer) => {
                    if let Some((call, answer)) = progress.relay.answered(number, answer, now) {
                        let reply = answer::relayed(&self.replica, &call, answer);
                        progress.outputs.replies.push((call.ticket, reply));
                    }
                }
                News::Unreachable(member) => consensus.report_unreachable(member),
                News::SnapshotSent(member, is_received) => consensus.report_snapshot(member, is_received),
            }
        }
        Ok(())
    }

    /// Passes calls that only the leader can answer on to it; at each turn that has some, and at each tick.
    pub(super) fn pass_on(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        for call in progress.outputs.for_leader.drain(..) {
            let (ticket, timeout) = (call.ticket, self.replica.request_timeout());
            let reject = if is_of_peer(&call) {
                // Another member took this one for the leader.
                Reject::NotLeader
            } else if progress.relay.has_room() {
                progress.relay.pass_on(call, now, timeout);
                continue;
            } else {
                Reject::TooManyRequests
            };
            progress.outputs.replies.push((ticket, Reply::refusal(ticket, reject)));
        }
        if progress.relay.is_empty() {
            return;
        }
        let leader = self.replica.consensus().leader();
        for call in progress.relay.expire(now) {
            let reject = leader.map_or(Reject::NoLeader, |_| Reject::Timeout);
            progress.outputs.refuse(call.ticket, reject);
        }
        match leader {
            Some(leader) if leader == self.identity.member_id => {
                for call in progress.relay.take_back() {
                    self.replica.submit(call, now, &mut progress.outputs);
                }
            }
            Some(leader) => {
                for (number, question) in progress.relay.due(leader, now) {
                    self.exchange.ask(leader, number, question);
                }
            }
            None => {}
        }
    }

    /// Sends what raft has to say.
    pub(super) fn send(&self, progress: &mut Progress<M>) {
        let messages = &mut progress.outputs.messages;
        if messages.is_empty() {
            return;
        }
        let snapshots = messages.extract_if(.., |message| message.msg_type == MessageType::MsgSnapshot);
        progress.snapshots_wanted.extend(snapshots);
        self.exchange.send(messages.drain(..));
    }

    /// Whether a follower needs a snapshot, and this member can make one.
    pub(super) fn owes_snapshots(&self, progress: &Progress<M>) -> bool {
        !progress.snapshots_wanted.is_empty() && self.replica.has_caught_up()
    }

    /// Sends a snapshot of what is applied now to those who need one. It has just been sealed, and is in the store's
    /// hands: the file that streams behind that commit has it.
    pub(super) fn send_snapshots(&self, progress: &mut Progress<M>) {
        for mut message in progress.snapshots_wanted.drain(..) {
            let snapshot = snapshotter::snapshot_of(&self.replica);
            tracing::info!(
                "to" = format!("{:x}", message.to),
                "snapshot-index" = snapshot.get_metadata().index,
                "sending database snapshot"
            );
            message.set_snapshot(snapshot);
            let (sink, database) = mailbox(PARCEL_PARTS);
            progress.works.snapshot(sink);
            self.exchange.send_snapshot(Parcel { message, database });
        }
    }

    /// Tells the cluster who this member is, as soon as there is a leader to take it.
    pub(super) fn publish(&mut self, now: Monotonic) {
        if self.replica.publication() == Publication::Due && self.replica.consensus().takes_proposals() {
            leases::publish(&mut self.replica, &self.identity, now);
        }
    }

    /// A leader whose disk takes longer for one write than an election would take lets another lead: it could go on, but
    /// nothing that it does would be its own.
    pub(super) fn leave_stalled_disk(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        let Some(since) = progress.write_began.filter(|_| progress.write.is_some()) else {
            return;
        };
        let is_stalled = now.since(since) >= self.identity.election_timeout;
        if is_stalled && now >= progress.next_hand_over {
            progress.next_hand_over = now + self.identity.election_timeout;
            if let Some(successor) = self.hand_over() {
                tracing::warn!(
                    "transferee-member-id" = format!("{successor:x}"),
                    took = ?now.since(since),
                    "the log's disk is stalled; leadership transfer starting"
                );
            }
        }
    }

    /// Begins to hand leadership over, if this member has it and there is anybody to take it.
    fn hand_over(&mut self) -> Option<MemberId> {
        let consensus = self.replica.consensus_mut();
        if !consensus.is_leader() || consensus.is_alone() {
            return None;
        }
        let successor = consensus.successor()?;
        consensus.transfer_leader(successor);
        Some(successor)
    }

    /// The end is asked for: a leader finds a successor first, so that clients need not wait for an election.
    pub(super) fn begin_stop(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        if progress.stopping != Stopping::No {
            return;
        }
        progress.stopping = match self.hand_over() {
            Some(successor) => {
                tracing::info!(
                    "transferee-member-id" = format!("{successor:x}"),
                    "leadership transfer starting"
                );
                Stopping::HandingOver(now + self.hand_over_timeout())
            }
            None => Stopping::Yes,
        };
    }

    /// etcd's time for a request.
    fn hand_over_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.identity.election_timeout
    }

    /// Whether the successor leads by now, or time is over.
    pub(super) fn end_hand_over(&mut self, progress: &mut Progress<M>, now: Monotonic) {
        let Stopping::HandingOver(until) = progress.stopping else {
            return;
        };
        let consensus = self.replica.consensus();
        let is_over = !consensus.is_leader() && consensus.leader().is_some();
        if is_over {
            tracing::info!("leadership transfer finished");
        }
        if is_over || now >= until {
            progress.stopping = Stopping::Yes;
        }
    }
}
