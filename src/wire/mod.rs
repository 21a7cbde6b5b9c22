//! Bytes to typed requests and back: HTTP/2, HPACK, gRPC framing, HTTP/1.1, protobuf. Without IO and without a clock:
//! bytes and times are arguments, bytes and events are results.
//!
//! ```text
//! socket bytes ─▶ server ─┬─▶ http2 (frames, streams, windows) ─▶ grpc (messages, metadata) ─▶ ServerEvent
//!                         └─▶ http1 (requests)              ──────────────────────────────────▶ ServerEvent
//! client: the same http2 and grpc, seen from the other end
//! ```
//!
//! What is not here: routing, services, sockets, TLS (a TLS layer stands between the socket and `receive`).

pub mod client;
pub mod grpc;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod proto;
pub mod protobuf;
pub mod server;
pub mod status;

#[cfg(test)]
mod test_support;
