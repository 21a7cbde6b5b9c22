//! One `.snap` file as bytes and back, and the names in a directory of snapshots.
//!
//! ```text
//!  08 crc  12 len │ 0a len data   12 len metadata{conf state, index, term} │
//!                 └────────── a marshalled raftpb.Snapshot ────────────────┘ what the CRC-32C covers
//! ```

use std::fmt;

use raft::eraftpb::Snapshot;

use crate::{
    base::{LogIndex, Term},
    wal::{
        codec::{self, Fields, Head, Malformed},
        segment::{parse_hex16, parse_pair},
    },
};

/// Name of a `.snap` file. In order of age: term first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapName {
    /// Term of the entry at `index`.
    pub term: Term,
    /// Last index covered.
    pub index: LogIndex,
}

impl SnapName {
    /// Reads a file's name; `None` if it is not a snapshot's.
    pub fn parse(name: &str) -> Option<SnapName> {
        let (term, index) = parse_pair(name, ".snap")?;
        Some(SnapName {
            term: Term(term),
            index: LogIndex(index),
        })
    }

    /// The name for a snapshot.
    pub fn of(snapshot: &Snapshot) -> SnapName {
        let metadata = snapshot.get_metadata();
        SnapName {
            term: Term(metadata.term),
            index: LogIndex(metadata.index),
        }
    }
}

impl fmt::Display for SnapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.snap", self.term, self.index)
    }
}

/// Name of a database received with the snapshot at `index`.
pub fn database_name(index: LogIndex) -> String {
    format!("{index:016x}.snap.db")
}

/// Reads [`database_name`]'s form.
pub fn parse_database_name(name: &str) -> Option<LogIndex> {
    name.strip_suffix(".snap.db").and_then(parse_hex16).map(LogIndex)
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

impl fmt::Display for SnapFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SnapFault::Empty => "snap: empty snapshot",
            SnapFault::CrcMismatch => "snap: crc mismatch",
            SnapFault::Malformed => "snap: malformed snapshot",
        })
    }
}

impl std::error::Error for SnapFault {}

impl From<Malformed> for SnapFault {
    fn from(_: Malformed) -> SnapFault {
        SnapFault::Malformed
    }
}

/// The file's bytes.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let inner = codec::snapshot_bytes(snapshot);
    let mut head = Head::new();
    head.varint(0x08, u64::from(crc32c::crc32c(&inner)));
    head.varint(0x12, inner.len() as u64);
    [head.as_slice(), &inner].concat()
}

/// Reads [`encode`]'s form.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, SnapFault> {
    if bytes.is_empty() {
        return Err(SnapFault::Empty);
    }
    let (mut crc, mut inner) = (0, &[][..]);
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => crc = value.number()? as u32,
            (2, value) => inner = value.bytes()?,
            _ => {}
        }
    }
    // A checksum of zero counts as none, as etcd has it.
    if inner.is_empty() || crc == 0 {
        return Err(SnapFault::Empty);
    }
    if crc32c::crc32c(inner) != crc {
        return Err(SnapFault::CrcMismatch);
    }
    Ok(codec::snapshot_from(inner)?)
}

/// Reads any bytes as a `.snap` file.
#[doc(hidden)]
pub fn fuzz_decode(bytes: &[u8]) {
    if let Ok(snapshot) = decode(bytes) {
        assert_eq!(decode(&encode(&snapshot)), Ok(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::{raftpb, walpb};
    use prost::Message;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot {
            data: b"{}".to_vec().into(),
            ..Snapshot::default()
        };
        snapshot.mut_metadata().index = 300;
        snapshot.mut_metadata().term = 2;
        snapshot.mut_metadata().mut_conf_state().voters = vec![7, 1 << 40];
        snapshot
    }

    #[test]
    fn a_file_is_what_prost_makes_of_it_and_reads_back() {
        let bytes = encode(&snapshot());
        let inner = raftpb::Snapshot {
            data: Some(b"{}".to_vec().into()),
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: Some(raftpb::ConfState {
                    voters: vec![7, 1 << 40],
                    auto_leave: Some(false),
                    ..Default::default()
                }),
                index: Some(300),
                term: Some(2),
            }),
        }
        .encode_to_vec();
        let file = walpb::SnapFile {
            crc: Some(crc32c::crc32c(&inner)),
            data: Some(inner.into()),
        };
        assert_eq!(bytes, file.encode_to_vec());
        assert_eq!(decode(&bytes), Ok(snapshot()));
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let bytes = encode(&snapshot());
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // The checksum's varint has three bits more than the checksum; they say nothing.
            assert!(decode(&changed).map_or(true, |read| read == snapshot()), "bit {bit}");
            assert!(decode(&changed).is_err() || (44..=46).contains(&bit), "bit {bit}");
        }
        assert_eq!(decode(&[]), Err(SnapFault::Empty));
        assert_eq!(decode(&[0x08, 1]), Err(SnapFault::Empty));
        assert_eq!(decode(&[0x08, 1, 0x12, 1, 0]), Err(SnapFault::CrcMismatch));
    }

    #[test]
    fn names_are_etcds() {
        let name = SnapName::of(&snapshot());
        assert_eq!(name.to_string(), "0000000000000002-000000000000012c.snap");
        assert_eq!(SnapName::parse(&name.to_string()), Some(name));
        assert_eq!(SnapName::parse("0000000000000002-000000000000012c.snap.broken"), None);
        assert_eq!(database_name(LogIndex(300)), "000000000000012c.snap.db");
        assert_eq!(parse_database_name("000000000000012c.snap.db"), Some(LogIndex(300)));
        assert_eq!(parse_database_name("12c.snap.db"), None);
        assert_eq!(SnapName::parse("000000000000012c.snap.db"), None);
    }
}
