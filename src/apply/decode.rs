//! From an entry's data to the request in it.
//!
//! An `InternalRaftRequest` has room for forty requests and holds one. Its fields are walked by hand and only the one
//! that is there is decoded: the message as a whole is a few kilobytes large, and clearing and dropping it would cost
//! more than a put does.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::base::RequestId;
use crate::wire::proto::etcdserverpb::*;
use crate::wire::proto::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};

/// A request of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseCheckpoint(LeaseCheckpointRequest),
    Alarm(AlarmRequest),
    ClusterVersionSet(ClusterVersionSetRequest),
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
    DowngradeInfoSet(DowngradeInfoSetRequest),
    /// The old form of requests about members and the cluster's version.
    V2(Box<Request>),
    /// Users, roles and whether they count.
    AuthChange,
    /// A question about users and roles that old releases put into the log, or a test of theirs: changes nothing.
    Nothing,
}

/// The entry is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Malformed {
        Malformed
    }
}

const TAG_ID: u32 = 1;
const TAG_V2: u32 = 2;
const TAG_HEADER: u32 = 100;

/// The request in an entry's data, and the id that its proposer waits for (0 if it has none).
pub(super) fn request(data: &Bytes) -> Result<(RequestId, Command), Malformed> {
    // Entries of old logs hold a v2 request without anything around it, which never reads as anything else: its method
    // would have to be a message.
    enveloped(data).or_else(|Malformed| v2(Request::decode(data.clone())?))
}

fn enveloped(data: &Bytes) -> Result<(RequestId, Command), Malformed> {
    match envelope(data)? {
        // An old request brings its own id.
        Some((_, TAG_V2, body)) => v2(Request::decode(body)?),
        Some((id, tag, body)) => Ok((id, command(tag, body)?)),
        None => whole(InternalRaftRequest::decode(data.clone())?),
    }
}

/// The one request of a message, undecoded; `None` if there is more than one field that could be it, or none.
fn envelope(data: &Bytes) -> Result<Option<(RequestId, u32, Bytes)>, Malformed> {
    let mut rest: &[u8] = data;
    let (mut id, mut header_id, mut found) = (0, 0, None);
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        match (tag, wire_type) {
            (TAG_ID, WireType::Varint) => id = decode_varint(&mut rest)?,
            (TAG_HEADER, WireType::LengthDelimited) => header_id = id_of_header(take(&mut rest)?)?,
            (tag, WireType::LengthDelimited) if is_request(tag) => {
                let len = take(&mut rest)?.len();
                let end = data.len() - rest.len();
                if found.replace((tag, end - len..end)).is_some() {
                    return Ok(None);
                }
            }
            (tag, _) if matches!(tag, TAG_ID | TAG_HEADER) || is_request(tag) => return Err(Malformed),
            // Of a newer etcd: what it says besides is passed over, as a whole message would be read.
            _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default())?,
        }
    }
    let id = if id == 0 { header_id } else { id };
    Ok(found.map(|(tag, body)| (RequestId(id), tag, data.slice(body))))
}

/// Whether a field of the message is a request.
fn is_request(tag: u32) -> bool {
    matches!(tag, TAG_V2..=11 | 1000 | 1011..=1013 | 1100..=1107 | 1200..=1204 | 1300..=1302 | 9900)
}

/// The id in a `RequestHeader`; user and revision are not looked at.
fn id_of_header(mut header: &[u8]) -> Result<u64, Malformed> {
    let mut id = 0;
    while !header.is_empty() {
        let (tag, wire_type) = decode_key(&mut header)?;
        match (tag, wire_type) {
            (1, WireType::Varint) => id = decode_varint(&mut header)?,
            (1, _) => return Err(Malformed),
            _ => skip_field(wire_type, tag, &mut header, DecodeContext::default())?,
        }
    }
    Ok(id)
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(decode_varint(rest)?).map_err(|_| Malformed)?;
    let (taken, left) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = left;
    Ok(taken)
}

fn command(tag: u32, body: Bytes) -> Result<Command, Malformed> {
    Ok(match tag {
        3 => Command::Range(Message::decode(body)?),
        4 => Command::Put(Message::decode(body)?),
        5 => Command::DeleteRange(Message::decode(body)?),
        6 => Command::Txn(Message::decode(body)?),
        7 => Command::Compaction(Message::decode(body)?),
        8 => Command::LeaseGrant(Message::decode(body)?),
        9 => Command::LeaseRevoke(Message::decode(body)?),
        10 => Command::Alarm(Message::decode(body)?),
        11 => Command::LeaseCheckpoint(Message::decode(body)?),
        1300 => Command::ClusterVersionSet(Message::decode(body)?),
        1301 => Command::ClusterMemberAttrSet(Message::decode(body)?),
        1302 => Command::DowngradeInfoSet(Message::decode(body)?),
        // Disabling what cannot be enabled changes nothing; nor do questions: authenticate, status, get, list.
        1011 | 1012 | 1013 | 1102 | 1106 | 1107 | 1202 | 9900 => Command::Nothing,
        1000 | 1100 | 1101 | 1103..=1105 | 1200 | 1201 | 1203 | 1204 => Command::AuthChange,
        _ => return Err(Malformed),
    })
}

/// A message with several requests in it: the one that etcd would pick.
fn whole(request: InternalRaftRequest) -> Result<(RequestId, Command), Malformed> {
    let id = match (request.id, &request.header) {
        (0, Some(header)) => header.id,
        (id, _) => id,
    };
    if let Some(old) = request.v2 {
        return v2(old);
    }
    let membership = [
        request.cluster_version_set.map(Command::ClusterVersionSet),
        request.cluster_member_attr_set.map(Command::ClusterMemberAttrSet),
        request.downgrade_info_set.map(Command::DowngradeInfoSet),
    ];
    let others = [
        request.range.map(Command::Range),
        request.put.map(Command::Put),
        request.delete_range.map(Command::DeleteRange),
        request.txn.map(Command::Txn),
        request.compaction.map(Command::Compaction),
        request.lease_grant.map(Command::LeaseGrant),
        request.lease_revoke.map(Command::LeaseRevoke),
        request.lease_checkpoint.map(Command::LeaseCheckpoint),
        request.alarm.map(Command::Alarm),
    ];
    let is_auth_change = request.auth_enable.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_change_password.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some();
    let is_question = request.auth_disable.is_some()
        || request.authenticate.is_some()
        || request.auth_status.is_some()
        || request.auth_user_get.is_some()
        || request.auth_user_list.is_some()
        || request.auth_role_get.is_some()
        || request.auth_role_list.is_some()
        || request.downgrade_version_test.is_some();
    let mut found = membership.into_iter().chain(others).flatten();
    match found.next() {
        Some(command) => Ok((RequestId(id), command)),
        None if is_auth_change => Ok((RequestId(id), Command::AuthChange)),
        None if is_question => Ok((RequestId(id), Command::Nothing)),
        None => Err(Malformed),
    }
}

fn v2(request: Request) -> Result<(RequestId, Command), Malformed> {
    // Any bytes with plausible tags decode to something; what etcd ever logged has a method.
    let is_known = matches!(&request.method[..], "POST" | "PUT" | "DELETE" | "QGET" | "SYNC");
    match is_known {
        true => Ok((RequestId(request.id), Command::V2(Box::new(request)))),
        false => Err(Malformed),
    }
}

/// Fuzz entry: any bytes are a request or are refused, and walking by hand finds what decoding the whole finds.
pub fn fuzz_request(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let by_hand = request(&data);
    if let Ok(message) = InternalRaftRequest::decode(data)
        && let Ok((id, command)) = whole(message)
        && !matches!(command, Command::V2(_))
    {
        assert_eq!(by_hand, Ok((id, command)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(request_of: InternalRaftRequest) -> Result<(RequestId, Command), Malformed> {
        request(&request_of.encode_to_vec().into())
    }

    #[test]
    fn id_stands_in_the_header_or_before_everything() {
        let put = PutRequest {
            key: Bytes::from_static(b"k"),
            ..PutRequest::default()
        };
        let header = Some(RequestHeader {
            id: 9,
            username: "someone".to_owned(),
            auth_revision: 4,
        });
        let message = InternalRaftRequest {
            header,
            put: Some(put.clone()),
            ..InternalRaftRequest::default()
        };
        assert_eq!(
            round_trip(message.clone()),
            Ok((RequestId(9), Command::Put(put.clone())))
        );
        assert_eq!(
            round_trip(InternalRaftRequest { id: 5, ..message }),
            Ok((RequestId(5), Command::Put(put)))
        );
    }

    #[test]
    fn old_request_is_read_with_and_without_an_envelope() {
        let old = Request {
            id: 7,
            method: "PUT".to_owned(),
            path: "/0/version".to_owned(),
            val: "3.5.0".to_owned(),
            ..Request::default()
        };
        let expected = Ok((RequestId(7), Command::V2(Box::new(old.clone()))));
        assert_eq!(request(&old.encode_to_vec().into()), expected);
        let message = InternalRaftRequest {
            v2: Some(old.clone()),
            ..InternalRaftRequest::default()
        };
        assert_eq!(round_trip(message), expected);
        for method in ["POST", "DELETE", "QGET", "SYNC"] {
            let old = Request {
                method: method.to_owned(),
                ..old.clone()
            };
            let read = request(&old.encode_to_vec().into());
            assert_eq!(read, Ok((RequestId(7), Command::V2(Box::new(old)))));
        }
    }

    #[test]
    fn of_several_requests_the_one_counts_that_etcd_picks() {
        let message = InternalRaftRequest {
            put: Some(PutRequest::default()),
            range: Some(RangeRequest::default()),
            ..InternalRaftRequest::default()
        };
        assert_eq!(
            round_trip(message),
            Ok((RequestId(0), Command::Range(RangeRequest::default())))
        );
        assert_eq!(round_trip(InternalRaftRequest::default()), Err(Malformed));
    }
}
