//! DeleteRange: the keys of a span.

use bytes::Bytes;

use super::{
    outcome::Applied,
    respond::{self, Header},
    state::State,
    tree::Tree,
};
use crate::base::Reject;
use crate::lease::Lessor;
use crate::mvcc::{Span, WriteTxn};
use crate::wire::proto::etcdserverpb::{AlarmType, DeleteRangeRequest};

impl<T: Tree> State<T> {
    pub(super) fn apply_delete_range(&mut self, request: &DeleteRangeRequest) -> Applied {
        if self.alarms.is_raised(AlarmType::Corrupt) {
            return Applied::refused(Reject::Corrupt);
        }
        let form = self.header;
        let mut txn = self.store.begin(&mut self.tree, self.previous_records);
        let response = delete_range(&mut txn, &mut self.lessor, request, |revision| form.at(revision));
        let commit = txn.end();
        self.written(response, commit, true)
    }
}

/// Deletes a span and answers; the header is that of the revision after.
pub(super) fn delete_range<T: Tree>(
    txn: &mut WriteTxn<'_, T>,
    lessor: &mut Lessor,
    request: &DeleteRangeRequest,
    header_at: impl FnOnce(i64) -> Header,
) -> Bytes {
    let outcome = txn.delete_range(Span::from_request(&request.key, &request.range_end));
    for deleted in &outcome.deleted {
        lessor.detach(&deleted.key);
    }
    let previous: Vec<Bytes> = match request.prev_kv {
        false => Vec::new(),
        true => {
            let records = outcome
                .deleted
                .iter()
                .map(|deleted| txn.record_bytes(deleted.previous.modified));
            records
                .map(|record| record.expect("an indexed put has its record"))
                .collect()
        }
    };
    respond::delete_range_response(&header_at(outcome.revision), outcome.deleted.len(), &previous)
}
