//! Responses as bytes, written by hand where they are frequent or hold records that are encoded already.
//!
//! ```text
//!   0x0a len { 0x08 cluster 0x10 member 0x18 revision 0x20 term }  then what the response has
//! ```

use bytes::{BufMut, Bytes};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::outcome::Answer;
use crate::base::{ClusterId, MemberId, Reject, Term};
use crate::wire::proto::etcdserverpb::ResponseHeader;

/// The header of every response of this member, but for the revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderForm {
    cluster_id: ClusterId,
    member_id: MemberId,
    term: Term,
}

/// Longest encoded header: four numbers of up to ten bytes, with their tags.
const HEADER_LEN_MAX: usize = 44;

/// An encoded header, without a tag around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    bytes: [u8; HEADER_LEN_MAX],
    len: u8,
}

impl Header {
    const EMPTY: Header = Header {
        bytes: [0; HEADER_LEN_MAX],
        len: 0,
    };

    /// What a response within a transaction has: the revision alone.
    pub(super) fn nested(revision: i64) -> Header {
        let mut header = Header::EMPTY;
        header.push(3, revision as u64);
        header
    }

    fn push(&mut self, tag: u8, value: u64) {
        if value == 0 {
            return;
        }
        let start = usize::from(self.len);
        let mut rest = &mut self.bytes[start..];
        let room = rest.len();
        rest.put_u8(tag << 3);
        encode_varint(value, &mut rest);
        self.len += (room - rest.len()) as u8;
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl HeaderForm {
    pub(super) fn new(cluster_id: ClusterId, member_id: MemberId, term: Term) -> HeaderForm {
        HeaderForm {
            cluster_id,
            member_id,
            term,
        }
    }

    pub(super) fn set_term(&mut self, term: Term) {
        self.term = term;
    }

    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// The header at a revision; 0 for responses that carry none.
    #[inline]
    pub(super) fn at(&self, revision: i64) -> Header {
        let mut header = Header::EMPTY;
        header.push(1, self.cluster_id.0);
        header.push(2, self.member_id.0);
        header.push(3, revision as u64);
        header.push(4, self.term.0);
        header
    }

    /// The header as a message.
    pub(super) fn message(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id.0,
            member_id: self.member_id.0,
            revision,
            raft_term: self.term.0,
        }
    }
}

/// What an answer may still have of what is larger than its request: keys and values. Beyond it none is made, of which the
/// client is told ([`Reject::AnswerTooLarge`]); what was asked for is carried out all the same.
pub(super) struct AnswerRoom {
    left: usize,
    is_exceeded: bool,
}

impl AnswerRoom {
    pub(super) fn new(bytes_max: usize) -> AnswerRoom {
        AnswerRoom {
            left: bytes_max,
            is_exceeded: false,
        }
    }

    /// Whether there is room for so many bytes; once there was not, there is none.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes).filter(|_| !self.is_exceeded) {
            Some(left) => self.left = left,
            None => self.is_exceeded = true,
        }
        !self.is_exceeded
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    /// The answer, unless something had no room in it.
    pub(super) fn answer(self, response: Bytes) -> Answer {
        match self.is_exceeded {
            true => Err(Reject::AnswerTooLarge),
            false => Ok(response),
        }
    }
}

/// Bytes of an embedded field with a tag below 16.
pub(super) fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Appends an embedded field with a tag below 16.
pub(super) fn put_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put_field_head(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the head of an embedded field of `len` bytes, which the caller appends.
pub(super) fn put_field_head(out: &mut Vec<u8>, tag: u8, len: usize) {
    out.push(tag << 3 | 2);
    encode_varint(len as u64, out);
}

/// Appends a number, unless it is 0.
pub(super) fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag << 3);
        encode_varint(number as u64, out);
    }
}

/// A response that holds a header and nothing else.
pub(super) fn header_only(header: &Header) -> Bytes {
    with_records(header, None, &[])
}

/// A response that holds a header, perhaps a number under tag 2, and records under the tag after that.
fn with_records(header: &Header, number: Option<i64>, records: &[Bytes]) -> Bytes {
    let records_tag = if number.is_some() { 3 } else { 2 };
    let number_len = match number {
        None | Some(0) => 0,
        Some(number) => 1 + encoded_len_varint(number as u64),
    };
    let records_len: usize = records.iter().map(|record| field_len(record.len())).sum();
    let mut out = Vec::with_capacity(field_len(header.as_slice().len()) + number_len + records_len);
    put_field(&mut out, 1, header.as_slice());
    put_number(&mut out, 2, number.unwrap_or(0));
    for record in records {
        put_field(&mut out, records_tag, record);
    }
    out.into()
}

/// A `PutResponse`.
#[inline]
pub(super) fn put_response(header: &Header, previous: Option<&Bytes>) -> Bytes {
    with_records(header, None, previous.map_or(&[], std::slice::from_ref))
}

/// A `DeleteRangeResponse`.
pub(super) fn delete_range_response(header: &Header, deleted: usize, previous: &[Bytes]) -> Bytes {
    with_records(header, Some(deleted as i64), previous)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::proto::{etcdserverpb::*, mvccpb::KeyValue};

    #[test]
    fn responses_are_what_prost_would_write() {
        let form = HeaderForm::new(ClusterId(u64::MAX), MemberId(1 << 63), Term(3));
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 3,
            version: 1,
            value: Bytes::from(vec![b'v'; 300]),
            lease: 7,
        };
        let record = Bytes::from(kv.encode_to_vec());
        for revision in [0, 1, 128, i64::MAX] {
            let header = Some(form.message(revision));
            for prev_kv in [None, Some(kv.clone())] {
                let expected = PutResponse {
                    header,
                    prev_kv: prev_kv.clone(),
                }
                .encode_to_vec();
                let previous = prev_kv.map(|_| record.clone());
                assert_eq!(put_response(&form.at(revision), previous.as_ref())[..], expected);
            }
            for deleted in [0, 2] {
                let expected = DeleteRangeResponse {
                    header,
                    deleted,
                    prev_kvs: vec![kv.clone(); deleted as usize],
                };
                let previous = vec![record.clone(); deleted as usize];
                let response = delete_range_response(&form.at(revision), deleted as usize, &previous);
                assert_eq!(response[..], expected.encode_to_vec());
            }
            let expected = LeaseRevokeResponse { header }.encode_to_vec();
            assert_eq!(header_only(&form.at(revision))[..], expected);
        }
        let expected = ResponseHeader {
            revision: 300,
            ..ResponseHeader::default()
        };
        assert_eq!(Header::nested(300).as_slice(), expected.encode_to_vec());
    }
}
