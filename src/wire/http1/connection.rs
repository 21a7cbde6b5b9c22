//! One connection: a request at a time, in order. Pipelined requests wait until the one before is answered.

use bytes::BytesMut;

use super::{
    BodyDecoder, BodyKind, Head, HttpBody, HttpError, HttpResponse, parse_head,
    response::{Framing, write_response_head},
};
use crate::wire::server::{HttpRequest, StreamId};

/// A server's side of one HTTP/1.1 connection.
pub struct Http1Connection {
    /// What is to be written.
    pub output: BytesMut,
    input: BytesMut,
    /// Bytes of it in which no head was found.
    input_seen: usize,
    state: State,
    stream_next: u32,
    head_bytes_max: usize,
    body_bytes_max: usize,
    output_bytes_high: usize,
    over_high_mark: bool,
    /// The peer sends no more, or we take no more requests.
    ending: bool,
}

enum State {
    Head,
    Body {
        head: Box<Head>,
        decoder: BodyDecoder,
        body: BytesMut,
    },
    /// The request is with the caller, who has not answered.
    Waiting(Answering),
    /// A streamed answer has begun.
    Streaming(Answering),
    Closed,
}

#[derive(Clone, Copy)]
struct Answering {
    stream: StreamId,
    is_head: bool,
    is_version_11: bool,
    keep_alive: bool,
    framing: Framing,
}

impl Http1Connection {
    /// A connection whose requests have at most so many bytes of head and of body; a streamed answer is reported writable
    /// when the output had reached `output_bytes_high` and is below half of it.
    pub fn new(head_bytes_max: usize, body_bytes_max: usize, output_bytes_high: usize) -> Http1Connection {
        Http1Connection {
            output: BytesMut::new(),
            input: BytesMut::new(),
            input_seen: 0,
            state: State::Head,
            stream_next: 1,
            head_bytes_max,
            body_bytes_max,
            output_bytes_high,
            over_high_mark: false,
            ending: false,
        }
    }

    /// Takes bytes from the peer, unless more are waiting already than a request may have.
    pub fn receive(&mut self, input: &mut BytesMut) {
        if matches!(self.state, State::Closed) {
            input.clear();
        } else if self.input.len() <= self.head_bytes_max + self.body_bytes_max {
            if self.input.is_empty() {
                self.input = std::mem::take(input);
            } else {
                self.input.extend_from_slice(input);
                input.clear();
            }
        }
    }

    /// The next request, once the one before has been answered.
    pub fn next_request(&mut self) -> Option<(StreamId, HttpRequest)> {
        match self.advance() {
            Ok(request) => request,
            Err(error) => {
                self.refuse(error);
                None
            }
        }
    }

    fn advance(&mut self) -> Result<Option<(StreamId, HttpRequest)>, HttpError> {
        if matches!(self.state, State::Head) {
            if self.ending {
                self.state = State::Closed;
                return Ok(None);
            }
            // A head ends with a line: without a new one there is nothing to look at again.
            let has_line = self.input[self.input_seen..].contains(&b'\n');
            self.input_seen = self.input.len();
            if !has_line && self.input.len() <= self.head_bytes_max {
                return Ok(None);
            }
            let Some((head, len)) = parse_head(&self.input, self.head_bytes_max)? else {
                return Ok(None);
            };
            let _ = self.input.split_to(len);
            self.input_seen = 0;
            let decoder = BodyDecoder::new(head.body, self.body_bytes_max)?;
            if head.expects_continue && head.body != BodyKind::Length(0) && self.input.is_empty() {
                self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            self.state = State::Body {
                head: Box::new(head),
                decoder,
                body: BytesMut::new(),
            };
        }
        let State::Body { decoder, body, .. } = &mut self.state else {
            return Ok(None);
        };
        if !decoder.advance(&mut self.input, body)? {
            return Ok(None);
        }
        let State::Body { head, body, .. } = std::mem::replace(&mut self.state, State::Head) else {
            return Ok(None);
        };
        let stream = StreamId(self.stream_next);
        self.stream_next = self.stream_next.wrapping_add(2);
        self.state = State::Waiting(Answering {
            stream,
            is_head: head.method == "HEAD",
            is_version_11: head.is_version_11,
            keep_alive: head.keep_alive,
            framing: Framing::None,
        });
        let request = HttpRequest {
            method: head.method,
            target: head.target,
            authority: head.authority,
            headers: head.headers,
            body: body.freeze(),
        };
        Ok(Some((stream, request)))
    }

    fn refuse(&mut self, error: HttpError) {
        let status = error.status();
        let body = format!("{status} {}", super::reason_phrase(status));
        let len = body.len();
        let response = HttpResponse::new(status, "text/plain; charset=utf-8", body);
        write_response_head(&response, Framing::Length(len), false, true, &mut self.output);
        if let HttpBody::Full(body) = &response.body {
            self.output.extend_from_slice(body);
        }
        self.input = BytesMut::new();
        self.input_seen = 0;
        self.state = State::Closed;
    }

    /// Answers the request, whole or as the beginning of a streamed body. An answer to another stream is dropped.
    pub fn respond(&mut self, stream: StreamId, response: &HttpResponse) {
        let State::Waiting(mut answering) = self.state else {
            return;
        };
        if answering.stream != stream {
            return;
        }
        answering.keep_alive &= !self.ending;
        let has_no_body = matches!(response.status, 100..=199 | 204 | 304);
        answering.framing = match &response.body {
            _ if has_no_body => Framing::None,
            HttpBody::Full(body) => Framing::Length(body.len()),
            HttpBody::Streamed if answering.is_version_11 => Framing::Chunked,
            HttpBody::Streamed => Framing::Close,
        };
        answering.keep_alive &= answering.framing != Framing::Close;
        write_response_head(
            response,
            answering.framing,
            answering.keep_alive,
            answering.is_version_11,
            &mut self.output,
        );
        match &response.body {
            HttpBody::Full(body) => {
                if !answering.is_head && !has_no_body {
                    self.output.extend_from_slice(body);
                }
                self.answered(answering.keep_alive);
            }
            HttpBody::Streamed => self.state = State::Streaming(answering),
        }
    }

    /// Sends a part of a streamed body.
    pub fn send_chunk(&mut self, stream: StreamId, chunk: &[u8]) {
        let State::Streaming(answering) = self.state else {
            return;
        };
        if answering.stream != stream || chunk.is_empty() || answering.is_head {
            return;
        }
        match answering.framing {
            Framing::Chunked => {
                self.output
                    .extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                self.output.extend_from_slice(chunk);
                self.output.extend_from_slice(b"\r\n");
            }
            Framing::Close => self.output.extend_from_slice(chunk),
            Framing::None | Framing::Length(_) => {}
        }
        self.over_high_mark |= self.output.len() >= self.output_bytes_high;
    }

    /// Ends a streamed body.
    pub fn finish_body(&mut self, stream: StreamId) {
        let State::Streaming(answering) = self.state else {
            return;
        };
        if answering.stream != stream {
            return;
        }
        if answering.framing == Framing::Chunked && !answering.is_head {
            self.output.extend_from_slice(b"0\r\n\r\n");
        }
        self.answered(answering.keep_alive);
    }

    /// Gives the answer up: the client sees the connection end inside it.
    pub fn cancel(&mut self, stream: StreamId) {
        if self.open_stream() == Some(stream) {
            self.state = State::Closed;
        }
    }

    fn answered(&mut self, keep_alive: bool) {
        self.over_high_mark = false;
        self.state = if keep_alive { State::Head } else { State::Closed };
        if !keep_alive {
            self.input = BytesMut::new();
        }
        self.input_seen = 0;
    }

    /// Whether a part of a request has come, and the client is expected to send the rest.
    pub fn is_inside_request(&self) -> bool {
        match self.state {
            State::Head => !self.input.is_empty(),
            State::Body { .. } => true,
            State::Waiting(_) | State::Streaming(_) | State::Closed => false,
        }
    }

    /// The request that waits for its answer or the rest of it.
    pub fn open_stream(&self) -> Option<StreamId> {
        match &self.state {
            State::Waiting(answering) | State::Streaming(answering) => Some(answering.stream),
            _ => None,
        }
    }

    /// The streamed answer whose output has drained, once.
    pub fn take_writable(&mut self) -> Option<StreamId> {
        if !self.over_high_mark || self.output.len() >= self.output_bytes_high / 2 {
            return None;
        }
        self.over_high_mark = false;
        self.open_stream()
    }

    /// The socket ended; the stream that this cancels.
    pub fn receive_end(&mut self) -> Option<StreamId> {
        let open = self.open_stream();
        self.state = State::Closed;
        open
    }

    /// Ends after the present request.
    pub fn shutdown(&mut self) {
        self.ending = true;
        if matches!(self.state, State::Head) {
            self.state = State::Closed;
        }
    }

    /// Nothing more will be read or written but the output.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
