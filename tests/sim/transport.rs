//! The members' way to each other in the simulator: raft's messages as plain values over links that lose, delay and
//! reorder them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::{Rc, Weak},
    time::Duration,
};

use raft::eraftpb::Message;
use ringd::{
    backend::SnapshotPart,
    base::MemberId,
    host::{Host, Notify, Receiver},
    peer::{Answer, Exchange, Letter, Parcel, Question, Transport},
    snapshot::SnapshotFiles,
    testing::{Links, SimHost},
};

use crate::{leaders::Leaders, workload::within};

/// How long a member waits to hear that its snapshot was received.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are written of a received database at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What travels.
pub enum Mail {
    /// A message.
    Message(Message),
    /// A snapshot's message and database.
    Snapshot(Message, Vec<u8>),
    /// Whether the snapshot to this member was received.
    Received(MemberId, bool),
    /// A question of this member's, with its number.
    Question(MemberId, u64, Question),
    /// What came back for it.
    Answer(u64, Option<Answer>),
}

/// A member's end of the links.
pub struct SimTransport {
    /// The links.
    pub links: Rc<Links<Mail>>,
    /// Who hears what is sent.
    pub leaders: Rc<Leaders>,
    /// The member's place.
    pub place: usize,
    /// Set when a life of the member has come so far as to speak to others: its files are there from then on.
    pub has_started: Rc<Cell<bool>>,
}

struct Carrier {
    host: SimHost,
    /// Not held: they hold what listens on them.
    links: Weak<Links<Mail>>,
    leaders: Rc<Leaders>,
    exchange: Rc<Exchange>,
    snapshots: Rc<SnapshotFiles<SimHost>>,
    /// What became of snapshots that were sent.
    receipts: RefCell<Vec<(MemberId, bool)>>,
    receipt_came: Notify,
    running: RefCell<BTreeSet<MemberId>>,
}

impl Transport<SimHost> for SimTransport {
    fn start(self, host: &SimHost, exchange: Rc<Exchange>, snapshots: Rc<SnapshotFiles<SimHost>>) {
        self.has_started.set(true);
        let carrier = Rc::new(Carrier {
            host: host.clone(),
            links: Rc::downgrade(&self.links),
            leaders: self.leaders.clone(),
            exchange,
            snapshots,
            receipts: RefCell::default(),
            receipt_came: Notify::new(),
            running: RefCell::default(),
        });
        self.leaders.begins(carrier.exchange.member_id(), self.place);
        let receiver = carrier.clone();
        let address = carrier.exchange.member_id().0;
        self.links
            .listen(host, address, move |mail| receiver.clone().receive(mail));
        host.spawn(async move {
            loop {
                for peer in carrier.exchange.peers() {
                    if carrier.running.borrow_mut().insert(peer.id) {
                        carrier.host.spawn(carrier.clone().carry(peer.id));
                    }
                }
                carrier.exchange.peers_changed().await;
            }
        });
    }
}

impl Carrier {
    async fn carry(self: Rc<Self>, to: MemberId) {
        while let Some(letter) = self.exchange.next_letter(to).await {
            match letter {
                Letter::Message(message) => {
                    self.leaders.hear(&message);
                    let digest = message.index ^ message.term << 32 ^ (message.msg_type as u64) << 48;
                    self.send(to, Mail::Message(message), digest);
                }
                Letter::Question(number, question) => {
                    let mail = Mail::Question(self.exchange.member_id(), number, question);
                    self.send(to, mail, number);
                }
                Letter::Snapshot(parcel) => self.host.spawn(self.clone().carry_snapshot(to, parcel)),
            }
        }
        self.running.borrow_mut().remove(&to);
    }

    fn send(self: &Rc<Self>, to: MemberId, mail: Mail, digest: u64) {
        let this = self.clone();
        let on_obstacle = move || this.exchange.lost(to);
        if let Some(links) = self.links.upgrade() {
            links.send(&self.host, to.0, mail, digest, on_obstacle);
        }
    }

    async fn carry_snapshot(self: Rc<Self>, to: MemberId, parcel: Parcel) {
        let is_received = match collect(parcel.database).await {
            None => false,
            Some(database) => {
                self.leaders.hear(&parcel.message);
                self.receipts.borrow_mut().retain(|(member, _)| *member != to);
                let digest = database.len() as u64;
                self.send(to, Mail::Snapshot(parcel.message, database), digest);
                within(&self.host, SNAPSHOT_LIMIT, self.receipt(to)).await == Some(true)
            }
        };
        self.exchange.snapshot_ended(to, is_received);
    }

    async fn receipt(&self, from: MemberId) -> bool {
        loop {
            if let Some(is_received) = self.take_receipt(from) {
                return is_received;
            }
            self.receipt_came.notified().await;
        }
    }

    fn take_receipt(&self, from: MemberId) -> Option<bool> {
        let mut receipts = self.receipts.borrow_mut();
        let place = receipts.iter().position(|(member, _)| *member == from)?;
        Some(receipts.remove(place).1)
    }

    fn receive(self: Rc<Self>, mail: Mail) {
        match mail {
            Mail::Message(message) => {
                // Where there is no room it is lost, as anywhere on the way.
                let _is_taken = self.exchange.deliver(message);
            }
            Mail::Snapshot(message, database) => {
                let host = self.host.clone();
                host.spawn(self.receive_snapshot(message, database));
            }
            Mail::Question(from, number, question) => {
                let host = self.host.clone();
                host.spawn(async move {
                    let answer = self.exchange.answer(question).await;
                    self.send(from, Mail::Answer(number, answer), number);
                });
            }
            Mail::Answer(number, answer) => self.exchange.answered(number, answer),
            Mail::Received(from, is_received) => {
                self.receipts.borrow_mut().push((from, is_received));
                self.receipt_came.notify();
            }
        }
    }

    async fn receive_snapshot(self: Rc<Self>, message: Message, database: Vec<u8>) {
        let from = MemberId(message.from);
        let is_kept = self.keep(&message, &database).await.is_ok();
        let is_received = is_kept && self.exchange.deliver_snapshot(message).await;
        let receipt = Mail::Received(self.exchange.member_id(), is_received);
        self.send(from, receipt, u64::from(is_received));
    }

    async fn keep(&self, message: &Message, database: &[u8]) -> std::io::Result<()> {
        let index = ringd::base::LogIndex(message.get_snapshot().get_metadata().index);
        let mut reception = self.snapshots.receive_database(index).await?;
        for piece in database.chunks(PIECE_BYTES) {
            reception.write(piece).await?;
        }
        reception.finish().await
    }
}

/// The database of a snapshot, if it could be read.
async fn collect(mut parts: Receiver<SnapshotPart>) -> Option<Vec<u8>> {
    let mut database = Vec::new();
    loop {
        match parts.receive().await? {
            SnapshotPart::Begin(_) => {}
            SnapshotPart::Data(bytes) => database.extend_from_slice(&bytes),
            SnapshotPart::End(_) => return Some(database),
            SnapshotPart::Failed(_) => return None,
        }
    }
}
