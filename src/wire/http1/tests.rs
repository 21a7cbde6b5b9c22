//! HTTP/1.1 by section of RFC 9112.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::wire::{
    server::{HttpRequest, StreamId},
    test_support::{Rng, mutated},
};

fn connection() -> Http1Connection {
    Http1Connection::new(1024, 4096, 1000)
}

/// Receives, and answers each request with its body.
fn exchange(connection: &mut Http1Connection, input: &str) -> (Vec<HttpRequest>, String) {
    connection.receive(&mut BytesMut::from(input));
    let mut requests = Vec::new();
    while let Some((stream, request)) = connection.next_request() {
        let response = HttpResponse {
            status: 200,
            headers: Vec::new(),
            body: HttpBody::Full(request.body.clone()),
        };
        connection.respond(stream, &response);
        requests.push(request);
    }
    let output = String::from_utf8(connection.output.split().to_vec()).unwrap();
    (requests, output)
}

fn check_error(input: &str, status: u16) {
    let mut connection = connection();
    let (requests, output) = exchange(&mut connection, input);
    assert!(requests.is_empty(), "{input:?}");
    assert!(
        output.starts_with(&format!("HTTP/1.1 {status} ")),
        "{input:?}: {output}"
    );
    assert!(output.contains("connection: close\r\n"));
    assert!(connection.is_over());
}

const HOST: &str = "Host: h\r\n";

#[test]
fn rfc9112_2_2_line_ends_are_read_leniently_and_requests_are_kept_apart() {
    let (requests, output) = exchange(
        &mut connection(),
        "\r\n\r\nGET /a HTTP/1.1\nHost: h\n\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    assert_eq!(
        requests.iter().map(|request| &request.target[..]).collect::<Vec<_>>(),
        ["/a", "/b"]
    );
    assert_eq!(output, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".repeat(2));
}

#[test]
fn rfc9112_3_request_lines() {
    check_error(&format!("GET  /a HTTP/1.1\r\n{HOST}\r\n"), 400);
    check_error(&format!("GET /a\r\n{HOST}\r\n"), 400);
    check_error(&format!("G(T /a HTTP/1.1\r\n{HOST}\r\n"), 400);
    check_error(&format!("GET a HTTP/1.1\r\n{HOST}\r\n"), 400);
    check_error(&format!("GET /a HTTP/2.0\r\n{HOST}\r\n"), 505);
    check_error(&format!("GET /a HTTP/x\r\n{HOST}\r\n"), 400);
    check_error(&format!("CONNECT h:1 HTTP/1.1\r\n{HOST}\r\n"), 501);
    check_error(&"x".repeat(1100), 431);
}

#[test]
fn rfc9112_3_2_targets_and_host() {
    let absolute = "GET http://other:1/a?b HTTP/1.1\r\nHost: h\r\n\r\n";
    let (requests, _) = exchange(&mut connection(), absolute);
    assert_eq!(
        (&requests[0].target[..], &requests[0].authority[..]),
        ("/a?b", "other:1")
    );
    let (requests, _) = exchange(&mut connection(), "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(requests[0].target, "*");
    check_error("GET /a HTTP/1.1\r\n\r\n", 400);
    check_error("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
}

#[test]
fn rfc9112_5_fields() {
    let (requests, _) = exchange(
        &mut connection(),
        "GET /a HTTP/1.1\r\nHost: h\r\nX-Thing: \t some value \r\nEmpty:\r\n\r\n",
    );
    assert_eq!(requests[0].headers.text("x-thing"), Some("some value"));
    assert_eq!(requests[0].headers.text("empty"), Some(""));
    check_error(&format!("GET /a HTTP/1.1\r\n{HOST}X : y\r\n\r\n"), 400);
    check_error(&format!("GET /a HTTP/1.1\r\n{HOST}X: y\r\n folded\r\n\r\n"), 400);
    check_error(&format!("GET /a HTTP/1.1\r\n{HOST}no colon\r\n\r\n"), 400);
    check_error(&format!("GET /a HTTP/1.1\r\n{HOST}X: \x01\r\n\r\n"), 400);
    check_error(
        &format!("GET /a HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "y".repeat(1100)),
        431,
    );
}

#[test]
fn rfc9112_6_body_lengths() {
    let (requests, output) = exchange(
        &mut connection(),
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_eq!(requests[0].body, "body");
    assert!(output.ends_with("content-length: 4\r\n\r\nbody"));
    let post = format!("POST /a HTTP/1.1\r\n{HOST}");
    check_error(&format!("{post}Content-Length: 4\r\nContent-Length: 5\r\n\r\n"), 400);
    check_error(&format!("{post}Content-Length: +4\r\n\r\n"), 400);
    check_error(&format!("{post}Content-Length: 4097\r\n\r\n"), 413);
    check_error(
        &format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
        400,
    );
    check_error(&format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
    check_error("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

#[test]
fn rfc9112_7_1_chunks() {
    let post = format!("POST /a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    let chunks = "4;ext=1\r\nbody\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let (requests, _) = exchange(
        &mut connection(),
        &format!("{post}{chunks}GET /b HTTP/1.1\r\n{HOST}\r\n"),
    );
    assert_eq!(requests[0].body, "body0123456789");
    assert_eq!(requests[1].target, "/b");
    check_error(&format!("{post}x\r\n"), 400);
    check_error(&format!("{post}4\r\nbodyX\r\n"), 400);
    check_error(&format!("{post}1001\r\n"), 413);
    check_error(&format!("{post}ffffffffffffffff\r\n"), 400);
    check_error(&format!("{post}1{}\r\n", ";".repeat(300)), 400);
    check_error(&format!("{post}0\r\n{}", "T: x\r\n".repeat(3000)), 431);
}

#[test]
fn rfc9112_9_3_connections_are_kept_and_closed() {
    let closes = |input: &str| {
        let mut connection = connection();
        let (requests, output) = exchange(&mut connection, input);
        assert_eq!(requests.len(), 1);
        assert_eq!(output.contains("connection: close"), connection.is_over());
        connection.is_over()
    };
    assert!(!closes("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(closes(
        "GET /a HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n"
    ));
    assert!(closes("GET /a HTTP/1.0\r\n\r\n"));
    assert!(!closes("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn rfc9110_9_3_2_head_has_no_body_but_its_length() {
    let mut connection = connection();
    connection.receive(&mut BytesMut::from("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    let (stream, _) = connection.next_request().unwrap();
    connection.respond(stream, &HttpResponse::new(200, "text/plain", "12345"));
    assert!(connection.output.ends_with(b"content-length: 5\r\n\r\n"));
}

#[test]
fn rfc9110_10_1_1_expectations() {
    let mut connection = connection();
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(
        exchange(&mut connection, head),
        (Vec::new(), "HTTP/1.1 100 Continue\r\n\r\n".to_owned())
    );
    assert_eq!(exchange(&mut connection, "ab").0[0].body, "ab");
    check_error("GET /a HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n", 417);
}

#[test]
fn pipelined_requests_wait_for_the_answer_before() {
    let mut connection = connection();
    connection.receive(&mut BytesMut::from(
        "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
    ));
    let (first, _) = connection.next_request().unwrap();
    assert!(connection.next_request().is_none());
    connection.respond(StreamId(99), &HttpResponse::new(200, "text/plain", "wrong"));
    assert!(connection.output.is_empty());
    let streamed = HttpResponse {
        status: 200,
        headers: Vec::new(),
        body: HttpBody::Streamed,
    };
    connection.respond(first, &streamed);
    connection.send_chunk(first, b"part");
    connection.send_chunk(first, b"");
    assert!(connection.next_request().is_none());
    connection.finish_body(first);
    assert!(
        connection
            .output
            .ends_with(b"transfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n\r\n")
    );
    assert_eq!(connection.next_request().unwrap().0, StreamId(3));
    connection.shutdown();
    connection.respond(StreamId(3), &HttpResponse::new(200, "text/plain", "last"));
    assert!(connection.is_over());
}

#[test]
fn a_streamed_answer_is_reported_writable_when_it_has_drained() {
    let mut connection = connection();
    connection.receive(&mut BytesMut::from("GET /a HTTP/1.0\r\n\r\n"));
    let (stream, _) = connection.next_request().unwrap();
    let body = HttpBody::Streamed;
    connection.respond(
        stream,
        &HttpResponse {
            status: 200,
            headers: Vec::new(),
            body,
        },
    );
    connection.send_chunk(stream, &[b'x'; 1000]);
    assert_eq!(connection.take_writable(), None);
    connection.output.clear();
    assert_eq!(connection.take_writable(), Some(stream));
    assert_eq!(connection.take_writable(), None);
    connection.finish_body(stream);
    assert!(connection.is_over());
}

#[test]
fn any_cut_gives_the_same_requests() {
    let input = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n\
                 GET /b HTTP/1.1\r\nHost: h\r\n\r\nPUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let whole = exchange(&mut connection(), input);
    assert_eq!(whole.0.len(), 3);
    for step in 1..20 {
        let mut connection = connection();
        let mut together = (Vec::new(), String::new());
        for piece in input.as_bytes().chunks(step) {
            let (requests, output) = exchange(&mut connection, std::str::from_utf8(piece).unwrap());
            together.0.extend(requests);
            together.1 += &output;
        }
        assert_eq!(together, whole);
    }
}

#[test]
fn fields_of_an_answer_cannot_end_it() {
    let mut connection = connection();
    connection.receive(&mut BytesMut::from("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    let (stream, _) = connection.next_request().unwrap();
    let mut response = HttpResponse::new(200, "text/plain", Bytes::new());
    response.headers.push(("x".into(), "a\r\nb: c".into()));
    connection.respond(stream, &response);
    assert!(!connection.output.windows(2).any(|pair| pair == b"b:"));
}

#[test]
fn thousand_fuzzed_inputs_do_not_panic() {
    let mut rng = Rng::new(4);
    let seeds: [&[u8]; 3] = [
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nA: b\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        b"PUT http://x/a?b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close, keep-alive\r\n\r\n",
    ];
    for _ in 0..1000 {
        fuzz_http1(&mutated(&mut rng, &seeds));
    }
}
