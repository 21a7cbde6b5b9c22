//! Users, roles and permissions: not supported yet. What a server without them needs to know is whether a database has
//! them switched on, since it must not be served as if it had not.

/// Key in the `auth` bucket: one byte, 1 if authentication is on.
pub const ENABLED_KEY: &[u8] = b"authEnabled";
/// Key in the `auth` bucket: the revision of users and roles, big-endian.
pub const REVISION_KEY: &[u8] = b"authRevision";
/// The revision that a new database gets.
pub const FIRST_REVISION: u64 = 1;

/// Whether the value under [`ENABLED_KEY`] switches authentication on.
pub fn is_enabled(stored: Option<&[u8]>) -> bool {
    stored == Some(&[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_one_switches_it_on() {
        assert!(is_enabled(Some(&[1])));
        for stored in [None, Some(&[][..]), Some(&[0]), Some(&[1, 1])] {
            assert!(!is_enabled(stored));
        }
    }
}
