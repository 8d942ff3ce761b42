//! Slows down whoever keeps failing: a token bucket per address and one per identity.
//!
//! Own code rather than a keyed limiter from elsewhere, because memory must stay bounded when an attacker has many
//! addresses, and because a server without failures must pay next to nothing. Successes are not counted.

use claviger_domain::{Identity, Timestamp};
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use thiserror::Error;

const SHARDS: usize = 64;
/// Entries that one hash can go to. The least guilty of them makes room.
const WAYS: usize = 8;
const NANOSECOND: i64 = 1;

/// How many failures are borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialLimits {
    /// Failures in a row before attempts are refused unseen.
    pub burst: NonZeroU32,
    /// After this time one failure is forgotten. At least a nanosecond.
    pub forgive_one_after: Duration,
    /// Most addresses and identities remembered; 16 bytes each. Rounded up to a multiple of 512.
    pub remembered: usize,
}

impl Default for DenialLimits {
    fn default() -> Self {
        Self {
            burst: const { NonZeroU32::new(20).expect("20 is not zero") },
            forgive_one_after: Duration::from_secs(1),
            remembered: 65_536,
        }
    }
}

/// Too many failures lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many failed attempts; try again in {} s", .retry_after.as_secs() + u64::from(.retry_after.subsec_nanos() > 0))]
pub struct RateLimited {
    /// When the next attempt will be looked at, counted from now.
    pub retry_after: Duration,
}

/// The failures of the recent past.
///
/// # Guarantees
/// Memory is fixed at construction. While nobody has failed lately a check is one atomic load. When the table is full, who
/// failed least makes room, so a flood of fresh addresses does not wash out a persistent one's record.
///
/// # Assumptions
/// An IPv6 caller owns a /64, so that is what counts. The identities are *proven* ones, for denials after authentication:
/// counting a merely claimed name would let anybody lock its owner out.
pub struct Denials {
    interval: i64,
    burst: i64,
    /// From then on nobody has failures left.
    quiet_from: AtomicI64,
    hasher: RandomState,
    shards: Box<[Mutex<Box<[Entry]>>]>,
}

/// Whose failures; `hash` 0 marks a free place. `until` is when the last of them will be forgiven (GCRA's theoretical
/// arrival time), nanoseconds since 1970.
#[derive(Clone, Copy, Default)]
struct Entry {
    hash: u64,
    until: i64,
}

#[derive(Hash)]
enum Subject<'a> {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
    Identity(&'a str, &'a str),
}

impl Denials {
    /// An empty record with these limits.
    #[must_use]
    pub fn new(limits: DenialLimits) -> Self {
        let sets = limits.remembered.div_ceil(SHARDS * WAYS).max(1);
        let shard = || Mutex::new(vec![Entry::default(); sets * WAYS].into_boxed_slice());
        // An hour for each failure is more than anyone wants, and keeps the sums below far from overflow.
        let interval = i64::try_from(limits.forgive_one_after.as_nanos()).unwrap_or(i64::MAX).clamp(NANOSECOND, 3_600_000_000_000);
        Self {
            interval,
            burst: i64::from(limits.burst.get()).min(100_000),
            quiet_from: AtomicI64::new(i64::MIN),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }

    /// Whether an attempt may be looked at. Call it with the address before authentication, and with the identity after.
    ///
    /// # Errors
    /// [`RateLimited`] when the address or the identity has used up its failures.
    pub fn check(&self, address: Option<IpAddr>, identity: Option<&Identity>, now: Timestamp) -> Result<(), RateLimited> {
        if now.0 >= self.quiet_from.load(Ordering::Relaxed) {
            return Ok(());
        }
        let wait = subjects(address, identity).map(|subject| self.wait(&subject, now.0)).max().unwrap_or(0);
        match u64::try_from(wait) {
            Ok(nanos) if nanos > 0 => Err(RateLimited { retry_after: Duration::from_nanos(nanos) }),
            _ => Ok(()),
        }
    }

    /// Counts one failure against the address and, where it is proven, the identity.
    pub fn failed(&self, address: Option<IpAddr>, identity: Option<&Identity>, now: Timestamp) {
        for subject in subjects(address, identity) {
            let hash = self.hash(&subject);
            let mut shard = self.shard(hash).lock();
            let entry = place(set(&mut shard, hash), hash);
            // No more than the whole burst is held against anyone: also after the clock was set back.
            let owed = (entry.until.saturating_sub(now.0)).clamp(0, (self.burst - 1) * self.interval);
            *entry = Entry { hash, until: now.0.saturating_add(owed + self.interval) };
            self.quiet_from.fetch_max(entry.until, Ordering::Relaxed);
        }
    }

    fn wait(&self, subject: &Subject<'_>, now: i64) -> i64 {
        let hash = self.hash(subject);
        let mut shard = self.shard(hash).lock();
        let entry = set(&mut shard, hash).iter().find(|e| e.hash == hash).copied().unwrap_or_default();
        drop(shard);
        let owed = entry.until.saturating_sub(now).clamp(0, self.burst * self.interval);
        owed - (self.burst - 1) * self.interval
    }

    fn hash(&self, subject: &Subject<'_>) -> u64 {
        self.hasher.hash_one(subject).max(1)
    }

    fn shard(&self, hash: u64) -> &Mutex<Box<[Entry]>> {
        &self.shards[hash as usize % SHARDS]
    }
}

impl std::fmt::Debug for Denials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Denials").field("burst", &self.burst).finish_non_exhaustive()
    }
}

fn subjects<'a>(address: Option<IpAddr>, identity: Option<&'a Identity>) -> impl Iterator<Item = Subject<'a>> {
    let address = address.map(|a| match a.to_canonical() {
        IpAddr::V4(v4) => Subject::V4(v4.to_bits()),
        IpAddr::V6(v6) => Subject::V6((v6.to_bits() >> 64) as u64),
    });
    let identity = identity.map(|i| Subject::Identity(i.type_name(), i.id()));
    address.into_iter().chain(identity)
}

/// The places that an entry of this hash may have. The shard took the low bits, so the high ones choose.
fn set(shard: &mut [Entry], hash: u64) -> &mut [Entry] {
    let sets = shard.len() / WAYS;
    let at = (hash >> 32) as usize % sets * WAYS;
    &mut shard[at..at + WAYS]
}

/// The entry of this hash, or else the place of the one that will be forgiven soonest, emptied.
fn place(set: &mut [Entry], hash: u64) -> &mut Entry {
    let known = set.iter().position(|e| e.hash == hash);
    let least = || (0..set.len()).min_by_key(|i| if set[*i].hash == 0 { i64::MIN } else { set[*i].until });
    let at = known.or_else(least).unwrap_or(0);
    if known.is_none() {
        set[at] = Entry::default();
    }
    &mut set[at]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const T: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn limits(burst: u32, remembered: usize) -> DenialLimits {
        DenialLimits { burst: NonZeroU32::new(burst).unwrap(), remembered, ..DenialLimits::default() }
    }

    fn ip(s: &str) -> Option<IpAddr> {
        Some(s.parse().unwrap())
    }

    fn machine(name: &str) -> Identity {
        Identity::Machine { name: name.into() }
    }

    #[test]
    fn after_the_burst_one_more_attempt_is_looked_at_each_second() {
        let denials = Denials::new(limits(3, 1000));
        for _ in 0..3 {
            assert_eq!(denials.check(ip("10.0.0.1"), None, T), Ok(()));
            denials.failed(ip("10.0.0.1"), None, T);
        }
        let refused = denials.check(ip("10.0.0.1"), None, T).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        assert_eq!(refused.to_string(), "too many failed attempts; try again in 1 s");
        assert_eq!(denials.check(ip("10.0.0.2"), None, T), Ok(()), "another address");
        assert_eq!(denials.check(ip("10.0.0.1"), None, T.plus_seconds(1)), Ok(()));
        denials.failed(ip("10.0.0.1"), None, T.plus_seconds(1));
        assert!(denials.check(ip("10.0.0.1"), None, T.plus_seconds(1)).is_err());
        assert_eq!(denials.check(ip("10.0.0.1"), None, T.plus_seconds(60)), Ok(()));
    }

    #[test]
    fn a_whole_ipv6_64_is_one_caller_and_a_mapped_address_is_ipv4() {
        let denials = Denials::new(limits(1, 1000));
        denials.failed(ip("2001:db8:0:1::1"), None, T);
        assert!(denials.check(ip("2001:db8:0:1:ffff::2"), None, T).is_err());
        assert!(denials.check(ip("2001:db8:0:2::1"), None, T).is_ok());
        denials.failed(ip("::ffff:10.0.0.1"), None, T);
        assert!(denials.check(ip("10.0.0.1"), None, T).is_err());
    }

    #[test]
    fn an_identity_is_limited_wherever_it_comes_from() {
        let denials = Denials::new(limits(1, 1000));
        denials.failed(ip("10.0.0.1"), Some(&machine("m")), T);
        assert!(denials.check(ip("10.0.0.9"), Some(&machine("m")), T).is_err());
        assert!(denials.check(ip("10.0.0.9"), Some(&machine("n")), T).is_ok());
        assert!(denials.check(ip("10.0.0.9"), Some(&Identity::Service { id: "m".into() }), T).is_ok());
    }

    #[test]
    fn a_flood_of_fresh_addresses_does_not_wash_out_a_persistent_one() {
        let denials = Denials::new(limits(5, 512));
        for _ in 0..5 {
            denials.failed(ip("10.0.0.1"), None, T);
        }
        for n in 0..20_000_u32 {
            denials.failed(Some(IpAddr::from(n.wrapping_add(0x0b00_0000).to_be_bytes())), None, T);
        }
        assert!(denials.check(ip("10.0.0.1"), None, T).is_err());
        assert_eq!(denials.shards.iter().map(|s| s.lock().len()).sum::<usize>(), 512);
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out_for_longer_than_the_burst() {
        let denials = Denials::new(limits(2, 1000));
        denials.failed(ip("10.0.0.1"), None, T.plus_seconds(1_000_000));
        denials.failed(ip("10.0.0.1"), None, T);
        let refused = denials.check(ip("10.0.0.1"), None, T).unwrap_err();
        assert!(refused.retry_after <= Duration::from_secs(2));
        assert!(denials.check(ip("10.0.0.1"), None, T.plus_seconds(2)).is_ok());
    }

    proptest! {
        #[test]
        fn as_many_are_borne_as_the_bucket_holds(burst in 1u32..40, steps in prop::collection::vec(0i64..3_000, 1..200)) {
            let denials = Denials::new(limits(burst, 1000));
            let (mut now, mut level) = (T, 0i64);
            for millis in steps {
                now = Timestamp(now.0 + millis * 1_000_000);
                level = (level - millis).max(0);
                let allowed = denials.check(ip("10.0.0.1"), None, now).is_ok();
                prop_assert_eq!(allowed, level <= (i64::from(burst) - 1) * 1_000);
                if allowed {
                    denials.failed(ip("10.0.0.1"), None, now);
                    level += 1_000;
                }
            }
        }
    }
}
