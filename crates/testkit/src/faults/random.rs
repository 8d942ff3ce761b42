//! Random choices that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (SplitMix64): equal seeds give equal choices.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of `CLAVIGER_SEED`, or one of the moment; printed, so that a failure can be run again.
    #[must_use]
    pub fn seeded(test: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        let seed = std::env::var("CLAVIGER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(now);
        println!("{test}: CLAVIGER_SEED={seed}");
        Self(seed)
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// One of some things.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len() as u64) as usize]
    }

    /// A generator of its own for a part of the test.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}
