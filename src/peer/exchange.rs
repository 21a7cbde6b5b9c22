//! The table that the replica and the transport share: an outbox for each member, one inbox, and what is to be told to
//! raft. It knows no socket; both sides are woken by it. One core's, as all of the home core's things.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use raft::eraftpb::Message;

use super::{
    Answer, Asker, Parcel, Question,
    outbox::{Letter, Outbox, weight},
};
use crate::{
    base::{ClusterId, MemberId},
    host::Notify,
    limits::Limits,
};

/// Another member, as a transport has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: MemberId,
    /// Where it is reached.
    pub urls: Vec<String>,
}

/// What comes from the transport.
#[derive(Debug)]
pub enum News {
    /// A message of another member's.
    Message(Message),
    /// A leader's snapshot, whose database is in place.
    Snapshot(Message, Receipt),
    /// Another member asks this one as the leader.
    Question(Question, Asker),
    /// What came back for the question of this number; `None` if nothing did.
    Answer(u64, Option<Answer>),
    /// Something that was sent to this member is lost.
    Unreachable(MemberId),
    /// A snapshot to this member has ended, and whether it was received.
    SnapshotSent(MemberId, bool),
}

/// What the sender of a snapshot waits for. Dropped, it says that the snapshot was not taken.
#[derive(Debug, Default)]
pub struct Receipt {
    state: Rc<ReceiptState>,
}

#[derive(Debug, Default)]
struct ReceiptState {
    /// Whether the snapshot was taken, when that is known.
    is_taken: Cell<Option<bool>>,
    told: Notify,
}

impl Receipt {
    /// Raft was given the snapshot.
    pub fn taken(self) {
        self.state.is_taken.set(Some(true));
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let is_taken = self.state.is_taken.get().unwrap_or(false);
        self.state.is_taken.set(Some(is_taken));
        self.state.told.notify();
    }
}

/// Who sends what to whom.
pub struct Exchange {
    limits: Limits,
    member_id: MemberId,
    cluster_id: ClusterId,
    links: RefCell<BTreeMap<MemberId, Rc<Link>>>,
    news: RefCell<VecDeque<News>>,
    news_bytes: Cell<usize>,
    snapshots_in_flight: Cell<usize>,
    /// Raised when there is news.
    replica: Rc<Notify>,
    /// Raised when the members have changed.
    members_changed: Notify,
}

struct Link {
    peer: Peer,
    outbox: RefCell<Outbox>,
    filled: Notify,
    /// The member is no longer one: who sends to it ends.
    is_removed: Cell<bool>,
    /// Among the news there is one of a loss.
    is_loss_told: Cell<bool>,
}

impl Exchange {
    /// An exchange without peers; `replica` is raised when there is news.
    pub fn new(member_id: MemberId, cluster_id: ClusterId, replica: Rc<Notify>, limits: Limits) -> Exchange {
        Exchange {
            limits,
            member_id,
            cluster_id,
            links: RefCell::default(),
            news: RefCell::default(),
            news_bytes: Cell::new(0),
            snapshots_in_flight: Cell::new(0),
            replica,
            members_changed: Notify::new(),
        }
    }

    /// This member.
    pub fn member_id(&self) -> MemberId {
        self.member_id
    }

    /// Its cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The members are these, this one aside. What waits for one that is not among them, or has moved, is dropped.
    pub fn set_peers(&self, peers: impl Iterator<Item = Peer>) {
        let mut links = self.links.borrow_mut();
        let mut before = std::mem::take(&mut *links);
        let mut is_changed = false;
        for peer in peers.filter(|peer| peer.id != self.member_id) {
            let link = match before.remove(&peer.id) {
                Some(link) if link.peer == peer => link,
                moved => {
                    moved.into_iter().for_each(|link| self.give_up(&link));
                    is_changed = true;
                    Rc::new(Link::new(peer, self.limits))
                }
            };
            links.insert(link.peer.id, link);
        }
        is_changed |= !before.is_empty();
        before.into_values().for_each(|link| self.give_up(&link));
        if is_changed {
            self.members_changed.notify();
        }
    }

    /// Sends messages off. Those that find no room are lost, and raft is told so.
    pub fn send(&self, messages: impl Iterator<Item = Message>) {
        let links = self.links.borrow();
        for message in messages {
            let to = MemberId(message.to);
            let Some(link) = links.get(&to) else {
                continue;
            };
            if link.outbox.borrow_mut().push(message) {
                link.filled.notify();
            } else {
                self.lost(to);
            }
        }
    }

    /// Sends a snapshot off. What becomes of it is told as news.
    pub fn send_snapshot(&self, parcel: Parcel) {
        let to = MemberId(parcel.message.to);
        let Some(link) = self.links.borrow().get(&to).cloned() else {
            return self.snapshot_refused(to);
        };
        if self.snapshots_in_flight.get() >= self.limits.peer_snapshots_max {
            return self.snapshot_refused(to);
        }
        self.snapshots_in_flight.set(self.snapshots_in_flight.get() + 1);
        let earlier = link.outbox.borrow_mut().push_snapshot(parcel);
        if earlier.is_some() {
            self.snapshot_ended(to, false);
        }
        link.filled.notify();
    }

    /// Asks a member. There may be no answer.
    pub fn ask(&self, to: MemberId, number: u64, question: Question) {
        if let Some(link) = self.links.borrow().get(&to)
            && link.outbox.borrow_mut().push_question(number, question)
        {
            link.filled.notify();
        }
    }

    /// A snapshot could not even be begun.
    pub fn snapshot_refused(&self, to: MemberId) {
        self.push_news(News::SnapshotSent(to, false));
    }

    /// Snapshots that are on their way. While there are any, the log keeps what their receivers will ask for next.
    pub fn snapshots_in_flight(&self) -> usize {
        self.snapshots_in_flight.get()
    }

    /// What came since this was asked last, oldest first.
    pub fn next_news(&self) -> Option<News> {
        let news = self.news.borrow_mut().pop_front()?;
        match &news {
            News::Message(message) => self.news_bytes.set(self.news_bytes.get() - weight(message)),
            News::Unreachable(member) => {
                if let Some(link) = self.links.borrow().get(member) {
                    link.is_loss_told.set(false);
                }
            }
            News::Snapshot(..) | News::SnapshotSent(..) | News::Question(..) | News::Answer(..) => {}
        }
        Some(news)
    }

    /// Whether there is news.
    pub fn has_news(&self) -> bool {
        !self.news.borrow().is_empty()
    }

    /// What waits for each member: messages, their bytes, and questions.
    pub fn for_each_outbox(&self, mut look: impl FnMut(usize, usize, usize)) {
        for link in self.links.borrow().values() {
            let (messages, bytes, questions) = link.outbox.borrow().waiting();
            look(messages, bytes, questions);
        }
    }

    /// The members, this one aside.
    pub fn peers(&self) -> Vec<Peer> {
        self.links.borrow().values().map(|link| link.peer.clone()).collect()
    }

    /// Waits until the members have changed. For one task.
    pub async fn peers_changed(&self) {
        self.members_changed.notified().await;
    }

    /// The next letter to a member; waits for one. `None` when it is no longer a member, or not at this address. For one
    /// task for each member.
    pub async fn next_letter(&self, to: MemberId) -> Option<Letter> {
        let link = self.links.borrow().get(&to).cloned()?;
        poll_fn(|context| link.poll_letter(context)).await
    }

    /// A message has come from another member. `false` if it is dropped: it is not for this member, or home is behind.
    pub fn deliver(&self, message: Message) -> bool {
        let weight = weight(&message);
        let has_room = {
            let news = self.news.borrow();
            news.len() < self.limits.peer_inbox_messages_max
                && (news.is_empty() || self.news_bytes.get() + weight <= self.limits.peer_inbox_bytes_max)
        };
        let is_known = self.links.borrow().contains_key(&MemberId(message.from));
        let is_taken = has_room && is_known && message.to == self.member_id.0;
        if is_taken {
            self.news_bytes.set(self.news_bytes.get() + weight);
            self.push_news(News::Message(message));
        }
        is_taken
    }

    /// A snapshot has come from another member, and its database is in place. Whether raft is given it, when that is
    /// decided; the sender is to be told so only then, since it goes on with what comes behind the snapshot.
    pub async fn deliver_snapshot(&self, message: Message) -> bool {
        let is_known = self.links.borrow().contains_key(&MemberId(message.from));
        let is_first = !self.news.borrow().iter().any(|news| matches!(news, News::Snapshot(..)));
        if !is_known || !is_first || message.to != self.member_id.0 {
            return false;
        }
        let receipt = Receipt::default();
        let state = receipt.state.clone();
        self.push_news(News::Snapshot(message, receipt));
        loop {
            if let Some(is_taken) = state.is_taken.get() {
                return is_taken;
            }
            state.told.notified().await;
        }
    }

    /// Another member asks. What this one has to say; `None` if nothing.
    pub async fn answer(&self, question: Question) -> Option<Answer> {
        if self.news.borrow().len() >= self.limits.peer_inbox_messages_max {
            return None;
        }
        let asker = Asker::default();
        let answered = asker.answered();
        self.push_news(News::Question(question, asker));
        answered.await
    }

    /// What came back for a question; `None` if nothing did.
    pub fn answered(&self, number: u64, answer: Option<Answer>) {
        self.push_news(News::Answer(number, answer));
    }

    /// Something that was sent to this member is lost.
    pub fn lost(&self, to: MemberId) {
        // Once is enough for raft, which then sends one message at a time until it hears of the member.
        let link = self.links.borrow().get(&to).cloned();
        if link.is_some_and(|link| !link.is_loss_told.replace(true)) {
            self.push_news(News::Unreachable(to));
        }
    }

    /// A snapshot that was taken from the outbox has ended, and whether it was received.
    pub fn snapshot_ended(&self, to: MemberId, is_received: bool) {
        let in_flight = self.snapshots_in_flight.get();
        assert!(in_flight > 0, "a snapshot ends that was never sent");
        self.snapshots_in_flight.set(in_flight - 1);
        self.push_news(News::SnapshotSent(to, is_received));
    }

    fn give_up(&self, link: &Link) {
        link.is_removed.set(true);
        link.filled.notify();
        let waiting = link.outbox.replace(Outbox::new(self.limits));
        if waiting.has_snapshot() {
            self.snapshot_ended(link.peer.id, false);
        }
    }

    fn push_news(&self, news: News) {
        self.news.borrow_mut().push_back(news);
        self.replica.notify();
    }
}

impl Link {
    fn new(peer: Peer, limits: Limits) -> Link {
        Link {
            peer,
            outbox: RefCell::new(Outbox::new(limits)),
            filled: Notify::new(),
            is_removed: Cell::new(false),
            is_loss_told: Cell::new(false),
        }
    }

    fn poll_letter(&self, context: &mut Context<'_>) -> Poll<Option<Letter>> {
        loop {
            if self.is_removed.get() {
                return Poll::Ready(None);
            }
            if let Some(letter) = self.outbox.borrow_mut().pop() {
                return Poll::Ready(Some(letter));
            }
            if self.filled.poll_notified(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Waker};

    use raft::eraftpb::{Entry, MessageType};

    use super::*;
    use crate::host::mailbox;

    fn exchange(peers: &[u64]) -> Exchange {
        let exchange = Exchange::new(MemberId(1), ClusterId(9), Rc::default(), Limits::DEFAULT);
        set_peers(&exchange, peers);
        exchange
    }

    fn set_peers(exchange: &Exchange, peers: &[u64]) {
        exchange.set_peers(peers.iter().map(|id| Peer {
            id: MemberId(*id),
            urls: vec![format!("http://10.0.0.{id}:2380")],
        }));
    }

    fn message(from: u64, to: u64, data_bytes: usize) -> Message {
        let entry = Entry {
            data: vec![0; data_bytes].into(),
            ..Entry::default()
        };
        Message {
            msg_type: MessageType::MsgAppend,
            from,
            to,
            entries: vec![entry].into(),
            ..Message::default()
        }
    }

    fn poll<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn drain(exchange: &Exchange) -> Vec<String> {
        std::iter::from_fn(|| exchange.next_news())
            .map(|news| match news {
                News::Message(message) => format!("message from {}", message.from),
                news => format!("{news:?}"),
            })
            .collect()
    }

    #[test]
    fn messages_are_taken_from_known_members_within_bounds() {
        let exchange = exchange(&[1, 2, 3]);
        assert!(exchange.deliver(message(2, 1, 10)));
        assert!(!exchange.deliver(message(4, 1, 10)), "nobody knows 4");
        assert!(!exchange.deliver(message(2, 3, 10)), "it is for another");
        assert!(exchange.deliver(message(3, 1, Limits::DEFAULT.peer_inbox_bytes_max - 1_000)));
        assert!(!exchange.deliver(message(3, 1, 1_000)), "there is no room");
        assert_eq!(drain(&exchange), ["message from 2", "message from 3"]);
        assert!(exchange.deliver(message(3, 1, 1_000)));
        assert_eq!(exchange.news_bytes.get(), weight(&message(3, 1, 1_000)));
    }

    #[test]
    fn a_loss_is_told_once_until_raft_has_heard() {
        let exchange = exchange(&[2, 3]);
        let too_many = (0..Limits::DEFAULT.peer_queue_messages_max + 5).map(|_| message(1, 2, 1));
        exchange.send(too_many);
        exchange.lost(MemberId(3));
        exchange.lost(MemberId(7));
        assert_eq!(drain(&exchange), ["Unreachable(2)", "Unreachable(3)"].map(debug_of));
        exchange.lost(MemberId(2));
        assert_eq!(drain(&exchange), [debug_of("Unreachable(2)")]);
    }

    /// `Unreachable(2)` as its debug form is.
    fn debug_of(text: &str) -> String {
        let id = text["Unreachable(".len()..text.len() - 1].parse().unwrap();
        format!("{:?}", News::Unreachable(MemberId(id)))
    }

    #[test]
    fn a_member_that_goes_takes_what_waits_for_it_along() {
        let exchange = exchange(&[2, 3]);
        let parcel = |to| Parcel {
            message: message(1, to, 0),
            database: mailbox(1).1,
        };
        exchange.send_snapshot(parcel(2));
        exchange.send_snapshot(parcel(3));
        assert_eq!(exchange.snapshots_in_flight(), 2);
        assert!(poll(exchange.next_letter(MemberId(3))).is_ready());
        let mut waiting = pin!(exchange.next_letter(MemberId(3)));
        assert!(
            waiting
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        set_peers(&exchange, &[]);
        assert!(matches!(
            waiting.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(None)
        ));
        assert_eq!(exchange.snapshots_in_flight(), 1, "that to 3 is its transport's to end");
        exchange.snapshot_ended(MemberId(3), true);
        let told: Vec<_> = std::iter::from_fn(|| exchange.next_news())
            .map(|news| match news {
                News::SnapshotSent(member, is_received) => (member.0, is_received),
                news => panic!("{news:?}"),
            })
            .collect();
        assert_eq!(told, [(2, false), (3, true)]);
    }

    #[test]
    fn who_sent_a_snapshot_hears_what_became_of_it() {
        for is_taken in [true, false] {
            let exchange = exchange(&[2]);
            let mut delivery = pin!(exchange.deliver_snapshot(message(2, 1, 0)));
            let mut context = Context::from_waker(Waker::noop());
            assert!(delivery.as_mut().poll(&mut context).is_pending());
            assert!(matches!(
                poll(exchange.deliver_snapshot(message(2, 1, 0))),
                Poll::Ready(false)
            ));
            let Some(News::Snapshot(_, receipt)) = exchange.next_news() else {
                panic!("a snapshot was delivered");
            };
            assert!(delivery.as_mut().poll(&mut context).is_pending());
            if is_taken {
                receipt.taken();
            } else {
                drop(receipt);
            }
            assert_eq!(delivery.poll(&mut context), Poll::Ready(is_taken));
        }
    }
}
