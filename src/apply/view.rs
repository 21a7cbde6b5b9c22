//! Reading within and outside a write transaction, for code that does either.

use crate::base::Reject;
use crate::mvcc::{
    KeyState, RangeQuery, RangeResult, RecordSink, Records, SortOrder, SortTarget, Span, Store, WriteTxn,
};
use crate::wire::proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder as ProtoOrder, SortTarget as ProtoTarget},
};

/// What can be read at one moment.
pub(super) trait View {
    type Records: Records;
    /// As [`Store::range`].
    fn range(&self, query: &RangeQuery<'_>) -> Result<RangeResult, Reject>;
    /// As [`Store::latest`].
    fn latest(&self, key: &[u8]) -> Option<KeyState>;
    /// What the results name.
    fn records(&self) -> &Self::Records;
}

/// The store between transactions.
pub(super) struct Settled<'a, T> {
    pub(super) store: &'a Store,
    pub(super) tree: &'a T,
}

impl<T: Records> View for Settled<'_, T> {
    type Records = T;

    fn range(&self, query: &RangeQuery<'_>) -> Result<RangeResult, Reject> {
        self.store.range(self.tree, query)
    }

    fn latest(&self, key: &[u8]) -> Option<KeyState> {
        self.store.latest(key)
    }

    fn records(&self) -> &T {
        self.tree
    }
}

impl<T: Records + RecordSink> View for WriteTxn<'_, T> {
    type Records = T;

    fn range(&self, query: &RangeQuery<'_>) -> Result<RangeResult, Reject> {
        WriteTxn::range(self, query)
    }

    fn latest(&self, key: &[u8]) -> Option<KeyState> {
        WriteTxn::latest(self, key)
    }

    fn records(&self) -> &T {
        WriteTxn::records(self)
    }
}

/// The query that a request means. Sort options that are unknown (refused by [`super::check`], but a log may hold
/// anything) count as none.
pub fn range_query(request: &RangeRequest) -> RangeQuery<'_> {
    RangeQuery {
        span: Span::from_request(&request.key, &request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort_order: match ProtoOrder::try_from(request.sort_order) {
            Ok(ProtoOrder::Ascend) => SortOrder::Ascend,
            Ok(ProtoOrder::Descend) => SortOrder::Descend,
            Ok(ProtoOrder::None) | Err(_) => SortOrder::None,
        },
        sort_target: match ProtoTarget::try_from(request.sort_target) {
            Ok(ProtoTarget::Version) => SortTarget::Version,
            Ok(ProtoTarget::Create) => SortTarget::Create,
            Ok(ProtoTarget::Mod) => SortTarget::Mod,
            Ok(ProtoTarget::Value) => SortTarget::Value,
            Ok(ProtoTarget::Key) | Err(_) => SortTarget::Key,
        },
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}
