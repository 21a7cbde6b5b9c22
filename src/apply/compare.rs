//! Comparisons of a transaction: whether the keys are as the client believes.

use std::cmp::Ordering;

use super::view::View;
use crate::mvcc::{KeyState, RangeQuery, Record, Records, Span, SpanEnd};
use crate::wire::proto::etcdserverpb::{
    Compare,
    compare::{CompareResult, CompareTarget, TargetUnion},
};

/// Whether all comparisons hold.
pub(super) fn all_hold<V: View>(view: &V, compares: &[Compare]) -> bool {
    compares.iter().all(|compare| holds(view, compare))
}

/// Every key of the range must compare; if there is none, the comparison is with a key that has zeros everywhere.
fn holds<V: View>(view: &V, compare: &Compare) -> bool {
    let span = Span::from_request(&compare.key, &compare.range_end);
    if span.end == SpanEnd::Single {
        return match view.latest(&compare.key) {
            Some(state) => holds_for(view, compare, &state),
            None => holds_for_missing(compare),
        };
    }
    let Ok(found) = view.range(&RangeQuery::new(span)) else {
        return false;
    };
    if found.items.is_empty() {
        return holds_for_missing(compare);
    }
    found.items.iter().all(|item| {
        let record = view
            .records()
            .record(item.modified)
            .expect("an indexed put has its record");
        holds_for_record(
            compare,
            &Record::decode(record).expect("records are encoded key-values"),
        )
    })
}

/// One key: the index knows all but value and lease.
fn holds_for<V: View>(view: &V, compare: &Compare, state: &KeyState) -> bool {
    let known = Record {
        create_revision: state.create_revision,
        mod_revision: state.modified.main,
        version: state.version,
        ..Record::default()
    };
    match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value | CompareTarget::Lease) => {
            let record = view
                .records()
                .record(state.modified)
                .expect("an indexed put has its record");
            holds_for_record(
                compare,
                &Record::decode(record).expect("records are encoded key-values"),
            )
        }
        _ => holds_for_record(compare, &known),
    }
}

/// There is no way to say "no value", so a comparison of it never holds.
fn holds_for_missing(compare: &Compare) -> bool {
    compare.target != CompareTarget::Value as i32 && holds_for_record(compare, &Record::default())
}

/// A number that is not given, or given for another target, is 0; a value, empty. An unknown target compares equal, and
/// an unknown result always holds: so etcd does it.
fn holds_for_record(compare: &Compare, record: &Record<'_>) -> bool {
    let given = compare.target_union.as_ref();
    let number = |actual: i64, given: Option<i64>| actual.cmp(&given.unwrap_or(0));
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let value: &[u8] = match given {
                Some(TargetUnion::Value(value)) => value,
                _ => &[],
            };
            record.value.cmp(value)
        }
        Ok(CompareTarget::Create) => number(
            record.create_revision,
            match given {
                Some(TargetUnion::CreateRevision(revision)) => Some(*revision),
                _ => None,
            },
        ),
        Ok(CompareTarget::Mod) => number(
            record.mod_revision,
            match given {
                Some(TargetUnion::ModRevision(revision)) => Some(*revision),
                _ => None,
            },
        ),
        Ok(CompareTarget::Version) => number(
            record.version,
            match given {
                Some(TargetUnion::Version(version)) => Some(*version),
                _ => None,
            },
        ),
        Ok(CompareTarget::Lease) => number(
            record.lease.0,
            match given {
                Some(TargetUnion::Lease(lease)) => Some(*lease),
                _ => None,
            },
        ),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
