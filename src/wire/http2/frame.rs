//! Frames (RFC 9113 sections 4 and 6): their heads, and how those that we send are written.
//!
//! ```text
//! | length 24 | type 8 | flags 8 | reserved 1, stream 31 | payload … |
//! ```

use bytes::{BufMut, BytesMut};

use super::{ErrorCode, Settings};

/// Bytes of a frame's head.
pub const FRAME_HEADER_BYTES: usize = 9;
/// What a client that speaks HTTP/2 sends first (section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Flags, by what they mean where (section 6).
pub mod flags {
    /// DATA, HEADERS: the sender's last frame on the stream.
    pub const END_STREAM: u8 = 0x1;
    /// SETTINGS, PING: an answer.
    pub const ACK: u8 = 0x1;
    /// HEADERS, CONTINUATION: the block is whole.
    pub const END_HEADERS: u8 = 0x4;
    /// DATA, HEADERS: a length byte in front, padding behind.
    pub const PADDED: u8 = 0x8;
    /// HEADERS: five bytes of priority in front.
    pub const PRIORITY: u8 = 0x20;
}

/// A frame's type (section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the RFC's own.
pub enum FrameKind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    ResetStream = 3,
    Settings = 4,
    PushPromise = 5,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    /// A type that we do not know; ignored (section 4.1).
    Unknown = 255,
}

impl FrameKind {
    #[inline]
    fn from_wire(value: u8) -> FrameKind {
        match value {
            0 => FrameKind::Data,
            1 => FrameKind::Headers,
            2 => FrameKind::Priority,
            3 => FrameKind::ResetStream,
            4 => FrameKind::Settings,
            5 => FrameKind::PushPromise,
            6 => FrameKind::Ping,
            7 => FrameKind::GoAway,
            8 => FrameKind::WindowUpdate,
            9 => FrameKind::Continuation,
            _ => FrameKind::Unknown,
        }
    }
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload.
    pub len: u32,
    /// The type.
    pub kind: FrameKind,
    /// The flags, those that the type does not define included.
    pub flags: u8,
    /// The stream, or 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a head from the front of `input`, if it is whole.
    #[inline]
    pub fn read(input: &[u8]) -> Option<FrameHeader> {
        let head: &[u8; FRAME_HEADER_BYTES] = input.first_chunk()?;
        Some(FrameHeader {
            len: u32::from_be_bytes([0, head[0], head[1], head[2]]),
            kind: FrameKind::from_wire(head[3]),
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        })
    }

    /// Whether a flag is set.
    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame's head as bytes.
#[inline]
pub fn frame_header(len: usize, kind: FrameKind, flags: u8, stream: u32) -> [u8; FRAME_HEADER_BYTES] {
    debug_assert!(len < 1 << 24);
    let len = (len as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    [
        len[1], len[2], len[3], kind as u8, flags, stream[0], stream[1], stream[2], stream[3],
    ]
}

/// Appends a frame's head.
#[inline]
pub fn write_frame_header(len: usize, kind: FrameKind, flags: u8, stream: u32, output: &mut BytesMut) {
    output.extend_from_slice(&frame_header(len, kind, flags, stream));
}

/// Appends SETTINGS with the values that differ from the protocol's defaults.
pub fn write_settings(settings: &Settings, output: &mut BytesMut) {
    let mut payload = BytesMut::new();
    settings.write(&mut payload);
    write_frame_header(payload.len(), FrameKind::Settings, 0, 0, output);
    output.extend_from_slice(&payload);
}

/// Appends a WINDOW_UPDATE.
pub fn write_window_update(stream: u32, increment: u32, output: &mut BytesMut) {
    write_frame_header(4, FrameKind::WindowUpdate, 0, stream, output);
    output.put_u32(increment);
}

/// Appends a RST_STREAM.
pub fn write_reset(stream: u32, code: ErrorCode, output: &mut BytesMut) {
    write_frame_header(4, FrameKind::ResetStream, 0, stream, output);
    output.put_u32(code as u32);
}

/// Appends a PING, or with [`flags::ACK`] its answer.
pub fn write_ping(payload: [u8; 8], flags: u8, output: &mut BytesMut) {
    write_frame_header(8, FrameKind::Ping, flags, 0, output);
    output.extend_from_slice(&payload);
}

/// Appends a GOAWAY.
pub fn write_go_away(last_stream: u32, code: ErrorCode, debug: &[u8], output: &mut BytesMut) {
    write_frame_header(8 + debug.len(), FrameKind::GoAway, 0, 0, output);
    output.put_u32(last_stream);
    output.put_u32(code as u32);
    output.extend_from_slice(debug);
}
