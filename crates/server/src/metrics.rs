//! Counters with closed label sets: never a key, user, address or path (DESIGN §7).

use crate::backstage::dropped;
use crate::http::Refusal;
use claviger_audit::{AuditLog, LineSink};
use claviger_engine::Engine;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::Instant;

/// Surfaces that requests are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SurfaceLabel {
    /// `/v0`
    Knox,
    /// `/api/v1`
    Native,
    /// Neither.
    Other,
}

const SURFACES: [(SurfaceLabel, &str); 3] =
    [(SurfaceLabel::Knox, "knox"), (SurfaceLabel::Native, "native"), (SurfaceLabel::Other, "other")];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// Every n-th request is timed: a clock read costs more than the count.
const TIMED: u64 = 16;

/// The server's own counters.
pub(crate) struct Metrics {
    registry: Registry,
    requests: [[Counter; CLASSES.len()]; SURFACES.len()],
    times: [Histogram; SURFACES.len()],
    refused: Vec<(Refusal, Counter)>,
    unauthenticated: Counter,
    handshakes_failed: Counter,
    turned_away: Counter,
    started: Instant,
}

impl Metrics {
    /// Counters, and a registry that also reads engine and log when it is asked.
    pub(crate) fn new(engine: &Arc<Engine>, log: &Arc<AuditLog>, sinks: &[Arc<LineSink>]) -> Self {
        let mut registry = Registry::with_prefix("claviger");
        let requests = SURFACES.map(|(_, surface)| {
            CLASSES.map(|class| labelled(&mut registry, "requests", "Requests answered.", &[("surface", surface), ("status", class)]))
        });
        let buckets = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
        let times = SURFACES.map(|(_, surface)| {
            let histogram = Histogram::new(buckets);
            let labels = [("surface".into(), surface.into())];
            registry.sub_registry_with_labels(labels.into_iter()).register_with_unit(
                "request_duration",
                "Time from request to answer, audit record durable; one request in sixteen is timed.",
                Unit::Seconds,
                histogram.clone(),
            );
            histogram
        });
        let refused = Refusal::ALL
            .into_iter()
            .map(|r| (r, labelled(&mut registry, "refused", "Requests refused before they were understood.", &[("reason", r.name())])))
            .collect();
        let unauthenticated = labelled(&mut registry, "unauthenticated", "Requests in which nobody was proven.", &[]);
        let handshakes_failed = labelled(&mut registry, "tls_handshakes_failed", "TLS handshakes that failed.", &[]);
        let turned_away = labelled(&mut registry, "connections_turned_away", "Connections closed because too many were open.", &[]);
        registry.register_collector(Box::new(Live { engine: engine.clone(), log: log.clone(), sinks: sinks.to_vec() }));
        Self { registry, requests, times, refused, unauthenticated, handshakes_failed, turned_away, started: Instant::now() }
    }

    /// Starts the clock for one request in sixteen.
    pub(crate) fn begin(&self, surface: SurfaceLabel) -> Option<Instant> {
        let count = self.requests[surface as usize][0].get();
        count.is_multiple_of(TIMED).then(Instant::now)
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, surface: SurfaceLabel, status: u16, begun: Option<Instant>) {
        let class = usize::from((status / 100).clamp(2, 5) - 2);
        self.requests[surface as usize][class].inc();
        if status == 401 {
            self.unauthenticated.inc();
        }
        if let Some(begun) = begun {
            self.times[surface as usize].observe(begun.elapsed().as_secs_f64());
        }
    }

    /// Counts what the front refused.
    pub(crate) fn refused(&self, why: Refusal) {
        if let Some((_, counter)) = self.refused.iter().find(|(r, _)| *r == why) {
            counter.inc();
        }
    }

    /// Counts a failed TLS handshake.
    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Counts a connection that was turned away.
    pub(crate) fn turned_away(&self) {
        self.turned_away.inc();
    }

    /// Seconds since the start.
    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// All figures in the OpenMetrics text form.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn labelled(registry: &mut Registry, name: &str, help: &str, labels: &[(&'static str, &'static str)]) -> Counter {
    let counter = Counter::default();
    let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    registry.sub_registry_with_labels(labels).register(name, help, counter.clone());
    counter
}

/// Figures that are read from their owners when they are asked for.
struct Live {
    engine: Arc<Engine>,
    log: Arc<AuditLog>,
    sinks: Vec<Arc<LineSink>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

impl prometheus_client::collector::Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)
        };
        let engine = &self.engine;
        let log = self.log.metrics().snapshot();
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        gauge("keys", "Keys in the store, damaged ones included.", whole(engine.key_count() as u64))?;
        gauge("keys_damaged", "Keys that are damaged and not served.", whole(engine.damaged_keys(0).0 as u64))?;
        gauge("store_settled", "0 while what became of a commit is not known and nothing is written.", i64::from(!engine.is_in_doubt()))?;
        gauge("revision", "Number of the last committed revision.", whole(engine.revision().number))?;
        gauge("watch_streams", "Streams that follow changes.", whole(engine.followers() as u64))?;
        gauge("audit_entries", "Entries in the audit log.", whole(self.log.size()))?;
        let health = self.log.health();
        let healthy = matches!(health.state, claviger_audit::State::Healthy);
        gauge("audit_healthy", "1 while the audit log is written to its main folder and has space.", i64::from(healthy))?;
        gauge("audit_reserve_bytes", "Bytes held back for the audit log, or left of them.", whole(health.free_reserve))?;
        gauge(
            "audit_sync_p50_microseconds",
            "Median time of the log's fdatasync.",
            whole(u64::try_from(log.sync_p50.as_micros()).unwrap_or(u64::MAX)),
        )?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?)
        };
        let commits = engine.commit_counts();
        counter("audit_fsyncs", "fdatasync calls of the audit log.", log.fsyncs)?;
        counter("audit_appends", "Records acknowledged as durable.", log.appends)?;
        counter("audit_refused", "Records that could not be kept.", log.refused)?;
        counter("audit_sink_lines_dropped", "Lines that other outputs of the audit log did not take.", dropped(&self.sinks))?;
        counter("store_commits", "Transactions committed to the store.", commits.commits)?;
        counter("store_writes", "Changes in these transactions.", commits.writes)
    }
}
