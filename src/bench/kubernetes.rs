//! The load of a cluster's control plane: objects that their owners renew with a compare-and-swap on the revision they
//! last saw, single reads, lists in pages at one revision.

use bytes::{Bytes, BytesMut};

use super::{
    crew::{Flight, Follow, Method, decoded, operation, put, stamped, write},
    plan::{Kubernetes, Plan, Workload},
    random::Random,
    tally::Operation,
};
use crate::{
    base::Monotonic,
    wire::proto::etcdserverpb::{
        Compare, RangeRequest, RangeResponse, TxnRequest, TxnResponse, compare, request_op, response_op,
    },
};

const PREFIX: &str = "/registry/leases/kube-node-lease/";
/// The end of the range of all objects: the prefix with its last byte one higher.
const PREFIX_END: &str = "/registry/leases/kube-node-lease0";

/// A thread's objects: number `n` is object `n * threads + thread`; it belongs to client `n % clients`.
pub(super) struct Objects {
    work: Option<Kubernetes>,
    thread: u64,
    threads: u64,
    clients: u64,
    /// The revision that each was last seen to be changed at.
    revisions: Vec<i64>,
    /// Lists that clients are in the midst of.
    lists: Vec<Option<List>>,
}

#[derive(Clone, Debug)]
struct List {
    started: Monotonic,
    next: Bytes,
    revision: i64,
}

/// What an answer meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub is_written: bool,
    pub is_conflict: bool,
    /// When the list that this page ended was begun.
    pub list_started: Option<Monotonic>,
    pub follow: Follow,
}

impl Objects {
    pub fn new(plan: &Plan, thread: u32, clients: u32) -> Objects {
        let work = match &plan.workload {
            Workload::Kubernetes(work) => Some(*work),
            _ => None,
        };
        let (thread, threads) = (u64::from(thread), u64::from(plan.threads));
        let count = work.map_or(0, |work| (work.objects + threads - 1 - thread) / threads);
        Objects {
            work,
            thread,
            threads,
            clients: u64::from(clients),
            revisions: vec![0; count as usize],
            lists: vec![None; if work.is_some() { clients as usize } else { 0 }],
        }
    }

    /// The range of all objects.
    pub fn span() -> (Bytes, Bytes) {
        (
            Bytes::from_static(PREFIX.as_bytes()),
            Bytes::from_static(PREFIX_END.as_bytes()),
        )
    }

    /// The key of this thread's object `number`.
    pub fn key_of(&self, number: u64) -> Bytes {
        format!("{PREFIX}node-{:06}", number * self.threads + self.thread).into()
    }

    /// An object was put at `revision`.
    pub fn loaded(&mut self, number: u64, revision: i64) {
        if let Some(known) = self.revisions.get_mut(number as usize) {
            *known = revision;
        }
    }

    /// What a client asks next: the next page of its list, or one of the three by their weights.
    pub fn next_request(
        &mut self,
        client: u32,
        intended: Monotonic,
        random: &mut Random,
        value: Bytes,
        output: &mut BytesMut,
    ) -> (Operation, Method, u64) {
        let work = self.work.expect("only its own workload asks");
        if let Some(list) = &self.lists[client as usize] {
            write(&page(list.next.clone(), work.page, list.revision), output);
            return (Operation::Page, Method::Range, 0);
        }
        let [update, get, list] = work.weights.map(u64::from);
        let drawn = random.below(update + get + list);
        if drawn >= update + get {
            let (start, _) = Objects::span();
            self.lists[client as usize] = Some(List {
                started: intended,
                next: start.clone(),
                revision: 0,
            });
            write(&page(start, work.page, 0), output);
            return (Operation::Page, Method::Range, 0);
        }
        let number = self.own(client, random);
        let key = self.key_of(number);
        if drawn >= update {
            let request = RangeRequest {
                key,
                ..RangeRequest::default()
            };
            write(&request, output);
            return (Operation::Get, Method::Range, number);
        }
        let value = stamped(&value, intended);
        write(&compare_and_swap(key, self.revisions[number as usize], value), output);
        (Operation::Update, Method::Txn, number)
    }

    /// One of the client's objects.
    fn own(&self, client: u32, random: &mut Random) -> u64 {
        let count = self.revisions.len() as u64;
        let owned = (count + self.clients - 1 - u64::from(client)) / self.clients;
        random.below(owned) * self.clients + u64::from(client)
    }

    /// Looks at an answer.
    pub fn answered(&mut self, flight: &Flight, answer: Bytes) -> Result<Outcome, String> {
        let mut outcome = Outcome {
            is_written: false,
            is_conflict: false,
            list_started: None,
            follow: Follow::Free,
        };
        match flight.operation {
            Operation::Get => {
                let response: RangeResponse = decoded(answer)?;
                if response.kvs.len() != 1 {
                    return Err("an object is not found".to_owned());
                }
            }
            Operation::Update => self.updated(flight, decoded(answer)?, &mut outcome)?,
            _ => self.listed(flight, &decoded(answer)?, &mut outcome)?,
        }
        Ok(outcome)
    }

    fn updated(&mut self, flight: &Flight, response: TxnResponse, outcome: &mut Outcome) -> Result<(), String> {
        let known = &mut self.revisions[flight.subject as usize];
        outcome.is_written = response.succeeded;
        if response.succeeded {
            *known = response.header.map_or(0, |header| header.revision);
            return Ok(());
        }
        outcome.is_conflict = true;
        let read = response
            .responses
            .into_iter()
            .next()
            .and_then(|response| response.response);
        let Some(response_op::Response::ResponseRange(read)) = read else {
            return Err("a refused compare-and-swap has no read in its answer".to_owned());
        };
        *known = read.kvs.first().ok_or("an object is not found")?.mod_revision;
        Ok(())
    }

    fn listed(&mut self, flight: &Flight, response: &RangeResponse, outcome: &mut Outcome) -> Result<(), String> {
        let slot = &mut self.lists[flight.client as usize];
        let list = slot.as_mut().expect("a page belongs to a list");
        if list.revision == 0 {
            list.revision = response.header.as_ref().map_or(0, |header| header.revision);
        }
        match (response.more, response.kvs.last()) {
            (true, Some(last)) => {
                let mut next = last.key.to_vec();
                next.push(0);
                list.next = next.into();
                outcome.follow = Follow::Again;
            }
            (true, None) => return Err("an empty page says that more follow".to_owned()),
            (false, _) => outcome.list_started = slot.take().map(|list| list.started),
        }
        Ok(())
    }
}

fn page(start: Bytes, limit: i64, revision: i64) -> RangeRequest {
    RangeRequest {
        key: start,
        range_end: Objects::span().1,
        limit,
        revision,
        ..RangeRequest::default()
    }
}

fn compare_and_swap(key: Bytes, revision: i64, value: Bytes) -> TxnRequest {
    let read = RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    };
    TxnRequest {
        compare: vec![Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Mod as i32,
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(compare::TargetUnion::ModRevision(revision)),
        }],
        success: vec![operation(request_op::Request::RequestPut(put(key, value)))],
        failure: vec![operation(request_op::Request::RequestRange(read))],
    }
}
