//! Who is to be told of which key, and from which revision.
//!
//! One [`WatchHub`] serves the streams of one core. It is told of applied changes ([`WatchHub::publish`]) and keeps, for
//! each stream, a queue of responses that the caller sends when the stream can take them ([`WatchHub::pop`]). It knows
//! nothing of sockets, cores or time.
//!
//! ```text
//!                        the queue of its stream is full
//!            ┌──────────────────────────────────────────────────────┐
//!            │                                                      ▼
//!   create ─▶ synced: told of each change as it is published     behind: told from history, in slices,
//!            ▲                                                   as its queue has room
//!            └──────────────────────────────────────────────────────┘
//!                        history has been told to its end
//! ```
//!
//! Invariants: a watcher is either synced or behind, never both. A synced watcher's queue has everything up to the
//! published revision that it is to see; a watcher that is behind knows the first revision that its queue lacks. So
//! nothing is lost or told twice, and a slow stream holds up nobody but itself. What a queue holds is in the order of
//! the revisions, and `created` stands before the events, because it was put there before.

mod catch_up;
mod encode;
mod hub;
mod interest;
mod interval;
mod response;
mod spec;
mod stream;
mod watcher;

#[cfg(test)]
mod model;
#[cfg(test)]
mod scenarios;

pub use catch_up::HistoryRequest;
pub use hub::{WatchCounts, WatchHub, WatchLimits};
pub use response::{Response, ResponseIdentity};
pub use spec::{Filters, REASON_DUPLICATE_ID, REASON_EMPTY_RANGE, REASON_NEGATIVE_START, WatchSpec};
pub use stream::StreamId;
