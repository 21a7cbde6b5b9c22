//! DATA to messages: a message may lie over several frames, a frame may hold several messages.
//!
//! ```text
//! | compressed 8 | length 32 | message … |
//! ```
//!
//! Whose memory a message has: one of at least [`SHARED_MESSAGE_BYTES_MIN`] bytes that is whole in its frame is a slice of
//! the read buffer, and pins that. A smaller one is copied, together with the other small ones of the same read, into a
//! piece of memory no larger than what was read; a caller that keeps one small message keeps at most that. A message over
//! several frames has its own memory, which grows as the bytes come, never because a length was announced.

use bytes::{Buf, Bytes, BytesMut};

use super::MESSAGE_PREFIX_BYTES;
use crate::wire::status::{Code, Status};

/// Messages of at least this many bytes share the read buffer if they can.
pub const SHARED_MESSAGE_BYTES_MIN: usize = 4096;
/// Bytes of the memory that small messages share, at the most.
const SMALL_MESSAGES_BYTES_MAX: usize = 16 * 1024;

/// Memory for the small messages of one read.
#[derive(Debug, Default)]
pub struct SmallMessages {
    memory: BytesMut,
}

impl SmallMessages {
    /// Copies a message; `input_bytes` is what the rest of the read could still bring.
    #[inline]
    fn copy(&mut self, message: &[u8], input_bytes: usize) -> Bytes {
        if self.memory.capacity() < message.len() {
            let capacity = input_bytes.min(SMALL_MESSAGES_BYTES_MAX).max(message.len());
            self.memory = BytesMut::with_capacity(capacity);
        }
        self.memory.extend_from_slice(message);
        self.memory.split().freeze()
    }

    /// The read is over: what memory is left goes with its messages.
    pub fn release(&mut self) {
        if self.memory.capacity() > 0 {
            self.memory = BytesMut::new();
        }
    }
}

/// One direction of one call.
#[derive(Debug, Default)]
pub struct Deframer {
    prefix: [u8; MESSAGE_PREFIX_BYTES],
    prefix_len: u8,
    /// A message of which a part has come.
    partial: BytesMut,
}

impl Deframer {
    /// Takes the next message from the first `*len` bytes of `input`, which are advanced and counted down. `None`: they
    /// are used up and the message is not whole. An error ends the call; `len` bytes may be left in `input`.
    pub fn next_message(
        &mut self,
        input: &mut BytesMut,
        len: &mut usize,
        small: &mut SmallMessages,
        message_bytes_max: u32,
    ) -> Result<Option<Bytes>, Status> {
        while usize::from(self.prefix_len) < MESSAGE_PREFIX_BYTES {
            if *len == 0 {
                return Ok(None);
            }
            let have = usize::from(self.prefix_len);
            let taken = (MESSAGE_PREFIX_BYTES - have).min(*len);
            self.prefix[have..have + taken].copy_from_slice(&input[..taken]);
            self.prefix_len += taken as u8;
            input.advance(taken);
            *len -= taken;
            if usize::from(self.prefix_len) == MESSAGE_PREFIX_BYTES {
                self.check_prefix(message_bytes_max)?;
            }
        }
        let message_len = self.announced_len();
        if self.partial.is_empty() && *len >= message_len {
            self.prefix_len = 0;
            *len -= message_len;
            return Ok(Some(whole_message(input, message_len, small)));
        }
        let taken = (message_len - self.partial.len()).min(*len);
        self.partial.extend_from_slice(&input[..taken]);
        input.advance(taken);
        *len -= taken;
        if self.partial.len() < message_len {
            return Ok(None);
        }
        self.prefix_len = 0;
        Ok(Some(std::mem::take(&mut self.partial).freeze()))
    }

    /// Bytes held of a message that is not whole.
    pub fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Whether the bytes so far end inside a message.
    pub fn is_inside_message(&self) -> bool {
        self.prefix_len > 0
    }

    /// Whether they end in the prefix of a message.
    pub fn is_inside_prefix(&self) -> bool {
        (1..MESSAGE_PREFIX_BYTES).contains(&usize::from(self.prefix_len))
    }

    fn announced_len(&self) -> usize {
        u32::from_be_bytes([self.prefix[1], self.prefix[2], self.prefix[3], self.prefix[4]]) as usize
    }

    fn check_prefix(&self, message_bytes_max: u32) -> Result<(), Status> {
        let len = self.announced_len();
        if len > message_bytes_max as usize {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("grpc: received message larger than max ({len} vs. {message_bytes_max})"),
            ));
        }
        match self.prefix[0] {
            0 => Ok(()),
            // Calls with a grpc-encoding were refused at their beginning: only the flag is left to be wrong.
            1 => Err(Status::new(
                Code::Internal,
                "grpc: compressed flag set with identity or empty encoding",
            )),
            format => Err(Status::new(
                Code::Internal,
                format!("grpc: received unexpected payload format {format}"),
            )),
        }
    }
}

fn whole_message(input: &mut BytesMut, len: usize, small: &mut SmallMessages) -> Bytes {
    if len == 0 {
        return Bytes::new();
    }
    if len >= SHARED_MESSAGE_BYTES_MIN {
        return input.split_to(len).freeze();
    }
    let message = small.copy(&input[..len], input.len());
    input.advance(len);
    message
}

/// Runs arbitrary bytes through a deframer, in pieces whose sizes they say themselves; must not panic or exceed bounds.
pub fn fuzz_grpc(input: &[u8]) {
    const MESSAGE_BYTES_MAX: u32 = 10_000;
    let mut deframer = Deframer::default();
    let mut small = SmallMessages::default();
    let mut rest = input;
    while let Some((&size, after)) = rest.split_first() {
        let (piece, after) = after.split_at(after.len().min(usize::from(size)));
        rest = after;
        let mut piece = BytesMut::from(piece);
        let mut len = piece.len();
        loop {
            match deframer.next_message(&mut piece, &mut len, &mut small, MESSAGE_BYTES_MAX) {
                Ok(Some(message)) => assert!(message.len() <= MESSAGE_BYTES_MAX as usize),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert_eq!(len, 0);
        assert!(deframer.held_bytes() <= MESSAGE_BYTES_MAX as usize);
    }
}
