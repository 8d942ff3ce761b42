//! `claviger node status`: how the agent fares. It exits with 1 when something needs somebody now, so that a monitor need not parse anything.

use super::{Which, failed};
use crate::failure::Failure;
use crate::output::{self, Table};
use clap::Args;
use claviger_node::status::Report;

/// Options of `node status`. Key names are shown to root, the agent's own user and its administrators.
#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
}

impl Status {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let answer = self.which.agent().ask("GET", "/v1/status").map_err(failed)?;
        let report: Report =
            serde_json::from_slice(&answer.body).map_err(|e| Failure::other(format!("the agent's status is of another version: {e}")))?;
        Failure::verdict(u8::from(!report.problems.is_empty()), show(&report, json))
    }
}

fn show(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(report);
    }
    for (mark, sentences) in [("BAD ", &report.problems), ("note", &report.notes)] {
        for sentence in sentences {
            output::line(&format!("{mark}  {sentence}"))?;
        }
    }
    let mut table = Table::plain();
    table.row(["version", &report.version]);
    table.row(["started", &report.started]);
    table.row(["server", &server(report)]);
    table.row(["secrets", &format!("{} registered, {} cached", report.registered, report.cached)]);
    table.row(["reads", &format!("{} given, {} refused", report.reads, report.reads_refused)]);
    table.row(["root", &report.root]);
    table.row(["memory", &report.memory]);
    table.print()?;
    let Some(keys) = report.keys.as_ref().filter(|keys| !keys.is_empty()) else { return Ok(()) };
    output::line("")?;
    let mut table = Table::new(&["KEY", "STATE", "REVISION", "PRIMARY SINCE", "REGISTERED BY", "REFUSED"]);
    for key in keys {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            &key.id,
            &key.state,
            &or_dash(&key.revision),
            &or_dash(&key.since),
            &key.registered_by.join(", "),
            &or_dash(&key.refused),
        ]);
    }
    table.print()
}

fn server(report: &Report) -> String {
    let heard = report.last_contact_seconds.map_or_else(|| "never heard".to_owned(), |seconds| format!("last heard {seconds} s ago"));
    match (&report.offline_since, report.live) {
        (_, true) => format!("{}, followed", report.server),
        (Some(since), false) => {
            format!("{}, offline since {since}, {heard}; copies are given out for {} s", report.server, report.max_offline_seconds)
        }
        (None, false) => format!("{}, {heard}", report.server),
    }
}
