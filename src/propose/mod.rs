//! Requests on their way into the log, and who waits for which.

mod ids;
mod request;
mod waiters;

pub use ids::RequestIds;
pub use request::{Call, FileWork, Read, Reply, Request, Ticket, Write};
pub use waiters::Waiters;
