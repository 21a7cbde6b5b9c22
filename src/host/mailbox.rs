//! Bounded single-producer single-consumer channels between cores: no lock, and a wake-up only for a receiver that
//! waits. Sender and receiver may be on one core too. A full mailbox is an outcome, not a wait.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;

struct Shared {
    receiver: AtomicWaker,
    sender: AtomicWaker,
    sender_waits: AtomicBool,
}

/// The sending end.
pub struct Sender<T> {
    ring: rtrb::Producer<T>,
    shared: Arc<Shared>,
}

/// The receiving end.
pub struct Receiver<T> {
    ring: rtrb::Consumer<T>,
    shared: Arc<Shared>,
}

/// Why a message was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The receiver is behind.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A mailbox for `capacity` messages.
pub fn mailbox<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0);
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    let shared = Arc::new(Shared {
        receiver: AtomicWaker::new(),
        sender: AtomicWaker::new(),
        sender_waits: AtomicBool::new(false),
    });
    let sender = Sender {
        ring: producer,
        shared: shared.clone(),
    };
    (sender, Receiver { ring: consumer, shared })
}

impl<T> Sender<T> {
    /// Puts a message into the mailbox and wakes the receiver if it waits.
    pub fn try_send(&mut self, message: T) -> Result<(), TrySendError<T>> {
        if self.ring.is_abandoned() {
            return Err(TrySendError::Closed(message));
        }
        match self.ring.push(message) {
            Ok(()) => {
                self.shared.receiver.wake();
                Ok(())
            }
            Err(rtrb::PushError::Full(message)) => Err(TrySendError::Full(message)),
        }
    }

    /// Waits for room. The message comes back if the receiver is gone.
    pub async fn send(&mut self, message: T) -> Result<(), T> {
        let mut waiting = Some(message);
        poll_fn(|context| self.poll_send(&mut waiting, context)).await
    }

    /// Sends what is in `waiting` when there is room. The message comes back if the receiver is gone.
    pub fn poll_send(&mut self, waiting: &mut Option<T>, context: &mut Context<'_>) -> Poll<Result<(), T>> {
        // The waker is in place before the second try, so that room made in between is not missed.
        for registered in [false, true] {
            let message = waiting.take().expect("a message to send");
            match self.try_send(message) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(TrySendError::Closed(message)) => return Poll::Ready(Err(message)),
                Err(TrySendError::Full(message)) => *waiting = Some(message),
            }
            if !registered {
                self.shared.sender.register(context.waker());
                self.shared.sender_waits.store(true, Ordering::SeqCst);
            }
        }
        Poll::Pending
    }

    /// Messages that fit now.
    pub fn room(&self) -> usize {
        self.ring.slots()
    }
}

impl<T> Receiver<T> {
    /// The next message, if there is one.
    pub fn try_receive(&mut self) -> Option<T> {
        let message = self.ring.pop().ok()?;
        if self.shared.sender_waits.swap(false, Ordering::SeqCst) {
            self.shared.sender.wake();
        }
        Some(message)
    }

    /// The next message; `None` when the sender is gone and nothing is left.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(message) = self.try_receive() {
            return Poll::Ready(Some(message));
        }
        self.shared.receiver.register(context.waker());
        // Looked at again after registering, so that a message sent in between is not missed. The order matters for
        // the end, too: who sees the sender gone has seen all that it sent.
        let is_closed = self.ring.is_abandoned();
        match self.try_receive() {
            Some(message) => Poll::Ready(Some(message)),
            None if is_closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Waits for the next message; `None` when the sender is gone and nothing is left.
    pub async fn receive(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_receive(context)).await
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("room", &self.room()).finish()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // The ring is marked as abandoned only when its producer drops, after this: so it is replaced here first.
        let (empty, _) = rtrb::RingBuffer::new(0);
        drop(std::mem::replace(&mut self.ring, empty));
        self.shared.receiver.wake();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // A waker goes where it came from: its executor may be gone when the sender is.
        drop(self.shared.receiver.take());
        let (_, empty) = rtrb::RingBuffer::new(0);
        drop(std::mem::replace(&mut self.ring, empty));
        self.shared.sender.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn messages_arrive_in_order_across_threads_and_the_end_is_seen() {
        let (mut sender, mut receiver) = mailbox(4);
        let thread = std::thread::spawn(move || {
            block_on(async {
                for n in 0..100_000u32 {
                    sender.send(n).await.expect("receiver lives");
                }
            })
        });
        block_on(async {
            for n in 0..100_000u32 {
                assert_eq!(receiver.receive().await, Some(n));
            }
            assert_eq!(receiver.receive().await, None);
        });
        thread.join().expect("sender ends well");
    }

    #[test]
    fn a_full_mailbox_and_a_gone_receiver_give_the_message_back() {
        let (mut sender, receiver) = mailbox(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        drop(receiver);
        assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
        assert_eq!(block_on(sender.send(4)), Err(4));
    }
}
