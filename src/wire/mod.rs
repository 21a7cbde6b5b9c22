//! Bytes to typed requests and back: HTTP/2, HPACK, gRPC framing, HTTP/1.1, protobuf. Without IO.

pub mod proto;
pub mod status;
