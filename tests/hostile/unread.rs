//! Clients that ask and do not read: answers to reads and to writes, lists, and requests that wait behind all of these.

use std::{
    fs,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use prost::Message;
use ringd::{limits::Limits, wire::proto::etcdserverpb as pb};

use crate::{
    Held, MIB, all_of_it, client, fill,
    raw::Raw,
    support::{
        client::Client,
        process::{Plain, Process, Program, on_this_thread},
        world::World,
    },
    withstand, withstand_with,
};

const LIMITS: Limits = Limits::DEFAULT;
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
/// What all answers together may have, and as much again while they pass from one hand to the next.
const ALL: u64 = 2 * LIMITS.all_unsent_bytes_max as u64;

/// All of it in a transaction: its answer is made as a whole, where a list's leaves in parts.
fn all_at_once() -> pb::TxnRequest {
    pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(all_of_it())),
        }],
        ..Default::default()
    }
}

/// Connects so many times and sends as many calls on each; nothing is read.
async fn ask(address: SocketAddr, connections: usize, calls: u32, path: &str, message: &[u8]) -> Vec<Raw> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut raw = Raw::connect(address, 65_535).await;
        for index in 0..calls {
            if !raw.call(2 * index + 1, path, message).await {
                break;
            }
        }
        held.push(raw);
    }
    held
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let unsent = Limits::DEFAULT.connection_unsent_bytes_max as u64;
    // Of each connection: what may wait, one answer more that was begun before, and its copy on the way out.
    const ANSWER: u64 = 4 * MIB;
    withstand(
        "400 answers of 4 MiB to 20 who read nothing",
        60 * MIB + 20 * (unsent + 2 * ANSWER),
        |address| async move {
            fill(&client(address).await, 64, 64 << 10).await;
            Box::new(ask(address, 20, 20, TXN, &all_at_once().encode_to_vec()).await) as Held
        },
    );
    withstand(
        "400 lists of 4 MiB to 20 who read nothing",
        // Of each that goes on: what its client has not taken, a slice and its copy.
        20 * 4 * (LIMITS.list_unsent_bytes_max + 2 * LIMITS.scan_slice_bytes_max) as u64,
        |address| async move {
            fill(&client(address).await, 64, 64 << 10).await;
            Box::new(ask(address, 20, 20, RANGE, &all_of_it().encode_to_vec()).await) as Held
        },
    );
    withstand(
        "5,000 answers of 64 KiB through a window of zero",
        60 * MIB + 2 * unsent,
        |address| async move {
            fill(&client(address).await, 1, 64 << 10).await;
            let mut raw = Raw::connect(address, 0).await;
            raw.widen(1 << 30).await;
            for index in 0..5_000 {
                raw.call(2 * index + 1, RANGE, &all_of_it().encode_to_vec()).await;
            }
            Box::new(raw) as Held
        },
    );
}

#[test]
fn answers_of_all_connections_share_a_bound() {
    withstand(
        "2 answers of 4 MiB to each of 400 who read nothing",
        ALL + 100 * MIB,
        |address| async move {
            fill(&client(address).await, 64, 64 << 10).await;
            Box::new(ask(address, 400, 2, TXN, &all_at_once().encode_to_vec()).await) as Held
        },
    );
    let put_and_read = pb::TxnRequest {
        success: vec![
            pb::RequestOp {
                request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                    key: "k".into(),
                    ..Default::default()
                })),
            },
            pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(all_of_it())),
            },
        ],
        ..Default::default()
    };
    withstand(
        "300 transactions that read 4 MiB from each of 20 who read nothing",
        ALL + LIMITS.turn_answers_bytes_max as u64 + 100 * MIB,
        |address| async move {
            fill(&client(address).await, 64, 64 << 10).await;
            let message = put_and_read.encode_to_vec();
            Box::new(ask(address, 20, 300, TXN, &message).await) as Held
        },
    );
}

#[test]
fn a_transaction_may_not_ask_for_more_than_an_answer_may_have() {
    let read = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(all_of_it())),
    };
    let put = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: "k".into(),
            ..Default::default()
        })),
    };
    // What changes something is made in one turn each.
    for (clients, what, first) in [(20, "reads", read.clone()), (4, "puts and reads", put)] {
        let txn = pb::TxnRequest {
            success: [first].into_iter().chain(vec![read.clone(); 127]).collect(),
            ..Default::default()
        };
        withstand(
            &format!("transactions of {clients} clients, each of which {what} 127 times 16 MiB"),
            // What is being made, which may be moved as it grows.
            2 * LIMITS.answer_bytes_max as u64 + 100 * MIB,
            |address| async move {
                fill(&client(address).await, 256, 64 << 10).await;
                let held = ask(address, clients, 1, TXN, &txn.encode_to_vec()).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                Box::new(held) as Held
            },
        );
    }
}

#[test]
fn requests_behind_unread_answers_are_bounded() {
    // What the connection may have unfinished, what waits, and the answers before it.
    let bound = 64 * MIB + 4 * LIMITS.connection_unsent_bytes_max as u64;
    withstand(
        "2,000 reads of keys of 1 MiB behind answers that nobody reads",
        bound,
        |address| async move {
            fill(&client(address).await, 64, 64 << 10).await;
            let mut held = ask(address, 1, 2, RANGE, &all_of_it().encode_to_vec()).await;
            let long = pb::RangeRequest {
                key: vec![b'k'; MIB as usize].into(),
                serializable: true,
                ..Default::default()
            };
            let message = long.encode_to_vec();
            for index in 2..2_000 {
                if !held[0].call(2 * index + 1, RANGE, &message).await {
                    break;
                }
            }
            Box::new(held) as Held
        },
    );
}

/// So many keys without values, in few transactions.
async fn fill_keys(address: SocketAddr, count: usize) {
    let client = client(address).await;
    for first in (0..count).step_by(1_000) {
        let put = |index: usize| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
                key: format!("big/{index:07}").into(),
                value: format!("{:08x}", index.wrapping_mul(2_654_435_761) as u32).into(),
                ..Default::default()
            })),
        };
        let txn = pb::TxnRequest {
            success: (first..count.min(first + 1_000)).map(put).collect(),
            ..Default::default()
        };
        client.txn(txn).await;
    }
}

#[test]
fn sorted_lists_and_hashes_are_bounded() {
    const KEYS: usize = 300_000;
    let stored = KEYS as u64 * 400;
    withstand_with(
        "4 sorted lists of 300,000 keys on each of 50 connections, none read",
        stored + 48 * LIMITS.scan_keys_held_max as u64 + 50 * MIB,
        &["--max-txn-ops=1000"],
        |address| async move {
            fill_keys(address, KEYS).await;
            let by_value = pb::RangeRequest {
                sort_target: pb::range_request::SortTarget::Value.into(),
                sort_order: pb::range_request::SortOrder::Descend.into(),
                ..all_of_it()
            };
            let held = ask(address, 50, 4, RANGE, &by_value.encode_to_vec()).await;
            tokio::time::sleep(Duration::from_secs(8)).await;
            Box::new(held) as Held
        },
    );
    withstand_with(
        "10 hashes of 300,000 keys on each of 20 connections",
        stored + 64 * KEYS as u64,
        &["--max-txn-ops=1000"],
        |address| async move {
            fill_keys(address, KEYS).await;
            let writer = client(address).await;
            let revision = writer.put("k", "v").await.header.expect("a header").revision;
            writer.compact(revision).await;
            let message = pb::HashKvRequest::default().encode_to_vec();
            let held = ask(address, 20, 10, "/etcdserverpb.Maintenance/HashKV", &message).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            Box::new(held) as Held
        },
    );
}

/// Processor time that a process has had: a hundredth of a second for each tick.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    Duration::from_millis(10 * ticks.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum::<u64>())
}

/// A compaction must not take what a list still reads. It waits for one whose client does not read, without using the
/// processor meanwhile, and no longer than 10 s: then the rest of the list is put into memory, and the client still has all.
#[test]
fn a_compaction_waits_a_while_for_a_list_that_nobody_reads() {
    const KEYS: usize = 600;
    let mut process = Process::start(Program::Ringd, &[]);
    let (address, pid) = (process.address(), process.pid().expect("it runs"));
    on_this_thread(async {
        let writer = client(address).await;
        fill(&writer, KEYS, 16 << 10).await;
        let world: Rc<dyn World> = Rc::new(Plain { address });
        let reader = Client::connect_with_window(&world, 65_535).await;
        let mut list = reader.stream(RANGE).await;
        list.send(&all_of_it());
        list.half_close();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let revision = writer
            .put("big/00000", "later")
            .await
            .header
            .expect("a header")
            .revision;
        let (began, before) = (Instant::now(), processor_time(pid));
        writer.compact(revision).await;
        let (waited, used) = (began.elapsed(), processor_time(pid) - before);
        println!("a compaction waited {waited:.1?} for a list that nobody reads; the server used {used:.1?} meanwhile");
        assert!(
            waited > Duration::from_secs(5),
            "the list was in nobody's way: {waited:?}"
        );
        assert!(waited < Duration::from_secs(30), "{waited:?}");
        assert!(used < waited / 2, "the server was busy for {used:?} of {waited:?}");
        let listed = list.only_message().await.expect("a list that goes on");
        let listed = pb::RangeResponse::decode(listed).expect("a response");
        assert_eq!(listed.kvs.len(), KEYS);
        assert_eq!(
            listed.kvs[0].value.len(),
            16 << 10,
            "the list is of when it was asked for"
        );
    });
    assert!(process.exited().is_none(), "the server ended\n{}", process.log_tail());
}
