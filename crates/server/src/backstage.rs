//! What the native surface needs of the server beside the engine: the seal, the audit log, the process's memory.

use crate::hygiene::Hardened;
use crate::metrics::Metrics;
use crate::native::{AuditQuery, AuditState, Backstage as Wanted, Vitals};
use claviger_audit::{AuditLog, LineSink, Reader, State};
use claviger_crypto::RootOfTrust;
use claviger_engine::{Engine, Error, StartReport};
use claviger_wire::native::{AuditItem, AuditPage, SealStatus};
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;

/// Records looked at for one page of a query.
const LOOKED_AT: usize = 200_000;

/// The composition root's side of the native surface.
pub(crate) struct Backstage {
    pub(crate) engine: Arc<Engine>,
    pub(crate) log: Arc<AuditLog>,
    pub(crate) root: Arc<dyn RootOfTrust>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hardened: Hardened,
    pub(crate) report: StartReport,
    pub(crate) sinks: Vec<Arc<LineSink>>,
    pub(crate) retention_days: Option<u32>,
}

impl Wanted for Backstage {
    fn seal_status(&self) -> SealStatus {
        let (barrier_version, barrier_versions) = self.engine.barrier_versions();
        SealStatus { barrier_version, barrier_versions, roots: vec![self.root.name().to_owned()], promise: self.root.promise() }
    }

    fn rotate(&self) -> BoxFuture<'_, Result<SealStatus, Error>> {
        Box::pin(async {
            self.engine.rotate_barrier(&[&*self.root]).await?;
            Ok(self.seal_status())
        })
    }

    fn vitals(&self) -> Vitals {
        let audit_signed = self.log.latest_checkpoint().size;
        let health = self.log.health();
        Vitals {
            uptime_seconds: self.metrics.uptime_seconds(),
            memory: self.hardened.said.clone(),
            memory_is_locked: self.hardened.memory_is_locked,
            sums_match: self.report.digest_matches,
            accepts_tampering: self.engine.settings().accept_tampering,
            damaged_rights: self.report.damaged_others.len(),
            audit_entries: self.log.size(),
            audit_signed,
            // Where the folder cannot be read, its state says more.
            audit_first: self.log.first_kept().unwrap_or_default(),
            audit_retention_days: self.retention_days,
            audit: audit_state(health.state),
            audit_reserve: health.free_reserve,
            sink_lines_dropped: dropped(&self.sinks),
        }
    }

    fn audit_query(&self, query: AuditQuery) -> BoxFuture<'_, Result<AuditPage, String>> {
        let dirs = self.log.dirs();
        let size = self.log.size();
        Box::pin(async move {
            let looking = tokio::task::spawn_blocking(move || look(&dirs, size, &query).map_err(|e| e.to_string()));
            looking.await.map_err(|_| "the query ended badly".to_owned())?
        })
    }
}

pub(crate) fn audit_state(state: State) -> AuditState {
    match state {
        State::Healthy => AuditState::Healthy,
        State::DiskFull => AuditState::DiskFull,
        State::Standby => AuditState::Standby,
        State::Failed(why) => AuditState::Failed(why.to_string()),
        State::Closed => AuditState::Closed,
    }
}

/// Lines that these sinks did not take since the start.
pub(crate) fn dropped(sinks: &[Arc<LineSink>]) -> u64 {
    sinks.iter().map(|sink| sink.dropped()).sum()
}

/// Newest first, until the page is full, the log begins, or enough was looked at.
fn look(dirs: &[std::path::PathBuf], size: u64, query: &AuditQuery) -> Result<AuditPage, claviger_audit::AuditError> {
    let mut reader = Reader::open(dirs)?;
    let mut page = AuditPage { records: Vec::new(), next: None };
    for (looked, entry) in reader.backwards(query.before.unwrap_or(size).min(size))?.enumerate() {
        let (index, entry) = entry?;
        let record: Value = serde_json::from_slice(&entry).unwrap_or_default();
        let too_old = query.since.as_ref().is_some_and(|since| record["time"].as_str().is_some_and(|t| t < since.as_str()));
        if too_old {
            return Ok(page);
        }
        if query.matches(&record) {
            page.records.push(AuditItem { index, record });
        }
        if page.records.len() >= query.limit || looked + 1 >= LOOKED_AT {
            page.next = Some(index.to_string());
            return Ok(page);
        }
    }
    Ok(page)
}
