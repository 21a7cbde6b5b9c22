//! What a peer may make us do for nothing.
//!
//! Every frame that brings no work forward (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown types, frames on
//! streams that are gone) costs one token; every reset stream costs one of another kind, whoever resets it. Tokens come
//! back with time, and tokens for frames also with the bytes of DATA that flow either way, since acknowledging those is
//! what WINDOW_UPDATE and PING are for. A peer without tokens is disconnected with ENHANCE_YOUR_CALM.

use crate::base::Monotonic;

/// Tokens that come back with time, up to a bound.
#[derive(Clone, Debug)]
pub struct Allowance {
    tokens: u32,
    tokens_max: u32,
    tokens_per_second: u32,
    refilled_at: Monotonic,
}

const SECOND_NANOS: u64 = 1_000_000_000;

impl Allowance {
    /// A full allowance.
    pub fn new(tokens_max: u32, tokens_per_second: u32, now: Monotonic) -> Allowance {
        Allowance {
            tokens: tokens_max,
            tokens_max,
            tokens_per_second,
            refilled_at: now,
        }
    }

    /// Takes a token; false if there is none.
    #[inline]
    pub fn spend(&mut self, now: Monotonic) -> bool {
        if self.tokens == 0 {
            self.refill(now);
        }
        match self.tokens.checked_sub(1) {
            Some(tokens) => {
                self.tokens = tokens;
                true
            }
            None => false,
        }
    }

    /// Gives tokens back for useful work.
    #[inline]
    pub fn earn(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.tokens_max);
    }

    fn refill(&mut self, now: Monotonic) {
        let elapsed = now.0.saturating_sub(self.refilled_at.0);
        let tokens = u128::from(elapsed) * u128::from(self.tokens_per_second) / u128::from(SECOND_NANOS);
        if tokens > 0 {
            self.refilled_at = now;
            self.earn(u32::try_from(tokens).unwrap_or(u32::MAX));
        }
    }
}
