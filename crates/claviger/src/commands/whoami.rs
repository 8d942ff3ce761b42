//! `claviger whoami`: who the server takes the caller for.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use clap::Args;

/// Options of `whoami`: none.
#[derive(Args)]
pub(crate) struct Whoami {}

impl Whoami {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let who = session.client.whoami().await.map_err(|e| Failure::client(e, None))?;
        if session.json {
            output::json(&who)?;
            return Ok(0);
        }
        let mut table = Table::new(&["PRINCIPAL", "PROVEN BY", "GROUPS"]);
        for identity in &who.identities {
            table.row([&format!("{}:{}", identity.r#type, identity.id), &identity.method, &identity.groups.join(",")]);
        }
        table.print()?;
        if let Some(expires) = &who.session_expires {
            output::line(&format!("session until {expires}, renewed by itself while the login lasts"))?;
        }
        Ok(0)
    }
}
