//! The other end of the same core: opens calls over one HTTP/2 connection (prior knowledge). Made for the load generator
//! and the simulator; knows nothing of sockets, retries or services. Driven like a
//! [`ServerConnection`](super::server::ServerConnection).

mod block;
mod response;

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, Bytes, BytesMut};

pub use block::MethodId;

use self::{
    block::Blocks,
    response::{ResponseHead, reset_status},
};
use super::{
    grpc::{Deframer, Metadata, SmallMessages, encode_timeout},
    hpack::encode_field,
    http2::{BlockKind, Connection, ConnectionOptions, ErrorCode, Incoming, Payload, Prefix, Role, Slot},
    server::StreamId,
    status::{Code, Status},
};
use crate::base::Monotonic;

/// How a client connection behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `:authority` of every call.
    pub authority: String,
    /// Largest message taken in, in bytes.
    pub message_bytes_max: u32,
    /// Receive window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// Receive window of the connection, in bytes.
    pub connection_window_bytes: u32,
    /// Silence after which we ping (zero: never).
    pub keepalive_interval: Duration,
    /// Silence after that ping which ends the connection.
    pub keepalive_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            authority: "localhost".to_owned(),
            message_bytes_max: i32::MAX as u32,
            stream_window_bytes: 4 * 1024 * 1024,
            connection_window_bytes: 16 * 1024 * 1024,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A whole message of an answer.
    Message {
        /// The call.
        stream: StreamId,
        /// The message, without gRPC's prefix.
        message: Bytes,
    },
    /// The call has ended; nothing follows for the stream.
    Finished {
        /// The call.
        stream: StreamId,
        /// How it ended.
        status: Status,
        /// Custom fields of the trailers.
        metadata: Metadata,
    },
    /// The server takes no new calls. Those above its last one end with `Unavailable` right behind this.
    GoAway {
        /// Why.
        code: ErrorCode,
        /// What the server says about it.
        debug: Bytes,
    },
    /// A stream's queue had reached a megabyte and is below half of it again.
    Writable {
        /// The stream.
        stream: StreamId,
    },
}

#[derive(Default)]
struct ClientStream {
    deframer: Deframer,
}

/// A client's side of one connection.
pub struct ClientConnection {
    core: Connection<ClientStream>,
    head: ResponseHead,
    blocks: Blocks,
    block: BytesMut,
    small: SmallMessages,
    events: VecDeque<ClientEvent>,
    options: ClientOptions,
}

impl ClientConnection {
    /// A connection whose preface and SETTINGS are in `output()`. Calls may be opened at once.
    pub fn new(options: ClientOptions, now: Monotonic) -> ClientConnection {
        let core_options = ConnectionOptions {
            concurrent_streams_max: 0,
            header_list_bytes_max: 64 * 1024,
            stream_window_bytes: options.stream_window_bytes,
            connection_window_bytes: options.connection_window_bytes,
            stream_queue_bytes_high: 1024 * 1024,
            keepalive_time_min: Duration::ZERO,
            keepalive_interval: options.keepalive_interval,
            keepalive_timeout: options.keepalive_timeout,
        };
        ClientConnection {
            core: Connection::new(Role::Client, core_options, now),
            head: ResponseHead::default(),
            blocks: Blocks::default(),
            block: BytesMut::new(),
            small: SmallMessages::default(),
            events: VecDeque::new(),
            options,
        }
    }

    /// Makes a method known: its path (`/package.Service/Method`), and metadata that all its calls have (names in lower
    /// case; values of `-bin` ones already in base64).
    pub fn method(&mut self, path: &str, metadata: &[(&str, &str)]) -> MethodId {
        let fixed = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", &self.options.authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", concat!("ringd/", env!("CARGO_PKG_VERSION"))),
        ];
        let fields = fixed.iter().chain(metadata);
        let owned = fields.map(|(name, value)| (Box::from(*name), Box::from(value.as_bytes())));
        self.blocks.add(owned.collect())
    }

    /// Opens a call. `None`: the server allows no more streams now, or the connection ends.
    pub fn open(&mut self, method: MethodId, timeout: Option<Duration>) -> Option<StreamId> {
        let slot = self.open_slot(method, timeout)?;
        Some(StreamId(self.core.streams.at(slot).id))
    }

    /// Opens a call, sends its only message and half-closes it.
    #[inline]
    pub fn call(&mut self, method: MethodId, timeout: Option<Duration>, message: impl Payload) -> Option<StreamId> {
        let slot = self.open_slot(method, timeout)?;
        let stream = StreamId(self.core.streams.at(slot).id);
        let prefix = Prefix::grpc(message.payload_len());
        self.core.send_data(slot, prefix, message, true);
        Some(stream)
    }

    fn open_slot(&mut self, method: MethodId, timeout: Option<Duration>) -> Option<Slot> {
        let slot = self.core.open()?;
        self.block.clear();
        let peer_table_bytes = self.core.peer_settings().header_table_bytes;
        self.blocks.block(method, peer_table_bytes, &mut self.block);
        if let Some(timeout) = timeout {
            encode_field("grpc-timeout", encode_timeout(timeout).as_bytes(), &mut self.block);
        }
        self.core.send_headers(slot, &self.block, false);
        Some(slot)
    }

    /// Sends a message of an open call.
    pub fn send_message(&mut self, stream: StreamId, message: impl Payload) {
        if let Some(slot) = self.sendable(stream) {
            let prefix = Prefix::grpc(message.payload_len());
            self.core.send_data(slot, prefix, message, false);
        }
    }

    /// Says that no more messages follow.
    pub fn half_close(&mut self, stream: StreamId) {
        if let Some(slot) = self.sendable(stream) {
            self.core.send_end(slot);
        }
    }

    /// Gives a call up; no event follows for it.
    pub fn cancel(&mut self, stream: StreamId) {
        if let Some(slot) = self.core.streams.find(stream.0) {
            self.core.reset(slot, ErrorCode::Cancel);
        }
    }

    fn sendable(&self, stream: StreamId) -> Option<Slot> {
        let slot = self.core.streams.find(stream.0)?;
        (!self.core.is_send_ending(slot)).then_some(slot)
    }

    /// Takes bytes that the server sent; the head of an unfinished frame stays in `input`.
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic) {
        if input.is_empty() {
            return;
        }
        self.core.read(now);
        loop {
            match self.core.advance(input, now, &mut self.head) {
                Incoming::Nothing => break,
                Incoming::Headers { slot, kind, end } => self.headers(slot, kind, end),
                Incoming::Data { slot, len, end } => self.data(slot, len, end, input),
                Incoming::Reset { stream, code, .. } => self.finished(stream, reset_status(code)),
                Incoming::GoAway {
                    last_stream,
                    code,
                    debug,
                } => {
                    self.events.push_back(ClientEvent::GoAway { code, debug });
                    self.refused_above(last_stream);
                }
            }
        }
        self.small.release();
        if self.core.failure().is_some() {
            self.lose_all();
        }
    }

    fn headers(&mut self, slot: Slot, kind: BlockKind, end: bool) {
        let refusal = if kind == BlockKind::Response {
            self.head.refusal()
        } else {
            None
        };
        if refusal.is_none() && !end {
            return;
        }
        let stream = StreamId(self.core.streams.at(slot).id);
        let is_inside_message = self.core.streams.at(slot).app.deframer.is_inside_message();
        let status = match refusal {
            Some(refusal) => refusal,
            None if is_inside_message => Status::new(Code::Internal, "unexpected EOF"),
            None => self.head.status(),
        };
        let metadata = self.head.metadata();
        self.core.close(slot);
        self.events.push_back(ClientEvent::Finished {
            stream,
            status,
            metadata,
        });
    }

    fn data(&mut self, slot: Slot, mut len: usize, end: bool, input: &mut BytesMut) {
        let entry = self.core.streams.at_mut(slot);
        let stream = StreamId(entry.id);
        let bytes_max = self.options.message_bytes_max;
        let failure = loop {
            let message = entry
                .app
                .deframer
                .next_message(input, &mut len, &mut self.small, bytes_max);
            match message {
                Ok(Some(message)) => self.events.push_back(ClientEvent::Message { stream, message }),
                Ok(None) if end => {
                    break Status::new(Code::Internal, "server closed the stream without sending trailers");
                }
                Ok(None) => return,
                Err(status) => break status,
            }
        };
        input.advance(len);
        self.core.close(slot);
        self.finished(stream.0, failure);
    }

    fn finished(&mut self, stream: u32, status: Status) {
        self.events.push_back(ClientEvent::Finished {
            stream: StreamId(stream),
            status,
            metadata: Metadata::default(),
        });
    }

    /// Calls that a leaving server has not looked at.
    fn refused_above(&mut self, last_stream: u32) {
        let streams = &self.core.streams;
        let refused: Vec<Slot> = streams
            .slots()
            .filter(|slot| streams.at(*slot).id > last_stream)
            .collect();
        for slot in refused {
            let stream = self.core.streams.at(slot).id;
            self.core.reset(slot, ErrorCode::Cancel);
            self.finished(stream, Status::new(Code::Unavailable, "the server is leaving"));
        }
    }

    fn lose_all(&mut self) {
        for (stream, _) in self.core.take_streams() {
            self.finished(stream, Status::new(Code::Unavailable, "the connection is lost"));
        }
    }

    /// The server sent its last byte, or the socket failed: open calls end with `Unavailable`.
    pub fn receive_end(&mut self) {
        self.core.end();
        self.lose_all();
    }

    /// What the server did, in order.
    #[inline]
    pub fn next_event(&mut self) -> Option<ClientEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        while let Some(stream) = self.core.writable.pop_front() {
            if self.core.streams.find(stream).is_some() {
                let stream = StreamId(stream);
                return Some(ClientEvent::Writable { stream });
            }
        }
        None
    }

    /// Bytes of a call's messages that wait for the server's window or for the socket.
    pub fn queued_bytes(&self, stream: StreamId) -> usize {
        let slot = self.core.streams.find(stream.0);
        slot.map_or(0, |slot| self.core.stream_queued_bytes(slot))
    }

    /// What is to be written now. Take from the front what has been written, and ask again.
    pub fn output(&mut self) -> &mut BytesMut {
        self.core.pump();
        self.core.release_output();
        &mut self.core.output
    }

    /// Calls open.
    pub fn calls_open(&self) -> usize {
        self.core.streams.len()
    }

    /// Calls that the server allows to be open at a time, as far as it has said.
    pub fn calls_max(&self) -> u32 {
        self.core.peer_settings().concurrent_streams_max
    }

    /// Sends a ping.
    pub fn ping(&mut self) {
        self.core.send_ping(*b"client\0\0");
    }

    /// The connection is of no more use: it failed, or the server is leaving and every call has ended.
    pub fn is_finished(&self) -> bool {
        self.core.failure().is_some() || self.core.peer_is_leaving() && self.core.streams.is_empty()
    }

    /// When `tick` is to be called, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.core.next_deadline()
    }

    /// Lets time pass: keepalive.
    pub fn tick(&mut self, now: Monotonic) {
        self.core.tick(now);
        if self.core.failure().is_some() {
            self.lose_all();
        }
    }
}

/// Runs arbitrary bytes through a client's connection with calls open, in two pieces; must not panic, and every call must
/// end, once.
pub fn fuzz_client(input: &[u8]) {
    const CALLS: usize = 3;
    let options = ClientOptions {
        message_bytes_max: 1000,
        ..ClientOptions::default()
    };
    let mut connection = ClientConnection::new(options, Monotonic(1));
    let method = connection.method("/etcdserverpb.KV/Range", &[]);
    for number in 0..CALLS {
        let stream = connection.open(method, None).expect("a new connection takes calls");
        connection.send_message(stream, Bytes::from_static(b"\x0a\x01k"));
        if number > 0 {
            connection.half_close(stream);
        }
    }
    let mut finished = 0;
    let mut bytes = BytesMut::new();
    let (front, back) = input.split_at(input.len() / 2);
    for (piece, now) in [(front, Monotonic(2)), (back, Monotonic(3))] {
        bytes.extend_from_slice(piece);
        connection.receive(&mut bytes, now);
        while let Some(event) = connection.next_event() {
            finished += usize::from(matches!(event, ClientEvent::Finished { .. }));
        }
        assert!(bytes.len() <= input.len());
        connection.output().clear();
    }
    connection.receive_end();
    while let Some(event) = connection.next_event() {
        finished += usize::from(matches!(event, ClientEvent::Finished { .. }));
    }
    assert_eq!(finished, CALLS);
    assert_eq!(connection.calls_open(), 0);
}
