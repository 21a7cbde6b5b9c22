//! The store as a list of versions: what each request does to one and answers from it. Written from etcd's documented
//! behaviour, without the server's own code.

use std::{cmp::Ordering, collections::BTreeMap};

use bytes::Bytes;
use prost::Message;
use ringd::{
    base::Revision,
    wire::proto::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
            RequestOp, ResponseOp, TxnRequest, TxnResponse,
            compare::{CompareResult, TargetUnion},
            range_request::{SortOrder, SortTarget},
            request_op::Request,
            response_op::Response,
        },
        mvccpb::{Event, KeyValue, event::EventType},
    },
};

/// All keys as of one revision.
pub type View = BTreeMap<Bytes, KeyValue>;

/// Whether a key lies in a span as requests give it.
pub fn is_in(key: &[u8], first: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == first,
        [0] => key >= first,
        end => key >= first && key < end,
    }
}

/// A range of a view, without the header.
pub fn range(view: &View, request: &RangeRequest) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = view
        .values()
        .filter(|kv| is_in(&kv.key, &request.key, &request.range_end))
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse {
            count,
            ..RangeResponse::default()
        };
    }
    let target = SortTarget::try_from(request.sort_target).expect("a known target");
    let by = |left: &KeyValue, right: &KeyValue| match target {
        SortTarget::Key => left.key.cmp(&right.key),
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.create_revision.cmp(&right.create_revision),
        SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
        SortTarget::Value => left.value.cmp(&right.value),
    };
    match SortOrder::try_from(request.sort_order).expect("a known order") {
        SortOrder::None => {
            // etcd fetches one more than the limit by key, and sorts only these.
            if request.limit > 0 {
                kvs.truncate(request.limit as usize + 1);
            }
            kvs.sort_by(by);
        }
        SortOrder::Ascend => kvs.sort_by(by),
        SortOrder::Descend => kvs.sort_by(|left, right| by(right, left)),
    }
    let is_limited = request.limit > 0 && count > request.limit;
    if is_limited {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse {
        header: None,
        kvs,
        more: is_limited,
        count,
    }
}

/// A put at a revision.
pub fn put(view: &mut View, request: &PutRequest, revision: i64, events: &mut Vec<Event>) -> PutResponse {
    let before = view.get(&request.key).cloned();
    let kv = KeyValue {
        key: request.key.clone(),
        create_revision: before.as_ref().map_or(revision, |before| before.create_revision),
        mod_revision: revision,
        version: before.as_ref().map_or(0, |before| before.version) + 1,
        value: request.value.clone(),
        lease: request.lease,
    };
    view.insert(request.key.clone(), kv.clone());
    events.push(Event {
        r#type: EventType::Put as i32,
        kv: Some(kv),
        prev_kv: None,
    });
    PutResponse {
        header: None,
        prev_kv: before.filter(|_| request.prev_kv),
    }
}

/// A deletion at a revision.
pub fn delete(
    view: &mut View,
    request: &DeleteRangeRequest,
    revision: i64,
    events: &mut Vec<Event>,
) -> DeleteRangeResponse {
    let keys: Vec<Bytes> = view
        .keys()
        .filter(|key| is_in(key, &request.key, &request.range_end))
        .cloned()
        .collect();
    let gone = remove(view, &keys, revision, events);
    DeleteRangeResponse {
        header: None,
        deleted: gone.len() as i64,
        prev_kvs: if request.prev_kv { gone } else { Vec::new() },
    }
}

/// Deletes these keys.
fn remove(view: &mut View, keys: &[Bytes], revision: i64, events: &mut Vec<Event>) -> Vec<KeyValue> {
    let mut gone = Vec::new();
    for key in keys {
        gone.extend(view.remove(key));
        events.push(Event {
            r#type: EventType::Delete as i32,
            kv: Some(KeyValue {
                key: key.clone(),
                mod_revision: revision,
                ..KeyValue::default()
            }),
            prev_kv: None,
        });
    }
    gone
}

/// The end of a lease at a revision: its keys are deleted in order.
pub fn revoke(view: &mut View, lease_id: i64, revision: i64, events: &mut Vec<Event>) {
    let keys: Vec<Bytes> = view
        .values()
        .filter(|kv| kv.lease == lease_id)
        .map(|kv| kv.key.clone())
        .collect();
    remove(view, &keys, revision, events);
}

/// A transaction at a revision.
pub fn txn(view: &mut View, request: &TxnRequest, revision: i64, events: &mut Vec<Event>) -> TxnResponse {
    let succeeded = request.compare.iter().all(|compare| holds(view, compare));
    let ops = if succeeded { &request.success } else { &request.failure };
    let responses = ops.iter().map(|op| txn_op(view, op, revision, events)).collect();
    TxnResponse {
        header: None,
        succeeded,
        responses,
    }
}

fn txn_op(view: &mut View, op: &RequestOp, revision: i64, events: &mut Vec<Event>) -> ResponseOp {
    let response = match op.request.as_ref().expect("an operation") {
        Request::RequestRange(request) => Response::ResponseRange(range(view, request)),
        Request::RequestPut(request) => Response::ResponsePut(put(view, request, revision, events)),
        Request::RequestDeleteRange(request) => Response::ResponseDeleteRange(delete(view, request, revision, events)),
        Request::RequestTxn(_) => unreachable!("not asked for"),
    };
    ResponseOp {
        response: Some(response),
    }
}

/// Whether a comparison holds. A key that is not there has zeros everywhere, and no value to compare.
fn holds(view: &View, compare: &Compare) -> bool {
    assert!(compare.range_end.is_empty(), "only single keys are compared");
    let kv = view.get(&compare.key);
    let absent = KeyValue::default();
    let present = kv.unwrap_or(&absent);
    let order = match compare.target_union.as_ref().expect("something to compare with") {
        TargetUnion::Version(version) => present.version.cmp(version),
        TargetUnion::CreateRevision(revision) => present.create_revision.cmp(revision),
        TargetUnion::ModRevision(revision) => present.mod_revision.cmp(revision),
        TargetUnion::Lease(lease) => present.lease.cmp(lease),
        TargetUnion::Value(value) => match kv {
            Some(kv) => kv.value.cmp(value),
            None => return false,
        },
    };
    match CompareResult::try_from(compare.result).expect("a known comparison") {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::NotEqual => order != Ordering::Equal,
    }
}

/// HashKV of a history: `events` are the changes of each revision, `newest` the keys as of the hashed revision.
pub fn hash_kv(events: &BTreeMap<i64, Vec<Event>>, newest: &View, revision: i64, compact_revision: i64) -> u32 {
    let mut crc = crc32c::crc32c(b"key");
    for (main, changes) in events.range(..=revision) {
        for (sub, event) in changes.iter().enumerate() {
            let kv = event.kv.as_ref().expect("an event has a key");
            let is_tombstone = event.r#type == EventType::Delete as i32;
            let is_newest = newest.get(&kv.key).is_some_and(|newest| newest.mod_revision == *main);
            if *main <= compact_revision && !newest.is_empty() && (!is_newest || is_tombstone) {
                continue;
            }
            if *main == compact_revision && is_tombstone {
                continue;
            }
            crc = crc32c::crc32c_append(crc, &Revision::new(*main, sub as i64).encode());
            if is_tombstone {
                crc = crc32c::crc32c_append(crc, b"t");
            }
            crc = crc32c::crc32c_append(crc, &record(event));
        }
    }
    crc
}

/// The record of a change as the tree holds it.
pub fn record(event: &Event) -> Vec<u8> {
    let kv = event.kv.as_ref().expect("an event has a key");
    if event.r#type == EventType::Put as i32 {
        return kv.encode_to_vec();
    }
    let tombstone = KeyValue {
        key: kv.key.clone(),
        ..KeyValue::default()
    };
    tombstone.encode_to_vec()
}
