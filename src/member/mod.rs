//! The cluster: its members, the ids that can never come back, its version, and a downgrade under way. What it is made
//! of comes from the log alone, so that every member has the same.
//!
//! Knows nothing of the tree (what is stored comes from [`json`] as bytes), of connections, or of raft beyond the shape of
//! a configuration change ([`change`]). Invariant: no id is both a member and removed.

pub mod change;
pub mod ids;
pub mod json;
mod version;

use std::collections::{BTreeMap, BTreeSet};

pub use change::{ChangeContext, ChangeKind, ConfChangeFault, MemberChange};
pub use version::ClusterVersion;

use crate::base::MemberId;
use crate::wire::proto::etcdserverpb;

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id, also in raft.
    pub id: MemberId,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
}

impl Member {
    /// As the Cluster service shows it.
    pub fn to_proto(&self) -> etcdserverpb::Member {
        etcdserverpb::Member {
            id: self.id.0,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }

    /// Whether it has ever started: it publishes its name when it does.
    pub fn has_started(&self) -> bool {
        !self.name.is_empty()
    }
}

/// A downgrade of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// The version that is aimed at; empty when none is.
    pub target_version: String,
    /// Whether one is under way.
    pub is_enabled: bool,
}

/// What the log says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    version: Option<ClusterVersion>,
    downgrade: Option<Downgrade>,
}

impl Membership {
    /// From what was stored. A member that also counts as removed is left out: an old release of etcd forgot to delete
    /// such records.
    pub fn restore(
        members: impl IntoIterator<Item = Member>,
        removed: impl IntoIterator<Item = MemberId>,
        version: Option<ClusterVersion>,
        downgrade: Option<Downgrade>,
    ) -> Membership {
        let removed: BTreeSet<_> = removed.into_iter().collect();
        let members = members.into_iter().filter(|member| !removed.contains(&member.id));
        Membership {
            members: members.map(|member| (member.id, member)).collect(),
            removed,
            version,
            downgrade,
        }
    }

    /// All members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Members with a vote, by id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| !member.is_learner)
    }

    /// Ids that were members.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// Whether the id was a member and never can be again.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// The version that all members support, once it is agreed.
    pub fn version(&self) -> Option<&ClusterVersion> {
        self.version.as_ref()
    }

    /// What was last said about a downgrade.
    pub fn downgrade(&self) -> Option<&Downgrade> {
        self.downgrade.as_ref()
    }

    /// All members as the Cluster service shows them.
    pub fn to_proto(&self) -> Vec<etcdserverpb::Member> {
        self.members().map(Member::to_proto).collect()
    }

    /// Sets the cluster's version; whether that is another one than before.
    pub fn set_version(&mut self, version: ClusterVersion) -> bool {
        let is_change = self.version.as_ref() != Some(&version);
        self.version = Some(version);
        is_change
    }

    /// Notes a downgrade, or the end of one.
    pub fn set_downgrade(&mut self, downgrade: Downgrade) {
        self.downgrade = Some(downgrade);
    }

    /// A member made its name and client URLs known. Its new state; `None` if there is no such member.
    pub fn set_attributes(&mut self, id: MemberId, name: String, client_urls: Vec<String>) -> Option<&Member> {
        let member = self.members.get_mut(&id)?;
        member.name = name;
        member.client_urls = client_urls;
        Some(member)
    }

    /// Gives a learner its vote in this view. For data of releases that lost a promotion, and for promotions.
    pub fn set_voter(&mut self, id: MemberId) -> Option<&Member> {
        let member = self.members.get_mut(&id)?;
        member.is_learner = false;
        Some(member)
    }

    /// Whether a majority of the voters that there would be with one more has started, so that adding one cannot stop
    /// the cluster. A lone started member may always be joined by a second.
    pub fn may_add_voter(&self) -> bool {
        let (voters, started) = self.voters_started(None);
        (started == 1 && voters == 1) || started > voters.div_ceil(2)
    }

    /// Whether those that remain when this member leaves have a majority that has started.
    pub fn may_remove_voter(&self, id: MemberId) -> bool {
        let (voters, started) = self.voters_started(Some(id));
        started > voters / 2
    }

    /// Whether promoting a learner, which counts as started, leaves a majority that has started.
    pub fn may_promote(&self) -> bool {
        let (voters, started) = self.voters_started(None);
        started + 1 > voters.div_ceil(2)
    }

    fn voters_started(&self, without: Option<MemberId>) -> (usize, usize) {
        self.voters()
            .filter(|member| Some(member.id) != without)
            .fold((0, 0), |(voters, started), member| {
                (voters + 1, started + usize::from(member.has_started()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_learner: bool) -> Member {
        Member {
            id: MemberId(id),
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            is_learner,
            name: name.to_owned(),
            client_urls: Vec::new(),
        }
    }

    #[test]
    fn member_that_counts_as_removed_is_not_restored() {
        let all = [member(1, "a", false), member(2, "b", false)];
        let membership = Membership::restore(all, [MemberId(2)], None, None);
        assert_eq!(membership.members().len(), 1);
        assert!(membership.is_removed(MemberId(2)));
    }

    #[test]
    fn changes_may_not_leave_less_than_a_started_majority() {
        let of = |members: &[(&str, bool)]| {
            let members = members.iter().enumerate();
            let members = members.map(|(at, (name, is_learner))| member(at as u64 + 1, name, *is_learner));
            Membership::restore(members, [], None, None)
        };
        assert!(of(&[("a", false)]).may_add_voter());
        assert!(!of(&[("a", false), ("", false)]).may_add_voter());
        assert!(of(&[("a", false), ("b", false)]).may_add_voter());
        assert!(of(&[("a", false), ("b", false), ("c", false)]).may_add_voter());
        assert!(!of(&[("a", false), ("b", false), ("", false)]).may_add_voter());
        assert!(of(&[("a", false), ("b", false), ("", false)]).may_remove_voter(MemberId(3)));
        assert!(!of(&[("a", false), ("b", false), ("", false)]).may_remove_voter(MemberId(1)));
        assert!(!of(&[("a", false)]).may_remove_voter(MemberId(1)));
        assert!(of(&[("a", false), ("", true)]).may_promote());
        assert!(!of(&[("a", false), ("", false), ("", false), ("", true)]).may_promote());
    }
}
