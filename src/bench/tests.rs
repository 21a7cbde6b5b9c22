//! A session and a server's end of the wire, without a server: what is told apart in an answer.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;

use super::{
    crew::{Crew, Phase},
    plan,
    session::Session,
    tally::Operation,
};
use crate::{
    base::Monotonic,
    wire::{
        server::{ServerConnection, ServerEvent, ServerOptions, StreamId},
        status::{Code, Status},
    },
};

struct Pair {
    crew: Rc<RefCell<Crew>>,
    session: Session,
    server: ServerConnection,
    now: Monotonic,
}

impl Pair {
    fn new(flags: &str) -> Pair {
        let words = format!("bench put {flags}");
        let matches = super::program().try_get_matches_from(words.split_whitespace());
        let plan = Arc::new(plan(&matches.expect("flags of ours")).expect("a plan"));
        let clients = plan.clients;
        let crew = Crew::new(plan, 0, clients);
        let now = Monotonic(1_000_000_000);
        crew.borrow_mut().run_from(now);
        assert_eq!(crew.borrow().phase, Phase::Run);
        let mut pair = Pair {
            session: Session::new(crew.clone(), 0, 0..clients, "x:1", now),
            server: ServerConnection::new(ServerOptions::default(), now),
            crew,
            now,
        };
        pair.session.turn(now);
        pair
    }

    /// The calls that have come whole.
    fn calls(&mut self) -> Vec<StreamId> {
        let mut bytes = self.session.output().split();
        self.server.receive(&mut bytes, self.now);
        let mut calls = Vec::new();
        while let Some(event) = self.server.next_event() {
            if let ServerEvent::HalfClosed { stream } = event {
                calls.push(stream);
            }
        }
        calls
    }

    fn deliver(&mut self, after: Duration) {
        self.now = self.now + after;
        let mut bytes: BytesMut = self.server.output().split();
        self.session.receive(&mut bytes, self.now);
    }

    fn failure(&self) -> Option<String> {
        self.crew.borrow().failure.clone()
    }
}

fn too_many() -> Status {
    Status::new(Code::ResourceExhausted, "etcdserver: too many requests")
}

#[test]
fn a_refusal_fails_the_run_unless_it_may_be_sent_again() {
    let mut pair = Pair::new("--total 1");
    let calls = pair.calls();
    assert_eq!(calls.len(), 1);
    pair.server.finish(calls[0], &too_many());
    pair.deliver(Duration::from_millis(1));
    let failure = pair.failure().expect("a refusal is a failure");
    assert_eq!(failure, "put failed: ResourceExhausted: etcdserver: too many requests");
}

#[test]
fn what_is_sent_again_counts_from_its_first_start() {
    let mut pair = Pair::new("--total 1 --retry-too-many-requests");
    let calls = pair.calls();
    pair.server.finish(calls[0], &too_many());
    pair.deliver(Duration::from_millis(1));
    assert!(pair.calls().is_empty(), "not at once");
    let due = pair.session.next_deadline().expect("a time to send it again");
    assert_eq!(due.since(pair.now), Duration::from_millis(10));
    pair.now = due;
    pair.session.turn(due);
    let calls = pair.calls();
    assert_eq!(calls.len(), 1);
    pair.server.send_unary(calls[0], &b""[..]);
    pair.deliver(Duration::from_millis(4));
    assert_eq!(pair.failure(), None);
    let crew = pair.crew.borrow();
    assert_eq!((crew.in_flight, crew.tally.refusals), (0, 1));
    assert_eq!(crew.remaining, Some(0), "it is one request, however often it is sent");
    let puts = &crew.tally.of(Operation::Put).unwrap().latencies;
    assert_eq!(puts.len(), 1);
    assert!((14_990_000..15_020_000).contains(&puts.max()), "{}", puts.max());
}

#[test]
fn an_answer_without_a_message_fails_the_run() {
    let mut pair = Pair::new("--total 1");
    let calls = pair.calls();
    pair.server.finish(calls[0], &Status::OK);
    pair.deliver(Duration::from_millis(1));
    assert_eq!(pair.failure().as_deref(), Some("put: the server sent no message"));
}

#[test]
fn each_client_has_one_request_on_its_way_and_a_lost_connection_is_told() {
    let mut pair = Pair::new("--total 5 --clients 2");
    assert_eq!(pair.calls().len(), 2, "each client has one request on its way");
    pair.session.lost("it sent its last byte");
    let failure = pair.failure().expect("it is lost");
    assert_eq!(failure, "the server ended a connection: it sent its last byte");
}
