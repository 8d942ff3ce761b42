//! A service's answer in the making, which a connection cannot take back.
//!
//! A change is committed by a task of the engine, and its record is appended by whoever asked. Were the asking future
//! dropped between the two, because a client reset its stream, the change would stand without a record ▲.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A call that has begun and will end, whoever drops this: what is left of it then goes on as a task of its own.
///
/// # Assumptions
///
/// It is dropped inside a tokio runtime. Where that runtime is itself ending, the call ends with it.
pub(crate) struct Call<F: Future<Output: Send + 'static> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send + 'static> + Send + 'static> Call<F> {
    pub(crate) fn new(call: F) -> Self {
        Self(Some(Box::pin(call)))
    }
}

impl<F: Future<Output: Send + 'static> + Send + 'static> Future for Call<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // Taken out while it runs, so that one which panics is not carried on.
        let mut call = this.0.take().expect("an answered call is not polled again");
        let polled = call.as_mut().poll(cx);
        if polled.is_pending() {
            this.0 = Some(call);
        }
        polled
    }
}

impl<F: Future<Output: Send + 'static> + Send + 'static> Drop for Call<F> {
    fn drop(&mut self) {
        if let (Some(call), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_goes_on_to_its_end() {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let call = Call::new(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.store(true, Ordering::SeqCst);
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
        assert!(!ended.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(ended.load(Ordering::SeqCst));
    }
}
