//! The subtle cases by hand.

use super::{memory::MemoryRecords, *};
use crate::base::{LeaseId, Reject};

fn put(store: &mut Store, tree: &mut MemoryRecords, key: &str) -> i64 {
    let mut txn = store.begin(tree, PreviousRecords::Skip);
    txn.put(key.as_bytes(), b"value", LeaseId(0));
    txn.end().expect("a put changes something").revision
}

fn written(count: usize) -> (Store, MemoryRecords) {
    let (mut store, mut tree) = (Store::new(), MemoryRecords::default());
    for number in 0..count {
        put(&mut store, &mut tree, &format!("k{number:04}"));
    }
    (store, tree)
}

#[test]
fn first_write_has_revision_two_and_empty_transactions_have_none() {
    let (mut store, mut tree) = (Store::new(), MemoryRecords::default());
    assert_eq!((store.current_revision(), store.compact_revision()), (1, -1));
    let mut txn = store.begin(&mut tree, PreviousRecords::Skip);
    assert_eq!(txn.delete_range(Span::all()).revision, 1);
    assert_eq!(txn.end(), None);
    assert_eq!(put(&mut store, &mut tree, "a"), 2);
}

#[test]
fn reads_beyond_the_present_and_below_the_compacted_revision_are_refused() {
    let (mut store, tree) = written(8);
    let mut compaction = store.compact(5, true).unwrap();
    let at = |store: &Store, revision| {
        let query = RangeQuery {
            revision,
            ..RangeQuery::new(Span::all())
        };
        let one = RangeQuery {
            span: Span::key(b"k0000"),
            ..query
        };
        assert_eq!(
            store.range(&tree, &query).map(|_| ()),
            store.range(&tree, &one).map(|_| ())
        );
        store.range(&tree, &query).map(|result| (result.revision, result.count))
    };
    assert_eq!(at(&store, 10), Err(Reject::FutureRevision));
    assert_eq!(at(&store, 4), Err(Reject::Compacted));
    assert_eq!(at(&store, 5), Ok((9, 4)));
    assert_eq!(at(&store, 0), Ok((9, 8)));
    assert_eq!(at(&store, -3), Ok((9, 8)));
    assert!(store.compact_slice(&mut compaction, 100));
    assert_eq!(store.compact(5, true).map(|_| ()), Err(Reject::Compacted));
    assert_eq!(store.compact(10, true).map(|_| ()), Err(Reject::FutureRevision));
    assert_eq!(store.hash_begin(4).map(|_| ()), Err(Reject::Compacted));
    assert_eq!(store.hash_begin(10).map(|_| ()), Err(Reject::FutureRevision));
}

#[test]
fn pinned_revision_holds_the_compaction_of_the_index_up() {
    let (mut store, mut tree) = written(4);
    for _ in 0..3 {
        put(&mut store, &mut tree, "k0001");
    }
    let query = RangeQuery {
        revision: 5,
        ..RangeQuery::new(Span::all())
    };
    let mut scan = store.range_begin(&query).unwrap();
    store.pin(scan.revision());
    assert!(!store.range_slice(&mut scan, 1));
    let mut compaction = store.compact(8, true).unwrap();
    assert!(!store.compact_slice(&mut compaction, 100));
    put(&mut store, &mut tree, "k0009");
    assert!(store.range_slice(&mut scan, 100));
    let mut sort = scan.into_sort();
    while !sort.slice(&tree, 1) {}
    assert_eq!(sort.finish().count, 4);
    store.unpin(5);
    assert!(store.compact_slice(&mut compaction, 100));
    let mut physical = compaction.into_physical();
    while !physical.step(&mut tree, 2).is_finished {}
    assert_eq!((physical.deleted(), tree.records.len()), (3, 5));
}

#[test]
fn limit_cuts_before_a_sort_that_only_names_its_target() {
    let (mut store, mut tree) = written(5);
    put(&mut store, &mut tree, "k0000");
    let query = RangeQuery {
        limit: 2,
        sort_target: SortTarget::Mod,
        ..RangeQuery::new(Span::all())
    };
    let first = |query: &RangeQuery<'_>| store.range(&tree, query).unwrap().items[0].modified.main;
    // Of the first three keys, the one that was changed longest ago.
    assert_eq!(first(&query), 3);
    let ascending = RangeQuery {
        sort_order: SortOrder::Descend,
        ..query
    };
    assert_eq!(first(&ascending), 7);
}

#[test]
fn damaged_buckets_are_refused() {
    let feed = |entries: &[(&[u8], &[u8])]| {
        let mut restore = Restore::new(CompactionMarks::default());
        entries.iter().try_for_each(|(key, record)| restore.feed(key, record))
    };
    let (low, high) = (Revision::new(2, 0).encode(), Revision::new(3, 0).encode());
    let record = |create_revision, version| {
        Record {
            key: b"k",
            create_revision,
            mod_revision: 2,
            version,
            ..Record::default()
        }
        .encode()
    };
    let good = record(2, 1);
    assert_eq!(feed(&[(&low, &good), (&high, &good)]), Ok(()));
    assert_eq!(feed(&[(b"short", &good)]), Err(RestoreError::Key(b"short".to_vec())));
    let (second, third) = (Revision::new(2, 0), Revision::new(3, 0));
    assert_eq!(feed(&[(&high, &good), (&low, &good)]), Err(RestoreError::Order(second)));
    assert_eq!(feed(&[(&high, &good), (&high, &good)]), Err(RestoreError::Order(third)));
    assert_eq!(feed(&[(&low, b"\xff\xff")]), Err(RestoreError::Record(second)));
    assert_eq!(feed(&[(&low, &record(0, 1))]), Err(RestoreError::Record(second)));
    assert_eq!(feed(&[(&low, &record(5, 1))]), Err(RestoreError::Record(second)));
    assert_eq!(feed(&[(&low, &record(2, 0))]), Err(RestoreError::Record(second)));
    assert!(matches!(
        feed(&[(&Revision::new(0, 0).encode(), &good)]),
        Err(RestoreError::Order(_))
    ));
    assert!(matches!(
        feed(&[(&Revision::new(2, 1 << 40).encode(), &good)]),
        Err(RestoreError::Order(_))
    ));
}

#[test]
fn empty_record_that_raises_the_revision_is_restored() {
    let mut restore = Restore::new(CompactionMarks::default());
    let record = Record {
        key: b"k",
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        ..Record::default()
    };
    restore.feed(&Revision::new(2, 0).encode(), &record.encode()).unwrap();
    restore.feed(&Revision::new(1000, 0).encode(), b"").unwrap();
    let mut store = restore.finish().store;
    assert_eq!(store.current_revision(), 1000);
    assert_eq!(store.count(Span::from_request(&[0], &[0])), 1);
    let mut compaction = store.compact(1000, true).unwrap();
    assert!(store.compact_slice(&mut compaction, 10));
    assert_eq!(store.index().keys(), 2);
}

#[test]
fn arbitrary_buckets_do_no_harm() {
    let mut state = 7u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let parts: [&[u8]; 8] = [
        b"|",
        b"\x0a\x01k",
        b"\x0a\x02kk",
        b"\x10\x02",
        b"\x18\x02",
        b"\x20\x01",
        b"\x30\x09",
        b"\x2a\x01v",
    ];
    for _ in 0..1000 {
        let mut input = Vec::new();
        for _ in 0..next() % 60 {
            match next() % 8 {
                0 => input.push(next() as u8),
                _ => input.extend_from_slice(parts[next() as usize % parts.len()]),
            }
        }
        restore::fuzz_restore(&input);
    }
}

#[test]
fn restored_revision_is_at_least_what_was_compacted() {
    let check = |scheduled, finished, current, compacted, resumed| {
        let restored = Restore::new(CompactionMarks { scheduled, finished }).finish();
        let store = &restored.store;
        assert_eq!(
            (
                store.current_revision(),
                store.compact_revision(),
                restored.resumed.as_ref().map(Compaction::revision)
            ),
            (current, compacted, resumed)
        );
    };
    check(None, None, 1, -1, None);
    check(Some(7), Some(7), 7, 7, None);
    check(Some(7), None, 7, 7, Some(7));
    check(Some(9), Some(7), 9, 9, Some(9));
    check(Some(0), None, 1, -1, None);
}

#[test]
fn compaction_marks_are_revisions() {
    assert_eq!(decode_compaction_mark(&encode_compaction_mark(77)), Some(77));
    assert_eq!(decode_compaction_mark(b"77"), None);
    assert_eq!(decode_compaction_mark(&encode_compaction_mark(-1)), None);
}

#[test]
fn hashes_of_the_ten_highest_compactions_are_remembered() {
    let mut hashes = Hashes::default();
    for revision in [5, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12] {
        hashes.store(KeyValueHash {
            hash: 1,
            compact_revision: -1,
            revision,
        });
    }
    let kept: Vec<i64> = hashes.iter().map(|hash| hash.revision).collect();
    assert_eq!(kept, (3..13).collect::<Vec<_>>());
    assert!(hashes.at(2).is_none() && hashes.at(12).is_some());
}

#[test]
#[should_panic(expected = "must be ended")]
fn forgotten_transaction_is_a_bug() {
    let (mut store, mut tree) = written(1);
    store
        .begin(&mut tree, PreviousRecords::Skip)
        .put(b"k", b"v", LeaseId(0));
}
