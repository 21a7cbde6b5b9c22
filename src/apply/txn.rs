//! Txn: comparisons, then one branch, in one revision.
//!
//! First all comparisons are made, those of nested transactions too, and give the path: which branch is taken at each
//! level. Then what the path meets is checked, so that nothing fails once something is changed. Then it is carried out.
//!
//! ```text
//!   path of  txn{ if a: [put, txn{ if b: … else … }, txn{…}] }   is   [a, b, …]   depth first, in the order of operations
//! ```

use bytes::Bytes;

use super::{
    check, compare,
    delete_range::delete_range,
    outcome::{Answer, Applied},
    put::put,
    quota,
    respond::{self, AnswerRoom, Header},
    state::State,
    tree::Tree,
    view::{Settled, View, range_query},
};
use crate::base::{LeaseId, Reject};
use crate::lease::Lessor;
use crate::mvcc::{RangeEncoder, WriteTxn};
use crate::wire::proto::etcdserverpb::{
    AlarmType, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};

/// Fields of a `TxnResponse`.
const TAG_HEADER: u8 = 1;
const TAG_SUCCEEDED: u8 = 2;
const TAG_RESPONSES: u8 = 3;

impl<T: Tree> State<T> {
    pub(super) fn apply_txn(&mut self, request: &TxnRequest) -> Applied {
        if self.alarms.is_raised(AlarmType::Corrupt) {
            return Applied::refused(Reject::Corrupt);
        }
        let cost = quota::txn_cost(request);
        if cost > 0 && self.alarms.is_raised(AlarmType::Nospace) {
            return Applied::refused(Reject::NoSpace);
        }
        let fits = self.fits(cost);
        let path = match self.txn_path(request) {
            Ok(path) => path,
            Err(reject) => return Applied::refused(reject),
        };
        if check::is_txn_read_only(request) {
            let answer = self.read_txn_on(request, &path);
            return Applied {
                answer: Some(answer),
                ..Applied::default()
            };
        }
        let mut txn = self.store.begin(&mut self.tree, self.previous_records);
        let mut room = AnswerRoom::new(self.answer_bytes_max);
        let mut executor = Executor {
            txn: &mut txn,
            lessor: &mut self.lessor,
            path: path.iter(),
            room: &mut room,
        };
        let (succeeded, responses) = executor.branch(request);
        let header = self.header.at(txn.revision());
        let response = txn_response(&header, succeeded, &responses);
        let commit = txn.end();
        self.written(room.answer(response), commit, fits)
    }

    /// Answers a Txn that changes nothing ([`check::is_txn_read_only`]) from the present state. One that may be long is better
    /// read in slices: see [`State::begin_read_txn`].
    pub fn read_txn(&self, request: &TxnRequest) -> Answer {
        assert!(
            check::is_txn_read_only(request),
            "a transaction that writes passes the log"
        );
        let path = self.txn_path(request)?;
        self.read_txn_on(request, &path)
    }

    fn read_txn_on(&self, request: &TxnRequest, path: &[bool]) -> Answer {
        let view = self.settled();
        let succeeded = path[0];
        let mut room = AnswerRoom::new(self.config.answer_bytes_max);
        let mut responses = Vec::new();
        for range in branch_ranges(request, succeeded) {
            if let Some(response) = range_response(&view, range, &mut room)? {
                put_response_op(&mut responses, 1, &response);
            }
        }
        let header = self.header.at(self.store.current_revision());
        room.answer(txn_response(&header, succeeded, &responses))
    }

    /// Begins to read a Txn that changes nothing in slices: compares, and says what its answer begins with and which ranges of
    /// the present revision are to follow, each by [`put_range_head`] and what that announces.
    ///
    /// # Errors
    /// As [`State::read_txn`].
    pub fn begin_read_txn(&self, request: &TxnRequest) -> Result<(Bytes, Vec<RangeRequest>), Reject> {
        let succeeded = self.txn_path(request)?[0];
        let revision = self.store.current_revision();
        let at_present = |range: &RangeRequest| RangeRequest {
            revision: if range.revision > 0 { range.revision } else { revision },
            ..range.clone()
        };
        let ranges = branch_ranges(request, succeeded).map(at_present).collect();
        Ok((txn_response(&self.header.at(revision), succeeded, &[]), ranges))
    }

    /// The header of a range within a transaction: it holds the revision alone.
    pub fn nested_header(&self, revision: i64) -> Bytes {
        Bytes::copy_from_slice(Header::nested(revision).as_slice())
    }

    /// Compares, and checks what the path meets.
    fn txn_path(&self, request: &TxnRequest) -> Result<Vec<bool>, Reject> {
        let view = self.settled();
        let mut path = Vec::with_capacity(1);
        compare_into_path(&view, request, &mut path);
        self.check_branch(request, &mut path.iter())?;
        Ok(path)
    }

    fn check_branch<'a>(&self, request: &TxnRequest, path: &mut impl Iterator<Item = &'a bool>) -> Result<(), Reject> {
        let succeeded = *path.next().expect("the path has a step for each transaction on it");
        for op in branch_ops(request, succeeded) {
            match &op.request {
                Some(Request::RequestRange(range)) => self.check_range(range)?,
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestTxn(nested)) => self.check_branch(nested, path)?,
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Unlike a Range of its own, one within a transaction may not ask for a negative revision below the compacted one.
    fn check_range(&self, request: &RangeRequest) -> Result<(), Reject> {
        match request.revision {
            0 => Ok(()),
            revision if revision > self.store.current_revision() => Err(Reject::FutureRevision),
            revision if revision < self.store.compact_revision() => Err(Reject::Compacted),
            _ => Ok(()),
        }
    }

    /// The key is looked for before the lease; a Put of its own does it the other way round.
    fn check_put(&self, request: &PutRequest) -> Result<(), Reject> {
        if (request.ignore_value || request.ignore_lease) && self.store.latest(&request.key).is_none() {
            return Err(Reject::KeyNotFound);
        }
        match request.lease == 0 || self.lessor.contains(LeaseId(request.lease)) {
            true => Ok(()),
            false => Err(Reject::LeaseNotFound),
        }
    }

    pub(super) fn settled(&self) -> Settled<'_, T> {
        Settled {
            store: &self.store,
            tree: &self.tree,
        }
    }
}

fn branch_ops(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn branch_ranges(request: &TxnRequest, succeeded: bool) -> impl Iterator<Item = &RangeRequest> {
    branch_ops(request, succeeded)
        .iter()
        .filter_map(|op| match &op.request {
            Some(Request::RequestRange(range)) => Some(range),
            _ => None,
        })
}

/// All comparisons see the state before the transaction.
fn compare_into_path<V: View>(view: &V, request: &TxnRequest, path: &mut Vec<bool>) {
    let succeeded = compare::all_hold(view, &request.compare);
    path.push(succeeded);
    for op in branch_ops(request, succeeded) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            compare_into_path(view, nested, path);
        }
    }
}

/// Carries out what the path says.
struct Executor<'a, 'store, 'path, T: Tree> {
    txn: &'a mut WriteTxn<'store, T>,
    lessor: &'a mut Lessor,
    path: std::slice::Iter<'path, bool>,
    room: &'a mut AnswerRoom,
}

impl<T: Tree> Executor<'_, '_, '_, T> {
    /// One transaction: which branch was taken, and its encoded `responses`.
    fn branch(&mut self, request: &TxnRequest) -> (bool, Vec<u8>) {
        let succeeded = *self
            .path
            .next()
            .expect("the path has a step for each transaction on it");
        let mut responses = Vec::new();
        for op in branch_ops(request, succeeded) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    let response = range_response(self.txn, range, self.room).expect("revisions were checked before");
                    if let Some(response) = response {
                        put_response_op(&mut responses, 1, &response);
                    }
                }
                Some(Request::RequestPut(request)) => {
                    let header = Header::nested(self.txn.begin_revision() + 1);
                    put_response_op(&mut responses, 2, &put(self.txn, self.lessor, request, &header));
                }
                Some(Request::RequestDeleteRange(request)) => {
                    let response = delete_range(self.txn, self.lessor, request, Header::nested, self.room);
                    put_response_op(&mut responses, 3, &response);
                }
                Some(Request::RequestTxn(nested)) => {
                    let (succeeded, nested) = self.branch(nested);
                    // At each level it is copied, and counts anew.
                    if self.room.take(nested.len()) {
                        // Its header is there, and empty.
                        put_response_op(&mut responses, 4, &txn_response(&Header::nested(0), succeeded, &nested));
                    }
                }
                None => respond::put_field(&mut responses, TAG_RESPONSES, &[]),
            }
        }
        (succeeded, responses)
    }
}

/// A range within a transaction: its header holds the revision alone. `None` if the answer has no room for it.
fn range_response<V: View>(view: &V, request: &RangeRequest, room: &mut AnswerRoom) -> Result<Option<Bytes>, Reject> {
    if room.is_exceeded() {
        return Ok(None);
    }
    let result = view.range(&range_query(request))?;
    let mut encoder = RangeEncoder::new(Header::nested(result.revision).as_slice(), result, request.keys_only);
    while !encoder.measure(view.records(), usize::MAX) {}
    Ok(room
        .take(encoder.encoded_len())
        .then(|| encoder.chunk(view.records(), usize::MAX).unwrap_or_default()))
}

/// Appends the head of a range's response in the answer to a Txn; `response_bytes` of that follow.
pub fn put_range_head(answer: &mut Vec<u8>, response_bytes: usize) {
    respond::put_field_head(answer, TAG_RESPONSES, respond::field_len(response_bytes));
    respond::put_field_head(answer, 1, response_bytes);
}

/// Appends a response to `responses`, as the `ResponseOp` of a `TxnResponse`.
fn put_response_op(responses: &mut Vec<u8>, tag: u8, response: &[u8]) {
    let op_len = respond::field_len(response.len());
    responses.reserve(respond::field_len(op_len));
    respond::put_field_head(responses, TAG_RESPONSES, op_len);
    respond::put_field(responses, tag, response);
}

fn txn_response(header: &Header, succeeded: bool, responses: &[u8]) -> Bytes {
    let header = header.as_slice();
    let mut out = Vec::with_capacity(respond::field_len(header.len()) + 2 + responses.len());
    respond::put_field(&mut out, TAG_HEADER, header);
    respond::put_number(&mut out, TAG_SUCCEEDED, i64::from(succeeded));
    out.extend_from_slice(responses);
    out.into()
}
