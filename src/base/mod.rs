//! Numbers that must not be swapped, and what every module may lean on. Knows nothing of etcd's behaviour.

mod ids;
pub mod planted;
mod reject;
mod time;

pub use ids::{ClusterId, LeaseId, LogIndex, MemberId, RequestId, Revision, Term};
pub use reject::Reject;
pub use time::{Monotonic, WallTime};
