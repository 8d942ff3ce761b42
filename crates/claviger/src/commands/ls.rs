//! `claviger ls`: the keys on which the caller has some right.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_client::KeysQuery;
use claviger_wire::native::KeyInfo;

/// Options of `ls`.
#[derive(Args)]
pub(crate) struct Ls {
    /// Only ids that start with this text.
    prefix: Option<String>,
    /// Only keys with this label; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse::label)]
    labels: Vec<(String, String)>,
}

impl Ls {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let keys = all_keys(session, self.prefix, labels).await?;
        match session.json {
            true => output::json(&serde_json::json!({ "keys": keys }))?,
            false => table(&keys).print()?,
        }
        Ok(0)
    }
}

/// All keys of a query, page after page.
pub(crate) async fn all_keys(session: &Session, prefix: Option<String>, labels: Vec<String>) -> Result<Vec<KeyInfo>, Failure> {
    let mut query = KeysQuery { prefix, labels, cursor: None, limit: Some(1000) };
    let mut keys = Vec::new();
    loop {
        let page = session.client.keys(&query).await.map_err(|e| Failure::client(e, None))?;
        keys.extend(page.keys);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return Ok(keys);
        }
    }
}

fn table(keys: &[KeyInfo]) -> Table {
    let mut table = Table::new(&["KEY", "PRIMARY", "VERSIONS", "YOU MAY", "LABELS", "DESCRIPTION"]);
    for key in keys {
        let primary = key.versions.iter().find(|v| v.state == "primary").map_or("-", |v| v.id.as_str());
        let labels = key.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
        table.row([&key.id, primary, &key.versions.len().to_string(), &key.allowed.join(","), &labels, &key.description]);
    }
    table
}
