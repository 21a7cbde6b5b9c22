//! What the comparisons of a transaction look at, and when they hold.

use bytes::Bytes;
use ringd::wire::proto::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget, TargetUnion},
};

use crate::{
    fixture::Fixture,
    support::world::Target,
    txn::{all_hold, compare, holds},
};

bodies! {
    standing {
        all_comparisons_must_hold,
        each_target_compares_with_each_result,
        comparisons_on_a_missing_key_see_zero,
        a_value_comparison_on_a_missing_key_never_holds,
        a_comparison_without_a_value_compares_with_nothing,
        a_comparison_whose_value_is_of_another_kind_compares_with_zero,
        an_unknown_comparison_result_holds,
        a_comparison_over_a_range_must_hold_for_every_key,
        a_comparison_over_an_empty_range_compares_the_zero_record,
        a_comparison_to_the_zero_byte_takes_every_key_from_there,
    }
}

async fn all_comparisons_must_hold(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let right = compare(t.key("a"), CompareResult::Equal, TargetUnion::Version(1));
    let wrong = compare(t.key("a"), CompareResult::Equal, TargetUnion::Version(2));
    assert!(all_hold(&f, vec![right.clone(), right.clone()]).await);
    assert!(!all_hold(&f, vec![right.clone(), wrong.clone()]).await);
    assert!(!all_hold(&f, vec![wrong, right]).await);
}

async fn each_target_compares_with_each_result(t: Target) {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let f = Fixture::new(&t).await;
    let lease = f.grant(1_000_000_007, 3600).await.id;
    f.put_at("a", "k", 1).await;
    f.put_leased("a", "m", lease).await;
    let (create, modified) = (f.base + 1, f.base + 2);
    let unions: [(&str, [TargetUnion; 3]); 5] = [
        ("version", [1, 2, 3].map(TargetUnion::Version)),
        (
            "create",
            [create - 1, create, create + 1].map(TargetUnion::CreateRevision),
        ),
        (
            "mod",
            [modified - 1, modified, modified + 1].map(TargetUnion::ModRevision),
        ),
        ("lease", [lease - 1, lease, lease + 1].map(TargetUnion::Lease)),
        ("value", ["l", "m", "ma"].map(|value| TargetUnion::Value(value.into()))),
    ];
    for (name, unions) in unions {
        // The record's value against one that is less, equal and greater.
        for (union, holding) in unions
            .into_iter()
            .zip([[Greater, NotEqual], [Equal, Equal], [Less, NotEqual]])
        {
            for result in [Equal, Greater, Less, NotEqual] {
                let expected = holding.contains(&result);
                let got = holds(&f, compare(t.key("a"), result, union.clone())).await;
                assert_eq!(got, expected, "{name} {result:?} {union:?}");
            }
        }
    }
    f.revoke(lease).await;
}

async fn comparisons_on_a_missing_key_see_zero(t: Target) {
    let f = Fixture::new(&t).await;
    let none = t.key("none");
    for union in [
        TargetUnion::Version(0),
        TargetUnion::CreateRevision(0),
        TargetUnion::ModRevision(0),
        TargetUnion::Lease(0),
    ] {
        assert!(
            holds(&f, compare(none.clone(), CompareResult::Equal, union.clone())).await,
            "{union:?}"
        );
        assert!(
            !holds(&f, compare(none.clone(), CompareResult::Greater, union.clone())).await,
            "{union:?}"
        );
    }
    assert!(holds(&f, compare(none.clone(), CompareResult::Less, TargetUnion::Version(1))).await);
    assert!(
        holds(
            &f,
            compare(none.clone(), CompareResult::Greater, TargetUnion::Version(-1))
        )
        .await
    );
    assert!(holds(&f, compare(none, CompareResult::NotEqual, TargetUnion::ModRevision(1))).await);
}

async fn a_value_comparison_on_a_missing_key_never_holds(t: Target) {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let f = Fixture::new(&t).await;
    for result in [Equal, Greater, Less, NotEqual] {
        for value in ["", "a"] {
            assert!(
                !holds(&f, compare(t.key("none"), result, TargetUnion::Value(value.into()))).await,
                "{result:?}"
            );
        }
    }
    let mut ranged = compare(t.key(""), NotEqual, TargetUnion::Value("x".into()));
    ranged.range_end = t.all().1;
    assert!(!holds(&f, ranged).await, "nor over an empty range");
}

async fn a_comparison_without_a_value_compares_with_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("empty", "", 1).await;
    f.put_at("full", "v", 2).await;
    for (target, key, expected) in [
        (CompareTarget::Value, "empty", true),
        (CompareTarget::Value, "full", false),
        (CompareTarget::Version, "full", false),
        (CompareTarget::Lease, "full", true),
        (CompareTarget::Mod, "none", true),
    ] {
        let bare = pb::Compare {
            target: target as i32,
            key: t.key(key),
            ..Default::default()
        };
        assert_eq!(holds(&f, bare).await, expected, "{target:?} of {key}");
    }
}

async fn a_comparison_whose_value_is_of_another_kind_compares_with_zero(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "v", 1).await;
    let mut mixed = compare(t.key("a"), CompareResult::Equal, TargetUnion::ModRevision(1));
    mixed.target = CompareTarget::Version as i32;
    assert!(!holds(&f, mixed.clone()).await, "version 1 is not 0");
    mixed.result = CompareResult::Greater as i32;
    assert!(holds(&f, mixed.clone()).await, "version 1 is above 0");
    mixed.target = CompareTarget::Value as i32;
    assert!(holds(&f, mixed).await, "a value is above the empty one");
}

async fn an_unknown_comparison_result_holds(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "v", 1).await;
    let mut odd = compare(t.key("a"), CompareResult::Equal, TargetUnion::Version(9));
    odd.result = 17;
    assert!(holds(&f, odd.clone()).await);
    odd.result = CompareResult::Equal as i32;
    odd.target = 17;
    assert!(holds(&f, odd.clone()).await, "an unknown target is equal");
    odd.result = CompareResult::Less as i32;
    assert!(!holds(&f, odd).await, "and not less");
}

async fn a_comparison_over_a_range_must_hold_for_every_key(t: Target) {
    let f = Fixture::new(&t).await;
    for (step, key) in ["a", "b", "c"].into_iter().enumerate() {
        f.put_at(key, "same", step as i64 + 1).await;
    }
    f.put_at("b", "same", 4).await;
    let ranged = |result, union| {
        let mut compare = compare(t.key("a"), result, union);
        compare.range_end = t.key("d");
        compare
    };
    assert!(holds(&f, ranged(CompareResult::Equal, TargetUnion::Value("same".into()))).await);
    assert!(!holds(&f, ranged(CompareResult::Equal, TargetUnion::Version(1))).await);
    assert!(holds(&f, ranged(CompareResult::Less, TargetUnion::Version(3))).await);
    assert!(holds(&f, ranged(CompareResult::Greater, TargetUnion::CreateRevision(f.base))).await);
    assert!(
        !holds(
            &f,
            ranged(CompareResult::Greater, TargetUnion::CreateRevision(f.base + 1))
        )
        .await
    );
}

async fn a_comparison_over_an_empty_range_compares_the_zero_record(t: Target) {
    let f = Fixture::new(&t).await;
    let mut empty = compare(t.key("a"), CompareResult::Equal, TargetUnion::CreateRevision(0));
    empty.range_end = t.key("z");
    assert!(holds(&f, empty.clone()).await);
    f.put_at("q", "1", 1).await;
    assert!(!holds(&f, empty).await);
}

async fn a_comparison_to_the_zero_byte_takes_every_key_from_there(t: Target) {
    let f = Fixture::new(&t).await;
    let [low, high] = [&b"\xff\xff/txn/1"[..], &b"\xff\xff/txn/2"[..]].map(Bytes::from_static);
    f.put(low.clone(), "1").await;
    f.put(high.clone(), "2").await;
    let mut from = compare(low.clone(), CompareResult::NotEqual, TargetUnion::Value("2".into()));
    assert!(holds(&f, from.clone()).await);
    from.range_end = Bytes::from_static(b"\0");
    assert!(!holds(&f, from).await);
    f.delete(low).await;
    f.delete(high).await;
}
