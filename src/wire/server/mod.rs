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

mod events;
mod options;

pub use events::{Call, HttpBody, HttpRequest, HttpResponse, Path, Payload, ServerEvent, StreamId};
pub use options::ServerOptions;

use bytes::{Bytes, BytesMut};

use crate::{base::Monotonic, wire::status::Status};

/// One accepted connection.
pub struct ServerConnection {
    output: BytesMut,
}

impl ServerConnection {
    /// A connection that has just been accepted; the first bytes of output (our SETTINGS) appear when the peer has
    /// shown that it speaks HTTP/2.
    pub fn new(options: ServerOptions, now: Monotonic) -> ServerConnection;

    /// Takes bytes that the peer sent. Whole frames are consumed; the head of an unfinished one stays in `input`, and
    /// the caller appends to it. Whatever is wrong with the bytes becomes an answer in `output()` and, when the
    /// connection cannot go on, `is_finished()`.
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic);
    /// The peer sent its last byte, or the socket failed: every open stream is cancelled.
    pub fn receive_end(&mut self);
    /// What the peer wants, in the order in which it said so.
    pub fn next_event(&mut self) -> Option<ServerEvent>;

    /// Sends one message of a stream's answer.
    pub fn send_message(&mut self, stream: StreamId, message: impl Payload);
    /// Sends headers, the only message and the OK status: a unary call's whole answer.
    pub fn send_unary(&mut self, stream: StreamId, message: impl Payload);
    /// Ends a call: trailers, or trailers alone when nothing has been sent.
    pub fn finish(&mut self, stream: StreamId, status: &Status);
    /// Answers an HTTP request, whole or as the beginning of a streamed body.
    pub fn respond(&mut self, stream: StreamId, response: HttpResponse);
    /// Sends a part of a streamed body.
    pub fn send_chunk(&mut self, stream: StreamId, chunk: Bytes);
    /// Ends a streamed body.
    pub fn finish_body(&mut self, stream: StreamId);
    /// Gives a stream up without a status (RST_STREAM; an HTTP/1.1 connection ends).
    pub fn cancel(&mut self, stream: StreamId);

    /// Bytes of a stream's answers that wait for the peer's window or for the socket.
    pub fn queued_bytes(&self, stream: StreamId) -> usize;
    /// Bytes of all answers that have not been taken from `output()`.
    pub fn queued_bytes_total(&self) -> usize;
    /// What is to be written now. Take from the front what has been written, and ask again: waiting answers follow.
    pub fn output(&mut self) -> &mut BytesMut;

    /// Begins a graceful end: no new calls, open ones are answered.
    pub fn shutdown(&mut self, now: Monotonic);
    /// Nothing more will be read or, once `output()` is empty, written: the driver closes the socket.
    pub fn is_finished(&self) -> bool;
    /// When `tick` is to be called, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Monotonic>;
    /// Lets time pass: keepalive pings and their timeouts, the steps of a graceful end.
    pub fn tick(&mut self, now: Monotonic);
}
