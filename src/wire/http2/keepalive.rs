//! Pings both ways, as gRPC servers handle them: how often a client may ping, and when we ping a silent client.

use std::time::Duration;

use crate::base::Monotonic;

/// Strikes that are forgiven; one more ends the connection.
const STRIKES_MAX: u32 = 2;
/// How far apart pings must be while no stream is open (gRPC's own, not configurable).
const IDLE_PING_INTERVAL_MIN: Duration = Duration::from_secs(2 * 60 * 60);
/// How far apart pings must be if the operator says nothing (gRPC's own).
const PING_INTERVAL_MIN_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Counts pings that come too early. A ping right after we have sent headers or data is free, for clients estimate the
/// bandwidth with pings; it also wipes the slate.
#[derive(Clone, Debug)]
pub struct PingPolicy {
    interval_min: Duration,
    last_ping_at: Option<Monotonic>,
    strikes: u32,
    forgiven: bool,
}

impl PingPolicy {
    /// Pings may be `interval_min` apart while a stream is open; zero means gRPC's default of five minutes.
    pub fn new(interval_min: Duration) -> PingPolicy {
        PingPolicy {
            interval_min: if interval_min.is_zero() {
                PING_INTERVAL_MIN_DEFAULT
            } else {
                interval_min
            },
            last_ping_at: None,
            strikes: 0,
            forgiven: false,
        }
    }

    /// Headers or data were sent.
    #[inline]
    pub fn forgive(&mut self) {
        self.forgiven = true;
    }

    /// A ping came; false if the client is to be disconnected.
    pub fn ping(&mut self, streams_open: usize, now: Monotonic) -> bool {
        let last_ping_at = self.last_ping_at.replace(now);
        if self.forgiven {
            self.forgiven = false;
            self.strikes = 0;
            return true;
        }
        let interval_min = if streams_open == 0 {
            IDLE_PING_INTERVAL_MIN
        } else {
            self.interval_min
        };
        if last_ping_at.is_some_and(|last| last + interval_min > now) {
            self.strikes += 1;
        }
        self.strikes <= STRIKES_MAX
    }
}

/// When to ping a silent peer, and when to give it up.
#[derive(Clone, Debug)]
pub struct Keepalive {
    interval: Duration,
    timeout: Duration,
    last_read_at: Monotonic,
    ping_sent_at: Option<Monotonic>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepaliveAction {
    /// Nothing.
    Wait,
    /// A ping.
    Ping,
    /// The connection's end: the peer did not answer.
    Close,
}

impl Keepalive {
    /// Pings after `interval` of silence (zero: never) and closes after `timeout` more.
    pub fn new(interval: Duration, timeout: Duration, now: Monotonic) -> Keepalive {
        Keepalive {
            interval,
            timeout,
            last_read_at: now,
            ping_sent_at: None,
        }
    }

    /// Bytes came.
    #[inline]
    pub fn read(&mut self, now: Monotonic) {
        self.last_read_at = now;
        self.ping_sent_at = None;
    }

    /// When `tick` has something to do.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        match self.ping_sent_at {
            Some(sent_at) => Some(sent_at + self.timeout),
            None if self.interval.is_zero() => None,
            None => Some(self.last_read_at + self.interval),
        }
    }

    /// What is due at `now`.
    pub fn tick(&mut self, now: Monotonic) -> KeepaliveAction {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return KeepaliveAction::Wait;
        }
        if self.ping_sent_at.is_some() {
            return KeepaliveAction::Close;
        }
        self.ping_sent_at = Some(now);
        KeepaliveAction::Ping
    }
}
