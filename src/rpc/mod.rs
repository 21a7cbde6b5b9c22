//! etcd's services: one file for each, and every error text in `status.rs`. [`session`] carries a connection's calls
//! to the replica's [`desk`] and the answers back, [`front`] does so between cores.

pub mod auth;
pub mod calls;
pub mod cluster;
pub mod desk;
pub mod drive;
pub mod front;
pub mod fuzz;
pub mod health;
pub mod http;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod status;
pub mod watch;

use bytes::Bytes;
use prost::Message;

use crate::wire::status::{Code, Status};

/// A request's message. What cannot be decoded is answered as grpc-go answers it.
fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}")))
}
