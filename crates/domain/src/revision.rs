//! The order of changes, and time.

use std::fmt;

/// The place of one committed change in the one order of all changes. Nothing follows it backwards.
///
/// Numbers are dense from 1 and go on through epochs. Each start of a server has an epoch of its own, later than the one that its store had: so
/// where a store goes on from a copy of itself, no revision that was given out before is given out again for something else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Revision {
    /// Which start of a server; it grows in irregular steps.
    pub epoch: u64,
    /// Counts changes.
    pub number: u64,
}

impl Revision {
    /// The revision that follows this one in the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, number: self.number + 1 }
    }

    /// The same number in another epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
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

/// A moment taken apart, in UTC and the proleptic Gregorian calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// Year.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Timestamp {
    /// Date and time of day. Days are counted in 400-year eras that begin on 1 March, so that the leap day is an era year's
    /// last.
    #[must_use]
    pub fn civil(self) -> Civil {
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, of_day) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(of_year - (153 * from_march + 2) / 5 + 1),
            hour: small(of_day / 3600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
            nanos: small(nanos),
        }
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
