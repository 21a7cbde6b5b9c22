//! One connection's calls: from the wire's events to requests for the replica, and from its answers to the wire. No IO:
//! the driver moves the bytes.
//!
//! ```text
//!  Call ─▶ expecting (method) ─Message─▶ unary: submitted ─reply─▶ answered
//!                             └─────────▶ stream: open … messages both ways … ─▶ finished
//! ```

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    desk::{Desk, Outbox},
    http, route,
};
use crate::{
    base::Monotonic,
    propose::{FileWork, Method, Read, Reply, Request, unknown_path},
    wire::{
        server::{Call as WireCall, ServerConnection, ServerEvent, ServerOptions, StreamId},
        status::{Code, Status},
    },
};

/// What a session needs to know of the server that does not change while it runs.
pub struct Service {
    /// Bounds of the wire.
    pub wire: ServerOptions,
    /// Operations in one transaction (`--max-txn-ops`).
    pub txn_operations_max: u32,
    /// Where the replica takes calls.
    pub desk: Desk,
    /// What the HTTP endpoints tell.
    pub http: http::Pages,
}

/// One connection's calls.
pub struct Session {
    service: Rc<Service>,
    outbox: Rc<Outbox>,
    wire: ServerConnection,
    /// Calls whose first message is still to come, and streams.
    calls: HashMap<StreamId, CallState, FixedState>,
    replies: Vec<Reply>,
}

enum CallState {
    /// A unary call before its message.
    Expecting(Method),
    /// Lease keepalives: answers owed, and whether the client has said all.
    KeepAlive { owed: usize, is_half_closed: bool },
}

impl Session {
    /// A session for a connection that has just been accepted.
    pub fn new(service: Rc<Service>, now: Monotonic) -> Session {
        let wire = ServerConnection::new(service.wire.clone(), now);
        let outbox = service.desk.open();
        Session { service, outbox, wire, calls: HashMap::with_hasher(FixedState::default()), replies: Vec::new() }
    }

    /// Where answers for this session arrive.
    pub fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// Takes bytes that the peer sent and submits what they ask for.
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic) {
        self.wire.receive(input, now);
        self.dispatch();
    }

    /// The peer is gone.
    pub fn receive_end(&mut self) {
        self.wire.receive_end();
        self.dispatch();
    }

    /// Turns what the replica answered since the last time into output.
    pub fn answer(&mut self, now: Monotonic) {
        let mut replies = std::mem::take(&mut self.replies);
        self.outbox.take_replies(&mut replies);
        for reply in replies.drain(..) {
            self.answer_one(reply);
        }
        self.replies = replies;
        if self.outbox.is_closing() {
            self.wire.shutdown(now);
        }
        if self.wire.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.wire.tick(now);
        }
        self.dispatch();
    }

    /// What is to be written; the driver takes from the front what has been.
    pub fn output(&mut self) -> &mut BytesMut {
        self.wire.output()
    }

    /// Whether the socket can be closed.
    pub fn is_finished(&self) -> bool {
        self.wire.is_finished()
    }

    /// Tells the outbox what the driver does not: timers, and how much is unsent.
    pub fn report(&self) {
        self.outbox.report(self.wire.next_deadline(), self.wire.queued_bytes_total());
        for call in self.outbox.take_deferred(crate::limits::CONNECTION_UNSENT_BYTES_MAX / 2) {
            self.service.desk.submit(call);
        }
    }

    fn dispatch(&mut self) {
        while let Some(event) = self.wire.next_event() {
            match event {
                ServerEvent::Call(call) => self.begin(call),
                ServerEvent::Message { stream, message } => self.take_message(stream, message),
                ServerEvent::HalfClosed { stream } => self.half_close(stream),
                ServerEvent::Cancelled { stream } => {
                    self.calls.remove(&stream);
                }
                ServerEvent::Http { stream, request } => self.serve_http(stream, &request),
                ServerEvent::Writable { .. } => {}
            }
        }
    }

    fn begin(&mut self, call: WireCall) {
        let stream = call.stream;
        let Some(method) = Method::of_path(call.path.as_str()) else {
            self.wire.finish(stream, &unknown_path(call.path.as_str()));
            return;
        };
        match method {
            Method::LeaseKeepAlive => {
                self.calls.insert(stream, CallState::KeepAlive { owed: 0, is_half_closed: false });
            }
            _ => {
                self.calls.insert(stream, CallState::Expecting(method));
            }
        }
    }

    fn take_message(&mut self, stream: StreamId, message: Bytes) {
        match self.calls.get_mut(&stream) {
            None => {}
            Some(CallState::Expecting(method)) => {
                let method = *method;
                self.calls.remove(&stream);
                self.take_unary(stream, method, message);
            }
            Some(CallState::KeepAlive { owed, .. }) => match super::lease::keep_alive(message) {
                Ok(request) => {
                    *owed += 1;
                    self.submit(stream, Method::LeaseKeepAlive, request);
                }
                Err(status) => self.end(stream, &status),
            },
        }
    }

    fn take_unary(&mut self, stream: StreamId, method: Method, message: Bytes) {
        match route::unary(method, message, &self.service) {
            Ok(route::Routed::Request(request)) => self.submit(stream, method, request),
            Ok(route::Routed::Answer(answer)) => self.wire.send_unary(stream, answer),
            Err(status) => self.wire.finish(stream, &status),
        }
    }

    fn submit(&mut self, stream: StreamId, method: Method, request: Request) {
        self.service.desk.submit(self.outbox.call(stream.0, method, request));
    }

    fn half_close(&mut self, stream: StreamId) {
        match self.calls.get_mut(&stream) {
            None => {}
            Some(CallState::Expecting(_)) => {
                // grpc-go's handler reads one message and passes on what reading gave.
                self.end(stream, &Status::new(Code::Unknown, "EOF"));
            }
            Some(CallState::KeepAlive { owed, is_half_closed }) => {
                *is_half_closed = true;
                if *owed == 0 {
                    self.end(stream, &Status::OK);
                }
            }
        }
    }

    fn answer_one(&mut self, reply: Reply) {
        let stream = StreamId(reply.stream);
        match (reply.method, reply.outcome) {
            (Method::LeaseKeepAlive, Ok(message)) => {
                let Some(CallState::KeepAlive { owed, is_half_closed }) = self.calls.get_mut(&stream) else {
                    return;
                };
                *owed -= 1;
                let is_last = *is_half_closed && *owed == 0;
                self.wire.send_message(stream, message);
                if is_last {
                    self.end(stream, &Status::OK);
                }
            }
            (_, Ok(message)) => self.wire.send_unary(stream, message),
            (_, Err(status)) => self.end(stream, &status),
        }
    }

    fn end(&mut self, stream: StreamId, status: &Status) {
        self.calls.remove(&stream);
        self.wire.finish(stream, status);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.service.desk.close(&self.outbox);
    }
}
