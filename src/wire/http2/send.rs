//! Sending: what waits in each stream, and in which order it goes out.
//!
//! Frames that make no sense later (answers to PING and SETTINGS, resets, headers) go straight to the output. DATA goes
//! there too while the output is short and the windows are open, else it waits in its stream; [`Connection::pump`] then
//! takes one frame from each waiting stream in turn, so that one huge answer does not hold up small ones.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Connection, ErrorCode, FRAME_BYTES_MAX, FrameKind, Role, Slot, WINDOW_MAX, flags,
    frame::{FRAME_HEADER_BYTES, frame_header, write_frame_header, write_reset},
};

/// Output beyond which DATA waits in its stream, in bytes: enough for a few large writes, and little enough that a small
/// answer which comes later is not far behind.
pub const OUTPUT_BYTES_TARGET: usize = 128 * 1024;
/// Memory of the output that a connection keeps.
const OUTPUT_BYTES_KEPT: usize = 32 * 1024;

/// A message to be sent: bytes, shared bytes, or something that is encoded in place.
pub trait Payload {
    /// Exact length in bytes.
    fn payload_len(&self) -> usize;
    /// Appends exactly `payload_len()` bytes.
    fn write_to(&self, output: &mut BytesMut);
    /// The message as shared memory, for when it has to wait.
    fn into_bytes(self) -> Bytes;
}

impl Payload for Bytes {
    fn payload_len(&self) -> usize {
        self.len()
    }
    fn write_to(&self, output: &mut BytesMut) {
        output.extend_from_slice(self);
    }
    fn into_bytes(self) -> Bytes {
        self
    }
}

impl Payload for &[u8] {
    fn payload_len(&self) -> usize {
        self.len()
    }
    fn write_to(&self, output: &mut BytesMut) {
        output.extend_from_slice(self);
    }
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

/// Several parts that make one message.
impl Payload for &[Bytes] {
    fn payload_len(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }
    fn write_to(&self, output: &mut BytesMut) {
        for part in self.iter() {
            output.extend_from_slice(part);
        }
    }
    fn into_bytes(self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.payload_len());
        self.write_to(&mut whole);
        whole.freeze()
    }
}

/// A protobuf message, encoded where it is sent.
pub struct Encode<'m, M> {
    message: &'m M,
    len: usize,
}

impl<'m, M: prost::Message> Encode<'m, M> {
    /// Measures the message once.
    pub fn new(message: &'m M) -> Encode<'m, M> {
        Encode {
            message,
            len: message.encoded_len(),
        }
    }
}

impl<M: prost::Message> Payload for Encode<'_, M> {
    fn payload_len(&self) -> usize {
        self.len
    }
    fn write_to(&self, output: &mut BytesMut) {
        self.message.encode_raw(output);
    }
    fn into_bytes(self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.len);
        self.message.encode_raw(&mut whole);
        whole.freeze()
    }
}

/// gRPC's five bytes in front of a message, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    bytes: [u8; 5],
    begin: u8,
}

impl Prefix {
    /// No prefix.
    pub const NONE: Prefix = Prefix {
        bytes: [0; 5],
        begin: 5,
    };

    /// Not compressed, `len` bytes.
    pub fn grpc(len: usize) -> Prefix {
        let len = u32::try_from(len)
            .expect("a message is shorter than 4 GiB")
            .to_be_bytes();
        Prefix {
            bytes: [0, len[0], len[1], len[2], len[3]],
            begin: 0,
        }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.begin)..]
    }
}

const GRPC_PREFIX_BYTES: usize = 5;

struct Segment {
    prefix: Prefix,
    body: Bytes,
}

/// What a stream still has to send.
pub struct SendState {
    pub(super) window: i64,
    segments: VecDeque<Segment>,
    pub(super) queued_bytes: usize,
    trailers: Option<Bytes>,
    ending: bool,
    /// END_STREAM is in the output.
    pub(super) closed: bool,
    /// In the ring of streams that could send.
    scheduled: bool,
    over_high_mark: bool,
}

impl SendState {
    pub(super) fn new(window: u32) -> SendState {
        SendState {
            window: i64::from(window),
            segments: VecDeque::new(),
            queued_bytes: 0,
            trailers: None,
            ending: false,
            closed: false,
            scheduled: false,
            over_high_mark: false,
        }
    }
}

impl<A: Default> Connection<A> {
    /// Sends a block of fields, split into CONTINUATION where it is long. Nothing may be waiting in the stream.
    pub fn send_headers(&mut self, slot: Slot, block: &[u8], end: bool) {
        let stream = self.streams.at_mut(slot);
        debug_assert!(stream.send.queued_bytes == 0 && !stream.send.closed);
        let id = stream.id;
        self.ping_policy.forgive();
        let mut chunks = block.chunks(FRAME_BYTES_MAX as usize).peekable();
        let mut kind = FrameKind::Headers;
        let mut flags = if end { flags::END_STREAM } else { 0 };
        loop {
            let chunk = chunks.next().unwrap_or_default();
            if chunks.peek().is_none() {
                flags |= flags::END_HEADERS;
            }
            write_frame_header(chunk.len(), kind, flags, id, &mut self.output);
            self.output.extend_from_slice(chunk);
            if chunks.peek().is_none() {
                break;
            }
            kind = FrameKind::Continuation;
            flags = 0;
        }
        if end {
            self.send_ended(slot);
        }
    }

    /// Whether `len` bytes of DATA can go straight to the output.
    #[inline]
    pub fn can_send_now(&self, slot: Slot, len: usize) -> bool {
        let send = &self.streams.at(slot).send;
        send.queued_bytes == 0
            && len <= FRAME_BYTES_MAX as usize
            && self.output.len() < OUTPUT_BYTES_TARGET
            && send.window >= len as i64
            && self.send_window >= len as i64
    }

    /// Sends DATA, now or when there is room. With `end` it is the stream's last.
    pub fn send_data(&mut self, slot: Slot, prefix: Prefix, payload: impl Payload, end: bool) {
        let body_len = payload.payload_len();
        let len = prefix.as_slice().len() + body_len;
        debug_assert!(!self.streams.at(slot).send.ending);
        if self.can_send_now(slot, len) {
            let stream = self.streams.at_mut(slot);
            stream.send.window -= len as i64;
            self.send_window -= len as i64;
            let flags = if end { flags::END_STREAM } else { 0 };
            self.output.reserve(FRAME_HEADER_BYTES + len);
            write_frame_header(len, FrameKind::Data, flags, stream.id, &mut self.output);
            self.output.extend_from_slice(prefix.as_slice());
            let before = self.output.len();
            payload.write_to(&mut self.output);
            assert_eq!(self.output.len() - before, body_len, "a payload is as long as it says");
            self.data_sent(1);
            if end {
                self.send_ended(slot);
            }
            return;
        }
        let stream = self.streams.at_mut(slot);
        let send = &mut stream.send;
        send.segments.push_back(Segment {
            prefix,
            body: payload.into_bytes(),
        });
        send.queued_bytes += len;
        send.ending = end;
        send.over_high_mark |= send.queued_bytes >= self.options.stream_queue_bytes_high;
        self.queued_bytes += len;
        self.schedule(slot);
    }

    /// Sends a whole answer at once, if it goes straight to the output: head, one DATA frame, trailers. False: it does not,
    /// and nothing was sent. Nothing may have been sent on the stream before.
    #[inline]
    pub fn send_answer<const HEAD: usize, const TRAILERS: usize>(
        &mut self,
        slot: Slot,
        head: &[u8; HEAD],
        payload: &impl Payload,
        trailers: &[u8; TRAILERS],
    ) -> bool {
        const { assert!(HEAD <= 64 && TRAILERS <= 64) };
        let body_len = payload.payload_len();
        let len = GRPC_PREFIX_BYTES + body_len;
        if !self.can_send_now(slot, len) {
            return false;
        }
        let stream = self.streams.at_mut(slot);
        stream.send.window -= len as i64;
        self.send_window -= len as i64;
        let id = stream.id;
        self.output.reserve(3 * FRAME_HEADER_BYTES + HEAD + len + TRAILERS);
        let mut front = [0; 128];
        let data_at = FRAME_HEADER_BYTES + HEAD;
        let prefix_at = data_at + FRAME_HEADER_BYTES;
        let front_len = prefix_at + GRPC_PREFIX_BYTES;
        front[..FRAME_HEADER_BYTES].copy_from_slice(&frame_header(HEAD, FrameKind::Headers, flags::END_HEADERS, id));
        front[FRAME_HEADER_BYTES..data_at].copy_from_slice(head);
        front[data_at..prefix_at].copy_from_slice(&frame_header(len, FrameKind::Data, 0, id));
        front[prefix_at..front_len].copy_from_slice(&Prefix::grpc(body_len).bytes);
        self.output.extend_from_slice(&front[..front_len]);
        let before = self.output.len();
        payload.write_to(&mut self.output);
        assert_eq!(self.output.len() - before, body_len, "a payload is as long as it says");
        let mut back = [0; 128];
        let ends = flags::END_HEADERS | flags::END_STREAM;
        back[..FRAME_HEADER_BYTES].copy_from_slice(&frame_header(TRAILERS, FrameKind::Headers, ends, id));
        back[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + TRAILERS].copy_from_slice(trailers);
        self.output.extend_from_slice(&back[..FRAME_HEADER_BYTES + TRAILERS]);
        self.data_sent(1);
        self.send_ended(slot);
        true
    }

    /// Ends the stream with a block of trailers, behind what waits.
    pub fn send_trailers(&mut self, slot: Slot, block: &[u8]) {
        let send = &mut self.streams.at_mut(slot).send;
        debug_assert!(!send.ending);
        if send.queued_bytes > 0 {
            send.ending = true;
            send.trailers = Some(Bytes::copy_from_slice(block));
        } else {
            self.send_headers(slot, block, true);
        }
    }

    /// Ends the stream behind what waits.
    pub fn send_end(&mut self, slot: Slot) {
        let stream = self.streams.at_mut(slot);
        if stream.send.queued_bytes > 0 {
            stream.send.ending = true;
            return;
        }
        write_frame_header(0, FrameKind::Data, flags::END_STREAM, stream.id, &mut self.output);
        self.send_ended(slot);
    }

    /// Whether the stream's end has been sent or waits.
    pub fn is_send_ending(&self, slot: Slot) -> bool {
        let send = &self.streams.at(slot).send;
        send.ending || send.closed
    }

    /// Bytes that wait in the stream.
    pub fn stream_queued_bytes(&self, slot: Slot) -> usize {
        self.streams.at(slot).send.queued_bytes
    }

    /// Moves waiting DATA to the output until that is long enough.
    pub fn pump(&mut self) {
        while self.output.len() < OUTPUT_BYTES_TARGET && self.send_window > 0 {
            let Some(id) = self.ready.pop_front() else { return };
            if let Some(slot) = self.streams.find(id) {
                self.pump_stream(slot);
            }
        }
    }

    /// Gives up the memory of an output that was long and is empty.
    pub fn release_output(&mut self) {
        self.output_peak_bytes = self.output_peak_bytes.max(self.output.len());
        if self.output.is_empty() && self.output_peak_bytes > OUTPUT_BYTES_KEPT {
            self.output = BytesMut::new();
            self.output_peak_bytes = 0;
        }
    }

    fn pump_stream(&mut self, slot: Slot) {
        let stream = self.streams.at_mut(slot);
        let send = &mut stream.send;
        send.scheduled = false;
        let len = (send.queued_bytes as i64)
            .min(i64::from(FRAME_BYTES_MAX))
            .min(send.window)
            .min(self.send_window);
        if len <= 0 {
            return;
        }
        let len = len as usize;
        send.window -= len as i64;
        self.send_window -= len as i64;
        send.queued_bytes -= len;
        self.queued_bytes -= len;
        let is_last = send.queued_bytes == 0 && send.ending;
        let ends_here = is_last && send.trailers.is_none();
        let flags = if ends_here { flags::END_STREAM } else { 0 };
        write_frame_header(len, FrameKind::Data, flags, stream.id, &mut self.output);
        write_segments(&mut send.segments, len, &mut self.output);
        if send.over_high_mark && send.queued_bytes < self.options.stream_queue_bytes_high / 2 {
            send.over_high_mark = false;
            if !send.ending {
                self.writable.push_back(stream.id);
            }
        }
        let trailers = if is_last { send.trailers.take() } else { None };
        self.data_sent(1 + len / 4096);
        if let Some(trailers) = trailers {
            self.send_headers(slot, &trailers, true);
        } else if ends_here {
            self.send_ended(slot);
        } else {
            self.schedule(slot);
        }
    }

    /// Puts a stream that has something to send, and a window to send it, into the ring.
    pub(super) fn schedule(&mut self, slot: Slot) {
        let stream = self.streams.at_mut(slot);
        let send = &mut stream.send;
        if !send.scheduled && send.queued_bytes > 0 && send.window > 0 {
            send.scheduled = true;
            self.ready.push_back(stream.id);
        }
    }

    /// Our END_STREAM is in the output. A server's stream is over with it: a client that is still sending is told to stop
    /// (RFC 9113 section 8.1), as gRPC's servers do.
    fn send_ended(&mut self, slot: Slot) {
        let stream = self.streams.at_mut(slot);
        stream.send.closed = true;
        if stream.receive_closed {
            self.forget(slot, false);
        } else if self.role == Role::Server {
            write_reset(stream.id, ErrorCode::NoError, &mut self.output);
            self.forget(slot, true);
        }
    }

    /// DATA went out: the peer may answer it with WINDOW_UPDATE and PING.
    #[inline]
    fn data_sent(&mut self, frames: usize) {
        self.ping_policy.forgive();
        self.noise.earn(4 * frames as u32);
    }

    /// Widens a window; false if it would exceed the largest.
    pub(super) fn widen(window: &mut i64, increment: i64) -> bool {
        *window += increment;
        *window <= i64::from(WINDOW_MAX)
    }
}

fn write_segments(segments: &mut VecDeque<Segment>, mut len: usize, output: &mut BytesMut) {
    output.reserve(len);
    while len > 0 {
        let segment = segments.front_mut().expect("as many bytes wait as were counted");
        let prefix = segment.prefix.as_slice();
        let prefix_taken = prefix.len().min(len);
        output.extend_from_slice(&prefix[..prefix_taken]);
        segment.prefix.begin += prefix_taken as u8;
        len -= prefix_taken;
        let body_taken = segment.body.len().min(len);
        output.extend_from_slice(&segment.body[..body_taken]);
        segment.body.advance(body_taken);
        len -= body_taken;
        if segment.body.is_empty() && segment.prefix.as_slice().is_empty() {
            segments.pop_front();
        }
    }
}
