//! `claviger history`: a key's earlier states.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_domain::KeyId;
use claviger_wire::native::HistoryEntry;

/// Options of `history`.
#[derive(Args)]
pub(crate) struct History {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// How many states, newest first.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl History {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let history = session.client.history(&self.id, self.limit).await.map_err(|e| Failure::client(e, Some(self.id.as_str())))?;
        match session.json {
            true => output::json(&history)?,
            false => table(&history.entries).print()?,
        }
        Ok(0)
    }
}

fn table(entries: &[HistoryEntry]) -> Table {
    let mut table = Table::new(&["UNTIL REVISION", "ETAG", "VERSIONS", "RIGHTS"]);
    for entry in entries {
        let versions = entry.versions.iter().map(|v| format!("{}:{}", v.id, v.state)).collect::<Vec<_>>().join(" ");
        let rights = entry.grants.iter().map(super::acl::describe).collect::<Vec<_>>().join(" ");
        table.row([&entry.replaced_at, &entry.etag, &versions, &rights]);
    }
    table
}
