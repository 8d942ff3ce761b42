//! Counters of the log, cheap to update on the hot path and readable at any time.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Quarter-octave buckets of microseconds: bucket `4·log2(µs)` plus the next two bits.
const BUCKETS: usize = 128;

/// The log's counters.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) appends: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) failovers: AtomicU64,
    sync_time: [AtomicU64; BUCKETS],
    pub(crate) last_error: Mutex<Option<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            appends: zero(),
            refused: zero(),
            groups: zero(),
            fsyncs: zero(),
            bytes: zero(),
            checkpoints: zero(),
            failovers: zero(),
            sync_time: [const { AtomicU64::new(0) }; BUCKETS],
            last_error: Mutex::default(),
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Entries acknowledged.
    pub appends: u64,
    /// Entries refused or failed.
    pub refused: u64,
    /// Groups committed; `appends / groups` is the mean group.
    pub groups: u64,
    /// `fdatasync` calls of commits.
    pub fsyncs: u64,
    /// Bytes of frames written.
    pub bytes: u64,
    /// Checkpoints signed.
    pub checkpoints: u64,
    /// Times the log went on in a new part after a failed write.
    pub failovers: u64,
    /// Median time of a commit's `fdatasync`, to about 12 %; zero when there was none.
    pub sync_p50: Duration,
    /// 99th percentile of the same.
    pub sync_p99: Duration,
    /// The last error of the writer or the housekeeper.
    pub last_error: Option<String>,
}

impl Metrics {
    pub(crate) fn count_sync(&self, took: Duration) {
        self.fsyncs.fetch_add(1, Relaxed);
        self.sync_time[bucket(took)].fetch_add(1, Relaxed);
    }

    pub(crate) fn note_error(&self, error: &impl ToString) {
        *self.last_error.lock() = Some(error.to_string());
    }

    /// The counters now.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let counts: Vec<u64> = self.sync_time.iter().map(|count| count.load(Relaxed)).collect();
        MetricsSnapshot {
            appends: self.appends.load(Relaxed),
            refused: self.refused.load(Relaxed),
            groups: self.groups.load(Relaxed),
            fsyncs: self.fsyncs.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            failovers: self.failovers.load(Relaxed),
            sync_p50: quantile(&counts, 50),
            sync_p99: quantile(&counts, 99),
            last_error: self.last_error.lock().clone(),
        }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let octave = 63 - micros.leading_zeros();
    let quarter = (micros >> (octave - 2)) & 3;
    (octave as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket as u32 / 4, bucket as u64 % 4);
    Duration::from_micros((5 + quarter) << octave.saturating_sub(2))
}

fn quantile(counts: &[u64], percent: u64) -> Duration {
    let total: u64 = counts.iter().sum();
    let wanted = (total * percent).div_ceil(100);
    let mut seen = 0;
    for (at, count) in counts.iter().enumerate() {
        seen += count;
        if total > 0 && seen >= wanted {
            return upper_bound(at);
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_quarter_octave() {
        let metrics = Metrics::default();
        (1..=1000).for_each(|n| metrics.count_sync(Duration::from_micros(n)));
        let seen = metrics.snapshot();
        assert_eq!(seen.fsyncs, 1000);
        assert!((500..=640).contains(&(seen.sync_p50.as_micros() as u64)), "{:?}", seen.sync_p50);
        assert!((990..=1280).contains(&(seen.sync_p99.as_micros() as u64)), "{:?}", seen.sync_p99);
        assert_eq!(Metrics::default().snapshot().sync_p50, Duration::ZERO);
    }
}
