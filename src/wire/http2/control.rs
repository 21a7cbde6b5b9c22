//! Frames that concern the connection itself, and its end (RFC 9113 sections 6.3 to 6.9, 5.4.1).

use std::time::Duration;

use bytes::Bytes;

use super::{
    Connection, ErrorCode, FrameHeader, FrameKind, Incoming, KeepaliveAction, Role, Settings, Slot, WINDOW_MAX,
    connection::Fatal,
    flags,
    frame::{write_frame_header, write_go_away, write_ping},
};
use crate::base::Monotonic;

/// How far a graceful end has come. The first GOAWAY only announces it: a client may have opened streams that we do not
/// know of yet. Those that arrive before the ping's answer are served; the second GOAWAY names the last of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Drain {
    #[default]
    No,
    Announced {
        until: Monotonic,
    },
    Closed {
        last_stream: u32,
    },
}

impl Drain {
    pub fn is_closed_to(self, id: u32) -> bool {
        matches!(self, Drain::Closed { last_stream } if id > last_stream)
    }
}

/// Payload of the ping between the two GOAWAYs.
const DRAIN_PING: [u8; 8] = *b"drain\0\0\0";
/// Payload of keepalive pings.
const KEEPALIVE_PING: [u8; 8] = *b"alive\0\0\0";
/// How long the ping's answer is waited for.
const DRAIN_PING_TIMEOUT: Duration = Duration::from_secs(5);

impl<A: Default> Connection<A> {
    /// A frame that is none of HEADERS, CONTINUATION and DATA.
    pub(super) fn control(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        match header.kind {
            FrameKind::ResetStream => return self.peer_reset(header, payload, now),
            FrameKind::GoAway => return self.peer_go_away(header, payload),
            _ => {}
        }
        self.spend_noise(now)?;
        match header.kind {
            FrameKind::Settings => self.settings(header, payload)?,
            FrameKind::Ping => self.ping(header, payload, now)?,
            FrameKind::WindowUpdate => return self.window_update(header, payload, now),
            FrameKind::Priority => {
                if header.stream == 0 {
                    return Err(Fatal(ErrorCode::ProtocolError, "PRIORITY on stream 0"));
                }
                if payload.len() != 5 {
                    return match self.streams.find(header.stream) {
                        Some(slot) => self.stream_error(slot, ErrorCode::FrameSizeError, now),
                        None => Err(Fatal(ErrorCode::FrameSizeError, "PRIORITY of wrong length")),
                    };
                }
                self.check_dependency(header.stream, payload)?;
            }
            FrameKind::PushPromise => return Err(Fatal(ErrorCode::ProtocolError, "PUSH_PROMISE")),
            _ => {}
        }
        Ok(None)
    }

    /// Priorities mean nothing to us (section 5.3.2), but a stream that depends on itself is an old mistake that old
    /// tests look for (RFC 7540 section 5.3.1).
    pub(super) fn check_dependency(&self, stream: u32, priority: &[u8]) -> Result<(), Fatal> {
        let dependency = u32::from_be_bytes([priority[0] & 0x7f, priority[1], priority[2], priority[3]]);
        if dependency == stream {
            return Err(Fatal(ErrorCode::ProtocolError, "stream depends on itself"));
        }
        Ok(())
    }

    fn peer_reset(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        let code: [u8; 4] = payload
            .try_into()
            .map_err(|_| Fatal(ErrorCode::FrameSizeError, "RST_STREAM of wrong length"))?;
        if header.stream == 0 {
            return Err(Fatal(ErrorCode::ProtocolError, "RST_STREAM on stream 0"));
        }
        let Some(slot) = self.streams.find(header.stream) else {
            self.check_not_idle(header.stream)?;
            self.spend_noise(now)?;
            return Ok(None);
        };
        self.spend_reset(now)?;
        let app = self.forget(slot, false).app;
        Ok(Some(Incoming::Reset {
            stream: header.stream,
            code: ErrorCode::from_wire(u32::from_be_bytes(code)),
            app,
        }))
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Fatal> {
        if header.stream != 0 {
            return Err(Fatal(ErrorCode::ProtocolError, "SETTINGS on a stream"));
        }
        let is_ack = header.has(flags::ACK);
        if is_ack && !payload.is_empty() || !payload.len().is_multiple_of(6) {
            return Err(Fatal(ErrorCode::FrameSizeError, "SETTINGS of wrong length"));
        }
        if is_ack {
            self.own_settings_acknowledged();
            return Ok(());
        }
        let before = self.peer.initial_window_bytes;
        self.peer
            .apply(payload)
            .map_err(|error| Fatal(error.0, "SETTINGS out of bounds"))?;
        let change = i64::from(self.peer.initial_window_bytes) - i64::from(before);
        if change != 0 {
            self.shift_windows(change)?;
        }
        write_frame_header(0, FrameKind::Settings, flags::ACK, 0, &mut self.output);
        Ok(())
    }

    /// From now on the peer goes by our windows, also for streams that are open (section 6.9.2).
    fn own_settings_acknowledged(&mut self) {
        let window = self.options.stream_window_bytes;
        let change = i64::from(window) - i64::from(self.stream_receive_window);
        self.stream_receive_window = window;
        if change != 0 {
            let slots: Vec<Slot> = self.streams.slots().collect();
            for slot in slots {
                self.streams.at_mut(slot).receive_window += change;
            }
        }
    }

    /// A new initial window changes that of every open stream, perhaps to below zero (section 6.9.2).
    fn shift_windows(&mut self, change: i64) -> Result<(), Fatal> {
        let slots: Vec<Slot> = self.streams.slots().collect();
        for slot in slots {
            if !Self::widen(&mut self.streams.at_mut(slot).send.window, change) {
                return Err(Fatal(ErrorCode::FlowControlError, "stream window overflow"));
            }
            self.schedule(slot);
        }
        Ok(())
    }

    fn ping(&mut self, header: FrameHeader, payload: &[u8], now: Monotonic) -> Result<(), Fatal> {
        let payload: [u8; 8] = payload
            .try_into()
            .map_err(|_| Fatal(ErrorCode::FrameSizeError, "PING of wrong length"))?;
        if header.stream != 0 {
            return Err(Fatal(ErrorCode::ProtocolError, "PING on a stream"));
        }
        if header.has(flags::ACK) {
            if payload == DRAIN_PING && matches!(self.drain, Drain::Announced { .. }) {
                self.drain_close();
            }
            return Ok(());
        }
        write_ping(payload, flags::ACK, &mut self.output);
        if self.role == Role::Server && !self.ping_policy.ping(self.streams.len(), now) {
            // gRPC's text; clients look for it and slow down.
            return Err(Fatal(ErrorCode::EnhanceYourCalm, "too_many_pings"));
        }
        Ok(())
    }

    fn window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Monotonic,
    ) -> Result<Option<Incoming<A>>, Fatal> {
        let increment: [u8; 4] = payload
            .try_into()
            .map_err(|_| Fatal(ErrorCode::FrameSizeError, "WINDOW_UPDATE of wrong length"))?;
        let increment = i64::from(u32::from_be_bytes(increment) & WINDOW_MAX);
        if header.stream == 0 {
            if increment == 0 {
                return Err(Fatal(ErrorCode::ProtocolError, "WINDOW_UPDATE by 0"));
            }
            if !Self::widen(&mut self.send_window, increment) {
                return Err(Fatal(ErrorCode::FlowControlError, "connection window overflow"));
            }
            return Ok(None);
        }
        let Some(slot) = self.streams.find(header.stream) else {
            self.check_not_idle(header.stream)?;
            return Ok(None);
        };
        if increment == 0 {
            return self.stream_error(slot, ErrorCode::ProtocolError, now);
        }
        if !Self::widen(&mut self.streams.at_mut(slot).send.window, increment) {
            return self.stream_error(slot, ErrorCode::FlowControlError, now);
        }
        self.schedule(slot);
        Ok(None)
    }

    fn peer_go_away(&mut self, header: FrameHeader, payload: &[u8]) -> Result<Option<Incoming<A>>, Fatal> {
        if header.stream != 0 {
            return Err(Fatal(ErrorCode::ProtocolError, "GOAWAY on a stream"));
        }
        let (Some(last_stream), Some(code)) = (payload.first_chunk::<4>(), payload.get(4..8)) else {
            return Err(Fatal(ErrorCode::FrameSizeError, "GOAWAY too short"));
        };
        self.peer_is_leaving = true;
        Ok(Some(Incoming::GoAway {
            last_stream: u32::from_be_bytes(*last_stream) & WINDOW_MAX,
            code: ErrorCode::from_wire(u32::from_be_bytes([code[0], code[1], code[2], code[3]])),
            debug: Bytes::copy_from_slice(&payload[8..]),
        }))
    }

    /// Ends the connection with GOAWAY; nothing that the peer sends later is looked at. The streams stay for the user to
    /// take leave of.
    pub fn fail(&mut self, code: ErrorCode, debug: &[u8]) {
        if self.failure.is_none() {
            write_go_away(self.peer_stream_last, code, debug, &mut self.output);
            self.failure = Some(code);
        }
    }

    /// Why the connection failed, if it did. `NoError`: the socket ended, or the peer did not answer pings.
    pub fn failure(&self) -> Option<ErrorCode> {
        self.failure
    }

    /// The socket ended: as `fail`, with nobody to tell.
    pub fn end(&mut self) {
        self.failure.get_or_insert(ErrorCode::NoError);
    }

    /// Begins a graceful end.
    pub fn shutdown(&mut self, now: Monotonic) {
        if self.drain == Drain::No && self.failure.is_none() {
            write_go_away(WINDOW_MAX, ErrorCode::NoError, b"graceful_stop", &mut self.output);
            write_ping(DRAIN_PING, 0, &mut self.output);
            self.drain = Drain::Announced {
                until: now + DRAIN_PING_TIMEOUT,
            };
        }
    }

    fn drain_close(&mut self) {
        let last_stream = self.peer_stream_last;
        write_go_away(last_stream, ErrorCode::NoError, b"", &mut self.output);
        self.drain = Drain::Closed { last_stream };
    }

    /// Nothing more will be read, and nothing more written than is in the output.
    pub fn is_over(&self) -> bool {
        self.failure.is_some() || matches!(self.drain, Drain::Closed { .. }) && self.streams.is_empty()
    }

    /// Bytes came from the peer.
    #[inline]
    pub fn read(&mut self, now: Monotonic) {
        self.keepalive.read(now);
    }

    /// When `tick` has something to do.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        if self.failure.is_some() {
            return None;
        }
        let drain = match self.drain {
            Drain::Announced { until } => Some(until),
            _ => None,
        };
        match (drain, self.keepalive.next_deadline()) {
            (Some(drain), Some(keepalive)) => Some(drain.min(keepalive)),
            (drain, keepalive) => drain.or(keepalive),
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Monotonic) {
        if self.failure.is_some() {
            return;
        }
        if matches!(self.drain, Drain::Announced { until } if until <= now) {
            self.drain_close();
        }
        match self.keepalive.tick(now) {
            KeepaliveAction::Wait => {}
            KeepaliveAction::Ping => write_ping(KEEPALIVE_PING, 0, &mut self.output),
            KeepaliveAction::Close => self.end(),
        }
    }

    /// Opens a stream as a client: `None` when the peer allows no more, is leaving, or the ids are used up.
    pub fn open(&mut self) -> Option<Slot> {
        let id = self.own_stream_next;
        if self.failure.is_some()
            || self.peer_is_leaving
            || id > WINDOW_MAX
            || self.streams.len() >= self.peer.concurrent_streams_max as usize
        {
            return None;
        }
        self.own_stream_next = id + 2;
        Some(self.insert_stream(id))
    }

    /// Takes leave of a stream whose peer has ended it: in silence if we have too.
    pub fn close(&mut self, slot: Slot) -> A {
        let stream = self.streams.at(slot);
        if stream.receive_closed && stream.send.closed {
            return self.forget(slot, false).app;
        }
        self.reset(slot, ErrorCode::Cancel)
    }

    /// Whether the peer's SETTINGS have come.
    pub fn is_established(&self) -> bool {
        self.settings_seen
    }

    /// What the peer has said of itself.
    pub fn peer_settings(&self) -> &Settings {
        &self.peer
    }

    /// Whether the peer has said that it takes no more streams.
    pub fn peer_is_leaving(&self) -> bool {
        self.peer_is_leaving
    }

    /// Bytes waiting in all streams.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Sends a ping of the user's own.
    pub fn send_ping(&mut self, payload: [u8; 8]) {
        write_ping(payload, 0, &mut self.output);
    }
}
