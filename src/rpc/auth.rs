//! etcdserverpb.Auth: that it is off. Users and roles are later work.

use bytes::Bytes;

use super::decode;
use crate::{
    base::Reject,
    propose::{Question, Read, Request},
    wire::{
        proto::etcdserverpb::{AuthStatusRequest, AuthenticateRequest},
        status::Status,
    },
};

/// `AuthStatus`.
pub fn status(message: Bytes) -> Result<Request, Status> {
    let AuthStatusRequest {} = decode(message)?;
    Ok(Request::Read(Read::Ask(Question::AuthStatus)))
}

/// `Authenticate`, for which there is no reason.
pub fn authenticate(message: Bytes) -> Result<Request, Status> {
    let AuthenticateRequest { .. } = decode(message)?;
    Err(Reject::AuthNotEnabled.into())
}
