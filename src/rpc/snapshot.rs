//! Maintenance.Snapshot: the database file as a stream of messages, with its SHA-256 behind it, as etcdctl saves it and
//! etcdutl restores it.
//!
//! ```text
//!  store ─parts─▶ mailbox ─▶ Pump ─▶ Feed (two parts at most) ─▶ Sender ─▶ wire, as the client's window allows
//! ```
//!
//! The pump is one task that lives as long as its core: what wakes it from the store's thread never outlives it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::desk::Outbox;
use crate::{
    backend::SnapshotPart,
    host::{Notify, Receiver},
    wire::{
        proto::etcdserverpb::SnapshotResponse,
        status::{Code, Status},
    },
};

/// Parts that the store may be ahead of the pump, and the pump of the client.
pub const PARTS_AHEAD_MAX: usize = 2;
/// Bytes of the file in one message (etcd's 32 KiB).
const BLOB_BYTES: usize = 32 * 1024;

/// Parts of one snapshot on this core.
pub struct Feed {
    parts: RefCell<VecDeque<SnapshotPart>>,
    is_wanted: Cell<bool>,
    outbox: Rc<Outbox>,
}

impl Feed {
    /// The next part, if it is there.
    pub fn pop(&self) -> Option<SnapshotPart> {
        self.parts.borrow_mut().pop_front()
    }
}

/// Moves parts from the store's mailboxes to their feeds.
#[derive(Default)]
pub struct Pump {
    feeds: RefCell<Vec<(Receiver<SnapshotPart>, Rc<Feed>)>>,
    notify: Notify,
}

impl Pump {
    /// Begins to move parts for a connection, which is woken when there are some.
    pub fn add(&self, receiver: Receiver<SnapshotPart>, outbox: Rc<Outbox>) -> Rc<Feed> {
        let feed = Rc::new(Feed {
            parts: RefCell::default(),
            is_wanted: Cell::new(true),
            outbox,
        });
        self.feeds.borrow_mut().push((receiver, feed.clone()));
        self.notify.notify();
        feed
    }

    /// A feed has room again, or is not wanted any more.
    pub fn wake(&self) {
        self.notify.notify();
    }

    /// Moves parts until the core ends.
    pub async fn run(self: Rc<Pump>) {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            self.feeds
                .borrow_mut()
                .retain_mut(|(receiver, feed)| feed.is_wanted.get() && fill(receiver, feed, context));
            if self.notify.poll_notified(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Fills a feed as far as it has room; `false` when nothing more will come.
fn fill(receiver: &mut Receiver<SnapshotPart>, feed: &Feed, context: &mut Context<'_>) -> bool {
    while feed.parts.borrow().len() < PARTS_AHEAD_MAX {
        match receiver.poll_receive(context) {
            Poll::Pending => return true,
            Poll::Ready(None) => return false,
            Poll::Ready(Some(part)) => {
                feed.parts.borrow_mut().push_back(part);
                feed.outbox.wake();
            }
        }
    }
    true
}

/// One client's snapshot.
pub struct SnapshotSender {
    feed: Rc<Feed>,
    pump: Rc<Pump>,
    version: String,
    remaining: u64,
    /// The hash of all, when it is known and not sent yet.
    hash: Option<[u8; 32]>,
    data: Bytes,
    /// Less than a message's worth, while more is to come.
    gathered: BytesMut,
    is_over: bool,
}

/// What a snapshot comes to next.
pub enum SnapshotStep {
    /// A message to send.
    Message(Bytes),
    /// The stream's end.
    End(Status),
    /// Nothing yet: the connection is woken.
    Wait,
}

impl SnapshotSender {
    /// Sends what `feed` brings. `version` is the storage version that etcd 3.6 tells with each message.
    pub fn new(feed: Rc<Feed>, pump: Rc<Pump>, version: String) -> SnapshotSender {
        SnapshotSender {
            feed,
            pump,
            version,
            remaining: 0,
            hash: None,
            data: Bytes::new(),
            gathered: BytesMut::new(),
            is_over: false,
        }
    }

    /// The next message.
    pub fn step(&mut self) -> SnapshotStep {
        loop {
            if let Some(blob) = self.next_blob() {
                return self.blob(blob);
            }
            if self.is_over {
                let Some(hash) = self.hash.take() else {
                    return SnapshotStep::End(Status::OK);
                };
                return self.message(Bytes::copy_from_slice(&hash));
            }
            let part = self.feed.pop();
            self.pump.wake();
            match part {
                None => return SnapshotStep::Wait,
                Some(SnapshotPart::Begin(size)) => self.remaining = size,
                Some(SnapshotPart::Data(data)) => self.data = data,
                Some(SnapshotPart::End(hash)) => {
                    self.is_over = true;
                    self.hash = Some(hash);
                    if !self.gathered.is_empty() {
                        let rest = self.gathered.split().freeze();
                        return self.blob(rest);
                    }
                }
                Some(SnapshotPart::Failed(fault)) => {
                    return SnapshotStep::End(Status::new(Code::Unknown, fault.to_string()));
                }
            }
        }
    }

    /// A message's worth of what came, if it is enough.
    fn next_blob(&mut self) -> Option<Bytes> {
        if self.gathered.is_empty() && self.data.len() >= BLOB_BYTES {
            return Some(self.data.split_to(BLOB_BYTES));
        }
        let taken = self
            .data
            .split_to(self.data.len().min(BLOB_BYTES - self.gathered.len()));
        self.gathered.extend_from_slice(&taken);
        (self.gathered.len() == BLOB_BYTES).then(|| self.gathered.split().freeze())
    }

    fn blob(&mut self, blob: Bytes) -> SnapshotStep {
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        self.message(blob)
    }

    fn message(&self, blob: Bytes) -> SnapshotStep {
        let response = SnapshotResponse {
            header: None,
            remaining_bytes: self.remaining,
            blob,
            version: self.version.clone(),
        };
        SnapshotStep::Message(response.encode_to_vec().into())
    }
}

impl Drop for SnapshotSender {
    fn drop(&mut self) {
        self.feed.is_wanted.set(false);
        self.pump.wake();
    }
}
