//! What happened to one key, for the watchers.

use bytes::Bytes;

use crate::base::{LeaseId, Revision};

/// Whether a key was written or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted.
    Delete,
}

/// One change of one key. Cheap to clone and to send to another core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Written or deleted.
    pub kind: EventKind,
    /// The key; a slice of `record`.
    pub key: Bytes,
    /// The transaction, and the place of the change within it.
    pub revision: Revision,
    /// The record as it is stored: for a deletion it holds the key alone, without the revision.
    pub record: Bytes,
    /// Revision in which the key's present life began; equal to `revision.main` when this change began it. 0 for a
    /// deletion.
    pub create_revision: i64,
    /// The lease that a put attached the key to; 0 for none and for a deletion.
    pub lease: LeaseId,
    /// The record that the key had before this revision, if there was one, it is not compacted, and whoever made the
    /// event was told to fetch it.
    pub previous: Option<Bytes>,
}

impl Event {
    /// Whether the event is the first of a key's life. Such events never have a previous record.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.create_revision == self.revision.main
    }
}
