//! `claviger status`: the server's state.

use crate::cli::Session;
use crate::commands::seal;
use crate::failure::Failure;
use crate::output::{self, Table};
use clap::Args;

/// Options of `status`: none.
#[derive(Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let status = session.client.status().await.map_err(|e| Failure::client(e, None))?;
        if session.json {
            output::json(&status)?;
            return Ok(0);
        }
        let mut table = Table::plain();
        table.row(["version", &status.version]);
        table.row(["up", &format!("{} s", status.uptime_seconds)]);
        table.row(["revision", &status.revision]);
        table.row(["keys", &status.keys.to_string()]);
        table.row(["audit log", &format!("{} entries, {} of them signed for", status.audit_entries, status.audit_signed)]);
        table.row(["memory", &status.memory]);
        seal::rows(&mut table, &status.seal);
        table.print()?;
        Ok(0)
    }
}
