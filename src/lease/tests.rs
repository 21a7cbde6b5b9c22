//! The lessor's rules, and its queues against a plain list.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: f64) -> Monotonic {
    Monotonic(1_000_000_000) + Duration::from_secs_f64(seconds)
}

fn lessor(config: LessorConfig, ttls: &[i64]) -> Lessor {
    let mut lessor = Lessor::new(config);
    for (id, ttl) in (1..).zip(ttls) {
        lessor.grant(LeaseId(id), *ttl, at(0.0)).unwrap();
    }
    lessor
}

fn with_checkpoints() -> LessorConfig {
    LessorConfig {
        checkpoints: true,
        ..LessorConfig::default()
    }
}

fn ids(leases: &[LeaseId]) -> Vec<i64> {
    leases.iter().map(|id| id.0).collect()
}

#[test]
fn shortest_ttl_is_one_and_a_half_election_timeouts_rounded_up() {
    let heartbeat = Duration::from_millis(100);
    assert_eq!(ttl_floor_seconds(10, heartbeat), 2);
    assert_eq!(ttl_floor_seconds(20, heartbeat), 3);
    assert_eq!(
        ttl_floor_seconds(21, heartbeat),
        4,
        "31 heartbeats: the half tick is dropped"
    );
    assert_eq!(ttl_floor_seconds(10, SECOND), 15);
    assert_eq!(ttl_floor_seconds(0, SECOND), 0);
}

#[test]
fn only_the_primary_renews_and_expires() {
    let mut lessor = lessor(LessorConfig::default(), &[5]);
    let id = LeaseId(1);
    assert!(!lessor.is_primary());
    assert_eq!(lessor.renew(id, at(1.0)), Renewal::NotPrimary);
    assert!(lessor.expired(at(1e9), 10).is_empty());
    assert_eq!(lessor.next_expiry(), None);
    lessor.promote(SECOND, at(10.0));
    assert_eq!(lessor.renew(LeaseId(9), at(10.0)), Renewal::NotFound);
    assert!(
        lessor.expired(at(15.9), 10).is_empty(),
        "the TTL runs anew, with the extension"
    );
    assert_eq!(lessor.renew(id, at(15.9)), Renewal::Renewed { ttl: 5 });
    assert!(lessor.expired(at(20.8), 10).is_empty());
    assert_eq!(ids(&lessor.expired(at(20.9), 10)), [1]);
    assert_eq!(lessor.renew(id, at(20.9)), Renewal::AwaitRevocation);
    lessor.demote();
    assert_eq!(lessor.renew(id, at(20.9)), Renewal::NotPrimary);
    assert_eq!(lessor.queued(), 0);
}

#[test]
fn renewal_takes_a_promotions_extension_back() {
    let mut lessor = lessor(LessorConfig::default(), &[5]);
    lessor.promote(100 * SECOND, at(0.0));
    assert_eq!(lessor.renew(LeaseId(1), at(1.0)), Renewal::Renewed { ttl: 5 });
    assert_eq!(ids(&lessor.expired(at(6.0), 10)), [1]);
    assert!(lessor.expired(at(6.1), 10).is_empty());
}

#[test]
fn lease_that_is_not_revoked_is_handed_out_again() {
    let mut lessor = lessor(LessorConfig::default(), &[5, 5, 5]);
    lessor.promote(Duration::ZERO, at(0.0));
    assert_eq!(lessor.expired(at(5.0), 2).len(), 2);
    assert_eq!(lessor.expired(at(5.0), 2).len(), 1);
    assert!(lessor.expired(at(7.9), 10).is_empty());
    lessor.remove(LeaseId(2));
    assert_eq!(ids(&lessor.expired(at(8.0), 10)), [1, 3]);
    assert_eq!(ids(&lessor.expired(at(11.0), 10)), [1, 3]);
}

#[test]
fn lease_that_is_granted_to_the_primary_runs_at_once() {
    let mut lessor = Lessor::new(LessorConfig::default());
    lessor.promote(SECOND, at(0.0));
    lessor.grant(LeaseId(1), 5, at(0.0)).unwrap();
    assert_eq!(lessor.next_expiry(), Some(at(5.0)));
    assert_eq!(ids(&lessor.expired(at(5.0), 10)), [1]);
    lessor.remove(LeaseId(1));
    // Its id, granted again, has nothing to do with the entry that is still queued.
    lessor.grant(LeaseId(1), 60, at(6.0)).unwrap();
    assert!(lessor.expired(at(30.0), 10).is_empty());
    assert_eq!(ids(&lessor.expired(at(66.0), 10)), [1]);
}

#[test]
fn time_to_live_counts_whole_seconds_towards_zero() {
    let mut lessor = lessor(LessorConfig::default(), &[5]);
    let left = |lessor: &Lessor, now| lessor.time_to_live(LeaseId(1), at(now)).unwrap().remaining;
    assert_eq!(left(&lessor, 0.0), None);
    lessor.promote(Duration::ZERO, at(0.0));
    assert_eq!(left(&lessor, 0.1), Some(4));
    assert_eq!(left(&lessor, 5.5), Some(0));
    assert_eq!(left(&lessor, 6.5), Some(-1));
    assert_eq!(lessor.time_to_live(LeaseId(2), at(0.0)), None);
}

#[test]
fn longest_lease_does_not_overflow() {
    let mut lessor = lessor(LessorConfig::default(), &[TTL_MAX_SECONDS]);
    lessor.promote(SECOND, Monotonic(u64::MAX - 5));
    assert!(lessor.expired(Monotonic(u64::MAX - 1), 10).is_empty());
    assert!(lessor.checkpoints_due(Monotonic(u64::MAX), 10).is_empty());
}

#[test]
fn leases_that_would_end_together_are_spread() {
    let mut lessor = lessor(LessorConfig::default(), &[10; 3000]);
    lessor.promote(SECOND, at(0.0));
    let mut by_second = BTreeMap::new();
    for id in 1..=3000 {
        let expiry = lessor.leases[&id].expiry.unwrap();
        let left = expiry.since(at(0.0));
        assert!(left >= 11 * SECOND, "none ends earlier than without the spreading");
        *by_second.entry(left.as_secs()).or_insert(0_usize) += 1;
    }
    assert_eq!(by_second.keys().copied().collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
    assert!(by_second.values().all(|count| *count <= 751), "{by_second:?}");
    assert_eq!(lessor.queued(), 3000);
}

#[test]
fn few_leases_are_not_spread() {
    let mut lessor = lessor(LessorConfig::default(), &[10; REVOKES_PER_SECOND - 1]);
    lessor.promote(SECOND, at(0.0));
    assert_eq!(lessor.expired(at(11.0), usize::MAX).len(), REVOKES_PER_SECOND - 1);
}

#[test]
fn keys_belong_to_one_lease_at_most() {
    let mut lessor = lessor(LessorConfig::default(), &[60, 60]);
    for key in [b"a", b"b", b"c", b"d"] {
        lessor.attach(key, LeaseId(1));
    }
    lessor.attach(b"b", LeaseId(2));
    lessor.attach(b"a", LeaseId(0));
    lessor.attach(b"c", LeaseId(99));
    lessor.detach(b"x");
    assert_eq!(lessor.lease_of(b"b"), LeaseId(2));
    assert_eq!(lessor.lease_of(b"a"), LeaseId(0));
    assert_eq!(
        lessor.lease_of(b"c"),
        LeaseId(0),
        "a lease that does not exist takes no keys"
    );
    assert_eq!(lessor.keys_sorted(LeaseId(1)).unwrap(), [Arc::from(&b"d"[..])]);
    assert_eq!(lessor.attached_keys(), 2);
    lessor.detach(b"b");
    lessor.remove(LeaseId(2));
    assert_eq!(lessor.keys_sorted(LeaseId(2)), Err(Reject::LeaseNotFound));
}

#[test]
fn long_leases_are_checkpointed_until_they_are_renewed() {
    let mut lessor = lessor(with_checkpoints(), &[300, 301, 1000]);
    let due = |lessor: &mut Lessor, now| {
        let due = lessor.checkpoints_due(at(now), 10);
        due.iter()
            .map(|checkpoint| (checkpoint.id, checkpoint.remaining_ttl))
            .collect::<Vec<_>>()
    };
    lessor.promote(Duration::ZERO, at(0.0));
    assert_eq!(due(&mut lessor, 299.0), []);
    assert_eq!(
        due(&mut lessor, 300.5),
        [(2, 1), (3, 700)],
        "a lease of one interval needs none"
    );
    lessor.checkpoint(LeaseId(3), 700, false, at(300.6));
    assert_eq!(lessor.renew(LeaseId(3), at(300.7)), Renewal::ClearCheckpoint);
    lessor.checkpoint(LeaseId(3), 0, false, at(300.8));
    assert_eq!(lessor.renew(LeaseId(3), at(300.9)), Renewal::Renewed { ttl: 1000 });
    assert_eq!(due(&mut lessor, 600.9), [(3, 700)]);
    // A new primary grants what the checkpoint left.
    lessor.checkpoint(LeaseId(3), 700, false, at(601.0));
    lessor.demote();
    lessor.promote(Duration::ZERO, at(700.0));
    assert_eq!(lessor.time_to_live(LeaseId(3), at(700.0)).unwrap().remaining, Some(700));
}

#[test]
fn without_checkpoints_a_renewal_grants_the_whole_time() {
    let mut lessor = Lessor::new(LessorConfig::default());
    lessor.restore(leasepb::Lease {
        id: 1,
        ttl: 100,
        remaining_ttl: 30,
    });
    lessor.promote(Duration::ZERO, at(0.0));
    assert_eq!(lessor.time_to_live(LeaseId(1), at(0.0)).unwrap().remaining, Some(30));
    assert_eq!(lessor.renew(LeaseId(1), at(1.0)), Renewal::Renewed { ttl: 100 });
    assert!(lessor.expired(at(100.0), 10).is_empty());
    assert!(lessor.checkpoints_due(at(1000.0), 10).is_empty());
}

#[test]
fn stored_lease_below_the_floor_is_raised() {
    let mut lessor = Lessor::new(LessorConfig::default());
    lessor.restore(leasepb::Lease {
        id: 1,
        ttl: 1,
        remaining_ttl: 0,
    });
    assert_eq!(lessor.time_to_live(LeaseId(1), at(0.0)).unwrap().granted, 2);
}

#[test]
fn queues_stay_bounded_however_leases_come_and_go() {
    let mut lessor = Lessor::new(with_checkpoints());
    lessor.promote(Duration::ZERO, at(0.0));
    for id in 1..200_000_i64 {
        lessor.grant(LeaseId(id), 1_000_000, at(0.0)).unwrap();
        lessor.renew(LeaseId(id), at(1.0));
        if id > 100 {
            lessor.remove(LeaseId(id - 100));
        }
    }
    assert_eq!(lessor.len(), 100);
    assert!(lessor.queued() < 5_000, "{} entries for 100 leases", lessor.queued());
}

#[derive(Clone, Debug)]
enum Act {
    Grant(i64, i64),
    Revoke(i64),
    Renew(i64),
    Wait(u16),
    Promote,
    Demote,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1i64..8, 0i64..20).prop_map(|(id, ttl)| Act::Grant(id, ttl)),
        1 => (1i64..8).prop_map(Act::Revoke),
        4 => (1i64..8).prop_map(Act::Renew),
        6 => (0u16..8000).prop_map(Act::Wait),
        1 => Just(Act::Promote),
        1 => Just(Act::Demote),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn leases_end_when_a_list_says_so(acts in prop::collection::vec(act(), 0..120)) {
        let mut lessor = Lessor::new(LessorConfig::default());
        // Ends of leases on the primary; None on others.
        let mut model: BTreeMap<i64, (i64, Option<Monotonic>)> = BTreeMap::new();
        let (mut now, mut is_primary) = (at(0.0), false);
        let mut handed_out: BTreeMap<i64, Monotonic> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Grant(id, ttl) => {
                    let granted = lessor.grant(LeaseId(id), ttl, now);
                    prop_assert_eq!(granted.is_ok(), !model.contains_key(&id));
                    if granted.is_ok() {
                        let ttl = ttl.max(2);
                        model.insert(id, (ttl, is_primary.then(|| now + Duration::from_secs(ttl as u64))));
                    }
                }
                Act::Revoke(id) => {
                    if model.remove(&id).is_some() {
                        lessor.remove(LeaseId(id));
                        handed_out.remove(&id);
                    }
                }
                Act::Renew(id) => {
                    let expected = match model.get_mut(&id) {
                        _ if !is_primary => Renewal::NotPrimary,
                        None => Renewal::NotFound,
                        Some((_, Some(end))) if *end <= now => Renewal::AwaitRevocation,
                        Some((ttl, end)) => {
                            *end = Some(now + Duration::from_secs(*ttl as u64));
                            Renewal::Renewed { ttl: *ttl }
                        }
                    };
                    prop_assert_eq!(lessor.renew(LeaseId(id), now), expected);
                }
                Act::Wait(millis) => now = now + Duration::from_millis(millis.into()),
                Act::Promote => {
                    lessor.promote(SECOND, now);
                    is_primary = true;
                    handed_out.clear();
                    for (ttl, end) in model.values_mut() {
                        *end = Some(now + SECOND + Duration::from_secs(*ttl as u64));
                    }
                }
                Act::Demote => {
                    lessor.demote();
                    is_primary = false;
                    handed_out.clear();
                    model.values_mut().for_each(|(_, end)| *end = None);
                }
            }
            let expected: BTreeSet<i64> = model
                .iter()
                .filter(|(_, (_, end))| end.is_some_and(|end| end <= now))
                .map(|(id, _)| *id)
                .filter(|id| handed_out.get(id).is_none_or(|last| *last + REVOKE_RETRY <= now))
                .collect();
            let expired: BTreeSet<i64> = lessor.expired(now, usize::MAX).into_iter().map(|id| id.0).collect();
            prop_assert_eq!(&expired, &expected);
            handed_out.extend(expired.into_iter().map(|id| (id, now)));
        }
    }

    #[test]
    fn attachments_agree_with_a_map(acts in prop::collection::vec((0u8..20, 0i64..5), 0..300)) {
        let mut lessor = lessor(LessorConfig::default(), &[60, 60, 60]);
        let mut model: BTreeMap<u8, i64> = BTreeMap::new();
        for (key, lease) in acts {
            match lease {
                4 => {
                    lessor.detach(&[key]);
                    model.remove(&key);
                }
                0 => {
                    lessor.attach(&[key], LeaseId(0));
                    model.remove(&key);
                }
                lease => {
                    lessor.attach(&[key], LeaseId(lease));
                    model.insert(key, lease);
                }
            }
        }
        prop_assert_eq!(lessor.attached_keys(), model.len());
        for lease in 1..=3 {
            let keys: Vec<u8> = lessor.keys_sorted(LeaseId(lease)).unwrap().iter().map(|key| key[0]).collect();
            let expected: Vec<u8> = model.iter().filter(|(_, of)| **of == lease).map(|(key, _)| *key).collect();
            prop_assert_eq!(keys, expected);
        }
        for key in 0..20 {
            prop_assert_eq!(lessor.lease_of(&[key]).0, model.get(&key).copied().unwrap_or(0));
        }
    }
}

#[test]
fn random_records_are_read_or_refused() {
    let mut seed = 88_172_645_463_325_252_u64;
    for _ in 0..1000 {
        let bytes: Vec<u8> = (0..12)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Mostly tags and small numbers.
                [0x08, 0x10, 0x18, 1, 0x80, (seed >> 40) as u8][(seed >> 20) as usize % 6]
            })
            .collect();
        record::fuzz_lease_record(&bytes);
    }
}
