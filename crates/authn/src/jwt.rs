//! JSON Web Tokens as a provider signs them (RFC 7515, 7518, 7519, with the advice of RFC 8725): from bytes to claims whose
//! signature is right. What the claims must say is not decided here.
//!
//! Own code over the one crypto provider, because what matters is what it cannot do: there is no algorithm without a
//! signature, none with a shared secret, and no key that comes with the token.

use crate::jwks::KeySet;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_domain::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// Bytes that a token has at most.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Seconds since 1970 beyond which no token speaks of a time: the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// How a token may be signed. `none` and the `HS` family are not here, so no token can choose them ▲.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Rs256, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];

    /// The name in a token's header (RFC 7518 §3.1, RFC 8037 §3.1).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// What is wrong with a token. The texts hold nothing that the token's maker chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JwtError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Not three parts of base64url with JSON objects in the first two.
    #[error("the token is malformed")]
    Malformed,
    /// Five parts.
    #[error("the token is encrypted, which is not understood")]
    Encrypted,
    /// An algorithm that no issuer may use: `none`, `HS256`, or an unknown one.
    #[error("the token's signature algorithm is not accepted")]
    Algorithm,
    /// The header has members that must be understood, or says that the token is of another kind.
    #[error("the token's header says that it is no ID token")]
    OtherKind,
    /// The key set has no key of that name for that algorithm.
    #[error("the token is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// No key name, and several keys would do.
    #[error("the token names no key, and the issuer has several")]
    NoKeyName,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
}

/// A token whose form is right. It proves nothing yet, and shows no claims.
pub struct Unverified<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    signed: &'a [u8],
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

/// The header's members that are looked at. A key that comes with the token (`jwk`, `jku`, `x5c`, `x5u`) is not.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    cty: Option<Value>,
    crit: Option<Value>,
}

/// The claims of a token whose signature is right. Who may claim what is not decided yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl<'a> Unverified<'a> {
    /// Reads a token in its compact form.
    ///
    /// # Errors
    /// [`JwtError`] says which rule of form it breaks.
    pub fn parse(token: &'a [u8]) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN {
            return Err(JwtError::TooLong);
        }
        let parts: Vec<_> = token.splitn(6, |b| *b == b'.').collect();
        let [header, claims, signature] = match parts[..] {
            [header, claims, signature] => [header, claims, signature],
            [_, _, _, _, _] => return Err(JwtError::Encrypted),
            _ => return Err(JwtError::Malformed),
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
        let algorithm = Algorithm::from_name(&header.alg).ok_or(JwtError::Algorithm)?;
        let is_id_token = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
        if header.crit.is_some() || header.cty.is_some() || !is_id_token {
            return Err(JwtError::OtherKind);
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Malformed)?;
        Ok(Self { algorithm, kid: header.kid, signed, signature: decode(signature)?, claims })
    }

    /// The algorithm that the header names.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that the header names.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What the signature is over: header and claims as they came. By this a token is known again: an ECDSA signature has a
    /// second form that verifies as well and that everybody can make, so the whole text is not one for one token.
    #[must_use]
    pub fn signed(&self) -> &'a [u8] {
        self.signed
    }

    /// The claims, if one of `keys` made the signature and `allowed` has its algorithm.
    ///
    /// # Errors
    /// [`JwtError::Algorithm`], [`JwtError::UnknownKey`], [`JwtError::NoKeyName`] or [`JwtError::Signature`].
    pub fn verify(self, keys: &KeySet, allowed: &[Algorithm]) -> Result<Claims, JwtError> {
        if !allowed.contains(&self.algorithm) {
            return Err(JwtError::Algorithm);
        }
        let candidates = keys.candidates(self.kid.as_deref(), self.algorithm)?;
        let is_signed = candidates.iter().any(|key| key.verifies(self.algorithm, self.signed, &self.signature));
        if is_signed { Ok(Claims(self.claims)) } else { Err(JwtError::Signature) }
    }
}

impl Claims {
    /// A claim; nested ones by the path of their members' names.
    pub(crate) fn at<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(first.as_ref())?, |value, name| value.get(name.as_ref()))
    }

    /// A claim that is there and is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim that is there and is a moment (RFC 7519 §2, NumericDate): whole seconds, fractions cut off.
    pub(crate) fn moment(&self, name: &str) -> Option<Timestamp> {
        let seconds = self.0.get(name)?.as_f64()?;
        if !(0.0..=LAST_SECOND).contains(&seconds) {
            return None;
        }
        (seconds as i64).checked_mul(1_000_000_000).map(Timestamp)
    }

    /// Whether the claim is there, whatever it is.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Base64url without padding, and with nothing in the bits that are left over: one text for one value.
fn decode(part: &[u8]) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)
}
