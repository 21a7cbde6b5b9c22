//! Answers find their connections, and what waits for those is bounded.

use super::*;
use crate::{
    propose::{Read, Request},
    wire::{proto::etcdserverpb::RangeRequest, status::Status},
};

fn reply() -> Reply {
    Reply {
        stream: 1,
        method: Method::Status,
        outcome: Ok("answer".into()),
        part: Part::Whole,
    }
}

#[test]
fn an_answer_for_an_earlier_connection_in_the_same_place_is_dropped() {
    let desk = Desk::new();
    let first = desk.open();
    let ticket = first.ticket(1, Method::Status);
    desk.close(&first);
    let second = desk.open();
    assert_eq!(second.ticket(1, Method::Status).connection, ticket.connection);
    desk.reply(ticket, reply());
    let mut replies = Vec::new();
    second.take_replies(&mut replies);
    assert!(replies.is_empty());
    desk.reply(second.ticket(1, Method::Status), reply());
    second.take_replies(&mut replies);
    assert_eq!(replies.len(), 1);
}

#[test]
fn calls_keep_their_order() {
    let desk = Desk::new();
    let outbox = desk.open();
    for stream in [1, 3, 5] {
        desk.submit(outbox.call(stream, Method::Status, Request::Read(Read::Status)));
    }
    let mut calls = Vec::new();
    desk.take_calls(&mut calls);
    assert_eq!(
        calls.iter().map(|call| call.ticket.stream).collect::<Vec<_>>(),
        [1, 3, 5]
    );
    assert!(!desk.has_calls());
}

const FEW: Limits = Limits {
    connection_unsent_bytes_max: 100,
    connection_answers_bytes_max: 200,
    all_unsent_bytes_max: 300,
    unsent_bytes_free: 10,
    ..Limits::DEFAULT
};

fn ask(outbox: &Outbox) -> Call {
    outbox.call(1, Method::Range, Request::Read(Read::Status))
}

fn goes_on(desk: &Desk, outbox: &Outbox, under_way_bytes: usize) -> bool {
    matches!(desk.admit(ask(outbox), under_way_bytes), Admission::Now(_))
}

fn answer(desk: &Desk, outbox: &Outbox, bytes: usize) {
    let outcome = Ok(vec![0; bytes].into());
    desk.reply(ask(outbox).ticket, Reply { outcome, ..reply() });
}

#[test]
fn unsent_answers_choke_a_connection() {
    let desk = Desk::with_limits(FEW);
    let outbox = desk.open();
    assert!(goes_on(&desk, &outbox, 100));
    // Answers on their way count, too: those that are made, and what is being gathered.
    desk.expect(ask(&outbox).ticket, 6);
    assert!(!goes_on(&desk, &outbox, 95));
    answer(&desk, &outbox, 101);
    let refusal = Reply {
        outcome: Err(Status::OK),
        ..reply()
    };
    desk.reply(ask(&outbox).ticket, refusal);
    assert!(!goes_on(&desk, &outbox, 0));
    desk.report(&outbox, None, 51);
    assert!(!desk.has_calls(), "half of it has to be gone");
    desk.report(&outbox, None, 50);
    let mut calls = Vec::new();
    desk.take_calls(&mut calls);
    assert_eq!(calls.len(), 2);
    assert!(goes_on(&desk, &outbox, 0));
}

#[test]
fn what_waits_behind_unsent_answers_is_bounded() {
    let desk = Desk::with_limits(FEW);
    let outbox = desk.open();
    answer(&desk, &outbox, 101);
    let range = RangeRequest {
        key: vec![b'k'; 40].into(),
        ..RangeRequest::default()
    };
    let admit = || {
        desk.admit(
            outbox.call(1, Method::Range, Request::Read(Read::Range(range.clone()))),
            0,
        )
    };
    assert!(matches!(admit(), Admission::Held));
    assert!(matches!(admit(), Admission::Held));
    assert!(matches!(admit(), Admission::Refused(_)));
    // So are answers to what was under way before.
    answer(&desk, &outbox, 100);
    answer(&desk, &outbox, 11);
    answer(&desk, &outbox, 10);
    let mut replies = Vec::new();
    outbox.take_replies(&mut replies);
    let dropped = replies.iter().map(|reply| reply.outcome.is_err());
    assert_eq!(dropped.collect::<Vec<_>>(), [false, false, true, false]);
}

#[test]
fn too_many_unsent_answers_choke_all_and_end_those_who_take_nothing() {
    let desk = Desk::with_limits(FEW);
    let (stuck, slow, honest) = (desk.open(), desk.open(), desk.open());
    answer(&desk, &stuck, 150);
    answer(&desk, &slow, 150);
    answer(&desk, &honest, 11);
    assert!(desk.is_full());
    assert!(!goes_on(&desk, &honest, 0));
    let second = |second: u64| Monotonic(second * 1_000_000_000);
    desk.wake_due(second(1));
    desk.report(&slow, None, 149);
    desk.report(&honest, None, 5);
    assert!(desk.has_calls() && goes_on(&desk, &honest, 0));
    desk.wake_due(second(2));
    answer(&desk, &honest, 5);
    desk.wake_due(second(10));
    assert!(!stuck.is_given_up());
    desk.wake_due(second(11));
    assert!(stuck.is_given_up() && !slow.is_given_up() && !honest.is_given_up());
    desk.close(&stuck);
    assert!(!desk.is_full());
    desk.report(&stuck, None, 500);
    assert!(!desk.is_full(), "what is gone has nothing");
    answer(&desk, &slow, 500);
    let much = Request::Read(Read::LeaseLeases);
    let held = desk.admit(desk.open().call(1, Method::LeaseLeases, much), 0);
    assert!(
        matches!(held, Admission::Held) && goes_on(&desk, &desk.open(), 0),
        "one key goes on"
    );
    desk.report(&slow, None, 100);
    desk.wake_due(second(100));
    assert!(desk.has_calls(), "there is room again");
    assert!(!slow.is_given_up(), "nobody needs the room");
    assert!(goes_on(&desk, &honest, 80));
}
