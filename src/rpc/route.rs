//! From a unary method and its message to a request, or to an answer that needs no replica.

use bytes::Bytes;

use super::{auth, cluster, health, kv, lease, maintenance, session::Service};
use crate::{
    propose::{Method, Request},
    wire::status::Status,
};

/// What becomes of a message.
pub enum Routed {
    /// The replica is asked.
    Request(Request),
    /// This is the answer.
    Answer(Bytes),
}

/// Decodes and checks the message of a unary call.
pub fn unary(method: Method, message: Bytes, service: &Service) -> Result<Routed, Status> {
    let request = match method {
        Method::Range => kv::range(message)?,
        Method::Put => kv::put(message)?,
        Method::DeleteRange => kv::delete_range(message)?,
        Method::Txn => kv::txn(message, service.txn_operations_max)?,
        Method::Compact => kv::compact(message)?,
        Method::LeaseGrant => lease::grant(message)?,
        Method::LeaseRevoke => lease::revoke(message)?,
        Method::LeaseTimeToLive => lease::time_to_live(message)?,
        Method::LeaseLeases => lease::leases(message)?,
        Method::MemberList => cluster::member_list(message)?,
        Method::Alarm => maintenance::alarm(message)?,
        Method::Status => maintenance::status(message)?,
        Method::Defragment => maintenance::defragment(message)?,
        Method::Hash => maintenance::hash(message)?,
        Method::HashKv => maintenance::hash_kv(message)?,
        Method::MoveLeader => maintenance::move_leader(message)?,
        Method::Downgrade => maintenance::downgrade(message)?,
        Method::MemberAdd => cluster::member_add(message)?,
        Method::MemberRemove => cluster::member_remove(message)?,
        Method::MemberUpdate => cluster::member_update(message)?,
        Method::MemberPromote => cluster::member_promote(message)?,
        Method::AuthStatus => auth::status(message)?,
        Method::Authenticate => auth::authenticate(message)?,
        Method::HealthList => return Ok(Routed::Answer(health::list())),
        Method::HealthCheck => return health::check(message).map(Routed::Answer),
        _ => return Err(super::status::not_yet(method)),
    };
    Ok(Routed::Request(request))
}
