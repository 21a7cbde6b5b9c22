//! Waking one task of this core: a flag and a waker.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// A flag that one task waits for. Raising it twice before the task looks wakes it once.
#[derive(Debug, Default)]
pub struct Notify {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    /// A lowered flag.
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Raises the flag and wakes who waits.
    pub fn notify(&self) {
        if !self.raised.replace(true) {
            // The waker stays in place: re-arming it on every wait would clone it once per request.
            let waiter = self.waiter.borrow();
            if let Some(waker) = waiter.as_ref() {
                waker.wake_by_ref();
            }
        }
    }

    /// Ready, and the flag lowered, when it was raised.
    pub fn poll_notified(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        match waiter.as_ref() {
            Some(present) if present.will_wake(context.waker()) => {}
            _ => *waiter = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for the flag, and lowers it.
    pub async fn notified(&self) {
        poll_fn(|context| self.poll_notified(context)).await
    }
}
