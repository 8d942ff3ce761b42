//! `claviger audit reach`: which keys' data a principal did get, by the audit log.

use super::query::{fetch, since_time};
use super::record::keys;
use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_client::AuditQuery;
use claviger_domain::Principal;
use claviger_wire::native::AuditItem;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// The actions that hand out data.
const READING: [&str; 2] = ["read", "bulk_read"];

/// Options of `audit reach`.
#[derive(Args)]
pub(crate) struct Reach {
    /// Whose reads, TYPE:ID.
    #[arg(value_parser = parse::principal)]
    principal: Principal,
    /// Not older than this: a time, or a duration back from now.
    #[arg(long, value_name = "TIME")]
    since: String,
}

/// One key that was read.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Read {
    reads: u64,
    first: String,
    last: String,
}

impl Reach {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let since = since_time(&self.since)?;
        let mut reads = BTreeMap::new();
        for action in READING {
            let query = AuditQuery {
                principal: Some(self.principal.to_string()),
                action: Some(action.to_owned()),
                outcome: Some("ok".to_owned()),
                since: Some(since.clone()),
                ..AuditQuery::default()
            };
            count(&fetch(session, query, usize::MAX).await?, &mut reads);
        }
        match session.json {
            true => output::json(&serde_json::json!({ "principal": self.principal.to_string(), "since": since, "keys": reads }))?,
            false => table(&reads).print()?,
        }
        Ok(0)
    }
}

/// Counts each request that gave a key's data once, however many entries tell of it.
fn count(records: &[AuditItem], reads: &mut BTreeMap<String, Read>) {
    let mut counted = HashSet::new();
    for AuditItem { record, .. } in records {
        let time = record["time"].as_str().unwrap_or("");
        let request = record["request"].as_str().unwrap_or("");
        for id in given(record) {
            if !counted.insert((request, id)) {
                continue;
            }
            let new = || Read { reads: 0, first: time.to_owned(), last: time.to_owned() };
            let read = reads.entry(id.to_owned()).or_insert_with(new);
            read.reads += 1;
            // Times of the log order as texts do.
            if time < read.first.as_str() {
                time.clone_into(&mut read.first);
            }
            if time > read.last.as_str() {
                time.clone_into(&mut read.last);
            }
        }
    }
}

/// The keys whose data was given. Older records of bulk reads name refused keys beside them, without versions.
fn given(record: &Value) -> impl Iterator<Item = &str> {
    let given = keys(record).filter(|k| k["versions"].as_array().is_some_and(|v| !v.is_empty()));
    given.filter_map(|k| k["id"].as_str())
}

fn table(reads: &BTreeMap<String, Read>) -> Table {
    let mut table = Table::new(&["KEY", "READS", "FIRST", "LAST"]);
    for (id, read) in reads {
        table.row([id, &read.reads.to_string(), &read.first, &read.last]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(request: &str, time: &str, ids: &[&str], versions: &[&str]) -> AuditItem {
        let keys: Vec<_> = ids.iter().map(|id| json!({"id": id, "versions": versions})).collect();
        AuditItem { index: 0, record: json!({"time": time, "request": request, "keys": keys}) }
    }

    #[test]
    fn reads_are_counted_per_key_and_request() {
        let mut reads = BTreeMap::new();
        let parts = [item("2", "T1", &["a"], &["1"]), item("2", "T1", &["a"], &["2"])];
        count(&[item("1", "T2", &["a", "b"], &["1"]), item("3", "T3", &[], &[])], &mut reads);
        count(&parts, &mut reads);
        assert_eq!(reads["a"], Read { reads: 2, first: "T1".into(), last: "T2".into() });
        assert_eq!(reads["b"].reads, 1);
    }

    #[test]
    fn a_key_that_was_refused_in_a_bulk_read_was_not_read() {
        let mut reads = BTreeMap::new();
        count(&[item("1", "T", &["refused"], &[])], &mut reads);
        assert!(reads.is_empty());
    }
}
