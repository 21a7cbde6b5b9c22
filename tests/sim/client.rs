//! A client of the simulated server: calls over real HTTP/2 and gRPC, on a simulated network. One task for each
//! connection moves its bytes; whoever calls waits for messages of its own call.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{history::Failure, server::place_of};
use bytes::{Buf, Bytes, BytesMut};
use futures_lite::future::or;
use prost::Message;
use ringd::{
    base::Monotonic,
    host::{Host, Net, Notify, Stream},
    testing::{SimHost, SimStream},
    wire::{
        client::{ClientConnection, ClientEvent, ClientOptions, MethodId},
        server::StreamId,
        status::{Code, Status},
    },
};

/// What a server does not know itself, or what the client's own side makes up for a lost connection.
const SETTLES_NOTHING: [Code; 5] = [
    Code::Unavailable,
    Code::DeadlineExceeded,
    Code::Canceled,
    Code::Internal,
    Code::Unknown,
];

/// Whether it is left open what became of the call: of an answer that is too large nothing is told.
fn settles_nothing(status: &Status) -> bool {
    SETTLES_NOTHING.contains(&status.code) || status.message.ends_with("answer is too large")
}

/// A connection; clones share it.
#[derive(Clone)]
pub struct Channel {
    inner: Rc<Inner>,
}

struct Inner {
    host: SimHost,
    address: SocketAddr,
    connection: RefCell<ClientConnection>,
    methods: RefCell<BTreeMap<&'static str, MethodId>>,
    calls: RefCell<BTreeMap<u32, Progress>>,
    /// Wakes the task that moves bytes.
    notify: Notify,
    is_lost: Cell<bool>,
    is_closed: Cell<bool>,
    /// Until then nothing is read: a slow reader.
    reads_from: Cell<Monotonic>,
}

#[derive(Default)]
struct Progress {
    messages: VecDeque<Bytes>,
    status: Option<Status>,
    waker: Option<Waker>,
}

/// An open call. Dropped, it is given up.
pub struct Call {
    channel: Channel,
    stream: StreamId,
}

impl Channel {
    /// Connects, within `timeout`.
    pub async fn connect(host: &SimHost, address: SocketAddr, timeout: Duration) -> Option<Channel> {
        let connecting = async { host.net().connect(address).await.ok() };
        let stream = or(connecting, async {
            host.sleep_until(host.now() + timeout).await;
            None
        })
        .await?;
        let options = ClientOptions {
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(3),
            ..ClientOptions::default()
        };
        let inner = Rc::new(Inner {
            host: host.clone(),
            address,
            connection: RefCell::new(ClientConnection::new(options, host.now())),
            methods: RefCell::default(),
            calls: RefCell::default(),
            notify: Notify::new(),
            is_lost: Cell::new(false),
            is_closed: Cell::new(false),
            reads_from: Cell::new(Monotonic(0)),
        });
        let mut driver = Driver {
            inner: inner.clone(),
            stream,
            input: BytesMut::new(),
            buffer: vec![0; 16 * 1024],
            timer: None,
        };
        host.spawn(async move { poll_fn(|context| driver.poll(context)).await });
        Some(Channel { inner })
    }

    /// The place of the member that it leads to.
    pub fn place(&self) -> usize {
        place_of(self.inner.address)
    }

    /// Whether it is of no more use.
    pub fn is_lost(&self) -> bool {
        self.inner.is_lost.get()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.inner.is_closed.set(true);
        self.inner.notify.notify();
    }

    /// Reads nothing for a while.
    pub fn stop_reading(&self, duration: Duration) {
        self.inner.reads_from.set(self.inner.host.now() + duration);
        self.inner.notify.notify();
    }

    /// Opens a call. `None`: nothing was sent.
    pub fn open(&self, path: &'static str) -> Option<Call> {
        if self.is_lost() {
            return None;
        }
        let mut connection = self.inner.connection.borrow_mut();
        let method = *self
            .inner
            .methods
            .borrow_mut()
            .entry(path)
            .or_insert_with(|| connection.method(path, &[]));
        let stream = connection.open(method, None)?;
        self.inner.calls.borrow_mut().insert(stream.0, Progress::default());
        Some(Call {
            channel: self.clone(),
            stream,
        })
    }

    /// One request, one answer.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, Failure> {
        let call = self.open(path).ok_or(Failure::NotSent)?;
        call.send(request);
        call.end();
        let answer = call.next(timeout).await?;
        let answer = answer.ok_or(Failure::NoAnswer)?;
        let answer = A::decode(answer).expect("a server's answer can be read");
        match call.next(timeout).await {
            Ok(None) => Ok(answer),
            Ok(Some(_)) => panic!("two answers to one request"),
            // The answer was there: what happened is known.
            Err(_) => Ok(answer),
        }
    }
}

impl Call {
    /// Sends a message.
    pub fn send(&self, message: &impl Message) {
        let message = Bytes::from(message.encode_to_vec());
        self.channel
            .inner
            .connection
            .borrow_mut()
            .send_message(self.stream, message);
        self.channel.inner.notify.notify();
    }

    /// Says that no more follow.
    pub fn end(&self) {
        self.channel.inner.connection.borrow_mut().half_close(self.stream);
        self.channel.inner.notify.notify();
    }

    /// The next message; `None` at the call's orderly end.
    pub async fn next(&self, timeout: Duration) -> Result<Option<Bytes>, Failure> {
        let host = &self.channel.inner.host;
        let message = poll_fn(|context| self.poll_next(context));
        or(message, async {
            host.sleep_until(host.now() + timeout).await;
            Err(Failure::TimedOut)
        })
        .await
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let mut calls = self.channel.inner.calls.borrow_mut();
        let progress = calls.get_mut(&self.stream.0).expect("an open call");
        if let Some(message) = progress.messages.pop_front() {
            return Poll::Ready(Ok(Some(message)));
        }
        match &progress.status {
            None => {
                progress.waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(status) if status.code == Code::Ok => Poll::Ready(Ok(None)),
            Some(status) if settles_nothing(status) => Poll::Ready(Err(Failure::Unsettled(status.clone()))),
            Some(status) => Poll::Ready(Err(Failure::Refused(status.clone()))),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let inner = &self.channel.inner;
        let progress = inner.calls.borrow_mut().remove(&self.stream.0);
        if progress.is_some_and(|progress| progress.status.is_none()) {
            inner.connection.borrow_mut().cancel(self.stream);
            inner.notify.notify();
        }
    }
}

/// Moves a connection's bytes.
struct Driver {
    inner: Rc<Inner>,
    stream: SimStream,
    input: BytesMut,
    buffer: Vec<u8>,
    timer: Option<(Monotonic, Timer)>,
}

type Timer = Pin<Box<dyn Future<Output = ()>>>;

impl Driver {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let is_notified = self.inner.notify.poll_notified(context).is_ready();
            let now = self.inner.host.now();
            let is_read = match self.poll_io(context, now) {
                Ok(is_read) => is_read,
                Err(()) => {
                    self.inner.connection.borrow_mut().receive_end();
                    self.deliver();
                    self.inner.is_lost.set(true);
                    return Poll::Ready(());
                }
            };
            let is_due = self.poll_timer(context, now);
            if is_due {
                self.inner.connection.borrow_mut().tick(now);
            }
            self.deliver();
            if self.inner.is_closed.get() || self.inner.connection.borrow().is_finished() {
                self.inner.connection.borrow_mut().receive_end();
                self.deliver();
                self.inner.is_lost.set(true);
                return Poll::Ready(());
            }
            if !is_notified && !is_read && !is_due {
                return Poll::Pending;
            }
        }
    }

    /// Whether something was read; an error when the connection is lost.
    fn poll_io(&mut self, context: &mut Context<'_>, now: Monotonic) -> Result<bool, ()> {
        let mut connection = self.inner.connection.borrow_mut();
        while !connection.output().is_empty() {
            match self.stream.poll_write(context, connection.output()) {
                Poll::Ready(Ok(count)) => connection.output().advance(count),
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => break,
            }
        }
        if now < self.inner.reads_from.get() {
            return Ok(false);
        }
        match self.stream.poll_read(context, &mut self.buffer) {
            Poll::Ready(Ok(0) | Err(_)) => Err(()),
            Poll::Ready(Ok(count)) => {
                self.input.extend_from_slice(&self.buffer[..count]);
                connection.receive(&mut self.input, now);
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn poll_timer(&mut self, context: &mut Context<'_>, now: Monotonic) -> bool {
        let reads_from = Some(self.inner.reads_from.get()).filter(|from| *from > now);
        let deadline = self.inner.connection.borrow().next_deadline();
        let Some(wake_at) = deadline.into_iter().chain(reads_from).min() else {
            self.timer = None;
            return false;
        };
        if wake_at <= now {
            return true;
        }
        if self.timer.as_ref().is_none_or(|(at, _)| *at != wake_at) {
            self.timer = Some((wake_at, Box::pin(self.inner.host.sleep_until(wake_at))));
        }
        let (_, timer) = self.timer.as_mut().expect("just set");
        let is_due = timer.as_mut().poll(context).is_ready();
        if is_due {
            self.timer = None;
        }
        is_due
    }

    fn deliver(&mut self) {
        let mut connection = self.inner.connection.borrow_mut();
        let mut calls = self.inner.calls.borrow_mut();
        while let Some(event) = connection.next_event() {
            let (stream, message, status) = match event {
                ClientEvent::Message { stream, message } => (stream, Some(message), None),
                ClientEvent::Finished { stream, status, .. } => (stream, None, Some(status)),
                ClientEvent::GoAway { .. } | ClientEvent::Writable { .. } => continue,
            };
            if let Some(progress) = calls.get_mut(&stream.0) {
                progress.messages.extend(message);
                progress.status = status.or(progress.status.take());
                if let Some(waker) = progress.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}
