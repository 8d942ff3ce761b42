//! Uniform choices from the cipher library's random generator. A remainder alone would prefer the first ones.

use crate::failure::Failure;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Numbers drawn at once.
const DRAWN: usize = 256;

/// Random numbers, drawn in pieces and wiped.
pub(crate) struct Random {
    source: SystemRandom,
    drawn: Zeroizing<Vec<u8>>,
}

impl Random {
    pub(crate) fn new() -> Self {
        Self { source: SystemRandom::new(), drawn: Zeroizing::new(Vec::with_capacity(DRAWN * 4)) }
    }

    /// `count` random bytes.
    pub(crate) fn bytes(&self, count: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut bytes = Zeroizing::new(vec![0; count]);
        self.source.fill(&mut bytes).map_err(|_| Failure::other("the random generator failed"))?;
        Ok(bytes)
    }

    /// A number below `n`, each as likely as any other.
    ///
    /// # Panics
    /// When `n` is 0.
    pub(crate) fn below(&mut self, n: u32) -> Result<u32, Failure> {
        loop {
            if let Some(chosen) = pick(self.next()?, n) {
                return Ok(chosen);
            }
        }
    }

    fn next(&mut self) -> Result<u32, Failure> {
        if self.drawn.is_empty() {
            self.drawn = self.bytes(DRAWN * 4)?;
        }
        let at = self.drawn.len() - 4;
        let number = self.drawn[at..].iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.drawn.truncate(at);
        Ok(number)
    }
}

/// What a random number chooses of `n`; nothing where it lies beyond the last whole round of `n`.
fn pick(number: u32, n: u32) -> Option<u32> {
    let rounds = (1 << 32) / u64::from(n);
    (u64::from(number) < rounds * u64::from(n)).then(|| number % n)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_choice_is_as_likely_as_any_other() {
        for n in [1, 2, 3, 10, 62, 94, 256, 7776, 65_536, 3_000_000_000] {
            let beyond = (1_u64 << 32) / u64::from(n) * u64::from(n);
            assert_eq!(beyond % u64::from(n), 0, "whole rounds only");
            let last = u32::try_from(beyond - 1).unwrap();
            assert_eq!((pick(0, n), pick(last, n)), (Some(0), Some(n - 1)));
            let refused = u32::try_from(beyond).map(|first| pick(first, n));
            assert!(refused.is_err() || refused == Ok(None), "{n}");
            assert_eq!(pick(n - 1, n), Some(n - 1));
        }
    }

    #[test]
    fn numbers_stay_below_and_reach_all() {
        let mut random = Random::new();
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[random.below(5).unwrap() as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
