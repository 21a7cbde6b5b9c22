//! Futures of glommio that are polled only when they were woken.
//!
//! An operation of glommio's notes a waker each time that it is polled, and a task panics at its 32,768th. Whoever waits for
//! several things at once polls all of them whenever one is there: a server whose disk stands still, and which goes on
//! answering reads, would come to that in some seconds.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// A future that is left alone until it is woken.
pub(super) struct Gated<F: ?Sized> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// What the future wakes.
struct Bell {
    is_rung: AtomicBool,
    /// Who waits. All of it happens on one thread; only a waker's type says otherwise.
    waiting: Mutex<Option<Waker>>,
}

impl<F> Gated<F> {
    /// Not begun before it is first polled.
    pub fn new(future: F) -> Gated<F> {
        Gated::of(Box::pin(future))
    }
}

impl<F: ?Sized> Gated<F> {
    /// The same, of one that is in a box.
    pub fn of(future: Pin<Box<F>>) -> Gated<F> {
        let bell = Arc::new(Bell {
            is_rung: AtomicBool::new(true),
            waiting: Mutex::default(),
        });
        Gated {
            future,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }
}

impl Bell {
    fn expect(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
            *waiting = Some(waker.clone());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_rung.store(true, Ordering::Relaxed);
        if let Some(waker) = &*self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

impl<F: Future + ?Sized> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.bell.expect(context.waker());
        if !self.bell.is_rung.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let Gated { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;
    use crate::ring::executor::{ExecutorConfig, spawn};

    /// More often than a task of glommio's may be cloned.
    #[test]
    fn what_takes_long_may_be_asked_for_often() {
        let config = ExecutorConfig {
            name: "often".to_owned(),
            core: None,
        };
        let asked = spawn(config, |_host| async {
            let sleeps = || std::thread::sleep(Duration::from_millis(300));
            let mut slow = Gated::new(glommio::executor().spawn_blocking(sleeps));
            let mut asked = 0;
            poll_fn(|context| {
                for _ in 0..40_000 {
                    asked += 1;
                    if Pin::new(&mut slow).poll(context).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending
            })
            .await;
            asked
        });
        assert!(asked.unwrap().join().unwrap() > 40_000);
    }
}
