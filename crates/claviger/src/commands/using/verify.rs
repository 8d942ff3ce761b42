//! `claviger verify`: signatures and message authentication codes.

use super::sign::{SchemeOptions, items};
use super::{Batch, Input, base64_of};
use crate::ask::read_all;
use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_domain::{KeyId, VersionId};
use claviger_wire::native::{Verify as Request, VerifyItem};
use std::path::PathBuf;

/// Check a signature or message authentication code; exits with 1 when it does not hold.
#[derive(Args)]
pub(crate) struct Verify {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// The signature in base64.
    #[arg(long, value_name = "BASE64", required_unless_present = "signature_file")]
    signature: Option<String>,
    /// A file with the signature itself, as `sign --out` writes it.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    signature_file: Option<PathBuf>,
    /// Read what was signed from FILE instead of standard input.
    #[arg(long = "in", value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    scheme: SchemeOptions,
    /// The version that made it; unless given, the primary and active ones are tried.
    #[arg(long, value_name = "VERSION", value_parser = parse::version_id)]
    version: Option<VersionId>,
}

impl Verify {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, signature, signature_file, from, scheme, version } = self;
        let signature = match (signature, signature_file) {
            (Some(text), _) => base64_of(text.as_bytes(), "--signature")?,
            (None, Some(path)) => {
                let shown = path.display().to_string();
                let file = std::fs::File::open(&path).map_err(|e| Failure::usage(format!("cannot read {shown}: {e}")))?;
                read_all(file, &shown)?
            }
            (None, None) => return Err(Failure::usage("give --signature or --signature-file")),
        };
        let signature = STANDARD.encode(&*signature);
        let given = items(session, &id, &Input { from, lines: false }, &scheme).await?;
        let item =
            |(message, digest)| VerifyItem { message, digest, signature: signature.clone(), version: version.map(|v| v.to_string()) };
        let SchemeOptions { hash, padding, form } = scheme;
        let batch = Batch { session, id: &id, using: Using::Verify };
        let body = |items| Request { items, hash: hash.clone(), padding: padding.clone(), form: form.clone() };
        let answer = batch.ask(given.into_iter().map(item).collect(), |_| 0, body).await?;
        let found = answer.items.first().and_then(|item| item.valid.map(|valid| (valid, item.version.clone())));
        let Some((valid, by)) = found else { return Err(Failure::other("the server's answer has not what was asked for")) };
        let shown = match (session.json, valid) {
            (true, _) => output::json(&answer),
            (false, true) => output::line(&format!("good: signed by version {} of {id}", by.unwrap_or_default())),
            (false, false) => output::line(&format!("bad: no version of {id} that is in use made this signature of this")),
        };
        Failure::verdict(u8::from(!valid), shown)
    }
}
