//! DeleteRange: the keys of a span.

use bytes::Bytes;

use super::{
    outcome::Applied,
    respond::{self, AnswerRoom, Header},
    state::State,
    tree::Tree,
};
use crate::base::Reject;
use crate::lease::Lessor;
use crate::mvcc::{Deleted, Span, WriteTxn};
use crate::wire::proto::etcdserverpb::{AlarmType, DeleteRangeRequest};

impl<T: Tree> State<T> {
    pub(super) fn apply_delete_range(&mut self, request: &DeleteRangeRequest) -> Applied {
        if self.alarms.is_raised(AlarmType::Corrupt) {
            return Applied::refused(Reject::Corrupt);
        }
        let form = self.header;
        let mut txn = self.store.begin(&mut self.tree, self.previous_records);
        let mut room = AnswerRoom::new(self.answer_bytes_max);
        let response = delete_range(
            &mut txn,
            &mut self.lessor,
            request,
            |revision| form.at(revision),
            &mut room,
        );
        let commit = txn.end();
        self.written(room.answer(response), commit, true)
    }
}

/// Deletes a span and answers; the header is that of the revision after.
pub(super) fn delete_range<T: Tree>(
    txn: &mut WriteTxn<'_, T>,
    lessor: &mut Lessor,
    request: &DeleteRangeRequest,
    header_at: impl FnOnce(i64) -> Header,
    room: &mut AnswerRoom,
) -> Bytes {
    let outcome = txn.delete_range(Span::from_request(&request.key, &request.range_end));
    for deleted in &outcome.deleted {
        lessor.detach(&deleted.key);
    }
    let previous = match request.prev_kv {
        false => Vec::new(),
        true => previous_records(txn, &outcome.deleted, room),
    };
    respond::delete_range_response(&header_at(outcome.revision), outcome.deleted.len(), &previous)
}

/// What was deleted; nothing if the answer has no room for it.
fn previous_records<T: Tree>(txn: &WriteTxn<'_, T>, deleted: &[Deleted], room: &mut AnswerRoom) -> Vec<Bytes> {
    const KNOWN: &str = "an indexed put has its record";
    let revisions = || deleted.iter().map(|deleted| deleted.previous.modified);
    let bytes = revisions().map(|revision| txn.record(revision).expect(KNOWN).len());
    match room.take(bytes.sum()) {
        true => revisions()
            .map(|revision| txn.record_bytes(revision).expect(KNOWN))
            .collect(),
        false => Vec::new(),
    }
}
