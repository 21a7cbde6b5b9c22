//! What applying an entry comes to: an answer for who waits, events for who watches, and effects for the driver. Plain
//! data; nothing here knows how answers travel.

use bytes::Bytes;

use crate::base::{LogIndex, MemberId, Reject, RequestId, Term};
use crate::wire::proto::etcdserverpb::AlarmType;

/// Where an entry stands in raft's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryAt {
    /// Its index.
    pub index: LogIndex,
    /// The term of the leader that proposed it.
    pub term: Term,
}

/// The answer to a request: the encoded response message, or the refusal.
pub type Answer = Result<Bytes, Reject>;

/// What one entry came to. `E` is the store's shape of a revision's changes.
#[derive(Debug)]
pub struct Applied<E> {
    /// Which proposal this was; `None` for an entry that carries none (a new leader's empty entry).
    pub request_id: Option<RequestId>,
    /// What the proposer, if it waits on this member, is told. `None` for an entry that was applied before (it stands
    /// at or below the consistent index), and for what nobody asks for.
    pub answer: Option<Answer>,
    /// The changes of the revision that the entry made, in order; `None` if it made none.
    pub events: Option<E>,
    /// What the driver has to do besides.
    pub effect: Option<Effect>,
}

/// What an entry asks of the driver. An entry asks for one thing at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A new leader's first entry is applied: nothing of an earlier term is outstanding. The leader's leases are to be
    /// promoted now ([`crate::lease::Lessor::promote`]).
    TermBegun,
    /// The write exceeded the quota: propose this alarm for this member, and let the answer wait for it to be applied.
    RaiseAlarm(AlarmType),
    /// An alarm of this kind was raised for the first member, or disarmed for the last: log it.
    AlarmChanged {
        /// Which alarm.
        alarm: AlarmType,
        /// Whose.
        member: MemberId,
        /// Whether it is now raised.
        raised: bool,
    },
    /// Revisions below this one are to be deleted from the tree, by and by; the answer to a `physical` request waits
    /// for that.
    Compact {
        /// The first revision that stays readable.
        revision: i64,
        /// Whether the request was refused (as compacted already), but a `physical` one still waits for compactions
        /// under way.
        barrier_only: bool,
        /// Whether the proposer wants to wait.
        physical: bool,
    },
    /// Names, addresses or roles of members changed: peers and the member list are to be refreshed.
    MembersChanged,
    /// This member was removed from the cluster: it answers what it still has to, and stops.
    RemovedSelf,
    /// The cluster's version changed.
    ClusterVersionChanged,
}
