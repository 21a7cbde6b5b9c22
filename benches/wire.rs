//! What the protocol core costs: nanoseconds and allocations for each unary call, server and client apart, and for
//! HPACK blocks. Prints a digest of what it did. With `--test` it runs tiny.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use ringd::{
    base::Monotonic,
    wire::{
        client::{ClientConnection, ClientEvent, ClientOptions},
        hpack::{Decoder, Field, encode_integer, huffman_encode},
        server::{ServerConnection, ServerEvent, ServerOptions},
    },
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time and allocations of one side. The time is that of the fastest round, for other programs take their share of the
/// machine.
#[derive(Default)]
struct Cost {
    round: Duration,
    fastest_round: Option<Duration>,
    rounds: u64,
    allocations: u64,
}

impl Cost {
    fn measure(&mut self, work: impl FnOnce()) {
        let (allocations, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
        work();
        self.round += start.elapsed();
        self.allocations += ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    }

    fn end_round(&mut self) {
        let round = std::mem::take(&mut self.round);
        self.fastest_round = Some(self.fastest_round.map_or(round, |fastest| fastest.min(round)));
        self.rounds += 1;
    }

    fn report(&self, name: &str, operations_per_round: u64) {
        let fastest = self.fastest_round.expect("there was a round");
        let nanos = fastest.as_nanos() as f64 / operations_per_round as f64;
        let allocations = self.allocations as f64 / (operations_per_round * self.rounds) as f64;
        println!("{name:<44} {nanos:8.1} ns  {allocations:6.3} allocations");
    }
}

const NOW: Monotonic = Monotonic(1);
/// Calls and blocks of a round.
const ROUND_CALLS: u64 = 4096;

/// Calls in batches over one connection; each side's share.
fn unary(name: &str, rounds: u64, in_flight: u64, message_bytes: usize, timeout: Option<Duration>) -> u64 {
    let mut client = ClientConnection::new(ClientOptions::default(), NOW);
    let mut server = ServerConnection::new(ServerOptions::default(), NOW);
    let method = client.method("/etcdserverpb.KV/Put", &[("client-api-version", "3.6.0")]);
    let question = Bytes::from(vec![7u8; message_bytes]);
    let (mut on_client, mut on_server) = (Cost::default(), Cost::default());
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let mut digest = 0u64;
    let batches_per_round = ROUND_CALLS / in_flight;
    for batch in 0..rounds * batches_per_round {
        on_client.measure(|| {
            for call in 0..in_flight {
                // As clients with a deadline send it: another one each time.
                let timeout = timeout.map(|timeout| timeout - Duration::from_micros(call));
                client.call(method, timeout, &question[..]).expect("streams are left");
            }
        });
        to_server.extend_from_slice(client.output());
        client.output().clear();
        on_server.measure(|| {
            server.receive(&mut to_server, NOW);
            while let Some(event) = server.next_event() {
                if let ServerEvent::Message { stream, message } = event {
                    digest = digest
                        .wrapping_add(u64::from(stream.0))
                        .wrapping_add(message.len() as u64);
                    server.send_unary(stream, &[1u8; 60][..]);
                }
            }
        });
        to_client.extend_from_slice(server.output());
        server.output().clear();
        on_client.measure(|| {
            client.receive(&mut to_client, NOW);
            while let Some(event) = client.next_event() {
                if let ClientEvent::Finished { stream, .. } = event {
                    digest = digest.wrapping_mul(31).wrapping_add(u64::from(stream.0));
                }
            }
        });
        if batch % batches_per_round == batches_per_round - 1 {
            on_server.end_round();
            on_client.end_round();
        }
    }
    on_server.report(&format!("{name}: server"), ROUND_CALLS);
    on_client.report(&format!("{name}: client"), ROUND_CALLS);
    digest
}

fn hpack(rounds: u64) -> u64 {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", "127.0.0.1:2379"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.71.1"),
        ("te", "trailers"),
        ("grpc-timeout", "4999870u"),
    ];
    let block = |pattern: u8| {
        let mut block = BytesMut::new();
        for (name, value) in fields {
            block.extend_from_slice(&[pattern]);
            for text in [name, value] {
                let mut code = Vec::new();
                huffman_encode(text.as_bytes(), &mut code);
                encode_integer(code.len(), 7, 0x80, &mut block);
                block.extend_from_slice(&code);
            }
        }
        block
    };
    let mut decoder = Decoder::new(4096);
    let mut bytes = 0u64;
    let mut sink = |field: Field<'_>| bytes += (field.name.len() + field.value.len()) as u64;
    let (mut literal, mut joining, mut indexed) = (Cost::default(), Cost::default(), Cost::default());
    let (plain, incremental) = (block(0x00), block(0x40));
    let indices: Vec<u8> = (62..70).map(|index| 0x80 | index).collect();
    for (cost, block) in [
        (&mut literal, &plain[..]),
        (&mut joining, &incremental),
        (&mut indexed, &indices),
    ] {
        for _ in 0..rounds {
            cost.measure(|| {
                for _ in 0..ROUND_CALLS {
                    decoder.decode(block, 65_536, &mut sink).expect("a good block");
                }
            });
            cost.end_round();
        }
    }
    literal.report("hpack: 8 Huffman literals", ROUND_CALLS);
    joining.report("hpack: 8 Huffman literals joining the table", ROUND_CALLS);
    indexed.report("hpack: 8 indexed fields", ROUND_CALLS);
    bytes
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    // Words among the arguments choose among the unary cases.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let rounds = if is_test { 1 } else { 200 };
    let mut digest = hpack(rounds);
    let timeout = Some(Duration::from_millis(4_999));
    for (name, in_flight, message_bytes, timeout) in [
        ("unary, 64 in one read, 29 B", 64, 29, None),
        ("unary, 64 in one read, 29 B, timeout", 64, 29, timeout),
        ("unary, 1 in one read, 29 B", 1, 29, None),
        ("unary, 64 in one read, 300 B", 64, 300, None),
        ("unary, 8 in one read, 10 kB", 8, 10_000, None),
    ] {
        if !words.iter().all(|word| name.contains(&word[..])) {
            continue;
        }
        digest = digest.wrapping_add(unary(name, rounds, in_flight, message_bytes, timeout));
    }
    println!("digest {digest:016x}");
}
