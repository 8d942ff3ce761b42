//! `claviger info`: all about a key but its value.

use crate::cli::Session;
use crate::commands::versions;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_domain::KeyId;
use claviger_wire::native::KeyInfo;

/// Options of `info`.
#[derive(Args)]
pub(crate) struct Info {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
}

impl Info {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let key = session.client.key(&self.id).await.map_err(|e| Failure::client(e, Some(self.id.as_str())))?;
        if session.json {
            output::json(&key)?;
            return Ok(0);
        }
        table(&key).print()?;
        output::line("")?;
        versions::table(&key.versions).print()?;
        Ok(0)
    }
}

fn table(key: &KeyInfo) -> Table {
    let mut table = Table::plain();
    table.row(["key", &key.id]);
    table.row(["kind", &key.kind]);
    if let Some(policy) = &key.policy {
        table.row(["exportable", if policy.exportable { "yes" } else { "no" }]);
        if policy.convergent {
            table.row(["convergent", "yes"]);
        }
        if let Some(bits) = policy.rsa_bits {
            table.row(["rsa bits", &bits.to_string()]);
        }
        if let Some(template) = &policy.template {
            table.row(["template", template]);
        }
        table.row(["minimum version", policy.min_version.as_deref().unwrap_or("-")]);
    }
    table.row(["description", &key.description]);
    for (name, value) in &key.labels {
        table.row(["label", &format!("{name}={value}")]);
    }
    table.row(["created", &format!("{} by {}", key.created, key.created_by)]);
    table.row(["duties", if key.separate_duties { "separate" } else { "not separate" }]);
    let lifetime = key.max_lifetime.map_or("-".to_owned(), |s| format!("{s} s"));
    table.row(["max lifetime", &lifetime]);
    table.row(["etag", &key.etag]);
    table.row(["revision", &key.revision]);
    table.row(["you may", &key.allowed.join(",")]);
    table
}
