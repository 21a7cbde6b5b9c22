//! A connection's bounds and keepalive policy, with etcd's defaults.

use std::time::Duration;

use super::assembly::Assembly;

/// A connection's bounds and policies. Shared by value: make one and clone it for each connection.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Largest message taken in, in bytes (etcd: `--max-request-bytes` and 512 KiB).
    pub message_bytes_max: u32,
    /// Streams open at a time; also bounded by `http2::STREAMS_MAX`. What is over is refused, which gRPC clients retry.
    pub concurrent_streams_max: u32,
    /// Decoded bytes of one request's header fields, counted as RFC 9113 section 6.5.2 does.
    pub header_list_bytes_max: u32,
    /// Largest body of a plain HTTP request, in bytes. Nothing that is served this way takes one.
    pub http_body_bytes_max: u32,
    /// Bytes of unfinished messages and bodies of all streams of a connection together. Above, the stream that adds to them fails.
    pub assembly_bytes_max: u32,
    /// The same of all connections that share [`ServerOptions::assembly`].
    pub core_assembly_bytes_max: usize,
    /// What a connection may hold of them however much others do.
    pub assembly_bytes_free: usize,
    /// The count that connections share which are made with clones of these options.
    pub assembly: Assembly,
    /// Receive window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// Receive window of the connection, in bytes.
    pub connection_window_bytes: u32,
    /// A stream whose queue reaches this many bytes gets a `Writable` when it has drained to half of it.
    pub stream_queue_bytes_high: usize,
    /// Pings closer together than this count as strikes (`--grpc-keepalive-min-time`; zero: gRPC's 5 minutes).
    pub keepalive_time_min: Duration,
    /// Silence after which we ping (`--grpc-keepalive-interval`; zero: never).
    pub keepalive_interval: Duration,
    /// Silence after that ping which ends the connection (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            message_bytes_max: 1_572_864 + crate::limits::GRPC_OVERHEAD_BYTES,
            concurrent_streams_max: u32::MAX,
            header_list_bytes_max: 64 * 1024,
            http_body_bytes_max: 64 * 1024,
            assembly_bytes_max: 64 * 1024 * 1024,
            core_assembly_bytes_max: 256 * 1024 * 1024,
            assembly_bytes_free: 16 * 1024,
            assembly: Assembly::default(),
            stream_window_bytes: 1024 * 1024,
            connection_window_bytes: 8 * 1024 * 1024,
            stream_queue_bytes_high: 1024 * 1024,
            keepalive_time_min: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}
