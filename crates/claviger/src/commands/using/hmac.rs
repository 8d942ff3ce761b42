//! `claviger hmac`: message authentication codes.

use super::{Batch, Input, print, text};
use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_domain::KeyId;
use claviger_wire::native::{Hmac as Request, HmacItem};

/// Make a message authentication code with a key, in base64; `claviger verify` checks it.
#[derive(Args)]
pub(crate) struct Hmac {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    input: Input,
    /// The hash: sha-256 (unless given), sha-384 or sha-512.
    #[arg(long)]
    hash: Option<String>,
}

impl Hmac {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, input, hash } = self;
        let items = input.items()?.iter().map(|item| HmacItem { message: STANDARD.encode(&**item) }).collect();
        let batch = Batch { session, id: &id, using: Using::Hmac };
        let answer = batch.ask(items, |item: &HmacItem| item.message.len(), |items| Request { items, hash: hash.clone() }).await?;
        print(session, &answer, |item| output::line(text(item.signature.as_ref())?))
    }
}
