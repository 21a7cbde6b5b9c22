//! Histories that cannot be: each is a true one in which one thing was changed.

use bytes::Bytes;
use ringd::wire::proto::mvccpb::{Event, event::EventType};

use crate::{
    check,
    history::{Answer, History, Outcome, Request, Told, header_of, is_change},
};

/// Changes a history; false if it has nothing to change.
type Doctoring = fn(&mut History) -> bool;

const DOCTORINGS: &[(&str, Doctoring)] = &[
    ("an acknowledged put is missing", lose_acknowledged),
    ("an acknowledged put has another value", change_value),
    ("a revision is missing", lose_revision),
    ("two changes are in the other order", swap_changes),
    ("a read is older than its call", read_the_past),
    ("a read finds what nobody wrote", read_nothing_real),
    ("a range lacks a key", shorten_range),
    ("two changes have one revision", share_revision),
    ("a deletion counts what was not there", count_too_many),
    ("a transaction took the other branch", turn_txn),
    ("a watcher misses an event", miss_event),
    ("a watcher is told twice", tell_twice),
    ("a watcher's events are in the other order", tell_backwards),
    ("progress is ahead", progress_ahead),
    ("a previous record is another", change_previous),
    ("a hash is another", change_hash),
];

/// Every doctored history is refused.
pub fn each_is_refused(history: &History) {
    for (what, doctor) in DOCTORINGS {
        let mut doctored = history.clone();
        assert!(doctor(&mut doctored), "{what}: the history has nothing of the kind");
        match check::check(&doctored) {
            Ok(_) => panic!("{what}: accepted"),
            Err(fault) => println!("{what}: {fault:.120}"),
        }
    }
}

fn acknowledged_put(history: &History) -> Option<(usize, i64)> {
    let puts = history.ops.iter().enumerate().rev();
    puts.filter_map(|(number, op)| match &op.outcome {
        Outcome::Answered(answer @ Answer::Put(_)) => Some((number, header_of(answer)?.revision)),
        _ => None,
    })
    .next()
}

fn lose_acknowledged(history: &mut History) -> bool {
    let Some((_, revision)) = acknowledged_put(history) else {
        return false;
    };
    history.events.retain(|other, _| *other < revision);
    for session in &mut history.sessions {
        session.told.retain(|told| match told {
            Told::Events { events, .. } => events.iter().all(|event| crate::history::revision_of(event) < revision),
            Told::Created { revision: at } | Told::Progress { revision: at } => *at < revision,
            Told::Canceled { .. } => true,
        });
    }
    true
}

fn change_value(history: &mut History) -> bool {
    let Some((_, revision)) = acknowledged_put(history) else {
        return false;
    };
    let events = history.events.get_mut(&revision);
    let kv = events.and_then(|events| events.first_mut()?.kv.as_mut());
    kv.map(|kv| kv.value = Bytes::from_static(b"another")).is_some()
}

fn lose_revision(history: &mut History) -> bool {
    let middle = history.events.keys().nth(history.events.len() / 2).copied();
    middle.and_then(|revision| history.events.remove(&revision)).is_some()
}

fn swap_changes(history: &mut History) -> bool {
    let mut revisions = history.events.keys().copied();
    let pair = revisions.clone().zip(revisions.by_ref().skip(1));
    let differ = |pair: &(i64, i64)| {
        history.events[&pair.0][0].kv.as_ref().map(|kv| &kv.key)
            != history.events[&pair.1][0].kv.as_ref().map(|kv| &kv.key)
    };
    let Some((first, second)) = pair.filter(differ).last() else {
        return false;
    };
    let one = history.events.insert(first, history.events[&second].clone());
    history.events.insert(second, one.expect("it was there"));
    true
}

/// A linearizable read of all keys that was called behind several changes.
fn read_the_past(history: &mut History) -> bool {
    let mut answers: Vec<(usize, i64)> = Vec::new();
    for (number, op) in history.ops.iter().enumerate() {
        if let (Request::Range(range), Outcome::Answered(answer)) = (&op.request, &op.outcome)
            && range.revision == 0
            && !range.serializable
            && range.range_end == b"\0"[..]
        {
            answers.push((number, header_of(answer).map_or(0, |header| header.revision)));
        }
    }
    let (Some((old, old_revision)), Some((new, new_revision))) = (answers.first(), answers.last()) else {
        return false;
    };
    if new_revision <= old_revision {
        return false;
    }
    history.ops[*new].outcome = history.ops[*old].outcome.clone();
    true
}

fn range_with_keys(history: &mut History) -> Option<&mut Vec<ringd::wire::proto::mvccpb::KeyValue>> {
    history.ops.iter_mut().rev().find_map(|op| match &mut op.outcome {
        Outcome::Answered(Answer::Range(answer)) if !answer.kvs.is_empty() => Some(&mut answer.kvs),
        _ => None,
    })
}

fn read_nothing_real(history: &mut History) -> bool {
    let kvs = range_with_keys(history);
    kvs.map(|kvs| kvs[0].value = Bytes::from_static(b"nobody's")).is_some()
}

fn shorten_range(history: &mut History) -> bool {
    range_with_keys(history).and_then(Vec::pop).is_some()
}

fn share_revision(history: &mut History) -> bool {
    let mut changes = history.ops.iter_mut().rev().filter_map(|op| match &mut op.outcome {
        Outcome::Answered(Answer::Put(answer)) => answer.header.as_mut(),
        _ => None,
    });
    match (changes.next(), changes.next()) {
        (Some(one), Some(other)) => {
            one.revision = other.revision;
            true
        }
        _ => false,
    }
}

fn count_too_many(history: &mut History) -> bool {
    let mut answers = history.ops.iter_mut().filter_map(|op| match &mut op.outcome {
        Outcome::Answered(Answer::Delete(answer)) if answer.deleted == 0 => Some(answer),
        _ => None,
    });
    answers.next().map(|answer| answer.deleted = 1).is_some()
}

fn turn_txn(history: &mut History) -> bool {
    let mut answers = history.ops.iter_mut().filter_map(|op| match &mut op.outcome {
        Outcome::Answered(answer) if is_change(answer) => match answer {
            Answer::Txn(answer) => Some(answer),
            _ => None,
        },
        _ => None,
    });
    answers
        .next()
        .map(|answer| answer.succeeded = !answer.succeeded)
        .is_some()
}

fn told_events(history: &mut History) -> Option<&mut Vec<Event>> {
    let told = history.sessions.iter_mut().flat_map(|session| &mut session.told);
    told.filter_map(|told| match told {
        Told::Events { events, .. } => Some(events),
        _ => None,
    })
    .next()
}

fn miss_event(history: &mut History) -> bool {
    told_events(history).map(|events| events.remove(0)).is_some()
}

fn tell_twice(history: &mut History) -> bool {
    told_events(history)
        .map(|events| events.insert(0, events[0].clone()))
        .is_some()
}

fn tell_backwards(history: &mut History) -> bool {
    for session in &mut history.sessions {
        let places: Vec<usize> = (0..session.told.len())
            .filter(|place| matches!(session.told[*place], Told::Events { .. }))
            .collect();
        if let [first, second, ..] = places[..] {
            session.told.swap(first, second);
            return true;
        }
    }
    false
}

/// Progress up to a change, told before it.
fn progress_ahead(history: &mut History) -> bool {
    for session in &mut history.sessions {
        let place = session.told.iter().position(|told| matches!(told, Told::Events { .. }));
        if let Some(place) = place
            && let Told::Events { events, .. } = &session.told[place]
        {
            let revision = crate::history::revision_of(&events[0]);
            session.told.insert(place, Told::Progress { revision });
            return true;
        }
    }
    false
}

fn change_previous(history: &mut History) -> bool {
    let told = history.sessions.iter_mut().flat_map(|session| &mut session.told);
    for told in told {
        let Told::Events { events, .. } = told else { continue };
        let deletion = |event: &&mut Event| event.r#type == EventType::Delete as i32 && event.prev_kv.is_some();
        if let Some(previous) = events
            .iter_mut()
            .find(deletion)
            .and_then(|event| event.prev_kv.as_mut())
        {
            previous.value = Bytes::from_static(b"another");
            return true;
        }
    }
    false
}

fn change_hash(history: &mut History) -> bool {
    let mut answers = history.ops.iter_mut().rev().filter_map(|op| match &mut op.outcome {
        Outcome::Answered(Answer::HashKv(answer)) => Some(answer),
        _ => None,
    });
    answers.next().map(|answer| answer.hash ^= 1).is_some()
}
