//! `claviger data-key`: a key to encrypt with elsewhere.

use super::{aad, print, text};
use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use clap::Args;
use claviger_client::Using;
use claviger_domain::KeyId;
use claviger_wire::native::{DataKeyItem, MakeDataKeys};

/// Make a data key to encrypt with elsewhere, in the clear and wrapped with a key; `claviger decrypt` unwraps it.
#[derive(Args)]
pub(crate) struct DataKey {
    /// The key that wraps it.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// Its length: 16, 32 or 64.
    #[arg(long, value_name = "N", default_value = "32")]
    bytes: u16,
    /// What the wrapped key is bound to: it must be given again to unwrap it.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// Only the wrapped key, for others who may unwrap it.
    #[arg(long)]
    wrapped_only: bool,
}

impl DataKey {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, bytes, context, wrapped_only } = self;
        let body = MakeDataKeys { items: vec![DataKeyItem { bytes: Some(bytes), aad: aad(context.as_bytes()) }], wrapped_only };
        let made = session.client.use_key(&id, Using::DataKey, &body).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        print(session, &made, |item| {
            if !wrapped_only {
                output::line(&format!("plaintext   {}", text(item.plaintext.as_ref())?))?;
            }
            output::line(&format!("ciphertext  {}", text(item.ciphertext.as_ref())?))
        })
    }
}
