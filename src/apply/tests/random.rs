//! Random requests: against a model, against another batch split with restarts, and as mere bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use crate::apply::testing::*;
use crate::apply::{Answer, check};
use crate::base::{LeaseId, Reject};
use crate::wire::proto::etcdserverpb::{
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    *,
};

/// A key as the model has it: value, creation, modification, version, lease.
type ModelKey = (u8, i64, i64, i64, i64);

#[derive(Clone, Debug, Default)]
struct Model {
    keys: BTreeMap<u8, ModelKey>,
    leases: Vec<i64>,
    revision: i64,
}

/// A step of a random transaction.
#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: u8,
        lease: i64,
        keep: bool,
    },
    Delete {
        from: u8,
        to: u8,
    },
    Range {
        key: u8,
    },
    Txn {
        if_version: (u8, i64),
        then: Vec<Step>,
        otherwise: Vec<Step>,
    },
}

fn key_bytes(key: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'a' + key])
}

fn step_request(step: &Step) -> RequestOp {
    op(match step {
        Step::Put {
            key,
            value,
            lease,
            keep,
        } => Request::RequestPut(PutRequest {
            key: key_bytes(*key),
            value: if *keep {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(&[*value])
            },
            lease: *lease,
            ignore_value: *keep,
            ..PutRequest::default()
        }),
        Step::Delete { from, to } => Request::RequestDeleteRange(DeleteRangeRequest {
            key: key_bytes(*from),
            range_end: if from == to { Bytes::new() } else { key_bytes(*to) },
            prev_kv: false,
        }),
        Step::Range { key } => Request::RequestRange(RangeRequest {
            key: key_bytes(*key),
            ..RangeRequest::default()
        }),
        Step::Txn {
            if_version,
            then,
            otherwise,
        } => Request::RequestTxn(txn_request(*if_version, then, otherwise)),
    })
}

fn txn_request(if_version: (u8, i64), then: &[Step], otherwise: &[Step]) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: key_bytes(if_version.0),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::Version(if_version.1)),
        }],
        success: then.iter().map(step_request).collect(),
        failure: otherwise.iter().map(step_request).collect(),
    }
}

impl Model {
    /// The steps that a transaction takes, all comparisons made before any of them.
    fn steps<'a>(&self, if_version: (u8, i64), then: &'a [Step], otherwise: &'a [Step], taken: &mut Vec<&'a Step>) {
        let version = self.keys.get(&if_version.0).map_or(0, |key| key.3);
        for step in if version == if_version.1 { then } else { otherwise } {
            match step {
                Step::Txn {
                    if_version,
                    then,
                    otherwise,
                } => self.steps(*if_version, then, otherwise, taken),
                step => taken.push(step),
            }
        }
    }

    fn txn(&mut self, if_version: (u8, i64), then: &[Step], otherwise: &[Step]) -> Result<usize, Reject> {
        let mut taken = Vec::new();
        self.steps(if_version, then, otherwise, &mut taken);
        for step in &taken {
            if let Step::Put { key, lease, keep, .. } = step {
                if *keep && !self.keys.contains_key(key) {
                    return Err(Reject::KeyNotFound);
                }
                if *lease != 0 && !self.leases.contains(lease) {
                    return Err(Reject::LeaseNotFound);
                }
            }
        }
        let (mut changes, revision) = (0, self.revision + 1);
        for step in taken {
            match step {
                Step::Put {
                    key,
                    value,
                    lease,
                    keep,
                } => {
                    let new = match self.keys.get(key) {
                        Some(old) => (if *keep { old.0 } else { *value }, old.1, revision, old.3 + 1, *lease),
                        None => (*value, revision, revision, 1, *lease),
                    };
                    self.keys.insert(*key, new);
                    changes += 1;
                }
                Step::Delete { from, to } => {
                    let doomed = self.keys.keys().copied();
                    let doomed = doomed.filter(|key| {
                        if from == to {
                            key == from
                        } else {
                            (*from..*to).contains(key)
                        }
                    });
                    for key in doomed.collect::<Vec<_>>() {
                        self.keys.remove(&key);
                        changes += 1;
                    }
                }
                Step::Range { .. } | Step::Txn { .. } => {}
            }
        }
        self.revision += i64::from(changes > 0);
        Ok(changes)
    }

    fn revoke(&mut self, lease: i64) {
        let before = self.keys.len();
        self.keys.retain(|_, key| key.4 != lease);
        self.revision += i64::from(self.keys.len() < before);
        self.leases.retain(|known| *known != lease);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        4 => (0u8..12, any::<u8>(), 0i64..4, any::<bool>()).prop_map(|(key, value, lease, keep)| Step::Put {
            key, value, lease, keep: keep && value < 100,
        }),
        2 => (0u8..12, 0u8..12).prop_map(|(from, to)| Step::Delete { from, to }),
        1 => (0u8..12).prop_map(|key| Step::Range { key }),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let list = || prop::collection::vec(inner.clone(), 0..4);
        ((0u8..12, 0i64..3), list(), list()).prop_map(|(if_version, then, otherwise)| Step::Txn {
            if_version,
            then,
            otherwise,
        })
    })
}

fn shown(rig: &Rig) -> BTreeMap<u8, ModelKey> {
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let response = RangeResponse::decode(rig.state.read_range(&all).unwrap()).unwrap();
    let kvs = response.kvs.iter();
    kvs.map(|kv| {
        let value = kv.value.first().copied().unwrap_or(0);
        (
            kv.key[0] - b'a',
            (value, kv.create_revision, kv.mod_revision, kv.version, kv.lease),
        )
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn transactions_agree_with_a_model(
        txns in prop::collection::vec(((0u8..12, 0i64..3), prop::collection::vec(step(), 0..5), prop::collection::vec(step(), 0..5), 0i64..20), 1..25)
    ) {
        let mut rig = Rig::new();
        let mut model = Model { revision: 1, ..Model::default() };
        for (if_version, then, otherwise, lease) in &txns {
            match lease {
                1..4 if model.leases.contains(lease) => {
                    model.revoke(*lease);
                    rig.apply(revoke(*lease));
                }
                1..4 => {
                    model.leases.push(*lease);
                    rig.grant(*lease, 60).unwrap();
                }
                _ => {}
            }
            let request = txn_request(*if_version, then, otherwise);
            if check::txn(&request, 128).is_err() {
                continue;
            }
            let before = model.clone();
            let expected = model.txn(*if_version, then, otherwise);
            let applied = rig.apply(txn(request));
            let answer = applied.answer.unwrap().map(|answer| TxnResponse::decode(answer).unwrap());
            prop_assert_eq!(applied.commit.as_ref().map_or(0, |commit| commit.events.len()), expected.unwrap_or(0));
            match expected {
                Ok(_) => prop_assert_eq!(answer.unwrap().header, header(model.revision)),
                Err(reject) => {
                    prop_assert_eq!(answer.unwrap_err(), reject);
                    model = before;
                }
            }
            prop_assert_eq!(rig.revision(), model.revision);
            prop_assert_eq!(shown(&rig), model.keys.clone());
            let attached = model.keys.values().filter(|key| key.4 != 0).count();
            prop_assert_eq!(rig.state.lessor().attached_keys(), attached);
            for (key, (_, _, _, _, lease)) in &model.keys {
                prop_assert_eq!(rig.state.lessor().lease_of(&key_bytes(*key)), LeaseId(*lease));
            }
        }
    }
}

/// Any request, most of them sound.
fn any_request(dice: &mut Dice) -> InternalRaftRequest {
    let key = |dice: &mut Dice| {
        let len = dice.roll(3) as usize;
        (0..len).map(|_| b"abc\0"[dice.roll(4) as usize]).collect::<Bytes>()
    };
    let an_op = |dice: &mut Dice| {
        let put = PutRequest {
            // No client's request without a key gets as far as a log.
            key: Some(key(dice))
                .filter(|key| !key.is_empty())
                .unwrap_or(Bytes::from_static(b"a")),
            value: key(dice),
            lease: dice.roll(4) as i64,
            prev_kv: dice.roll(2) == 0,
            ignore_value: dice.roll(4) == 0,
            ignore_lease: dice.roll(4) == 0,
        };
        let delete = DeleteRangeRequest {
            key: key(dice),
            range_end: key(dice),
            prev_kv: dice.roll(2) == 0,
        };
        let range = RangeRequest {
            key: key(dice),
            range_end: key(dice),
            limit: dice.roll(3) as i64 - 1,
            revision: dice.roll(12) as i64 - 2,
            sort_order: dice.roll(4) as i32,
            sort_target: dice.roll(6) as i32,
            ..RangeRequest::default()
        };
        (put, delete, range)
    };
    let ops = |dice: &mut Dice, nested: Option<TxnRequest>| {
        let count = dice.roll(4);
        let mut ops: Vec<RequestOp> = (0..count)
            .map(|_| {
                let (put, delete, range) = an_op(dice);
                match dice.roll(8) {
                    0..3 => op(Request::RequestPut(put)),
                    3..5 => op(Request::RequestDeleteRange(delete)),
                    5..7 => op(Request::RequestRange(range)),
                    _ => RequestOp { request: None },
                }
            })
            .collect();
        ops.extend(nested.map(|nested| op(Request::RequestTxn(nested))));
        ops
    };
    let a_txn = |dice: &mut Dice, nested: Option<TxnRequest>| TxnRequest {
        compare: (0..dice.roll(2))
            .map(|_| Compare {
                result: dice.roll(5) as i32,
                target: dice.roll(6) as i32,
                key: key(dice),
                range_end: key(dice),
                target_union: (dice.roll(3) > 0).then(|| TargetUnion::Version(dice.roll(3) as i64)),
            })
            .collect(),
        success: ops(dice, nested.clone()),
        failure: ops(dice, nested),
    };
    let (a_put, a_delete, a_range) = an_op(dice);
    let lease = dice.roll(4) as i64;
    match dice.roll(14) {
        0..4 => put(a_put),
        4 => delete(a_delete),
        5..8 => {
            let nested = a_txn(dice, None);
            txn(a_txn(dice, Some(nested)))
        }
        8 => InternalRaftRequest {
            range: Some(a_range),
            ..InternalRaftRequest::default()
        },
        9 | 10 => grant(lease, dice.roll(5) as i64),
        11 => revoke(lease),
        12 => compact(dice.roll(30) as i64),
        _ => alarm(
            dice.roll(4) as i32,
            dice.roll(2),
            [AlarmType::None, AlarmType::Nospace][dice.roll(2) as usize],
        ),
    }
}

#[test]
fn splits_into_batches_and_restarts_leave_no_trace() {
    for seed in 1..40_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let requests: Vec<_> = (0..80).map(|_| any_request(&mut dice)).collect();
        let mut whole = Rig::new();
        let expected: Vec<Option<Answer>> = requests
            .iter()
            .map(|request| whole.apply(request.clone()).answer)
            .collect();
        let mut split = Rig::new();
        for (request, expected) in requests.iter().zip(&expected) {
            match dice.roll(5) {
                0 => seal(&mut split.state),
                // A compaction that was begun is resumed by the driver; without one the tree would still hold what the
                // index has forgotten, and a restart would bring it back.
                1 if split.state.store().compact_revision() < 0 => split = split.reopen(),
                _ => {}
            }
            // Answers of members that were given time do not depend on it.
            split.now = crate::base::Monotonic(dice.roll(1 << 40));
            assert_eq!(split.apply(request.clone()).answer, *expected, "{request:?}");
        }
        seal(&mut whole.state);
        seal(&mut split.state);
        assert_eq!(whole.state.tree().dump(), split.state.tree().dump(), "seed {seed}");
    }
}

/// Applies bytes as entries until one is a fault.
fn apply_bytes(entries: &[Vec<u8>]) {
    let mut rig = Rig::new();
    for entry in entries {
        let at = rig.next();
        let before = rig.state.tree().dump();
        match rig.state.apply(at, Bytes::copy_from_slice(entry), rig.now) {
            Ok(_) => assert_eq!(rig.state.applied(), at),
            Err(_) => assert_eq!(rig.state.tree().dump(), before, "a fault changes nothing"),
        }
    }
}

#[test]
fn random_bytes_are_applied_or_are_a_fault() {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for _ in 0..100 {
        let entries: Vec<Vec<u8>> = (0..10)
            .map(|_| {
                let mut entry = any_request(&mut dice).encode_to_vec();
                for _ in 0..dice.roll(4) {
                    let at = dice.roll(entry.len().max(1) as u64) as usize;
                    if let Some(byte) = entry.get_mut(at) {
                        *byte = dice.roll(256) as u8;
                    }
                }
                entry.truncate(entry.len() - dice.roll(3).min(entry.len() as u64) as usize);
                entry
            })
            .collect();
        entries.iter().for_each(|entry| crate::apply::fuzz_request(entry));
        apply_bytes(&entries);
    }
}
