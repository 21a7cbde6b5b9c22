//! Requests of clients as the home core takes them, and the form in which writes enter the log.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{
    backend::SnapshotPart,
    base::RequestId,
    host::Sender,
    propose::method::Method,
    wire::{
        proto::etcdserverpb::{
            AlarmRequest, CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseCheckpointRequest,
            LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest,
            PutRequest, RangeRequest, TxnRequest,
        },
        proto::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest},
        status::Status,
    },
};

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The connection's place in its core's table.
    pub connection: u32,
    /// Which of those that had this place it is: an answer for an earlier one is dropped.
    pub incarnation: u32,
    /// The call's stream on the connection.
    pub stream: u32,
    /// What was called.
    pub method: Method,
}

/// A decoded and checked request with its ticket.
#[derive(Debug)]
pub struct Call {
    /// Whom the answer is for.
    pub ticket: Ticket,
    /// What is wanted.
    pub request: Request,
}

impl Call {
    /// Bytes of memory that it takes while it waits.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Call>() + self.request.message_bytes()
    }
}

/// An answer: the encoded response message, or why there is none.
#[derive(Debug)]
pub struct Reply {
    /// The call's stream on the connection.
    pub stream: u32,
    /// What was called.
    pub method: Method,
    /// The encoded response message, or why there is none.
    pub outcome: Result<Bytes, Status>,
    /// How much of the message it is.
    pub part: Part,
}

impl Reply {
    /// The whole answer to a call.
    pub fn whole(ticket: Ticket, outcome: Result<Bytes, impl Into<Status>>) -> Reply {
        Reply {
            stream: ticket.stream,
            method: ticket.method,
            outcome: outcome.map_err(Into::into),
            part: Part::Whole,
        }
    }

    /// The answer that says why there is none.
    pub fn refusal(ticket: Ticket, why: impl Into<Status>) -> Reply {
        Reply::whole(ticket, Err(why))
    }

    /// Bytes of its message.
    pub fn message_bytes(&self) -> usize {
        self.outcome.as_ref().map_or(0, Bytes::len)
    }
}

/// How much of a message an answer holds. Long lists are answered in parts, as their connection gets rid of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The beginning of one that has so many bytes.
    #[allow(missing_docs)]
    First { message_bytes: usize },
    /// What follows.
    Next,
    /// The end.
    Last,
}

/// Requests by what becomes of them.
#[derive(Debug)]
pub enum Request {
    /// Passes the log.
    Write(Write),
    /// Answered from this member's store.
    Read(Read),
    /// Work on the database file.
    File(FileWork),
}

impl Request {
    /// Bytes of what was asked, but for the few that all requests have.
    pub fn message_bytes(&self) -> usize {
        match self {
            Request::Write(write) => write.encoded_len(RequestId(0)),
            Request::Read(Read::Range(request)) => request.key.len() + request.range_end.len(),
            Request::Read(Read::Txn(request)) => request.encoded_len(),
            Request::Read(Read::Ask(Question::MemberAdd { peer_urls })) => peer_urls.iter().map(String::len).sum(),
            Request::Read(_) | Request::File(_) => 0,
        }
    }

    /// Whether the answer may have more than one key and its value.
    pub fn may_answer_much(&self) -> bool {
        match self {
            Request::Write(Write::DeleteRange(request)) => request.prev_kv,
            Request::Write(Write::Txn(_)) | Request::Read(Read::Txn(_) | Read::LeaseLeases) => true,
            Request::Read(Read::Range(request)) => !request.range_end.is_empty() && !request.count_only,
            Request::Write(_) | Request::Read(_) | Request::File(_) => false,
        }
    }
}

/// What is to become of a call.
#[derive(Debug)]
pub enum Admission {
    /// It goes on.
    Now(Call),
    /// It waits.
    Held,
    /// Too much waits already.
    Refused(Call),
}

/// What passes the log.
#[derive(Debug)]
#[allow(missing_docs)] // Named after etcd's requests.
pub enum Write {
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    Alarm(AlarmRequest),
    /// Of the leader's own: what is left of leases.
    LeaseCheckpoint(LeaseCheckpointRequest),
    /// Of the leader's own.
    ClusterVersionSet(ClusterVersionSetRequest),
    /// Of a member's own: its name and where clients reach it.
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
}

/// What is answered without the log; linearizable unless it says otherwise.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Read {
    Range(RangeRequest),
    /// A transaction that only reads.
    Txn(TxnRequest),
    LeaseKeepAlive(LeaseKeepAliveRequest),
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    LeaseLeases,
    /// Nothing but the moment: the health endpoints ask for it.
    Barrier {
        /// Whether this member alone may say.
        serializable: bool,
    },
    MemberList(MemberListRequest),
    Status,
    /// Asked of the state where the machinery behind the call is still to come.
    Ask(Question),
    /// What a scrape tells of the replica; it is laid on the desk.
    Gauges,
}

/// What a member can answer, or refuse, from what it knows.
#[derive(Debug)]
#[allow(missing_docs)] // Named after etcd's requests.
pub enum Question {
    AuthStatus,
    MemberAdd { peer_urls: Vec<String> },
    MemberRemove { id: u64 },
    MemberUpdate { id: u64 },
    MemberPromote { id: u64 },
    MoveLeader { target: u64 },
    Downgrade { action: i32, version: String },
}

/// What the store thread does, with the tree's file.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum FileWork {
    Hash,
    HashKv(HashKvRequest),
    Defragment,
    /// The file as a stream, for whoever holds the other end; there is no answer besides.
    Snapshot(Sender<SnapshotPart>),
}

/// Field numbers of `InternalRaftRequest`.
mod field {
    pub const PUT: u32 = 4;
    pub const DELETE_RANGE: u32 = 5;
    pub const TXN: u32 = 6;
    pub const COMPACTION: u32 = 7;
    pub const LEASE_GRANT: u32 = 8;
    pub const LEASE_REVOKE: u32 = 9;
    pub const ALARM: u32 = 10;
    pub const LEASE_CHECKPOINT: u32 = 11;
    pub const CLUSTER_VERSION_SET: u32 = 1300;
    pub const CLUSTER_MEMBER_ATTR_SET: u32 = 1301;
    pub const HEADER: u32 = 100;
    pub const HEADER_ID: u32 = 1;
}

impl Write {
    /// Bytes of the entry that [`Write::encode`] makes: what `--max-request-bytes` bounds.
    pub fn encoded_len(&self, request_id: RequestId) -> usize {
        let (field, message_len) = self.field_and_len();
        length_delimited_len(field, message_len) + length_delimited_len(field::HEADER, header_len(request_id))
    }

    /// Appends the request as a log entry's data, an `InternalRaftRequest`, to `arena`,
    /// and splits it off. Entries encoded into one arena share its memory.
    pub fn encode(&self, request_id: RequestId, arena: &mut BytesMut) -> Bytes {
        arena.reserve(self.encoded_len(request_id));
        let (field, message_len) = self.field_and_len();
        put_length_delimited_key(field, message_len, arena);
        match self {
            Write::Put(request) => request.encode_raw(arena),
            Write::DeleteRange(request) => request.encode_raw(arena),
            Write::Txn(request) => request.encode_raw(arena),
            Write::Compact(request) => request.encode_raw(arena),
            Write::LeaseGrant(request) => request.encode_raw(arena),
            Write::LeaseRevoke(request) => request.encode_raw(arena),
            Write::Alarm(request) => request.encode_raw(arena),
            Write::LeaseCheckpoint(request) => request.encode_raw(arena),
            Write::ClusterVersionSet(request) => request.encode_raw(arena),
            Write::ClusterMemberAttrSet(request) => request.encode_raw(arena),
        }
        put_length_delimited_key(field::HEADER, header_len(request_id), arena);
        prost::encoding::uint64::encode(field::HEADER_ID, &request_id.0, arena);
        arena.split().freeze()
    }

    fn field_and_len(&self) -> (u32, usize) {
        match self {
            Write::Put(request) => (field::PUT, request.encoded_len()),
            Write::DeleteRange(request) => (field::DELETE_RANGE, request.encoded_len()),
            Write::Txn(request) => (field::TXN, request.encoded_len()),
            Write::Compact(request) => (field::COMPACTION, request.encoded_len()),
            Write::LeaseGrant(request) => (field::LEASE_GRANT, request.encoded_len()),
            Write::LeaseRevoke(request) => (field::LEASE_REVOKE, request.encoded_len()),
            Write::Alarm(request) => (field::ALARM, request.encoded_len()),
            Write::LeaseCheckpoint(request) => (field::LEASE_CHECKPOINT, request.encoded_len()),
            Write::ClusterVersionSet(request) => (field::CLUSTER_VERSION_SET, request.encoded_len()),
            Write::ClusterMemberAttrSet(request) => (field::CLUSTER_MEMBER_ATTR_SET, request.encoded_len()),
        }
    }
}

fn header_len(request_id: RequestId) -> usize {
    prost::encoding::uint64::encoded_len(field::HEADER_ID, &request_id.0)
}

fn length_delimited_len(field: u32, message_len: usize) -> usize {
    prost::encoding::key_len(field) + prost::encoding::encoded_len_varint(message_len as u64) + message_len
}

fn put_length_delimited_key(field: u32, message_len: usize, buffer: &mut impl BufMut) {
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, buffer);
    prost::encoding::encode_varint(message_len as u64, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::etcdserverpb::{InternalRaftRequest, RequestHeader};

    #[test]
    fn an_entry_is_the_internal_raft_request_that_etcd_would_write() {
        let put = PutRequest {
            key: "k".into(),
            value: vec![7; 300].into(),
            lease: 5,
            ..PutRequest::default()
        };
        let header = RequestHeader {
            id: 0x1234_5678_9abc_def0,
            ..RequestHeader::default()
        };
        let expected = InternalRaftRequest {
            header: Some(header.clone()),
            put: Some(put.clone()),
            ..InternalRaftRequest::default()
        };
        let mut arena = BytesMut::new();
        let request_id = RequestId(header.id);
        let write = Write::Put(put);
        let entry = write.encode(request_id, &mut arena);
        assert_eq!(InternalRaftRequest::decode(entry.clone()).unwrap(), expected);
        assert_eq!(entry.len(), write.encoded_len(request_id));
        assert_eq!(entry, expected.encode_to_vec());

        let compact = CompactionRequest {
            revision: 9,
            physical: true,
        };
        let entry = Write::Compact(compact).encode(request_id, &mut arena);
        assert_eq!(InternalRaftRequest::decode(entry).unwrap().compaction, Some(compact));
    }
}
