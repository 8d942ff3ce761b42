//! The bytes that heads and bodies may hold together, in all and from one address. What every connection may have anyway
//! is not counted: it fits its buffers, and the number of connections is limited.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::connection::block;

/// What each connection holds uncounted.
const FREE: usize = 16 * 1024;
/// One address may hold this part of the budget, so that it cannot use up everybody's.
const SHARES: usize = 4;

/// A shared count of bytes held.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Budget {
    /// A budget of `limit` bytes, of which one address (IPv6: a /64) may hold a quarter.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::default() })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.lock().total
    }

    fn take(&self, address: IpAddr, bytes: usize) -> bool {
        let mut used = self.used.lock();
        let total = used.total.saturating_add(bytes);
        let share = used.by_address.get(&address).copied().unwrap_or(0).saturating_add(bytes);
        let has_it = total <= self.limit && share <= self.limit / SHARES;
        if has_it {
            used.total = total;
            used.by_address.insert(address, share);
        }
        has_it
    }

    fn give_back(&self, address: IpAddr, bytes: usize) {
        let mut used = self.used.lock();
        used.total -= bytes;
        if let Some(share) = used.by_address.get_mut(&address) {
            *share -= bytes;
            if *share == 0 {
                used.by_address.remove(&address);
            }
        }
    }
}

/// What the requests that a connection has at once hold uncounted, all together.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<AtomicUsize>);

impl Default for Pool {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(FREE)))
    }
}

impl Pool {
    /// As much of `wanted` as is left.
    fn take(&self, wanted: usize) -> usize {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
        left.unwrap_or_else(|left| left).min(wanted)
    }
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    address: IpAddr,
    /// Shared with the connection's other requests; none where there is one request at a time.
    pool: Option<Pool>,
    free: usize,
    paid: usize,
}

impl Held {
    /// For a connection with one request at a time.
    pub(crate) fn alone(budget: Arc<Budget>, peer: IpAddr) -> Self {
        Self { budget, address: block(peer), pool: None, free: FREE, paid: 0 }
    }

    /// For one of a connection's many requests.
    pub(crate) fn among(budget: Arc<Budget>, peer: IpAddr, pool: &Pool) -> Self {
        Self { budget, address: block(peer), pool: Some(pool.clone()), free: 0, paid: 0 }
    }

    /// Makes sure that `total` bytes are free or paid for; false when the budget does not have them.
    pub(crate) fn cover(&mut self, total: usize) -> bool {
        let missing = total.saturating_sub(self.free + self.paid);
        if missing == 0 {
            return true;
        }
        let free = self.pool.as_ref().map_or(0, |pool| pool.take(missing));
        self.free += free;
        let missing = missing - free;
        let is_granted = missing == 0 || self.budget.take(self.address, missing);
        if is_granted {
            self.paid += missing;
        }
        is_granted
    }

    pub(crate) fn release(&mut self) {
        if self.paid > 0 {
            self.budget.give_back(self.address, self.paid);
            self.paid = 0;
        }
        if let Some(pool) = &self.pool {
            pool.0.fetch_add(self.free, Ordering::Relaxed);
            self.free = 0;
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

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_budget_refuses_what_it_does_not_have_and_takes_back_what_is_dropped() {
        let budget = Budget::new(100_000);
        let mut held: Vec<_> = (0..5).map(|n| Held::alone(budget.clone(), ip(n))).collect();
        assert!(held[0].cover(FREE), "small requests are free");
        assert_eq!(budget.used(), 0);
        assert!(held[..4].iter_mut().all(|held| held.cover(FREE + 24_000)));
        assert!(!held[4].cover(FREE + 5_000), "in all");
        assert!(held[4].cover(FREE + 4_000));
        held.swap_remove(0);
        assert_eq!(budget.used(), 76_000);
        held.iter_mut().for_each(Held::release);
        assert_eq!(budget.used(), 0);
        assert!(budget.used.lock().by_address.is_empty());
    }

    #[test]
    fn one_address_cannot_use_up_what_is_there_for_all() {
        let budget = Budget::new(100_000);
        let mut greedy: Vec<_> = (0..26).map(|_| Held::alone(budget.clone(), ip(1))).collect();
        let granted = greedy.iter_mut().filter_map(|held| held.cover(FREE + 10_000).then_some(())).count();
        assert_eq!(granted, 2);
        assert!(Held::alone(budget, ip(2)).cover(FREE + 10_000));
    }

    #[test]
    fn the_requests_of_one_connection_share_what_it_has_free() {
        let (budget, pool) = (Budget::new(1 << 20), Pool::default());
        let mut held: Vec<_> = (0..4).map(|_| Held::among(budget.clone(), ip(1), &pool)).collect();
        assert!(held.iter_mut().all(|held| held.cover(6_000)));
        assert_eq!(budget.used(), 24_000 - FREE);
        drop(held);
        assert_eq!(budget.used(), 0);
        assert!(Held::among(budget.clone(), ip(1), &pool).cover(FREE));
        assert_eq!(budget.used(), 0);
    }
}
