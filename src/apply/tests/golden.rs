//! The log of a real etcd, and the bytes it made of it: see `tests/golden/apply/`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::apply::testing::*;
use crate::apply::{Effect, EntryAt};
use crate::backend::{BUCKETS, Bucket};
use crate::base::{LogIndex, MemberId, Term};
use crate::member::MemberChange;
use crate::mvcc::{Compaction, encode_compaction_mark};
use crate::wire::proto::raftpb::ConfState;

const CAPTURED: &str = include_str!("../../../tests/golden/apply/etcd-3.5.30.txt");

type Pairs = BTreeMap<(&'static str, Vec<u8>), Bytes>;

fn unhex(text: &str) -> Vec<u8> {
    let digits = if text == "-" { "" } else { text };
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn captured_pairs() -> Pairs {
    let lines = CAPTURED.lines().filter_map(|line| line.strip_prefix("pair "));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let bucket = Bucket::named(words[0].as_bytes()).expect("a bucket of etcd").name();
            ((bucket, unhex(words[1])), unhex(words[2]).into())
        })
        .collect()
}

/// What the driver does with a compaction, at once.
fn carry_out(rig: &mut Rig, mut compaction: Compaction) {
    let (store, tree) = rig.state.store_and_tree();
    while !store.compact_slice(&mut compaction, 3) {}
    let revision = compaction.revision();
    let mut physical = compaction.into_physical();
    while !physical.step(tree, 5).is_finished {}
    let mark = encode_compaction_mark(revision).to_vec();
    tree.buckets
        .insert((Bucket::Meta, b"finishedCompactRev".to_vec()), mark.into());
}

/// raft's part of a configuration change.
fn conf_state(before: Option<&ConfState>, change: &MemberChange) -> ConfState {
    let mut state = before.cloned().unwrap_or_default();
    let MemberId(id) = change.member_id();
    match change {
        MemberChange::Add(member) if member.is_learner => state.learners.push(id),
        MemberChange::Add(_) => state.voters.push(id),
        MemberChange::Remove(_) => state.learners.retain(|learner| *learner != id),
        MemberChange::Promote(_) | MemberChange::Update(..) => {}
    }
    state
}

/// Feeds the captured entries from the `from`th on; every `seal_each`th is followed by a batch's end.
fn feed(mut rig: Rig, seal_each: u64, reopen: bool) -> Rig {
    for line in CAPTURED.lines().filter_map(|line| line.strip_prefix("entry ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let at = EntryAt {
            index: LogIndex(words[0].parse().expect("an index")),
            term: Term(words[1].parse().expect("a term")),
        };
        let data = Bytes::from(unhex(words[3]));
        let applied = match words[2] {
            "0" => rig.state.apply(at, data, rig.now).expect("a sound entry"),
            _ => {
                let plan = rig.state.plan_conf_change(at, &data).expect("a sound entry");
                assert_eq!(plan.refusal(), None);
                let after = conf_state(rig.state.conf_state(), plan.change());
                rig.state.finish_conf_change(plan, after)
            }
        };
        if let Some(Effect::Compact { compaction, .. }) = applied.effect {
            carry_out(&mut rig, *compaction);
        }
        if at.index.0.is_multiple_of(seal_each) {
            if reopen {
                rig = rig.reopen();
            } else {
                seal(&mut rig.state);
            }
        }
    }
    seal(&mut rig.state);
    rig
}

#[test]
fn log_of_etcd_leads_to_the_bytes_of_etcd() {
    let expected = captured_pairs();
    assert_eq!(BUCKETS.len(), 10);
    assert!(expected.len() > 80, "the capture holds something");
    for (seal_each, reopen) in [(1, false), (7, false), (1000, false), (1, true), (13, true)] {
        let rig = feed(Rig::new(), seal_each, reopen);
        let found = rig.state.tree().dump();
        for (pair, value) in &expected {
            assert_eq!(
                found.get(pair),
                Some(value),
                "{} {:?}",
                pair.0,
                String::from_utf8_lossy(&pair.1)
            );
        }
        assert_eq!(found.len(), expected.len());
    }
}

#[test]
fn log_of_etcd_fed_again_changes_nothing() {
    let rig = feed(Rig::new(), 1000, false);
    let before = rig.state.tree().dump();
    let rig = feed(rig.reopen(), 1000, false);
    assert_eq!(rig.state.tree().dump(), before);
}
