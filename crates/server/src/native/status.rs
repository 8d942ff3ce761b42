//! What `status` says: the figures, and what follows from them.

use super::backstage::{AuditState, Vitals};
use claviger_engine::Engine;
use claviger_wire::native::{Finding, SealStatus, Status};

/// Ids of damaged keys that are named.
const NAMED: usize = 20;

/// What the engine knows of its own state.
pub(super) struct Store {
    pub(super) damaged: usize,
    /// The first ids of these.
    pub(super) named: Vec<String>,
    pub(super) is_settled: bool,
}

/// The server's state as it is answered.
pub(super) fn status(engine: &Engine, seal: SealStatus, vitals: Vitals) -> Status {
    let (damaged, named) = engine.damaged_keys(NAMED);
    let store = Store { damaged, named, is_settled: !engine.is_in_doubt() };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: engine.revision().to_string(),
        keys: engine.key_count().saturating_sub(damaged) as u64,
        damaged_keys: damaged as u64,
        problems: problems(&store, &vitals),
        warnings: warnings(&vitals),
        seal,
        audit_entries: vitals.audit_entries,
        audit_signed: vitals.audit_signed,
        audit_first: vitals.audit_first,
        audit_retention_days: vitals.audit_retention_days,
        audit_state: vitals.audit.name().to_owned(),
        audit_reserve: vitals.audit_reserve,
        sink_lines_dropped: vitals.sink_lines_dropped,
        memory: vitals.memory,
        uptime_seconds: vitals.uptime_seconds,
    }
}

/// What needs somebody now.
fn problems(store: &Store, vitals: &Vitals) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |holds: bool, code: &str, detail: &dyn Fn() -> String| {
        if holds {
            found.push(Finding { code: code.to_owned(), detail: detail() });
        }
    };
    say(store.damaged > 0, "damaged_keys", &|| {
        let more = if store.damaged > store.named.len() { ", …" } else { "" };
        let (count, names) = (store.damaged, store.named.join(", "));
        format!("{count} keys are damaged and not served: {names}{more}; run `claviger check` and restore them from a backup")
    });
    say(vitals.damaged_rights > 0, "damaged_rights", &|| {
        format!("{} prefix grants or tombstones are damaged and do not count; run `claviger check`", vitals.damaged_rights)
    });
    say(!vitals.sums_match, "tampered", &|| {
        "rows of the store were changed behind Claviger's back; run `claviger check`, and restore a backup".to_owned()
    });
    say(vitals.accepts_tampering, "accept_tampering", &|| {
        "`store.accept_tampering` is on: a store that was tampered with is served; take the setting out once the store is in order"
            .to_owned()
    });
    say(!store.is_settled, "store_unsettled", &|| {
        "what became of a commit is not known: what it touches cannot be read, and nothing is written; look at the server's log and the disk".to_owned()
    });
    if let Some(detail) = vitals.audit.trouble() {
        say(true, &format!("audit_{}", vitals.audit.name()), &|| detail.clone());
    }
    found
}

/// What works and might be better.
fn warnings(vitals: &Vitals) -> Vec<Finding> {
    let mut found = Vec::new();
    if vitals.sink_lines_dropped > 0 {
        let dropped = vitals.sink_lines_dropped;
        let detail = format!(
            "{dropped} lines for the audit log's other outputs were dropped since the start, since these are too slow or fail; the log itself has all records (`claviger audit export`)"
        );
        found.push(Finding { code: "sink_lines_dropped".to_owned(), detail });
    }
    if !vitals.memory_is_locked {
        found.push(Finding { code: "memory_not_locked".to_owned(), detail: vitals.memory.clone() });
    }
    found
}

impl AuditState {
    /// The name in `status` and in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::DiskFull => "disk_full",
            Self::Standby => "standby",
            Self::Failed(_) => "failed",
            Self::Closed => "closed",
        }
    }

    fn trouble(&self) -> Option<String> {
        match self {
            Self::Healthy | Self::Closed => None,
            Self::DiskFull => {
                Some("the audit log's disk is full: reads go on in the reserve, and nothing is changed; free some space".to_owned())
            }
            Self::Standby => Some(
                "the audit log's main folder failed, and the standby folder is written; mend the disk and start the server anew".to_owned(),
            ),
            Self::Failed(why) => Some(format!("the audit log cannot be written, and so nothing is served: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> (Store, Vitals) {
        (Store { damaged: 0, named: Vec::new(), is_settled: true }, Vitals::healthy())
    }

    #[test]
    fn everything_that_is_not_well_is_told_by_its_code_and_nothing_else() {
        type Change = fn(&mut Store, &mut Vitals);
        let table: [(&str, Change); 10] = [
            ("damaged_keys", |s, _| (s.damaged, s.named) = (2, vec!["a".to_owned()])),
            ("damaged_rights", |_, v| v.damaged_rights = 1),
            ("tampered", |_, v| v.sums_match = false),
            ("accept_tampering", |_, v| v.accepts_tampering = true),
            ("store_unsettled", |s, _| s.is_settled = false),
            ("audit_disk_full", |_, v| v.audit = AuditState::DiskFull),
            ("audit_standby", |_, v| v.audit = AuditState::Standby),
            ("audit_failed", |_, v| v.audit = AuditState::Failed("no disk".to_owned())),
            ("sink_lines_dropped", |_, v| v.sink_lines_dropped = 3),
            ("memory_not_locked", |_, v| v.memory_is_locked = false),
        ];
        let (store, vitals) = well();
        assert!(problems(&store, &vitals).is_empty() && warnings(&vitals).is_empty());
        for (code, change) in table {
            let (mut store, mut vitals) = well();
            change(&mut store, &mut vitals);
            let (problems, warnings) = (problems(&store, &vitals), warnings(&vitals));
            let told: Vec<_> = problems.iter().chain(&warnings).map(|f| f.code.as_str()).collect();
            assert_eq!(told, [code]);
            assert_eq!(warnings.len(), usize::from(matches!(code, "sink_lines_dropped" | "memory_not_locked")), "{code}");
        }
    }
}
