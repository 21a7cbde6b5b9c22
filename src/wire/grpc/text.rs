//! Content types, the percent-encoding of `grpc-message`, and the texts with which grpc-go refuses a call.

use std::borrow::Cow;

use crate::wire::status::{Code, Status};

/// What a request's content type says about gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType<'v> {
    /// gRPC, with the subtype behind `+` or `;` (empty if there is none).
    Grpc(&'v str),
    /// Meant as gRPC, but not quite.
    GrpcMalformed,
    /// Something else.
    Other,
}

/// Reads a content type.
pub fn content_type(value: &[u8]) -> ContentType<'_> {
    const BASE: &[u8] = b"application/grpc";
    match value.strip_prefix(BASE) {
        Some([]) => ContentType::Grpc(""),
        Some([b'+' | b';', subtype @ ..]) => match std::str::from_utf8(subtype) {
            Ok(subtype) => ContentType::Grpc(subtype),
            Err(_) => ContentType::GrpcMalformed,
        },
        Some(_) => ContentType::GrpcMalformed,
        None => ContentType::Other,
    }
}

/// A request that should have been gRPC (HTTP status 415).
pub fn invalid_content_type(value: &[u8]) -> Status {
    Status::new(
        Code::InvalidArgument,
        format!("invalid gRPC request content-type {}", go_quoted(value)),
    )
}

/// A call with another method than POST (HTTP status 405).
pub fn method_not_post(method: &[u8]) -> Status {
    Status::new(
        Code::Internal,
        format!(
            "Received a HEADERS frame with :method {} which should be POST",
            go_quoted(method)
        ),
    )
}

/// A compressed call: we have no decompressors, and neither has etcd.
pub fn decoder_missing(encoding: &[u8]) -> Status {
    Status::new(
        Code::Unimplemented,
        format!(
            "grpc: Decompressor is not installed for grpc-encoding {}",
            go_quoted(encoding)
        ),
    )
}

/// The service and method of a path; `None` for a malformed one (see [`malformed_method`]).
pub fn split_path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.rsplit_once('/')
}

/// A path that is not `/service/method`.
pub fn malformed_method(path: &str) -> Status {
    Status::new(
        Code::Unimplemented,
        format!("malformed method name: {}", go_quoted(path.as_bytes())),
    )
}

/// A service that nobody offers.
pub fn unknown_service(service: &str) -> Status {
    Status::new(Code::Unimplemented, format!("unknown service {service}"))
}

/// A method that its service does not have.
pub fn unknown_method(method: &str, service: &str) -> Status {
    Status::new(
        Code::Unimplemented,
        format!("unknown method {method} for service {service}"),
    )
}

/// A text as Go's `%q` shows it (for what can stand in a header field; other controls appear as `\xNN`).
pub fn go_quoted(text: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\t' => quoted.push_str("\\t"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                c if u32::from(c) < 0x20 || c == '\x7f' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => quoted.push(c),
            }
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// `grpc-message` on the wire: printable ASCII but for `%` stays, the rest is `%XX`.
pub fn percent_encode(message: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    if message.bytes().all(is_plain) {
        return Cow::Borrowed(message);
    }
    let mut encoded = String::with_capacity(message.len() + 16);
    for byte in message.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

/// The message behind a `grpc-message`; what is no valid encoding stays as it is.
pub fn percent_decode(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, after)) = rest.split_first() {
        let byte = match after {
            [high, low, ..] if first == b'%' => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        match byte {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
