//! raft's messages as etcd marshals them, and back. By hand: the log is written for every request, and what is read
//! from a disk is never given to raft-rs's protobuf runtime.
//!
//! etcd's generated code always writes the scalar fields of these messages, zero or not, and writes `data` only when
//! there is some. What raft-rs's messages have beyond etcd's (an entry's `context` and `sync_log`) does not exist here.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata};

use super::WalSnapshot;
use crate::base::{LogIndex, Term};

/// Bytes that are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One field of a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which no message of the log has; skipped as unknown.
    Fixed,
}

impl<'a> Field<'a> {
    /// The number, or `Malformed` if the field is of another kind.
    pub(crate) fn number(self) -> Result<u64, Malformed> {
        match self {
            Field::Varint(number) => Ok(number),
            _ => Err(Malformed),
        }
    }

    /// The bytes, or `Malformed` if the field is of another kind.
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }
}

/// Walks the fields of a protobuf message. Ends after the first error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub(crate) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// What has not been walked yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes that the next field says it has, key and length included, if it is bytes and has this number.
    pub(crate) fn announced_len(mut self, number: u64) -> Option<u64> {
        let before = self.rest.len();
        let key = self.varint().ok()?;
        let len = self.varint().ok()?;
        let head_len = (before - self.rest.len()) as u64;
        (key == number << 3 | 2).then(|| len.saturating_add(head_len))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (position, &byte) in self.rest.iter().take(VARINT_LEN_MAX).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                self.rest = &self.rest[position + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), Malformed> {
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > u64::from(u32::MAX >> 3) {
            return Err(Malformed);
        }
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((number, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Bytes of the longest varint.
const VARINT_LEN_MAX: usize = 10;

/// Bytes of a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A few bytes on the stack: the fixed part of a record, small enough to build without an allocation.
pub(crate) struct Head {
    bytes: [u8; Head::CAPACITY],
    len: usize,
}

impl Head {
    /// An entry's fields need 30 bytes at most, a record's 27.
    const CAPACITY: usize = 48;

    pub(crate) fn new() -> Head {
        Head {
            bytes: [0; Head::CAPACITY],
            len: 0,
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// A key of one byte, then a varint.
    pub(crate) fn varint(&mut self, key: u8, mut value: u64) {
        self.byte(key);
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }
}

/// An entry but for the bytes of its data, which follow.
pub(crate) fn entry_head(entry: &Entry) -> Head {
    let mut head = Head::new();
    head.varint(0x08, entry.entry_type as u64);
    head.varint(0x10, entry.term);
    head.varint(0x18, entry.index);
    if !entry.data.is_empty() {
        head.varint(0x22, entry.data.len() as u64);
    }
    head
}

/// A hard state.
pub(crate) fn hard_state_bytes(hard_state: &HardState) -> Head {
    let mut head = Head::new();
    head.varint(0x08, hard_state.term);
    head.varint(0x10, hard_state.vote);
    head.varint(0x18, hard_state.commit);
    head
}

fn put_varint(out: &mut Vec<u8>, key: u8, value: u64) {
    let mut head = Head::new();
    head.varint(key, value);
    out.extend_from_slice(head.as_slice());
}

fn put_bytes(out: &mut Vec<u8>, key: u8, bytes: &[u8]) {
    put_varint(out, key, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A conf state; etcd repeats a key for each member and always writes `auto_leave`.
pub(crate) fn conf_state_bytes(conf_state: &ConfState) -> Vec<u8> {
    let mut out = Vec::new();
    let lists = [
        (0x08, &conf_state.voters),
        (0x10, &conf_state.learners),
        (0x18, &conf_state.voters_outgoing),
        (0x20, &conf_state.learners_next),
    ];
    for (key, members) in lists {
        for &member in members {
            put_varint(&mut out, key, member);
        }
    }
    put_varint(&mut out, 0x28, u64::from(conf_state.auto_leave));
    out
}

/// A snapshot as the log has it.
pub(crate) fn wal_snapshot_bytes(snapshot: &WalSnapshot) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, 0x08, snapshot.index.0);
    put_varint(&mut out, 0x10, snapshot.term.0);
    if let Some(conf_state) = &snapshot.conf_state {
        put_bytes(&mut out, 0x1a, &conf_state_bytes(conf_state));
    }
    out
}

/// A snapshot as its file has it. Metadata and conf state are always there, empty or not.
pub(crate) fn snapshot_bytes(snapshot: &Snapshot) -> Vec<u8> {
    let metadata = snapshot.get_metadata();
    let mut inner = Vec::new();
    put_bytes(&mut inner, 0x0a, &conf_state_bytes(metadata.get_conf_state()));
    put_varint(&mut inner, 0x10, metadata.index);
    put_varint(&mut inner, 0x18, metadata.term);
    let mut out = Vec::with_capacity(snapshot.data.len() + inner.len() + 16);
    if !snapshot.data.is_empty() {
        put_bytes(&mut out, 0x0a, &snapshot.data);
    }
    put_bytes(&mut out, 0x12, &inner);
    out
}

/// Reads an entry; its data is copied, so that it does not hold on to the segment it came from.
pub(crate) fn entry_from(bytes: &[u8]) -> Result<Entry, Malformed> {
    let mut entry = Entry::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => entry.entry_type = entry_type_from(value.number()?)?,
            (2, value) => entry.term = value.number()?,
            (3, value) => entry.index = value.number()?,
            (4, value) => entry.data = Bytes::copy_from_slice(value.bytes()?),
            _ => {}
        }
    }
    Ok(entry)
}

fn entry_type_from(number: u64) -> Result<EntryType, Malformed> {
    match number {
        0 => Ok(EntryType::EntryNormal),
        1 => Ok(EntryType::EntryConfChange),
        2 => Ok(EntryType::EntryConfChangeV2),
        _ => Err(Malformed),
    }
}

/// Reads a hard state. A field that etcd does not know is an error here: the checksum does not cover a record's kind, and
/// so an entry whose kind has changed is not taken for a hard state.
pub(crate) fn hard_state_from(bytes: &[u8]) -> Result<HardState, Malformed> {
    let mut hard_state = HardState::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => hard_state.term = value.number()?,
            (2, value) => hard_state.vote = value.number()?,
            (3, value) => hard_state.commit = value.number()?,
            _ => return Err(Malformed),
        }
    }
    Ok(hard_state)
}

/// Reads a conf state, its lists packed or not.
pub(crate) fn conf_state_from(bytes: &[u8]) -> Result<ConfState, Malformed> {
    let mut conf_state = ConfState::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => member_ids_into(&mut conf_state.voters, value)?,
            (2, value) => member_ids_into(&mut conf_state.learners, value)?,
            (3, value) => member_ids_into(&mut conf_state.voters_outgoing, value)?,
            (4, value) => member_ids_into(&mut conf_state.learners_next, value)?,
            (5, value) => conf_state.auto_leave = value.number()? != 0,
            _ => {}
        }
    }
    Ok(conf_state)
}

fn member_ids_into(members: &mut Vec<u64>, field: Field<'_>) -> Result<(), Malformed> {
    match field {
        Field::Varint(member) => members.push(member),
        Field::Bytes(packed) => {
            let mut rest = Fields::new(packed);
            while !rest.rest().is_empty() {
                members.push(rest.varint()?);
            }
        }
        Field::Fixed => return Err(Malformed),
    }
    Ok(())
}

/// Reads a snapshot as the log has it.
pub(crate) fn wal_snapshot_from(bytes: &[u8]) -> Result<WalSnapshot, Malformed> {
    let mut snapshot = WalSnapshot::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => snapshot.index = LogIndex(value.number()?),
            (2, value) => snapshot.term = Term(value.number()?),
            (3, value) => snapshot.conf_state = Some(conf_state_from(value.bytes()?)?),
            _ => {}
        }
    }
    Ok(snapshot)
}

/// Reads a snapshot as its file has it.
pub(crate) fn snapshot_from(bytes: &[u8]) -> Result<Snapshot, Malformed> {
    let mut snapshot = Snapshot::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => snapshot.data = Bytes::copy_from_slice(value.bytes()?),
            (2, value) => snapshot.metadata = Some(snapshot_metadata_from(value.bytes()?)?).into(),
            _ => {}
        }
    }
    Ok(snapshot)
}

fn snapshot_metadata_from(bytes: &[u8]) -> Result<SnapshotMetadata, Malformed> {
    let mut metadata = SnapshotMetadata::default();
    for field in Fields::new(bytes) {
        match field? {
            (1, value) => metadata.conf_state = Some(conf_state_from(value.bytes()?)?).into(),
            (2, value) => metadata.index = value.number()?,
            (3, value) => metadata.term = value.number()?,
            _ => {}
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::{raftpb, walpb};
    use proptest::prelude::*;
    use prost::Message;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(127), Just(128), Just(u64::MAX), any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn entries_and_hard_states_are_what_prost_makes_of_them(
            kind in 0..3i32, numbers in (number(), number(), number()), data in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let entry = Entry {
                entry_type: entry_type_from(kind as u64).unwrap(),
                term: numbers.0,
                index: numbers.1,
                data: data.clone().into(),
                ..Entry::default()
            };
            let mut bytes = entry_head(&entry).as_slice().to_vec();
            bytes.extend_from_slice(&entry.data);
            let other = raftpb::Entry {
                r#type: Some(kind),
                term: Some(numbers.0),
                index: Some(numbers.1),
                data: (!data.is_empty()).then(|| data.into()),
            };
            prop_assert_eq!(&bytes, &other.encode_to_vec());
            prop_assert_eq!(entry_from(&bytes), Ok(entry));

            let mut hard_state = HardState::default();
            (hard_state.term, hard_state.vote, hard_state.commit) = numbers;
            let bytes = hard_state_bytes(&hard_state);
            let other = raftpb::HardState { term: Some(numbers.0), vote: Some(numbers.1), commit: Some(numbers.2) };
            prop_assert_eq!(bytes.as_slice(), &other.encode_to_vec());
            prop_assert_eq!(hard_state_from(bytes.as_slice()), Ok(hard_state));
        }

        #[test]
        fn snapshots_are_what_prost_makes_of_them(
            lists in prop::collection::vec(prop::collection::vec(number(), 0..4), 4), index in number(), term in number(),
            auto_leave in any::<bool>(), data in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut conf_state = ConfState::default();
            (conf_state.voters, conf_state.learners) = (lists[0].clone(), lists[1].clone());
            (conf_state.voters_outgoing, conf_state.learners_next) = (lists[2].clone(), lists[3].clone());
            conf_state.auto_leave = auto_leave;
            let other = raftpb::ConfState {
                voters: lists[0].clone(), learners: lists[1].clone(), voters_outgoing: lists[2].clone(),
                learners_next: lists[3].clone(), auto_leave: Some(auto_leave),
            };
            let ours = WalSnapshot { index: LogIndex(index), term: Term(term), conf_state: Some(conf_state.clone()) };
            let bytes = wal_snapshot_bytes(&ours);
            let theirs = walpb::Snapshot { index: Some(index), term: Some(term), conf_state: Some(other.clone()) };
            prop_assert_eq!(&bytes, &theirs.encode_to_vec());
            prop_assert_eq!(wal_snapshot_from(&bytes), Ok(ours));

            let mut ours = Snapshot { data: data.clone().into(), ..Snapshot::default() };
            ours.mut_metadata().index = index;
            ours.mut_metadata().term = term;
            *ours.mut_metadata().mut_conf_state() = conf_state;
            let bytes = snapshot_bytes(&ours);
            let metadata = raftpb::SnapshotMetadata { conf_state: Some(other), index: Some(index), term: Some(term) };
            let theirs = raftpb::Snapshot { data: (!data.is_empty()).then(|| data.into()), metadata: Some(metadata) };
            prop_assert_eq!(&bytes, &theirs.encode_to_vec());
            prop_assert_eq!(snapshot_from(&bytes), Ok(ours));
        }

        #[test]
        fn varint_length_is_the_number_of_bytes_written(value in number()) {
            let mut head = Head::new();
            head.varint(0x08, value);
            prop_assert_eq!(head.as_slice().len(), 1 + varint_len(value));
        }
    }

    #[test]
    fn packed_lists_are_read_and_wrong_wire_types_are_not() {
        let packed = conf_state_from(&[0x0a, 3, 1, 0x80, 1]).unwrap();
        assert_eq!(packed.voters, [1, 128]);
        assert_eq!(entry_from(&[0x22, 5, 0]), Err(Malformed));
        assert_eq!(entry_from(&[0x0a, 0]), Err(Malformed));
        assert_eq!(entry_from(&[0x08, 3]), Err(Malformed));
        assert_eq!(entry_from(&[0x00]), Err(Malformed));
        assert_eq!(hard_state_from(&[0x0b]), Err(Malformed));
        assert_eq!(hard_state_from(&[0xff; 11]), Err(Malformed));
    }
}
