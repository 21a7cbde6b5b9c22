//! Streams that keep leases alive: one for each client, a message for each request.

use bytes::{Bytes, BytesMut};

use super::crew::{decoded, write};
use crate::{
    base::Monotonic,
    wire::{
        proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse},
        server::StreamId,
    },
};

pub(super) const PATH: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// A client's stream, and the request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepAlive {
    pub stream: StreamId,
    pub intended: Option<Monotonic>,
}

/// The request.
pub(super) fn request(lease: i64) -> BytesMut {
    let mut output = BytesMut::new();
    write(&LeaseKeepAliveRequest { id: lease }, &mut output);
    output
}

/// Looks at an answer.
pub(super) fn check(answer: Bytes, lease: i64) -> Result<(), String> {
    let response: LeaseKeepAliveResponse = decoded(answer)?;
    match response.id == lease && response.ttl > 0 {
        true => Ok(()),
        false => Err("a lease ended although it was kept alive".to_owned()),
    }
}
