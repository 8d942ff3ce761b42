//! The bytes that large heads and bodies may hold together. Small ones are not counted: they fit the buffer that each
//! connection has anyway, and the number of connections is limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A connection holding no more than this is not counted.
const FREE: usize = 16 * 1024;

/// A shared count of bytes held.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(bytes).filter(|total| *total <= self.limit))
            .is_ok()
    }
}

/// What one request holds of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Makes sure that `total` bytes are paid for; false when the budget does not have them.
    pub(crate) fn cover(&mut self, total: usize) -> bool {
        if total <= FREE || total <= self.bytes {
            return true;
        }
        let granted = self.budget.take(total - self.bytes);
        if granted {
            self.bytes = total;
        }
        granted
    }

    pub(crate) fn release(&mut self) {
        if self.bytes > 0 {
            self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = 0;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_it_does_not_have_and_takes_back_what_is_dropped() {
        let budget = Budget::new(100_000);
        let mut first = Held::new(budget.clone());
        assert!(first.cover(FREE), "small requests are free");
        assert_eq!(budget.used(), 0);
        assert!(first.cover(70_000));
        let mut second = Held::new(budget.clone());
        assert!(!second.cover(40_000));
        assert!(second.cover(30_000));
        drop(first);
        assert_eq!(budget.used(), 30_000);
        second.release();
        assert_eq!(budget.used(), 0);
    }
}
