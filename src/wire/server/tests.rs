//! The server's connection against the client's, in memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::wire::{
    client::{ClientConnection, ClientEvent, ClientOptions},
    grpc::{Metadata, unknown_service},
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
