//! etcdserverpb.Watch: from a stream's messages to the core's hub, and the hub's responses to the stream.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    decode,
    desk::{Desk, Outbox},
    front::FarStream,
};
use crate::{
    base::{Monotonic, Reject},
    host::Notify,
    mvcc::{Commit, HistorySlice, PreviousRecords},
    propose::Method,
    watch::{Filters, HistoryRequest, ResponseIdentity, StreamId, WatchHub, WatchSpec},
    wire::{
        proto::etcdserverpb::{
            WatchCreateRequest, WatchRequest, watch_create_request::FilterType, watch_request::RequestUnion,
        },
        status::Status,
    },
};

/// Responses that a client may leave unread while it goes on asking.
const UNREAD_RESPONSES_MAX: usize = 100_000;

/// The watchers of this core and the connections that their streams belong to.
pub struct Watches {
    hub: RefCell<WatchHub>,
    /// By the index of the hub's streams.
    streams: RefCell<Vec<Option<Open>>>,
    progress_interval: Duration,
    /// Events that left for clients.
    events_sent: Cell<u64>,
    /// Raised when the hub wants history.
    replica: Rc<Notify>,
}

struct Open {
    stream: StreamId,
    outbox: Rc<Outbox>,
    next_progress: Monotonic,
}

/// One client's watch stream. Dropping it forgets its watchers.
pub struct WatchStream {
    watches: Rc<Watches>,
    stream: StreamId,
}

impl Watches {
    /// The watchers of a core; `replica` is raised when they want history.
    pub fn new(hub: WatchHub, progress_interval: Duration, replica: Rc<Notify>) -> Watches {
        Watches {
            hub: RefCell::new(hub),
            streams: RefCell::default(),
            progress_interval,
            events_sent: Cell::new(0),
            replica,
        }
    }

    /// Opens a stream of a connection. `phase` spreads the progress notices of streams that came together.
    pub fn open(self: &Rc<Self>, outbox: Rc<Outbox>, now: Monotonic) -> WatchStream {
        let stream = self.hub.borrow_mut().open_stream();
        let mut streams = self.streams.borrow_mut();
        let index = stream.index();
        if streams.len() <= index {
            streams.resize_with(index + 1, || None);
        }
        let phase = self.progress_interval / 10 * (index as u32 % 10) / 10;
        let next_progress = now + self.progress_interval + phase;
        streams[index] = Some(Open {
            stream,
            outbox,
            next_progress,
        });
        WatchStream {
            watches: self.clone(),
            stream,
        }
    }

    /// Tells the watchers what was applied, and wakes the connections that have something to send.
    pub fn publish(&self, commits: &[Commit]) {
        let mut hub = self.hub.borrow_mut();
        for commit in commits {
            hub.publish(&commit.events);
        }
        drop(hub);
        self.wake_ready();
    }

    /// History below this revision is gone.
    pub fn compacted(&self, compact_revision: i64) {
        self.hub.borrow_mut().compacted(compact_revision);
        self.wake_ready();
    }

    /// The store was replaced by a snapshot's, at these revisions.
    pub fn restored(&self, revision: i64, compact_revision: i64) {
        self.hub.borrow_mut().restored(revision, compact_revision);
        self.wake_ready();
    }

    /// The last compaction that was told here.
    pub fn compact_revision(&self) -> i64 {
        self.hub.borrow().compact_revision()
    }

    /// What the headers of responses say from now on.
    pub fn set_identity(&self, identity: ResponseIdentity) {
        self.hub.borrow_mut().set_identity(identity);
    }

    /// Whether changes are to be made with their previous records.
    pub fn previous_records(&self) -> PreviousRecords {
        if self.hub.borrow().wants_previous() {
            PreviousRecords::Fetch
        } else {
            PreviousRecords::Skip
        }
    }

    /// The piece of history that watchers wait for.
    pub fn history_request(&self) -> Option<HistoryRequest> {
        self.hub.borrow_mut().history_request()
    }

    /// Whether a watcher waits for the history of this key.
    pub fn wants_history_of(&self, key: &[u8]) -> bool {
        self.hub.borrow().wants_history_of(key)
    }

    /// The piece that was asked for, or why there is none.
    pub fn feed_history(&self, slice: Result<HistorySlice, Reject>) {
        match slice {
            Ok(slice) => self.hub.borrow_mut().feed_history(&slice),
            Err(_) => self.hub.borrow_mut().history_refused(),
        }
        self.wake_ready();
    }

    /// Tells progress on the streams whose time has come.
    pub fn tick(&self, now: Monotonic) {
        for open in self.streams.borrow_mut().iter_mut().flatten() {
            if open.next_progress <= now {
                open.next_progress = now + self.progress_interval;
                self.hub.borrow_mut().progress_due(open.stream);
            }
        }
        self.wake_ready();
    }

    /// Events that left for clients since the start.
    pub fn events_sent(&self) -> u64 {
        self.events_sent.get()
    }

    /// Streams, watchers, and those that are behind.
    pub fn counts(&self) -> crate::watch::WatchCounts {
        self.hub.borrow().counts()
    }

    fn wake_ready(&self) {
        let mut hub = self.hub.borrow_mut();
        while let Some(stream) = hub.ready() {
            if let Some(Some(open)) = self.streams.borrow().get(stream.index()) {
                open.outbox.wake();
            }
        }
    }
}

impl WatchStream {
    /// Takes a message of the client.
    ///
    /// # Errors
    /// The status with which the stream ends.
    pub fn take(&self, request: WatchRequest) -> Result<(), Status> {
        let mut hub = self.watches.hub.borrow_mut();
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                hub.create(self.stream, spec(create));
            }
            Some(RequestUnion::CancelRequest(cancel)) => hub.cancel(self.stream, cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => hub.request_progress(self.stream),
            // etcd ignores what it does not know.
            None => {}
        }
        let (unread, _) = hub.queued(self.stream);
        if unread > UNREAD_RESPONSES_MAX {
            return Err(Reject::TooManyRequests.into());
        }
        drop(hub);
        self.watches.replica.notify();
        Ok(())
    }

    /// The next response, encoded.
    pub fn pop(&self) -> Option<Bytes> {
        let mut hub = self.watches.hub.borrow_mut();
        let response = hub.pop(self.stream)?;
        self.watches
            .events_sent
            .set(self.watches.events_sent.get() + u64::from(response.events));
        let mut message = BytesMut::with_capacity(response.encoded_len(hub.identity()));
        response.encode_to(hub.identity(), &mut message);
        // Room in the queue lets those who fell behind catch up.
        if hub.counts().behind > 0 {
            self.watches.replica.notify();
        }
        Some(message.freeze())
    }
}

/// Where the watchers of a core's clients are.
pub enum WatchRoad {
    /// On this core, which is home.
    Here(Rc<Watches>),
    /// At home; the desk is a front's.
    Home(Rc<Desk>),
}

/// A client's watch stream, wherever its watchers are.
pub enum Watching {
    /// On this core.
    Here(WatchStream),
    /// At home.
    Far(FarStream),
}

impl WatchRoad {
    /// Opens a stream for a call of a connection.
    pub fn open(&self, outbox: &Rc<Outbox>, stream: u32, now: Monotonic) -> Watching {
        match self {
            WatchRoad::Here(watches) => Watching::Here(watches.open(outbox.clone(), now)),
            WatchRoad::Home(desk) => {
                let ticket = outbox.ticket(stream, Method::Watch);
                Watching::Far(FarStream::open(desk.clone(), ticket))
            }
        }
    }
}

impl Watching {
    /// Takes a message of the client.
    ///
    /// # Errors
    /// The status with which the stream ends.
    pub fn take(&self, message: Bytes) -> Result<(), Status> {
        let request = decode(message)?;
        match self {
            Watching::Here(stream) => stream.take(request),
            Watching::Far(stream) => {
                stream.take(request);
                Ok(())
            }
        }
    }

    /// The next response, encoded.
    pub fn pop(&self) -> Option<Bytes> {
        match self {
            Watching::Here(stream) => stream.pop(),
            Watching::Far(stream) => stream.pop(),
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.watches.hub.borrow_mut().drop_stream(self.stream);
        self.watches.streams.borrow_mut()[self.stream.index()] = None;
    }
}

fn spec(create: WatchCreateRequest) -> WatchSpec {
    let has = |filter: FilterType| create.filters.contains(&(filter as i32));
    WatchSpec {
        filters: Filters {
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
        },
        key: create.key,
        range_end: create.range_end,
        start_revision: create.start_revision,
        watch_id: create.watch_id,
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}
