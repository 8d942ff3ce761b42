//! `claviger delete`: a key and all its versions, for ever.

use crate::cli::Session;
use crate::commands::states::show_change;
use crate::failure::Failure;
use crate::{ask, parse};
use clap::Args;
use claviger_domain::KeyId;

/// Options of `delete`.
#[derive(Args)]
pub(crate) struct Delete {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only if the key's ETag still is this.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

impl Delete {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, yes, if_match } = self;
        ask::confirm(&format!("Delete {id} with all its versions?"), yes)?;
        let deleted = session.client.delete(&id, if_match.as_deref()).await;
        let changed = deleted.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        show_change(session, &changed, &format!("deleted {id}"))
    }
}
