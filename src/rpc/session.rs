//! One connection's calls: from the wire's events to requests for the replica, and from its answers to the wire. No IO:
//! the driver moves the bytes.
//!
//! ```text
//!  Call ─▶ expecting (method) ─Message─▶ unary: submitted ─reply─▶ answered
//!                             └─────────▶ stream: open … messages both ways … ─▶ finished
//! ```

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{
    calls::{CallState, Calls, Ended},
    desk::{Desk, Outbox},
    http::{self, Asked},
    route,
    snapshot::{self, Pump, SnapshotSender, SnapshotStep},
    watch::Watches,
};
use crate::{
    base::{Monotonic, Reject},
    host::mailbox,
    ops::{Counters, health::Pending},
    propose::{FileWork, Method, Part, Read, Reply, Request, unknown_path},
    wire::{
        grpc::Metadata,
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
    /// From when on calls are logged.
    pub slow: SlowAfter,
    /// Where the replica takes calls.
    pub desk: Rc<Desk>,
    /// The watchers of this core.
    pub watches: Rc<Watches>,
    /// Moves snapshots from the store's thread to this core.
    pub pump: Rc<Pump>,
    /// What the HTTP endpoints tell.
    pub http: http::Pages,
}

/// From when on a call counts as slow.
#[derive(Clone, Copy, Debug)]
pub struct SlowAfter {
    /// A read (`--warning-apply-duration`).
    pub read: Duration,
    /// Any unary call (`--warning-unary-request-duration`).
    pub unary: Duration,
}

/// A unary call that took long.
pub struct SlowCall {
    /// The call.
    pub ended: Ended,
    /// Bytes of the answer.
    pub response_bytes: usize,
    /// How it ended.
    pub status: Status,
}

/// One connection's calls.
pub struct Session {
    service: Rc<Service>,
    outbox: Rc<Outbox>,
    wire: ServerConnection,
    calls: Calls,
    /// HTTP requests that wait for the replica.
    http: HashMap<StreamId, HttpWait, FixedState>,
    replies: Vec<Reply>,
    now: Monotonic,
    slow: Vec<SlowCall>,
    /// Streams on which snapshots and watch responses are sent.
    feeds: Vec<StreamId>,
}

/// An HTTP request that waits for the replica, and headers that belong to its answer.
struct HttpWait {
    headers: http::ExtraHeaders,
    awaits: Awaited,
}

enum Awaited {
    /// For the reads that it tries.
    Health(Box<HealthWait>),
    /// For what the replica knows of itself.
    Metrics,
}

struct HealthWait {
    pending: Pending,
    serializable: Option<Result<(), String>>,
    linearizable: Option<Result<(), String>>,
}

/// Versions that clients may say they speak, as far as they are counted apart; others could fill the memory.
const CLIENT_API_VERSIONS: [&str; 7] = ["3.0", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6"];

/// What HTTP endpoints ask goes as the question of the health service.
const HTTP_READ: Method = Method::HealthCheck;

impl Session {
    /// A session for a connection that has just been accepted.
    pub fn new(service: Rc<Service>, now: Monotonic) -> Session {
        let wire = ServerConnection::new(service.wire.clone(), now);
        let outbox = service.desk.open();
        let service_counters = service.desk.counters().clone();
        Session {
            service,
            outbox,
            wire,
            calls: Calls::new(service_counters),
            http: HashMap::with_hasher(FixedState::default()),
            replies: Vec::new(),
            now,
            slow: Vec::new(),
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
        self.end_expired();
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
        let deadlines = [self.wire.next_deadline(), self.calls.earliest_deadline()];
        self.outbox
            .report(deadlines.into_iter().flatten().min(), self.wire.queued_bytes_total());
        for call in self
            .outbox
            .take_deferred(self.service.desk.limits().connection_unsent_bytes_max / 2)
        {
            self.service.desk.submit(call);
        }
        self.service.desk.make_room(&self.outbox);
    }

    /// After a write: streams that have room again are given more.
    pub fn refill(&mut self) {
        self.dispatch();
    }

    fn dispatch(&mut self) {
        while let Some(event) = self.wire.next_event() {
            match event {
                ServerEvent::Call(call) => self.begin(call),
                ServerEvent::Message { stream, message } => self.take_message(stream, message),
                ServerEvent::HalfClosed { stream } => self.half_close(stream),
                ServerEvent::Cancelled { stream } => {
                    self.calls.end(stream, Code::Canceled, self.now);
                    self.http.remove(&stream);
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
        if !self.service.http.port.has_grpc() {
            let status = Status::new(Code::Unimplemented, "ringd: gRPC is not served on this port");
            return self.wire.finish(stream, &status);
        }
        if let Err(status) = self.check_metadata(method, &call.metadata) {
            return self.wire.finish(stream, &status);
        }
        let state = match method {
            Method::Watch => {
                self.feeds.push(stream);
                CallState::Watch(self.service.watches.open(self.outbox.clone(), self.now))
            }
            Method::LeaseKeepAlive => CallState::KeepAlive {
                owed: 0,
                is_half_closed: false,
            },
            _ => CallState::Expecting,
        };
        self.calls.begin(stream, method, state, call.timeout, self.now);
    }

    /// Looks at what etcd's interceptors look at.
    fn check_metadata(&self, method: Method, metadata: &Metadata) -> Result<(), Status> {
        let version = metadata.value("client-api-version");
        let label = match version.map(std::str::from_utf8) {
            Some(Err(_)) => return Err(Reject::InvalidClientApiVersion.into()),
            Some(Ok(version)) => CLIENT_API_VERSIONS.iter().find(|known| **known == version),
            None => None,
        };
        let kind = if method.is_streaming() { "stream" } else { "unary" };
        let counters = self.service.desk.counters();
        counters.client_requests.increment([label.unwrap_or(&"unknown"), kind]);
        if metadata.value("hasleader") == Some(b"true") && !self.service.desk.view().has_leader {
            return Err(Reject::NoLeader.into());
        }
        Ok(())
    }

    fn take_message(&mut self, stream: StreamId, message: Bytes) {
        let Some(call) = self.calls.received(stream, &message) else {
            return;
        };
        match &mut call.state {
            // Of a call that takes one message the first counts.
            CallState::Waiting | CallState::Answering(_) | CallState::Snapshot(_) | CallState::Open => {}
            CallState::Watch(watch) => match watch.take(message) {
                Ok(()) => {
                    self.feed(stream);
                }
                Err(status) => {
                    self.count_broken_stream("watch");
                    self.end(stream, &status);
                }
            },
            CallState::Expecting => {
                call.state = CallState::Waiting;
                let method = call.method;
                self.take_unary(stream, method, message);
            }
            CallState::KeepAlive { owed, .. } => match super::lease::keep_alive(message) {
                Ok(request) => {
                    *owed += 1;
                    self.submit(stream, Method::LeaseKeepAlive, request);
                }
                Err(status) => {
                    self.count_broken_stream("lease-keepalive");
                    self.end(stream, &status);
                }
            },
        }
    }

    /// A client sent on a stream what cannot be understood.
    fn count_broken_stream(&self, api: &'static str) {
        let counters = self.service.desk.counters();
        counters.stream_failures.increment([api, "receive"]);
    }

    fn take_unary(&mut self, stream: StreamId, method: Method, message: Bytes) {
        match method {
            Method::Snapshot => return self.begin_snapshot(stream, message),
            Method::HealthWatch => return self.begin_health_watch(stream, message),
            _ => {}
        }
        match route::unary(method, message, &self.service) {
            Ok(route::Routed::Request(request)) => self.submit(stream, method, request),
            Ok(route::Routed::Answer(answer)) => self.answer_unary(stream, answer),
            Err(status) => self.end(stream, &status),
        }
    }

    /// Says how the server is, which does not change while it can say so.
    fn begin_health_watch(&mut self, stream: StreamId, message: Bytes) {
        match super::health::watch(message) {
            Err(status) => self.end(stream, &status),
            Ok(message) => {
                if let Some(call) = self.calls.call(stream) {
                    call.state = CallState::Open;
                }
                self.calls.sent(Method::HealthWatch, message.len());
                self.wire.send_message(stream, message);
            }
        }
    }

    fn begin_snapshot(&mut self, stream: StreamId, message: Bytes) {
        if let Err(status) = super::maintenance::snapshot(message) {
            return self.end(stream, &status);
        }
        let (sink, receiver) = mailbox(snapshot::PARTS_AHEAD_MAX);
        let feed = self.service.pump.add(receiver, self.outbox.clone());
        let sender = SnapshotSender::new(feed, self.service.pump.clone(), String::new());
        if let Some(call) = self.calls.call(stream) {
            call.state = CallState::Snapshot(Box::new(sender));
        }
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
        while self.wire.queued_bytes(stream) < high {
            let Some(call) = self.calls.call(stream) else {
                return false;
            };
            let step = match &mut call.state {
                CallState::Watch(watch) => watch.pop().map_or(SnapshotStep::Wait, SnapshotStep::Message),
                CallState::Snapshot(sender) => sender.step(),
                _ => return false,
            };
            let method = call.method;
            match step {
                SnapshotStep::Message(message) => {
                    self.calls.sent(method, message.len());
                    self.wire.send_message(stream, message);
                }
                SnapshotStep::Wait => return true,
                SnapshotStep::End(status) => {
                    self.end(stream, &status);
                    return false;
                }
            }
        }
        true
    }

    fn submit(&mut self, stream: StreamId, method: Method, request: Request) {
        self.service.desk.submit(self.outbox.call(stream.0, method, request));
    }

    fn half_close(&mut self, stream: StreamId) {
        let Some(call) = self.calls.call(stream) else {
            return;
        };
        match &mut call.state {
            CallState::Waiting
            | CallState::Answering(_)
            | CallState::Snapshot(_)
            | CallState::Watch(_)
            | CallState::Open => {}
            // grpc-go's handler reads one message and passes on what reading gave.
            CallState::Expecting => self.end(stream, &Status::new(Code::Unknown, "EOF")),
            CallState::KeepAlive { owed, is_half_closed } => {
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
                let Some(call) = self.calls.call(stream) else {
                    return;
                };
                let CallState::KeepAlive { owed, is_half_closed } = &mut call.state else {
                    return;
                };
                *owed -= 1;
                let is_last = *is_half_closed && *owed == 0;
                self.calls.sent(Method::LeaseKeepAlive, message.len());
                self.wire.send_message(stream, message);
                if is_last {
                    self.end(stream, &Status::OK);
                }
            }
            (HTTP_READ, outcome) => {
                self.answer_http(stream, outcome.map(drop).map_err(|status| status.message.into_owned()))
            }
            (_, Ok(message)) if reply.part == Part::Whole => self.answer_unary(stream, message),
            (_, Ok(message)) => self.answer_part(stream, reply.part, message),
            (_, Err(status)) => self.end(stream, &status),
        }
    }

    fn answer_unary(&mut self, stream: StreamId, message: Bytes) {
        match self.calls.end(stream, Code::Ok, self.now) {
            // Cancelled, or ended by its deadline.
            None => {}
            Some(Ended { is_late: true, .. }) => self.wire.finish(stream, &deadline_exceeded()),
            Some(ended) => {
                self.calls.sent(ended.method, message.len());
                self.note_slow(ended, message.len(), &Status::OK);
                self.wire.send_unary(stream, message);
            }
        }
    }

    /// A part of a long answer. Of a call that its client has given up nothing more is sent.
    fn answer_part(&mut self, stream: StreamId, part: Part, message: Bytes) {
        let Some(call) = self.calls.call(stream) else { return };
        match (part, &call.state) {
            (Part::First { message_bytes }, _) => {
                call.state = CallState::Answering(message_bytes);
                self.wire.begin_unary(stream, message_bytes, message);
            }
            (Part::Last, &CallState::Answering(message_bytes)) => {
                let Some(ended) = self.calls.end(stream, Code::Ok, self.now) else {
                    return;
                };
                if ended.is_late {
                    return self.wire.finish(stream, &deadline_exceeded());
                }
                self.calls.sent(ended.method, message_bytes);
                self.note_slow(ended, message_bytes, &Status::OK);
                self.wire.continue_unary(stream, message, true);
            }
            _ => self.wire.continue_unary(stream, message, false),
        }
    }

    /// Ends the calls that their clients no longer wait for.
    fn end_expired(&mut self) {
        for stream in self.calls.expired(self.now) {
            self.end(stream, &deadline_exceeded());
        }
    }

    fn serve_http(&mut self, stream: StreamId, request: &HttpRequest) {
        if self.wire.is_http2() && Method::of_path(&request.target).is_some() {
            return self.wire.respond(stream, &http::not_grpc(request));
        }
        if !self.service.http.port.has_http() {
            let response = http::response(crate::ops::health::not_found());
            return self.wire.respond(stream, &response);
        }
        let headers = match self.service.http.admit(request) {
            Ok(headers) => headers,
            Err(response) => return self.wire.respond(stream, &response),
        };
        let asked = self.service.http.ask(request, &self.service.desk);
        match asked {
            Asked::Answer(response) => self.wire.respond(stream, &http::with_headers(response, &headers)),
            Asked::Metrics => {
                let awaits = Awaited::Metrics;
                self.http.insert(stream, HttpWait { headers, awaits });
                self.submit(stream, HTTP_READ, Request::Read(Read::Gauges));
            }
            Asked::Reads(pending) => {
                let (serializable, linearizable) = (pending.serializable, pending.linearizable);
                let wait = HealthWait {
                    pending,
                    serializable: (!serializable).then_some(Ok(())),
                    linearizable: (!linearizable).then_some(Ok(())),
                };
                let awaits = Awaited::Health(Box::new(wait));
                self.http.insert(stream, HttpWait { headers, awaits });
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
        let Some(http_wait) = self.http.get_mut(&stream) else {
            return;
        };
        let wait = match &mut http_wait.awaits {
            Awaited::Health(wait) => wait,
            Awaited::Metrics => {
                let headers = std::mem::take(&mut http_wait.headers);
                self.http.remove(&stream);
                let response = http::response(self.service.http.metrics(&self.service.desk));
                return self.wire.respond(stream, &http::with_headers(response, &headers));
            }
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
        let Some(HttpWait {
            headers,
            awaits: Awaited::Health(wait),
        }) = self.http.remove(&stream)
        else {
            return;
        };
        if let (Some(serializable), Some(linearizable)) = (wait.serializable, wait.linearizable) {
            let answer = wait.pending.finish(serializable, linearizable);
            self.service.desk.count_health(&answer);
            let response = http::response(answer.response);
            self.wire.respond(stream, &http::with_headers(response, &headers));
        }
    }

    fn end(&mut self, stream: StreamId, status: &Status) {
        if let Some(ended) = self.calls.end(stream, status.code, self.now) {
            self.note_slow(ended, 0, status);
        }
        self.wire.finish(stream, status);
    }

    #[inline]
    fn note_slow(&mut self, ended: Ended, response_bytes: usize, status: &Status) {
        let slow = &self.service.slow;
        if ended.elapsed > slow.read.min(slow.unary) && !ended.method.is_streaming() {
            self.slow.push(SlowCall {
                ended,
                response_bytes,
                status: status.clone(),
            });
        }
    }

    /// From when on calls are logged.
    pub fn slow_after(&self) -> SlowAfter {
        self.service.slow
    }

    /// What this core counts.
    pub fn counters(&self) -> &Counters {
        self.service.desk.counters()
    }

    /// Unary calls that took long, to be logged.
    pub fn take_slow(&mut self) -> Vec<SlowCall> {
        std::mem::take(&mut self.slow)
    }
}

/// What a call is told whose deadline has passed, in grpc-go's words.
fn deadline_exceeded() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// Keeps what is wanted.
fn wanted<T>((what, is_wanted): (T, bool)) -> Option<T> {
    is_wanted.then_some(what)
}

impl Drop for Session {
    fn drop(&mut self) {
        self.calls.abandon(self.now);
        self.service.desk.close(&self.outbox);
    }
}
