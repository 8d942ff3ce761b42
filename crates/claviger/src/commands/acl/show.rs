//! `claviger acl show`.

use super::rights;
use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_domain::{KeyId, Prefix};
use claviger_wire::native::{GrantEntry, PrefixInfo};

/// Options of `acl show`.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("scope").required(true))]
pub(crate) struct Show {
    /// The key.
    #[arg(value_parser = parse::key_id, group = "scope")]
    id: Option<KeyId>,
    /// The rights on this prefix; '' is the prefix of all keys.
    #[arg(long, value_parser = parse::prefix, group = "scope")]
    prefix: Option<Prefix>,
    /// The rights on all prefixes that you may see.
    #[arg(long, group = "scope")]
    prefixes: bool,
}

impl Show {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match (&self.id, &self.prefix) {
            (Some(id), _) => {
                let acl = session.client.acl(id).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
                if session.json { output::json(&acl)? } else { grants(&acl.grants).print()? }
            }
            (None, Some(prefix)) => {
                let info = session.client.prefix(prefix).await.map_err(|e| Failure::client(e, None))?;
                if session.json { output::json(&info)? } else { prefixes(&[info]).print()? }
            }
            (None, None) => {
                let list = session.client.prefixes().await.map_err(|e| Failure::client(e, None))?;
                if session.json { output::json(&list)? } else { prefixes(&list.prefixes).print()? }
            }
        }
        Ok(0)
    }
}

fn grants(grants: &[GrantEntry]) -> Table {
    let mut table = Table::new(&["PRINCIPAL", "MAY"]);
    for grant in grants {
        table.row([&grant.principal, &rights(grant)]);
    }
    table
}

fn prefixes(all: &[PrefixInfo]) -> Table {
    let mut table = Table::new(&["PREFIX", "PRINCIPAL", "MAY"]);
    for info in all {
        let shown = if info.prefix.is_empty() { "(all keys)" } else { &info.prefix };
        if info.any_user_creates {
            table.row([shown, "(any user)", "create"]);
        }
        for grant in &info.grants {
            table.row([shown, &grant.principal, &rights(grant)]);
        }
    }
    table
}
