//! What the surface needs of the server beside the engine: the seal, the audit log, the process.

use claviger_engine::Error;
use claviger_wire::native::{AuditPage, SealStatus};
use futures::future::BoxFuture;
use serde_json::Value;

/// The server's own state and doings, as the surface sees them.
pub trait Backstage: Send + Sync {
    /// The seal's state.
    fn seal_status(&self) -> SealStatus;

    /// Makes a new barrier key and uses it from now on.
    fn rotate(&self) -> BoxFuture<'_, Result<SealStatus, Error>>;

    /// How process, store and audit log fare.
    fn vitals(&self) -> Vitals;

    /// A page of records, newest first. The error's text may be answered.
    fn audit_query(&self, query: AuditQuery) -> BoxFuture<'_, Result<AuditPage, String>>;
}

/// How process, store and audit log fare, as those who keep them say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vitals {
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// What keeps the process's memory from others, in a sentence.
    pub memory: String,
    /// Whether memory is kept out of swap.
    pub memory_is_locked: bool,
    /// Whether the start found the sums over all rows right.
    pub sums_match: bool,
    /// Whether a store with a wrong sum would be served.
    pub accepts_tampering: bool,
    /// Prefix grants and tombstones that do not count since they do not authenticate.
    pub damaged_rights: usize,
    /// Entries of the audit log.
    pub audit_entries: u64,
    /// How many of them the last checkpoint covers.
    pub audit_signed: u64,
    /// Index of the first entry that is kept.
    pub audit_first: u64,
    /// Days after which entries are pruned.
    pub audit_retention_days: Option<u32>,
    /// How the log fares.
    pub audit: AuditState,
    /// Bytes held back for the log, or left of them.
    pub audit_reserve: u64,
    /// Lines that the other outputs of the audit log did not take since the start.
    pub sink_lines_dropped: u64,
}

#[cfg(test)]
impl Vitals {
    /// Those of a server with which all is well.
    pub(super) fn healthy() -> Self {
        Self {
            uptime_seconds: 7,
            memory: "locked".to_owned(),
            memory_is_locked: true,
            sums_match: true,
            accepts_tampering: false,
            damaged_rights: 0,
            audit_entries: 12,
            audit_signed: 10,
            audit_first: 0,
            audit_retention_days: None,
            audit: AuditState::Healthy,
            audit_reserve: 64 << 20,
            sink_lines_dropped: 0,
        }
    }
}

/// How the audit log fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditState {
    /// All is well.
    Healthy,
    /// There is no space but the reserve.
    DiskFull,
    /// The main folder failed, the standby one is written.
    Standby,
    /// Nothing can be written, and so nothing is served; with the reason.
    Failed(String),
    /// The server stops.
    Closed,
}

/// Which audit records are wanted; what is absent does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// About this key (or prefix, written with a `*` behind it).
    pub key: Option<String>,
    /// By this principal, `TYPE:ID`.
    pub principal: Option<String>,
    /// With this action.
    pub action: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// Not before this moment, written as records write theirs: comparing the texts compares the times.
    pub since: Option<String>,
    /// Only records before this index.
    pub before: Option<u64>,
    /// Records at most.
    pub limit: usize,
}

impl AuditQuery {
    /// Whether a record, as the log has it, is wanted. Time and place in the log are the searcher's to look at.
    #[must_use]
    pub fn matches(&self, record: &Value) -> bool {
        let is = |member: &str, wanted: &Option<String>| wanted.as_deref().is_none_or(|w| record[member] == *w);
        let any = |member: &str, hit: &dyn Fn(&Value) -> bool| record[member].as_array().is_some_and(|all| all.iter().any(hit));
        let about = self.key.as_deref().is_none_or(|key| any("keys", &|k| k["id"] == *key));
        let by = self.principal.as_deref().is_none_or(|principal| match principal.split_once(':') {
            Some((kind, id)) => any("who", &|w| w["type"] == *kind && w["id"] == *id),
            None => false,
        });
        is("action", &self.action) && is("outcome", &self.outcome) && about && by
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_query_matches_by_all_that_it_names() {
        let record: Value =
            serde_json::from_str(r#"{"who":[{"type":"user","id":"a:b"}],"action":"read","keys":[{"id":"x"},{"id":"y"}],"outcome":"ok"}"#)
                .unwrap();
        let text = |t: &str| Some(t.to_owned());
        let all =
            AuditQuery { key: text("y"), principal: text("user:a:b"), action: text("read"), outcome: text("ok"), ..AuditQuery::default() };
        assert!(all.matches(&record) && AuditQuery::default().matches(&record));
        for wrong in [
            AuditQuery { key: text("z"), ..all.clone() },
            AuditQuery { principal: text("machine:a:b"), ..all.clone() },
            AuditQuery { principal: text("user"), ..all.clone() },
            AuditQuery { action: text("rea"), ..all.clone() },
            AuditQuery { outcome: text("denied"), ..all },
        ] {
            assert!(!wrong.matches(&record), "{wrong:?}");
        }
    }
}
