//! `claviger status`: the server's state. It exits with 1 when something needs somebody now, so that a monitor need not parse
//! anything.

use crate::cli::Session;
use crate::commands::seal;
use crate::failure::Failure;
use crate::output::{self, Table};
use clap::Args;
use claviger_wire::native::Status as Shown;

/// Options of `status`: none. It exits with 1 when something needs somebody now.
#[derive(Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let status = session.client.status().await.map_err(|e| Failure::client(e, None))?;
        Failure::verdict(u8::from(!status.problems.is_empty()), show(&status, session.json))
    }
}

fn show(status: &Shown, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&status);
    }
    for (mark, findings) in [("BAD ", &status.problems), ("note", &status.warnings)] {
        for finding in findings {
            output::line(&format!("{mark}  {}", finding.detail))?;
        }
    }
    let mut table = Table::plain();
    table.row(["version", &status.version]);
    table.row(["up", &format!("{} s", status.uptime_seconds)]);
    table.row(["revision", &status.revision]);
    table.row(["keys", &keys(status)]);
    table.row(["audit log", &audit_log(status)]);
    table.row(["memory", &status.memory]);
    seal::rows(&mut table, &status.seal);
    table.print()
}

fn keys(status: &Shown) -> String {
    match status.damaged_keys {
        0 => status.keys.to_string(),
        damaged => format!("{}, and {damaged} damaged ones that are not served", status.keys),
    }
}

fn audit_log(status: &Shown) -> String {
    let Shown { audit_state, audit_entries, audit_signed, audit_first, .. } = status;
    let state = audit_state.replace('_', " ");
    let kept = match (audit_first, status.audit_retention_days) {
        (0, None) => "all kept".to_owned(),
        (first, None) => format!("kept from {first} on"),
        (first, Some(days)) => format!("kept from {first} on, {days} days at least"),
    };
    let reserve = status.audit_reserve >> 20;
    format!("{state}: {audit_entries} entries, {audit_signed} of them signed for, {kept}; {reserve} MiB in reserve")
}
