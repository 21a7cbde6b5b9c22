//! Members: configuration changes, and the requests that set their attributes, the cluster's version and a downgrade, in
//! the form of each release.
//!
//! A configuration change takes two steps, since raft's own comes between: what raft is given depends on whether the
//! change may be made, and what is stored depends on the configuration that raft then has.

use bytes::Bytes;
use prost::Message;

use super::{
    open::OpenFault,
    outcome::{Applied, ApplyFault, ConfChangePlan, Effect, EntryAt},
    state::State,
    tree::Tree,
};
use crate::backend::Bucket;
use crate::base::{MemberId, RequestId};
use crate::member::{ChangeKind, ClusterVersion, Downgrade, Member, MemberChange, Membership, json};
use crate::wire::proto::etcdserverpb::{
    self, MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse,
    Request,
};
use crate::wire::proto::raftpb::{ConfChange, ConfState};

const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";

impl<T: Tree> State<T> {
    /// Reads a committed configuration change and judges it. Give [`ConfChangePlan::to_raft`] to raft, and what raft then
    /// has as its configuration to [`State::finish_conf_change`].
    pub fn plan_conf_change(&mut self, at: EntryAt, data: &Bytes) -> Result<ConfChangePlan, ApplyFault> {
        self.begin_entry(at)?;
        let mut to_raft = ConfChange::decode(data.clone()).map_err(|_| ApplyFault::Malformed(at.index))?;
        let request_id = RequestId(to_raft.id());
        let change = MemberChange::parse(&to_raft).map_err(|fault| ApplyFault::ConfChange(at.index, fault))?;
        // What was applied before is judged by the members there were then.
        let members = if self.is_applied(at) {
            &self.replayed
        } else {
            &self.members
        };
        let verdict = members.check_change(&change, self.config.learners_max);
        if verdict.is_err() {
            to_raft.node_id = Some(0);
        }
        Ok(ConfChangePlan {
            to_raft,
            at,
            request_id,
            change,
            verdict,
        })
    }

    /// Makes the change, unless it was refused. `conf_state` is raft's configuration after it.
    pub fn finish_conf_change(&mut self, plan: ConfChangePlan, conf_state: ConfState) -> Applied {
        if self.is_applied(plan.at) {
            if plan.verdict.is_ok() {
                self.replayed.make_change(&plan.change);
            }
            return Applied {
                request_id: Some(plan.request_id),
                ..Applied::default()
            };
        }
        self.advance(plan.at);
        if let Err(reject) = plan.verdict {
            return Applied {
                request_id: Some(plan.request_id),
                ..Applied::refused(reject)
            };
        }
        self.members.make_change(&plan.change);
        let id = plan.change.member_id();
        match &plan.change {
            MemberChange::Remove(_) => {
                let key = json::member_key(id);
                let removed = Bytes::from_static(json::REMOVED);
                self.tree.put(Bucket::MembersRemoved, key.as_bytes(), removed);
                self.tree.delete(Bucket::Members, key.as_bytes());
            }
            MemberChange::Add(_) | MemberChange::Promote(_) | MemberChange::Update(..) => self.store_member(id),
        }
        self.conf_state = Some(conf_state);
        self.is_conf_state_dirty = true;
        let is_removal = plan.change.kind() == ChangeKind::Remove;
        let removed_self = is_removal && id == self.config.member_id;
        Applied {
            request_id: Some(plan.request_id),
            answer: Some(Ok(self.member_response(&plan.change))),
            effect: Some(if removed_self {
                Effect::RemovedSelf
            } else {
                Effect::MembersChanged
            }),
            ..Applied::default()
        }
    }

    /// Answers MemberList. As all answers about members it shows no revision.
    pub fn member_list(&self) -> Bytes {
        let response = MemberListResponse {
            header: Some(self.header.message(0)),
            members: self.members.to_proto(),
        };
        response.encode_to_vec().into()
    }

    fn member_response(&self, change: &MemberChange) -> Bytes {
        let header = Some(self.header.message(0));
        let members = self.members.to_proto();
        let response = match change {
            MemberChange::Add(member) => {
                let member = Some(etcdserverpb::Member {
                    name: String::new(),
                    client_ur_ls: Vec::new(),
                    ..member.to_proto()
                });
                MemberAddResponse {
                    header,
                    member,
                    members,
                }
                .encode_to_vec()
            }
            MemberChange::Promote(_) => MemberPromoteResponse { header, members }.encode_to_vec(),
            MemberChange::Remove(_) => MemberRemoveResponse { header, members }.encode_to_vec(),
            MemberChange::Update(..) => MemberUpdateResponse { header, members }.encode_to_vec(),
        };
        response.into()
    }

    fn store_member(&mut self, id: MemberId) {
        if let Some(member) = self.members.member(id) {
            self.tree
                .put(Bucket::Members, json::member_key(id).as_bytes(), json::member(member));
        }
    }

    pub(super) fn apply_cluster_version(&mut self, at: EntryAt, text: &str) -> Result<Applied, ApplyFault> {
        let version = ClusterVersion::parse(text).ok_or_else(|| ApplyFault::BadVersion(at.index, text.to_owned()))?;
        let stored = Bytes::from(version.to_string());
        self.tree.put(Bucket::Cluster, CLUSTER_VERSION, stored);
        let is_change = self.members.set_version(version);
        Ok(Applied {
            answer: Some(Ok(Bytes::new())),
            effect: is_change.then_some(Effect::ClusterVersionChanged),
            ..Applied::default()
        })
    }

    pub(super) fn apply_member_attributes(
        &mut self,
        at: EntryAt,
        id: MemberId,
        name: String,
        client_urls: Vec<String>,
    ) -> Result<Applied, ApplyFault> {
        let is_member = self.members.set_attributes(id, name, client_urls).is_some();
        if !is_member && !self.members.is_removed(id) {
            return Err(ApplyFault::UnknownMember(at.index, id));
        }
        self.store_member(id);
        Ok(Applied {
            answer: Some(Ok(Bytes::new())),
            effect: is_member.then_some(Effect::MembersChanged),
            ..Applied::default()
        })
    }

    pub(super) fn apply_downgrade(&mut self, is_enabled: bool, version: String) -> Applied {
        let downgrade = Downgrade {
            target_version: if is_enabled { version } else { String::new() },
            is_enabled,
        };
        self.tree.put(Bucket::Cluster, DOWNGRADE, json::downgrade(&downgrade));
        self.members.set_downgrade(downgrade);
        Applied {
            answer: Some(Ok(Bytes::new())),
            ..Applied::default()
        }
    }

    /// Requests of the v2 API: what is left of them in logs of 3.5 is how members publish their attributes, and the
    /// cluster its version. The others changed a store that is gone.
    pub(super) fn apply_v2(&mut self, at: EntryAt, request: &Request) -> Result<Applied, ApplyFault> {
        let is_plain_put = request.method == "PUT"
            && request.prev_exist.is_none()
            && request.prev_index == 0
            && request.prev_value.is_empty();
        if !is_plain_put {
            return Ok(Applied::nothing());
        }
        if request.path == "/0/version" {
            return self.apply_cluster_version(at, &request.val);
        }
        let Some(id) = v2_attributes_path(&request.path) else {
            return Ok(Applied::nothing());
        };
        let (name, client_urls) = json::parse_attributes(&request.val).ok_or(ApplyFault::Malformed(at.index))?;
        self.apply_member_attributes(at, id, name, client_urls)
    }
}

/// The member in `/0/members/<id>/attributes`.
fn v2_attributes_path(path: &str) -> Option<MemberId> {
    let id = path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?;
    json::parse_member_key(id.as_bytes())
}

/// What the buckets say of the cluster.
pub(super) fn restore_membership<T: Tree>(tree: &T, conf_state: Option<&ConfState>) -> Result<Membership, OpenFault> {
    let (mut members, mut removed, mut unreadable) = (Vec::new(), Vec::new(), None);
    tree.visit(
        Bucket::Members,
        &mut |key, value| match (json::parse_member_key(key), json::parse_member(value)) {
            (Some(id), Some((member, _))) => members.push(Member { id, ..member }),
            _ => unreadable = Some(OpenFault::unreadable(Bucket::Members, key)),
        },
    );
    tree.visit(
        Bucket::MembersRemoved,
        &mut |key, _| match json::parse_member_key(key) {
            Some(id) => removed.push(id),
            None => unreadable = Some(OpenFault::unreadable(Bucket::MembersRemoved, key)),
        },
    );
    if let Some(fault) = unreadable {
        return Err(fault);
    }
    let version = match tree.value(Bucket::Cluster, CLUSTER_VERSION) {
        Some(text) => {
            let version = std::str::from_utf8(&text).ok().and_then(ClusterVersion::parse);
            Some(version.ok_or_else(|| OpenFault::unreadable(Bucket::Cluster, CLUSTER_VERSION))?)
        }
        None => None,
    };
    let downgrade = match tree.value(Bucket::Cluster, DOWNGRADE) {
        Some(stored) => {
            Some(json::parse_downgrade(&stored).ok_or_else(|| OpenFault::unreadable(Bucket::Cluster, DOWNGRADE))?)
        }
        None => None,
    };
    // Some releases of etcd lost promotions in this bucket; raft's configuration has them.
    for member in &mut members {
        let has_vote = conf_state.is_some_and(|state| state.voters.contains(&member.id.0));
        member.is_learner &= !has_vote;
    }
    Ok(Membership::restore(members, removed, version, downgrade))
}
