//! How many connections may be open: in all, and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::http::block;

/// Counts open connections.
#[derive(Debug)]
pub(super) struct Admission {
    total: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One admitted connection; counted until dropped.
#[derive(Debug)]
pub(super) struct Pass {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    pub(super) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { total, per_address, open: Mutex::default() })
    }

    /// Admits one connection, unless it were one too many.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Pass> {
        let address = block(address);
        let mut open = self.open.lock();
        if open.total >= self.total {
            return None;
        }
        let count = open.by_address.entry(address).or_default();
        if *count >= self.per_address {
            // A limit of zero must not leave an entry behind.
            if *count == 0 {
                open.by_address.remove(&address);
            }
            return None;
        }
        *count += 1;
        open.total += 1;
        Some(Pass { admission: self.clone(), address })
    }

    pub(super) fn open(&self) -> usize {
        self.open.lock().total
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_limited_in_all_and_per_address() {
        let admission = Admission::new(3, 2);
        let first = admission.admit(ip("10.0.0.1")).unwrap();
        let _second = admission.admit(ip("::ffff:10.0.0.1")).unwrap();
        assert!(admission.admit(ip("10.0.0.1")).is_none(), "one address");
        let _other = admission.admit(ip("10.0.0.2")).unwrap();
        assert!(admission.admit(ip("10.0.0.3")).is_none(), "in all");
        drop(first);
        let _again = admission.admit(ip("10.0.0.1")).unwrap();
        assert_eq!(admission.open(), 3);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_nothing_is_left_behind() {
        let admission = Admission::new(10, 1);
        let pass = admission.admit(ip("2001:db8::1")).unwrap();
        assert!(admission.admit(ip("2001:db8::ffff")).is_none());
        let other = admission.admit(ip("2001:db8:0:1::1")).unwrap();
        drop((pass, other));
        assert!(admission.open.lock().by_address.is_empty());
    }
}
