//! The server's connection against the client's, in memory.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::wire::{
    client::{ClientConnection, ClientEvent, ClientOptions},
    grpc::{Metadata, unknown_service},
    http2::{FrameHeader, FrameKind, flags, write_frame_header},
    status::Code,
    test_support::{Cut, Pair, Rng},
};

const NOW: Monotonic = Monotonic(1);

fn pair(cut: Cut, seed: u64) -> Pair {
    let client = ClientConnection::new(ClientOptions::default(), NOW);
    Pair::new(client, ServerConnection::new(ServerOptions::default(), NOW), cut, seed)
}

/// Answers a unary call with its own message.
fn echo(server: &mut ServerConnection, event: ServerEvent) {
    if let ServerEvent::Message { stream, message } = event {
        server.send_unary(stream, message);
    }
}

#[test]
fn unary_call_is_answered() {
    let mut pair = pair(Cut::Whole, 1);
    let method = pair.client.method("/etcdserverpb.KV/Range", &[("token", "abc")]);
    let timeout = Some(Duration::from_millis(1500));
    let stream = pair.client.call(method, timeout, &b"question"[..]).unwrap();
    let mut seen = Vec::new();
    let events = pair.run(|server, event| {
        seen.push(event.clone());
        echo(server, event);
    });
    let call = Call {
        stream,
        path: Path::new(b"/etcdserverpb.KV/Range"),
        metadata: Metadata::from_pairs([("token", &b"abc"[..])]),
        timeout,
    };
    let message = Bytes::from_static(b"question");
    assert_eq!(
        seen,
        [
            ServerEvent::Call(call),
            ServerEvent::Message {
                stream,
                message: message.clone()
            },
            ServerEvent::HalfClosed { stream },
        ]
    );
    let finished = ClientEvent::Finished {
        stream,
        status: Status::OK,
        metadata: Metadata::default(),
    };
    assert_eq!(events, [ClientEvent::Message { stream, message }, finished]);
    assert!(pair.server.user_agent().starts_with(b"ringd/"));
    assert_eq!(pair.server.streams_open(), 0);
    assert_eq!(pair.client.calls_open(), 0);
}

#[test]
fn error_without_messages_is_trailers_only() {
    let mut pair = pair(Cut::Whole, 1);
    let method = pair.client.method("/x.Y/Z", &[]);
    let stream = pair.client.call(method, None, &b""[..]).unwrap();
    let events = pair.run(|server, event| {
        if let ServerEvent::Call(call) = event {
            server.finish(call.stream, &unknown_service("x.Y"));
        }
    });
    let status = Status::new(Code::Unimplemented, "unknown service x.Y");
    let metadata = Metadata::default();
    assert_eq!(
        events,
        [ClientEvent::Finished {
            stream,
            status,
            metadata
        }]
    );
}

#[test]
fn message_text_survives_percent_encoding() {
    let mut pair = pair(Cut::Whole, 1);
    let method = pair.client.method("/x.Y/Z", &[]);
    pair.client.call(method, None, &b""[..]).unwrap();
    let text = "100% of \u{e4}\u{1f600}\n";
    let events = pair.run(|server, event| {
        if let ServerEvent::Call(call) = event {
            server.finish(call.stream, &Status::new(Code::DataLoss, text));
        }
    });
    assert!(matches!(&events[0], ClientEvent::Finished { status, .. } if status.message == text));
}

#[test]
fn random_calls_with_random_cuts_are_all_answered() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let client_options = ClientOptions {
            stream_window_bytes: 1 + rng.below(100_000) as u32,
            connection_window_bytes: 65_535 + rng.below(100_000) as u32,
            ..ClientOptions::default()
        };
        let server_options = ServerOptions {
            stream_window_bytes: 1 + rng.below(100_000) as u32,
            connection_window_bytes: 65_535 + rng.below(100_000) as u32,
            ..ServerOptions::default()
        };
        let cut = Cut::Random {
            piece_bytes_max: 1 + rng.below(40_000),
        };
        let client = ClientConnection::new(client_options, NOW);
        let mut pair = Pair::new(client, ServerConnection::new(server_options, NOW), cut, seed);
        let method = pair.client.method("/a.B/C", &[]);
        let mut sent = std::collections::BTreeMap::new();
        for _ in 0..40 {
            let len = match rng.below(4) {
                0 => rng.below(100_000),
                _ => rng.below(2_000),
            };
            let message = Bytes::from(rng.bytes(len));
            let stream = pair.client.call(method, None, message.clone()).unwrap();
            sent.insert(stream, message);
        }
        let events = pair.run(echo);
        let mut finished = 0;
        for event in events {
            match event {
                ClientEvent::Message { stream, message } => assert_eq!(sent[&stream], message, "seed {seed}"),
                ClientEvent::Finished { status, .. } => {
                    assert_eq!(status, Status::OK);
                    finished += 1;
                }
                ClientEvent::Writable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(finished, 40, "seed {seed}");
        assert_eq!(pair.server.queued_bytes_total(), 0);
    }
}

#[test]
fn bidirectional_stream_keeps_order_both_ways() {
    let mut pair = pair(Cut::Random { piece_bytes_max: 700 }, 7);
    let method = pair.client.method("/etcdserverpb.Watch/Watch", &[]);
    let stream = pair.client.open(method, None).unwrap();
    for number in 0u32..500 {
        pair.client.send_message(stream, &number.to_be_bytes()[..]);
    }
    pair.client.half_close(stream);
    let events = pair.run(|server, event| match event {
        ServerEvent::Message { stream, message } => server.send_message(stream, message),
        ServerEvent::HalfClosed { stream } => server.finish(stream, &Status::OK),
        _ => {}
    });
    let numbers: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            ClientEvent::Message { message, .. } => Some(u32::from_be_bytes(message[..].try_into().unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    assert!(matches!(events.last(), Some(ClientEvent::Finished { status, .. }) if *status == Status::OK));
}

/// A server behind preface and SETTINGS, and frames for it by hand.
fn server() -> (ServerConnection, BytesMut) {
    let mut input = BytesMut::from(&PREFACE[..]);
    write_frame_header(0, FrameKind::Settings, 0, 0, &mut input);
    (ServerConnection::new(ServerOptions::default(), NOW), input)
}

fn headers(stream: u32, flags: u8, fields: &[(&str, &str)], input: &mut BytesMut) {
    let mut block = BytesMut::new();
    for (name, value) in fields {
        crate::wire::hpack::encode_field(name, value.as_bytes(), &mut block);
    }
    write_frame_header(
        block.len(),
        FrameKind::Headers,
        flags | flags::END_HEADERS,
        stream,
        input,
    );
    input.extend_from_slice(&block);
}

fn data(stream: u32, flags: u8, payload: &[u8], input: &mut BytesMut) {
    write_frame_header(payload.len(), FrameKind::Data, flags, stream, input);
    input.extend_from_slice(payload);
}

const GRPC: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a.B/C"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

fn grpc(changed: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut fields = GRPC.to_vec();
    for (name, value) in changed {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

fn events(server: &mut ServerConnection) -> Vec<ServerEvent> {
    std::iter::from_fn(|| server.next_event()).collect()
}

/// The fields of each HEADERS in the output, and the other frames by kind; our first two frames left out.
fn answers(server: &mut ServerConnection) -> Vec<String> {
    let mut output = std::mem::take(server.output());
    let mut decoder = crate::wire::hpack::Decoder::new(4096);
    let mut answers = Vec::new();
    while let Some(header) = FrameHeader::read(&output) {
        let _ = output.split_to(9);
        let payload = output.split_to(header.len as usize);
        let mut text = format!("{:?} {}", header.kind, header.stream);
        if header.kind == FrameKind::Headers {
            let mut sink = |field: crate::wire::hpack::Field<'_>| {
                let (name, value) = (
                    String::from_utf8_lossy(field.name),
                    String::from_utf8_lossy(field.value),
                );
                text.push_str(&format!(" {name}={value}"));
            };
            decoder.decode(&payload, 65_536, &mut sink).unwrap();
        }
        if header.kind == FrameKind::ResetStream {
            text.push_str(&format!(" code {}", payload[3]));
        }
        if header.stream > 0 {
            answers.push(text);
        }
    }
    answers
}

fn check_refused(fields: &[(&str, &str)], expected: &str) {
    let (mut server, mut input) = server();
    headers(1, 0, fields, &mut input);
    server.receive(&mut input, NOW);
    assert_eq!(events(&mut server), []);
    assert_eq!(answers(&mut server), [expected, "ResetStream 1 code 0"]);
    assert_eq!(server.streams_open(), 0);
}

#[test]
fn calls_that_grpc_go_refuses_are_refused_as_it_does() {
    let head = "content-type=application/grpc";
    check_refused(
        &grpc(&[("content-type", "application/grpcx")]),
        &format!(
            "Headers 1 :status=415 {head} grpc-status=3 grpc-message=invalid gRPC request content-type \"application/grpcx\""
        ),
    );
    check_refused(
        &grpc(&[(":method", "GET")]),
        &format!(
            "Headers 1 :status=405 {head} grpc-status=13 grpc-message=Received a HEADERS frame with :method \"GET\" which should be POST"
        ),
    );
    check_refused(
        &grpc(&[("grpc-timeout", "1x")]),
        &format!(
            "Headers 1 :status=400 {head} grpc-status=13 grpc-message=malformed grpc-timeout: transport: timeout unit is not recognized: \"1x\""
        ),
    );
    check_refused(
        &grpc(&[("grpc-timeout", "0S")]),
        &format!("Headers 1 :status=200 {head} grpc-status=4 grpc-message=context deadline exceeded"),
    );
    check_refused(
        &grpc(&[("grpc-encoding", "gzip")]),
        &format!(
            "Headers 1 :status=200 {head} grpc-status=12 grpc-message=grpc: Decompressor is not installed for grpc-encoding \"gzip\""
        ),
    );
    check_refused(
        &grpc(&[("x-bin", "a!")]),
        &format!(
            "Headers 1 :status=400 {head} grpc-status=13 grpc-message=malformed binary metadata \"a!\" in header \"x-bin\": illegal base64 data at input byte 1"
        ),
    );
}

#[test]
fn subtype_of_the_content_type_comes_back() {
    let (mut server, mut input) = server();
    headers(
        1,
        flags::END_STREAM,
        &grpc(&[("content-type", "application/grpc+proto")]),
        &mut input,
    );
    server.receive(&mut input, NOW);
    events(&mut server);
    server.send_unary(StreamId(1), &b""[..]);
    assert_eq!(
        answers(&mut server),
        [
            "Headers 1 :status=200 content-type=application/grpc+proto",
            "Data 1",
            "Headers 1 grpc-status=0"
        ]
    );
}

#[test]
fn message_over_the_limit_ends_the_call_with_its_status() {
    let (mut server, mut input) = server();
    let max = server.options.message_bytes_max;
    headers(1, 0, &GRPC, &mut input);
    let mut prefix = vec![0];
    prefix.put_u32(max + 1);
    data(1, 0, &prefix, &mut input);
    data(1, flags::END_STREAM, b"more", &mut input);
    server.receive(&mut input, NOW);
    let stream = StreamId(1);
    assert_eq!(events(&mut server)[1..], [ServerEvent::Cancelled { stream }]);
    let text = format!("grpc: received message larger than max ({} vs. {max})", max + 1);
    let expected = format!("Headers 1 :status=200 content-type=application/grpc grpc-status=8 grpc-message={text}");
    assert_eq!(answers(&mut server), [&expected[..], "ResetStream 1 code 0"]);
}

#[test]
fn half_close_inside_a_message_is_an_unexpected_end() {
    let (mut server, mut input) = server();
    headers(1, 0, &GRPC, &mut input);
    data(1, flags::END_STREAM, &[0, 0, 0, 0, 2, b'x'], &mut input);
    server.receive(&mut input, NOW);
    assert_eq!(
        events(&mut server)[1..],
        [ServerEvent::Cancelled { stream: StreamId(1) }]
    );
    assert!(answers(&mut server)[0].ends_with("grpc-status=2 grpc-message=unexpected EOF"));
}

#[test]
fn unfinished_messages_of_a_connection_are_bounded() {
    let options = ServerOptions {
        assembly_bytes_max: 50_000,
        ..ServerOptions::default()
    };
    let mut server = ServerConnection::new(options, NOW);
    let (_, mut input) = self::server();
    for number in 0..10u32 {
        headers(1 + 2 * number, 0, &GRPC, &mut input);
        let mut payload = vec![0, 0, 1, 0, 0];
        payload.resize(10_000, 1);
        data(1 + 2 * number, 0, &payload, &mut input);
    }
    server.receive(&mut input, NOW);
    let cancelled = events(&mut server)
        .iter()
        .filter(|event| matches!(event, ServerEvent::Cancelled { .. }))
        .count();
    assert_eq!(cancelled, 5);
    assert_eq!(server.streams_open(), 5);
}

#[test]
fn unfinished_messages_of_all_connections_are_bounded() {
    let options = ServerOptions {
        core_assembly_bytes_max: 50_000,
        assembly_bytes_free: 1_000,
        ..ServerOptions::default()
    };
    let half_message = |server: &mut ServerConnection, stream: u32, bytes: usize| {
        let mut input = BytesMut::new();
        headers(stream, 0, &GRPC, &mut input);
        let mut payload = vec![0, 0, 1, 0, 0];
        payload.resize(5 + bytes, 1);
        data(stream, 0, &payload, &mut input);
        server.receive(&mut input, NOW);
        events(server)
            .iter()
            .any(|event| matches!(event, ServerEvent::Cancelled { .. }))
    };
    let opened = || {
        let mut server = ServerConnection::new(options.clone(), NOW);
        let mut input = self::server().1;
        server.receive(&mut input, NOW);
        server
    };
    let mut many: Vec<ServerConnection> = (0..10).map(|_| opened()).collect();
    let failed = many
        .iter_mut()
        .filter_map(|server| half_message(server, 1, 10_000).then_some(()));
    assert_eq!(failed.count(), 5);
    assert_eq!(options.assembly.bytes(), 50_000);
    let mut honest = opened();
    assert!(!half_message(&mut honest, 1, 900), "a little is everybody's right");
    assert!(half_message(&mut honest, 3, 900));
    many.pop();
    assert_eq!(options.assembly.bytes(), 50_900, "that one had failed");
    many.remove(0);
    assert_eq!(options.assembly.bytes(), 40_900);
    assert!(!half_message(&mut honest, 5, 9_000));
    let mut input = BytesMut::new();
    crate::wire::http2::write_reset(5, crate::wire::http2::ErrorCode::Cancel, &mut input);
    honest.receive(&mut input, NOW);
    drop(many);
    assert_eq!(options.assembly.bytes(), 900);
    drop(honest);
    assert_eq!(options.assembly.bytes(), 0);
}

#[test]
fn reset_cancels_and_late_answers_are_dropped() {
    let (mut server, mut input) = server();
    headers(1, flags::END_STREAM, &GRPC, &mut input);
    crate::wire::http2::write_reset(1, crate::wire::http2::ErrorCode::Cancel, &mut input);
    headers(3, flags::END_STREAM, &GRPC, &mut input);
    server.receive(&mut input, NOW);
    assert_eq!(
        events(&mut server)[2..3],
        [ServerEvent::Cancelled { stream: StreamId(1) }]
    );
    server.send_unary(StreamId(1), &b"late"[..]);
    server.send_message(StreamId(1), &b"late"[..]);
    server.finish(StreamId(1), &Status::OK);
    assert_eq!(answers(&mut server), [""; 0]);
    server.receive_end();
    assert_eq!(events(&mut server), [ServerEvent::Cancelled { stream: StreamId(3) }]);
    assert!(server.is_finished());
}

#[test]
fn plain_requests_over_http2_are_http() {
    let (mut server, mut input) = server();
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/metrics"),
        (":authority", "h:1"),
        ("accept", "*/*"),
    ];
    headers(1, flags::END_STREAM, &fields, &mut input);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v3/kv/put"),
        ("content-type", "application/json"),
    ];
    headers(3, 0, &fields, &mut input);
    data(3, 0, b"{\"key\":", &mut input);
    data(3, flags::END_STREAM, b"\"YQ==\"}", &mut input);
    server.receive(&mut input, NOW);
    let seen = events(&mut server);
    let [
        ServerEvent::Http { request: get, .. },
        ServerEvent::Http { request: post, .. },
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (&get.method[..], &get.target[..], &get.authority[..]),
        ("GET", "/metrics", "h:1")
    );
    assert_eq!(get.headers.text("accept"), Some("*/*"));
    assert_eq!(post.body, &b"{\"key\":\"YQ==\"}"[..]);
    assert_eq!(post.headers.text("content-type"), Some("application/json"));
    server.respond(StreamId(1), &HttpResponse::new(200, "text/plain", vec![b'x'; 20_000]));
    let streamed = HttpResponse {
        body: HttpBody::Streamed,
        ..HttpResponse::new(200, "application/json", "")
    };
    server.respond(StreamId(3), &streamed);
    server.send_chunk(StreamId(3), Bytes::from_static(b"{}"));
    server.finish_body(StreamId(3));
    let answers = answers(&mut server);
    assert_eq!(
        answers[0],
        "Headers 1 :status=200 content-type=text/plain content-length=20000"
    );
    assert_eq!(
        answers[1..4],
        [
            "Headers 3 :status=200 content-type=application/json",
            "Data 3",
            "Data 3"
        ]
    );
    assert_eq!(answers[4..], ["Data 1", "Data 1"]);
    assert_eq!(server.streams_open(), 0);
}

#[test]
fn a_body_over_the_limit_is_refused_with_413() {
    let options = ServerOptions {
        http_body_bytes_max: 10,
        ..ServerOptions::default()
    };
    let mut server = ServerConnection::new(options, NOW);
    let (_, mut input) = self::server();
    headers(
        1,
        0,
        &[(":method", "POST"), (":scheme", "http"), (":path", "/v3/kv/put")],
        &mut input,
    );
    data(1, 0, b"0123456789a", &mut input);
    server.receive(&mut input, NOW);
    assert_eq!(events(&mut server), []);
    assert!(answers(&mut server)[0].starts_with("Headers 1 :status=413"));
}

#[test]
fn a_slow_stream_is_reported_writable_and_holds_up_nobody() {
    let (mut server, mut input) = server();
    headers(1, 0, &GRPC, &mut input);
    headers(3, flags::END_STREAM, &GRPC, &mut input);
    server.receive(&mut input, NOW);
    events(&mut server);
    let (watch, unary) = (StreamId(1), StreamId(3));
    server.send_message(watch, Bytes::from(vec![1; 2_000_000]));
    assert!(server.queued_bytes(watch) > 1_900_000);
    server.send_unary(unary, &b"small"[..]);
    // The connection's window of 65,535 bytes is shared: the small answer is not behind the large one.
    let first = answers(&mut server);
    assert!(first.contains(&"Headers 3 grpc-status=0".to_owned()), "{first:?}");
    assert_eq!(events(&mut server), []);
    let mut update = BytesMut::new();
    for stream in [0, 1] {
        crate::wire::http2::write_window_update(stream, 1_800_000, &mut update);
    }
    server.receive(&mut update, NOW);
    while !server.output().is_empty() {
        server.output().clear();
    }
    assert_eq!(events(&mut server), [ServerEvent::Writable { stream: watch }]);
    assert!(server.queued_bytes_total() < 500_000);
}

#[test]
fn both_protocols_are_told_by_their_first_bytes() {
    for first in ["P", "PR", "PRI"] {
        let mut server = ServerConnection::new(ServerOptions::default(), NOW);
        let mut input = BytesMut::from(first);
        server.receive(&mut input, NOW);
        assert_eq!(input, first);
        assert!(!server.is_finished());
    }
    let mut server = ServerConnection::new(ServerOptions::default(), NOW);
    let mut input = BytesMut::from("PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    server.receive(&mut input, NOW);
    assert!(matches!(
        events(&mut server)[..],
        [ServerEvent::Http {
            stream: StreamId(1),
            ..
        }]
    ));
    server.respond(StreamId(1), &HttpResponse::new(200, "text/plain", "hi"));
    assert!(server.output().ends_with(b"content-length: 2\r\n\r\nhi"));
    // A peer that says nothing is given up after two minutes.
    let mut server = ServerConnection::new(ServerOptions::default(), NOW);
    server.tick(server.next_deadline().unwrap());
    assert!(server.is_finished());
}

#[test]
fn any_cut_of_the_input_gives_the_same_events_and_answers() {
    let (_, mut input) = server();
    for number in 0..20u32 {
        let stream = 1 + 2 * number;
        headers(
            stream,
            0,
            &grpc(&[("grpc-timeout", "5S"), ("token", "abc")]),
            &mut input,
        );
        let len = [3usize, 100, 5000][number as usize % 3];
        let mut payload = vec![0];
        payload.put_u32(len as u32);
        payload.resize(5 + len, number as u8);
        data(stream, 0, &payload[..4], &mut input);
        data(stream, flags::END_STREAM, &payload[4..], &mut input);
    }
    let play = |cut: &mut dyn FnMut(usize) -> usize| {
        let mut server = ServerConnection::new(ServerOptions::default(), NOW);
        let (mut rest, mut buffer, mut seen) = (&input[..], BytesMut::new(), Vec::new());
        let mut written = Vec::new();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
            rest = after;
            buffer.extend_from_slice(piece);
            server.receive(&mut buffer, NOW);
            for event in events(&mut server) {
                if let ServerEvent::Message { stream, message } = &event {
                    server.send_unary(*stream, message.clone());
                }
                seen.push(event);
            }
            written.extend_from_slice(server.output());
            server.output().clear();
        }
        assert!(buffer.is_empty());
        written.sort_unstable();
        (seen, written)
    };
    let whole = play(&mut |len| len);
    assert_eq!(whole.0.len(), 60);
    assert_eq!(play(&mut |_| 1), whole);
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        assert_eq!(play(&mut |_| 1 + rng.below(3000)).0, whole.0);
    }
}

#[test]
fn many_calls_with_a_few_long_lived_streams_between() {
    let mut pair = pair(
        Cut::Random {
            piece_bytes_max: 30_000,
        },
        3,
    );
    let method = pair.client.method("/a.B/C", &[]);
    let watch = pair.client.method("/a.B/Watch", &[("token", "t")]);
    let watches: Vec<StreamId> = (0..3).map(|_| pair.client.open(watch, None).unwrap()).collect();
    let mut finished = 0;
    for round in 0..200 {
        for _ in 0..100 {
            pair.client.call(method, None, &[1u8; 40][..]).unwrap();
        }
        if round % 50 == 10 {
            pair.client.send_message(watches[round / 50 % 3], &b"x"[..]);
        }
        let events = pair.run(|server, event| match event {
            ServerEvent::Message { stream, message } if message.len() == 40 => server.send_unary(stream, message),
            ServerEvent::Message { stream, message } => server.send_message(stream, message),
            _ => {}
        });
        finished += events
            .iter()
            .filter(|event| matches!(event, ClientEvent::Finished { .. }))
            .count();
    }
    assert_eq!(finished, 20_000);
    assert_eq!(pair.server.streams_open(), 3);
    pair.server.shutdown(NOW);
    let events = pair.run(|server, event| {
        if let ServerEvent::HalfClosed { stream } = event {
            server.finish(stream, &Status::OK);
        }
    });
    assert!(matches!(
        events[..],
        [ClientEvent::GoAway { .. }, ClientEvent::GoAway { .. }]
    ));
    assert_eq!(pair.client.open(method, None), None);
    for watch in watches {
        pair.client.half_close(watch);
    }
    pair.run(|server, event| {
        if let ServerEvent::HalfClosed { stream } = event {
            server.finish(stream, &Status::OK);
        }
    });
    assert!(pair.server.is_finished() && pair.client.is_finished());
}

#[test]
fn slow_beginnings_are_given_up() {
    // A preface without SETTINGS.
    let mut server = ServerConnection::new(ServerOptions::default(), NOW);
    server.receive(&mut BytesMut::from(&PREFACE[..]), NOW);
    let deadline = server.next_deadline().unwrap();
    assert_eq!(deadline, NOW + Duration::from_secs(120));
    server.tick(deadline);
    assert!(server.is_finished());
    // Half a request; a whole one may take as long as it likes.
    let mut server = ServerConnection::new(ServerOptions::default(), NOW);
    server.receive(&mut BytesMut::from("GET /a HTTP/1.1\r\nHost: h\r\n"), NOW);
    assert_eq!(events(&mut server), []);
    assert_eq!(server.next_deadline(), Some(NOW + Duration::from_secs(300)));
    server.receive(&mut BytesMut::from("\r\n"), NOW + Duration::from_secs(299));
    assert_eq!(events(&mut server).len(), 1);
    assert_eq!(server.next_deadline(), None);
    server.respond(StreamId(1), &HttpResponse::new(200, "text/plain", ""));
    server.receive(&mut BytesMut::from("GET"), NOW + Duration::from_secs(400));
    server.tick(NOW + Duration::from_secs(699));
    assert!(!server.is_finished());
    server.tick(NOW + Duration::from_secs(700));
    assert!(server.is_finished());
}

#[test]
fn a_repeated_block_means_what_the_table_says_now() {
    let (mut server, mut input) = server();
    let mut stream = 1;
    let mut send = |block: &[u8], input: &mut BytesMut| {
        let ends = flags::END_HEADERS | flags::END_STREAM;
        write_frame_header(block.len(), FrameKind::Headers, ends, stream, input);
        input.extend_from_slice(block);
        stream += 2;
    };
    // Index 62 is the path that joined the table last; the block that names it stays the same.
    let content_type = b"\x0f\x10\x10application/grpc";
    let joins = |path: &[u8]| [&b"\x83\x86\x44"[..], &[path.len() as u8], path, content_type].concat();
    let refers = [&b"\x83\x86\xbe"[..], content_type].concat();
    for path in [&b"/a/A"[..], b"/b/B"] {
        send(&joins(path), &mut input);
        for _ in 0..3 {
            send(&refers, &mut input);
        }
        // A malformed block between the same ones leaves no trace, and neither does a plain request.
        send(&[&refers[..], b"\x00\x01A\x00"].concat(), &mut input);
        send(&refers, &mut input);
        send(b"\x82\x86\x84", &mut input);
        send(b"\x82\x86\x84", &mut input);
        send(&refers, &mut input);
    }
    server.receive(&mut input, NOW);
    let seen: Vec<String> = events(&mut server)
        .into_iter()
        .filter_map(|event| match event {
            ServerEvent::Call(call) => Some(call.path.as_str().to_owned()),
            ServerEvent::Http { request, .. } => Some(request.target),
            _ => None,
        })
        .collect();
    let expected = ["/a/A", "/a/A", "/a/A", "/a/A", "/a/A", "/", "/", "/a/A"];
    let after = expected.map(|path| path.replace("a/A", "b/B"));
    assert_eq!(seen, [expected.map(str::to_owned), after].concat());
}
