//! Requests on their way into the log, and who waits for which.

pub mod describe;
mod ids;
mod method;
mod request;
mod waiters;

pub use ids::RequestIds;
pub use method::{Method, unknown_path};
pub use request::{Admission, Call, FileWork, Part, Question, Read, Reply, Request, Ticket, Write};
pub use waiters::Waiters;
