//! What applying an entry comes to: an answer for who waits, events for who watches, and effects for the driver. Plain
//! data; nothing here knows how answers travel.

use std::fmt;

use bytes::Bytes;

use crate::base::{LogIndex, MemberId, Reject, RequestId, Term};
use crate::member::{ConfChangeFault, MemberChange};
use crate::mvcc::{Commit, Compaction};
use crate::wire::proto::etcdserverpb::AlarmType;
use crate::wire::proto::raftpb::ConfChange;

/// Where an entry stands in raft's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryAt {
    /// Its index.
    pub index: LogIndex,
    /// The term of the leader that proposed it.
    pub term: Term,
}

/// The answer to a request: the encoded response message, or the refusal.
pub type Answer = Result<Bytes, Reject>;

/// What one entry came to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Which proposal this was; `None` for an entry that carries none (a new leader's empty entry).
    pub request_id: Option<RequestId>,
    /// What the proposer, if it waits on this member, is told. `None` for an entry that was applied before (it stands
    /// at or below the consistent index), and for what nobody asks for.
    pub answer: Option<Answer>,
    /// The revision that the entry made, with its changes in order; `None` if it made none.
    pub commit: Option<Commit>,
    /// What the driver has to do besides.
    pub effect: Option<Effect>,
}

/// What an entry asks of the driver. An entry asks for one thing at most.
#[derive(Debug)]
pub enum Effect {
    /// A new leader's first entry is applied: nothing of an earlier term is outstanding. If this member is the leader,
    /// its lessor is to be promoted now ([`crate::lease::Lessor::promote`]).
    TermBegun,
    /// The write exceeded the quota: propose this alarm for this member, and let the answer wait for it to be applied.
    RaiseAlarm(AlarmType),
    /// An alarm was raised or disarmed: log it.
    AlarmChanged {
        /// Which alarm, by etcd's number.
        alarm: i32,
        /// Whose.
        member: MemberId,
        /// Whether it is now raised.
        is_raised: bool,
    },
    /// Commit (the mark of the scheduled compaction is in the batch), then carry this out by and by. The answer to a
    /// `physical` request waits for the end of it.
    Compact {
        /// The work.
        compaction: Box<Compaction>,
        /// Whether the proposer wants to wait.
        is_physical: bool,
    },
    /// The compaction was refused since one as high was asked for before; a `physical` request still waits for those
    /// that are under way.
    AwaitCompaction {
        /// Whether the proposer wants to wait.
        is_physical: bool,
    },
    /// Names, addresses or roles of members changed: peers and the member list are to be refreshed.
    MembersChanged,
    /// This member was removed from the cluster: it answers what it still has to, and stops.
    RemovedSelf,
    /// The cluster's version changed.
    ClusterVersionChanged,
}

/// A configuration change between the log and raft: see `State::plan_conf_change`.
#[derive(Debug)]
pub struct ConfChangePlan {
    /// What raft is to be given; its node is 0 if the change is refused, which raft takes as no change.
    pub to_raft: ConfChange,
    pub(super) at: EntryAt,
    pub(super) request_id: RequestId,
    pub(super) change: MemberChange,
    pub(super) verdict: Result<(), Reject>,
}

impl ConfChangePlan {
    /// Whether, and why, the change is refused.
    pub fn refusal(&self) -> Option<Reject> {
        self.verdict.err()
    }

    /// The change.
    pub fn change(&self) -> &MemberChange {
        &self.change
    }
}

/// Why an entry cannot be applied: the log is not what it should be, or needs what this release does not have. The
/// member cannot go on, since the others did apply it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyFault {
    /// An entry is missing before this one.
    Gap {
        /// The last entry that was applied.
        applied: LogIndex,
        /// The entry that was given.
        given: LogIndex,
    },
    /// The entry's data is no request.
    Malformed(LogIndex),
    /// The entry's configuration change cannot be read.
    ConfChange(LogIndex, ConfChangeFault),
    /// The entry changes users, roles or authentication, which this release does not support yet.
    AuthUnsupported(LogIndex),
    /// The entry concerns a member that never was one.
    UnknownMember(LogIndex, MemberId),
    /// The entry sets a version that is none.
    BadVersion(LogIndex, String),
}

impl fmt::Display for ApplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyFault::Gap { applied, given } => {
                write!(f, "log entry {given} cannot be applied after entry {applied}")
            }
            ApplyFault::Malformed(index) => write!(f, "log entry {index} is not a request"),
            ApplyFault::ConfChange(index, fault) => {
                write!(f, "log entry {index} is not a configuration change: {fault:?}")
            }
            ApplyFault::AuthUnsupported(index) => write!(
                f,
                "log entry {index} changes users, roles or authentication, which ringd does not support yet"
            ),
            ApplyFault::UnknownMember(index, member) => {
                write!(f, "log entry {index} is about member {member:x}, which never was one")
            }
            ApplyFault::BadVersion(index, version) => {
                write!(
                    f,
                    "log entry {index} sets the cluster version to {version:?}, which is none"
                )
            }
        }
    }
}

impl std::error::Error for ApplyFault {}
