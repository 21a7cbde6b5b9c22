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
    http::{self, Asked},
    route,
    snapshot::{self, Pump, SnapshotSender, SnapshotStep},
    watch::{WatchStream, Watches},
};
use crate::{
    base::Monotonic,
    host::mailbox,
    ops::health::Pending,
    propose::{FileWork, Method, Read, Reply, Request, unknown_path},
    wire::{
        server::{Call as WireCall, HttpRequest, ServerConnection, ServerEvent, ServerOptions, StreamId},
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
    pub desk: Rc<Desk>,
    /// The watchers of this core.
    pub watches: Rc<Watches>,
    /// Moves snapshots from the store's thread to this core.
    pub pump: Rc<Pump>,
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
    now: Monotonic,
    /// Streams on which snapshots and watch responses are sent.
    feeds: Vec<StreamId>,
}

enum CallState {
    /// A unary call before its message.
    Expecting(Method),
    /// Lease keepalives: answers owed, and whether the client has said all.
    KeepAlive { owed: usize, is_half_closed: bool },
    /// Watchers.
    Watch(WatchStream),
    /// A snapshot under way.
    Snapshot(Box<SnapshotSender>),
    /// An HTTP request that waits for the reads it tries.
    Http(Box<HttpWait>),
}

struct HttpWait {
    pending: Pending,
    serializable: Option<Result<(), String>>,
    linearizable: Option<Result<(), String>>,
}

/// What HTTP endpoints ask goes as the question of the health service.
const HTTP_READ: Method = Method::HealthCheck;

impl Session {
    /// A session for a connection that has just been accepted.
    pub fn new(service: Rc<Service>, now: Monotonic) -> Session {
        let wire = ServerConnection::new(service.wire.clone(), now);
        let outbox = service.desk.open();
        Session {
            service,
            outbox,
            wire,
            calls: HashMap::with_hasher(FixedState::default()),
            replies: Vec::new(),
            now,
            feeds: Vec::new(),
        }
    }

    /// Where answers for this session arrive.
    pub fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// Takes bytes that the peer sent and submits what they ask for.
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic) {
        self.now = now;
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
        self.now = now;
        let mut replies = std::mem::take(&mut self.replies);
        self.outbox.take_replies(&mut replies);
        for reply in replies.drain(..) {
            self.answer_one(reply);
        }
        self.replies = replies;
        self.feed_all();
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
        self.outbox
            .report(self.wire.next_deadline(), self.wire.queued_bytes_total());
        for call in self
            .outbox
            .take_deferred(crate::limits::CONNECTION_UNSENT_BYTES_MAX / 2)
        {
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
                ServerEvent::Writable { .. } => self.feed_all(),
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
            Method::Watch => {
                let watch = self.service.watches.open(self.outbox.clone(), self.now);
                self.calls.insert(stream, CallState::Watch(watch));
                self.feeds.push(stream);
            }
            Method::LeaseKeepAlive => {
                self.calls.insert(
                    stream,
                    CallState::KeepAlive {
                        owed: 0,
                        is_half_closed: false,
                    },
                );
            }
            _ => {
                self.calls.insert(stream, CallState::Expecting(method));
            }
        }
    }

    fn take_message(&mut self, stream: StreamId, message: Bytes) {
        match self.calls.get_mut(&stream) {
            None | Some(CallState::Http(_) | CallState::Snapshot(_)) => {}
            Some(CallState::Watch(watch)) => match watch.take(message) {
                Ok(()) => {
                    self.feed(stream);
                }
                Err(status) => self.end(stream, &status),
            },
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
        if method == Method::Snapshot {
            return self.begin_snapshot(stream, message);
        }
        match route::unary(method, message, &self.service) {
            Ok(route::Routed::Request(request)) => self.submit(stream, method, request),
            Ok(route::Routed::Answer(answer)) => self.wire.send_unary(stream, answer),
            Err(status) => self.wire.finish(stream, &status),
        }
    }

    fn begin_snapshot(&mut self, stream: StreamId, message: Bytes) {
        if let Err(status) = super::maintenance::snapshot(message) {
            return self.wire.finish(stream, &status);
        }
        let (sink, receiver) = mailbox(snapshot::PARTS_AHEAD_MAX);
        let feed = self.service.pump.add(receiver, self.outbox.clone());
        let sender = SnapshotSender::new(feed, self.service.pump.clone(), String::new());
        self.calls.insert(stream, CallState::Snapshot(Box::new(sender)));
        self.feeds.push(stream);
        self.submit(stream, Method::Snapshot, Request::File(FileWork::Snapshot(sink)));
    }

    /// Sends what snapshots and watchers have, as far as the client's windows allow.
    fn feed_all(&mut self) {
        let mut streams = std::mem::take(&mut self.feeds);
        streams.retain(|stream| self.feed(*stream));
        self.feeds = streams;
    }

    /// Whether the stream goes on.
    fn feed(&mut self, stream: StreamId) -> bool {
        let high = self.service.wire.stream_queue_bytes_high;
        match self.calls.get_mut(&stream) {
            Some(CallState::Watch(watch)) => {
                while self.wire.queued_bytes(stream) < high {
                    match watch.pop() {
                        Some(message) => self.wire.send_message(stream, message),
                        None => break,
                    }
                }
                true
            }
            Some(CallState::Snapshot(sender)) => {
                while self.wire.queued_bytes(stream) < high {
                    match sender.step() {
                        SnapshotStep::Message(message) => self.wire.send_message(stream, message),
                        SnapshotStep::Wait => return true,
                        SnapshotStep::End(status) => {
                            self.end(stream, &status);
                            return false;
                        }
                    }
                }
                true
            }
            _ => false,
        }
    }

    fn submit(&mut self, stream: StreamId, method: Method, request: Request) {
        self.service.desk.submit(self.outbox.call(stream.0, method, request));
    }

    fn half_close(&mut self, stream: StreamId) {
        match self.calls.get_mut(&stream) {
            None | Some(CallState::Http(_) | CallState::Snapshot(_) | CallState::Watch(_)) => {}
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
            (HTTP_READ, outcome) => {
                self.answer_http(stream, outcome.map(drop).map_err(|status| status.message.into_owned()))
            }
            (_, Ok(message)) => self.wire.send_unary(stream, message),
            (_, Err(status)) => self.end(stream, &status),
        }
    }

    fn serve_http(&mut self, stream: StreamId, request: &HttpRequest) {
        let asked = self.service.http.ask(request, &self.service.desk.view());
        match asked {
            Asked::Answer(response) => self.wire.respond(stream, &response),
            Asked::Metrics => self
                .wire
                .respond(stream, &http::response(crate::ops::health::not_found())),
            Asked::Reads(pending) => {
                let (serializable, linearizable) = (pending.serializable, pending.linearizable);
                let wait = HttpWait {
                    pending,
                    serializable: (!serializable).then_some(Ok(())),
                    linearizable: (!linearizable).then_some(Ok(())),
                };
                self.calls.insert(stream, CallState::Http(Box::new(wait)));
                for serializable in [(true, serializable), (false, linearizable)]
                    .into_iter()
                    .filter_map(wanted)
                {
                    self.submit(stream, HTTP_READ, Request::Read(Read::Barrier { serializable }));
                }
            }
        }
    }

    fn answer_http(&mut self, stream: StreamId, outcome: Result<(), String>) {
        let Some(CallState::Http(wait)) = self.calls.get_mut(&stream) else {
            return;
        };
        // Serializable reads are answered first: they wait for nobody.
        let slot = if wait.serializable.is_none() {
            &mut wait.serializable
        } else {
            &mut wait.linearizable
        };
        *slot = Some(outcome);
        if wait.serializable.is_none() || wait.linearizable.is_none() {
            return;
        }
        let Some(CallState::Http(wait)) = self.calls.remove(&stream) else {
            return;
        };
        if let (Some(serializable), Some(linearizable)) = (wait.serializable, wait.linearizable) {
            let answer = wait.pending.finish(serializable, linearizable);
            self.wire.respond(stream, &http::response(answer.response));
        }
    }

    fn end(&mut self, stream: StreamId, status: &Status) {
        self.calls.remove(&stream);
        self.wire.finish(stream, status);
    }
}

/// Keeps what is wanted.
fn wanted<T>((what, is_wanted): (T, bool)) -> Option<T> {
    is_wanted.then_some(what)
}

impl Drop for Session {
    fn drop(&mut self) {
        self.service.desk.close(&self.outbox);
    }
}
