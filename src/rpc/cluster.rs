//! etcdserverpb.Cluster: the list of members. Changes of it are later work; what can be refused already is.

use bytes::Bytes;

use super::decode;
use crate::{
    base::Reject,
    config::Url,
    propose::{Question, Read, Request},
    wire::{
        proto::etcdserverpb::{MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest},
        status::Status,
    },
};

fn ask(question: Question) -> Result<Request, Status> {
    Ok(Request::Read(Read::Ask(question)))
}

fn check_peer_urls(urls: &[String]) -> Result<(), Status> {
    let are_good = !urls.is_empty() && urls.iter().all(|url| Url::parse(url).is_ok());
    are_good.then_some(()).ok_or(Reject::MemberBadUrls.into())
}

/// `MemberAdd`.
pub fn member_add(message: Bytes) -> Result<Request, Status> {
    let MemberAddRequest {
        peer_ur_ls: peer_urls, ..
    } = decode(message)?;
    check_peer_urls(&peer_urls)?;
    ask(Question::MemberAdd { peer_urls })
}

/// `MemberRemove`.
pub fn member_remove(message: Bytes) -> Result<Request, Status> {
    let MemberRemoveRequest { id } = decode(message)?;
    ask(Question::MemberRemove { id })
}

/// `MemberUpdate`.
pub fn member_update(message: Bytes) -> Result<Request, Status> {
    let MemberUpdateRequest { id, peer_ur_ls } = decode(message)?;
    check_peer_urls(&peer_ur_ls)?;
    ask(Question::MemberUpdate { id })
}

/// `MemberPromote`.
pub fn member_promote(message: Bytes) -> Result<Request, Status> {
    let MemberPromoteRequest { id } = decode(message)?;
    ask(Question::MemberPromote { id })
}

/// `MemberList`.
pub fn member_list(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Read(Read::MemberList(decode(message)?)))
}
