//! Records through the recorder into a real log.
#![allow(clippy::unwrap_used, missing_docs)]

use claviger_audit::{AlertLimits, Alerts, AuditLog, LineSink, LogConfig, LogKey, Reader, Recorder, SinkTarget, verify};
use claviger_domain::audit::{Action, Outcome, Record, Subject};
use claviger_domain::{RequestId, Timestamp};
use claviger_ports::AuditSink;
use serde_json::Value;
use std::sync::Arc;

fn bare(action: Action) -> Record<'static> {
    Record::new(Timestamp(1), RequestId(1), "test", action, Outcome::Ok)
}

#[tokio::test]
async fn a_record_of_any_length_is_kept_in_consecutive_entries_of_a_log_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let key = LogKey::from_seed("claviger.test/audit/1", &[1; 32]).unwrap();
    let verifier = key.verifier().clone();
    let log = Arc::new(AuditLog::open(LogConfig { reserve: 0, ..LogConfig::new(dir.path()) }, key, None).unwrap());
    let sink = |name: &str| Arc::new(LineSink::open(SinkTarget::File(dir.path().join(name)), 64 << 20).unwrap());
    let recorder = Recorder::new(log.clone(), Some(sink("lines")), Some(sink("ecs")));
    let alerts = Alerts::new(Arc::new(recorder), AlertLimits::default());
    let ids: Vec<_> = (0..10_000).map(|n| format!("{n:05}{}", "k".repeat(507))).collect();
    let subjects: Vec<_> = ids.iter().map(|key| Subject { key, versions: &[] }).collect();
    let long = Record { subjects: &subjects, ..bare(Action::Watch) };
    let (before, kept, after) = (alerts.append(&bare(Action::List)), alerts.append(&long), alerts.append(&bare(Action::Status)));
    for appended in [before, kept, after] {
        appended.await.unwrap();
    }
    let size = log.size();
    drop(alerts);
    log.close();
    let dirs = [dir.path().to_owned()];
    let entries = Reader::open(&dirs).unwrap().entries(0).map(|e| serde_json::from_slice::<Value>(&e.unwrap().1).unwrap());
    let entries: Vec<_> = entries.collect();
    assert_eq!(
        (entries.len() as u64, &entries[0]["action"], &entries[entries.len() - 1]["action"]),
        (size, &"list".into(), &"status".into())
    );
    let parts = &entries[1..entries.len() - 1];
    let numbers: Vec<_> = parts.iter().map(|p| (p["part"]["n"].as_u64().unwrap(), p["part"]["of"].as_u64().unwrap())).collect();
    let of = parts.len() as u64;
    assert_eq!(numbers, (1..=of).map(|n| (n, of)).collect::<Vec<_>>());
    let found: Vec<_> = parts.iter().flat_map(|p| p["keys"].as_array().unwrap()).map(|k| k["id"].as_str().unwrap()).collect();
    assert_eq!(found, ids);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(lines("lines"), entries);
    assert_eq!(lines("ecs").into_iter().map(|mut line| line["claviger"].take()).collect::<Vec<_>>(), entries);
    let report = verify(&dirs, &verifier).unwrap();
    assert!(report.is_whole() && report.size == size, "{report:?}");
}
