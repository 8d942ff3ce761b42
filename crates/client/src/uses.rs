//! Keys that are used, not read, through the native API.

use crate::Client;
use crate::error::Error;
use crate::request::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::{KeyId, VersionId};
use claviger_wire::native as wire;
use serde::Serialize;

/// One of the operations that take a body of items and answer with an item for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Using {
    /// Encrypt.
    Encrypt,
    /// Decrypt.
    Decrypt,
    /// Move to the primary version.
    Rewrap,
    /// Make data keys.
    DataKey,
    /// Sign.
    Sign,
    /// Make message authentication codes.
    Hmac,
    /// Check signatures and codes.
    Verify,
}

impl Using {
    fn path(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Rewrap => "rewrap",
            Self::DataKey => "data-key",
            Self::Sign => "sign",
            Self::Hmac => "hmac",
            Self::Verify => "verify",
        }
    }
}

impl Client {
    /// Uses a key. `body` is the operation's request: [`wire::Encrypt`], [`wire::Decrypt`], [`wire::MakeDataKeys`],
    /// [`wire::Sign`], [`wire::Hmac`] or [`wire::Verify`]. Plaintexts are in the answer as they came, in base64: whoever gets
    /// them wipes them.
    ///
    /// # Errors
    /// [`Error`]; each item has its own beside that, unless it is the only one.
    pub async fn use_key(&self, id: &KeyId, using: Using, body: &impl Serialize) -> Result<wire::UseAnswer, Error> {
        self.call(Request::new("POST", format!("/api/v1/keys/{id}/-/{}", using.path())).json(body)).await?.json()
    }

    /// The public halves of a key's primary and active versions.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn public_keys(&self, id: &KeyId) -> Result<wire::PublicKeys, Error> {
        self.call(Request::new("GET", format!("/api/v1/keys/{id}/-/public"))).await?.json()
    }

    /// The material of a version, of the primary one unless another is named, out of a key that was made exportable.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn export_key(&self, id: &KeyId, version: Option<VersionId>) -> Result<wire::ExportedKey, Error> {
        let query = version.map_or_else(String::new, |version| format!("?version={version}"));
        self.call(Request::new("POST", format!("/api/v1/keys/{id}/-/export{query}"))).await?.json()
    }

    /// The public key that imported material is wrapped to.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn import_key(&self) -> Result<wire::ImportKey, Error> {
        self.call(Request::new("GET", "/api/v1/import-key")).await?.json()
    }

    /// Adds a version of a used key that was made elsewhere and wrapped.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn import_version(&self, id: &KeyId, wrapped: &[u8], promote: bool) -> Result<wire::Changed, Error> {
        let body = wire::AddVersion { data: None, wrapped: Some(STANDARD.encode(wrapped)), expires: None, promote };
        self.call(Request::new("POST", format!("/api/v1/keys/{id}/-/versions")).json(&body)).await?.json()
    }
}
