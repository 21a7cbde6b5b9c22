//! What members say to each other: what waits for whom, in what bounds, and what becomes of it when a member is slow or
//! gone. Messages are raft's, as plain values; how they travel is a [`Transport`]'s matter.
//!
//! ```text
//!  replica ─ send ──▶ [outbox per member] ─ next ─▶ transport ┄┄▶ the member's transport ─ deliver ─▶ [inbox] ─▶ replica
//!          ◀─ news ──── unreachable, snapshot received or not ─┘
//! ```
//!
//! * `outbox`: what waits for one member, and what is dropped.
//! * `question`: what is asked of the leader past raft's log.
//! * `exchange`: the table that the replica and the transport share.
//!
//! Whatever is dropped here, raft sends again in its time: a full queue and a lost message are one case to it. What must
//! not happen is that a message comes twice (a client's proposal would be applied twice) or grows old without bound in
//! a queue; hence nothing is ever tried again here, and a queue that is full refuses what is new.

mod exchange;
mod outbox;
mod question;

use std::rc::Rc;

use raft::eraftpb::Message;

pub use exchange::{Exchange, News, Peer, Receipt};
pub use outbox::{Letter, Outbox};
pub use question::{Answer, Asker, Question};

use crate::{
    backend::SnapshotPart,
    host::{Host, Receiver},
    snapshot::SnapshotFiles,
};

/// A snapshot on its way to a member: the message, and the database that belongs to it.
pub struct Parcel {
    /// Raft's message, with the v2 store as its snapshot's data.
    pub message: Message,
    /// The database file; it has everything that the message's index covers, and perhaps more.
    pub database: Receiver<SnapshotPart>,
}

/// Carries what members say to each other.
///
/// It takes [`Letter`]s from the exchange's outboxes and tells the exchange what comes from others and what is lost. A
/// database that comes with a snapshot is kept in [`SnapshotFiles`] (`receive_database`) before the message is delivered (`deliver_snapshot`).
pub trait Transport<H: Host>: 'static {
    /// Whether it leads anywhere: a member of a larger cluster does not start without.
    const REACHES_PEERS: bool = true;

    /// Begins; called once, when the member knows who it is. Its tasks run until the process ends.
    fn start(self, host: &H, exchange: Rc<Exchange>, snapshots: Rc<SnapshotFiles<H>>);
}

/// The transport of a member without peers.
pub struct Alone;

impl<H: Host> Transport<H> for Alone {
    const REACHES_PEERS: bool = false;

    fn start(self, _host: &H, _exchange: Rc<Exchange>, _snapshots: Rc<SnapshotFiles<H>>) {}
}
