//! A provider's public keys (RFC 7517, 7518 §6, 8037 §2): the ones that can verify a signature here. The rest of the set is
//! passed over, as RFC 7517 §5 asks.

use crate::jwt::{Algorithm, JwtError};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Bytes that a set has at most.
pub const MAX_SET: usize = 256 * 1024;
/// Keys of a set that are looked at.
const MAX_KEYS: usize = 100;
/// Keys of one name that are tried.
const MAX_TRIED: usize = 4;

/// The public keys of one issuer at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

/// Why a set is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// No JSON of that form, or too long.
    #[error("the issuer's key set is malformed")]
    Malformed,
    /// Not one key that can be used.
    #[error("the issuer's key set has no key that can verify a signature")]
    NoKey,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    kid: Option<String>,
    /// The one algorithm that it is meant for, if its issuer says so.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<Value>,
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    /// [`KeySetError`]: it is malformed or has nothing to use.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > MAX_SET {
            return Err(KeySetError::Malformed);
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let usable = set.keys.into_iter().take(MAX_KEYS).filter_map(|jwk| Key::read(serde_json::from_value(jwk).ok()?));
        let keys: Vec<_> = usable.collect();
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self(keys)) }
    }

    /// Whether a key of this name is there. Without a name any set might do.
    #[must_use]
    pub fn knows(&self, kid: Option<&str>) -> bool {
        kid.is_none_or(|kid| self.0.iter().any(|key| key.kid.as_deref() == Some(kid)))
    }

    /// The keys that may have made a signature of this algorithm. One that names no key must leave no choice.
    pub(crate) fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Vec<&Key>, JwtError> {
        let fits = |key: &&Key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid)) && key.fits(algorithm);
        let found: Vec<_> = self.0.iter().filter(fits).take(MAX_TRIED).collect();
        match (found.len(), kid) {
            (0, _) => Err(JwtError::UnknownKey),
            (2.., None) => Err(JwtError::NoKeyName),
            _ => Ok(found),
        }
    }
}

impl Key {
    /// A key that is for verifying signatures by an algorithm that we know. One whose private part is published is nobody's.
    fn read(jwk: Jwk) -> Option<Self> {
        let is_for_signatures = jwk.r#use.as_deref().is_none_or(|u| u == "sig");
        let may_verify = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures || !may_verify || jwk.d.is_some() {
            return None;
        }
        let only = match &jwk.alg {
            Some(name) => Some(Algorithm::from_name(name)?),
            None => None,
        };
        Some(Self { kid: jwk.kid.clone(), only, material: Material::read(&jwk)? })
    }

    /// Whether this key can have made a signature of this algorithm: by its kind, and by what its issuer says of it.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let by_kind = matches!(
            (&self.material, algorithm),
            (Material::Rsa { .. }, Algorithm::Rs256 | Algorithm::Ps256)
                | (Material::P256(_), Algorithm::Es256)
                | (Material::P384(_), Algorithm::Es384)
                | (Material::Ed25519(_), Algorithm::EdDsa)
        );
        by_kind && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether this key made `signature`.
    pub(crate) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                let padding = if algorithm == Algorithm::Ps256 { &RSA_PSS_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA256 };
                RsaPublicKeyComponents { n, e }.verify(padding, signed, signature).is_ok()
            }
            Material::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok(),
            Material::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature).is_ok(),
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature).is_ok(),
        }
    }
}

impl Material {
    fn read(jwk: &Jwk) -> Option<Self> {
        let bytes = |member: &Option<String>| URL_SAFE_NO_PAD.decode(member.as_deref()?).ok().filter(|b| !b.is_empty());
        // Coordinates have the curve's full length (RFC 7518 §6.2.1.2).
        let point = |length| {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (x.len() == length && y.len() == length).then(|| [&[4][..], &x, &y].concat())
        };
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => Some(Self::Rsa { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? }),
            ("EC", Some("P-256")) => point(32).map(Self::P256),
            ("EC", Some("P-384")) => point(48).map(Self::P384),
            ("OKP", Some("Ed25519")) => bytes(&jwk.x).filter(|x| x.len() == 32).map(Self::Ed25519),
            _ => None,
        }
    }
}
