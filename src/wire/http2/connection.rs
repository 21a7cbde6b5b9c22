//! One end of a connection: what each frame of the peer means for its streams.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    BlockKind, ErrorCode, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Keepalive, PREFACE, PingPolicy,
    STREAMS_MAX, Settings, Slot, StreamTable, WINDOW_BYTES_DEFAULT, WINDOW_MAX,
    control::Drain,
    flags,
    flood::Allowance,
    frame::{write_settings, write_window_update},
};
use crate::{
    base::Monotonic,
    wire::hpack::{DYNAMIC_TABLE_BYTES_DEFAULT, Decoder, FieldSink},
};

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Waits for the preface; the peer opens streams.
    Server,
    /// Sends the preface and opens streams.
    Client,
}

/// A connection's bounds and policies.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Streams that the peer may have open (at most [`STREAMS_MAX`] whatever is given).
    pub concurrent_streams_max: u32,
    /// Bytes of fields in one block, as RFC 9113 section 6.5.2 counts them.
    pub header_list_bytes_max: u32,
    /// Receive window of each stream, in bytes.
    pub stream_window_bytes: u32,
    /// Receive window of the connection, in bytes.
    pub connection_window_bytes: u32,
    /// Queue length at which a stream is reported by `writable` when half of it has gone.
    pub stream_queue_bytes_high: usize,
    /// See [`PingPolicy`]; not used by clients.
    pub keepalive_time_min: Duration,
    /// See [`Keepalive`].
    pub keepalive_interval: Duration,
    /// See [`Keepalive`].
    pub keepalive_timeout: Duration,
}

/// What the peer did, as far as the connection's user has to know.
#[derive(Debug)]
pub enum Incoming<A> {
    /// Nothing more in the input.
    Nothing,
    /// A well-formed block went to the sink. With `BlockKind::Request` the stream is new.
    Headers {
        /// The stream.
        slot: Slot,
        /// What the block is.
        kind: BlockKind,
        /// Nothing follows on the stream.
        end: bool,
    },
    /// The next `len` bytes of the input are content; the user takes exactly them before asking on.
    Data {
        /// The stream.
        slot: Slot,
        /// Bytes of content, perhaps 0.
        len: usize,
        /// Nothing follows on the stream.
        end: bool,
    },
    /// A stream is gone: the peer reset it, or we did since it broke the rules.
    Reset {
        /// The stream's number.
        stream: u32,
        /// Why.
        code: ErrorCode,
        /// What the user kept for it.
        app: A,
    },
    /// The peer takes no more streams; those above `last_stream` it has not looked at.
    GoAway {
        /// The last stream that the peer may have acted upon.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
        /// What the peer says about it.
        debug: Bytes,
    },
}

/// Takes the fields of blocks.
pub trait BlockSink: FieldSink {
    /// A block begins; what came of an earlier one is void.
    fn begin(&mut self, kind: BlockKind);
    /// A request's block that says the same as the request's before, whose fields are not sent again. Between the two,
    /// `begin` may have been called for trailers.
    fn repeat(&mut self) -> bool {
        false
    }
}

/// One end of a connection. See the module's documentation.
pub struct Connection<A> {
    pub(super) role: Role,
    pub(super) options: ConnectionOptions,
    /// What is to be written. Whoever takes bytes from the front calls `pump` for more.
    pub output: BytesMut,
    pub(super) output_peak_bytes: usize,
    /// Streams open.
    pub streams: StreamTable<A>,
    /// Numbers of streams whose queue has drained below half of the mark.
    pub writable: VecDeque<u32>,
    pub(super) ready: VecDeque<u32>,
    pub(super) queued_bytes: usize,
    pub(super) send_window: i64,
    pub(super) receive_window: i64,
    pub(super) receive_credit: u32,
    /// What a new stream may receive: until our SETTINGS are acknowledged, the peer may go by the protocol's default.
    pub(super) stream_receive_window: u32,
    pub(super) peer: Settings,
    pub(super) decoder: Decoder,
    pub(super) block: BlockInParts,
    pub(super) last_request: LastRequest,
    pub(super) padding_left: usize,
    preface_done: bool,
    pub(super) settings_seen: bool,
    /// Highest stream that the peer has opened.
    pub(super) peer_stream_last: u32,
    pub(super) own_stream_next: u32,
    pub(super) late: VecDeque<(u32, Late)>,
    pub(super) drain: Drain,
    pub(super) peer_is_leaving: bool,
    pub(super) failure: Option<ErrorCode>,
    pub(super) noise: Allowance,
    pub(super) resets: Allowance,
    pub(super) ping_policy: PingPolicy,
    pub(super) keepalive: Keepalive,
}

/// A block of fields whose CONTINUATION is still to come.
#[derive(Default)]
pub(super) struct BlockInParts {
    /// 0: none.
    pub stream: u32,
    pub end_stream: bool,
    pub bytes: Vec<u8>,
}

/// The last well-formed request block without content-length, and the decoder's table that it was read with. Clients
/// send the same block over and over; it is then not read again.
#[derive(Default)]
pub(super) struct LastRequest {
    pub block: Vec<u8>,
    pub table_changes: u64,
}

/// How a stream that is gone went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// We ended it while the peer may still have been sending.
    ByUs,
    /// The peer had said its last word.
    ByPeer,
}

/// A failure of the whole connection, on its way to GOAWAY.
pub(super) struct Fatal(pub ErrorCode, pub &'static str);

/// Streams that are gone and remembered, to tell late frames from wrong ones.
pub(super) const LATE_STREAMS_MAX: usize = 32;
/// See `flood`: frames without use, and resets, that come in a burst or per second.
const NOISE_BURST: u32 = 10_000;
const NOISE_PER_SECOND: u32 = 500;
const RESETS_BURST: u32 = 5_000;
const RESETS_PER_SECOND: u32 = 500;
/// No content-length was given.
pub(super) const CONTENT_ANY: u64 = u64::MAX;

impl<A: Default> Connection<A> {
    /// A connection at its beginning. A client's preface and SETTINGS are in the output at once, a server's SETTINGS when
    /// the client's preface has come.
    pub fn new(role: Role, options: ConnectionOptions, now: Monotonic) -> Connection<A> {
        assert!(options.stream_window_bytes <= WINDOW_MAX && options.connection_window_bytes <= WINDOW_MAX);
        let mut connection = Connection {
            role,
            output: BytesMut::new(),
            output_peak_bytes: 0,
            streams: StreamTable::default(),
            writable: VecDeque::new(),
            ready: VecDeque::new(),
            queued_bytes: 0,
            send_window: i64::from(WINDOW_BYTES_DEFAULT),
            receive_window: i64::from(options.connection_window_bytes.max(WINDOW_BYTES_DEFAULT)),
            receive_credit: 0,
            stream_receive_window: options.stream_window_bytes.max(WINDOW_BYTES_DEFAULT),
            peer: Settings::default(),
            decoder: Decoder::new(DYNAMIC_TABLE_BYTES_DEFAULT),
            block: BlockInParts::default(),
            last_request: LastRequest::default(),
            padding_left: 0,
            preface_done: false,
            settings_seen: false,
            peer_stream_last: 0,
            own_stream_next: 1,
            late: VecDeque::new(),
            drain: Drain::default(),
            peer_is_leaving: false,
            failure: None,
            noise: Allowance::new(NOISE_BURST, NOISE_PER_SECOND, now),
            resets: Allowance::new(RESETS_BURST, RESETS_PER_SECOND, now),
            ping_policy: PingPolicy::new(options.keepalive_time_min),
            keepalive: Keepalive::new(options.keepalive_interval, options.keepalive_timeout, now),
            options,
        };
        if role == Role::Client {
            connection.output.extend_from_slice(PREFACE);
            connection.preface_done = true;
            connection.send_own_settings();
        }
        connection
    }

    fn send_own_settings(&mut self) {
        let settings = Settings {
            push_enabled: self.role == Role::Server,
            concurrent_streams_max: match self.role {
                Role::Server => self.streams_max(),
                Role::Client => u32::MAX,
            },
            initial_window_bytes: self.options.stream_window_bytes,
            header_list_bytes_max: self.options.header_list_bytes_max,
            ..Settings::default()
        };
        write_settings(&settings, &mut self.output);
        if let Some(more @ 1..) = self.options.connection_window_bytes.checked_sub(WINDOW_BYTES_DEFAULT) {
            write_window_update(0, more, &mut self.output);
        }
    }

    pub(super) fn streams_max(&self) -> u32 {
        self.options.concurrent_streams_max.min(STREAMS_MAX)
    }

    /// Takes the next thing that the peer did from the input. Fields go to `sink`, which is told nothing of blocks that
    /// turn out malformed: only `Incoming::Headers` says that what it got counts.
    pub fn advance(&mut self, input: &mut BytesMut, now: Monotonic, sink: &mut impl BlockSink) -> Incoming<A> {
        loop {
            if self.failure.is_some() {
                input.clear();
                return Incoming::Nothing;
            }
            match self.advance_frame(input, now, sink) {
                Ok(Some(Incoming::Nothing)) => return Incoming::Nothing,
                Ok(Some(incoming)) => return incoming,
                Ok(None) => {}
                Err(fatal) => self.fail(fatal.0, fatal.1.as_bytes()),
            }
        }
    }

    /// One frame: `None` if it concerns nobody but us.
    fn advance_frame(
        &mut self,
        input: &mut BytesMut,
        now: Monotonic,
        sink: &mut impl BlockSink,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        if self.padding_left > 0 {
            input.advance(self.padding_left);
            self.padding_left = 0;
        }
        if !self.preface_done && !self.take_preface(input)? {
            return Ok(Some(Incoming::Nothing));
        }
        let Some(header) = FrameHeader::read(input) else {
            return Ok(Some(Incoming::Nothing));
        };
        self.check_order(&header)?;
        let frame_len = FRAME_HEADER_BYTES + header.len as usize;
        if input.len() < frame_len {
            return Ok(Some(Incoming::Nothing));
        }
        if header.kind == FrameKind::Data {
            return self.data(header, input, now);
        }
        let payload = &input[FRAME_HEADER_BYTES..frame_len];
        let incoming = match header.kind {
            FrameKind::Headers => self.headers(header, payload, now, sink),
            FrameKind::Continuation => self.continuation(header, payload, now, sink),
            _ => self.control(header, payload, now),
        }?;
        input.advance(frame_len);
        Ok(incoming)
    }

    fn take_preface(&mut self, input: &mut BytesMut) -> Result<bool, Fatal> {
        let len = input.len().min(PREFACE.len());
        if input[..len] != PREFACE[..len] {
            return Err(Fatal(ErrorCode::ProtocolError, "bad preface"));
        }
        if len < PREFACE.len() {
            return Ok(false);
        }
        input.advance(PREFACE.len());
        self.preface_done = true;
        self.send_own_settings();
        Ok(true)
    }

    /// What can be said of a frame before its payload is there.
    fn check_order(&mut self, header: &FrameHeader) -> Result<(), Fatal> {
        if header.len > FRAME_BYTES_MAX {
            return Err(Fatal(ErrorCode::FrameSizeError, "frame too large"));
        }
        if !self.settings_seen {
            if header.kind != FrameKind::Settings || header.has(flags::ACK) {
                return Err(Fatal(ErrorCode::ProtocolError, "the first frame is not SETTINGS"));
            }
            self.settings_seen = true;
        }
        // Between HEADERS and END_HEADERS nothing else may come (section 6.10).
        let is_continuation = header.kind == FrameKind::Continuation;
        if is_continuation != (self.block.stream != 0) || is_continuation && header.stream != self.block.stream {
            return Err(Fatal(ErrorCode::ProtocolError, "CONTINUATION out of place"));
        }
        Ok(())
    }
}
