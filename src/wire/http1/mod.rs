//! A server's side of HTTP/1.1 (RFC 9112), without IO: requests with whole bodies, answers whole or in chunks. Knows
//! nothing of paths. `Upgrade` is ignored, so that a request which offers HTTP/2 is answered in HTTP/1.1.
//!
//! Strict where two readers could disagree about where a request ends: two lengths, a length beside chunks, spaces before a
//! colon and folded lines are all refused with 400.

mod body;
mod connection;
mod head;
mod response;

pub use body::BodyDecoder;
pub use connection::Http1Connection;
pub use head::{BodyKind, Head, parse_head};
pub use response::{HttpBody, HttpResponse, reason_phrase, write_response_head};

/// Why a request cannot be served; the connection ends after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// 400
    Malformed,
    /// 413
    BodyTooLarge,
    /// 417: an expectation other than `100-continue`.
    UnknownExpectation,
    /// 431
    HeadTooLarge,
    /// 501: a transfer coding other than chunked, or CONNECT.
    NotImplemented,
    /// 505
    UnknownVersion,
}

impl HttpError {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            HttpError::Malformed => 400,
            HttpError::BodyTooLarge => 413,
            HttpError::UnknownExpectation => 417,
            HttpError::HeadTooLarge => 431,
            HttpError::NotImplemented => 501,
            HttpError::UnknownVersion => 505,
        }
    }
}

/// Runs arbitrary bytes through a connection that answers whatever it understands; must not panic or exceed bounds.
pub fn fuzz_http1(input: &[u8]) {
    use bytes::{Bytes, BytesMut};
    let mut connection = Http1Connection::new(1024, 4096, 1024);
    let mut answered = 0;
    for piece in input.chunks(1 + input.len() / 3) {
        let mut piece = BytesMut::from(piece);
        connection.receive(&mut piece);
        while let Some((stream, request)) = connection.next_request() {
            assert!(request.body.len() <= 4096);
            answered += 1;
            let body = match answered % 2 {
                0 => HttpBody::Full(Bytes::from_static(b"ok")),
                _ => HttpBody::Streamed,
            };
            let streamed = body == HttpBody::Streamed;
            let headers = Vec::new();
            connection.respond(
                stream,
                &HttpResponse {
                    status: 200,
                    headers,
                    body,
                },
            );
            if streamed {
                connection.send_chunk(stream, b"part");
                connection.finish_body(stream);
            }
        }
        assert!(connection.output.len() <= answered * 200 + 2000);
    }
}

#[cfg(test)]
mod tests;
