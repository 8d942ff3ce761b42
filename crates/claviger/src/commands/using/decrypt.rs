//! `claviger decrypt`: what `claviger encrypt` made.

use super::{Batch, Input, Sealed, base64_of, halt, of_file, one, only, print, put, text, written};
use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::{output, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_crypto::sealed_file::{self, FileHead};
use claviger_domain::{KeyId, SecretBytes, VersionId};
use claviger_wire::native::{Decrypt as Request, DecryptItem, ResultItem};
use std::io::Read;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Decrypt what `claviger encrypt` made, in either form.
///
/// A file of `encrypt --out` is decrypted here, as a stream: into --out, which is written only if the whole file is good, or to
/// standard output, where the exit code says whether it was.
#[derive(Args)]
pub(crate) struct Decrypt {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    input: Input,
    /// What it was bound to when it was encrypted; of an rsa key OAEP's label.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// The version, of what was encrypted outside with an rsa key's public half: such ciphertexts do not name it.
    #[arg(long, value_name = "VERSION", value_parser = parse::version_id)]
    version: Option<VersionId>,
    /// Write the plaintext into FILE; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    out: Option<PathBuf>,
}

impl Decrypt {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.input.sealed(&self.context, self.version)? {
            Sealed::File(from) => self.stream(session, from).await,
            Sealed::Texts(items) => self.texts(session, items).await,
        }
    }

    async fn texts(&self, session: &Session, items: Vec<DecryptItem>) -> Result<u8, Failure> {
        let batch = Batch { session, id: &self.id, using: Using::Decrypt };
        let answer = batch.ask(items, |item| item.ciphertext.len(), |items| Request { items }).await?;
        let plain = |item: &ResultItem| base64_of(text(item.plaintext.as_ref())?.as_bytes(), "the server's plaintext");
        if let Some(out) = &self.out {
            return put(session, &answer, out, &plain(only(&answer)?)?);
        }
        let end: &[u8] = if self.input.lines { b"\n" } else { b"" };
        print(session, &answer, |item| output::raw(&Zeroizing::new([&plain(item)?[..], end].concat())))
    }

    async fn stream(&self, session: &Session, mut from: impl Read) -> Result<u8, Failure> {
        let head = FileHead::read_rest(&mut from).map_err(of_file)?;
        if head.key != self.id {
            let why = format!("the file was encrypted with the key {}, not with {}", head.key, self.id);
            return Err(Failure::new(Code::Invalid, why).next(format!("claviger decrypt {} …", head.key)));
        }
        let aad = Some(STANDARD.encode(sealed_file::bound_to(self.context.as_bytes())));
        let body = Request { items: vec![DecryptItem { ciphertext: STANDARD.encode(&head.wrapped), aad, version: None }] };
        let item = one(session, &self.id, Using::Decrypt, &body).await?;
        let mut plain = base64_of(text(item.plaintext.as_ref())?.as_bytes(), "the server's data key")?;
        let data_key = SecretBytes::new(std::mem::take(&mut *plain));
        let out = self.out.clone().unwrap_or_else(|| "-".into());
        let bytes = written(&out, |mut to| sealed_file::decrypt(&data_key, &mut from, &mut to).map_err(halt))?;
        if session.json {
            // Standard output may be the plaintext.
            eprintln!("{}", serde_json::json!({ "bytes": bytes, "version": item.version }));
        }
        Ok(0)
    }
}
