//! `claviger reach`: what a principal can reach. What it did reach is in `claviger audit reach`.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_client::ReachQuery;
use claviger_domain::Principal;
use claviger_wire::native::ReachedKey;

/// Options of `reach`.
#[derive(Args)]
pub(crate) struct Reach {
    /// Whose reach, TYPE:ID.
    #[arg(value_parser = parse::principal)]
    principal: Principal,
    /// A group to take a user for a member of; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Only keys below this prefix.
    #[arg(long)]
    prefix: Option<String>,
}

impl Reach {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { principal, groups, prefix } = self;
        let mut query = ReachQuery { principal, groups, prefix, cursor: None };
        let mut keys = Vec::new();
        loop {
            let page = session.client.reach(&query).await.map_err(|e| Failure::client(e, None))?;
            keys.extend(page.keys);
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        match session.json {
            true => output::json(&serde_json::json!({ "principal": query.principal.to_string(), "keys": keys }))?,
            false => table(&keys).print()?,
        }
        Ok(0)
    }
}

fn table(keys: &[ReachedKey]) -> Table {
    let mut table = Table::new(&["KEY", "MAY"]);
    for key in keys {
        table.row([&key.id, &key.allowed.join(",")]);
    }
    table
}
