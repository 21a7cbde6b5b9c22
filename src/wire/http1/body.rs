//! A request's body (RFC 9112 sections 6 and 7.1).

use bytes::{Buf, BytesMut};

use super::{BodyKind, HttpError};

/// Longest line that announces a chunk, and longest trailer section, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 256;
const TRAILER_BYTES_MAX: usize = 8192;

/// Takes a body from the input as it comes.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    body_bytes_max: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes, and then the end.
    Length(usize),
    ChunkLine,
    ChunkData(usize),
    ChunkEnd,
    Trailers,
    Done,
}

impl BodyDecoder {
    /// A body of at most `body_bytes_max` bytes.
    pub fn new(kind: BodyKind, body_bytes_max: usize) -> Result<BodyDecoder, HttpError> {
        let state = match kind {
            BodyKind::Length(length) if length > body_bytes_max as u64 => return Err(HttpError::BodyTooLarge),
            BodyKind::Length(length) => State::Length(length as usize),
            BodyKind::Chunked => State::ChunkLine,
        };
        Ok(BodyDecoder {
            state,
            body_bytes_max,
            trailer_bytes: 0,
        })
    }

    /// Moves content from `input` to `body`; true when the body is whole.
    pub fn advance(&mut self, input: &mut BytesMut, body: &mut BytesMut) -> Result<bool, HttpError> {
        loop {
            self.state = match self.state {
                State::Done | State::Length(0) => return Ok(true),
                State::Length(left) => match take_content(left, input, body) {
                    Some(left) => State::Length(left),
                    None => return Ok(false),
                },
                State::ChunkLine => match self.chunk_line(input, body.len())? {
                    Some(0) => State::Trailers,
                    Some(len) => State::ChunkData(len),
                    None => return Ok(false),
                },
                State::ChunkData(0) => State::ChunkEnd,
                State::ChunkData(left) => match take_content(left, input, body) {
                    Some(left) => State::ChunkData(left),
                    None => return Ok(false),
                },
                State::ChunkEnd => match take_line(input, 2)? {
                    Some(line) if line.is_empty() => State::ChunkLine,
                    Some(_) => return Err(HttpError::Malformed),
                    None => return Ok(false),
                },
                State::Trailers => match take_line(input, TRAILER_BYTES_MAX)? {
                    Some(line) if line.is_empty() => State::Done,
                    Some(line) => {
                        self.trailer_bytes += line.len();
                        if self.trailer_bytes > TRAILER_BYTES_MAX {
                            return Err(HttpError::HeadTooLarge);
                        }
                        State::Trailers
                    }
                    None => return Ok(false),
                },
            };
        }
    }

    fn chunk_line(&self, input: &mut BytesMut, body_len: usize) -> Result<Option<usize>, HttpError> {
        let Some(line) = take_line(input, CHUNK_LINE_BYTES_MAX)? else {
            return Ok(None);
        };
        let digits = line[..]
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii_end();
        if digits.is_empty() || digits.len() > 15 {
            return Err(HttpError::Malformed);
        }
        let mut len = 0u64;
        for &digit in digits {
            let digit = char::from(digit).to_digit(16).ok_or(HttpError::Malformed)?;
            len = len * 16 + u64::from(digit);
        }
        if len > (self.body_bytes_max - body_len) as u64 {
            return Err(HttpError::BodyTooLarge);
        }
        Ok(Some(len as usize))
    }
}

/// Moves up to `left` bytes; how many are left then, or `None` if the input was empty.
fn take_content(left: usize, input: &mut BytesMut, body: &mut BytesMut) -> Option<usize> {
    if input.is_empty() {
        return None;
    }
    let taken = left.min(input.len());
    body.extend_from_slice(&input[..taken]);
    input.advance(taken);
    Some(left - taken)
}

/// Takes a line without its end, if it is whole.
fn take_line(input: &mut BytesMut, line_bytes_max: usize) -> Result<Option<BytesMut>, HttpError> {
    match input.iter().take(line_bytes_max).position(|byte| *byte == b'\n') {
        Some(end) => {
            let mut line = input.split_to(end);
            input.advance(1);
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            Ok(Some(line))
        }
        None if input.len() >= line_bytes_max => Err(HttpError::Malformed),
        None => Ok(None),
    }
}
