//! How ids are made: of a member from its peer URLs, of the cluster from its first members. etcd's rules, since members
//! of both kinds must come to the same ids.

use sha1::{Digest, Sha1};

use crate::base::{ClusterId, MemberId};

/// The id of a member of a new cluster. `token` is the cluster's token.
pub fn initial_member_id<S: AsRef<str>>(peer_urls: &[S], token: &str) -> MemberId {
    MemberId(first_bytes(&[&sorted(peer_urls), token]))
}

/// The id of a member that is added at run time, at this time of day.
pub fn added_member_id<S: AsRef<str>>(peer_urls: &[S], unix_seconds: u64) -> MemberId {
    MemberId(first_bytes(&[&sorted(peer_urls), &unix_seconds.to_string()]))
}

/// The id of a cluster with these first members.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.0.to_be_bytes());
    }
    let digest = hash.finalize();
    ClusterId(u64::from_be_bytes(
        digest[..8].try_into().expect("a digest has 20 bytes"),
    ))
}

fn sorted<S: AsRef<str>>(urls: &[S]) -> String {
    let mut urls: Vec<&str> = urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    urls.concat()
}

fn first_bytes(parts: &[&str]) -> u64 {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_cluster_has_the_ids_that_etcd_gives_it() {
        // etcd started without a flag logs these.
        let member = initial_member_id(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[member])), "cdf818194e3a8c32");
    }

    #[test]
    fn order_of_urls_and_members_does_not_matter() {
        assert_eq!(added_member_id(&["b", "a"], 5), added_member_id(&["a", "b"], 5));
        assert_ne!(added_member_id(&["a", "b"], 5), added_member_id(&["a", "b"], 6));
        let (one, two) = (MemberId(1), MemberId(2));
        assert_eq!(cluster_id(&[one, two]), cluster_id(&[two, one]));
    }
}
