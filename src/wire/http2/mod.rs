//! HTTP/2 (RFC 9113) without IO: frames, streams, windows, and the limits that keep a hostile peer cheap.
//!
//! [`Connection`] is one end of a connection. It is asked for what the peer sent ([`Connection::advance`]) and told what
//! to send; what is to be written gathers in [`Connection::output`]. It knows nothing of requests, gRPC or time beyond
//! what it is given.
//!
//! A stream's life, as either end sees it (section 5.1). A stream that both have ended is forgotten at once, save for its
//! number in a short list of late ones:
//!
//! ```text
//!                    HEADERS                 peer's END_STREAM
//!          (idle) ─────────────▶ open ──────────────────────▶ half-closed (remote)
//!                                 │ our END_STREAM                  │ our END_STREAM
//!                                 ▼                                 ▼
//!                     half-closed (local) ── peer's END_STREAM ─▶ gone ◀── RST_STREAM, either way, from anywhere
//! ```

mod connection;
mod control;
mod error;
mod fields;
mod flood;
mod frame;
mod keepalive;
mod receive;
mod send;
mod settings;
mod stream;

pub use connection::{BlockSink, Connection, ConnectionOptions, Incoming, Role};
pub use error::ErrorCode;
pub use fields::BlockKind;
pub(crate) use fields::parse_content_length;
pub use frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, PREFACE, flags, write_frame_header, write_go_away, write_ping,
    write_reset, write_settings, write_window_update,
};
pub use keepalive::{Keepalive, KeepaliveAction, PingPolicy};
pub use send::{Encode, Payload, Prefix, SendState};
pub use settings::{Settings, SettingsError};
pub use stream::{Slot, Stream, StreamTable};

/// Largest window and largest stream id (section 6.9.1 and 5.1.1).
pub const WINDOW_MAX: u32 = (1 << 31) - 1;
/// A window's size unless SETTINGS say otherwise, in bytes.
pub const WINDOW_BYTES_DEFAULT: u32 = 65_535;
/// Largest frame that we take in, and that we send, in bytes of payload. The protocol's minimum, which every peer takes;
/// larger ones would only let one stream hold up the others for longer.
pub const FRAME_BYTES_MAX: u32 = 16_384;
/// Streams that one connection may have open, whatever the configuration says: a stream costs some 250 bytes.
pub const STREAMS_MAX: u32 = 32_768;

#[cfg(test)]
mod tests;
