//! (API; bodies follow.) One `.snap` file.
use raft::eraftpb::Snapshot;

use crate::base::{LogIndex, Term};

/// Name of a `.snap` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapName {
    /// Term of the entry at `index`.
    pub term: Term,
    /// Last index covered.
    pub index: LogIndex,
}

/// What is wrong with a `.snap` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapFault {
    /// No bytes, no data or no checksum.
    Empty,
    /// The checksum is of other bytes.
    CrcMismatch,
    /// Not a snapshot at all.
    Malformed,
}

/// The file's bytes.
pub fn encode(_snapshot: &Snapshot) -> Vec<u8> {
    todo!()
}
/// Reads [`encode`]'s form.
pub fn decode(_bytes: &[u8]) -> Result<Snapshot, SnapFault> {
    todo!()
}
