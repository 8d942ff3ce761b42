//! Removing audit records that are older than the configuration keeps them.
//!
//! Whole segments go, the newest never does, and a signed stub goes on proving what is kept. Ages are those that the records
//! themselves tell, each of them: a clock that was once wrong leaves records out of order.
//!
//! What is removed cannot be had again, and a clock that is wrong for a moment must not remove it. So nothing is removed in the
//! first hour of a server, nothing while the clock and the time that has passed since the start disagree, and nothing when all
//! records from before the start would be too old, which a clock far ahead looks like.

use crate::native::as_recorded;
use claviger_audit::{AuditError, AuditLog, Reader, SEGMENT};
use claviger_domain::Timestamp;
use claviger_domain::audit::Action;
use std::ops::Range;
use std::time::{Duration, Instant};

const DAY: i64 = 86_400 * 1_000_000_000;
/// How far the clock may be ahead of the time that has passed.
const DISAGREEMENT: i64 = DAY;

/// How often it is looked for records that are too old.
pub(crate) const EVERY: Duration = Duration::from_secs(3600);

/// The moment from which on records are kept.
pub(crate) fn kept_from(now: Timestamp, days: u32) -> Timestamp {
    // No record is older than 1970.
    Timestamp(now.0.saturating_sub(i64::from(days).saturating_mul(DAY)).max(0))
}

/// The clock against the time that has passed.
pub(crate) struct Watch {
    started: (Timestamp, Instant),
    /// The time of the newest record from before this start; none when there was none.
    newest_before: Option<String>,
}

impl Watch {
    /// Begins at a server's start, whose own record is in the log already.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) fn begin(log: &AuditLog, now: Timestamp) -> Result<Self, AuditError> {
        let mut newest_before = None;
        let mut own_start = false;
        for entry in Reader::open(&log.dirs())?.backwards(u64::MAX)? {
            let (_, entry) = entry?;
            let Some(record) = Told::of(&entry) else { continue };
            if own_start {
                newest_before = Some(record.time);
                break;
            }
            own_start = record.action == Action::Start.name();
        }
        Ok(Self { started: (now, Instant::now()), newest_before })
    }

    /// The moment from which on records are kept, or why none are to be removed now.
    pub(crate) fn kept_from(&self, now: Timestamp, days: u32) -> Result<Timestamp, &'static str> {
        self.kept_from_after(self.started.1.elapsed(), now, days)
    }

    fn kept_from_after(&self, passed: Duration, now: Timestamp, days: u32) -> Result<Timestamp, &'static str> {
        let expected = self.started.0.0.saturating_add(i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX));
        if now.0.saturating_sub(expected) > DISAGREEMENT {
            return Err("the clock has gone ahead of the time that has passed since the start; restart the server if it is right now");
        }
        let kept_from = kept_from(now, days);
        match &self.newest_before {
            Some(newest) if *newest < as_recorded(kept_from) => {
                Err("all records from before this start would be too old: the clock may be wrong; the next start decides anew")
            }
            _ => Ok(kept_from),
        }
    }
}

/// Which records can be removed: those of the leading segments in which every one is older than that. Blocks.
///
/// # Errors
/// The log cannot be read.
pub(crate) fn removable(log: &AuditLog, kept_from: Timestamp) -> Result<Option<Range<u64>>, AuditError> {
    let reader = Reader::open(&log.dirs())?;
    let first = reader.first();
    let wanted = as_recorded(kept_from);
    // The newest segment stays.
    let end = log.size() / SEGMENT * SEGMENT;
    let mut kept = first;
    for entry in reader.entries(first) {
        let (index, entry) = entry?;
        if index >= end || Told::of(&entry).is_none_or(|record| record.time >= wanted) {
            break;
        }
        if (index + 1).is_multiple_of(SEGMENT) {
            kept = index + 1;
        }
    }
    Ok((kept > first).then_some(first..kept))
}

/// What of a record matters here. Comparing these texts of times compares the times.
#[derive(serde::Deserialize)]
struct Told {
    time: String,
    action: String,
}

impl Told {
    fn of(entry: &[u8]) -> Option<Self> {
        serde_json::from_slice(entry).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::run::recorded_changes;
    use claviger_audit::{Durability, LogConfig, LogKey};
    use claviger_domain::Revision;

    const SECOND: i64 = 1_000_000_000;

    /// A record of each second from 1970 on, the first of which is a server's start.
    fn append(log: &AuditLog, seconds: Range<u64>) {
        let record = |second: u64| {
            let action = if second == 0 { Action::Start } else { Action::Create };
            let (time, action) = (as_recorded(Timestamp(second as i64 * SECOND)), action.name());
            format!(r#"{{"time":"{time}","request":"{second:032x}","action":"{action}","outcome":"ok","revision":"1.{}"}}"#, second + 1)
        };
        let appended: Vec<_> = seconds.map(|second| log.append(record(second))).collect();
        for one in appended {
            one.wait().unwrap();
        }
    }

    #[test]
    fn records_older_than_the_retention_go_and_what_is_kept_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { durability: Durability::Interval(Duration::from_millis(5)), reserve: 0, ..LogConfig::new(dir.path()) };
        let key = || LogKey::from_seed("test", &[7; 32]).unwrap();
        let log = AuditLog::open(config, key(), None).unwrap();
        let total = SEGMENT + 100;
        for from in (0..total).step_by(5_000) {
            append(&log, from..(from + 5_000).min(total));
        }
        let head = Revision { epoch: 1, number: total };
        let before = recorded_changes(&log, head).unwrap();
        assert_eq!((before.after.number, before.since), (1, Timestamp(i64::MIN)), "back to the start's record");

        let end_of_first = Timestamp(SEGMENT as i64 * SECOND);
        // The checkpoint follows the records within a second, and what is not signed for stays.
        let begun = std::time::Instant::now();
        while log.latest_checkpoint().size < total && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(removable(&log, Timestamp(end_of_first.0 - SECOND)), Ok(None), "one record is young enough");
        assert_eq!(removable(&log, Timestamp(i64::MAX)), Ok(Some(0..SEGMENT)), "the newest segment stays");
        assert_eq!(removable(&log, end_of_first), Ok(Some(0..SEGMENT)));
        assert_eq!(log.prune(SEGMENT), Ok(SEGMENT));
        assert_eq!(removable(&log, end_of_first), Ok(None));
        assert_eq!(log.first_kept(), Ok(SEGMENT));

        // A start must not take changes for lost whose records were removed.
        let after = recorded_changes(&log, head).unwrap();
        assert!(after.since > end_of_first && after.requests.len() == 100, "{:?}", after.since);
        log.close();
        let report = claviger_audit::verify(&[dir.path()], key().verifier()).unwrap();
        assert_eq!((report.problem, report.pruned_before), (None, SEGMENT));
    }

    #[test]
    fn a_young_record_among_old_ones_keeps_its_segment_and_those_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { durability: Durability::Interval(Duration::from_millis(5)), reserve: 0, ..LogConfig::new(dir.path()) };
        let log = AuditLog::open(config, LogKey::from_seed("test", &[7; 32]).unwrap(), None).unwrap();
        append(&log, 0..5_000);
        append(&log, 9_000_000..9_000_001);
        for from in (5_000..2 * SEGMENT + 100).step_by(5_000) {
            append(&log, from..from + 5_000);
        }
        assert_eq!(removable(&log, Timestamp(8_000_000 * SECOND)), Ok(None));
        assert_eq!(removable(&log, Timestamp(9_000_001 * SECOND)), Ok(Some(0..2 * SEGMENT)));
    }

    #[test]
    fn a_clock_that_may_be_wrong_removes_nothing() {
        let (start, hour) = (Timestamp(1_000 * DAY), Duration::from_secs(3600));
        let watch = |newest_before| Watch { started: (start, Instant::now()), newest_before: Some(as_recorded(Timestamp(newest_before))) };
        let after = |hours: i64| Timestamp(start.0 + hours * 3600 * SECOND);
        let fine = watch(start.0 - DAY);
        assert_eq!(fine.kept_from_after(hour, after(1), 30), Ok(kept_from(after(1), 30)));
        assert!(fine.kept_from_after(hour, after(24 * 40), 30).is_err(), "it jumped ahead");
        assert!(fine.kept_from_after(hour, after(-24 * 40), 30).is_ok(), "back is harmless");
        assert!(watch(start.0 - 31 * DAY).kept_from_after(hour, after(1), 30).is_err(), "it was ahead at the start");
        let new = Watch { started: (start, Instant::now()), newest_before: None };
        assert!(new.kept_from_after(hour, after(1), 30).is_ok());
    }

    #[test]
    fn days_are_counted_back_from_now() {
        assert_eq!(kept_from(Timestamp(86_400 * SECOND * 3), 2), Timestamp(86_400 * SECOND));
        assert_eq!(kept_from(Timestamp(86_400 * SECOND), u32::MAX), Timestamp(0));
    }
}
