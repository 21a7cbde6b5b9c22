//! What a lone member can say truthfully of calls whose machinery is still to come: it refuses what etcd refuses, and
//! says of the rest that it is not supported yet.

use bytes::Bytes;
use prost::Message;

use super::cycle::Replica;
use crate::{
    apply::Tree,
    base::{MemberId, Reject},
    member::ClusterVersion,
    propose::{Method, Question},
    rpc::status::not_yet,
    wire::{
        proto::etcdserverpb::{
            AuthStatusResponse, DowngradeResponse, MoveLeaderResponse, downgrade_request::DowngradeAction,
        },
        status::{Code, Status},
    },
};

/// Revision of an auth store in which nothing was ever changed.
const AUTH_REVISION: u64 = 1;

/// Answers a question from the state as it is.
pub fn answer<T: Tree>(replica: &Replica<T>, method: Method, question: &Question) -> Result<Bytes, Status> {
    match question {
        Question::AuthStatus => Ok(auth_status(replica)),
        Question::MemberAdd { peer_urls } => {
            let mut members = replica.state().members().members();
            match members.any(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url))) {
                true => Err(Reject::PeerUrlsExist.into()),
                false => Err(not_yet(method)),
            }
        }
        Question::MemberRemove { id } => {
            member(replica, *id)?;
            match replica.state().members().may_remove_voter(MemberId(*id)) {
                // etcd hands out its error of another kind here, so that the code is lost on the way.
                false => Err(Status::new(
                    Code::Unknown,
                    "etcdserver: re-configuration failed due to not enough started members",
                )),
                true => Err(not_yet(method)),
            }
        }
        Question::MemberUpdate { id } => {
            member(replica, *id)?;
            Err(not_yet(method))
        }
        Question::MemberPromote { id } => match member(replica, *id)?.is_learner {
            false => Err(Reject::MemberNotLearner.into()),
            true => Err(not_yet(method)),
        },
        Question::MoveLeader { target } => move_leader(replica, *target, method),
        Question::Downgrade { action, version } => downgrade(replica, *action, version, method),
    }
}

fn auth_status<T: Tree>(replica: &Replica<T>) -> Bytes {
    let response = AuthStatusResponse {
        header: Some(replica.state().header_message()),
        enabled: false,
        auth_revision: AUTH_REVISION,
    };
    response.encode_to_vec().into()
}

fn member<T: Tree>(replica: &Replica<T>, id: u64) -> Result<&crate::member::Member, Status> {
    let member = replica.state().members().member(MemberId(id));
    member.ok_or(Reject::MemberNotFound.into())
}

fn move_leader<T: Tree>(replica: &Replica<T>, target: u64, method: Method) -> Result<Bytes, Status> {
    if !replica.consensus().is_leader() {
        return Err(Reject::NotLeader.into());
    }
    if replica.consensus().leader() == Some(MemberId(target)) {
        // It has what it is to be given.
        return Ok(MoveLeaderResponse { header: None }.encode_to_vec().into());
    }
    match replica.state().members().member(MemberId(target)) {
        Some(member) if !member.is_learner => Err(not_yet(method)),
        _ => Err(Reject::BadLeaderTransferee.into()),
    }
}

fn downgrade<T: Tree>(replica: &Replica<T>, action: i32, version: &str, method: Method) -> Result<Bytes, Status> {
    let members = replica.state().members();
    match DowngradeAction::try_from(action) {
        Err(_) => return Err(Status::new(Code::Unknown, "etcdserver: unknown method")),
        Ok(DowngradeAction::Cancel) if members.downgrade().is_none_or(|downgrade| !downgrade.is_enabled) => {
            return Err(Reject::NoInflightDowngrade.into());
        }
        Ok(DowngradeAction::Cancel) => return Err(not_yet(method)),
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {}
    }
    let target = ClusterVersion::parse(version)
        .or_else(|| ClusterVersion::parse(&format!("{version}.0")))
        .ok_or(Reject::WrongDowngradeVersionFormat)?;
    let current = members.version().ok_or(Reject::ClusterVersionUnavailable)?;
    let is_one_below = target.major == current.major && target.minor + 1 == current.minor;
    if !is_one_below {
        return Err(Reject::InvalidDowngradeTargetVersion.into());
    }
    if action == DowngradeAction::Enable as i32 {
        return Err(not_yet(method));
    }
    let response = DowngradeResponse {
        header: Some(replica.state().header_message()),
        version: current.to_string(),
    };
    Ok(response.encode_to_vec().into())
}
