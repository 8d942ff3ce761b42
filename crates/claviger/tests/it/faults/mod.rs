//! Bad days: the server is killed, its disk forgets, fails or fills up, its database is edited. What was acknowledged must
//! be there afterwards, with its record, and nothing else may be served.
//!
//! `CLAVIGER_SEED` repeats a test's choices; `CLAVIGER_TEST_LONG=1` makes ten times the rounds.

mod full_disk;
mod io_errors;
mod kill;
mod tampering;
mod workload;

use anyhow::{Context, Result, ensure};
use claviger_audit::{Reader, VerifierKey, verify};
use claviger_testkit::TestServer;
use claviger_testkit::faults::FaultLayer;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The reserve is 1 MiB, so that a start is not mostly about reserving space; every address may fail as often as it likes.
const CONFIG: &str = "[audit]\nreserve_mib = 1\n";

/// Rounds of a loop: ten times as many where time does not matter.
fn rounds(usual: usize) -> usize {
    if std::env::var("CLAVIGER_TEST_LONG").is_ok_and(|v| v == "1") { usual * 10 } else { usual }
}

/// A server on the I/O layer, which watches its folder.
fn server_on(layer: &FaultLayer, config: &str) -> TestServer {
    use claviger_testkit::Options;
    let options = Options { config: Some(config.to_owned()), environment: layer.environment() };
    let mut server = TestServer::start(crate::program(), options).unwrap();
    server.terminate().unwrap();
    layer.watch(&server.dir()).unwrap();
    layer.forget().unwrap();
    server.restart().unwrap();
    server
}

fn database(server: &TestServer) -> PathBuf {
    server.dir().join("claviger.db")
}

fn audit_folder(server: &TestServer) -> PathBuf {
    server.dir().join("audit")
}

/// A record of the log: action, key, version (or 0) and outcome.
type Deed = (String, String, u64, String);

/// What the log says from an entry on.
#[derive(Default)]
struct Logged {
    deeds: HashMap<Deed, usize>,
    /// Revisions of changes that are recorded.
    changes: std::collections::HashSet<String>,
    /// How many of these were found missing at a start.
    reconciled: usize,
    /// Where the log ends.
    end: u64,
}

/// What has the revision of a change of its own, other than what merely saw one.
const CHANGES: [&str; 10] =
    ["create", "delete", "add_version", "promote", "deactivate", "reactivate", "destroy", "change_rights", "change_prefix", "reconcile"];

fn read_log(folder: &Path, from: u64) -> Result<Logged> {
    let mut logged = Logged { end: from, ..Logged::default() };
    let mut reader = Reader::open(&[folder])?;
    let size = reader.size()?;
    for entry in reader.entries(from).take_while(|e| e.as_ref().map_or(true, |(index, _)| *index < size)) {
        let (index, bytes) = entry?;
        logged.end = index + 1;
        let record: Value = serde_json::from_slice(&bytes).with_context(|| format!("entry {index}"))?;
        let action = record["action"].as_str().unwrap_or_default();
        let outcome = record["outcome"].as_str().unwrap_or_default();
        if let (true, "ok", Some(revision)) = (CHANGES.contains(&action), outcome, record["revision"].as_str()) {
            logged.changes.insert(revision.to_owned());
        }
        logged.reconciled += usize::from(action == "reconcile");
        for key in record["keys"].as_array().into_iter().flatten() {
            let id = key["id"].as_str().unwrap_or_default();
            let versions: Vec<u64> = key["versions"].as_array().into_iter().flatten().filter_map(|v| v.as_str()?.parse().ok()).collect();
            for version in versions.into_iter().chain([0]) {
                *logged.deeds.entry((action.to_owned(), id.to_owned(), version, outcome.to_owned())).or_default() += 1;
            }
        }
    }
    Ok(logged)
}

/// The log verifies offline, with nothing but its folder and public key.
fn check_log(folder: &Path) -> Result<()> {
    let key = VerifierKey::parse(&std::fs::read_to_string(folder.join("log.pub"))?)?;
    let report = verify(&[folder], &key)?;
    ensure!(report.is_whole(), "the audit log: {}", report.problem.map(|p| p.to_string()).unwrap_or_default());
    Ok(())
}
