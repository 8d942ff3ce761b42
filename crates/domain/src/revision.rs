//! The order of changes, and time.

use std::fmt;

/// The place of one committed change in the one order of all changes. Nothing follows it backwards.
///
/// The epoch grows when a database is restored or fails over with a loss; within an epoch numbers are dense from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Revision {
    /// Counts restores and lossy fail-overs.
    pub epoch: u32,
    /// Counts changes.
    pub number: u64,
}

impl Revision {
    /// The revision that follows this one in the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, number: self.number + 1 }
    }

    /// Reads the form `EPOCH.NUMBER` that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        let (epoch, number) = s.split_once('.')?;
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(epoch) || !digits(number) {
            return None;
        }
        Some(Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// A moment: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment moved by whole seconds; saturates at the ends of time.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000_000)))
    }
}

/// Tells the time. Tests set it; the program uses [`SystemClock`].
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_round_trip_and_order_by_epoch_first() {
        let r = Revision { epoch: 2, number: 7 };
        assert_eq!(Revision::parse(&r.to_string()), Some(r));
        assert!(Revision { epoch: 1, number: 900 } < r);
        for bad in ["", "1", "1.", ".1", "+1.2", "1.2.3", "1.x"] {
            assert_eq!(Revision::parse(bad), None, "{bad}");
        }
    }
}
