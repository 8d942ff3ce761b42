//! Removing audit records that are older than the configuration keeps them.
//!
//! Whole segments go, the newest never does, and a signed stub goes on proving what is kept. Ages are those that the records
//! themselves tell.

use crate::native::as_recorded;
use claviger_audit::{AuditError, AuditLog, Reader, SEGMENT};
use claviger_domain::Timestamp;
use std::ops::Range;
use std::time::Duration;

/// How often it is looked for records that are too old.
pub(crate) const EVERY: Duration = Duration::from_secs(3600);

/// The moment from which on records are kept.
pub(crate) fn kept_from(now: Timestamp, days: u32) -> Timestamp {
    const DAY: i64 = 86_400 * 1_000_000_000;
    // No record is older than 1970.
    Timestamp(now.0.saturating_sub(i64::from(days).saturating_mul(DAY)).max(0))
}

/// Removes the segments in which every record is older than that, and says which records these were. Blocks.
///
/// # Errors
/// The log cannot be read, or does not agree with what it signed; then nothing is removed.
pub(crate) fn prune(log: &AuditLog, kept_from: Timestamp) -> Result<Option<Range<u64>>, AuditError> {
    let mut reader = Reader::open(&log.dirs())?;
    let first = reader.first();
    let wanted = as_recorded(kept_from);
    // Records of one moment may stand in another order: a minute's worth on either side of the boundary does not matter.
    let index = reader.partition_point(|entry| time_of(entry).is_some_and(|time| time < wanted))?;
    if index / SEGMENT * SEGMENT <= first {
        return Ok(None);
    }
    let kept = log.prune(index)?;
    Ok((kept > first).then_some(first..kept))
}

/// Comparing these texts compares the times.
fn time_of(entry: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Timed {
        time: String,
    }
    serde_json::from_slice::<Timed>(entry).ok().map(|timed| timed.time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::run::recorded_changes;
    use claviger_audit::{Durability, LogConfig, LogKey};
    use claviger_domain::Revision;
    use claviger_domain::audit::Action;

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
        assert_eq!(prune(&log, Timestamp(end_of_first.0 - SECOND)), Ok(None), "one record is young enough");
        assert_eq!(prune(&log, end_of_first), Ok(Some(0..SEGMENT)));
        assert_eq!(prune(&log, end_of_first), Ok(None));
        assert_eq!(log.first_kept(), Ok(SEGMENT));

        // A start must not take changes for lost whose records were removed.
        let after = recorded_changes(&log, head).unwrap();
        assert!(after.since > end_of_first && after.requests.len() == 100, "{:?}", after.since);
        log.close();
        let report = claviger_audit::verify(&[dir.path()], key().verifier()).unwrap();
        assert_eq!((report.problem, report.pruned_before), (None, SEGMENT));
    }

    #[test]
    fn days_are_counted_back_from_now() {
        assert_eq!(kept_from(Timestamp(86_400 * SECOND * 3), 2), Timestamp(86_400 * SECOND));
        assert_eq!(kept_from(Timestamp(86_400 * SECOND), u32::MAX), Timestamp(0));
    }
}
