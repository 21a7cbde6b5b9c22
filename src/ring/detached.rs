//! An operation that outlives who waits for it: dropped before its end, it is handed to the executor to be finished.
//! glommio cancels what is dropped, and the host promises that a file operation once begun is never cancelled.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::{executor, gated::Gated};

/// A future that is run to its end even when it is dropped, unless the executor itself is gone.
pub struct Detached<T: 'static> {
    operation: Option<Gated<dyn Future<Output = T>>>,
}

impl<T: 'static> Detached<T> {
    /// Not begun before it is first polled; from then on it will be finished.
    pub fn new(operation: impl Future<Output = T> + 'static) -> Detached<T> {
        Detached {
            operation: Some(Gated::of(Box::pin(operation))),
        }
    }
}

impl<T: 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let operation = self.operation.as_mut().expect("polled after completion");
        let result = Pin::new(operation).poll(context);
        if result.is_ready() {
            self.operation = None;
        }
        result
    }
}

impl<T: 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take()
            && executor::is_running()
        {
            glommio::spawn_local(async move {
                drop(operation.await);
            })
            .detach();
        }
    }
}
