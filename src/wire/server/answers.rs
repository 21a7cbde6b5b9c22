//! Header blocks of answers. The common ones are written once, when the crate is compiled.

use bytes::BytesMut;

use crate::wire::{
    grpc::percent_encode,
    hpack::{encode_field, encode_status},
    http1::{HttpBody, HttpResponse},
    status::{Code, Status},
};

/// `:status: 200`, `content-type: application/grpc`: index 8, and a literal with the name at index 31.
pub(super) const GRPC_HEAD: &[u8; 20] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
pub(super) const GRPC_OK: &[u8; 15] = b"\x00\x0bgrpc-status\x010";

/// The head of an answer to a call whose content type had a subtype.
pub(super) fn grpc_head(http_status: u16, subtype: Option<&str>, block: &mut BytesMut) {
    encode_status(http_status, block);
    match subtype {
        None => block.extend_from_slice(&GRPC_HEAD[1..]),
        Some(subtype) => encode_field("content-type", format!("application/grpc+{subtype}").as_bytes(), block),
    }
}

/// The fields that say how a call ended.
pub(super) fn grpc_status(status: &Status, block: &mut BytesMut) {
    if status.code == Code::Ok {
        block.extend_from_slice(GRPC_OK);
    } else {
        encode_field("grpc-status", (status.code as u8).to_string().as_bytes(), block);
    }
    if !status.message.is_empty() {
        encode_field("grpc-message", percent_encode(&status.message).as_bytes(), block);
    }
}

/// The head of an HTTP answer. Fields that HTTP/2 has no room for are left out.
pub(super) fn http_head(response: &HttpResponse, block: &mut BytesMut) {
    encode_status(response.status, block);
    for (name, value) in &response.headers {
        let name = name.to_ascii_lowercase();
        let is_hop_by_hop = matches!(
            &name[..],
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
        );
        let is_safe = value.bytes().all(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        if !is_hop_by_hop && is_safe {
            encode_field(&name, value.trim().as_bytes(), block);
        }
    }
    if let HttpBody::Full(body) = &response.body
        && !matches!(response.status, 204 | 304)
    {
        encode_field("content-length", body.len().to_string().as_bytes(), block);
    }
}
