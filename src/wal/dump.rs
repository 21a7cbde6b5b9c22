//! The log as text, one line per record, for people who ask what is in it. Keys are shown, cut to a readable length;
//! of values only the size; of passwords nothing.

use std::fmt::Write;

use prost::Message;
use raft::eraftpb::{Entry, EntryType};

use super::{
    WalFault, codec,
    decoder::{LogDecoder, Record, RecordSink},
    record::RecordKind,
};
use crate::wire::proto::{
    etcdserverpb::{InternalRaftRequest, Request, RequestOp, TxnRequest, request_op},
    raftpb, walpb,
};

/// Hands a line for each record, and one for each segment, to its function.
pub struct Dump<F> {
    write_line: F,
    segment: String,
}

/// Bytes of a key, a path or a name that are shown.
const SHOWN_BYTES_MAX: usize = 64;

impl<F: FnMut(&str)> Dump<F> {
    /// A dump that writes lines with `write_line`.
    pub fn new(write_line: F) -> Dump<F> {
        Dump {
            write_line,
            segment: String::new(),
        }
    }
}

impl<F: FnMut(&str)> RecordSink for Dump<F> {
    fn take(&mut self, record: Record<'_>, decoder: &LogDecoder) -> Result<(), WalFault> {
        let position = decoder.position();
        if position.segment != self.segment {
            (self.write_line)(&format!("WAL segment {}", position.segment));
            self.segment = position.segment;
        }
        (self.write_line)(&format!("{:>8}\t{}", position.offset, record_text(record)));
        Ok(())
    }
}

/// A record as text.
pub fn record_text(record: Record<'_>) -> String {
    let data = record.data;
    match record.kind {
        RecordKind::Metadata => match walpb::Metadata::decode(data) {
            Ok(metadata) => format!(
                "metadata\tnodeID={:x} clusterID={:x}",
                metadata.node_id(),
                metadata.cluster_id()
            ),
            Err(_) => "metadata\t???".to_string(),
        },
        RecordKind::Entry => match codec::entry_from(data) {
            Ok(entry) => format!("entry\t{}", entry_text(&entry)),
            Err(_) => "entry\t???".to_string(),
        },
        RecordKind::HardState => match codec::hard_state_from(data) {
            Ok(state) => format!(
                "state\tterm={} commitIndex={} vote={:x}",
                state.term, state.commit, state.vote
            ),
            Err(_) => "state\t???".to_string(),
        },
        RecordKind::Crc if data.is_empty() => format!("crc\t{:08x}", record.crc),
        RecordKind::Crc => format!("crc\t{:08x} filler={}", record.crc, data.len()),
        RecordKind::Snapshot => match codec::wal_snapshot_from(data) {
            Ok(snapshot) => {
                let mut text = format!("snapshot\tterm={} index={}", snapshot.term, snapshot.index);
                if let Some(conf_state) = snapshot.conf_state {
                    let _ = write!(text, " nodes={}", ids(&conf_state.voters));
                    if !conf_state.learners.is_empty() {
                        let _ = write!(text, " learners={}", ids(&conf_state.learners));
                    }
                }
                text
            }
            Err(_) => "snapshot\t???".to_string(),
        },
    }
}

/// An entry as text: term, index, type, data.
pub fn entry_text(entry: &Entry) -> String {
    let mut text = format!("{:>4}\t{:>10}\t", entry.term, entry.index);
    match entry.entry_type {
        EntryType::EntryNormal => text.push_str(&format!("norm\t{}", normal_text(&entry.data))),
        EntryType::EntryConfChange => text.push_str(&format!("conf\t{}", conf_change_text(&entry.data))),
        EntryType::EntryConfChangeV2 => text.push_str("confv2"),
    }
    text
}

fn conf_change_text(data: &[u8]) -> String {
    match raftpb::ConfChange::decode(data) {
        Ok(change) => format!("method={} id={:x}", change.r#type().as_str_name(), change.node_id()),
        Err(_) => "???".to_string(),
    }
}

/// What a normal entry asks for: nothing, a request, or (from servers before 3.6) a bare v2 request.
fn normal_text(data: &[u8]) -> String {
    if data.is_empty() {
        return "noop".to_string();
    }
    if let Ok(request) = InternalRaftRequest::decode(data) {
        let id = match &request.header {
            Some(header) if header.id != 0 => header.id,
            _ => request.id,
        };
        return format!("ID:{id} {}", request_text(&request));
    }
    match Request::decode(data) {
        Ok(request) => v2_text(&request),
        Err(_) => "???".to_string(),
    }
}

fn v2_text(request: &Request) -> String {
    match request.method.as_str() {
        "" => "noop".to_string(),
        "SYNC" => format!("method=SYNC time={}", request.time),
        method => format!(
            "method={} path={} val={}B",
            shown(method.as_bytes()),
            shown(request.path.as_bytes()),
            request.val.len()
        ),
    }
}

fn request_text(request: &InternalRaftRequest) -> String {
    if let Some(put) = &request.put {
        let lease = if put.lease == 0 {
            String::new()
        } else {
            format!(" lease={:x}", put.lease)
        };
        return format!("put key={} value={}B{lease}", shown(&put.key), put.value.len());
    }
    if let Some(range) = &request.range {
        return format!("range {}", span(&range.key, &range.range_end));
    }
    if let Some(delete_range) = &request.delete_range {
        return format!("delete_range {}", span(&delete_range.key, &delete_range.range_end));
    }
    if let Some(txn) = &request.txn {
        return format!("txn {}", txn_text(txn));
    }
    if let Some(compaction) = &request.compaction {
        return format!(
            "compaction revision={} physical={}",
            compaction.revision, compaction.physical
        );
    }
    if let Some(grant) = &request.lease_grant {
        return format!("lease_grant id={:x} ttl={}", grant.id, grant.ttl);
    }
    if let Some(revoke) = &request.lease_revoke {
        return format!("lease_revoke id={:x}", revoke.id);
    }
    if let Some(checkpoint) = &request.lease_checkpoint {
        return format!("lease_checkpoint leases={}", checkpoint.checkpoints.len());
    }
    if let Some(alarm) = &request.alarm {
        let (action, member_id, alarm) = (alarm.action, alarm.member_id, alarm.alarm);
        return format!("alarm action={action} member={member_id:x} alarm={alarm}");
    }
    if let Some(version) = &request.cluster_version_set {
        return format!("cluster_version_set ver={}", shown(version.ver.as_bytes()));
    }
    if let Some(set) = &request.cluster_member_attr_set {
        let name = set.member_attributes.as_ref().map_or("", |attributes| &attributes.name);
        return format!(
            "cluster_member_attr_set member={:x} name={}",
            set.member_id,
            shown(name.as_bytes())
        );
    }
    if let Some(downgrade) = &request.downgrade_info_set {
        let ver = shown(downgrade.ver.as_bytes());
        return format!("downgrade_info_set enabled={} ver={ver}", downgrade.enabled);
    }
    auth_text(request)
}

/// Kind, and whom or what it is about.
fn auth_text(of: &InternalRaftRequest) -> String {
    let kinds = [
        about("auth_enable", &of.auth_enable, |_| ["", ""]),
        about("auth_disable", &of.auth_disable, |_| ["", ""]),
        about("auth_status", &of.auth_status, |_| ["", ""]),
        about("auth_user_list", &of.auth_user_list, |_| ["", ""]),
        about("auth_role_list", &of.auth_role_list, |_| ["", ""]),
        about("downgrade_version_test", &of.downgrade_version_test, |_| ["", ""]),
        about("authenticate", &of.authenticate, |it| [&it.name, ""]),
        about("auth_user_add", &of.auth_user_add, |it| [&it.name, ""]),
        about("auth_user_delete", &of.auth_user_delete, |it| [&it.name, ""]),
        about("auth_user_get", &of.auth_user_get, |it| [&it.name, ""]),
        about("auth_user_change_password", &of.auth_user_change_password, |it| {
            [&it.name, ""]
        }),
        about("auth_user_grant_role", &of.auth_user_grant_role, |it| {
            [&it.user, &it.role]
        }),
        about("auth_user_revoke_role", &of.auth_user_revoke_role, |it| {
            [&it.name, &it.role]
        }),
        about("auth_role_add", &of.auth_role_add, |it| [&it.name, ""]),
        about("auth_role_delete", &of.auth_role_delete, |it| [&it.role, ""]),
        about("auth_role_get", &of.auth_role_get, |it| [&it.role, ""]),
        about("auth_role_grant_permission", &of.auth_role_grant_permission, |it| {
            [&it.name, ""]
        }),
        about("auth_role_revoke_permission", &of.auth_role_revoke_permission, |it| {
            [&it.role, ""]
        }),
    ];
    let v2 = || of.v2.as_ref().map_or("empty".to_string(), v2_text);
    kinds.into_iter().flatten().next().unwrap_or_else(v2)
}

/// A request's kind and up to two names, if there is such a request.
fn about<'a, T>(kind: &str, request: &'a Option<T>, names: impl Fn(&'a T) -> [&'a str; 2]) -> Option<String> {
    let names = names(request.as_ref()?);
    let names = names.iter().filter(|name| !name.is_empty());
    Some(names.fold(kind.to_string(), |text, name| {
        format!("{text} {}", shown(name.as_bytes()))
    }))
}

fn txn_text(txn: &TxnRequest) -> String {
    let operations = |operations: &[RequestOp]| operations.iter().map(operation_text).collect::<Vec<_>>().join(", ");
    format!(
        "compares={} success=[{}] failure=[{}]",
        txn.compare.len(),
        operations(&txn.success),
        operations(&txn.failure)
    )
}

fn operation_text(operation: &RequestOp) -> String {
    match &operation.request {
        Some(request_op::Request::RequestRange(range)) => format!("range {}", span(&range.key, &range.range_end)),
        Some(request_op::Request::RequestPut(put)) => format!("put key={} value={}B", shown(&put.key), put.value.len()),
        Some(request_op::Request::RequestDeleteRange(range)) => {
            format!("delete_range {}", span(&range.key, &range.range_end))
        }
        Some(request_op::Request::RequestTxn(txn)) => {
            format!("txn operations={}", txn.success.len() + txn.failure.len())
        }
        None => "empty".to_string(),
    }
}

fn span(key: &[u8], range_end: &[u8]) -> String {
    match range_end {
        [] => format!("key={}", shown(key)),
        range_end => format!("key={} range_end={}", shown(key), shown(range_end)),
    }
}

/// Bytes in quotes, readable, and cut when they are many.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let dots = if cut.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{dots}", cut.escape_ascii())
}

fn ids(members: &[u64]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("{member:x}")).collect();
    format!("[{}]", members.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{replay::walk, segment::SegmentName};

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/wal/0000000000000000-0000000000000000.wal");
    const GOLDEN_TEXT: &str = include_str!("../../tests/golden/wal/dump.txt");

    #[test]
    fn a_log_that_etcd_wrote_is_shown() {
        let mut lines = Vec::new();
        let mut dump = Dump::new(|line: &str| lines.push(line.to_string()));
        walk(&[(SegmentName::FIRST, GOLDEN)], &mut LogDecoder::new(), &mut dump).unwrap();
        let text = lines.join("\n") + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write("tests/golden/wal/dump.txt", &text).unwrap();
            return;
        }
        assert_eq!(text, GOLDEN_TEXT);
        assert!(!text.contains("$2a$"), "a password's hash is nobody's business");
    }

    #[test]
    fn long_and_unreadable_keys_are_cut_and_escaped() {
        assert_eq!(shown(b"a\"\x00"), r#""a\"\x00""#);
        assert_eq!(shown(&[b'k'; 65]), format!("\"{}\"...", "k".repeat(64)));
        assert_eq!(normal_text(b""), "noop");
        assert_eq!(normal_text(&[0xff]), "???");
    }
}
