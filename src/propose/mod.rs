//! Requests on their way into the log, and who waits for which.

mod ids;
mod waiters;

pub use ids::RequestIds;
pub use waiters::Waiters;
