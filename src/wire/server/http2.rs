//! A server's side of one HTTP/2 connection: gRPC calls and plain requests.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Call, ServerEvent, ServerOptions, StreamId,
    answers::{self, GRPC_HEAD, GRPC_OK},
    assembly::{Assembly, Held},
    events::HttpRequest,
    request::{Request, RequestHead},
};
use crate::{
    base::Monotonic,
    wire::{
        grpc::{Deframer, SmallMessages},
        http1::{HttpBody, HttpResponse},
        http2::{BlockKind, Connection, ConnectionOptions, ErrorCode, Incoming, Payload, Prefix, Role, Slot},
        status::{Code, Status},
    },
};

/// What the server keeps for a stream.
#[derive(Default)]
pub(super) struct ServerStream {
    kind: Kind,
    /// The caller knows of the stream and has not ended its answer.
    is_with_caller: bool,
    head_sent: bool,
    deframer: Deframer,
    /// While a message or a body is unfinished.
    held: Option<Held>,
    subtype: Option<Box<str>>,
}

#[derive(Default)]
enum Kind {
    #[default]
    Grpc,
    /// A plain request, and its body until that is whole.
    Http {
        request: Option<Box<HttpRequest>>,
        body: BytesMut,
        is_head: bool,
    },
}

impl ServerStream {
    fn held_bytes(&self) -> usize {
        match &self.kind {
            Kind::Grpc => self.deframer.held_bytes(),
            Kind::Http { body, .. } => body.len(),
        }
    }
}

/// One connection.
pub(super) struct Http2Server {
    pub core: Connection<ServerStream>,
    pub head: RequestHead,
    options: ServerOptions,
    small: SmallMessages,
    /// Bytes of unfinished messages and bodies of this connection.
    assembly: Assembly,
    block: BytesMut,
}

impl Http2Server {
    pub fn new(options: ServerOptions, now: Monotonic) -> Http2Server {
        let core_options = ConnectionOptions {
            concurrent_streams_max: options.concurrent_streams_max,
            header_list_bytes_max: options.header_list_bytes_max,
            stream_window_bytes: options.stream_window_bytes,
            connection_window_bytes: options.connection_window_bytes,
            stream_queue_bytes_high: options.stream_queue_bytes_high,
            keepalive_time_min: options.keepalive_time_min,
            keepalive_interval: options.keepalive_interval,
            keepalive_timeout: options.keepalive_timeout,
        };
        Http2Server {
            core: Connection::new(Role::Server, core_options, now),
            head: RequestHead::default(),
            options,
            small: SmallMessages::default(),
            assembly: Assembly::default(),
            block: BytesMut::new(),
        }
    }

    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic, events: &mut VecDeque<ServerEvent>) {
        loop {
            match self.core.advance(input, now, &mut self.head) {
                Incoming::Nothing => break,
                Incoming::Headers { slot, kind, end } => {
                    if kind == BlockKind::Request {
                        self.request(slot, events);
                    }
                    // A refused request is gone already.
                    if end && self.core.streams.contains(slot) {
                        self.half_closed(slot, events);
                    }
                }
                Incoming::Data { slot, len, end } => self.data(slot, len, end, input, events),
                Incoming::Reset { stream, app, .. } => {
                    if app.is_with_caller {
                        events.push_back(ServerEvent::Cancelled {
                            stream: StreamId(stream),
                        });
                    }
                }
                Incoming::GoAway { .. } => {}
            }
        }
        self.small.release();
        if self.core.failure().is_some() {
            self.cancel_all(events);
        }
    }

    fn request(&mut self, slot: Slot, events: &mut VecDeque<ServerEvent>) {
        let stream = StreamId(self.core.streams.at(slot).id);
        match self.head.request() {
            Request::Grpc {
                path,
                metadata,
                timeout,
                subtype,
            } => {
                let app = &mut self.core.streams.at_mut(slot).app;
                app.subtype = subtype;
                app.is_with_caller = true;
                events.push_back(ServerEvent::Call(Call {
                    stream,
                    path,
                    metadata,
                    timeout,
                }));
            }
            Request::Refused { http_status, status } => self.finish_slot(slot, http_status, &status),
            Request::Http(request) => {
                self.core.streams.at_mut(slot).app.kind = Kind::Http {
                    is_head: request.method == "HEAD",
                    request: Some(request),
                    body: BytesMut::new(),
                };
            }
        }
    }

    fn data(
        &mut self,
        slot: Slot,
        mut len: usize,
        end: bool,
        input: &mut BytesMut,
        events: &mut VecDeque<ServerEvent>,
    ) {
        if self.core.is_send_ending(slot) {
            // The answer is complete but for its way out; what the client still says is not heard.
            input.advance(len);
            return;
        }
        let entry = self.core.streams.at_mut(slot);
        let stream = StreamId(entry.id);
        let app = &mut entry.app;
        let mut failure = None;
        match &mut app.kind {
            Kind::Grpc => loop {
                let bytes_max = self.options.message_bytes_max;
                match app.deframer.next_message(input, &mut len, &mut self.small, bytes_max) {
                    Ok(Some(message)) => events.push_back(ServerEvent::Message { stream, message }),
                    Ok(None) => break,
                    Err(status) => {
                        failure = Some(status);
                        break;
                    }
                }
            },
            Kind::Http { body, .. } if body.len() + len <= self.options.http_body_bytes_max as usize => {
                body.extend_from_slice(&input[..len]);
            }
            Kind::Http { body, .. } => {
                *body = BytesMut::new();
                app.held = None;
                input.advance(len);
                let response = HttpResponse::new(413, "text/plain; charset=utf-8", "413 Request Entity Too Large");
                self.respond(stream, &response);
                return;
            }
        }
        let held = app.held_bytes();
        if held > 0 || app.held.is_some() {
            let counted = app
                .held
                .get_or_insert_with(|| Held::new(&self.assembly, &self.options.assembly));
            counted.set(held);
        }
        let is_http = matches!(app.kind, Kind::Http { .. });
        input.advance(if is_http || failure.is_some() { len } else { 0 });
        if failure.is_none() && held > 0 {
            failure = self.holds_too_much();
        }
        if let Some(status) = failure {
            self.fail_stream(slot, &status, events);
        } else if end {
            self.half_closed(slot, events);
        }
    }

    fn half_closed(&mut self, slot: Slot, events: &mut VecDeque<ServerEvent>) {
        if self.core.is_send_ending(slot) {
            return;
        }
        let stream = StreamId(self.core.streams.at(slot).id);
        let app = &mut self.core.streams.at_mut(slot).app;
        match &mut app.kind {
            // grpc-go takes a cut prefix for the end, and says this of a cut message (of a streaming call with another code,
            // which nobody can depend on: the client is gone).
            Kind::Grpc if app.deframer.is_inside_message() && !app.deframer.is_inside_prefix() => {
                self.fail_stream(slot, &Status::new(Code::Unknown, "unexpected EOF"), events);
            }
            Kind::Grpc => events.push_back(ServerEvent::HalfClosed { stream }),
            Kind::Http { request, body, .. } => {
                if let Some(mut request) = request.take() {
                    app.held = None;
                    request.body = std::mem::take(body).freeze();
                    app.is_with_caller = true;
                    events.push_back(ServerEvent::Http { stream, request });
                }
            }
        }
    }

    /// Ends a call for what its client sent.
    fn fail_stream(&mut self, slot: Slot, status: &Status, events: &mut VecDeque<ServerEvent>) {
        let stream = StreamId(self.core.streams.at(slot).id);
        let app = &mut self.core.streams.at_mut(slot).app;
        // The stream may stay for as long as the client does not read its answer.
        app.deframer = Deframer::default();
        app.held = None;
        if std::mem::take(&mut app.is_with_caller) {
            events.push_back(ServerEvent::Cancelled { stream });
        }
        self.finish_slot(slot, 200, status);
    }

    /// Whether unfinished messages hold more than they may.
    fn holds_too_much(&self) -> Option<Status> {
        let (own, all) = (self.assembly.bytes(), self.options.assembly.bytes());
        let text = if own > self.options.assembly_bytes_max as usize {
            "too many bytes of unfinished messages on the connection"
        } else if all > self.options.core_assembly_bytes_max && own > self.options.assembly_bytes_free {
            "too many bytes of unfinished messages"
        } else {
            return None;
        };
        Some(Status::new(Code::ResourceExhausted, text))
    }

    /// The connection is lost: so are its streams.
    pub fn cancel_all(&mut self, events: &mut VecDeque<ServerEvent>) {
        for (stream, app) in self.core.take_streams() {
            if app.is_with_caller {
                events.push_back(ServerEvent::Cancelled {
                    stream: StreamId(stream),
                });
            }
        }
    }

    /// The slot of a stream that may still be answered.
    #[inline]
    fn answerable(&self, stream: StreamId) -> Option<Slot> {
        let slot = self.core.streams.find(stream.0)?;
        (!self.core.is_send_ending(slot)).then_some(slot)
    }

    #[inline]
    fn send_head(&mut self, slot: Slot) {
        let app = &mut self.core.streams.at_mut(slot).app;
        if std::mem::replace(&mut app.head_sent, true) {
            return;
        }
        match &app.subtype {
            None => self.core.send_headers(slot, GRPC_HEAD, false),
            Some(subtype) => {
                self.block.clear();
                answers::grpc_head(200, Some(subtype), &mut self.block);
                self.core.send_headers(slot, &self.block, false);
            }
        }
    }

    pub fn send_message(&mut self, stream: StreamId, message: impl Payload) {
        let Some(slot) = self.answerable(stream) else { return };
        self.send_head(slot);
        let prefix = Prefix::grpc(message.payload_len());
        self.core.send_data(slot, prefix, message, false);
    }

    pub fn send_unary(&mut self, stream: StreamId, message: impl Payload) {
        let Some(slot) = self.answerable(stream) else { return };
        let app = &self.core.streams.at(slot).app;
        if !app.head_sent && app.subtype.is_none() && self.core.send_answer(slot, GRPC_HEAD, &message, GRPC_OK) {
            return;
        }
        let len = message.payload_len();
        self.send_head(slot);
        self.core.send_data(slot, Prefix::grpc(len), message, false);
        self.core.streams.at_mut(slot).app.is_with_caller = false;
        self.core.send_trailers(slot, GRPC_OK);
    }

    pub fn begin_unary(&mut self, stream: StreamId, message_bytes: usize, part: Bytes) {
        let Some(slot) = self.answerable(stream) else { return };
        self.send_head(slot);
        self.core.send_data(slot, Prefix::grpc(message_bytes), part, false);
    }

    pub fn continue_unary(&mut self, stream: StreamId, part: Bytes, is_last: bool) {
        let Some(slot) = self.answerable(stream) else { return };
        if !part.is_empty() {
            self.core.send_data(slot, Prefix::NONE, part, false);
        }
        if is_last {
            self.core.streams.at_mut(slot).app.is_with_caller = false;
            self.core.send_trailers(slot, GRPC_OK);
        }
    }

    pub fn finish(&mut self, stream: StreamId, status: &Status) {
        if let Some(slot) = self.answerable(stream) {
            self.core.streams.at_mut(slot).app.is_with_caller = false;
            self.finish_slot(slot, 200, status);
        }
    }

    fn finish_slot(&mut self, slot: Slot, http_status: u16, status: &Status) {
        let app = &self.core.streams.at(slot).app;
        self.block.clear();
        if !app.head_sent {
            answers::grpc_head(http_status, app.subtype.as_deref(), &mut self.block);
        }
        answers::grpc_status(status, &mut self.block);
        self.core.send_trailers(slot, &self.block);
    }

    pub fn respond(&mut self, stream: StreamId, response: &HttpResponse) {
        let Some(slot) = self.answerable(stream) else { return };
        let app = &mut self.core.streams.at_mut(slot).app;
        if std::mem::replace(&mut app.head_sent, true) {
            return;
        }
        let has_no_body = matches!(app.kind, Kind::Http { is_head: true, .. }) || matches!(response.status, 204 | 304);
        self.block.clear();
        answers::http_head(response, &mut self.block);
        match &response.body {
            HttpBody::Full(body) => {
                app.is_with_caller = false;
                let ends = has_no_body || body.is_empty();
                self.core.send_headers(slot, &self.block, ends);
                if !ends {
                    self.core.send_data(slot, Prefix::NONE, body.clone(), true);
                }
            }
            HttpBody::Streamed => self.core.send_headers(slot, &self.block, false),
        }
    }

    pub fn send_chunk(&mut self, stream: StreamId, chunk: Bytes) {
        let Some(slot) = self.answerable(stream) else { return };
        let app = &self.core.streams.at(slot).app;
        let is_to_head = matches!(app.kind, Kind::Http { is_head: true, .. });
        if app.head_sent && !is_to_head && !chunk.is_empty() {
            self.core.send_data(slot, Prefix::NONE, chunk, false);
        }
    }

    pub fn finish_body(&mut self, stream: StreamId) {
        if let Some(slot) = self.answerable(stream) {
            let app = &mut self.core.streams.at_mut(slot).app;
            app.is_with_caller = false;
            if app.head_sent {
                self.core.send_end(slot);
            } else {
                self.core.reset(slot, ErrorCode::InternalError);
            }
        }
    }

    pub fn cancel(&mut self, stream: StreamId) {
        if let Some(slot) = self.core.streams.find(stream.0) {
            self.core.reset(slot, ErrorCode::Cancel);
        }
    }
}
