//! What several test modules of `wire` share.

use bytes::{Buf, BytesMut};

use super::{
    client::{ClientConnection, ClientEvent},
    server::{ServerConnection, ServerEvent},
};
use crate::base::Monotonic;

/// A small generator of reproducible numbers (xorshift64*).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Input for a fuzz entry: mostly a valid seed with a few bytes changed, cut or repeated; sometimes noise.
pub fn mutated(rng: &mut Rng, seeds: &[&[u8]]) -> Vec<u8> {
    if rng.below(8) == 0 {
        let len = rng.below(200);
        return rng.bytes(len);
    }
    let mut input = seeds[rng.below(seeds.len())].to_vec();
    for _ in 0..rng.below(6) {
        if input.is_empty() {
            break;
        }
        let at = rng.below(input.len());
        match rng.below(5) {
            0 => input[at] = rng.next() as u8,
            1 => input[at] ^= 1 << rng.below(8),
            2 => input.truncate(at),
            3 => {
                let piece = input[at..].to_vec();
                input.extend_from_slice(&piece);
            }
            _ => input.insert(at, rng.next() as u8),
        }
    }
    input
}

/// How the pair's bytes are cut on their way.
#[derive(Clone, Copy)]
pub enum Cut {
    Whole,
    Random { piece_bytes_max: usize },
}

/// A client and a server joined by memory.
pub struct Pair {
    pub client: ClientConnection,
    pub server: ServerConnection,
    pub now: Monotonic,
    to_server: BytesMut,
    to_client: BytesMut,
    server_input: BytesMut,
    client_input: BytesMut,
    cut: Cut,
    rng: Rng,
}

impl Pair {
    pub fn new(client: ClientConnection, server: ServerConnection, cut: Cut, seed: u64) -> Pair {
        Pair {
            client,
            server,
            now: Monotonic(1),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            server_input: BytesMut::new(),
            client_input: BytesMut::new(),
            cut,
            rng: Rng::new(seed),
        }
    }

    fn cut_len(&mut self, len: usize) -> usize {
        match self.cut {
            Cut::Whole => len,
            Cut::Random { piece_bytes_max } => len.min(1 + self.rng.below(piece_bytes_max)),
        }
    }

    /// Moves some bytes each way; false if there were none.
    pub fn turn(&mut self) -> bool {
        let output = self.client.output();
        self.to_server.extend_from_slice(output);
        output.clear();
        let output = self.server.output();
        self.to_client.extend_from_slice(output);
        output.clear();
        if self.to_server.is_empty() && self.to_client.is_empty() {
            return false;
        }
        let len = self.cut_len(self.to_server.len());
        self.server_input.extend_from_slice(&self.to_server[..len]);
        self.to_server.advance(len);
        let len = self.cut_len(self.to_client.len());
        self.client_input.extend_from_slice(&self.to_client[..len]);
        self.to_client.advance(len);
        self.server.receive(&mut self.server_input, self.now);
        self.client.receive(&mut self.client_input, self.now);
        true
    }

    /// Turns until nothing moves; the server's events go to `serve`.
    pub fn run(&mut self, mut serve: impl FnMut(&mut ServerConnection, ServerEvent)) -> Vec<ClientEvent> {
        let mut client_events = Vec::new();
        for _ in 0..10_000_000 {
            let moved = self.turn();
            while let Some(event) = self.server.next_event() {
                serve(&mut self.server, event);
            }
            while let Some(event) = self.client.next_event() {
                client_events.push(event);
            }
            if !moved {
                return client_events;
            }
        }
        panic!("the pair does not come to rest");
    }
}
