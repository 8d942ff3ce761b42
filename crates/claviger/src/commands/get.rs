//! `claviger get`: a secret's value on standard output, or in a file.

use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::{new_file, output, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::{Secret, SecretVersion, Which};
use claviger_domain::{KeyId, VersionId};
use rustix::termios::isatty;
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Options of `get`.
#[derive(Args)]
pub(crate) struct Get {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// This version instead of the primary one.
    #[arg(long, value_name = "VERSION", value_parser = parse::version_id, conflicts_with = "all")]
    version: Option<VersionId>,
    /// All versions that are not destroyed, one per line: version, state, value in base64.
    #[arg(long, conflicts_with = "output")]
    all: bool,
    /// Write the value to FILE (mode 0600), which is replaced as a whole.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A secret as `--json` shows it: the same members as the API's.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    etag: &'a str,
    revision: String,
    versions: Vec<ShownVersion<'a>>,
}

#[derive(Serialize)]
struct ShownVersion<'a> {
    id: &'a str,
    state: &'a str,
    created: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<&'a str>,
    data: Base64,
}

/// A value in base64, wiped when dropped.
struct Base64(Zeroizing<String>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Get {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let which = match (self.version, self.all) {
            (Some(version), _) => Which::Version(version),
            (None, true) => Which::All,
            (None, false) => Which::Primary,
        };
        let read = session.client.read(&self.id, &which, None).await;
        let secret = read.map_err(|e| Failure::client(e, Some(self.id.as_str())))?;
        match &self.output {
            Some(path) => {
                let version = the_one(&secret)?;
                new_file::replace(path, version.data.expose())?;
                if session.json {
                    output::json(&serde_json::json!({ "id": secret.id, "version": version.id, "state": version.state, "output": path }))?;
                }
            }
            None => print(&secret, session.json, self.all)?,
        }
        Ok(0)
    }
}

/// A secret on standard output: as JSON, all its versions, or the value of the first one.
pub(crate) fn print(secret: &Secret, json: bool, all: bool) -> Result<(), Failure> {
    match (json, all) {
        (true, _) => show_json(secret),
        (_, true) => show_all(secret),
        _ => show(the_one(secret)?),
    }
}

fn the_one(secret: &Secret) -> Result<&SecretVersion, Failure> {
    let none = || Failure::new(Code::NotFound, format!("`{}` has no such version that is given out", secret.id));
    secret
        .versions
        .first()
        .ok_or_else(|| none().next(format!("`claviger versions {}` says which there are and which have expired", secret.id)))
}

/// The value as it is. A terminal gets a line break after it, so that the prompt stands on its own line.
fn show(version: &SecretVersion) -> Result<(), Failure> {
    output::raw(version.data.expose())?;
    if isatty(io::stdout()) { output::raw(b"\n") } else { Ok(()) }
}

fn show_all(secret: &Secret) -> Result<(), Failure> {
    for version in &secret.versions {
        let data = Zeroizing::new(STANDARD.encode(version.data.expose()));
        let line = Zeroizing::new(format!("{}\t{}\t{}\n", version.id, version.state, *data));
        output::raw(line.as_bytes())?;
    }
    Ok(())
}

fn show_json(secret: &Secret) -> Result<(), Failure> {
    fn version(v: &SecretVersion) -> ShownVersion<'_> {
        let SecretVersion { id, state, created, expires, data } = v;
        ShownVersion { id, state, created, expires: expires.as_deref(), data: Base64(Zeroizing::new(STANDARD.encode(data.expose()))) }
    }
    let Secret { id, etag, revision, versions, .. } = secret;
    output::json(&Shown { id, etag, revision: revision.to_string(), versions: versions.iter().map(version).collect() })
}
