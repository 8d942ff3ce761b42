//! `claviger audit reach`: which keys' data a principal did get, by the audit log.

use super::query::{fetch, since_time};
use super::record::key_ids;
use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_client::AuditQuery;
use claviger_domain::Principal;
use claviger_wire::native::AuditItem;
use serde::Serialize;
use std::collections::BTreeMap;

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

fn count(records: &[AuditItem], reads: &mut BTreeMap<String, Read>) {
    for AuditItem { record, .. } in records {
        let time = record["time"].as_str().unwrap_or("");
        for id in key_ids(record) {
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

    #[test]
    fn reads_are_counted_per_key() {
        let item = |time: &str, ids: &[&str]| {
            let keys: Vec<_> = ids.iter().map(|id| json!({"id": id, "versions": []})).collect();
            AuditItem { index: 0, record: json!({"time": time, "keys": keys}) }
        };
        let mut reads = BTreeMap::new();
        count(&[item("T2", &["a", "b"]), item("T1", &["a"]), item("T3", &[])], &mut reads);
        assert_eq!(reads["a"], Read { reads: 2, first: "T1".into(), last: "T2".into() });
        assert_eq!(reads["b"].reads, 1);
    }
}
