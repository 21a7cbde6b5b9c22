//! Requests in words, for the lines of the log about slow ones: keys but no values, as etcd tells them.

use std::fmt::Write;

use bytes::Bytes;
use prost::Message;

use super::Method;
use crate::wire::{
    grpc::go_quoted,
    proto::etcdserverpb::{
        Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        request_op::Request,
    },
};

/// Operations of a transaction that are told one by one.
const OPERATIONS_TOLD_MAX: usize = 16;
/// Bytes of a key that are told.
const KEY_BYTES_TOLD_MAX: usize = 256;

/// A client's request.
pub fn call(method: Method, message: &Bytes) -> String {
    let mut text = String::new();
    match method {
        Method::Range => {
            if let Ok(request) = RangeRequest::decode(message.clone()) {
                range(&mut text, &request);
            }
        }
        Method::Put => {
            if let Ok(request) = PutRequest::decode(message.clone()) {
                put(&mut text, &request);
            }
        }
        Method::DeleteRange => {
            if let Ok(request) = DeleteRangeRequest::decode(message.clone()) {
                delete_range(&mut text, &request);
            }
        }
        Method::Txn => {
            if let Ok(request) = TxnRequest::decode(message.clone()) {
                txn(&mut text, &request);
            }
        }
        _ => _ = write!(text, "size:{}", message.len()),
    }
    text
}

/// Whether a transaction's message does nothing but read.
pub fn is_read_only(message: &Bytes) -> bool {
    let is_read = |operation: &RequestOp| matches!(operation.request, Some(Request::RequestRange(_)) | None);
    TxnRequest::decode(message.clone()).is_ok_and(|request| request.success.iter().chain(&request.failure).all(is_read))
}

/// An entry of the log.
pub fn entry(data: &Bytes) -> String {
    let Ok(request) = InternalRaftRequest::decode(data.clone()) else {
        return format!("size:{}", data.len());
    };
    let id = request.header.as_ref().map_or(request.id, |header| header.id);
    let mut text = format!("header:<ID:{id} >");
    if let Some(request) = &request.put {
        text.push_str(" put:<");
        put(&mut text, request);
        text.push('>');
    } else if let Some(request) = &request.delete_range {
        text.push_str(" delete_range:<");
        delete_range(&mut text, request);
        text.push('>');
    } else if let Some(request) = &request.txn {
        text.push_str(" txn:<");
        txn(&mut text, request);
        text.push('>');
    } else if let Some(request) = &request.compaction {
        _ = write!(text, " compaction:<revision:{}>", request.revision);
    } else if let Some(request) = &request.lease_grant {
        _ = write!(text, " lease_grant:<ttl:{}-second id:{:016x}>", request.ttl, request.id);
    } else if let Some(request) = &request.lease_revoke {
        _ = write!(text, " lease_revoke:<id:{:016x}>", request.id);
    } else {
        _ = write!(text, " size:{}", data.len());
    }
    text
}

fn key(text: &mut String, name: &str, key: &[u8]) {
    if !key.is_empty() {
        let told = &key[..key.len().min(KEY_BYTES_TOLD_MAX)];
        _ = write!(text, "{name}:{} ", go_quoted(told));
    }
}

fn number(text: &mut String, name: &str, number: i64) {
    if number != 0 {
        _ = write!(text, "{name}:{number} ");
    }
}

fn flag(text: &mut String, name: &str, is_set: bool) {
    if is_set {
        _ = write!(text, "{name}:true ");
    }
}

fn range(text: &mut String, request: &RangeRequest) {
    key(text, "key", &request.key);
    key(text, "range_end", &request.range_end);
    number(text, "limit", request.limit);
    number(text, "revision", request.revision);
    flag(text, "serializable", request.serializable);
    flag(text, "keys_only", request.keys_only);
    flag(text, "count_only", request.count_only);
}

fn put(text: &mut String, request: &PutRequest) {
    key(text, "key", &request.key);
    _ = write!(text, "value_size:{} ", request.value.len());
    number(text, "lease", request.lease);
    flag(text, "prev_kv", request.prev_kv);
}

fn delete_range(text: &mut String, request: &DeleteRangeRequest) {
    key(text, "key", &request.key);
    key(text, "range_end", &request.range_end);
    flag(text, "prev_kv", request.prev_kv);
}

fn txn(text: &mut String, request: &TxnRequest) {
    text.push_str("compare:<");
    for compare in request.compare.iter().take(OPERATIONS_TOLD_MAX) {
        let Compare { key: of, range_end, .. } = compare;
        key(text, "key", of);
        key(text, "range_end", range_end);
    }
    text.push_str("> success:<");
    operations(text, &request.success);
    text.push_str("> failure:<");
    operations(text, &request.failure);
    text.push('>');
}

fn operations(text: &mut String, operations: &[RequestOp]) {
    for operation in operations.iter().take(OPERATIONS_TOLD_MAX) {
        match &operation.request {
            Some(Request::RequestRange(request)) => {
                text.push_str("request_range:<");
                range(text, request);
            }
            Some(Request::RequestPut(request)) => {
                text.push_str("request_put:<");
                put(text, request);
            }
            Some(Request::RequestDeleteRange(request)) => {
                text.push_str("request_delete_range:<");
                delete_range(text, request);
            }
            Some(Request::RequestTxn(_)) => text.push_str("request_txn:<"),
            None => text.push('<'),
        }
        text.push('>');
    }
    if operations.len() > OPERATIONS_TOLD_MAX {
        _ = write!(text, " and {} more", operations.len() - OPERATIONS_TOLD_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_and_values_are_not() {
        let put = PutRequest {
            key: "a\"b".into(),
            value: "secret".into(),
            lease: 7,
            ..PutRequest::default()
        };
        let bytes: Bytes = put.encode_to_vec().into();
        let expected = r#"key:"a\"b" value_size:6 lease:7 "#;
        assert_eq!(call(Method::Put, &bytes), expected);
        let request = InternalRaftRequest {
            id: 5,
            put: Some(put.clone()),
            ..InternalRaftRequest::default()
        };
        let told = entry(&request.encode_to_vec().into());
        assert_eq!(told, format!("header:<ID:5 > put:<{expected}>"));
        let txn = TxnRequest {
            success: vec![
                RequestOp {
                    request: Some(Request::RequestPut(put)),
                };
                20
            ],
            ..TxnRequest::default()
        };
        let told = call(Method::Txn, &txn.encode_to_vec().into());
        assert!(told.contains(" and 4 more") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn what_does_not_parse_is_told_by_its_size() {
        assert_eq!(entry(&Bytes::from_static(&[0x0f])), "size:1");
        assert_eq!(call(Method::Range, &Bytes::from_static(&[0x0f])), "");
    }
}
