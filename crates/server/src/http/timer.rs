//! One timer per connection for all its deadlines, and the deadlines of a body.
//!
//! Setting a tokio timer for each request costs more than parsing it. Deadlines nearly always move later, so the timer
//! is left where it is, and only when it fires is it moved on to the deadline that then holds.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::Limits;

pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    fires: Instant,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { sleep: None, fires: Instant::now() }
    }

    /// Ready once `deadline` has passed. Needs a tokio runtime only when it has to wait.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| {
            self.fires = deadline;
            Box::pin(sleep_until(deadline))
        });
        if deadline < self.fires {
            self.fires = deadline;
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.fires = deadline;
            sleep.as_mut().reset(deadline);
        }
    }
}

/// When the next part of a body must be here. A body holds memory, so it must come at some pace, not only now and then.
pub(crate) struct Pace {
    ends: Instant,
    looks: Instant,
    came: usize,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        Self { ends: now + limits.body_time, looks: now + limits.body_pause, came: 0 }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.ends.min(self.looks)
    }

    pub(crate) fn came(&mut self, bytes: usize, limits: &Limits) {
        self.came += bytes;
        if self.came >= limits.body_pace {
            self.came = 0;
            self.looks = Instant::now() + limits.body_pause;
        }
    }
}
