//! Reads that do not pass the log. They see everything that was applied; that this is recent enough is the caller's to
//! see to.

use super::{outcome::Answer, state::State, tree::Tree, view::range_query};
use crate::mvcc::encode_range_response;
use crate::wire::proto::etcdserverpb::RangeRequest;

impl<T: Tree> State<T> {
    /// Answers a Range at once. One that may be long is better walked in slices: see [`range_query`] and
    /// [`crate::mvcc::Store::range_begin`].
    pub fn read_range(&self, request: &RangeRequest) -> Answer {
        let result = self.store.range(&self.tree, &range_query(request))?;
        let header = self.header.at(result.revision);
        Ok(encode_range_response(
            &self.tree,
            header.as_slice(),
            &result,
            request.keys_only,
        ))
    }
}
