//! `claviger rewrap`: to a key's primary version, without seeing the plaintext.

use super::{Batch, Input, Sealed, base64_of, halt, of_file, one, only, print, put, text, written};
use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::new_file::Halt;
use crate::{output, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_crypto::sealed_file::{self, FileHead};
use claviger_domain::KeyId;
use claviger_wire::native::{Decrypt as Request, DecryptItem};
use std::io::Read;
use std::path::PathBuf;

/// Move ciphertexts to a key's primary version, so that older ones can be deactivated. Nobody sees a plaintext.
///
/// It takes the right to encrypt. Of a file of `encrypt --out` only the wrapped data key is made anew; the rest is copied.
#[derive(Args)]
pub(crate) struct Rewrap {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    input: Input,
    /// What it was bound to when it was encrypted; it stays bound to that.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// Write what was rewrapped into FILE; it may be the one that is read.
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    out: Option<PathBuf>,
}

impl Rewrap {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let items = match self.input.sealed(&self.context, None)? {
            Sealed::File(from) => return self.file(session, from).await,
            Sealed::Texts(items) => items,
        };
        let batch = Batch { session, id: &self.id, using: Using::Rewrap };
        let answer = batch.ask(items, |item| item.ciphertext.len(), |items| Request { items }).await?;
        if let Some(out) = &self.out {
            return put(session, &answer, out, format!("{}\n", text(only(&answer)?.ciphertext.as_ref())?).as_bytes());
        }
        print(session, &answer, |item| output::line(text(item.ciphertext.as_ref())?))
    }

    async fn file(&self, session: &Session, mut from: impl Read) -> Result<u8, Failure> {
        let Some(out) = &self.out else { return Err(Failure::usage("this is an encrypted file: say with --out where to write it")) };
        let head = FileHead::read_rest(&mut from).map_err(of_file)?;
        if head.key != self.id {
            return Err(Failure::new(Code::Invalid, format!("the file was encrypted with the key {}, not with {}", head.key, self.id)));
        }
        let aad = Some(STANDARD.encode(sealed_file::bound_to(self.context.as_bytes())));
        let body = Request { items: vec![DecryptItem { ciphertext: STANDARD.encode(&head.wrapped), aad, version: None }] };
        let moved = one(session, &self.id, Using::Rewrap, &body).await?;
        let wrapped = base64_of(text(moved.ciphertext.as_ref())?.as_bytes(), "the server's wrapped key")?.to_vec();
        written(out, |mut to| {
            FileHead { wrapped, ..head }.write(&mut to).map_err(halt)?;
            std::io::copy(&mut from, &mut to).map(drop).map_err(|e| Halt::Failed(Failure::other(format!("copying: {e}"))))
        })?;
        if session.json {
            eprintln!("{}", serde_json::json!({ "version": moved.version }));
        }
        Ok(0)
    }
}
