//! Bytes of unfinished messages and bodies: what a client has begun to say and not ended. They are counted for each
//! connection, and for all that share a core, so that neither many streams nor many connections fill the memory.

use std::{cell::Cell, rc::Rc};

/// Bytes that unfinished messages hold, of a connection or of many. A clone is the same count.
#[derive(Clone, Debug, Default)]
pub struct Assembly(Rc<Cell<usize>>);

impl Assembly {
    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    fn replace(&self, before: usize, now: usize) {
        self.0.set(self.0.get() - before + now);
    }
}

/// What one stream holds. Dropped, it holds nothing.
pub(super) struct Held {
    bytes: usize,
    counts: [Assembly; 2],
}

impl Held {
    /// Nothing yet, to be counted with its connection and with its core.
    pub fn new(connection: &Assembly, core: &Assembly) -> Held {
        Held {
            bytes: 0,
            counts: [connection.clone(), core.clone()],
        }
    }

    /// So much it is now.
    pub fn set(&mut self, bytes: usize) {
        for count in &self.counts {
            count.replace(self.bytes, bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}
