//! `claviger acl explain`.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_domain::{KeyId, Principal};

/// Options of `acl explain`.
#[derive(Args)]
pub(crate) struct Explain {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// Whom it is about, TYPE:ID.
    #[arg(value_parser = parse::principal)]
    principal: Principal,
    /// A group to take a user for a member of; may be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

impl Explain {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, principal, groups } = self;
        let explained = session.client.explain(&id, &principal, &groups).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        if session.json {
            output::json(&explained)?;
            return Ok(0);
        }
        let allowed = if explained.allowed.is_empty() { "nothing".to_owned() } else { explained.allowed.join(",") };
        output::line(&format!("{} may on {}: {allowed}", explained.principal, explained.id))?;
        if explained.because.is_empty() {
            output::line("no grant on the key or on a prefix of it reaches this principal")?;
            return Ok(0);
        }
        let mut table = Table::new(&["SOURCE", "GRANT TO", "GRANTS", "COUNTS HERE"]);
        for source in &explained.because {
            table.row([&source.source, &source.principal, &source.grants.join(","), &source.counts.join(",")]);
        }
        table.print()?;
        Ok(0)
    }
}
