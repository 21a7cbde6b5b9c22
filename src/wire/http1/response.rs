//! Answers (RFC 9112 sections 4 and 6).

use std::{borrow::Cow, fmt::Write};

use bytes::{Bytes, BytesMut};

/// An answer to an HTTP request, over whichever version it came. The connection adds length and connection fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Fields; names in lower case.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body.
    pub body: HttpBody,
}

/// A response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpBody {
    /// Whole.
    Full(Bytes),
    /// Follows by `send_chunk` and `finish_body`.
    Streamed,
}

impl HttpResponse {
    /// An answer with a content type and a body.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
        HttpResponse {
            status,
            headers: vec![(Cow::Borrowed("content-type"), Cow::Borrowed(content_type))],
            body: HttpBody::Full(body.into()),
        }
    }
}

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no word of it (1xx, 204, 304).
    None,
    /// `content-length`.
    Length(usize),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// The connection's end.
    Close,
}

/// Writes a status line and fields. Fields with characters that would end them are left out.
pub fn write_response_head(
    response: &HttpResponse,
    framing: Framing,
    keep_alive: bool,
    is_version_11: bool,
    output: &mut BytesMut,
) {
    let mut text = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "HTTP/1.1 {} {}\r\n",
        response.status,
        reason_phrase(response.status)
    );
    for (name, value) in &response.headers {
        let is_safe = |byte: u8| !matches!(byte, b'\r' | b'\n' | 0);
        if name.bytes().all(is_safe) && value.bytes().all(is_safe) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
    match framing {
        Framing::Length(len) => {
            let _ = write!(text, "content-length: {len}\r\n");
        }
        Framing::Chunked => text.push_str("transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    if !keep_alive {
        text.push_str("connection: close\r\n");
    } else if !is_version_11 {
        text.push_str("connection: keep-alive\r\n");
    }
    text.push_str("\r\n");
    output.extend_from_slice(text.as_bytes());
}

/// The words behind a status code (RFC 9110 section 15).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
