//! What a connection tells its driver, and what it is answered with.

use std::{borrow::Cow, time::Duration};

use bytes::{Bytes, BytesMut};

use crate::wire::grpc::Metadata;

/// A stream of one connection. HTTP/2's own number; for HTTP/1.1 the requests are numbered 1, 3, 5 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What the peer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A gRPC call begins.
    Call(Call),
    /// A whole message of a call. Messages below 4 KiB are copied out of the read buffer, those of one read together;
    /// larger ones share the read buffer if they came in one frame.
    Message {
        /// The call.
        stream: StreamId,
        /// The message, without gRPC's prefix.
        message: Bytes,
    },
    /// The client has sent its last message.
    HalfClosed {
        /// The call.
        stream: StreamId,
    },
    /// The stream is gone before its answer was complete: reset by the peer, or the connection failed. Comes once, and
    /// nothing follows for the stream. Answers given later are dropped.
    Cancelled {
        /// The stream.
        stream: StreamId,
    },
    /// An HTTP request, whole: over HTTP/1.1, or over HTTP/2 without gRPC's content type.
    Http {
        /// Where the answer goes.
        stream: StreamId,
        /// The request.
        request: Box<HttpRequest>,
    },
    /// A stream's queue had reached `ServerOptions::stream_queue_bytes_high` and is below half of it again.
    Writable {
        /// The stream.
        stream: StreamId,
    },
}

/// The beginning of a gRPC call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where the answer goes.
    pub stream: StreamId,
    /// `/package.Service/Method`, as sent; not yet looked up.
    pub path: Path,
    /// Custom metadata, without what the transport itself reads.
    pub metadata: Metadata,
    /// How long the client will wait (`grpc-timeout`).
    pub timeout: Option<Duration>,
}

/// A request's path, shared between the calls of a connection that have the same. Always UTF-8.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Bytes);

/// A message to be sent: bytes, shared bytes in several parts, or something that is encoded in place.
pub trait Payload {
    /// Exact length in bytes.
    fn payload_len(&self) -> usize;
    /// Appends exactly `payload_len()` bytes.
    fn write_to(&self, output: &mut BytesMut);
    /// The message as shared memory, for when it has to wait.
    fn into_bytes(self) -> Bytes;
}

/// An HTTP request with its whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method as sent, e.g. `GET`.
    pub method: String,
    /// Path and query as sent (origin form).
    pub target: String,
    /// `Host` or `:authority`; empty if there was none (HTTP/1.0).
    pub authority: String,
    /// Header fields with lower-case names, without pseudo-headers.
    pub headers: Metadata,
    /// The body, decoded from chunks.
    pub body: Bytes,
}

/// An answer to an [`HttpRequest`]. Length and connection headers are added by the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Header fields; names in lower case.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body.
    pub body: HttpBody,
}

/// A response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpBody {
    /// Whole.
    Full(Bytes),
    /// Follows by `send_chunk` and `finish_body`.
    Streamed,
}
