//! grpc.health.v1.Health: one service, named "", which serves as long as the process does.

use bytes::Bytes;
use prost::Message;

use super::decode;
use crate::wire::{
    proto::healthpb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus},
    status::{Code, Status},
};

/// `Check`.
pub fn check(message: Bytes) -> Result<Bytes, Status> {
    let request: HealthCheckRequest = decode(message)?;
    if !request.service.is_empty() {
        return Err(Status::new(Code::NotFound, "unknown service"));
    }
    Ok(answer(ServingStatus::Serving))
}

/// What `Watch` says first: unlike `Check`, an unknown service is an answer, not an error.
pub fn watch(message: Bytes) -> Result<Bytes, Status> {
    let request: HealthCheckRequest = decode(message)?;
    let is_known = request.service.is_empty();
    Ok(answer(if is_known {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    }))
}

/// `List`: the one service, under its empty name.
pub fn list() -> Bytes {
    // Field 1 is a map: one entry, of an empty key and a HealthCheckResponse that says SERVING.
    Bytes::from_static(&[0x0a, 6, 0x0a, 0, 0x12, 2, 0x08, 1])
}

fn answer(status: ServingStatus) -> Bytes {
    HealthCheckResponse { status: status as i32 }.encode_to_vec().into()
}
