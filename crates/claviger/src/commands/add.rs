//! `claviger add`: a new version of a key.

use crate::ask::ValueSource;
use crate::cli::Session;
use crate::commands::states::show_change;
use crate::failure::Failure;
use crate::parse;
use clap::Args;
use claviger_domain::{Clock, KeyId, SystemClock};

/// Options of `add`.
#[derive(Args)]
pub(crate) struct Add {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// Have Claviger make the version, as the key's kind wants it: for keys that are used, not read.
    #[arg(long, conflicts_with_all = ["from_file", "trim_newline"])]
    generate: bool,
    #[command(flatten)]
    value: ValueSource,
    /// Make it the primary version in the same change.
    #[arg(long)]
    promote: bool,
    /// When it stops being given out: a time, or a duration from now.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Only if the key's ETag still is this.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

impl Add {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, generate, value, promote, expires, if_match } = self;
        let expires =
            expires.map(|t| parse::moment(&t, SystemClock.now())).transpose().map_err(|e| Failure::usage(format!("--expires: {e}")))?;
        let data = if generate { None } else { Some(value.read()?) };
        let added = session.client.add_version(&id, data.as_ref(), expires, promote, if_match.as_deref()).await;
        let changed = added.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        let version = changed.version.as_deref().unwrap_or("?");
        let state = if promote { "primary" } else { "active" };
        show_change(session, &changed, &format!("{id}: added version {version}, {state}"))
    }
}
