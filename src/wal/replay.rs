//! (API; bodies follow.) A log read back.
use raft::eraftpb::{Entry, HardState};

/// What a log says from a snapshot on.
#[derive(Debug, Default)]
pub struct Replay {
    /// Content of the metadata records (a marshalled `walpb::Metadata`).
    pub metadata: Vec<u8>,
    /// The last hard state; default if there is none.
    pub hard_state: HardState,
    /// Entries behind the snapshot, in order and without gaps.
    pub entries: Vec<Entry>,
    /// Whether a torn tail was cut off.
    pub repaired: bool,
}
