//! etcdserverpb.Lease.

use bytes::Bytes;

use super::decode;
use crate::{
    propose::{Read, Request, Write},
    wire::{proto::etcdserverpb::LeaseLeasesRequest, status::Status},
};

/// `LeaseGrant`. The id, if the client leaves it to us, is chosen when the request is proposed.
pub fn grant(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Write(Write::LeaseGrant(decode(message)?)))
}

/// `LeaseRevoke`.
pub fn revoke(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Write(Write::LeaseRevoke(decode(message)?)))
}

/// One message of a `LeaseKeepAlive` stream.
pub fn keep_alive(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Read(Read::LeaseKeepAlive(decode(message)?)))
}

/// `LeaseTimeToLive`.
pub fn time_to_live(message: Bytes) -> Result<Request, Status> {
    Ok(Request::Read(Read::LeaseTimeToLive(decode(message)?)))
}

/// `LeaseLeases`.
pub fn leases(message: Bytes) -> Result<Request, Status> {
    let LeaseLeasesRequest {} = decode(message)?;
    Ok(Request::Read(Read::LeaseLeases))
}
