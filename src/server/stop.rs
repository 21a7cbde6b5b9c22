//! The wish that the process end, seen by every core. It is looked at now and then rather than announced: a waker that
//! crosses threads would have to outlive its task, and nobody minds a twentieth of a second at the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::host::Host;

/// How often a waiting task looks.
const STOP_PERIOD: Duration = Duration::from_millis(50);

/// Whether the process is to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    is_requested: Arc<AtomicBool>,
}

impl Stop {
    /// A process that is to go on.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks everybody to end.
    pub fn request(&self) {
        self.is_requested.store(true, Ordering::Release);
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.is_requested.load(Ordering::Acquire)
    }

    /// Waits for it, looking every 50 ms. One waiter per core is enough.
    pub async fn requested<H: Host>(&self, host: &H) {
        while !self.is_requested() {
            host.sleep_until(host.now() + STOP_PERIOD).await;
        }
    }
}
