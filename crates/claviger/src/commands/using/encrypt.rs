//! `claviger encrypt`: with a key that nobody sees.

use super::{Batch, Input, aad, base64_of, halt, one, print, text, written};
use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_crypto::sealed_file::{self, FileHead};
use claviger_domain::{KeyId, SecretBytes};
use claviger_wire::native::{DataKeyItem, Encrypt as Request, EncryptItem, MakeDataKeys};
use std::path::PathBuf;

/// Bytes of base64 from which on a server may find that a request is too large.
const LARGE: usize = 1 << 20;

/// Encrypt with a key.
///
/// Standard input, or the file of --in, is sent to the server, and its ciphertext is printed in base64. With --out it is
/// encrypted here instead, chunk by chunk under a data key of its own that the key wraps: no file has to fit into memory,
/// and the server sees nothing of it. `claviger decrypt` tells the two apart.
#[derive(Args)]
pub(crate) struct Encrypt {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    input: Input,
    /// What the ciphertext is bound to, such as the name of the row that it will stand in: it must be given again to decrypt.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// Encrypt here, as a stream, and write FILE; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    out: Option<PathBuf>,
}

impl Encrypt {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        if let Some(out) = &self.out {
            return self.stream(session, out).await;
        }
        let aad = aad(self.context.as_bytes());
        let items: Vec<_> =
            self.input.items()?.iter().map(|plain| EncryptItem { plaintext: STANDARD.encode(plain).into(), aad: aad.clone() }).collect();
        let is_large = items.iter().any(|item| item.plaintext.len() > LARGE);
        let batch = Batch { session, id: &self.id, using: Using::Encrypt };
        let answer = batch.ask(items, |item| item.plaintext.len(), |items| Request { items }).await;
        let answer = answer.map_err(|failure| match is_large {
            true => failure.also("with `--out FILE` it is encrypted here, however long it is"),
            false => failure,
        })?;
        print(session, &answer, |item| output::line(text(item.ciphertext.as_ref())?))
    }

    async fn stream(&self, session: &Session, out: &std::path::Path) -> Result<u8, Failure> {
        let (mut from, _) = self.input.open()?;
        let aad = Some(STANDARD.encode(sealed_file::bound_to(self.context.as_bytes())));
        let body = MakeDataKeys { items: vec![DataKeyItem { bytes: None, aad }], wrapped_only: false };
        let item = one(session, &self.id, Using::DataKey, &body).await?;
        let wrapped = base64_of(text(item.ciphertext.as_ref())?.as_bytes(), "the server's wrapped key")?.to_vec();
        let mut plain = base64_of(text(item.plaintext.as_ref())?.as_bytes(), "the server's data key")?;
        let data_key = SecretBytes::new(std::mem::take(&mut *plain));
        let head = FileHead { key: self.id.clone(), wrapped };
        let bytes = written(out, |mut to| {
            head.write(&mut to).map_err(halt)?;
            sealed_file::encrypt(&data_key, &mut from, &mut to).map_err(halt)
        })?;
        if session.json {
            // Standard output may be the file.
            eprintln!("{}", serde_json::json!({ "bytes": bytes, "version": item.version }));
        }
        Ok(0)
    }
}
