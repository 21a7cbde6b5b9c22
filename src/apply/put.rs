//! Put: one key.

use super::{
    outcome::Applied,
    quota,
    respond::{self, Header},
    state::State,
    tree::Tree,
};
use crate::base::{LeaseId, Reject};
use crate::lease::Lessor;
use crate::mvcc::{Record, WriteTxn};
use crate::wire::proto::etcdserverpb::PutRequest;

impl<T: Tree> State<T> {
    pub(super) fn apply_put(&mut self, request: &PutRequest) -> Applied {
        if let Some(reject) = self.write_gate() {
            return Applied::refused(reject);
        }
        let lease = LeaseId(request.lease);
        if lease.0 != 0 && !self.lessor.contains(lease) {
            return Applied::refused(Reject::LeaseNotFound);
        }
        let is_previous_needed = request.ignore_value || request.ignore_lease;
        if is_previous_needed && self.store.latest(&request.key).is_none() {
            return Applied::refused(Reject::KeyNotFound);
        }
        // Held against the file as it was before; the put is carried out all the same.
        let fits = self.fits(quota::put_cost(request));
        let mut txn = self.store.begin(&mut self.tree, self.previous_records);
        let header = self.header.at(txn.begin_revision() + 1);
        let response = put(&mut txn, &mut self.lessor, request, &header);
        let commit = txn.end();
        self.written(Ok(response), commit, fits)
    }
}

/// Puts a key and answers. What the request refers to has been checked.
#[inline]
pub(super) fn put<T: Tree>(
    txn: &mut WriteTxn<'_, T>,
    lessor: &mut Lessor,
    request: &PutRequest,
    header: &Header,
) -> bytes::Bytes {
    let lease = LeaseId(request.lease);
    if !(request.ignore_value || request.ignore_lease || request.prev_kv) {
        txn.put(&request.key, &request.value, lease);
        lessor.attach(&request.key, lease);
        return respond::put_response(header, None);
    }
    let previous = txn.latest(&request.key);
    let previous = previous.map(|state| txn.record_bytes(state.modified).expect("an indexed put has its record"));
    // A key that an earlier operation of the same transaction deleted has nothing left to keep: no value, no lease.
    let kept = previous.as_ref().map_or(Record::default(), |record| {
        Record::decode(record).expect("records are encoded key-values")
    });
    let value = if request.ignore_value {
        kept.value
    } else {
        &request.value
    };
    let lease = if request.ignore_lease { kept.lease } else { lease };
    txn.put(&request.key, value, lease);
    lessor.attach(&request.key, lease);
    respond::put_response(header, previous.as_ref().filter(|_| request.prev_kv))
}
