//! The end of a cluster's story: everything is mended, and all members must come to the same state within bounded time,
//! leases must end, and every member must tell the whole history.

use std::time::Duration;

use ringd::{
    base::Monotonic,
    host::Host,
    testing::{Faults, LinkFaults},
    wire::proto::etcdserverpb::*,
};

use super::Cluster;
use crate::{
    client::Channel,
    history::{Failure, Op, Outcome},
    scene::Watched,
    server::member_address,
    watcher,
};

/// After everything is mended, members must agree within this time.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(60);
/// Leases that nobody renews are gone after their time (6 s at most), what a new term adds, and some patience.
const LEASES_LIMIT: Duration = Duration::from_secs(20);

/// What all members must come to tell alike, without leases that could still end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    applied: u64,
    revision: i64,
    hash: u32,
    leases: usize,
}

impl Cluster {
    pub(super) async fn mend(&mut self) {
        self.links.set_faults(LinkFaults::default());
        self.mend_ways();
        for place in 0..self.members.len() {
            self.resume(place);
            self.sim.set_faults(&self.members[place].host, Faults::default());
            if self.members[place].is_disk_bad || !self.members[place].rot.is_empty() {
                self.lose_machine(place);
                self.mend_disk(place).await;
            }
            if self.members[place].server.is_none() {
                self.start(place);
            }
        }
    }

    /// Clients ask no more: everything comes to rest, and is right.
    pub(super) async fn rest(&mut self) -> Result<(), String> {
        self.await_clients().await?;
        self.await_given_up().await;
        self.agree(AGREEMENT_LIMIT, |_| true).await?;
        self.agree(LEASES_LIMIT, |state| state.leases == 0).await?;
        self.await_watchers().await?;
        self.read_histories().await?;
        self.plan.is_watched.set(false);
        Ok(())
    }

    /// All members have applied the same, have the same hash, and are as is wanted.
    async fn agree(&mut self, limit: Duration, is_wanted: impl Fn(&State) -> bool) -> Result<(), String> {
        let until = self.auditor.now() + limit;
        let mut seen = Vec::new();
        while self.auditor.now() < until {
            self.look()?;
            seen.clear();
            for place in 0..self.members.len() {
                seen.push(self.state_of(place).await);
            }
            let first = seen[0];
            if first.as_ref().is_some_and(&is_wanted) && seen.iter().all(|state| *state == first) {
                return Ok(());
            }
            self.pause(Duration::from_millis(500)).await;
        }
        Err(format!(
            "members do not agree, or leases outlive their time, {limit:?} after everything was mended: {seen:?}"
        ))
    }

    /// What a member tells of its store.
    async fn state_of(&self, place: usize) -> Option<State> {
        let limit = Duration::from_secs(5);
        let channel = Channel::connect(&self.auditor, member_address(place), limit).await?;
        let asked = async {
            let status: StatusResponse = channel
                .unary("/etcdserverpb.Maintenance/Status", &StatusRequest {}, limit)
                .await?;
            let hash: HashKvResponse = channel
                .unary(
                    "/etcdserverpb.Maintenance/HashKV",
                    &HashKvRequest { revision: 0 },
                    limit,
                )
                .await?;
            let leases: LeaseLeasesResponse = channel
                .unary("/etcdserverpb.Lease/LeaseLeases", &LeaseLeasesRequest {}, limit)
                .await?;
            Ok::<_, Failure>(State {
                applied: status.raft_applied_index,
                revision: hash.hash_revision,
                hash: hash.hash,
                leases: leases.leases.len(),
            })
        };
        let state = asked.await.ok();
        channel.close();
        state
    }

    /// Every request has an answer, or its client has given up: one that is answered late is shown a revision late.
    async fn await_clients(&self) -> Result<(), String> {
        for _ in 0..600 {
            let is_pending = |op: &Op| matches!(op.outcome, Outcome::Pending);
            if !self.recorder.history().ops.iter().any(is_pending) {
                return Ok(());
            }
            self.pause(Duration::from_millis(100)).await;
        }
        Err("a client waits for more than a minute".to_owned())
    }

    /// What a client has given up may still be carried out, for as long as a member holds it back and then waits for its
    /// outcome.
    async fn await_given_up(&self) {
        let patience = 2 * (Duration::from_secs(5) + 2 * self.options.election_timeout());
        let last = {
            let history = self.recorder.history();
            let given_up = history.ops.iter().filter(|op| matches!(op.outcome, Outcome::Unknown));
            given_up.map(|op| op.invoked_nanos).max()
        };
        if let Some(last) = last {
            self.auditor.sleep_until(Monotonic(last) + patience).await;
        }
    }

    /// All watchers have been told all that is theirs.
    async fn await_watchers(&self) -> Result<(), String> {
        for _ in 0..600 {
            let (known, floor) = {
                let history = self.recorder.history();
                (history.known(), history.floor)
            };
            let is_told = |watchers: &Watched| watcher::is_told(&watchers.borrow(), floor);
            if known >= floor && self.watchers.iter().all(is_told) {
                return Ok(());
            }
            self.pause(Duration::from_millis(100)).await;
        }
        let history = self.recorder.history();
        Err(format!(
            "of revisions up to {} the watcher of everything knows those up to {}; others are at {:?}",
            history.floor,
            history.known(),
            self.watchers
        ))
    }

    /// Each member tells the whole history, as far as it is readable.
    async fn read_histories(&self) -> Result<(), String> {
        let revision = self.recorder.history().floor;
        for address in self.addresses() {
            watcher::read_history(&self.auditor, &self.recorder, &self.plan, address, revision).await?;
        }
        Ok(())
    }

    /// All stop in peace, and leave sound directories.
    pub(super) async fn close(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            self.end_soundly(place).await?;
        }
        Ok(())
    }
}
