//! Moves bytes between a socket and its session. One task for each connection; answers of one turn leave in one write.

use std::{
    future::{Future, poll_fn},
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};

use super::{
    desk::Outbox,
    session::{Service, Session, SlowAfter, SlowCall},
};
use crate::{
    config::format_duration,
    host::{Host, Stream},
    ops::Counters,
    propose::{Method, describe},
    wire::status::Code,
};

/// Reads of one turn after which other connections have theirs.
const READS_PER_TURN_MAX: usize = 4;
/// Output that the socket would not take, in bytes, after which input waits.
const UNWRITTEN_BYTES_MAX: usize = 256 * 1024;
/// Bytes written in one turn after which other tasks have theirs: a client that takes a long answer as fast as it is written
/// must not keep the core from everybody else.
const WRITTEN_BYTES_PER_TURN_MAX: usize = 256 * 1024;
/// Memory that an idle connection may keep for input.
const IDLE_INPUT_BYTES_MAX: usize = 4096;

/// Serves one connection until it ends. `scratch` is shared by the connections of a core, so that an idle one holds no
/// read buffer. `outbox` is the connection's at the service's desk.
pub fn serve<H: Host, S: Stream>(
    host: H,
    stream: S,
    service: Rc<Service>,
    outbox: Rc<Outbox>,
    scratch: Rc<Scratch>,
) -> impl Future<Output = ()> {
    let session = Session::new(service, outbox, host.now());
    // In memory of its own: each future that waits for this one would have room for two of it.
    let mut connection = Box::new(Connection {
        host,
        stream,
        session,
        scratch,
        input: BytesMut::new(),
        is_ended: false,
    });
    poll_fn(move |context| {
        connection.poll(context).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection failed");
            }
        })
    })
}

/// Memory for one read.
pub struct Scratch(std::cell::RefCell<Box<[u8]>>);

impl Scratch {
    /// Memory for reads of up to `len` bytes.
    pub fn new(len: usize) -> Scratch {
        Scratch(std::cell::RefCell::new(vec![0; len].into_boxed_slice()))
    }
}

struct Connection<H, S> {
    host: H,
    stream: S,
    session: Session,
    scratch: Rc<Scratch>,
    input: BytesMut,
    is_ended: bool,
}

impl<H: Host, S: Stream> Connection<H, S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut reads = 0;
        loop {
            let outbox = self.session.outbox().clone();
            let is_notified = outbox.notify().poll_notified(context).is_ready();
            if outbox.is_given_up() {
                let text = "the client does not take its answers, and there are too many for others";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            if is_notified {
                self.session.answer(self.host.now());
                self.log_slow();
            }
            let is_written = self.poll_write(context)?.is_ready();
            self.session.report();
            if is_written && (self.session.is_finished() || self.is_ended) {
                return Poll::Ready(Ok(()));
            }
            if is_notified {
                continue;
            }
            // A peer that does not read is not read from either. One whose windows are full is: it has to open them.
            if self.is_ended || (!is_written && self.session.output().len() > UNWRITTEN_BYTES_MAX) {
                return Poll::Pending;
            }
            if reads == READS_PER_TURN_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            ready!(self.poll_read(context))?;
        }
    }

    fn log_slow(&mut self) {
        for call in self.session.take_slow() {
            let slow = self.session.slow_after();
            if call.ended.elapsed > slow.read {
                log_slow_read(&call, slow, self.session.counters());
            }
            if call.ended.elapsed > slow.unary {
                log_slow_unary(&call);
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written_bytes = 0;
        loop {
            while !self.session.output().is_empty() {
                if written_bytes >= WRITTEN_BYTES_PER_TURN_MAX {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let written = ready!(self.stream.poll_write(context, self.session.output()))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.session.output().advance(written);
                written_bytes += written;
            }
            // What has left makes room for what a stream held back. Nobody else would look: a client whose windows are
            // wide says nothing.
            self.session.refill();
            if self.session.output().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = self.scratch.0.borrow_mut();
        let len = ready!(self.stream.poll_read(context, &mut scratch))?;
        if len == 0 {
            self.is_ended = true;
            self.session.receive_end();
            return Poll::Ready(Ok(()));
        }
        self.input.extend_from_slice(&scratch[..len]);
        drop(scratch);
        self.session.receive(&mut self.input, self.host.now());
        if self.input.is_empty() && self.input.capacity() > IDLE_INPUT_BYTES_MAX {
            self.input = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// etcd's line about a read that took long.
fn log_slow_read(call: &SlowCall, slow: SlowAfter, counters: &Counters) {
    let prefix = match call.ended.method {
        Method::Range => "read-only range ",
        Method::Txn if describe::is_read_only(&call.ended.message) => "read-only txn ",
        _ => return,
    };
    counters.slow_applies.increment();
    tracing::warn!(
        took = format_duration(call.ended.elapsed),
        "expected-duration" = format_duration(slow.read),
        prefix,
        request = describe::call(call.ended.method, &call.ended.message),
        response = format!("size:{}", call.response_bytes),
        error = (call.status.code != Code::Ok).then(|| call.status.message.to_string()),
        "apply request took too long"
    );
}

/// etcd's line about a unary call that took long.
fn log_slow_unary(call: &SlowCall) {
    let method = call.ended.method;
    tracing::warn!(
        "time spent" = format_duration(call.ended.elapsed),
        "response type" = format!("/{}/{}", method.service(), method.name()),
        "request size" = call.ended.message.len(),
        "response size" = call.response_bytes,
        "request content" = describe::call(method, &call.ended.message),
        "request stats"
    );
}
