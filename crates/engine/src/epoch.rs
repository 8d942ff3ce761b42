//! Which epoch a start numbers its changes in.
//!
//! A store cannot tell that it is a copy of an earlier day: whoever restores a backup, reverts a snapshot or starts a clone leaves nothing in it
//! that says so. So each start takes an epoch of its own, and two stores that go on from one state never give one revision to two changes.

use claviger_domain::Timestamp;

/// Steps where the clock does not help, at most: about a second, so that epochs do not run away from it.
const STEPS: u64 = 1 << 20;

/// The epoch of a start at `now` on a store that knows of `last`: the microsecond of the start, so that of two restores the later one has the
/// later epoch. Where the clock shows no later one, since it was set back, some steps on from `last`, as `chance` falls: then copies of one
/// store still part ways, though not in order.
pub(crate) fn of_start(last: u64, now: Timestamp, chance: u64) -> u64 {
    let microsecond = u64::try_from(now.0 / 1000).unwrap_or(0);
    if microsecond > last { microsecond } else { last.saturating_add(1 + chance % STEPS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_later_than_the_last_whatever_the_clock_shows() {
        let at = |second: i64| Timestamp(second * 1_000_000_000);
        assert_eq!(of_start(1, at(1_795_000_000), 7), 1_795_000_000_000_000);
        // Two copies of one store, one after the other.
        assert!(of_start(1, Timestamp(1_795_000_000_000_001_000), 7) > of_start(1, at(1_795_000_000), 9));
        for (last, second) in [(1_795_000_000_000_000, 1_795_000_000), (1_795_000_000_000_000, 0), (7, -60)] {
            let epochs = [0, 1, STEPS - 1, u64::MAX].map(|chance| of_start(last, at(second), chance));
            assert_eq!(epochs, [last + 1, last + 2, last + STEPS, last + STEPS], "{last} {second}");
        }
        let of_the_last_moment = of_start(7, Timestamp(i64::MAX), 0);
        assert!(i64::try_from(of_the_last_moment).is_ok(), "a database keeps it as a signed number: {of_the_last_moment}");
    }
}
