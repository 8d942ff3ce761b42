//! `claviger sign`: with a key that nobody sees.

use super::{Batch, Input, base64_of, only, print, put, text};
use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::{output, parse};
use aws_lc_rs::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_domain::{KeyId, KeyKind};
use claviger_wire::native::{Sign as Request, SignItem};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// How a signature is made.
#[derive(Args, Clone)]
pub(super) struct SchemeOptions {
    /// The hash of an rsa key's signature: sha-256 (unless given), sha-384 or sha-512.
    #[arg(long)]
    pub(super) hash: Option<String>,
    /// The padding of an rsa key's signature: pss (unless given) or pkcs1v15.
    #[arg(long)]
    pub(super) padding: Option<String>,
    /// The form of an ECDSA signature: der (unless given) or raw.
    #[arg(long)]
    pub(super) form: Option<String>,
}

/// Sign with a key.
///
/// What is signed comes from standard input or the file of --in, and the signature is printed in base64. For ecdsa and rsa keys
/// only its digest is sent, so that a file of any length can be signed.
#[derive(Args)]
pub(crate) struct Sign {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    scheme: SchemeOptions,
    /// Write the signature itself into FILE instead.
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    out: Option<PathBuf>,
}

impl Sign {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, input, scheme, out } = self;
        let items = items(session, &id, &input, &scheme).await?;
        let items: Vec<_> = items.into_iter().map(|(message, digest)| SignItem { message, digest }).collect();
        let batch = Batch { session, id: &id, using: Using::Sign };
        let size = |item: &SignItem| item.message.as_ref().map_or(0, String::len) + item.digest.as_ref().map_or(0, String::len);
        let body = |items| {
            let SchemeOptions { hash, padding, form } = scheme.clone();
            Request { items, hash, padding, form }
        };
        let answer = batch.ask(items, size, body).await?;
        if let Some(out) = &out {
            let signature = base64_of(text(only(&answer)?.signature.as_ref())?.as_bytes(), "the server's signature")?;
            return put(session, &answer, out, &signature);
        }
        print(session, &answer, |item| output::line(text(item.signature.as_ref())?))
    }
}

/// Each item as message or as digest, in base64.
pub(super) async fn items(
    session: &Session,
    id: &KeyId,
    input: &Input,
    scheme: &SchemeOptions,
) -> Result<Vec<(Option<String>, Option<String>)>, Failure> {
    let key = session.client.key(id).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
    let Some(algorithm) = hash_of(KeyKind::from_name(&key.kind), scheme.hash.as_deref()) else {
        let whole = |item: Zeroizing<Vec<u8>>| (Some(STANDARD.encode(&*item)), None);
        return Ok(input.items()?.into_iter().map(whole).collect());
    };
    if input.lines {
        let digest = |item: Zeroizing<Vec<u8>>| (None, Some(STANDARD.encode(aws_lc_rs::digest::digest(algorithm, &item))));
        return Ok(input.items()?.into_iter().map(digest).collect());
    }
    let (mut from, name) = input.open()?;
    let mut context = Context::new(algorithm);
    let mut buffer = Zeroizing::new(vec![0; 64 << 10]);
    loop {
        match from.read(&mut buffer).map_err(|e| Failure::new(Code::Other, format!("reading {name}: {e}")))? {
            0 => return Ok(vec![(None, Some(STANDARD.encode(context.finish())))]),
            n => context.update(&buffer[..n]),
        }
    }
}

/// The hash that can be computed here. A name that is none is the server's to refuse.
fn hash_of(kind: Option<KeyKind>, hash: Option<&str>) -> Option<&'static Algorithm> {
    match (kind?, hash) {
        (KeyKind::EcdsaP256, _) | (KeyKind::Rsa, None | Some("sha-256")) => Some(&SHA256),
        (KeyKind::EcdsaP384, _) | (KeyKind::Rsa, Some("sha-384")) => Some(&SHA384),
        (KeyKind::Rsa, Some("sha-512")) => Some(&SHA512),
        _ => None,
    }
}
