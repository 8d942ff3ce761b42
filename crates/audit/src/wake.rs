//! Completing many appends at once, cheaply.
//!
//! All appends of one group share one [`Group`]. Waking a tokio task from a foreign thread costs a
//! system call *per task* (the runtime's eventfd is written each time). A [`WakeRelay`] is a task of
//! the runtime that is woken once per group and wakes its neighbours from inside, where that is a
//! push on a local queue. It is an optimisation only: without one, tasks are woken directly.

use crate::error::AuditError;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

thread_local! {
    /// The relay whose task runs on this thread.
    static RELAY: RefCell<Option<Arc<RelayState>>> = const { RefCell::new(None) };
}

/// The shared fate of the appends that are committed together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The index of the first entry, once durable.
    outcome: OnceLock<Result<u64, AuditError>>,
    waiting: Mutex<Vec<Waiters>>,
}

/// Wakers that were registered on one relay's thread, or (`None`) on a thread without.
#[derive(Debug)]
struct Waiters {
    relay: Option<Arc<RelayState>>,
    wakers: Vec<Waker>,
}

impl Group {
    /// Publishes the outcome, then wakes all. Only the first call counts.
    pub(crate) fn complete(&self, outcome: Result<u64, AuditError>) {
        if self.outcome.set(outcome).is_err() {
            return;
        }
        // Whoever registers after this sees the outcome: both happen under the lock.
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for Waiters { relay, wakers } in waiting {
            match relay {
                Some(relay) => relay.deliver(wakers),
                None => wakers.into_iter().for_each(Waker::wake),
            }
        }
    }

    fn outcome(&self) -> Option<&Result<u64, AuditError>> {
        self.outcome.get()
    }

    /// Registers `waker`; `false` when the outcome is already known. `place` is where this waiter registered before;
    /// `by_relay` lets the thread's relay wake it, if there is one.
    fn register(&self, waker: &Waker, place: &mut Option<(usize, usize)>, by_relay: bool) -> bool {
        let mut waiting = self.waiting.lock();
        if self.outcome.get().is_some() {
            return false;
        }
        if let Some((bucket, slot)) = *place {
            waiting[bucket].wakers[slot].clone_from(waker);
            return true;
        }
        RELAY.with_borrow(|relay| {
            let relay = if by_relay { relay } else { &None };
            let bucket = waiting.iter().position(|waiters| same(&waiters.relay, relay)).unwrap_or_else(|| {
                waiting.push(Waiters { relay: relay.clone(), wakers: Vec::with_capacity(32) });
                waiting.len() - 1
            });
            *place = Some((bucket, waiting[bucket].wakers.len()));
            waiting[bucket].wakers.push(waker.clone());
        });
        true
    }
}

fn same(a: &Option<Arc<RelayState>>, b: &Option<Arc<RelayState>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// An append on its way. Resolves to the entry's index once it is durable (by the log's [`crate::Durability`]).
///
/// # Guarantees
/// The entry is queued when `append` returns: dropping the future does not take it back.
///
/// # Errors
/// An error means that the entry is not *known* to be durable; after a crash it may be found in the log all the same.
#[must_use = "an append counts only when its future has completed"]
pub struct AppendFuture {
    state: State,
}

enum State {
    Queued { group: Arc<Group>, position: u64, place: Option<(usize, usize)>, by_relay: bool },
    Refused(AuditError),
}

impl fmt::Debug for AppendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Queued { group, .. } if group.outcome().is_some() => "complete",
            State::Queued { .. } => "queued",
            State::Refused(_) => "refused",
        };
        f.debug_tuple("AppendFuture").field(&state).finish()
    }
}

impl AppendFuture {
    pub(crate) fn queued(group: Arc<Group>, position: u64) -> Self {
        Self { state: State::Queued { group, position, place: None, by_relay: true } }
    }

    pub(crate) fn refused(error: AuditError) -> Self {
        Self { state: State::Refused(error) }
    }

    /// Waits on this thread; not for use inside an async runtime, which it would block.
    ///
    /// # Errors
    /// As for awaiting it.
    pub fn wait(mut self) -> Result<u64, AuditError> {
        // A relay on this very thread could not run while the thread sleeps.
        if let State::Queued { by_relay, .. } = &mut self.state {
            *by_relay = false;
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut self).poll(&mut context) {
                return outcome;
            }
            std::thread::park();
        }
    }
}

impl Future for AppendFuture {
    type Output = Result<u64, AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Refused(error) => Poll::Ready(Err(error.clone())),
            State::Queued { group, position, place, by_relay } => {
                if group.outcome().is_none() && group.register(context.waker(), place, *by_relay) {
                    return Poll::Pending;
                }
                match group.outcome() {
                    Some(Ok(first)) => Poll::Ready(Ok(first + *position)),
                    Some(Err(error)) => Poll::Ready(Err(error.clone())),
                    None => Poll::Pending,
                }
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A task that passes on wake-ups inside one single-threaded runtime; it never completes.
///
/// Spawn one on each `current_thread` runtime that appends (`tokio::spawn(WakeRelay::default())`); one serves all logs.
/// It must not be used on a multi-threaded runtime, where its task may move and its neighbours are elsewhere (that would
/// be correct, but slower), and its thread must not drive a second executor that appends: the relay runs only while its
/// own runtime does. When it is dropped, whoever it was to wake is woken at once.
#[derive(Debug, Default)]
pub struct WakeRelay {
    state: Arc<RelayState>,
}

#[derive(Default)]
struct RelayState {
    inner: Mutex<RelayInner>,
}

#[derive(Default)]
struct RelayInner {
    due: Vec<Waker>,
    task: Option<Waker>,
    gone: bool,
}

impl fmt::Debug for RelayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayState")
    }
}

impl RelayState {
    fn deliver(&self, wakers: Vec<Waker>) {
        let mut inner = self.inner.lock();
        if inner.gone {
            drop(inner);
            wakers.into_iter().for_each(Waker::wake);
            return;
        }
        if inner.due.is_empty() {
            inner.due = wakers;
        } else {
            inner.due.extend(wakers);
        }
        let task = inner.task.clone();
        drop(inner);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Future for WakeRelay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        RELAY.with_borrow_mut(|relay| {
            if !relay.as_ref().is_some_and(|relay| Arc::ptr_eq(relay, &self.state)) {
                *relay = Some(self.state.clone());
            }
        });
        let mut inner = self.state.inner.lock();
        if !inner.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            inner.task = Some(context.waker().clone());
        }
        let due = std::mem::take(&mut inner.due);
        drop(inner);
        due.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for WakeRelay {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        inner.gone = true;
        inner.task = None;
        let due = std::mem::take(&mut inner.due);
        drop(inner);
        due.into_iter().for_each(Waker::wake);
        // At a thread's end its locals may be gone already; then there is nothing to forget.
        let _ = RELAY.try_with(|relay| {
            if let Ok(mut relay) = relay.try_borrow_mut()
                && relay.as_ref().is_some_and(|relay| Arc::ptr_eq(relay, &self.state))
            {
                *relay = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }

    #[test]
    fn each_append_learns_its_own_index_and_is_woken_by_its_latest_waker() {
        let group = Arc::new(Group::default());
        let (old, new) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let mut append = AppendFuture::queued(group.clone(), 2);
        assert!(poll(&mut append, &old.clone().into()).is_pending());
        assert!(poll(&mut append, &new.clone().into()).is_pending());
        group.complete(Ok(40));
        group.complete(Err(AuditError::Closed));
        assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 1));
        assert_eq!(poll(&mut append, &new.into()), Poll::Ready(Ok(42)));
    }

    #[test]
    fn a_relay_is_woken_once_for_all_and_its_end_wakes_the_rest() {
        let mut relay = WakeRelay::default();
        let (relay_task, task) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
        let relay_waker = Waker::from(relay_task.clone());
        assert!(poll(&mut relay, &relay_waker).is_pending());
        let group = Arc::new(Group::default());
        let mut appends: Vec<_> = (0..5).map(|n| AppendFuture::queued(group.clone(), n)).collect();
        for append in &mut appends {
            assert!(poll(append, &task.clone().into()).is_pending());
        }
        group.complete(Ok(0));
        assert_eq!((relay_task.0.load(Ordering::SeqCst), task.0.load(Ordering::SeqCst)), (1, 0));
        assert!(poll(&mut relay, &relay_waker).is_pending());
        assert_eq!(task.0.load(Ordering::SeqCst), 5);

        let group = Arc::new(Group::default());
        let mut append = AppendFuture::queued(group.clone(), 0);
        assert!(poll(&mut append, &task.clone().into()).is_pending());
        group.complete(Ok(5));
        drop(relay);
        assert_eq!(task.0.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn waiting_on_a_relays_own_thread_does_not_wait_for_the_relay() {
        let mut relay = WakeRelay::default();
        assert!(poll(&mut relay, Waker::noop()).is_pending());
        let group = Arc::new(Group::default());
        let append = AppendFuture::queued(group.clone(), 0);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            group.complete(Ok(7));
        });
        assert_eq!(append.wait(), Ok(7));
    }

    #[test]
    fn a_relay_serves_the_tasks_of_a_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(WakeRelay::default());
            tokio::task::yield_now().await;
            let group = Arc::new(Group::default());
            let tasks: Vec<_> = (0..50).map(|n| tokio::spawn(AppendFuture::queued(group.clone(), n))).collect();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                group.complete(Ok(100));
            });
            for (n, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.unwrap(), Ok(100 + n as u64));
            }
        });
    }
}
