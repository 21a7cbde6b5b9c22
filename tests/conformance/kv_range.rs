//! Range: which keys, in which order, at which revision, and what counts as one more.

use bytes::Bytes;
use ringd::wire::proto::{
    etcdserverpb::{
        self as pb,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb,
};

use crate::{
    fixture::{Fixture, invalid, keys},
    support::{
        calls::{one, span},
        world::Target,
    },
};

bodies! {
    standing {
        range_of_a_missing_key_is_empty_with_the_current_revision,
        range_is_half_open_and_in_key_order,
        range_to_the_zero_byte_is_everything_from_the_key_on,
        range_of_everything_begins_at_the_zero_byte,
        range_with_its_end_not_after_its_key_is_empty,
        range_end_of_one_key_and_zero_is_that_key,
        range_compares_bytes_not_characters,
        limit_cuts_and_says_more_while_count_stays_whole,
        limit_equal_to_the_size_has_no_more,
        a_negative_limit_is_no_limit,
        limit_cuts_after_sorting,
        keys_only_answers_without_values,
        count_only_answers_without_records,
        count_only_ignores_the_limit,
        sorting_by_each_target_in_both_orders,
        a_target_without_an_order_sorts_ascending,
        descending_by_key_without_a_target,
        mod_revision_bounds_are_inclusive_and_leave_the_count,
        create_revision_bounds_are_inclusive_and_leave_the_count,
        bounds_and_limit_together_cut_what_remains,
        a_range_without_a_key_is_refused,
        an_unknown_sort_option_is_refused,
        a_serializable_range_answers_alike,
        a_record_shows_its_lease,
        a_thousand_keys_come_in_one_answer,
        a_megabyte_value_comes_back_whole,
    }
}

/// Five keys with different versions, create and mod revisions, and values in another order than the keys.
/// Steps: a1 b2 c3 d4 e5, then c6 a7 a8.
pub async fn five(f: &Fixture) -> [mvccpb::KeyValue; 5] {
    for (step, (key, value)) in [
        ("a", "m"),
        ("b", "z"),
        ("c", "k"),
        ("d", "b"),
        ("e", "q"),
        ("c", "c"),
        ("a", "m"),
        ("a", "n"),
    ]
    .into_iter()
    .enumerate()
    {
        f.put_at(key, value, step as i64 + 1).await;
    }
    [
        f.kv("a", "n", 1, 8, 3),
        f.kv("b", "z", 2, 2, 1),
        f.kv("c", "c", 3, 6, 2),
        f.kv("d", "b", 4, 4, 1),
        f.kv("e", "q", 5, 5, 1),
    ]
}

async fn range_of_a_missing_key_is_empty_with_the_current_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let expected = pb::RangeResponse {
        header: f.header(f.base),
        ..Default::default()
    };
    assert_eq!(f.get(t.key("none")).await, expected);
    assert_eq!(f.range(span(t.all())).await, expected);
}

async fn range_is_half_open_and_in_key_order(t: Target) {
    let f = Fixture::new(&t).await;
    let [_, b, c, d, _] = five(&f).await;
    let answer = f.range(span((t.key("b"), t.key("e")))).await;
    let expected = pb::RangeResponse {
        header: f.header(f.base + 8),
        kvs: vec![b, c, d],
        more: false,
        count: 3,
    };
    assert_eq!(answer, expected);
}

async fn range_to_the_zero_byte_is_everything_from_the_key_on(t: Target) {
    let f = Fixture::new(&t).await;
    // Nothing sorts after these keys but their like, whoever else used the server.
    let [low, high] = [&b"\xff\xff/range/1"[..], &b"\xff\xff/range/2"[..]].map(Bytes::from_static);
    f.put(low.clone(), "1").await;
    f.put(high.clone(), "2").await;
    let answer = f.range(span((low.clone(), Bytes::from_static(b"\0")))).await;
    assert_eq!(answer.kvs.iter().map(|kv| &kv.key).collect::<Vec<_>>(), [&low, &high]);
    assert_eq!((answer.count, answer.more), (2, false));
    let answer = f.range(span((high.clone(), Bytes::from_static(b"\0")))).await;
    assert_eq!(answer.kvs.iter().map(|kv| &kv.key).collect::<Vec<_>>(), [&high]);
    f.delete(low).await;
    f.delete(high).await;
}

async fn range_of_everything_begins_at_the_zero_byte(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let zero = Bytes::from_static(b"\0");
    let everything = f.range(span((zero.clone(), zero))).await;
    assert_eq!(everything.count, everything.kvs.len() as i64);
    assert!(everything.kvs.contains(&f.kv("a", "1", 1, 1, 1)));
    assert!(everything.kvs.is_sorted_by(|left, right| left.key < right.key));
}

async fn range_with_its_end_not_after_its_key_is_empty(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let expected = pb::RangeResponse {
        header: f.header(f.base + 8),
        ..Default::default()
    };
    assert_eq!(f.range(span((t.key("c"), t.key("c")))).await, expected);
    assert_eq!(f.range(span((t.key("d"), t.key("b")))).await, expected);
}

async fn range_end_of_one_key_and_zero_is_that_key(t: Target) {
    let f = Fixture::new(&t).await;
    let [_, b, ..] = five(&f).await;
    let end = Bytes::from([t.key("b").as_ref(), b"\0"].concat());
    let answer = f.range(span((t.key("b"), end))).await;
    assert_eq!((answer.kvs, answer.count), (vec![b], 1));
}

async fn range_compares_bytes_not_characters(t: Target) {
    let f = Fixture::new(&t).await;
    for key in ["b", "B", "a", "aa", "a\u{0}", "\u{e4}", "~"] {
        f.put(t.key(key), "v").await;
    }
    let answer = f.range(span((t.key(""), t.key("\u{10ffff}")))).await;
    assert_eq!(keys(&answer.kvs), ["B", "a", "a\u{0}", "aa", "b", "~", "\u{e4}"]);
}

async fn limit_cuts_and_says_more_while_count_stays_whole(t: Target) {
    let f = Fixture::new(&t).await;
    let [a, b, ..] = five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            limit: 2,
            ..span(t.all())
        })
        .await;
    let expected = pb::RangeResponse {
        header: f.header(f.base + 8),
        kvs: vec![a, b],
        more: true,
        count: 5,
    };
    assert_eq!(answer, expected);
}

async fn limit_equal_to_the_size_has_no_more(t: Target) {
    let f = Fixture::new(&t).await;
    let all = five(&f).await;
    for limit in [5, 6, i64::MAX - 1] {
        let answer = f.range(pb::RangeRequest { limit, ..span(t.all()) }).await;
        assert_eq!(
            (answer.kvs.as_slice(), answer.more, answer.count),
            (&all[..], false, 5),
            "limit {limit}"
        );
    }
    let answer = f
        .range(pb::RangeRequest {
            limit: 1,
            ..one(t.key("a"))
        })
        .await;
    assert_eq!((answer.kvs.len(), answer.more, answer.count), (1, false, 1));
}

async fn a_negative_limit_is_no_limit(t: Target) {
    let f = Fixture::new(&t).await;
    let all = five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            limit: -1,
            ..span(t.all())
        })
        .await;
    assert_eq!((answer.kvs.as_slice(), answer.more, answer.count), (&all[..], false, 5));
}

async fn limit_cuts_after_sorting(t: Target) {
    let f = Fixture::new(&t).await;
    let [a, _, c, ..] = five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            limit: 2,
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Mod as i32,
            ..span(t.all())
        })
        .await;
    let expected = pb::RangeResponse {
        header: f.header(f.base + 8),
        kvs: vec![a, c],
        more: true,
        count: 5,
    };
    assert_eq!(answer, expected);
}

async fn keys_only_answers_without_values(t: Target) {
    let f = Fixture::new(&t).await;
    let mut all = five(&f).await;
    for kv in &mut all {
        kv.value = Bytes::new();
    }
    let answer = f
        .range(pb::RangeRequest {
            keys_only: true,
            ..span(t.all())
        })
        .await;
    assert_eq!(
        answer,
        pb::RangeResponse {
            header: f.header(f.base + 8),
            kvs: all.to_vec(),
            more: false,
            count: 5
        }
    );
    let sorted = pb::RangeRequest {
        keys_only: true,
        sort_target: SortTarget::Value as i32,
        sort_order: SortOrder::Ascend as i32,
        ..span(t.all())
    };
    let answer = f.range(sorted).await;
    assert_eq!(
        keys(&answer.kvs),
        ["d", "c", "a", "e", "b"],
        "values sort before they are dropped"
    );
}

async fn count_only_answers_without_records(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            count_only: true,
            ..span((t.key("b"), t.key("e")))
        })
        .await;
    assert_eq!(
        answer,
        pb::RangeResponse {
            header: f.header(f.base + 8),
            kvs: vec![],
            more: false,
            count: 3
        }
    );
    let answer = f
        .range(pb::RangeRequest {
            count_only: true,
            ..one(t.key("none"))
        })
        .await;
    assert_eq!(
        answer,
        pb::RangeResponse {
            header: f.header(f.base + 8),
            ..Default::default()
        }
    );
}

async fn count_only_ignores_the_limit(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            count_only: true,
            limit: 2,
            ..span(t.all())
        })
        .await;
    assert_eq!(
        answer,
        pb::RangeResponse {
            header: f.header(f.base + 8),
            kvs: vec![],
            more: false,
            count: 5
        }
    );
}

async fn sorting_by_each_target_in_both_orders(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    // Versions of b, d and e tie; sort only the keys whose versions differ.
    let distinct = span((t.key("a"), t.key("d")));
    for (target, request, ascending) in [
        (SortTarget::Key, span(t.all()), vec!["a", "b", "c", "d", "e"]),
        (SortTarget::Version, distinct, vec!["b", "c", "a"]),
        (SortTarget::Create, span(t.all()), vec!["a", "b", "c", "d", "e"]),
        (SortTarget::Mod, span(t.all()), vec!["b", "d", "e", "c", "a"]),
        (SortTarget::Value, span(t.all()), vec!["d", "c", "a", "e", "b"]),
    ] {
        let sorted = |order: SortOrder| pb::RangeRequest {
            sort_order: order as i32,
            sort_target: target as i32,
            ..request.clone()
        };
        assert_eq!(
            keys(&f.range(sorted(SortOrder::Ascend)).await.kvs),
            ascending,
            "{target:?} up"
        );
        let descending: Vec<_> = ascending.iter().rev().copied().collect();
        assert_eq!(
            keys(&f.range(sorted(SortOrder::Descend)).await.kvs),
            descending,
            "{target:?} down"
        );
    }
}

async fn a_target_without_an_order_sorts_ascending(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let by_mod = pb::RangeRequest {
        sort_target: SortTarget::Mod as i32,
        ..span(t.all())
    };
    assert_eq!(keys(&f.range(by_mod.clone()).await.kvs), ["b", "d", "e", "c", "a"]);
    // The limit is taken before this kind of sorting: two keys and the one that says `more`, sorted, then cut.
    let limited = f.range(pb::RangeRequest { limit: 2, ..by_mod }).await;
    assert_eq!(
        (keys(&limited.kvs), limited.more, limited.count),
        (vec!["b", "c"], true, 5)
    );
}

async fn descending_by_key_without_a_target(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let request = pb::RangeRequest {
        sort_order: SortOrder::Descend as i32,
        limit: 3,
        ..span(t.all())
    };
    let answer = f.range(request).await;
    assert_eq!(
        (keys(&answer.kvs), answer.more, answer.count),
        (vec!["e", "d", "c"], true, 5)
    );
}

async fn mod_revision_bounds_are_inclusive_and_leave_the_count(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    for (min, max, expected) in [
        (f.base + 5, 0, vec!["a", "c", "e"]),
        (0, f.base + 4, vec!["b", "d"]),
        (f.base + 4, f.base + 6, vec!["c", "d", "e"]),
        (f.base + 9, 0, vec![]),
        (f.base + 6, f.base + 5, vec![]),
    ] {
        let request = pb::RangeRequest {
            min_mod_revision: min,
            max_mod_revision: max,
            ..span(t.all())
        };
        let answer = f.range(request).await;
        assert_eq!(
            (keys(&answer.kvs), answer.count, answer.more),
            (expected, 5, false),
            "{min}..={max}"
        );
    }
}

async fn create_revision_bounds_are_inclusive_and_leave_the_count(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    for (min, max, expected) in [
        (f.base + 4, 0, vec!["d", "e"]),
        (0, f.base + 2, vec!["a", "b"]),
        (f.base + 2, f.base + 3, vec!["b", "c"]),
        (f.base + 6, 0, vec![]),
    ] {
        let request = pb::RangeRequest {
            min_create_revision: min,
            max_create_revision: max,
            ..span(t.all())
        };
        let answer = f.range(request).await;
        assert_eq!(
            (keys(&answer.kvs), answer.count, answer.more),
            (expected, 5, false),
            "{min}..={max}"
        );
    }
}

async fn bounds_and_limit_together_cut_what_remains(t: Target) {
    let f = Fixture::new(&t).await;
    five(&f).await;
    let request = pb::RangeRequest {
        min_mod_revision: f.base + 4,
        limit: 2,
        ..span(t.all())
    };
    let answer = f.range(request.clone()).await;
    assert_eq!(
        (keys(&answer.kvs), answer.more, answer.count),
        (vec!["a", "c"], true, 5)
    );
    let exact = f.range(pb::RangeRequest { limit: 4, ..request }).await;
    assert_eq!(
        (keys(&exact.kvs), exact.more, exact.count),
        (vec!["a", "c", "d", "e"], false, 5)
    );
}

async fn a_range_without_a_key_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    assert_eq!(f.try_range(one("")).await, Err(invalid("key is not provided")));
    let ended = pb::RangeRequest {
        range_end: t.key("z"),
        ..one("")
    };
    assert_eq!(f.try_range(ended).await, Err(invalid("key is not provided")));
}

async fn an_unknown_sort_option_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let order = pb::RangeRequest {
        sort_order: 99,
        ..one(t.key("a"))
    };
    if f.is_36().await {
        assert_eq!(f.try_range(order).await, Err(invalid("invalid sort option")));
        let target = pb::RangeRequest {
            sort_target: 99,
            ..one(t.key("a"))
        };
        assert_eq!(f.try_range(target).await, Err(invalid("invalid sort option")));
        let keyless = pb::RangeRequest {
            sort_target: 99,
            ..one("")
        };
        assert_eq!(f.try_range(keyless).await, Err(invalid("key is not provided")));
    } else {
        // 3.5 takes an unknown order for none; an unknown target ends its process, which is not tried here.
        assert_eq!(f.range(order).await.kvs.len(), 1);
    }
}

async fn a_serializable_range_answers_alike(t: Target) {
    let f = Fixture::new(&t).await;
    let all = five(&f).await;
    let answer = f
        .range(pb::RangeRequest {
            serializable: true,
            ..span(t.all())
        })
        .await;
    assert_eq!(
        answer,
        pb::RangeResponse {
            header: f.header(f.base + 8),
            kvs: all.to_vec(),
            more: false,
            count: 5
        }
    );
}

async fn a_record_shows_its_lease(t: Target) {
    let f = Fixture::new(&t).await;
    let lease = f.grant(0, 3600).await.id;
    f.put_leased("a", "1", lease).await;
    let mut expected = f.kv("a", "1", 1, 1, 1);
    expected.lease = lease;
    assert_eq!(f.get(t.key("a")).await.kvs, [expected]);
    f.revoke(lease).await;
}

async fn a_thousand_keys_come_in_one_answer(t: Target) {
    let f = Fixture::new(&t).await;
    let value = "v".repeat(100);
    for batch in 0..10 {
        let puts = (0..100)
            .map(|index| crate::support::calls::put_op(t.key(&format!("{:04}", batch * 100 + index)), value.clone()))
            .collect();
        f.txn(crate::support::calls::always(puts)).await;
    }
    let answer = f.range(span(t.all())).await;
    assert_eq!((answer.kvs.len(), answer.count, answer.more), (1000, 1000, false));
    for (index, kv) in answer.kvs.iter().enumerate() {
        assert_eq!(kv.key, t.key(&format!("{index:04}")));
        assert_eq!((kv.mod_revision, kv.version), (f.base + 1 + index as i64 / 100, 1));
    }
}

async fn a_megabyte_value_comes_back_whole(t: Target) {
    let f = Fixture::new(&t).await;
    let value: Bytes = (0..1_400_000u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    f.put(t.key("big"), value.clone()).await;
    let answer = f.get(t.key("big")).await;
    assert!(answer.kvs[0].value == value, "the value differs");
    f.delete(t.key("big")).await;
}
