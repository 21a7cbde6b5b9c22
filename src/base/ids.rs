//! Newtypes for the numbers of the protocol.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A member of the cluster; its raft node id. etcd prints it in hexadecimal.
    MemberId(u64)
);
id!(
    /// The cluster, derived from its first members.
    ClusterId(u64)
);
id!(
    /// A lease. Positive; 0 stands for "none".
    LeaseId(i64)
);
id!(
    /// A request in the log: member (2 bytes), milliseconds (5 bytes), counter (1 byte).
    RequestId(u64)
);
id!(
    /// raft's term.
    Term(u64)
);
id!(
    /// A position in raft's log. The first entry has index 1.
    LogIndex(u64)
);

/// A change of the store: `main` counts write transactions, `sub` the changes within one, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Number of the transaction that wrote; the store starts at 1, so the first write has 2.
    pub main: i64,
    /// Number of the change within its transaction.
    pub sub: i64,
}

impl Revision {
    /// The revision `main`, `sub`.
    pub const fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    /// Length of a revision as a key of the `key` bucket, without the tombstone's mark.
    pub const ENCODED_LEN: usize = 17;

    /// The key under which the `key` bucket holds this revision: `main` and `sub` big-endian with `_` between them.
    /// A tombstone's key has a `t` behind it.
    pub fn encode(self) -> [u8; Self::ENCODED_LEN] {
        let mut key = [b'_'; Self::ENCODED_LEN];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// Reads [`Revision::encode`]'s form, with or without a tombstone's mark: the revision, and whether it is a tombstone.
    /// `None` for anything else.
    pub fn decode(key: &[u8]) -> Option<(Revision, bool)> {
        let is_tombstone = match key.len() {
            Self::ENCODED_LEN => false,
            18 if key[17] == b't' => true,
            _ => return None,
        };
        if key[8] != b'_' {
            return None;
        }
        let main = i64::from_be_bytes(key[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(key[9..17].try_into().ok()?);
        Some((Revision { main, sub }, is_tombstone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_encoding_sorts_as_revisions_do() {
        let low = Revision::new(1, i64::MAX).encode();
        let high = Revision::new(2, 0).encode();
        assert!(low < high);
        assert_eq!(Revision::decode(&high), Some((Revision::new(2, 0), false)));
        let mut tombstone = high.to_vec();
        tombstone.push(b't');
        assert!(tombstone[..] > high[..]);
        assert_eq!(Revision::decode(&tombstone), Some((Revision::new(2, 0), true)));
        assert_eq!(Revision::decode(&high[1..]), None);
        tombstone[17] = b'x';
        assert_eq!(Revision::decode(&tombstone), None);
    }
}
