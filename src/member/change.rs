//! Configuration changes: what the log asks for, whether it may be, and what it makes of the membership.

use super::{Member, Membership, json};
use crate::base::{MemberId, Reject};
use crate::wire::proto::raftpb::{ConfChange, ConfChangeType};

/// A configuration change of the log that cannot be read. The log is damaged, or of a release that we do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChangeFault {
    /// The kind of change is unknown.
    UnknownKind,
    /// The member that comes with it is not readable.
    BadContext,
    /// The member that comes with it has another id than the change.
    IdMismatch,
}

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member, with a vote or as a learner.
    Add(Member),
    /// A learner gets its vote.
    Promote(MemberId),
    /// A member leaves.
    Remove(MemberId),
    /// A member moves to other peer URLs.
    Update(MemberId, Vec<String>),
}

/// The kind of a change: which call of the Cluster service it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// MemberAdd.
    Add,
    /// MemberPromote.
    Promote,
    /// MemberRemove.
    Remove,
    /// MemberUpdate.
    Update,
}

/// A change to propose, as the log carries it.
pub struct ChangeContext {
    /// raft's kind.
    pub kind: ConfChangeType,
    /// The member.
    pub member_id: MemberId,
    /// JSON; empty for a removal.
    pub context: bytes::Bytes,
}

impl MemberChange {
    /// Reads a change from the log.
    pub fn parse(change: &ConfChange) -> Result<MemberChange, ConfChangeFault> {
        let kind = ConfChangeType::try_from(change.r#type.unwrap_or_default());
        let kind = kind.map_err(|_| ConfChangeFault::UnknownKind)?;
        let id = MemberId(change.node_id());
        let member = || -> Result<(Member, bool), ConfChangeFault> {
            let (member, is_promote) = json::parse_member(change.context()).ok_or(ConfChangeFault::BadContext)?;
            match member.id == id {
                true => Ok((member, is_promote)),
                false => Err(ConfChangeFault::IdMismatch),
            }
        };
        Ok(match kind {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => match member()? {
                (member, true) => MemberChange::Promote(member.id),
                (member, false) => MemberChange::Add(member),
            },
            ConfChangeType::ConfChangeRemoveNode => MemberChange::Remove(id),
            ConfChangeType::ConfChangeUpdateNode => MemberChange::Update(id, member()?.0.peer_urls),
        })
    }

    /// The change as a proposal carries it.
    pub fn to_context(&self) -> ChangeContext {
        let (kind, context) = match self {
            MemberChange::Add(member) if member.is_learner => (
                ConfChangeType::ConfChangeAddLearnerNode,
                json::add_context(member, false),
            ),
            MemberChange::Add(member) => (ConfChangeType::ConfChangeAddNode, json::add_context(member, false)),
            MemberChange::Promote(id) => {
                // Only the id and the flag count; the fields of a member are written out all the same.
                let member = Member {
                    id: *id,
                    ..Member::default()
                };
                (ConfChangeType::ConfChangeAddNode, json::add_context(&member, true))
            }
            MemberChange::Remove(_) => (ConfChangeType::ConfChangeRemoveNode, bytes::Bytes::new()),
            MemberChange::Update(id, peer_urls) => {
                let member = Member {
                    id: *id,
                    peer_urls: peer_urls.clone(),
                    ..Member::default()
                };
                (ConfChangeType::ConfChangeUpdateNode, json::member(&member))
            }
        };
        ChangeContext {
            kind,
            member_id: self.member_id(),
            context,
        }
    }

    /// Whom it concerns.
    pub fn member_id(&self) -> MemberId {
        match self {
            MemberChange::Add(member) => member.id,
            MemberChange::Promote(id) | MemberChange::Remove(id) | MemberChange::Update(id, _) => *id,
        }
    }

    /// Which call it came from.
    pub fn kind(&self) -> ChangeKind {
        match self {
            MemberChange::Add(_) => ChangeKind::Add,
            MemberChange::Promote(_) => ChangeKind::Promote,
            MemberChange::Remove(_) => ChangeKind::Remove,
            MemberChange::Update(..) => ChangeKind::Update,
        }
    }
}

impl Membership {
    /// Whether a change may be made; asked again when it is applied, since others may have come before it.
    /// `learners_max` bounds learners.
    pub fn check_change(&self, change: &MemberChange, learners_max: usize) -> Result<(), Reject> {
        let id = change.member_id();
        if self.is_removed(id) {
            return Err(Reject::MemberNotFound);
        }
        let member = self.member(id);
        match change {
            MemberChange::Promote(_) => match member {
                None => Err(Reject::MemberNotFound),
                Some(member) if !member.is_learner => Err(Reject::MemberNotLearner),
                Some(_) => Ok(()),
            },
            MemberChange::Add(_) if member.is_some() => Err(Reject::MemberExists),
            MemberChange::Add(added) => {
                self.check_peer_urls(id, &added.peer_urls)?;
                let learners = self.members().filter(|member| member.is_learner).count();
                match added.is_learner && learners >= learners_max {
                    true => Err(Reject::TooManyLearners),
                    false => Ok(()),
                }
            }
            MemberChange::Remove(_) | MemberChange::Update(..) if member.is_none() => Err(Reject::MemberNotFound),
            MemberChange::Remove(_) => Ok(()),
            MemberChange::Update(_, peer_urls) => self.check_peer_urls(id, peer_urls),
        }
    }

    fn check_peer_urls(&self, id: MemberId, peer_urls: &[String]) -> Result<(), Reject> {
        let is_taken = |url: &String| {
            let mut others = self.members().filter(|member| member.id != id);
            others.any(|member| member.peer_urls.contains(url))
        };
        match peer_urls.iter().any(is_taken) {
            true => Err(Reject::PeerUrlsExist),
            false => Ok(()),
        }
    }

    /// Makes a change that [`Membership::check_change`] allowed.
    pub fn make_change(&mut self, change: &MemberChange) {
        match change {
            MemberChange::Add(member) => _ = self.members.insert(member.id, member.clone()),
            MemberChange::Promote(id) => _ = self.set_voter(*id),
            MemberChange::Remove(id) => {
                self.members.remove(id);
                self.removed.insert(*id);
            }
            MemberChange::Update(id, peer_urls) => {
                if let Some(member) = self.members.get_mut(id) {
                    member.peer_urls.clone_from(peer_urls);
                }
            }
        }
    }
}

/// Runs outside bytes through what reads a change of the members from the log; must not panic.
pub fn fuzz_change(bytes: &[u8]) {
    if let Ok(change) = <ConfChange as prost::Message>::decode(bytes) {
        let _ = MemberChange::parse(&change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, url: &str, is_learner: bool) -> Member {
        Member {
            id: MemberId(id),
            peer_urls: vec![url.to_owned()],
            is_learner,
            ..Member::default()
        }
    }

    #[test]
    fn change_is_refused_for_the_reasons_that_etcd_has() {
        let members = [member(1, "a", false), member(2, "b", true)];
        let membership = Membership::restore(members, [MemberId(9)], None, None);
        let check = |change: MemberChange, expected: Result<(), Reject>| {
            assert_eq!(membership.check_change(&change, 1), expected, "{change:?}");
        };
        check(MemberChange::Add(member(9, "z", false)), Err(Reject::MemberNotFound));
        check(MemberChange::Add(member(1, "z", false)), Err(Reject::MemberExists));
        check(MemberChange::Add(member(3, "a", false)), Err(Reject::PeerUrlsExist));
        check(MemberChange::Add(member(3, "c", true)), Err(Reject::TooManyLearners));
        check(MemberChange::Add(member(3, "c", false)), Ok(()));
        check(MemberChange::Promote(MemberId(3)), Err(Reject::MemberNotFound));
        check(MemberChange::Promote(MemberId(1)), Err(Reject::MemberNotLearner));
        check(MemberChange::Promote(MemberId(2)), Ok(()));
        check(MemberChange::Remove(MemberId(3)), Err(Reject::MemberNotFound));
        check(MemberChange::Remove(MemberId(1)), Ok(()));
        check(MemberChange::Update(MemberId(3), vec![]), Err(Reject::MemberNotFound));
        check(
            MemberChange::Update(MemberId(1), vec!["b".into()]),
            Err(Reject::PeerUrlsExist),
        );
        check(MemberChange::Update(MemberId(1), vec!["a".into(), "d".into()]), Ok(()));
    }

    #[test]
    fn change_survives_the_log() {
        let changes = [
            MemberChange::Add(member(2, "b", false)),
            MemberChange::Add(member(2, "b", true)),
            MemberChange::Promote(MemberId(2)),
            MemberChange::Remove(MemberId(1)),
            MemberChange::Update(MemberId(1), vec!["c".into()]),
        ];
        for change in changes {
            let context = change.to_context();
            let logged = ConfChange {
                id: Some(7),
                r#type: Some(context.kind as i32),
                node_id: Some(context.member_id.0),
                context: Some(context.context),
            };
            assert_eq!(MemberChange::parse(&logged), Ok(change));
        }
        let bad = ConfChange {
            node_id: Some(3),
            context: Some(json::add_context(&member(2, "b", false), false)),
            ..ConfChange::default()
        };
        assert_eq!(MemberChange::parse(&bad), Err(ConfChangeFault::IdMismatch));
        assert_eq!(
            MemberChange::parse(&ConfChange { r#type: Some(9), ..bad }),
            Err(ConfChangeFault::UnknownKind)
        );
    }

    #[test]
    fn removed_member_never_comes_back() {
        let mut membership = Membership::restore([member(1, "a", false), member(2, "b", false)], [], None, None);
        membership.make_change(&MemberChange::Remove(MemberId(2)));
        assert_eq!(membership.members().len(), 1);
        let again = MemberChange::Add(member(2, "b", false));
        assert_eq!(membership.check_change(&again, 1), Err(Reject::MemberNotFound));
    }
}
