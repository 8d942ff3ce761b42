//! What a run found, as one line of JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Latencies in nanoseconds, three significant digits, up to a minute.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000_000, 3)?))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds);
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// Count and quantiles in microseconds.
    pub(crate) fn summary(&self) -> Value {
        json!({
            "count": self.0.len(),
            "p50_us": micros(self.0.value_at_quantile(0.50)),
            "p99_us": micros(self.0.value_at_quantile(0.99)),
            "max_us": micros(self.0.max()),
        })
    }

    /// The report of a closed loop; `window` is how long was measured, `cpu` what this process
    /// used meanwhile.
    pub(crate) fn report(&self, connections: usize, window: Duration, cpu: Duration) -> Value {
        let requests = self.0.len();
        let seconds = window.as_secs_f64();
        json!({
            "connections": connections,
            "seconds": seconds,
            "requests": requests,
            "requests_per_second": requests as f64 / seconds,
            "p50_us": micros(self.0.value_at_quantile(0.50)),
            "p99_us": micros(self.0.value_at_quantile(0.99)),
            "max_us": micros(self.0.max()),
            "generator_cpu_us_per_request": cpu.as_secs_f64() * 1e6 / (requests.max(1) as f64),
        })
    }
}

fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

/// CPU time this process has used so far.
pub(crate) fn cpu_time() -> Duration {
    read_clock(ClockId::ProcessCPUTime)
}

/// Nanoseconds on the clock that all processes of the machine share and that never goes back.
pub(crate) fn monotonic_ns() -> u64 {
    u64::try_from(read_clock(ClockId::Monotonic).as_nanos()).unwrap_or(u64::MAX)
}

fn read_clock(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_report_has_rate_and_quantiles() {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let report = latencies.report(32, Duration::from_secs(2), Duration::from_millis(5));
        assert_eq!(report["requests"], 1000);
        assert_eq!(report["requests_per_second"], 500.0);
        assert_eq!(report["generator_cpu_us_per_request"], 5.0);
        let p99 = report["p99_us"].as_f64().unwrap();
        assert!((989.0..=992.0).contains(&p99), "{p99}");
    }

    #[test]
    fn the_shared_clock_never_goes_back() {
        let before = monotonic_ns();
        assert!(monotonic_ns() >= before);
    }
}
