//! Every code and text with which a request can fail. Clients compare the texts, so they are etcd's to the letter
//! (compared with a running etcd by the conformance tests).

use std::borrow::Cow;

pub use crate::wire::status::{Code, Status};
use crate::{base::Reject, propose::Method};

impl From<Reject> for Status {
    fn from(reject: Reject) -> Status {
        let (code, message) = code_and_text(reject);
        Status {
            code,
            message: Cow::Borrowed(message),
        }
    }
}

/// What calls of later work are answered with.
pub fn not_yet(method: Method) -> Status {
    let text = format!("ringd: {}.{} is not supported yet", method.service(), method.name());
    Status::new(Code::Unimplemented, text)
}

/// Bytes of an answer that grpc-go sends at most, as etcd sets it.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Why an answer of so many bytes is not sent, if it is not.
pub fn message_refusal(message_bytes: usize) -> Option<Status> {
    (message_bytes > MESSAGE_BYTES_MAX).then(|| {
        let text = format!("grpc: trying to send message larger than max ({message_bytes} vs. {MESSAGE_BYTES_MAX})");
        Status::new(Code::ResourceExhausted, text)
    })
}

/// Why an answer, or the rest of one, is not sent whose client does not take those that it has. What it asked for may be done:
/// clients know that of this code.
pub fn unread() -> Status {
    Status::new(Code::Unavailable, "too many bytes of answers wait to be read")
}

/// etcd 3.6's code and text.
pub fn code_and_text(reject: Reject) -> (Code, &'static str) {
    match reject {
        Reject::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Reject::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Reject::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Reject::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        // Not etcd's, which makes answers of up to 2 GiB; what was asked for is done.
        Reject::AnswerTooLarge => (Code::ResourceExhausted, "etcdserver: answer is too large"),
        Reject::TooManyOps => (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
        Reject::DuplicateKey => (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        Reject::InvalidClientApiVersion => (Code::InvalidArgument, "etcdserver: invalid client api version"),
        Reject::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        Reject::MemberBadUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        Reject::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        Reject::UserEmpty => (Code::InvalidArgument, "etcdserver: user name is empty"),
        Reject::RoleEmpty => (Code::InvalidArgument, "etcdserver: role name is empty"),
        Reject::AuthFailed => (
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
        Reject::PermissionNotGiven => (Code::InvalidArgument, "etcdserver: permission not given"),
        Reject::InvalidAuthManagement => (Code::InvalidArgument, "etcdserver: invalid auth management"),
        Reject::AuthOldRevision => (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
        Reject::WrongDowngradeVersionFormat => (
            Code::InvalidArgument,
            "etcdserver: wrong downgrade target version format",
        ),
        Reject::InvalidDowngradeTargetVersion => {
            (Code::InvalidArgument, "etcdserver: invalid downgrade target version")
        }
        Reject::Compacted => (
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        Reject::FutureRevision => (
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        Reject::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Reject::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Reject::TooManyRequests => (Code::ResourceExhausted, "etcdserver: too many requests"),
        Reject::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Reject::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
        Reject::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Reject::MemberExists => (Code::FailedPrecondition, "etcdserver: member ID already exist"),
        Reject::PeerUrlsExist => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Reject::NotEnoughStartedMembers => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        Reject::MemberNotLearner => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member",
        ),
        Reject::LearnerNotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        Reject::TooManyLearners => (
            Code::FailedPrecondition,
            "etcdserver: too many learner members in cluster",
        ),
        Reject::ClusterIdMismatch => (Code::FailedPrecondition, "etcdserver: cluster ID mismatch"),
        Reject::RootUserNotExist => (Code::FailedPrecondition, "etcdserver: root user does not exist"),
        Reject::RootRoleNotExist => (
            Code::FailedPrecondition,
            "etcdserver: root user does not have root role",
        ),
        Reject::UserAlreadyExist => (Code::FailedPrecondition, "etcdserver: user name already exists"),
        Reject::UserNotFound => (Code::FailedPrecondition, "etcdserver: user name not found"),
        Reject::RoleAlreadyExist => (Code::FailedPrecondition, "etcdserver: role name already exists"),
        Reject::RoleNotFound => (Code::FailedPrecondition, "etcdserver: role name not found"),
        Reject::RoleNotGranted => (Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
        Reject::PermissionNotGranted => (
            Code::FailedPrecondition,
            "etcdserver: permission is not granted to the role",
        ),
        Reject::AuthNotEnabled => (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
        Reject::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        Reject::BadLeaderTransferee => (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        Reject::DowngradeInProcess => (
            Code::FailedPrecondition,
            "etcdserver: cluster has a downgrade job in progress",
        ),
        Reject::NoInflightDowngrade => (Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
        Reject::NotCapable => (Code::FailedPrecondition, "etcdserver: not capable"),
        Reject::NotSupportedForLearner => (Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
        Reject::ClusterVersionUnavailable => (
            Code::FailedPrecondition,
            "etcdserver: cluster version not found during downgrade",
        ),
        Reject::PermissionDenied => (Code::PermissionDenied, "etcdserver: permission denied"),
        Reject::InvalidAuthToken => (Code::Unauthenticated, "etcdserver: invalid auth token"),
        Reject::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Reject::WatchCanceled => (Code::Canceled, "etcdserver: watch canceled"),
        Reject::RequestCanceled => (Code::Canceled, "etcdserver: request canceled"),
        Reject::DeadlineExceeded => (Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
        Reject::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        Reject::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        Reject::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        Reject::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
        Reject::TimeoutLeaderFail => (
            Code::Unavailable,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        Reject::TimeoutConnectionLost => (
            Code::Unavailable,
            "etcdserver: request timed out, possibly due to connection lost",
        ),
        Reject::TimeoutWaitAppliedIndex => (
            Code::Unavailable,
            "etcdserver: request timed out, waiting for the applied index took too long",
        ),
        Reject::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
    }
}
