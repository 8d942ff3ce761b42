//! `claviger promote`, `deactivate`, `reactivate`, `destroy`: one version's state. They are one request with four names.

use crate::cli::Session;
use crate::failure::Failure;
use crate::{ask, output, parse};
use clap::Args;
use claviger_domain::{KeyId, VersionId};
use claviger_wire::native::Changed;

/// One version of a key.
#[derive(Args)]
struct OneVersion {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// The version, as `claviger versions` lists them.
    #[arg(value_parser = parse::version_id)]
    version: VersionId,
    /// Only if the key's ETag still is this.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// Options of `promote`.
#[derive(Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    of: OneVersion,
}

/// Options of `deactivate`.
#[derive(Args)]
pub(crate) struct Deactivate {
    #[command(flatten)]
    of: OneVersion,
}

/// Options of `reactivate`.
#[derive(Args)]
pub(crate) struct Reactivate {
    #[command(flatten)]
    of: OneVersion,
}

/// Options of `destroy`.
#[derive(Args)]
pub(crate) struct Destroy {
    #[command(flatten)]
    of: OneVersion,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Promote {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        self.of.set(session, "primary").await
    }
}

impl Deactivate {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        self.of.set(session, "inactive").await
    }
}

impl Reactivate {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        self.of.set(session, "active").await
    }
}

impl Destroy {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        ask::confirm(&format!("Destroy version {} of {}?", self.of.version, self.of.id), self.yes)?;
        self.of.set(session, "destroyed").await
    }
}

impl OneVersion {
    async fn set(self, session: &Session, state: &str) -> Result<u8, Failure> {
        let Self { id, version, if_match } = self;
        let set = session.client.set_state(&id, version, state, if_match.as_deref()).await;
        let changed = set.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        show_change(session, &changed, &format!("{id}: version {version} is {state}"))
    }
}

/// Shows what a change did.
pub(crate) fn show_change(session: &Session, changed: &Changed, sentence: &str) -> Result<u8, Failure> {
    match session.json {
        true => output::json(changed)?,
        false => output::line(&format!("{sentence} (revision {})", changed.revision))?,
    }
    Ok(0)
}
