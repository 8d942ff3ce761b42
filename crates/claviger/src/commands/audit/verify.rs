//! `claviger audit verify`: the whole log, or the proof of one record, against the log's public key, without a server.

use super::prove::Proof;
use super::record;
use crate::failure::Failure;
use crate::output::{self, Table};
use clap::Args;
use claviger_audit::{AuditError, Report, VerifierKey};
use claviger_wire::native::AuditItem;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The public key's file in a log's own folder.
const OWN_KEY: &str = "log.pub";

/// A log's folders and its public key.
#[derive(Args)]
pub(super) struct LogFolders {
    /// The log's folder; a standby folder may follow.
    #[arg(value_name = "DIR", required = true, num_args = 1..=2)]
    pub(super) dirs: Vec<PathBuf>,
    /// The log's public key, as exported before. Without it the key in the folder is used: that finds damage, but not a
    /// log that was replaced together with its key.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

/// Options of `audit verify`.
#[derive(Args)]
pub(crate) struct Verify {
    /// The log's folder; a standby folder may follow.
    #[arg(value_name = "DIR", required_unless_present = "proof", num_args = 1..=2)]
    dirs: Vec<PathBuf>,
    /// The log's public key, as exported before. Without it the key in the folder is used: that finds damage, but not a
    /// log that was replaced together with its key.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Check what `claviger audit prove` wrote, instead of a log: it needs the public key and nothing else.
    #[arg(long, value_name = "FILE", requires = "public_key", conflicts_with = "dirs")]
    proof: Option<PathBuf>,
}

impl LogFolders {
    /// The public key to verify by.
    pub(super) fn key(&self) -> Result<VerifierKey, Failure> {
        let own = || self.dirs.first().map(|dir| dir.join(OWN_KEY)).unwrap_or_default();
        let path = self.public_key.clone().unwrap_or_else(own);
        let text =
            std::fs::read_to_string(&path).map_err(|e| Failure::usage(format!("cannot read the public key {}: {e}", path.display())))?;
        VerifierKey::parse(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
    }

    /// The main folder, for messages.
    pub(super) fn main(&self) -> &Path {
        self.dirs.first().map_or(Path::new("."), PathBuf::as_path)
    }

    fn trusts_itself(&self) -> bool {
        self.public_key.is_none()
    }
}

impl Verify {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let Self { dirs, public_key, proof } = self;
        let log = LogFolders { dirs, public_key };
        let key = log.key()?;
        if let Some(path) = proof {
            return check_proof(&path, &key, json);
        }
        let report = claviger_audit::verify(&log.dirs, &key).map_err(|e| unreadable(&e))?;
        let shown = match json {
            true => output::json(&as_json(&report)),
            false => show(&report, &log, &key),
        };
        Failure::verdict(u8::from(!report.is_whole()), shown)
    }
}

fn check_proof(path: &Path, key: &VerifierKey, json: bool) -> Result<u8, Failure> {
    let bad = |why: String| Failure::usage(format!("the proof {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let proof: Proof = serde_json::from_str(&text).map_err(|e| bad(format!("not what `claviger audit prove` writes: {e}")))?;
    let checked = proof.check(key);
    let shown = match (&checked, json) {
        (Ok(entry), true) => output::json(&serde_json::json!({
            "proven": true, "log": key.name(), "index": proof.index, "size": proof.size, "record": as_record(entry),
        })),
        (Err(problem), true) => {
            output::json(&serde_json::json!({ "proven": false, "log": key.name(), "index": proof.index, "problem": problem }))
        }
        (Ok(entry), false) => {
            let record = record::table([&AuditItem { index: proof.index, record: as_record(entry) }]).print();
            let mut table = Table::plain();
            table.row(["result", &format!("this is record {} of {} signed for in {}", proof.index, proof.size, key.name())]);
            record.and_then(|()| table.print())
        }
        (Err(problem), false) => {
            let mut table = Table::plain();
            table.row(["WRONG", problem]);
            table.print()
        }
    };
    Failure::verdict(u8::from(checked.is_err()), shown)
}

/// An entry as JSON, which every record is; as text if a later server wrote something else.
fn as_record(entry: &[u8]) -> Value {
    serde_json::from_slice(entry).unwrap_or_else(|_| String::from_utf8_lossy(entry).into())
}

/// A log that cannot be read.
pub(super) fn unreadable(error: &AuditError) -> Failure {
    Failure::other(format!("reading the audit log: {error}"))
        .next("give the folder that the server's configuration names for its audit log")
}

fn show(report: &Report, log: &LogFolders, key: &VerifierKey) -> Result<(), Failure> {
    let mut table = Table::plain();
    table.row(["log", &format!("{} in {}", key.name(), log.main().display())]);
    table.row(["entries", &format!("{} ({} read, {} pruned before)", report.size, report.entries, report.pruned_before)]);
    table.row(["checkpoints", &format!("{} verified, {} of pruned entries", report.checkpoints, report.unverifiable_checkpoints)]);
    table.row(["not yet signed for", &report.unsigned_tail.to_string()]);
    if report.torn_tail_bytes > 0 {
        table.row(["unfinished write", &format!("{} bytes, never acknowledged", report.torn_tail_bytes)]);
    }
    if log.trusts_itself() {
        table.row(["note", "the public key came from the folder itself; keep a copy elsewhere and give it with --public-key"]);
    }
    match &report.problem {
        Some(problem) => table.row(["WRONG", &problem.to_string()]),
        None => table.row(["result", "the log is whole"]),
    }
    table.print()
}

fn as_json(report: &Report) -> serde_json::Value {
    let problem = report.problem.as_ref().map(|p| serde_json::json!({ "path": p.path, "index": p.index, "what": p.what }));
    serde_json::json!({
        "whole": report.is_whole(),
        "size": report.size,
        "entries": report.entries,
        "pruned_before": report.pruned_before,
        "checkpoints": report.checkpoints,
        "unverifiable_checkpoints": report.unverifiable_checkpoints,
        "unsigned_tail": report.unsigned_tail,
        "torn_tail_bytes": report.torn_tail_bytes,
        "torn_history_bytes": report.torn_history_bytes,
        "problem": problem,
    })
}
