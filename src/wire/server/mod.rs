//! One accepted connection, as bytes in and events out. Finds out whether the peer speaks HTTP/2 with prior knowledge
//! (its preface) or HTTP/1.1, and gives both the same events.
//!
//! How a driver uses it:
//!
//! ```text
//! loop {
//!     connection.receive(&mut input, now);            // takes what it can; the rest stays in `input`
//!     while let Some(event) = connection.next_event() { … answer with send_*/finish/respond … }
//!     while !connection.output().is_empty() { write connection.output(), then advance() it }
//!     if connection.is_finished() { close }
//!     read more, unless connection.queued_bytes_total() is over the driver's mark;
//!     at connection.next_deadline(): connection.tick(now)
//! }
//! ```
//!
//! An answer may be given in any later turn. After any call that answers, drain `next_event()` before waiting for
//! the socket: with HTTP/1.1 a pipelined request waits inside until the one before it has been answered.
//!
//! Answers to a stream that is gone are dropped silently: the peer may cancel at any time, and the caller learns it
//! by `Cancelled`.

mod answers;
mod assembly;
mod events;
mod http2;
mod options;
mod request;

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};

pub use crate::wire::{
    http1::{HttpBody, HttpResponse},
    http2::{Encode, Payload},
};
pub use assembly::Assembly;
pub use events::{Call, HttpRequest, Path, ServerEvent, StreamId};
pub use options::ServerOptions;

use self::http2::Http2Server;
use crate::{
    base::Monotonic,
    wire::{http1::Http1Connection, http2::PREFACE, status::Status},
};

/// One accepted connection.
pub struct ServerConnection {
    options: ServerOptions,
    events: VecDeque<ServerEvent>,
    protocol: Protocol,
    accepted_at: Monotonic,
    /// When the first bytes came of an HTTP/1.1 request that is not whole.
    request_since: Monotonic,
}

enum Protocol {
    /// Too few bytes to tell. What is written before anything was said: nothing.
    Unknown {
        output: BytesMut,
        ended: bool,
    },
    Http1(Box<Http1Connection>),
    Http2(Box<Http2Server>),
}

/// Bytes of the preface that no HTTP/1.1 request begins with: there is no method PRI.
const PREFACE_BYTES_TELLING: usize = 4;

impl ServerConnection {
    /// A connection that has just been accepted; the first bytes of output (our SETTINGS) appear when the peer has
    /// shown that it speaks HTTP/2.
    pub fn new(options: ServerOptions, now: Monotonic) -> ServerConnection {
        ServerConnection {
            options,
            events: VecDeque::new(),
            protocol: Protocol::Unknown {
                output: BytesMut::new(),
                ended: false,
            },
            accepted_at: now,
            request_since: now,
        }
    }

    /// Takes bytes that the peer sent. Whole frames are consumed; the head of an unfinished one stays in `input`, and
    /// the caller appends to it (a frame has at most 16,393 bytes). Whatever is wrong with the bytes becomes an answer in
    /// `output()` and, when the connection cannot go on, `is_finished()`.
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic) {
        if input.is_empty() {
            return;
        }
        if let Protocol::Unknown { ended, .. } = &self.protocol {
            let telling = &PREFACE[..PREFACE_BYTES_TELLING.min(input.len())];
            if *ended {
                input.clear();
                return;
            }
            if !input.starts_with(telling) {
                self.protocol = Protocol::Http1(Box::new(Http1Connection::new(
                    self.options.header_list_bytes_max as usize,
                    self.options.http_body_bytes_max as usize,
                    self.options.stream_queue_bytes_high,
                )));
            } else if input.len() >= PREFACE_BYTES_TELLING {
                self.protocol = Protocol::Http2(Box::new(Http2Server::new(self.options.clone(), now)));
            } else {
                return;
            }
        }
        match &mut self.protocol {
            Protocol::Unknown { .. } => {}
            Protocol::Http1(http1) => {
                if !http1.is_inside_request() {
                    self.request_since = now;
                }
                http1.receive(input);
            }
            Protocol::Http2(http2) => {
                http2.core.read(now);
                http2.receive(input, now, &mut self.events);
            }
        }
    }

    /// The peer sent its last byte, or the socket failed: every open stream is cancelled, and nothing more is written
    /// than what `output()` holds.
    pub fn receive_end(&mut self) {
        match &mut self.protocol {
            Protocol::Unknown { ended, .. } => *ended = true,
            Protocol::Http1(http1) => {
                if let Some(stream) = http1.receive_end() {
                    self.events.push_back(ServerEvent::Cancelled { stream });
                }
            }
            Protocol::Http2(http2) => {
                http2.core.end();
                http2.cancel_all(&mut self.events);
            }
        }
    }

    /// What the peer wants, in the order in which it said so.
    #[inline]
    pub fn next_event(&mut self) -> Option<ServerEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.events.capacity() > EVENTS_KEPT {
            self.events = VecDeque::new();
        }
        match &mut self.protocol {
            Protocol::Unknown { .. } => None,
            Protocol::Http1(http1) => {
                if let Some((stream, request)) = http1.next_request() {
                    let request = Box::new(request);
                    return Some(ServerEvent::Http { stream, request });
                }
                http1.take_writable().map(|stream| ServerEvent::Writable { stream })
            }
            Protocol::Http2(http2) => {
                while let Some(stream) = http2.core.writable.pop_front() {
                    if http2.core.streams.find(stream).is_some() {
                        let stream = StreamId(stream);
                        return Some(ServerEvent::Writable { stream });
                    }
                }
                None
            }
        }
    }

    /// Sends one message of a call's answer.
    pub fn send_message(&mut self, stream: StreamId, message: impl Payload) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.send_message(stream, message);
        }
    }

    /// Sends headers, the only message and the OK status: a unary call's whole answer.
    #[inline]
    pub fn send_unary(&mut self, stream: StreamId, message: impl Payload) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.send_unary(stream, message);
        }
    }

    /// Begins to answer a unary call with a message of `message_bytes`, of which this is the beginning. The rest follows with
    /// [`ServerConnection::continue_unary`].
    pub fn begin_unary(&mut self, stream: StreamId, message_bytes: usize, part: Bytes) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.begin_unary(stream, message_bytes, part);
        }
    }

    /// Sends what follows of a message. The last part ends the call.
    pub fn continue_unary(&mut self, stream: StreamId, part: Bytes, is_last: bool) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.continue_unary(stream, part, is_last);
        }
    }

    /// Ends a call: trailers, or trailers alone when nothing has been sent.
    pub fn finish(&mut self, stream: StreamId, status: &Status) {
        if let Protocol::Http2(http2) = &mut self.protocol {
            http2.finish(stream, status);
        }
    }

    /// Whether the peer speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.protocol, Protocol::Http2(_))
    }

    /// Answers an HTTP request, whole or as the beginning of a streamed body.
    pub fn respond(&mut self, stream: StreamId, response: &HttpResponse) {
        match &mut self.protocol {
            Protocol::Unknown { .. } => {}
            Protocol::Http1(http1) => http1.respond(stream, response),
            Protocol::Http2(http2) => http2.respond(stream, response),
        }
    }

    /// Sends a part of a streamed body.
    pub fn send_chunk(&mut self, stream: StreamId, chunk: Bytes) {
        match &mut self.protocol {
            Protocol::Unknown { .. } => {}
            Protocol::Http1(http1) => http1.send_chunk(stream, &chunk),
            Protocol::Http2(http2) => http2.send_chunk(stream, chunk),
        }
    }

    /// Ends a streamed body.
    pub fn finish_body(&mut self, stream: StreamId) {
        match &mut self.protocol {
            Protocol::Unknown { .. } => {}
            Protocol::Http1(http1) => http1.finish_body(stream),
            Protocol::Http2(http2) => http2.finish_body(stream),
        }
    }

    /// Gives a stream up without a status: RST_STREAM, or the end of an HTTP/1.1 connection. The caller gets no
    /// `Cancelled` for it.
    pub fn cancel(&mut self, stream: StreamId) {
        match &mut self.protocol {
            Protocol::Unknown { .. } => {}
            Protocol::Http1(http1) => http1.cancel(stream),
            Protocol::Http2(http2) => http2.cancel(stream),
        }
    }

    /// Bytes of a stream's answers that wait for the peer's window or for the socket.
    pub fn queued_bytes(&self, stream: StreamId) -> usize {
        match &self.protocol {
            Protocol::Unknown { .. } => 0,
            Protocol::Http1(http1) if http1.open_stream() == Some(stream) => http1.output.len(),
            Protocol::Http1(_) => 0,
            Protocol::Http2(http2) => match http2.core.streams.find(stream.0) {
                Some(slot) => http2.core.stream_queued_bytes(slot),
                None => 0,
            },
        }
    }

    /// Bytes of all answers that have not been taken from `output()`. A driver stops reading while this is large: the
    /// peer does not take its answers.
    pub fn queued_bytes_total(&self) -> usize {
        match &self.protocol {
            Protocol::Unknown { output, .. } => output.len(),
            Protocol::Http1(http1) => http1.output.len(),
            Protocol::Http2(http2) => http2.core.queued_bytes() + http2.core.output.len(),
        }
    }

    /// What is to be written now. Take from the front what has been written, and ask again: waiting answers follow.
    pub fn output(&mut self) -> &mut BytesMut {
        match &mut self.protocol {
            Protocol::Unknown { output, .. } => output,
            Protocol::Http1(http1) => &mut http1.output,
            Protocol::Http2(http2) => {
                http2.core.pump();
                http2.core.release_output();
                &mut http2.core.output
            }
        }
    }

    /// Calls and requests open.
    pub fn streams_open(&self) -> usize {
        match &self.protocol {
            Protocol::Unknown { .. } => 0,
            Protocol::Http1(http1) => usize::from(http1.open_stream().is_some()),
            Protocol::Http2(http2) => http2.core.streams.len(),
        }
    }

    /// What the client says it is; empty if it has not. Over HTTP/1.1 it stands in each request.
    pub fn user_agent(&self) -> &[u8] {
        match &self.protocol {
            Protocol::Http2(http2) => &http2.head.user_agent,
            _ => &[],
        }
    }

    /// Begins a graceful end: no new calls, open ones are answered.
    pub fn shutdown(&mut self, now: Monotonic) {
        match &mut self.protocol {
            Protocol::Unknown { ended, .. } => *ended = true,
            Protocol::Http1(http1) => http1.shutdown(),
            Protocol::Http2(http2) => http2.core.shutdown(now),
        }
    }

    /// Nothing more will be read or, once `output()` is empty, written: the driver writes what is left and closes the
    /// socket.
    pub fn is_finished(&self) -> bool {
        match &self.protocol {
            Protocol::Unknown { ended, .. } => *ended,
            Protocol::Http1(http1) => http1.is_over(),
            Protocol::Http2(http2) => http2.core.is_over(),
        }
    }

    /// When `tick` is to be called, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        match &self.protocol {
            Protocol::Unknown { .. } => Some(self.accepted_at + FIRST_BYTES_TIMEOUT),
            Protocol::Http1(http1) if http1.is_inside_request() => Some(self.request_since + HTTP1_REQUEST_TIMEOUT),
            Protocol::Http1(_) => None,
            Protocol::Http2(http2) if !http2.core.is_established() => Some(self.accepted_at + FIRST_BYTES_TIMEOUT),
            Protocol::Http2(http2) => http2.core.next_deadline(),
        }
    }

    /// Lets time pass: keepalive pings and their timeouts, the steps of a graceful end.
    pub fn tick(&mut self, now: Monotonic) {
        match &mut self.protocol {
            Protocol::Unknown { ended, .. } => *ended |= now >= self.accepted_at + FIRST_BYTES_TIMEOUT,
            Protocol::Http1(http1) => {
                if http1.is_inside_request() && now >= self.request_since + HTTP1_REQUEST_TIMEOUT {
                    http1.receive_end();
                }
            }
            Protocol::Http2(http2) => {
                if !http2.core.is_established() && now >= self.accepted_at + FIRST_BYTES_TIMEOUT {
                    http2.core.end();
                }
                http2.core.tick(now);
                if http2.core.failure().is_some() {
                    http2.cancel_all(&mut self.events);
                }
            }
        }
    }
}

/// How long a peer may take for its first words (gRPC's connection timeout).
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an HTTP/1.1 client may take for a request (etcd's limit for its head).
const HTTP1_REQUEST_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Events whose memory a connection keeps.
const EVENTS_KEPT: usize = 1024;

/// Runs arbitrary bytes through a connection, in two pieces, that answers whatever it understands; must not panic or
/// exceed bounds. Inputs that do not begin with `P` are frames behind a good preface.
pub fn fuzz_server(input: &[u8]) {
    let options = ServerOptions {
        message_bytes_max: 1000,
        concurrent_streams_max: 8,
        ..ServerOptions::default()
    };
    let mut connection = ServerConnection::new(options, Monotonic(1));
    let mut bytes = BytesMut::new();
    if !input.starts_with(b"P") {
        bytes.extend_from_slice(PREFACE);
    }
    let (front, back) = input.split_at(input.len() / 2);
    for (piece, now) in [(front, Monotonic(2)), (back, Monotonic(3))] {
        bytes.extend_from_slice(piece);
        connection.receive(&mut bytes, now);
        while let Some(event) = connection.next_event() {
            match event {
                ServerEvent::Message { stream, message } => connection.send_unary(stream, message),
                ServerEvent::HalfClosed { stream } => connection.finish(stream, &Status::OK),
                ServerEvent::Http { stream, .. } => {
                    connection.respond(stream, &HttpResponse::new(200, "text/plain", &b"ok"[..]));
                }
                _ => {}
            }
        }
        assert!(connection.streams_open() <= 8);
        assert!(connection.output().len() <= 1000 + 100 * input.len());
        assert!(bytes.len() <= input.len() + PREFACE.len());
    }
    connection.receive_end();
    connection.tick(Monotonic(u64::MAX));
    assert_eq!(connection.streams_open(), 0);
    assert!(connection.is_finished());
}

#[cfg(test)]
mod interop;
#[cfg(test)]
mod tests;
