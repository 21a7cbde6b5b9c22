//! Reads that do not pass the log. They see everything that was applied; that this is recent enough is the caller's to
//! see to.

use bytes::Bytes;

use super::{outcome::Answer, state::State, tree::Tree, view::range_query};
use crate::base::Reject;
use crate::mvcc::encode_range_response_within;
use crate::wire::proto::etcdserverpb::RangeRequest;

impl<T: Tree> State<T> {
    /// Answers a Range at once. One that may be long is better walked in slices: see [`range_query`] and
    /// [`crate::mvcc::Store::range_begin`].
    pub fn read_range(&self, request: &RangeRequest) -> Answer {
        let answer = self.read_range_within(request, usize::MAX)?;
        Ok(answer.expect("no answer is as long"))
    }

    /// The same, unless the answer would have more than `bytes_max`.
    pub fn read_range_within(&self, request: &RangeRequest, bytes_max: usize) -> Result<Option<Bytes>, Reject> {
        let result = self.store.range(&self.tree, &range_query(request))?;
        let header = self.header.at(result.revision);
        Ok(encode_range_response_within(
            &self.tree,
            header.as_slice(),
            &result,
            request.keys_only,
            bytes_max,
        ))
    }
}
