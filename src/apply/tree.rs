//! What the state machine needs of the tree: the `key` bucket through [`Records`] and [`RecordSink`], the small buckets
//! as keys and values, and how large the file is. What is written is seen by reads at once; when it becomes durable is
//! not known here, only that what stands in one batch is committed together.

use bytes::Bytes;

use crate::mvcc::{RecordSink, Records};

/// The buckets of etcd's database file, but for `key`, which has an interface of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Applied index and term, configuration of raft, marks of compactions, version of the storage.
    Meta,
    /// Leases.
    Lease,
    /// Alarms.
    Alarm,
    /// The cluster's version and a downgrade under way.
    Cluster,
    /// Members.
    Members,
    /// Ids that were members and can never be again.
    MembersRemoved,
    /// Whether authentication is on, and its revision.
    Auth,
    /// Users.
    AuthUsers,
    /// Roles.
    AuthRoles,
}

impl Bucket {
    /// All of them, as etcd creates them.
    pub const ALL: [Bucket; 9] = [
        Bucket::Meta,
        Bucket::Lease,
        Bucket::Alarm,
        Bucket::Cluster,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Auth,
        Bucket::AuthUsers,
        Bucket::AuthRoles,
    ];

    /// The bucket's name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Bucket::Meta => "meta",
            Bucket::Lease => "lease",
            Bucket::Alarm => "alarm",
            Bucket::Cluster => "cluster",
            Bucket::Members => "members",
            Bucket::MembersRemoved => "members_removed",
            Bucket::Auth => "auth",
            Bucket::AuthUsers => "authUsers",
            Bucket::AuthRoles => "authRoles",
        }
    }
}

/// The tree under the state machine.
pub trait Tree: Records + RecordSink {
    /// The value under `key`; empty values are values.
    fn value(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes>;
    /// Visits a bucket in the order of its keys.
    fn visit(&self, bucket: Bucket, visit: &mut dyn FnMut(&[u8], &[u8]));
    /// Sets a value.
    fn put(&mut self, bucket: Bucket, key: &[u8], value: Bytes);
    /// Removes a key, if it is there.
    fn delete(&mut self, bucket: Bucket, key: &[u8]);
    /// Bytes that the file occupies, free pages included: what the quota is held against.
    fn allocated_bytes(&self) -> u64;
}
