//! Clients that take and never give back: connections, streams, half messages, watchers, leases.

use std::{net::SocketAddr, time::Duration};

use prost::Message;
use ringd::{limits::Limits, wire::proto::etcdserverpb as pb};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    Held, MIB, client, fill,
    raw::{DATA, END_HEADERS, HEADERS, Raw, call_fields, frame},
    withstand, withstand_with,
};

const IDLE: u64 = 3_000;
/// What a connection that has said hello may cost.
const IDLE_BYTES: u64 = 8 << 10;

#[test]
fn thousands_of_idle_connections_cost_little() {
    withstand("3,000 idle connections", IDLE * IDLE_BYTES, |address| async move {
        let mut connections = Vec::new();
        for _ in 0..IDLE {
            connections.push(Raw::connect(address, 65_535).await);
        }
        Box::new(connections) as Held
    });
    withstand(
        "1,000 slow heads of HTTP/1.1",
        1_000 * IDLE_BYTES,
        |address| async move {
            let mut connections = Vec::new();
            for _ in 0..1_000 {
                let mut socket = TcpStream::connect(address).await.expect("the server listens");
                socket
                    .write_all(b"GET /version HTTP/1.1\r\nHost: lo")
                    .await
                    .expect("it takes a few bytes");
                connections.push(socket);
            }
            for _ in 0..3 {
                for socket in &mut connections {
                    socket.write_all(b"c").await.expect("it takes another");
                }
            }
            Box::new(connections) as Held
        },
    );
    withstand("endless heads of HTTP/1.1", 4 * MIB, |address| async move {
        let mut connections = Vec::new();
        for _ in 0..20 {
            let mut socket = TcpStream::connect(address).await.expect("the server listens");
            let _ = socket.write_all(b"GET /version HTTP/1.1\r\n").await;
            for _ in 0..4096 {
                if socket
                    .write_all(&b"x-filling: 0123456789\r\n".repeat(40))
                    .await
                    .is_err()
                {
                    break;
                }
            }
            connections.push(socket);
        }
        Box::new(connections) as Held
    });
}

/// Opens puts and sends all but the last bytes of each.
async fn half_messages(address: SocketAddr, connections: u32, streams: u32, bytes: usize) -> Held {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut raw = Raw::connect(address, 65_535).await;
        'streams: for index in 0..streams {
            let stream = 2 * index + 1;
            raw.send(&frame(
                HEADERS,
                END_HEADERS,
                stream,
                &call_fields("/etcdserverpb.KV/Put"),
            ))
            .await;
            let mut body = vec![0];
            body.extend((bytes as u32 + 10).to_be_bytes());
            body.resize(bytes, b'x');
            for part in body.chunks(16_384) {
                if !raw.send(&frame(DATA, 0, stream, part)).await {
                    break 'streams;
                }
            }
        }
        held.push(raw);
    }
    Box::new(held)
}

#[test]
fn half_messages_are_bounded() {
    // What streams of one connection may gather together (`assembly_bytes_max`), and its buffers' growth.
    withstand(
        "200 half messages of 1 MiB on one connection",
        2 * 64 * MIB,
        |address| half_messages(address, 1, 200, MIB as usize - 5),
    );
    withstand(
        "half messages of 64 KiB on 400 connections",
        400 * (128 << 10),
        |address| half_messages(address, 400, 1, 64 << 10),
    );
    // What all connections of a core may gather (`core_assembly_bytes_max`), with room to grow.
    withstand("half messages of 1 MiB on 800 connections", 2 * 256 * MIB, |address| {
        half_messages(address, 800, 1, MIB as usize - 5)
    });
}

fn watch(key: &str, range_end: &str) -> Vec<u8> {
    let create = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: true,
        ..Default::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    let message = request.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}

#[test]
fn watchers_that_never_read_hold_a_bounded_queue() {
    let queue = Limits::DEFAULT.watch_queue_bytes_max as u64;
    // Each stream's queue, what its connection has taken over from it, and the writes themselves.
    withstand(
        "40 watchers that read nothing of 60 MiB",
        40 * (queue + 2 * MIB) + 120 * MIB,
        |address| async move {
            let mut held = Vec::new();
            for _ in 0..40 {
                let mut raw = Raw::connect(address, 0).await;
                raw.open(1, "/etcdserverpb.Watch/Watch").await;
                raw.send(&frame(DATA, 0, 1, &watch("big/", "big0"))).await;
                held.push(raw);
            }
            let writer = client(address).await;
            for _ in 0..15 {
                fill(&writer, 64, 64 << 10).await;
            }
            Box::new(held) as Held
        },
    );
    // What one watcher may cost, key and table entries included.
    const WATCHER: u64 = 1 << 10;
    withstand(
        "100,000 watches on one stream",
        100_000 * WATCHER,
        |address| async move {
            let mut raw = Raw::connect(address, 1 << 30).await;
            raw.widen(1 << 30).await;
            raw.open(1, "/etcdserverpb.Watch/Watch").await;
            for first in 0..100 {
                let burst: Vec<u8> = (0..1000)
                    .flat_map(|index| frame(DATA, 0, 1, &watch(&format!("w/{first}/{index}"), "")))
                    .collect();
                assert!(raw.send(&burst).await, "the server takes watches");
            }
            let (heard, closed) = raw.hear(Duration::from_secs(1)).await;
            assert!(!closed && heard.len() > 100_000 * 20, "each watch is answered");
            Box::new(raw) as Held
        },
    );
}

#[test]
fn leases_and_transactions_are_bounded() {
    // A lease, its place in the queue of expiry, its record in the batch of the tree and in raft's log.
    const LEASE: u64 = 2 << 10;
    withstand_with(
        "100,000 leases",
        100_000 * LEASE,
        &["--snapshot-count=10000"],
        |address| async move {
            let mut raw = Raw::connect(address, 1 << 30).await;
            raw.widen(1 << 30).await;
            for index in 0..100_000u32 {
                let grant = pb::LeaseGrantRequest {
                    ttl: 100_000,
                    id: i64::from(index) + 1,
                };
                assert!(
                    raw.call(2 * index + 1, "/etcdserverpb.Lease/LeaseGrant", &grant.encode_to_vec())
                        .await
                );
                if index % 500 == 499 {
                    raw.hear(Duration::from_millis(10)).await;
                }
            }
            Box::new(raw) as Held
        },
    );
    // What waits, what is in the log three times, what is on its way into the tree (the batch that gathers and the one that
    // is written, each with all that was in the log when it closed), and of raft's log what is kept for slow followers, what
    // comes until a snapshot is due, and what comes while it is written: no more than fits into a commit and the one after.
    let pending = Limits::DEFAULT.proposals_pending_bytes_max as u64;
    let log = Limits::DEFAULT.proposals_under_way_bytes_max as u64;
    let tree = Limits::DEFAULT.backend_open_bytes_max as u64;
    let raft = Limits::DEFAULT.log_catch_up_bytes_max + Limits::DEFAULT.log_bytes_between_snapshots + 2 * (tree + log);
    withstand_with(
        "1,200 transactions of 1.4 MiB from 20 connections",
        pending + 3 * log + 2 * (tree + log) + raft,
        &["--quota-backend-bytes=8000000000"],
        |address| async move {
            let mut held = Vec::new();
            for sender in 0..20u32 {
                let mut raw = Raw::connect(address, 65_535).await;
                for index in 0..60 {
                    let success = (0..128)
                        .map(|op| pb::RequestOp {
                            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                                key: format!("txn/{sender}/{op}").into(),
                                value: vec![b'x'; 11_000].into(),
                                ..Default::default()
                            })),
                        })
                        .collect();
                    let txn = pb::TxnRequest {
                        success,
                        ..Default::default()
                    };
                    raw.call(2 * index + 1, "/etcdserverpb.KV/Txn", &txn.encode_to_vec())
                        .await;
                }
                held.push(raw);
            }
            Box::new(held) as Held
        },
    );
}
