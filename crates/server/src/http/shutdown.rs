//! The signal that a server is to end. Connections look at it on every wait, so looking is one atomic load; waking
//! them is the rare case and takes a lock.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Begins, and tells of, the end of a server. Clones share one state.
///
/// # Guarantees
///
/// Whoever waits is woken; a start is never undone.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<State>);

#[derive(Default)]
struct State {
    started: AtomicBool,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waker>>,
}

impl Shutdown {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal: listeners close, idle connections end, requests in flight are answered, streams end.
    pub fn start(&self) {
        self.0.started.store(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.0.waiting.lock());
        waiting.into_values().for_each(Waker::wake);
    }

    /// Whether the signal has been given.
    pub fn started(&self) -> bool {
        self.0.started.load(Ordering::SeqCst)
    }

    /// Waits for the signal.
    pub async fn wait(&self) {
        let mut watch = self.watch();
        poll_fn(|cx| watch.poll_started(cx)).await;
    }

    pub(crate) fn watch(&self) -> Watch {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        Watch { shutdown: self.clone(), id, waker: None }
    }
}

/// One task's place among those to wake.
pub(crate) struct Watch {
    shutdown: Shutdown,
    id: u64,
    waker: Option<Waker>,
}

impl Watch {
    pub(crate) fn poll_started(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.shutdown.started() {
            return Poll::Ready(());
        }
        let registered = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if registered {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        self.shutdown.0.waiting.lock().insert(self.id, cx.waker().clone());
        // Asked again, because the signal may have come between the question and the registration.
        if self.shutdown.started() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(crate) fn started(&self) -> bool {
        self.shutdown.started()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.waker.is_some() {
            self.shutdown.0.waiting.lock().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_woken_and_nobody_is_left_registered() {
        let shutdown = Shutdown::new();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let shutdown = shutdown.clone();
                tokio::spawn(async move { shutdown.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(shutdown.0.waiting.lock().len(), 3);
        shutdown.start();
        for task in waiting {
            task.await.expect("woken");
        }
        shutdown.wait().await;
        assert!(shutdown.0.waiting.lock().is_empty());
    }
}
