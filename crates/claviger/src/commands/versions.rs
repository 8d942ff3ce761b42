//! `claviger versions`: a key's versions without their values.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_domain::KeyId;
use claviger_wire::native::VersionInfo;

/// Options of `versions`.
#[derive(Args)]
pub(crate) struct Versions {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
}

impl Versions {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let list = session.client.versions(&self.id).await.map_err(|e| Failure::client(e, Some(self.id.as_str())))?;
        match session.json {
            true => output::json(&list)?,
            false => table(&list.versions).print()?,
        }
        Ok(0)
    }
}

/// Versions as a table.
pub(crate) fn table(versions: &[VersionInfo]) -> Table {
    let mut table = Table::new(&["VERSION", "STATE", "CREATED", "EXPIRES"]);
    for v in versions {
        table.row([&v.id, &v.state, &v.created, v.expires.as_deref().unwrap_or("-")]);
    }
    table
}
