//! `claviger edit`: read the primary version, change it in an editor, add what came out.

use crate::cli::Session;
use crate::deposit::Deposit;
use crate::editor::Editing;
use crate::failure::{Code, Failure};
use crate::{output, parse};
use clap::Args;
use claviger_client::{Secret, Which};
use claviger_domain::{KeyId, SecretBytes};

/// Change a value in an editor, with nothing on disk.
///
/// The value is edited in a file in memory, as with `claviger put --editor`, and becomes a new version: primary at once unless you say
/// --no-promote. Where nothing was changed nothing is added. If somebody else changed the key meanwhile, his change stands: yours is
/// refused (exit code 6) and kept in memory, and the message says where.
#[derive(Args)]
pub(crate) struct Edit {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// Only add the version; `claviger promote` makes it primary later.
    #[arg(long)]
    no_promote: bool,
    /// Start the editor although unencrypted swap could take what is in memory to a disk.
    #[arg(long)]
    allow_swap: bool,
}

impl Edit {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, no_promote, allow_swap } = self;
        let failed = |e| Failure::client(e, Some(id.as_str()));
        let allowed = session.client.key(&id).await.map_err(failed)?.allowed;
        if !allowed.iter().any(|right| right == "write") {
            let denied = Failure::new(Code::Denied, format!("you lack the right to write `{id}`; the editor was not started"));
            return Err(denied.next(format!("`claviger acl explain {id} TYPE:ID` says why")));
        }
        let mut secret = session.client.read(&id, &Which::Primary, None).await.map_err(failed)?;
        let before = primary(&mut secret)?;
        if std::str::from_utf8(before.expose()).is_err() {
            return Err(Failure::invalid(format!("the value of `{id}` is no text, and an editor could change more of it than you do"))
                .next(format!("change a copy (`claviger get {id} --output FILE`, in memory), then `claviger put {id} --file FILE`")));
        }
        let edited = Editing { command: "edit", name: id.as_str(), start: before.expose(), allow_swap }.run().await?;
        if edited.data.expose() == before.expose() {
            return unchanged(session, &id);
        }
        if edited.data.is_empty() {
            return Err(Failure::usage("the editor left the file empty; nothing was changed"));
        }
        let deposit = Deposit { promote: !no_promote, if_match: Some(secret.etag), ..Deposit::default() };
        match deposit.place(session, &id, &edited.data).await {
            Ok(placed) => placed.show(session.json)?,
            Err(failure) => return Err(edited.keep(failure)),
        }
        Ok(0)
    }
}

fn primary(secret: &mut Secret) -> Result<SecretBytes, Failure> {
    let expired = || {
        Failure::new(Code::NotFound, format!("the primary version of `{}` has expired", secret.id))
            .next(format!("give it a new value with `claviger put {}`", secret.id))
    };
    match secret.versions.pop() {
        Some(version) => Ok(version.data),
        None => Err(expired()),
    }
}

fn unchanged(session: &Session, id: &KeyId) -> Result<u8, Failure> {
    match session.json {
        true => output::json(&serde_json::json!({ "id": id.as_str(), "done": "unchanged" }))?,
        false => output::line(&format!("{id}: unchanged"))?,
    }
    Ok(0)
}
