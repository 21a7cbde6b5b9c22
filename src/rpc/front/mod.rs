//! Connections on other cores. A front frames and decodes what its clients send, with sessions and a desk of its own; what
//! they ask for goes home, and the answers come back, in batches: one message each way for a turn of the loop, however
//! many calls it carries. Home knows each connection of a front by an outbox, under the same ticket, so that whatever
//! bounds a connection's answers there bounds these, too. Watchers stay in home's hub; their events leave from the front.
//!
//! ```text
//!  front: socket ─▶ session ─▶ Desk ─Link─ Inward ─▶ mailbox ─▶ Bridge ─▶ Desk ─▶ replica     :home
//!         socket ◀─ session ◀─ Outbox ◀─── Outward ◀─ mailbox ◀─ Bridge ◀─ Outbox ◀─ replica, watch hub
//! ```

pub mod bridge;
pub mod far;
pub mod link;

pub use bridge::{Bridge, Fronts};
pub use far::FarStream;
pub use link::Link;

use crate::{
    ops::{Counts, Gauges},
    propose::{Call, Reply, Ticket},
    rpc::http::{MemberView, Port},
    wire::proto::etcdserverpb::WatchRequest,
};

/// Batches that may wait in a mailbox between home and a front. One that is full lets more gather for the next batch.
pub const FRONT_MAILBOX: usize = 16;

/// From a front, home.
#[derive(Debug, Default)]
pub struct Inward {
    /// What happened to connections and their watch streams, in that order; before the calls.
    pub words: Vec<Word>,
    /// What clients ask for.
    pub calls: Vec<Call>,
}

/// What a front tells home besides calls. Connections are told by place and incarnation.
#[derive(Debug)]
pub enum Word {
    /// The connection is gone.
    Closed(u32, u32),
    /// It has got rid of so many more bytes of answers.
    Sent(u32, u32, usize),
    /// A health check of this kind and name has passed, or not.
    HealthCheck(&'static str, &'static str, bool),
    /// About a watch stream.
    Watch(Ticket, WatchWord),
    /// What the front has counted since it began.
    Counts(Box<Counts>),
}

/// What a front tells of a watch stream.
#[derive(Debug)]
pub enum WatchWord {
    /// It begins.
    Open,
    /// Its client's message.
    Message(WatchRequest),
    /// Responses of so many bytes have left for the client.
    Taken(usize),
    /// It is over.
    Close,
}

/// From home, to a front. `C` is a connection on its way ([`crate::host::Net::Moved`]).
#[derive(Debug)]
pub struct Outward<C> {
    /// Connections for it.
    pub connections: Vec<Arrival<C>>,
    /// What is known of the member, when that has changed.
    pub view: Option<MemberView>,
    /// What all others have counted and the replica tells of itself, for an answer that is among the replies.
    pub scrape: Option<Box<(Gauges, Counts)>>,
    /// Answers, and responses of watch streams, which come first.
    pub replies: Vec<(Ticket, Reply)>,
}

impl<C> Default for Outward<C> {
    fn default() -> Self {
        Outward {
            connections: Vec::new(),
            view: None,
            scrape: None,
            replies: Vec::new(),
        }
    }
}

impl<C> Outward<C> {
    fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.view.is_none() && self.scrape.is_none() && self.replies.is_empty()
    }
}

/// A connection for a front.
#[derive(Debug)]
pub struct Arrival<C> {
    /// It.
    pub connection: C,
    /// Which port it came to.
    pub port: Port,
    /// How home knows it.
    pub place: u32,
    /// Which of those that had this place it is.
    pub incarnation: u32,
}
