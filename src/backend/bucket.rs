//! The buckets that etcd keeps, all directly under the root.

/// A bucket of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Revisions to key-value pairs.
    Key,
    /// Applied index and term, membership of the log, compaction marks, storage version.
    Meta,
    /// Leases.
    Lease,
    /// Whether authentication is on, and its revision.
    Auth,
    /// Users.
    AuthUsers,
    /// Roles.
    AuthRoles,
    /// Members of the cluster.
    Members,
    /// Ids of members that were removed.
    MembersRemoved,
    /// The cluster's version and a downgrade in progress.
    Cluster,
    /// Alarms that are raised.
    Alarm,
}

/// All buckets, in the order of their discriminants.
pub const BUCKETS: [Bucket; 10] = [
    Bucket::Key,
    Bucket::Meta,
    Bucket::Lease,
    Bucket::Auth,
    Bucket::AuthUsers,
    Bucket::AuthRoles,
    Bucket::Members,
    Bucket::MembersRemoved,
    Bucket::Cluster,
    Bucket::Alarm,
];

impl Bucket {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Bucket::Key => "key",
            Bucket::Meta => "meta",
            Bucket::Lease => "lease",
            Bucket::Auth => "auth",
            Bucket::AuthUsers => "authUsers",
            Bucket::AuthRoles => "authRoles",
            Bucket::Members => "members",
            Bucket::MembersRemoved => "members_removed",
            Bucket::Cluster => "cluster",
            Bucket::Alarm => "alarm",
        }
    }

    /// The bucket of this name.
    pub fn named(name: &[u8]) -> Option<Bucket> {
        BUCKETS.into_iter().find(|bucket| bucket.name().as_bytes() == name)
    }

    /// How full its pages are made when they are split, in percent: `key` grows at its end only, so its pages stay as
    /// they are left; the others keep room for what comes in between.
    pub(super) const fn fill_percent(self) -> u32 {
        match self {
            Bucket::Key => 90,
            _ => 50,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_buckets_and_order_is_that_of_discriminants() {
        for (index, bucket) in BUCKETS.into_iter().enumerate() {
            assert_eq!(bucket as usize, index);
            assert_eq!(Bucket::named(bucket.name().as_bytes()), Some(bucket));
        }
        assert_eq!(Bucket::named(b"test"), None);
    }
}
