//! Questions about leases that this member passes on to the leader, and those that others pass on to it. A question that
//! has no answer in a while, or whose leader leads no more, is asked again: to renew a lease twice does no harm.

use std::{collections::BTreeMap, time::Duration};

use slab::Slab;

use crate::{
    base::{MemberId, Monotonic, Reject},
    peer::{Answer, Asker, Question},
    propose::{Call, Method, Read, Reply, Request, Ticket},
    wire::{
        proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseTimeToLiveRequest},
        status::Code,
    },
};

/// Time after which a question that got no answer is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Time after which a question is asked again that the leader could not answer (etcd: 50 ms).
const RETRY_REFUSED_AFTER: Duration = Duration::from_millis(50);
/// The connection of tickets that stand for other members' questions.
const PEERS: u32 = u32::MAX;

/// Questions on their way.
pub struct Relay {
    /// Questions of either kind that may wait.
    pending_max: usize,
    /// Of clients of this member's, by number.
    passed_on: BTreeMap<u64, PassedOn>,
    next_number: u64,
    /// Of other members, by the stream of their tickets.
    taken_in: Slab<Asker>,
}

/// How many questions are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Of clients of this member's.
    pub passed_on: usize,
    /// Of other members.
    pub taken_in: usize,
}

struct PassedOn {
    call: Call,
    deadline: Monotonic,
    asked: Option<MemberId>,
    /// When to ask again.
    next: Monotonic,
}

impl Relay {
    /// Nothing waits. `pending_max` bounds the questions of either kind.
    pub fn new(pending_max: usize) -> Relay {
        Relay {
            pending_max,
            passed_on: BTreeMap::new(),
            next_number: 0,
            taken_in: Slab::new(),
        }
    }

    /// Whether there is room for a call more.
    pub fn has_room(&self) -> bool {
        self.passed_on.len() < self.pending_max
    }

    /// A call for the leader; only if there is room.
    pub fn pass_on(&mut self, call: Call, now: Monotonic, timeout: Duration) {
        assert!(self.has_room());
        self.next_number += 1;
        let waiting = PassedOn {
            call,
            deadline: now + timeout,
            asked: None,
            next: now,
        };
        self.passed_on.insert(self.next_number, waiting);
    }

    /// How much waits.
    pub fn waiting(&self) -> Waiting {
        Waiting {
            passed_on: self.passed_on.len(),
            taken_in: self.taken_in.len(),
        }
    }

    /// Whether no client waits.
    pub fn is_empty(&self) -> bool {
        self.passed_on.is_empty()
    }

    /// What is to be asked of the leader now.
    pub fn due(&mut self, leader: MemberId, now: Monotonic) -> Vec<(u64, Question)> {
        let mut due = Vec::new();
        for (number, waiting) in &mut self.passed_on {
            if waiting.asked.is_some_and(|asked| asked != leader) || waiting.next <= now {
                waiting.asked = Some(leader);
                waiting.next = now + RETRY_AFTER;
                due.push((*number, question(&waiting.call.request)));
            }
        }
        due
    }

    /// An answer has come: the call that it is for, and the answer's bytes. `None` if nobody waits any more, or the
    /// question is to be asked again.
    pub fn answered(&mut self, number: u64, answer: Option<Answer>, now: Monotonic) -> Option<(Call, Answer)> {
        let waiting = self.passed_on.get_mut(&number)?;
        match answer {
            Some(answer) if is_final(&answer) => {
                let waiting = self.passed_on.remove(&number).expect("just seen");
                Some((waiting.call, answer))
            }
            _ => {
                waiting.next = now + RETRY_REFUSED_AFTER;
                None
            }
        }
    }

    /// Calls that this member, which leads now, answers itself.
    pub fn take_back(&mut self) -> Vec<Call> {
        let waiting = std::mem::take(&mut self.passed_on).into_values();
        waiting.map(|waiting| waiting.call).collect()
    }

    /// Calls whose time is over.
    pub fn expire(&mut self, now: Monotonic) -> Vec<Call> {
        let expired = self.passed_on.extract_if(.., |_, waiting| waiting.deadline <= now);
        expired.map(|(_, waiting)| waiting.call).collect()
    }

    /// Gives all up: the answers that say so, and to other members that there will be none.
    pub fn stop(&mut self) -> Vec<(Ticket, Reply)> {
        self.taken_in.clear();
        let waiting = std::mem::take(&mut self.passed_on).into_values();
        waiting
            .map(|waiting| {
                (
                    waiting.call.ticket,
                    Reply::refusal(waiting.call.ticket, Reject::Stopped),
                )
            })
            .collect()
    }

    /// Another member asks: the call that finds the answer. `None` if there are too many.
    pub fn take_in(&mut self, question: Question, asker: Asker) -> Option<Call> {
        if self.taken_in.len() >= self.pending_max {
            return None;
        }
        let stream = u32::try_from(self.taken_in.insert(asker)).expect("bounded");
        let (method, read) = match question {
            Question::KeepAlive { lease_id } => {
                let request = LeaseKeepAliveRequest { id: lease_id };
                (Method::LeaseKeepAlive, Read::LeaseKeepAlive(request))
            }
            Question::TimeToLive { lease_id, keys } => {
                let request = LeaseTimeToLiveRequest { id: lease_id, keys };
                (Method::LeaseTimeToLive, Read::LeaseTimeToLive(request))
            }
        };
        let ticket = Ticket {
            connection: PEERS,
            incarnation: 0,
            stream,
            method,
        };
        Some(Call {
            ticket,
            request: Request::Read(read),
        })
    }

    /// An answer was found: it comes back if it is for a client of this member's.
    #[inline]
    pub fn answer(&mut self, ticket: Ticket, reply: Reply) -> Option<(Ticket, Reply)> {
        if ticket.connection != PEERS {
            return Some((ticket, reply));
        }
        if let Some(asker) = self.taken_in.try_remove(ticket.stream as usize) {
            asker.answer(reply.outcome);
        }
        None
    }
}

/// Whether this member took the call in for another one: it is not passed on again.
pub fn is_of_peer(call: &Call) -> bool {
    call.ticket.connection == PEERS
}

fn question(request: &Request) -> Question {
    match request {
        Request::Read(Read::LeaseKeepAlive(request)) => Question::KeepAlive { lease_id: request.id },
        Request::Read(Read::LeaseTimeToLive(request)) => Question::TimeToLive {
            lease_id: request.id,
            keys: request.keys,
        },
        _ => unreachable!("only what is asked about leases is passed on"),
    }
}

/// Whether the leader has said what there is to say: it would not say otherwise the next time.
fn is_final(answer: &Answer) -> bool {
    match answer {
        Ok(_) => true,
        Err(status) => status.code == Code::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(7);

    fn keep_alive(stream: u32) -> Call {
        Call {
            ticket: Ticket {
                connection: 1,
                incarnation: 1,
                stream,
                method: Method::LeaseKeepAlive,
            },
            request: Request::Read(Read::LeaseKeepAlive(LeaseKeepAliveRequest { id: 5 })),
        }
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * 1_000_000)
    }

    #[test]
    fn a_question_is_asked_again_of_a_new_leader_and_where_there_was_no_answer() {
        let mut relay = Relay::new(10);
        relay.pass_on(keep_alive(3), at(0), TIMEOUT);
        let question = Question::KeepAlive { lease_id: 5 };
        assert_eq!(relay.due(MemberId(1), at(0)), [(1, question.clone())]);
        assert_eq!(relay.due(MemberId(1), at(499)), []);
        assert_eq!(relay.due(MemberId(2), at(499)), [(1, question.clone())]);
        assert!(relay.answered(1, None, at(500)).is_none());
        assert_eq!(relay.due(MemberId(2), at(549)), []);
        assert_eq!(relay.due(MemberId(2), at(550)), [(1, question)]);
        let (call, answer) = relay.answered(1, Some(Ok(Bytes::from_static(b"x"))), at(551)).unwrap();
        assert_eq!((call.ticket.stream, answer.unwrap()), (3, Bytes::from_static(b"x")));
        assert!(relay.is_empty() && relay.answered(1, None, at(552)).is_none());
    }

    #[test]
    fn who_waits_too_long_is_told() {
        let mut relay = Relay::new(10);
        relay.pass_on(keep_alive(1), at(0), TIMEOUT);
        relay.pass_on(keep_alive(2), at(10), TIMEOUT);
        let expired = relay.expire(at(7_005));
        assert_eq!(expired.iter().map(|call| call.ticket.stream).collect::<Vec<_>>(), [1]);
        assert_eq!(relay.stop().len(), 1);
    }

    #[test]
    fn another_members_question_finds_its_way_back() {
        let mut relay = Relay::new(10);
        let call = relay
            .take_in(Question::KeepAlive { lease_id: 5 }, Asker::default())
            .unwrap();
        assert!(is_of_peer(&call) && !is_of_peer(&keep_alive(1)));
        assert!(
            relay
                .answer(call.ticket, Reply::refusal(call.ticket, Reject::NoLeader))
                .is_none()
        );
        let own = keep_alive(1).ticket;
        assert!(relay.answer(own, Reply::refusal(own, Reject::NoLeader)).is_some());
    }
}
