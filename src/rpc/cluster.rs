//! etcdserverpb.Cluster: the list of members. Changes of it are later work.

use bytes::Bytes;

use super::decode;
use crate::{
    propose::{Read, Request},
    wire::status::Status,
};

/// `MemberList`.
pub fn member_list(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Read(Read::MemberList(decode(message)?)))
}
