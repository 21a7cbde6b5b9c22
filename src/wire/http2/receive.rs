//! What the peer's HEADERS, CONTINUATION and DATA mean for its streams (RFC 9113 sections 5.1, 6.1, 6.2, 6.9, 6.10).

use bytes::{Buf, BytesMut};

use super::{
    BlockKind, BlockSink, Connection, ErrorCode, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, Incoming, Role,
    SendState, Slot, Stream, WINDOW_BYTES_DEFAULT,
    connection::{CONTENT_ANY, Fatal, LATE_STREAMS_MAX, Late},
    fields::{Checked, Verdict},
    flags,
    frame::{write_reset, write_window_update},
};
use crate::{base::Monotonic, wire::hpack::Outcome};

impl<A: Default> Connection<A> {
    pub(super) fn headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Monotonic,
        sink: &mut impl BlockSink,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        if header.stream == 0 {
            return Err(Fatal(ErrorCode::ProtocolError, "HEADERS on stream 0"));
        }
        let (mut block, _) = strip_padding(&header, payload)?;
        if header.has(flags::PRIORITY) {
            let (priority, rest) = block
                .split_at_checked(5)
                .ok_or(Fatal(ErrorCode::FrameSizeError, "HEADERS too short"))?;
            block = rest;
            self.check_dependency(header.stream, priority)?;
        }
        let end_stream = header.has(flags::END_STREAM);
        if header.has(flags::END_HEADERS) {
            return self.whole_block(header.stream, end_stream, block, now, sink);
        }
        self.block.stream = header.stream;
        self.block.end_stream = end_stream;
        self.block.bytes.extend_from_slice(block);
        Ok(None)
    }

    pub(super) fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Monotonic,
        sink: &mut impl BlockSink,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        self.spend_noise(now)?;
        let len = self.block.bytes.len() + payload.len();
        if len > (self.options.header_list_bytes_max).max(FRAME_BYTES_MAX) as usize {
            return Err(Fatal(ErrorCode::EnhanceYourCalm, "header block too large"));
        }
        self.block.bytes.extend_from_slice(payload);
        if !header.has(flags::END_HEADERS) {
            return Ok(None);
        }
        let block = std::mem::take(&mut self.block);
        self.whole_block(header.stream, block.end_stream, &block.bytes, now, sink)
    }

    /// A whole block. Whatever becomes of the stream, the block is decoded, for the table's sake.
    fn whole_block(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        now: Monotonic,
        sink: &mut impl BlockSink,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        let slot = self.streams.find(id);
        let kind = match (self.role, slot) {
            (Role::Server, None) => BlockKind::Request,
            (_, Some(slot)) if self.streams.at(slot).head_seen => BlockKind::Trailers,
            _ => BlockKind::Response,
        };
        if kind == BlockKind::Request && self.is_repeated(id, block) && sink.repeat() {
            self.peer_stream_last = id;
            let slot = self.insert_stream(id);
            return self.block_on_stream(slot, kind, &Verdict::default(), end, now);
        }
        sink.begin(kind);
        let table_changes = self.decoder.table_changes();
        let mut checked = Checked::new(kind, sink);
        let outcome = self
            .decoder
            .decode(block, self.options.header_list_bytes_max as usize, &mut checked)
            .map_err(|_| Fatal(ErrorCode::CompressionError, "bad header block"))?;
        let mut verdict = checked.verdict();
        verdict.too_large = outcome == Outcome::TooLarge;
        match (slot, self.role) {
            (Some(slot), _) => {
                if self.streams.at(slot).receive_closed {
                    return self.stream_error(slot, ErrorCode::StreamClosed, now);
                }
                // Trailers end the stream (section 8.1).
                verdict.malformed |= kind == BlockKind::Trailers && !end || verdict.informational && end;
                if verdict.too_large || verdict.malformed {
                    return self.stream_error(slot, broken_block(verdict.too_large), now);
                }
                Ok(self.block_on_stream(slot, kind, &verdict, end, now)?)
            }
            (None, Role::Client) => {
                self.check_not_idle(id)?;
                self.spend_noise(now)?;
                Ok(None)
            }
            (None, Role::Server) => self.block_of_new_stream(id, end, block, table_changes, &verdict, now),
        }
    }

    /// A request's block has been decoded: opens its stream, or says why not.
    fn block_of_new_stream(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        table_changes: u64,
        verdict: &Verdict,
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        if id.is_multiple_of(2) {
            return Err(Fatal(ErrorCode::ProtocolError, "stream of the wrong parity"));
        }
        if id <= self.peer_stream_last {
            return self.late_headers(id, now);
        }
        if self.drain.is_closed_to(id) {
            self.spend_noise(now)?;
            return Ok(None);
        }
        self.peer_stream_last = id;
        let broken = verdict.too_large || verdict.malformed;
        if broken || self.streams.len() >= self.streams_max() as usize {
            let code = if broken {
                broken_block(verdict.too_large)
            } else {
                ErrorCode::RefusedStream
            };
            write_reset(id, code, &mut self.output);
            self.remember(id, Late::ByUs);
            self.spend_reset(now)?;
            return Ok(None);
        }
        self.remember_request(block, table_changes, verdict);
        let slot = self.insert_stream(id);
        self.block_on_stream(slot, BlockKind::Request, verdict, end, now)
    }

    /// Whether a block opens a stream, and says what the last request's did.
    fn is_repeated(&self, id: u32, block: &[u8]) -> bool {
        let last = &self.last_request;
        last.block == block
            && !block.is_empty()
            && last.table_changes == self.decoder.table_changes()
            && id > self.peer_stream_last
            && !id.is_multiple_of(2)
            && !self.drain.is_closed_to(id)
            && self.streams.len() < self.streams_max() as usize
    }

    /// Keeps a request's block for comparison, if reading it left the table alone.
    fn remember_request(&mut self, block: &[u8], table_changes: u64, verdict: &Verdict) {
        let last = &mut self.last_request;
        last.block.clear();
        let is_stable = table_changes == self.decoder.table_changes();
        if is_stable && verdict.content_length.is_none() && block.len() <= REPEATED_BLOCK_BYTES_MAX {
            last.block.extend_from_slice(block);
            last.table_changes = table_changes;
        }
    }

    /// A well-formed block for an open stream.
    fn block_on_stream(
        &mut self,
        slot: Slot,
        kind: BlockKind,
        verdict: &Verdict,
        end: bool,
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        if verdict.informational {
            return Ok(None);
        }
        let stream = self.streams.at_mut(slot);
        if kind != BlockKind::Trailers {
            stream.head_seen = true;
            stream.content_left = verdict.content_length.unwrap_or(CONTENT_ANY);
        }
        if end {
            stream.receive_closed = true;
            // An answer to HEAD may announce content that does not come; ours are never that.
            if stream.content_left != CONTENT_ANY && stream.content_left != 0 {
                return self.stream_error(slot, ErrorCode::ProtocolError, now);
            }
        }
        Ok(Some(Incoming::Headers { slot, kind, end }))
    }

    /// HEADERS for a stream below the highest one that is not open.
    fn late_headers(&mut self, id: u32, now: Monotonic) -> Result<Option<Incoming<A>>, Fatal> {
        match self.late(id) {
            Some(Late::ByUs) => {
                self.spend_noise(now)?;
                Ok(None)
            }
            Some(Late::ByPeer) => Err(Fatal(ErrorCode::StreamClosed, "HEADERS on a closed stream")),
            None => Err(Fatal(ErrorCode::ProtocolError, "stream ids must ascend")),
        }
    }

    /// A DATA frame, which is whole in the input. Its content is left there for the user.
    pub(super) fn data(
        &mut self,
        header: FrameHeader,
        input: &mut BytesMut,
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        if header.stream == 0 {
            return Err(Fatal(ErrorCode::ProtocolError, "DATA on stream 0"));
        }
        let frame_len = FRAME_HEADER_BYTES + header.len as usize;
        let (content, padding) = strip_padding(&header, &input[FRAME_HEADER_BYTES..frame_len])?;
        let len = content.len();
        self.receive_window -= i64::from(header.len);
        if self.receive_window < 0 {
            return Err(Fatal(ErrorCode::FlowControlError, "connection window exceeded"));
        }
        self.give_back(header.len);
        let end = header.has(flags::END_STREAM);
        if len == 0 && !end {
            self.spend_noise(now)?;
        } else {
            self.noise.earn(1);
        }
        let Some(slot) = self.streams.find(header.stream) else {
            self.check_not_idle(header.stream)?;
            input.advance(frame_len);
            return self.late_data(header.stream, now);
        };
        if let Some(code) = self.data_on_stream(slot, header.len, len, end) {
            input.advance(frame_len);
            return self.stream_error(slot, code, now);
        }
        input.advance(frame_len - len - padding);
        self.padding_left = padding;
        Ok(Some(Incoming::Data { slot, len, end }))
    }

    /// Counts a DATA frame on its stream; the error if it must not be.
    fn data_on_stream(&mut self, slot: Slot, flow_len: u32, len: usize, end: bool) -> Option<ErrorCode> {
        let stream = self.streams.at_mut(slot);
        if stream.receive_closed {
            return Some(ErrorCode::StreamClosed);
        }
        if !stream.head_seen {
            return Some(ErrorCode::ProtocolError);
        }
        stream.receive_window -= i64::from(flow_len);
        if stream.receive_window < 0 {
            return Some(ErrorCode::FlowControlError);
        }
        if stream.content_left != CONTENT_ANY {
            match stream.content_left.checked_sub(len as u64) {
                Some(left) if !end || left == 0 => stream.content_left = left,
                _ => return Some(ErrorCode::ProtocolError),
            }
        }
        stream.receive_closed = end;
        stream.receive_credit += flow_len;
        if !end && stream.receive_credit >= self.options.stream_window_bytes / 2 && stream.receive_credit > 0 {
            write_window_update(stream.id, stream.receive_credit, &mut self.output);
            stream.receive_window += i64::from(stream.receive_credit);
            stream.receive_credit = 0;
        }
        None
    }

    /// Opens the connection's window again when half of it has been used. What was received is either with the user, who
    /// bounds it, or dropped; a slow stream must not hold up the others.
    fn give_back(&mut self, len: u32) {
        self.receive_credit += len;
        let window = self.options.connection_window_bytes.max(WINDOW_BYTES_DEFAULT);
        if self.receive_credit >= window / 2 {
            write_window_update(0, self.receive_credit, &mut self.output);
            self.receive_window += i64::from(self.receive_credit);
            self.receive_credit = 0;
        }
    }

    fn late_data(&mut self, id: u32, now: Monotonic) -> Result<Option<Incoming<A>>, Fatal> {
        match self.late(id) {
            Some(Late::ByUs) => {}
            Some(Late::ByPeer) => return Err(Fatal(ErrorCode::StreamClosed, "DATA on a closed stream")),
            // Gone for so long that nobody knows how; the peer may be late all the same.
            None => write_reset(id, ErrorCode::StreamClosed, &mut self.output),
        }
        self.spend_noise(now)?;
        Ok(None)
    }

    /// Adds a stream to the table.
    pub(super) fn insert_stream(&mut self, id: u32) -> Slot {
        self.streams.insert(Stream {
            id,
            receive_closed: false,
            head_seen: false,
            content_left: CONTENT_ANY,
            receive_window: i64::from(self.stream_receive_window),
            receive_credit: 0,
            send: SendState::new(self.peer.initial_window_bytes),
            app: A::default(),
        })
    }

    /// Ends a stream that broke the rules, or that the user gives up.
    pub(super) fn stream_error(
        &mut self,
        slot: Slot,
        code: ErrorCode,
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        self.spend_reset(now)?;
        let stream = self.streams.at(slot).id;
        write_reset(stream, code, &mut self.output);
        let app = self.forget(slot, true).app;
        Ok(Some(Incoming::Reset { stream, code, app }))
    }

    /// Gives a stream up.
    pub fn reset(&mut self, slot: Slot, code: ErrorCode) -> A {
        write_reset(self.streams.at(slot).id, code, &mut self.output);
        self.forget(slot, true).app
    }

    /// Gives all streams up without a word: the connection is lost.
    pub fn take_streams(&mut self) -> Vec<(u32, A)> {
        let slots: Vec<Slot> = self.streams.slots().collect();
        let take = |slot| {
            let stream = self.forget(slot, true);
            (stream.id, stream.app)
        };
        slots.into_iter().map(take).collect()
    }

    /// Takes a stream out of the table, and what it had waiting with it.
    pub(super) fn forget(&mut self, slot: Slot, by_us: bool) -> Stream<A> {
        let stream = self.streams.remove(slot);
        self.queued_bytes -= stream.send.queued_bytes;
        let how = if by_us { Late::ByUs } else { Late::ByPeer };
        self.remember(stream.id, how);
        stream
    }

    fn remember(&mut self, id: u32, how: Late) {
        if self.late.len() == LATE_STREAMS_MAX {
            self.late.pop_front();
        }
        self.late.push_back((id, how));
    }

    fn late(&self, id: u32) -> Option<Late> {
        if self.role == Role::Server && self.drain.is_closed_to(id) {
            // The peer opened it before it heard that we are leaving.
            return Some(Late::ByUs);
        }
        self.late.iter().find(|(late, _)| *late == id).map(|(_, how)| *how)
    }

    /// A stream that nobody has opened yet takes only HEADERS, and only from the client (section 5.1).
    pub(super) fn check_not_idle(&self, id: u32) -> Result<(), Fatal> {
        let opened = match self.role {
            Role::Server => id <= self.peer_stream_last || self.drain.is_closed_to(id),
            Role::Client => id < self.own_stream_next,
        };
        if opened && !id.is_multiple_of(2) {
            Ok(())
        } else {
            Err(Fatal(ErrorCode::ProtocolError, "frame on an idle stream"))
        }
    }

    pub(super) fn spend_noise(&mut self, now: Monotonic) -> Result<(), Fatal> {
        if self.noise.spend(now) {
            Ok(())
        } else {
            Err(Fatal(ErrorCode::EnhanceYourCalm, "too many frames without use"))
        }
    }

    pub(super) fn spend_reset(&mut self, now: Monotonic) -> Result<(), Fatal> {
        if self.resets.spend(now) {
            Ok(())
        } else {
            Err(Fatal(ErrorCode::EnhanceYourCalm, "too many resets"))
        }
    }
}

/// Blocks that are longer are not compared.
const REPEATED_BLOCK_BYTES_MAX: usize = 256;

fn broken_block(too_large: bool) -> ErrorCode {
    if too_large {
        // gRPC's servers say it this way.
        ErrorCode::FrameSizeError
    } else {
        ErrorCode::ProtocolError
    }
}

/// The part of a payload that is not padding, and the padding's length (section 6.1).
fn strip_padding<'p>(header: &FrameHeader, payload: &'p [u8]) -> Result<(&'p [u8], usize), Fatal> {
    if !header.has(flags::PADDED) {
        return Ok((payload, 0));
    }
    let (&padding, rest) = payload
        .split_first()
        .ok_or(Fatal(ErrorCode::FrameSizeError, "no padding length"))?;
    let padding = usize::from(padding);
    let content_len = rest
        .len()
        .checked_sub(padding)
        .ok_or(Fatal(ErrorCode::ProtocolError, "more padding than payload"))?;
    Ok((&rest[..content_len], padding))
}
