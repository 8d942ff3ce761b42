//! How long to wait before the next attempt: full jitter, so that many clients do not come back together.

use std::time::Duration;

/// Grows with each failure up to a cap; each wait is uniform between zero and the present bound ("full jitter").
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `base`, each next bound doubles, none passes `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(fraction(random()))
    }

    /// Forgets all failures: the last attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether nothing has failed yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    fn bound(&self) -> Duration {
        let factor = 2u32.saturating_pow(self.failures.min(20));
        self.base.saturating_mul(factor).min(self.cap)
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
    fn bounds_double_up_to_the_cap_and_waits_stay_below_them() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(backoff.bound(), Duration::from_millis(bound));
            assert!(backoff.next_wait() <= Duration::from_millis(bound));
        }
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(100));
    }

    #[test]
    fn jitter_is_full() {
        assert!(fraction(0) == 0.0 && fraction(u32::MAX) == 1.0);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let waits: Vec<_> = (0..32).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().any(|w| w != &waits[0]));
    }
}
