//! What a connection tells its driver.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::wire::grpc::Metadata;

/// A stream of one connection. HTTP/2's own number; HTTP/1.1 requests are numbered 1, 3, 5 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What the peer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A gRPC call begins.
    Call(Call),
    /// A whole message of a call. See [`crate::wire::grpc::Deframer`] for whose memory it has: a caller decodes it at once
    /// and keeps what it needs.
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
    /// The stream is gone before its answer was complete: reset by the peer, ended here for a broken message (the peer has
    /// its status), or lost with the connection. Nothing follows for the stream; answers to it are dropped. Does not come
    /// for a stream whose answer the caller has ended, though a part of it may have been waiting.
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
    /// How long the client will wait (`grpc-timeout`); not zero.
    pub timeout: Option<Duration>,
}

/// A request's path. Calls of a connection that have the same path share its memory. Always UTF-8.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Bytes);

impl Path {
    /// A path; what is not UTF-8 is replaced.
    pub fn new(path: &[u8]) -> Path {
        match std::str::from_utf8(path) {
            Ok(_) => Path(Bytes::copy_from_slice(path)),
            Err(_) => Path(Bytes::from(String::from_utf8_lossy(path).into_owned())),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }

    /// The path as bytes; cheaper to compare than the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

/// An HTTP request with its whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method as sent, e.g. `GET`.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// `Host` or `:authority`; empty if there was none.
    pub authority: String,
    /// The fields, names in lower case, without pseudo-fields.
    pub headers: Metadata,
    /// The body.
    pub body: Bytes,
}
