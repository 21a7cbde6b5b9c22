//! One `etcdserverpb.WatchResponse` on its way to a stream.
//!
//! ```text
//!   header 1 | watch_id 2 | created 3 | canceled 4 | compact_revision 5 | cancel_reason 6 | fragment 7 | events 11 ...
//!   └───────────────────────── a head of some 40 bytes, for each watcher ─────────────────┘ └ shared by all who share it
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::encoded_len_varint;

/// What a response's header says beside the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseIdentity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member that answers.
    pub member_id: u64,
    /// raft's term.
    pub raft_term: u64,
}

/// One response. It is encoded when it is sent, its events when they happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The watcher, or -1 for all of the stream.
    pub watch_id: i64,
    /// The revision for the header; 0 in the notice that a watcher was compacted away.
    pub revision: i64,
    /// More of the same revision follows.
    pub is_fragment: bool,
    /// What is not an event, if this is about that.
    pub control: Option<Box<Control>>,
    /// Events in `body`.
    pub events: u32,
    /// The encoded events, tags and lengths included.
    pub body: Bytes,
}

/// What a response says of a watcher itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The watcher was created, or refused if `is_canceled` too.
    pub is_created: bool,
    /// The watcher is no more.
    pub is_canceled: bool,
    /// The compacted revision, if that is why.
    pub compact_revision: i64,
    /// Why, in words.
    pub cancel_reason: String,
}

impl Response {
    /// Whether it tells the revision alone.
    pub fn is_progress(&self) -> bool {
        self.control.is_none() && self.events == 0
    }

    /// Length of the encoded response in bytes.
    pub fn encoded_len(&self, identity: &ResponseIdentity) -> usize {
        let header = header_len(identity, self.revision);
        let mut len = 1 + encoded_len_varint(header as u64) + header;
        len += len_number(self.watch_id as u64) + usize::from(self.is_fragment) * 2;
        if let Some(control) = &self.control {
            len += usize::from(control.is_created) * 2 + usize::from(control.is_canceled) * 2;
            len += len_number(control.compact_revision as u64);
            if !control.cancel_reason.is_empty() {
                let reason = control.cancel_reason.len();
                len += 1 + encoded_len_varint(reason as u64) + reason;
            }
        }
        len + self.body.len()
    }

    /// Appends everything but the body, which follows it unchanged.
    pub fn encode_head(&self, identity: &ResponseIdentity, out: &mut BytesMut) {
        let mut head = Head::default();
        head.bytes(&[1 << 3 | 2]);
        head.varint(header_len(identity, self.revision) as u64);
        head.number(1, identity.cluster_id);
        head.number(2, identity.member_id);
        head.number(3, self.revision as u64);
        head.number(4, identity.raft_term);
        head.number(2, self.watch_id as u64);
        if let Some(control) = &self.control {
            head.number(3, u64::from(control.is_created));
            head.number(4, u64::from(control.is_canceled));
            head.number(5, control.compact_revision as u64);
            if !control.cancel_reason.is_empty() {
                head.bytes(&[6 << 3 | 2]);
                head.varint(control.cancel_reason.len() as u64);
                out.put_slice(head.written());
                out.put_slice(control.cancel_reason.as_bytes());
                head = Head::default();
            }
        }
        head.number(7, u64::from(self.is_fragment));
        out.put_slice(head.written());
    }

    /// Appends the encoded response.
    pub fn encode_to(&self, identity: &ResponseIdentity, out: &mut BytesMut) {
        out.reserve(self.encoded_len(identity));
        self.encode_head(identity, out);
        out.put_slice(&self.body);
    }
}

fn header_len(identity: &ResponseIdentity, revision: i64) -> usize {
    len_number(identity.cluster_id)
        + len_number(identity.member_id)
        + len_number(revision as u64)
        + len_number(identity.raft_term)
}

fn len_number(number: u64) -> usize {
    match number {
        0 => 0,
        number => 1 + encoded_len_varint(number),
    }
}

/// Room for all numbers of a response, written in one go: this is done for each watcher of each event.
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

/// Two lengths, six numbers of 64 bits and three flags, each with its tag.
const HEAD_BYTES_MAX: usize = 2 * 11 + 6 * 11 + 3 * 2;

impl Default for Head {
    fn default() -> Head {
        Head {
            bytes: [0; HEAD_BYTES_MAX],
            len: 0,
        }
    }
}

impl Head {
    fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes[self.len] = number as u8 | 0x80;
            self.len += 1;
            number >>= 7;
        }
        self.bytes[self.len] = number as u8;
        self.len += 1;
    }

    fn number(&mut self, tag: u8, number: u64) {
        if number != 0 {
            self.bytes(&[tag << 3]);
            self.varint(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::proto::etcdserverpb::{ResponseHeader, WatchResponse};

    proptest! {
        #[test]
        fn response_is_encoded_as_prost_encodes_it(
            ids: (u64, u64, u64), watch_id: i64, revision in -1..1000i64, flags: (bool, bool, bool, bool),
            compact_revision in 0..300i64, cancel_reason in "[a-z ]{0,200}",
        ) {
            let identity = ResponseIdentity { cluster_id: ids.0, member_id: ids.1, raft_term: ids.2 };
            let control = Control { is_created: flags.0, is_canceled: flags.1, compact_revision, cancel_reason };
            let response = Response {
                watch_id,
                revision,
                is_fragment: flags.2,
                control: flags.3.then(|| Box::new(control.clone())),
                events: 0,
                body: Bytes::new(),
            };
            let mut message = WatchResponse {
                header: Some(ResponseHeader {
                    cluster_id: ids.0, member_id: ids.1, revision, raft_term: ids.2,
                }),
                watch_id,
                fragment: flags.2,
                ..WatchResponse::default()
            };
            if flags.3 {
                message.created = control.is_created;
                message.canceled = control.is_canceled;
                message.compact_revision = control.compact_revision;
                message.cancel_reason = control.cancel_reason;
            }
            let mut out = BytesMut::new();
            response.encode_to(&identity, &mut out);
            prop_assert_eq!(out.len(), response.encoded_len(&identity));
            prop_assert_eq!(&out[..], &message.encode_to_vec()[..]);
        }
    }
}
