//! How long to wait before the next attempt: full jitter, so that many clients do not come back together.

use std::time::{Duration, Instant};

/// Grows with each failure up to a cap; each wait is uniform between zero and the present bound ("full jitter").
///
/// One success forgets nothing, since what answers once and fails again would then be tried without a pause: failures
/// are forgotten when twice the cap passes without one.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The first wait is at most `base`, each next bound doubles, none passes `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0, last: None }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.bound_at(Instant::now()).mul_f64(fraction(random()))
    }

    fn bound_at(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > self.cap * 2) {
            self.failures = 0;
        }
        let bound = self.base.saturating_mul(2u32.saturating_pow(self.failures.min(20))).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        self.last = Some(now);
        bound
    }

    /// Whether nothing has failed yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.failures == 0
    }
}

/// From 0 to 1.
fn fraction(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

/// Jitter need not be secret; when no randomness is to be had the middle serves.
fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => u32::MAX / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap_until_nothing_failed_for_long() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut now = Instant::now();
        for bound in [100, 200, 400, 800, 1000, 1000] {
            now += Duration::from_secs(2);
            assert_eq!(backoff.bound_at(now), Duration::from_millis(bound));
        }
        assert_eq!(backoff.bound_at(now + Duration::from_millis(2001)), Duration::from_millis(100));
        assert!(backoff.next_wait() <= Duration::from_millis(200));
    }

    #[test]
    fn jitter_is_full() {
        assert!(fraction(0) == 0.0 && fraction(u32::MAX) == 1.0);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let waits: Vec<_> = (0..32).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().any(|w| w != &waits[0]));
    }
}
