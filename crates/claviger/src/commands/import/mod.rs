//! `claviger import`: secrets out of other tools' files into keys.

mod age;
mod formats;
mod plan;

pub(crate) use formats::bundle;

use crate::ask;
use crate::cli::Session;
use crate::deposit::{Deposit, created};
use crate::failure::{Code, Failure, code_of_problem};
use crate::output::{self, Table};
use crate::parse;
use clap::{Args, Subcommand};
use claviger_client::{Error, Secret};
use claviger_domain::{KeyId, Prefix};
use formats::{Entry, Reader, Refused};
use plan::{Existing, Planned, Present, Standing, Step};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Keys that are looked at in one request.
const AT_ONCE: usize = 1000;

/// Import secrets from another tool's file.
///
/// The file is read whole first; if it is not what it should be nothing is done. Each secret becomes a key below --prefix, and each has
/// its own result: created, changed, left (it has this value already), refused (and why) or failed. --dry-run shows the same table and
/// changes nothing. Values are never shown. An import that broke off can simply be repeated: what is there already is left.
///
/// A key that exists with another value is refused unless --existing says otherwise. Exit code 0 means that every secret of the file is
/// now in its key, or was left as you asked; otherwise it is that of the first refusal.
#[derive(Subcommand)]
pub(crate) enum Import {
    /// A dotenv file: NAME=value becomes PREFIX + NAME. What programs read differently is refused with its line.
    Dotenv(File),
    /// A JSON object: {"db": {"user": …}} becomes PREFIX + db/user. Arrays and null are refused one by one.
    Json(File),
    /// Kubernetes Secrets, YAML or JSON, several documents or a List: PREFIX + NAMESPACE/NAME/FIELD, without a namespace NAME/FIELD.
    Kubernetes(File),
    /// 1Password's export, 1PUX or CSV: PREFIX + VAULT/TITLE/FIELD (CSV has no vaults). Archived items are refused one by one.
    #[command(name = "1password")]
    OnePassword(File),
    /// Vault: the output of `vault kv get -format=json` (PREFIX + FIELD), or a JSON tree of paths (PREFIX + PATH/FIELD).
    Vault(File),
    /// What `claviger export` wrote: PREFIX + the key's id. What was to expire expires at the same time.
    Age(age::Encrypted),
}

/// A file and what to do with it.
#[derive(Args)]
pub(crate) struct File {
    /// The file; `-` is standard input.
    file: PathBuf,
    /// What each key's id begins with: empty, or ending with `/` or `:`.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = parse::prefix)]
    prefix: Prefix,
    /// Show what would be done, and change nothing. Whether you may create a key is seen only when it is done.
    #[arg(long)]
    dry_run: bool,
    /// What to do with a key that exists with another value.
    #[arg(long, value_name = "RULE", default_value = "refuse")]
    existing: Existing,
    /// Of a key that exists, only add the version; `claviger promote` makes it primary later.
    #[arg(long)]
    no_promote: bool,
}

/// One line of the table.
#[derive(Serialize)]
struct Row {
    key: String,
    /// create, change, leave, refuse; or what was done: created, changed, left, refused, failed, untried.
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip)]
    code: u8,
}

impl Import {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let (file, read): (File, Reader) = match self {
            Self::Dotenv(file) => (file, formats::dotenv::read),
            Self::Json(file) => (file, formats::tree::read),
            Self::Kubernetes(file) => (file, formats::kubernetes::read),
            Self::OnePassword(file) => (file, formats::onepassword::read),
            Self::Vault(file) => (file, formats::vault::read),
            Self::Age(encrypted) => {
                let entries = encrypted.open()?;
                return encrypted.file.import(session, entries).await;
            }
        };
        let bytes = ask::read_input(&file.file)?;
        let entries = read(&bytes).map_err(|why| refused(&file.file, why))?;
        drop(bytes);
        file.import(session, entries).await
    }
}

fn refused(path: &Path, Refused(why): Refused) -> Failure {
    Failure::invalid(format!("{}: {why}", path.display())).next("nothing was imported; mend the file and try again")
}

impl File {
    async fn import(&self, session: &Session, entries: Vec<Entry>) -> Result<u8, Failure> {
        let mut planned = plan::place(entries, &self.prefix);
        let standing = standing(session, &planned, self.existing).await?;
        plan::decide(&mut planned, &standing, self.existing, !self.no_promote);
        drop(standing);
        let rows = match self.dry_run {
            true => planned.iter().map(foreseen).collect(),
            false => self.carry_out(session, &planned).await,
        };
        let code = rows.iter().map(|row| row.code).find(|code| *code != 0).unwrap_or(0);
        Failure::verdict(code, show(&rows, self.dry_run, session.json))
    }

    /// One after the other. Once the server is away the rest is not tried.
    async fn carry_out(&self, session: &Session, planned: &[Planned]) -> Vec<Row> {
        let mut rows = Vec::with_capacity(planned.len());
        let mut is_away = false;
        for it in planned {
            let row = match (&it.id, &it.step) {
                (Some(_), Step::Create | Step::Change { .. }) if is_away => {
                    row(it, "untried", Some("the server is away".into()), Code::Unavailable as u8)
                }
                (Some(id), Step::Create | Step::Change { .. }) => match self.put(session, id, it).await {
                    Ok((what, version)) => Row { version: Some(version), ..row(it, what, None, 0) },
                    Err(error) => {
                        let failure = Failure::client(error, Some(id.as_str()));
                        is_away = failure.code == Code::Unavailable;
                        row(it, "failed", Some(failure.what().to_owned()), failure.code as u8)
                    }
                },
                _ => Row { what: if matches!(it.step, Step::Leave(_)) { "left" } else { "refused" }, ..foreseen(it) },
            };
            rows.push(row);
        }
        rows
    }

    async fn put(&self, session: &Session, id: &KeyId, it: &Planned) -> Result<(&'static str, String), Error> {
        let Ok(value) = &it.entry.value else { return Err(Error::Malformed("there is no value".to_owned())) };
        let Entry { description, labels, expires, .. } = &it.entry;
        let deposit = Deposit {
            promote: !self.no_promote,
            expires: expires.clone(),
            description: description.clone(),
            labels: labels.clone(),
            ..Deposit::default()
        };
        match &it.step {
            Step::Change { etag } => {
                let placed = Deposit { if_match: Some(etag.clone()), ..deposit }.add(session, id, value).await?;
                Ok(("changed", placed.version))
            }
            _ => Ok(("created", created(deposit.create(session, id, value).await?).version)),
        }
    }
}

fn row(it: &Planned, what: &'static str, why: Option<String>, code: u8) -> Row {
    Row { key: it.name.clone(), what, version: None, why, code }
}

fn foreseen(it: &Planned) -> Row {
    match &it.step {
        Step::Create => row(it, "create", None, 0),
        Step::Change { .. } => row(it, "change", None, 0),
        Step::Leave(why) => row(it, "leave", Some((*why).to_owned()), 0),
        Step::Refuse { code, why } => row(it, "refuse", Some(why.clone()), *code as u8),
    }
}

fn show(rows: &[Row], dry_run: bool, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&serde_json::json!({ "dry_run": dry_run, "keys": rows }));
    }
    let mut table = Table::new(&["KEY", if dry_run { "WOULD" } else { "DONE" }, "WHY"]);
    for Row { key, what, why, .. } in rows {
        table.row([key.as_str(), what, why.as_deref().unwrap_or_default()]);
    }
    table.print()
}

/// What the keys hold already. A value is read only to be compared.
async fn standing(session: &Session, planned: &[Planned], existing: Existing) -> Result<HashMap<KeyId, Standing>, Failure> {
    let ids: Vec<KeyId> = planned.iter().filter_map(|it| it.id.clone()).collect();
    let mut found = HashMap::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        let read = session.client.bulk_read(some, None).await.map_err(|e| Failure::client(e, None))?;
        for (id, item) in some.iter().zip(read.items) {
            let standing = match item.outcome {
                Ok(secret) => Standing::Present(present(secret)),
                Err(code) => without_value(session, id, &code).await?,
            };
            found.insert(id.clone(), standing);
        }
    }
    if existing == Existing::Update {
        learn_rights(session, planned, &mut found).await?;
    }
    Ok(found)
}

fn present(secret: Secret) -> Present {
    let Secret { etag, versions, .. } = secret;
    let (primary, others): (Vec<_>, Vec<_>) = versions.into_iter().partition(|v| v.state == "primary");
    let values = |versions: Vec<claviger_client::SecretVersion>| versions.into_iter().map(|v| v.data);
    Present { etag, primary: values(primary).next(), active: values(others).collect(), may_write: true }
}

async fn without_value(session: &Session, id: &KeyId, code: &str) -> Result<Standing, Failure> {
    match code_of_problem(code) {
        Code::NotFound if code == "expired" => {
            let key = session.client.key(id).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
            Ok(Standing::Present(Present { etag: key.etag, primary: None, active: Vec::new(), may_write: true }))
        }
        Code::NotFound => Ok(Standing::Missing),
        Code::Denied => Ok(Standing::Opaque("it exists, and you may not read it to compare")),
        _ => {
            Err(Failure::new(code_of_problem(code), format!("`{id}` could not be looked at: {code}"))
                .next("nothing was imported; try again"))
        }
    }
}

/// Of those that would be changed, whether they may be: so that a dry run can tell.
async fn learn_rights(session: &Session, planned: &[Planned], found: &mut HashMap<KeyId, Standing>) -> Result<(), Failure> {
    for it in planned {
        let (Some(id), Ok(value)) = (&it.id, &it.entry.value) else { continue };
        let Some(Standing::Present(present)) = found.get_mut(id) else { continue };
        if present.primary.as_ref().is_some_and(|primary| primary.expose() == value.expose()) {
            continue;
        }
        let key = session.client.key(id).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        present.may_write = key.allowed.iter().any(|right| right == "write");
    }
    Ok(())
}
