//! Put, DeleteRange, Compaction, and how far the log has come.

use prost::Message;

use crate::apply::testing::*;
use crate::apply::{ApplyFault, Effect, EntryAt};
use crate::backend::Bucket;
use crate::base::{LogIndex, Reject, RequestId, Revision, Term};
use crate::mvcc::{EventKind, encode_compaction_mark};
use crate::wire::proto::etcdserverpb::*;

#[test]
fn put_answers_with_its_revision_and_nothing_else() {
    let mut rig = Rig::new();
    let applied = rig.apply(put(put_request("k", "v")));
    assert_eq!(applied.request_id, Some(RequestId(1)));
    let expected = PutResponse {
        header: header(2),
        prev_kv: None,
    };
    assert_eq!(applied.answer.unwrap().unwrap()[..], expected.encode_to_vec());
    let commit = applied.commit.unwrap();
    assert_eq!((commit.revision, commit.events.len()), (2, 1));
    assert_eq!(commit.events[0].kind, EventKind::Put);
    assert_eq!(commit.events[0].revision, Revision::new(2, 0));
    assert!(applied.effect.is_none());
}

#[test]
fn put_shows_what_was_there_only_if_asked_and_if_something_was() {
    let mut rig = Rig::new();
    let ask = |value| PutRequest {
        prev_kv: true,
        ..put_request("k", value)
    };
    let first: PutResponse = rig.answer(put(ask("1"))).unwrap();
    assert_eq!(first.prev_kv, None);
    let second: PutResponse = rig.answer(put(ask("2"))).unwrap();
    let previous = second.prev_kv.unwrap();
    assert_eq!(
        (&previous.value[..], previous.mod_revision, previous.version),
        (&b"1"[..], 2, 1)
    );
    assert_eq!(rig.put("k", "3").unwrap().prev_kv, None);
}

#[test]
fn put_keeps_value_or_lease_of_what_was_there() {
    let mut rig = Rig::new();
    rig.grant(7, 60).unwrap();
    let leased = PutRequest {
        lease: 7,
        ..put_request("k", "v")
    };
    let _: PutResponse = rig.answer(put(leased)).unwrap();
    let keep_lease = PutRequest {
        ignore_lease: true,
        ..put_request("k", "w")
    };
    let _: PutResponse = rig.answer(put(keep_lease)).unwrap();
    let kv = rig.range("k").kvs.pop().unwrap();
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"w"[..], 7, 2));
    let keep_value = PutRequest {
        ignore_value: true,
        ..put_request("k", "")
    };
    let _: PutResponse = rig.answer(put(keep_value)).unwrap();
    let kv = rig.range("k").kvs.pop().unwrap();
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"w"[..], 0, 3));
    assert_eq!(rig.state.lessor().attached_keys(), 0, "a put without a lease detaches");
}

#[test]
fn unknown_lease_is_noticed_before_a_missing_key() {
    let mut rig = Rig::new();
    let both = PutRequest {
        lease: 77,
        ignore_value: true,
        ..put_request("k", "")
    };
    assert_eq!(rig.answer::<PutResponse>(put(both.clone())), Err(Reject::LeaseNotFound));
    let missing = PutRequest { lease: 0, ..both };
    assert_eq!(rig.answer::<PutResponse>(put(missing)), Err(Reject::KeyNotFound));
    assert_eq!(rig.revision(), 1);
}

#[test]
fn deleting_nothing_makes_no_revision() {
    let mut rig = Rig::new();
    rig.put("a", "1").unwrap();
    let applied = rig.apply(delete(delete_request("x", "")));
    assert!(applied.commit.is_none());
    let response: DeleteRangeResponse = rig.answer(delete(delete_request("x", "z"))).unwrap();
    assert_eq!((response.header, response.deleted), (header(2), 0));
    assert_eq!(rig.revision(), 2);
}

#[test]
fn delete_shows_what_was_there_in_the_order_of_keys() {
    let mut rig = Rig::new();
    for key in ["c", "a", "b", "z"] {
        rig.put(key, "v").unwrap();
    }
    let request = DeleteRangeRequest {
        prev_kv: true,
        ..delete_request("a", "d")
    };
    let response: DeleteRangeResponse = rig.answer(delete(request)).unwrap();
    assert_eq!((response.header, response.deleted), (header(6), 3));
    let keys: Vec<_> = response.prev_kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!(keys, [b"a", b"b", b"c"]);
    let rest: DeleteRangeResponse = rig.answer(delete(delete_request("a", "\0"))).unwrap();
    assert_eq!(rest.deleted, 1, "a single zero byte ends with the last key");
}

#[test]
fn compaction_is_marked_handed_out_and_bounded() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value).unwrap();
    }
    let future: Result<CompactionResponse, _> = rig.answer(compact(5));
    assert_eq!(future, Err(Reject::FutureRevision));
    let applied = rig.apply(compact(3));
    let expected = CompactionResponse { header: header(4) };
    assert_eq!(applied.answer.unwrap().unwrap()[..], expected.encode_to_vec());
    let Some(Effect::Compact {
        compaction,
        is_physical: false,
    }) = applied.effect
    else {
        panic!("a compaction is to be carried out");
    };
    assert_eq!(compaction.revision(), 3);
    let mark = rig.state.tree().buckets[&(Bucket::Meta, b"scheduledCompactRev".to_vec())].clone();
    assert_eq!(mark[..], encode_compaction_mark(3));
    let again = rig.apply(compact(3));
    assert_eq!(again.answer, Some(Err(Reject::Compacted)));
    assert!(matches!(
        again.effect,
        Some(Effect::AwaitCompaction { is_physical: false })
    ));
    let old = RangeRequest {
        revision: 2,
        ..range_request("k")
    };
    assert_eq!(rig.state.read_range(&old), Err(Reject::Compacted));
    let edge = RangeRequest { revision: 3, ..old };
    assert!(
        rig.state.read_range(&edge).is_ok(),
        "the compacted revision itself is readable"
    );
}

/// A log goes on behind a compaction that a crash interrupted: what it refused before is refused again.
#[test]
fn an_older_compaction_is_refused_again_after_a_restart() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value).unwrap();
    }
    rig.answer::<CompactionResponse>(compact(4)).unwrap();
    let mut rig = rig.reopen();
    assert_eq!(rig.state.store().compact_revision(), 4);
    assert_eq!(rig.apply(compact(3)).answer, Some(Err(Reject::Compacted)));
    let mark = &rig.state.tree().buckets[&(Bucket::Meta, b"scheduledCompactRev".to_vec())];
    assert_eq!(mark[..], encode_compaction_mark(4));
}

#[test]
fn range_in_the_log_answers_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.put("k", "v").unwrap();
    let request = InternalRaftRequest {
        range: Some(range_request("k")),
        ..InternalRaftRequest::default()
    };
    let response: RangeResponse = rig.answer(request).unwrap();
    assert_eq!((response.header, response.count), (header(2), 1));
}

#[test]
fn entry_that_was_applied_before_changes_nothing() {
    let mut rig = Rig::new();
    rig.put("k", "1").unwrap();
    rig.put("k", "2").unwrap();
    let mut rig = rig.reopen();
    assert_eq!(
        rig.state.applied(),
        EntryAt {
            index: LogIndex(2),
            term: TERM
        }
    );
    let before = rig.state.tree().clone();
    for index in 1..=2 {
        let at = EntryAt {
            index: LogIndex(index),
            term: TERM,
        };
        let data = put(put_request("k", "again")).encode_to_vec();
        let applied = rig.state.apply(at, data.into(), rig.now).unwrap();
        assert!(applied.answer.is_none() && applied.commit.is_none() && applied.effect.is_none());
    }
    assert_eq!(*rig.state.tree(), before);
    rig.put("k", "3").unwrap();
    assert_eq!(rig.revision(), 4);
}

#[test]
fn gap_in_the_log_is_a_fault() {
    let mut rig = Rig::new();
    let at = EntryAt {
        index: LogIndex(3),
        term: TERM,
    };
    let fault = rig
        .state
        .apply(at, put(put_request("k", "v")).encode_to_vec().into(), rig.now)
        .unwrap_err();
    assert_eq!(
        fault,
        ApplyFault::Gap {
            applied: LogIndex(0),
            given: LogIndex(3)
        }
    );
}

#[test]
fn seal_writes_index_and_term_once() {
    let mut rig = Rig::new();
    assert!(rig.state.seal().is_empty(), "nothing was applied yet");
    rig.put("k", "v").unwrap();
    let meta = rig.state.seal();
    assert_eq!(meta[0], (&b"consistent_index"[..], vec![0, 0, 0, 0, 0, 0, 0, 1].into()));
    assert_eq!(meta[1], (&b"term"[..], vec![0, 0, 0, 0, 0, 0, 0, 2].into()));
    assert_eq!(meta.len(), 2);
    assert!(rig.state.seal().is_empty());
    // An entry that is refused counts as applied like any other.
    assert_eq!(
        rig.answer::<CompactionResponse>(compact(99)),
        Err(Reject::FutureRevision)
    );
    assert_eq!(rig.state.seal()[0].1[7], 2);
}

#[test]
fn empty_entry_begins_a_term() {
    let mut rig = Rig::new();
    let at = EntryAt {
        index: LogIndex(1),
        term: Term(5),
    };
    let applied = rig.state.apply(at, bytes::Bytes::new(), rig.now).unwrap();
    assert!(matches!(applied.effect, Some(Effect::TermBegun)));
    assert!(applied.answer.is_none() && applied.request_id.is_none());
    assert_eq!(rig.state.applied(), at);
}
