//! The server's end against frames made by hand, by section of RFC 9113. `END` names the error that ends the connection,
//! `RESET` the one that ends a stream.

use bytes::{Buf, BufMut, BytesMut};

use super::*;
use crate::{
    base::Monotonic,
    wire::{
        hpack::{Field, encode_field},
        test_support::{Rng, mutated},
    },
};

const SECOND: u64 = 1_000_000_000;

#[derive(Default)]
struct Ignore;

impl crate::wire::hpack::FieldSink for Ignore {
    fn field(&mut self, _: Field<'_>) {}
}

impl BlockSink for Ignore {
    fn begin(&mut self, _: BlockKind) {}
}

fn options() -> ConnectionOptions {
    ConnectionOptions {
        concurrent_streams_max: 10,
        header_list_bytes_max: 16_384,
        stream_window_bytes: 65_535,
        connection_window_bytes: 65_535,
        stream_queue_bytes_high: 1000,
        keepalive_time_min: std::time::Duration::from_secs(5),
        keepalive_interval: std::time::Duration::from_secs(7200),
        keepalive_timeout: std::time::Duration::from_secs(20),
    }
}

/// A server and what a peer sends it.
struct Peer {
    server: Connection<u32>,
    input: BytesMut,
    now: Monotonic,
    seen: Vec<String>,
}

impl Peer {
    /// After the preface and SETTINGS both ways.
    fn new() -> Peer {
        let mut peer = Peer::before_settings();
        peer.frame(FrameKind::Settings, 0, 0, b"");
        peer.run();
        peer.server.output.clear();
        peer
    }

    fn before_settings() -> Peer {
        Peer {
            server: Connection::new(Role::Server, options(), Monotonic(1)),
            input: BytesMut::from(&PREFACE[..]),
            now: Monotonic(1),
            seen: Vec::new(),
        }
    }

    fn frame(&mut self, kind: FrameKind, flags: u8, stream: u32, payload: &[u8]) -> &mut Peer {
        write_frame_header(payload.len(), kind, flags, stream, &mut self.input);
        self.input.extend_from_slice(payload);
        self
    }

    fn request(&mut self, stream: u32, flags: u8) -> &mut Peer {
        self.frame(
            FrameKind::Headers,
            flags | flags::END_HEADERS,
            stream,
            &request_block(&[]),
        )
    }

    fn run(&mut self) -> &mut Peer {
        loop {
            match self.server.advance(&mut self.input, self.now, &mut Ignore) {
                Incoming::Nothing => break,
                Incoming::Headers { slot, kind, end } => {
                    let id = self.server.streams.at(slot).id;
                    self.seen
                        .push(format!("{kind:?} {id}{}", if end { " end" } else { "" }));
                }
                Incoming::Data { slot, len, end } => {
                    let id = self.server.streams.at(slot).id;
                    self.input.advance(len);
                    self.seen
                        .push(format!("Data {id} {len}{}", if end { " end" } else { "" }));
                }
                Incoming::Reset { stream, code, .. } => self.seen.push(format!("Reset {stream} {code:?}")),
                Incoming::GoAway { last_stream, code, .. } => self.seen.push(format!("GoAway {last_stream} {code:?}")),
            }
        }
        self.server.pump();
        self
    }

    /// What the server wrote, frame by frame.
    fn answers(&mut self) -> Vec<String> {
        self.run();
        let mut output = std::mem::take(&mut self.server.output);
        let mut answers = Vec::new();
        while let Some(header) = FrameHeader::read(&output) {
            output.advance(FRAME_HEADER_BYTES);
            let payload = output.split_to(header.len as usize);
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            let error = |at: usize| ErrorCode::from_wire(number(at));
            answers.push(match header.kind {
                FrameKind::GoAway => format!("END {:?} last {}", error(4), number(0)),
                FrameKind::ResetStream => format!("RESET {} {:?}", header.stream, error(0)),
                FrameKind::WindowUpdate => format!("WINDOW {} {}", header.stream, number(0)),
                FrameKind::Data => format!("DATA {} {} {}", header.stream, header.len, header.flags),
                kind => format!("{kind:?} {} flags {}", header.stream, header.flags),
            });
        }
        assert!(output.is_empty());
        answers
    }

    fn check(&mut self, expected: &[&str]) {
        assert_eq!(self.answers(), expected);
    }

    fn check_end(&mut self, code: &str) {
        let answers = self.answers();
        let last = answers.last().expect("a GOAWAY");
        assert!(last.starts_with(&format!("END {code} ")), "{answers:?}");
        assert!(self.server.is_over());
    }

    fn slot(&self, stream: u32) -> Slot {
        self.server.streams.find(stream).expect("the stream is open")
    }
}

fn request_block(more: &[(&str, &str)]) -> BytesMut {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", "/x")], more)
}

fn block(fields: &[(&str, &str)], more: &[(&str, &str)]) -> BytesMut {
    let mut block = BytesMut::new();
    for (name, value) in fields.iter().chain(more) {
        encode_field(name, value.as_bytes(), &mut block);
    }
    block
}

#[test]
fn rfc9113_3_4_preface_is_answered_with_settings() {
    let mut peer = Peer::before_settings();
    peer.frame(FrameKind::Settings, 0, 0, b"")
        .check(&["Settings 0 flags 0", "Settings 0 flags 1"]);
    let mut peer = Peer::before_settings();
    peer.input = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nXX"[..]);
    peer.check_end("ProtocolError");
    let mut peer = Peer::before_settings();
    peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).check_end("ProtocolError");
}

#[test]
fn rfc9113_4_1_unknown_frames_are_ignored() {
    let mut peer = Peer::new();
    peer.input.extend_from_slice(&[0, 0, 1, 0x77, 0xff, 0, 0, 0, 9, 1]);
    peer.check(&[]);
}

#[test]
fn rfc9113_4_2_frames_have_sizes() {
    Peer::new()
        .frame(FrameKind::Data, 0, 1, &[0; 16_385])
        .check_end("FrameSizeError");
    Peer::new()
        .frame(FrameKind::Ping, 0, 0, &[0; 7])
        .check_end("FrameSizeError");
    Peer::new()
        .frame(FrameKind::Settings, 0, 0, &[0; 5])
        .check_end("FrameSizeError");
    Peer::new()
        .frame(FrameKind::Settings, flags::ACK, 0, &[0; 6])
        .check_end("FrameSizeError");
    Peer::new()
        .frame(FrameKind::WindowUpdate, 0, 0, &[0; 3])
        .check_end("FrameSizeError");
    Peer::new()
        .frame(FrameKind::GoAway, 0, 0, &[0; 7])
        .check_end("FrameSizeError");
    Peer::new()
        .request(1, 0)
        .frame(FrameKind::ResetStream, 0, 1, &[0; 3])
        .check_end("FrameSizeError");
    Peer::new()
        .request(1, 0)
        .frame(FrameKind::Priority, 0, 1, &[0; 4])
        .check(&["RESET 1 FrameSizeError"]);
}

#[test]
fn rfc9113_4_3_bad_blocks_end_the_connection() {
    let end_headers = flags::END_HEADERS;
    Peer::new()
        .frame(FrameKind::Headers, end_headers, 1, &[0x80])
        .check_end("CompressionError");
    // Also on streams that are refused: the tables must stay equal.
    let mut peer = Peer::new();
    for number in 0..11 {
        peer.request(1 + 2 * number, 0);
    }
    peer.check(&["RESET 21 RefusedStream"]);
    peer.frame(FrameKind::Headers, end_headers, 23, &[0x80])
        .check_end("CompressionError");
}

#[test]
fn rfc9113_5_1_idle_streams_take_only_headers() {
    for (kind, len) in [
        (FrameKind::Data, 0),
        (FrameKind::ResetStream, 4),
        (FrameKind::WindowUpdate, 4),
    ] {
        Peer::new().frame(kind, 0, 1, &[1; 4][..len]).check_end("ProtocolError");
    }
    Peer::new()
        .frame(FrameKind::Continuation, 0, 1, b"")
        .check_end("ProtocolError");
    Peer::new().frame(FrameKind::Priority, 0, 1, &[0; 5]).check(&[]);
}

#[test]
fn rfc9113_5_1_half_closed_remote_takes_no_content() {
    let mut peer = Peer::new();
    peer.request(1, flags::END_STREAM)
        .frame(FrameKind::Data, 0, 1, b"x")
        .check(&["RESET 1 StreamClosed"]);
    let mut peer = Peer::new();
    peer.request(1, flags::END_STREAM)
        .request(1, flags::END_STREAM)
        .check(&["RESET 1 StreamClosed"]);
    let mut peer = Peer::new();
    let window = 5u32.to_be_bytes();
    peer.request(1, flags::END_STREAM)
        .frame(FrameKind::WindowUpdate, 0, 1, &window)
        .check(&[]);
}

#[test]
fn rfc9113_5_1_closed_streams() {
    // Ended by both: anything but RST_STREAM, WINDOW_UPDATE and PRIORITY is wrong.
    let ended = || {
        let mut peer = Peer::new();
        peer.request(1, flags::END_STREAM).run();
        let slot = peer.slot(1);
        peer.server.send_headers(slot, &[0x88], true);
        peer.server.output.clear();
        peer
    };
    ended().frame(FrameKind::Data, 0, 1, b"x").check_end("StreamClosed");
    ended().request(1, flags::END_STREAM).check_end("StreamClosed");
    ended().frame(FrameKind::ResetStream, 0, 1, &[0; 4]).check(&[]);
    ended().frame(FrameKind::WindowUpdate, 0, 1, &[0, 0, 0, 1]).check(&[]);
    // Reset by us: the peer may not know yet.
    let reset = || {
        let mut peer = Peer::new();
        peer.request(1, 0).run();
        let slot = peer.slot(1);
        peer.server.reset(slot, ErrorCode::Cancel);
        peer.server.output.clear();
        peer
    };
    reset().frame(FrameKind::Data, flags::END_STREAM, 1, b"x").check(&[]);
    reset().request(1, flags::END_STREAM).check(&[]);
    // Reset by the peer: it knows.
    let mut peer = Peer::new();
    peer.request(1, 0)
        .frame(FrameKind::ResetStream, 0, 1, &[0, 0, 0, 8])
        .check(&[]);
    assert_eq!(peer.seen, ["Request 1", "Reset 1 Cancel"]);
    peer.frame(FrameKind::Data, 0, 1, b"x").check_end("StreamClosed");
}

#[test]
fn rfc9113_5_1_1_stream_ids_are_odd_and_ascend() {
    Peer::new().request(2, 0).check_end("ProtocolError");
    Peer::new().request(5, 0).request(3, 0).check_end("ProtocolError");
    Peer::new().request(0, 0).check_end("ProtocolError");
}

#[test]
fn rfc9113_5_1_2_streams_over_the_limit_are_refused() {
    let mut peer = Peer::new();
    for number in 0..10 {
        peer.request(1 + 2 * number, 0);
    }
    peer.check(&[]);
    peer.request(21, 0).check(&["RESET 21 RefusedStream"]);
    let slot = peer.slot(1);
    peer.server.reset(slot, ErrorCode::Cancel);
    peer.server.output.clear();
    peer.request(23, 0).check(&[]);
}

#[test]
fn rfc9113_5_3_2_a_stream_does_not_depend_on_itself() {
    Peer::new()
        .frame(FrameKind::Priority, 0, 3, &[0, 0, 0, 3, 0])
        .check_end("ProtocolError");
    let mut payload = BytesMut::from(&[0, 0, 0, 1, 0][..]);
    payload.extend_from_slice(&request_block(&[]));
    let headers = flags::END_HEADERS | flags::PRIORITY;
    Peer::new()
        .frame(FrameKind::Headers, headers, 1, &payload)
        .check_end("ProtocolError");
    payload[3] = 0;
    Peer::new().frame(FrameKind::Headers, headers, 1, &payload).check(&[]);
}

#[test]
fn rfc9113_5_4_1_nothing_is_read_after_an_error() {
    let mut peer = Peer::new();
    peer.request(1, 0).run();
    peer.frame(FrameKind::Ping, 0, 1, &[0; 8]).request(3, 0);
    peer.check(&["END ProtocolError last 1"]);
    peer.request(5, 0).check(&[]);
    assert_eq!(peer.seen, ["Request 1"]);
}

#[test]
fn rfc9113_6_1_padding_is_stripped_and_counts_for_the_windows() {
    let mut peer = Peer::new();
    peer.request(1, 0)
        .frame(FrameKind::Data, flags::PADDED | flags::END_STREAM, 1, b"\x03body\0\0\0")
        .run();
    assert_eq!(peer.seen, ["Request 1", "Data 1 4 end"]);
    assert!(peer.input.is_empty() || peer.run().input.is_empty());
    Peer::new()
        .request(1, 0)
        .frame(FrameKind::Data, flags::PADDED, 1, b"\x05body")
        .check_end("ProtocolError");
    Peer::new()
        .request(1, 0)
        .frame(FrameKind::Data, flags::PADDED, 1, b"")
        .check_end("FrameSizeError");
    Peer::new()
        .frame(FrameKind::Data, 0, 0, b"x")
        .check_end("ProtocolError");
    let mut peer = Peer::new();
    let padded = [&[255][..], &[0; 255]].concat();
    for _ in 0..127 {
        peer.request_once(1).frame(FrameKind::Data, flags::PADDED, 1, &padded);
    }
    assert!(peer.answers().is_empty());
    peer.frame(FrameKind::Data, flags::PADDED, 1, &padded)
        .check(&["WINDOW 0 32768", "WINDOW 1 32768"]);
}

impl Peer {
    fn request_once(&mut self, stream: u32) -> &mut Peer {
        self.run();
        if self.server.streams.find(stream).is_none() {
            self.request(stream, 0).run();
        }
        self
    }
}

#[test]
fn rfc9113_6_5_settings_have_bounds() {
    let setting = |id: u8, value: u32| {
        let mut payload = vec![0, id];
        payload.put_u32(value);
        payload
    };
    Peer::new()
        .frame(FrameKind::Settings, 0, 0, &setting(2, 2))
        .check_end("ProtocolError");
    Peer::new()
        .frame(FrameKind::Settings, 0, 0, &setting(4, 1 << 31))
        .check_end("FlowControlError");
    Peer::new()
        .frame(FrameKind::Settings, 0, 0, &setting(5, 16_383))
        .check_end("ProtocolError");
    Peer::new()
        .frame(FrameKind::Settings, 0, 0, &setting(5, 1 << 24))
        .check_end("ProtocolError");
    Peer::new()
        .frame(FrameKind::Settings, 0, 0, &setting(0x99, 7))
        .check(&["Settings 0 flags 1"]);
    Peer::new()
        .frame(FrameKind::Settings, 0, 1, b"")
        .check_end("ProtocolError");
}

#[test]
fn rfc9113_6_6_nobody_pushes_to_a_server() {
    Peer::new()
        .frame(FrameKind::PushPromise, flags::END_HEADERS, 1, &[0; 8])
        .check_end("ProtocolError");
}

#[test]
fn rfc9113_6_7_pings_are_answered_with_their_bytes() {
    let mut peer = Peer::new();
    peer.frame(FrameKind::Ping, 0, 0, b"12345678").run();
    assert!(peer.server.output.ends_with(b"12345678"));
    peer.check(&["Ping 0 flags 1"]);
    peer.frame(FrameKind::Ping, flags::ACK, 0, b"12345678").check(&[]);
    Peer::new()
        .frame(FrameKind::Ping, 0, 1, &[0; 8])
        .check_end("ProtocolError");
}

#[test]
fn rfc9113_6_8_graceful_end_serves_what_was_under_way() {
    let mut peer = Peer::new();
    peer.request(1, 0).run();
    peer.server.shutdown(peer.now);
    let last = format!("END NoError last {}", WINDOW_MAX);
    peer.check(&[&last, "Ping 0 flags 0"]);
    peer.request(3, flags::END_STREAM)
        .frame(FrameKind::Ping, flags::ACK, 0, b"drain\0\0\0");
    peer.check(&["END NoError last 3"]);
    peer.request(5, 0)
        .frame(FrameKind::Data, flags::END_STREAM, 5, b"x")
        .check(&[]);
    peer.frame(FrameKind::ResetStream, 0, 5, &[0, 0, 0, 8]).check(&[]);
    assert_eq!(peer.seen, ["Request 1", "Request 3 end"]);
    for stream in [1, 3] {
        assert!(!peer.server.is_over());
        let slot = peer.slot(stream);
        peer.server.send_headers(slot, &[0x88], true);
    }
    assert!(peer.server.is_over());
}

#[test]
fn rfc9113_6_8_graceful_end_does_not_wait_for_a_silent_peer() {
    let mut peer = Peer::new();
    peer.server.shutdown(peer.now);
    assert_eq!(peer.server.next_deadline(), Some(Monotonic(1 + 5 * SECOND)));
    peer.server.tick(Monotonic(1 + 5 * SECOND));
    assert!(peer.server.is_over());
}

#[test]
fn rfc9113_6_9_windows_bound_what_the_peer_sends() {
    let mut peer = Peer::new();
    peer.request(1, 0);
    peer.server.options.stream_window_bytes = u32::MAX >> 1;
    peer.server.options.connection_window_bytes = u32::MAX >> 1;
    for _ in 0..4 {
        peer.frame(FrameKind::Data, 0, 1, &[0; 16_384]);
    }
    peer.check_end("FlowControlError");
}

#[test]
fn rfc9113_6_9_1_window_updates_have_bounds() {
    let update = |value: u32| value.to_be_bytes();
    Peer::new()
        .frame(FrameKind::WindowUpdate, 0, 0, &update(0))
        .check_end("ProtocolError");
    Peer::new()
        .frame(FrameKind::WindowUpdate, 0, 0, &update(WINDOW_MAX))
        .check_end("FlowControlError");
    Peer::new()
        .request(1, 0)
        .frame(FrameKind::WindowUpdate, 0, 1, &update(0))
        .check(&["RESET 1 ProtocolError"]);
    let mut peer = Peer::new();
    peer.request(1, 0)
        .frame(FrameKind::WindowUpdate, 0, 1, &update(WINDOW_MAX))
        .check(&["RESET 1 FlowControlError"]);
}

#[test]
fn rfc9113_6_9_2_a_smaller_initial_window_may_go_below_zero() {
    let mut peer = Peer::new();
    peer.frame(FrameKind::Settings, 0, 0, &[0, 4, 0, 0, 0, 10])
        .request(1, 0)
        .check(&["Settings 0 flags 1"]);
    let slot = peer.slot(1);
    peer.server.send_data(slot, Prefix::NONE, &[7u8; 30][..], false);
    peer.check(&["DATA 1 10 0"]);
    // 10 used of 3: 7 below zero.
    peer.frame(FrameKind::Settings, 0, 0, &[0, 4, 0, 0, 0, 3])
        .check(&["Settings 0 flags 1"]);
    peer.frame(FrameKind::WindowUpdate, 0, 1, &7u32.to_be_bytes())
        .check(&[]);
    peer.frame(FrameKind::WindowUpdate, 0, 1, &5u32.to_be_bytes())
        .check(&["DATA 1 5 0"]);
    peer.frame(FrameKind::Settings, 0, 0, &[0, 4, 0, 0, 1, 0])
        .check(&["Settings 0 flags 1", "DATA 1 15 0"]);
    // A window that overflows by SETTINGS ends the connection.
    peer.frame(FrameKind::WindowUpdate, 0, 1, &(WINDOW_MAX - 1000).to_be_bytes());
    peer.frame(FrameKind::Settings, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])
        .check_end("FlowControlError");
}

#[test]
fn rfc9113_6_9_the_connections_window_holds_all_streams() {
    let mut peer = Peer::new();
    peer.frame(FrameKind::Settings, 0, 0, &[0, 4, 0, 2, 0, 0])
        .request(1, 0)
        .request(3, 0)
        .check(&["Settings 0 flags 1"]);
    for stream in [1, 3] {
        let slot = peer.slot(stream);
        peer.server
            .send_data(slot, Prefix::NONE, &[7u8; 40_000][..], stream == 3);
    }
    // Frames of the two take turns until the connection's 65,535 bytes are used.
    let answers = peer.answers();
    assert_eq!(
        answers[..4],
        ["DATA 1 16384 0", "DATA 3 16384 0", "DATA 1 16384 0", "DATA 3 16383 0"]
    );
    assert_eq!(answers.len(), 4);
    assert_eq!(peer.server.queued_bytes(), 80_000 - 65_535);
    assert!(peer.server.writable.is_empty());
    peer.frame(FrameKind::WindowUpdate, 0, 0, &100_000u32.to_be_bytes());
    peer.check(&["DATA 1 7232 0", "DATA 3 7233 1", "RESET 3 NoError"]);
    assert_eq!(peer.server.writable, [1]);
    assert_eq!(peer.server.queued_bytes(), 0);
}

#[test]
fn rfc9113_6_10_continuations_follow_their_headers() {
    let block = request_block(&[]);
    let mut peer = Peer::new();
    peer.frame(FrameKind::Headers, flags::END_STREAM, 1, &block[..2])
        .frame(FrameKind::Continuation, 0, 1, &block[2..3])
        .frame(FrameKind::Continuation, flags::END_HEADERS, 1, &block[3..])
        .check(&[]);
    assert_eq!(peer.seen, ["Request 1 end"]);
    let begun = || {
        let mut peer = Peer::new();
        peer.frame(FrameKind::Headers, 0, 1, &request_block(&[]));
        peer
    };
    begun().frame(FrameKind::Ping, 0, 0, &[0; 8]).check_end("ProtocolError");
    begun()
        .frame(FrameKind::Continuation, flags::END_HEADERS, 3, b"")
        .check_end("ProtocolError");
    begun().request(1, 0).check_end("ProtocolError");
}

#[test]
fn rfc9113_8_1_trailers_end_the_stream() {
    let trailers = block(&[("x", "y")], &[]);
    let ends = flags::END_HEADERS | flags::END_STREAM;
    let mut peer = Peer::new();
    peer.request(1, 0)
        .frame(FrameKind::Headers, ends, 1, &trailers)
        .check(&[]);
    assert_eq!(peer.seen, ["Request 1", "Trailers 1 end"]);
    let mut peer = Peer::new();
    peer.request(1, 0)
        .frame(FrameKind::Headers, flags::END_HEADERS, 1, &trailers)
        .check(&["RESET 1 ProtocolError"]);
    let mut peer = Peer::new();
    let pseudo = block(&[(":path", "/")], &[]);
    peer.request(1, 0)
        .frame(FrameKind::Headers, ends, 1, &pseudo)
        .check(&["RESET 1 ProtocolError"]);
}

#[test]
fn rfc9113_8_1_1_content_is_as_long_as_announced() {
    let headers = request_block(&[("content-length", "3")]);
    for (content, good) in [(&b"abc"[..], true), (b"ab", false), (b"abcd", false)] {
        let mut peer = Peer::new();
        peer.frame(FrameKind::Headers, flags::END_HEADERS, 1, &headers);
        let expected: &[&str] = if good { &[] } else { &["RESET 1 ProtocolError"] };
        peer.frame(FrameKind::Data, flags::END_STREAM, 1, content)
            .check(expected);
    }
    let mut peer = Peer::new();
    peer.frame(FrameKind::Headers, flags::END_HEADERS | flags::END_STREAM, 1, &headers);
    peer.check(&["RESET 1 ProtocolError"]);
}

#[test]
fn rfc9113_8_2_and_8_3_malformed_requests_are_reset() {
    let good = [(":method", "POST"), (":scheme", "http"), (":path", "/x")];
    let with = |name, value| [&good[..], &[(name, value)]].concat();
    for fields in [
        with("Upper", "x"),
        with("connection", "close"),
        with("transfer-encoding", "chunked"),
        with("te", "gzip"),
        with(":path", "/y"),
        with(":unknown", "x"),
        with(":status", "200"),
        with("content-length", "x"),
        with("a", "b\r\nc"),
        vec![("a", "b"), good[0], good[1], good[2]],
        good[..2].to_vec(),
        good[1..].to_vec(),
        vec![good[0], good[1], (":path", "")],
        vec![(":method", "CONNECT"), (":authority", "x:1")],
    ] {
        let mut peer = Peer::new();
        let mut block = BytesMut::new();
        for (name, value) in &fields {
            encode_field(name, value.as_bytes(), &mut block);
        }
        peer.frame(FrameKind::Headers, flags::END_HEADERS, 1, &block);
        assert_eq!(peer.answers(), ["RESET 1 ProtocolError"], "{fields:?}");
        assert!(peer.seen.is_empty());
        assert!(peer.server.streams.is_empty());
    }
    let fine = with("te", "trailers");
    Peer::new()
        .frame(FrameKind::Headers, flags::END_HEADERS, 1, &block(&fine, &[]))
        .check(&[]);
}

#[test]
fn rfc9113_10_5_floods_end_the_connection() {
    let flood = |kind: FrameKind, flags: u8, stream: u32, payload: &[u8]| {
        let mut peer = Peer::new();
        peer.request(1, 0).run();
        // As if DATA had just gone out: what ends the connection must not be the ping policy.
        for _ in 0..10_100 {
            peer.server.ping_policy.forgive();
            peer.frame(kind, flags, stream, payload).run();
        }
        peer.check_end("EnhanceYourCalm");
    };
    flood(FrameKind::Ping, 0, 0, &[0; 8]);
    flood(FrameKind::Settings, 0, 0, b"");
    flood(FrameKind::Data, 0, 1, b"");
    flood(FrameKind::Priority, 0, 1, &[0; 5]);
    flood(FrameKind::WindowUpdate, 0, 1, &[0, 0, 0, 1]);
    flood(FrameKind::Unknown, 0, 1, b"");
}

#[test]
fn rfc9113_10_5_rapid_resets_end_the_connection() {
    let mut peer = Peer::new();
    for number in 0..5_100 {
        let stream = 1 + 2 * number;
        peer.request(stream, 0)
            .frame(FrameKind::ResetStream, 0, stream, &[0, 0, 0, 8])
            .run();
    }
    peer.check_end("EnhanceYourCalm");
    // So do resets that the peer makes us send.
    let mut peer = Peer::new();
    for number in 0..5_100 {
        let stream = 1 + 2 * number;
        peer.request(stream, 0)
            .frame(FrameKind::WindowUpdate, 0, stream, &[0; 4])
            .run();
    }
    peer.check_end("EnhanceYourCalm");
    // At a human pace they are nobody's concern.
    let mut peer = Peer::new();
    for number in 0..20_000 {
        let stream = 1 + 2 * number;
        peer.now = Monotonic(peer.now.0 + SECOND / 400);
        peer.request(stream, 0)
            .frame(FrameKind::ResetStream, 0, stream, &[0, 0, 0, 8])
            .run();
        assert!(!peer.server.is_over());
    }
}

#[test]
fn rfc9113_10_5_1_continuation_floods_end_the_connection() {
    let mut peer = Peer::new();
    peer.frame(FrameKind::Headers, 0, 1, &request_block(&[]));
    for _ in 0..20 {
        peer.frame(FrameKind::Continuation, 0, 1, &[0; 1000]);
    }
    peer.check_end("EnhanceYourCalm");
    let mut peer = Peer::new();
    peer.frame(FrameKind::Headers, 0, 1, &request_block(&[]));
    for _ in 0..10_100 {
        peer.frame(FrameKind::Continuation, 0, 1, b"");
    }
    peer.check_end("EnhanceYourCalm");
}

#[test]
fn rfc9113_10_5_1_a_list_over_the_limit_is_refused() {
    // An entry of 4 kB in the table, and five references to it.
    let mut bomb = request_block(&[]);
    bomb.put_slice(b"\x40\x01x\x7f\xa0\x1e");
    bomb.put_slice(&[b'y'; 127 + 0xf20]);
    bomb.put_slice(&[0xbe; 5]);
    let mut peer = Peer::new();
    peer.frame(FrameKind::Headers, flags::END_HEADERS, 1, &bomb)
        .check(&["RESET 1 FrameSizeError"]);
    assert!(peer.server.streams.is_empty());
    peer.request(3, 0).check(&[]);
}

#[test]
fn keepalive_pings_come_at_most_every_five_seconds() {
    // Three strikes in a stream's life; the fourth early ping ends the connection.
    let mut peer = Peer::new();
    peer.request(1, 0).run();
    for _ in 0..3 {
        peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).check(&["Ping 0 flags 1"]);
        peer.now = Monotonic(peer.now.0 + SECOND);
    }
    peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).check_end("EnhanceYourCalm");
    // Five seconds apart they are welcome, and DATA from us wipes the slate.
    let mut peer = Peer::new();
    peer.request(1, 0).run();
    for _ in 0..20 {
        peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).check(&["Ping 0 flags 1"]);
        peer.now = Monotonic(peer.now.0 + 5 * SECOND);
    }
    for _ in 0..20 {
        let slot = peer.slot(1);
        peer.server.send_data(slot, Prefix::NONE, &b"x"[..], false);
        peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).run();
        assert!(!peer.server.is_over());
    }
    // Without a stream two hours must pass between them.
    let mut peer = Peer::new();
    for _ in 0..3 {
        peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).check(&["Ping 0 flags 1"]);
        peer.now = Monotonic(peer.now.0 + 60 * SECOND);
    }
    peer.frame(FrameKind::Ping, 0, 0, &[0; 8]).check_end("EnhanceYourCalm");
}

#[test]
fn silent_peers_are_pinged_and_then_given_up() {
    let mut peer = Peer::new();
    let ping_at = Monotonic(1 + 7200 * SECOND);
    assert_eq!(peer.server.next_deadline(), Some(ping_at));
    peer.server.tick(Monotonic(ping_at.0 - 1));
    peer.check(&[]);
    peer.server.tick(ping_at);
    peer.check(&["Ping 0 flags 0"]);
    peer.server.read(Monotonic(ping_at.0 + 1));
    let again = Monotonic(ping_at.0 + 1 + 7200 * SECOND);
    assert_eq!(peer.server.next_deadline(), Some(again));
    peer.server.tick(again);
    peer.server.tick(Monotonic(again.0 + 20 * SECOND));
    assert!(peer.server.is_over());
}

#[test]
fn streams_are_found_whatever_their_ids() {
    let mut server: Connection<u32> = Connection::new(Role::Server, options(), Monotonic(1));
    let mut rng = Rng::new(5);
    let mut model = std::collections::BTreeMap::new();
    let mut id = 1;
    for _ in 0..5_000 {
        if rng.below(3) > 0 || model.is_empty() {
            id += 2 * (1 + if rng.below(10) == 0 { rng.below(50) as u32 } else { 0 });
            let slot = server.insert_stream(id);
            server.streams.at_mut(slot).app = id;
            model.insert(id, slot);
        } else {
            let position = rng.below(model.len());
            let gone = *model.keys().nth(position).unwrap();
            let slot = model.remove(&gone).unwrap();
            assert_eq!(server.streams.remove(slot).app, gone);
        }
        let probe = 1 + 2 * rng.below(id as usize / 2 + 2) as u32;
        assert_eq!(server.streams.find(probe), model.get(&probe).copied());
        assert_eq!(server.streams.len(), model.len());
    }
    assert!(server.streams.slots().eq(model.values().copied()));
}

#[test]
fn thousand_fuzzed_inputs_do_not_panic() {
    let mut rng = Rng::new(3);
    let mut peer = Peer::before_settings();
    peer.frame(FrameKind::Settings, 0, 0, &[0, 4, 0, 0, 0, 50])
        .request(1, 0);
    peer.frame(FrameKind::Data, flags::PADDED, 1, b"\x02\0\0\0\0\x03abc\0\0");
    peer.frame(FrameKind::Headers, 0, 3, &request_block(&[("grpc-timeout", "1S")]));
    peer.frame(FrameKind::Continuation, flags::END_HEADERS, 3, b"");
    peer.frame(FrameKind::WindowUpdate, 0, 1, &[0, 0, 1, 0])
        .frame(FrameKind::Ping, 0, 0, &[1; 8]);
    peer.frame(FrameKind::ResetStream, 0, 3, &[0, 0, 0, 8])
        .request(5, flags::END_STREAM);
    peer.frame(FrameKind::Data, flags::END_STREAM, 1, &[0; 100]);
    let seed = peer.input.to_vec();
    for _ in 0..1000 {
        crate::wire::server::fuzz_server(&mutated(&mut rng, &[&seed]));
    }
}
