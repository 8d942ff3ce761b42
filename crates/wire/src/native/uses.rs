//! Requests and answers about keys that are used, not read. Each does one or many things with one key.

use super::ResultItem;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// Shows a request by the number of its items: they hold what is to be kept secret, or could.
macro_rules! counted {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} items)", stringify!($name), self.items.len())
            }
        }
    )*};
}
counted!(Encrypt<'_>, Decrypt, Sign, Verify, Hmac, MakeDataKeys, UseAnswer);

/// A request to encrypt.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Encrypt<'a> {
    /// 1 to 1,000.
    #[serde(borrow)]
    pub items: Vec<EncryptItem<'a>>,
}

/// Something to be encrypted.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptItem<'a> {
    /// Base64. Where it is read it stays in the request's buffer, of which it is most: a copy more would be one more to wipe.
    #[serde(borrow)]
    pub plaintext: Cow<'a, str>,
    /// Base64 of what the ciphertext is bound to, and must be given again to decrypt it; a convergent key needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<String>,
}

/// A request to decrypt, or to rewrap.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decrypt {
    /// 1 to 1,000.
    pub items: Vec<DecryptItem>,
}

/// Something to be decrypted or rewrapped.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecryptItem {
    /// Base64.
    pub ciphertext: String,
    /// Base64 of what it was bound to; of bare OAEP that was made elsewhere for an `rsa` key the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<String>,
    /// The version that it was encrypted with. It is named by what is encrypted here; bare OAEP that was made elsewhere for an `rsa`
    /// key does not name it, and then those that are primary or active are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A request to sign.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// 1 to 1,000.
    pub items: Vec<SignItem>,
    /// For `rsa`: sha-256 (unless given), sha-384 or sha-512. The curves have one each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// For `rsa`: pss (unless given) or pkcs1v15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<String>,
    /// For `ecdsa-p256` and `ecdsa-p384`: der (unless given) or raw, which is r and s one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

/// Something to be signed: `message` or `digest`.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignItem {
    /// Base64 of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Base64 of its digest by the hash; not for `ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A request to check signatures or message authentication codes.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// 1 to 1,000.
    pub items: Vec<VerifyItem>,
    /// As for signing; for `hmac` as there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// As for signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<String>,
    /// As for signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

/// Something to be checked: `message` or `digest`, and the signature.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyItem {
    /// Base64 of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Base64 of its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Base64 of the signature or message authentication code.
    pub signature: String,
    /// The version that made it; unless given, those that are primary or active are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A request for message authentication codes.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// 1 to 1,000.
    pub items: Vec<HmacItem>,
    /// sha-256 (unless given), sha-384 or sha-512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Something to be authenticated.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacItem {
    /// Base64.
    pub message: String,
}

/// A request for data keys.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeDataKeys {
    /// 1 to 1,000.
    pub items: Vec<DataKeyItem>,
    /// Whether only the wrapped keys are given back, for others who may unwrap them.
    #[serde(default)]
    pub wrapped_only: bool,
}

/// A data key to be made.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataKeyItem {
    /// 16, 32 (unless given) or 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u16>,
    /// Base64 of what the wrapped key is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<String>,
}

/// What came of each item, in the order of the request. Where there was one item and it was refused, the whole answer is
/// its problem.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct UseAnswer {
    /// One per item.
    pub items: Vec<ResultItem>,
}

/// A key's public halves.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicKeys {
    /// The key.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Of the primary and active versions, oldest first.
    pub keys: Vec<PublicVersion>,
}

/// A version's public half.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicVersion {
    /// Decimal id.
    pub version: String,
    /// primary or active.
    pub state: String,
    /// A SubjectPublicKeyInfo as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
    /// The same as a JSON Web Key; its `kid` is the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwk: Option<BTreeMap<String, String>>,
    /// Of a `tink` key: base64 of a keyset of public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyset: Option<String>,
}

/// An exported version's material.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ExportedKey {
    /// The key.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Decimal id of the version.
    pub version: String,
    /// Base64: the bytes themselves for `aes256-gcm` and `hmac`, PKCS#8 in DER for those with a public half, a keyset for `tink`.
    pub material: String,
}

impl fmt::Debug for ExportedKey {
    /// Without the material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedKey").field("id", &self.id).field("version", &self.version).finish_non_exhaustive()
    }
}

/// The public key that imported material is wrapped to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportKey {
    /// Which barrier key it comes from: it is replaced when that is rotated, and older ones go on working.
    pub barrier_version: u32,
    /// A SubjectPublicKeyInfo of the curve P-256 as PEM.
    pub pem: String,
    /// What is signed: the lines `claviger import key 1`, `barrier` and the version, `created` and the time in seconds of
    /// Unix, and the SubjectPublicKeyInfo in base64.
    pub statement: String,
    /// Base64 of the audit log's signature of the statement (Ed25519): who knows the log's public key knows that this is the
    /// public key of no stranger.
    pub signature: String,
}
