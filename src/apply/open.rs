//! What a start reads out of the database, bucket by bucket, and the words for what it cannot read.

use std::fmt;

use bytes::Bytes;

use super::{
    state::{META_FINISHED_COMPACTION, META_SCHEDULED_COMPACTION, number},
    tree::Tree,
};
use crate::auth;
use crate::backend::Bucket;
use crate::base::LeaseId;
use crate::lease::{self, Lessor, LessorConfig};
use crate::mvcc::{CompactionMarks, Restore, RestoreError, Restored, decode_compaction_mark};

/// Why a database cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenFault {
    /// Authentication is on, which this release does not support.
    AuthEnabled,
    /// What stands under a key cannot be read.
    Unreadable {
        /// The key's bucket.
        bucket: Bucket,
        /// The key.
        key: Bytes,
    },
    /// An entry of the `key` bucket does not fit into a store.
    Record {
        /// The key in the bucket: a revision, if it is not this that is damaged.
        key: Bytes,
        /// What is wrong.
        why: RestoreError,
    },
}

impl OpenFault {
    /// What stands under `key` in a bucket cannot be read.
    pub(super) fn unreadable(bucket: Bucket, key: &[u8]) -> OpenFault {
        OpenFault::Unreadable {
            bucket,
            key: Bytes::copy_from_slice(key),
        }
    }

    /// The entry that is to blame, if it is one.
    pub fn entry(&self) -> Option<(Bucket, &[u8])> {
        match self {
            OpenFault::AuthEnabled => None,
            OpenFault::Unreadable { bucket, key } => Some((*bucket, key)),
            OpenFault::Record { key, .. } => Some((Bucket::Key, key)),
        }
    }
}

impl fmt::Display for OpenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenFault::AuthEnabled => write!(
                f,
                "authentication is enabled in this database, which ringd does not support yet; \
                 disable it with etcd first"
            ),
            OpenFault::Unreadable { bucket, key } => write!(
                f,
                "key \"{}\" of bucket {:?} cannot be read",
                key.escape_ascii(),
                bucket.name()
            ),
            OpenFault::Record { why, .. } => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for OpenFault {}

/// Rebuilds the store from the `key` bucket, for [`super::State::open`]. Takes a second for a few million records.
pub fn restore_store<T: Tree>(tree: &T) -> Result<Restored, OpenFault> {
    let mark = |key| decode_compaction_mark(&tree.value(Bucket::Meta, key)?);
    let mut restore = Restore::new(CompactionMarks {
        scheduled: mark(META_SCHEDULED_COMPACTION),
        finished: mark(META_FINISHED_COMPACTION),
    });
    let mut outcome = Ok(());
    tree.visit(Bucket::Key, &mut |key, record| {
        if outcome.is_ok() {
            outcome = restore.feed(key, record).map_err(|why| OpenFault::Record {
                key: Bytes::copy_from_slice(key),
                why,
            });
        }
    });
    outcome.map(|()| restore.finish())
}

/// A new database gets the first revision of users and roles, as etcd gives it.
pub(super) fn open_auth<T: Tree>(tree: &mut T) -> Result<(), OpenFault> {
    if auth::is_enabled(tree.value(Bucket::Auth, auth::ENABLED_KEY).as_deref()) {
        return Err(OpenFault::AuthEnabled);
    }
    if tree.value(Bucket::Auth, auth::REVISION_KEY).is_none() {
        tree.put(Bucket::Auth, auth::REVISION_KEY, number(auth::FIRST_REVISION));
    }
    Ok(())
}

/// The leases, with the keys that the store says are attached to them.
pub(super) fn open_lessor<T: Tree>(
    tree: &T,
    config: LessorConfig,
    attachments: &[(Bytes, LeaseId)],
) -> Result<Lessor, OpenFault> {
    let mut lessor = Lessor::new(config);
    let mut outcome = Ok(());
    tree.visit(Bucket::Lease, &mut |key, value| match lease::record::decode(value) {
        Some(stored) => lessor.restore(stored),
        None => outcome = Err(OpenFault::unreadable(Bucket::Lease, key)),
    });
    for (key, lease) in attachments {
        lessor.attach(key, *lease);
    }
    outcome.map(|()| lessor)
}

/// A number of the `meta` bucket; 0 if it was never saved.
pub(super) fn stored_number<T: Tree>(tree: &T, key: &[u8]) -> Result<u64, OpenFault> {
    match tree.value(Bucket::Meta, key) {
        None => Ok(0),
        Some(stored) => {
            let bytes: [u8; 8] = stored[..]
                .try_into()
                .map_err(|_| OpenFault::unreadable(Bucket::Meta, key))?;
            Ok(u64::from_be_bytes(bytes))
        }
    }
}
