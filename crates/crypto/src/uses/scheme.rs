//! How a message is signed or authenticated: what a caller may choose.

use super::UseError;
use aws_lc_rs::{digest, hmac};
use claviger_domain::SecretBytes;

/// A hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The padding of an RSA signature (RFC 8017 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// RSASSA-PSS, the salt as long as the hash.
    Pss,
    /// RSASSA-PKCS1-v1_5.
    Pkcs1v15,
}

/// The form of an ECDSA signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An ASN.1 sequence of r and s in DER, as OpenSSL and X.509 have it.
    Der,
    /// r and s, each as long as the curve's order, as JWS and WebCrypto have it (IEEE P1363).
    Raw,
}

/// What a caller chose; what he did not is as it usually is for the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheme {
    /// The hash: for `rsa` and `hmac`, SHA-256 unless given. The curves have one each.
    pub hash: Option<Hash>,
    /// For `rsa`; PSS unless given.
    pub padding: Option<Padding>,
    /// For ECDSA; DER unless given.
    pub form: Option<Form>,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// The message itself.
    Whole(&'a [u8]),
    /// Its digest by the scheme's hash.
    Digest(&'a [u8]),
}

impl Hash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in the native API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// The hash of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// A digest that was computed elsewhere.
    pub(super) fn import(self, bytes: &[u8]) -> Result<digest::Digest, UseError> {
        let wrong = |_| UseError::Digest { hash: self.name(), bytes: self.algorithm().output_len() };
        digest::Digest::import_less_safe(bytes, self.algorithm()).map_err(wrong)
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

impl Padding {
    /// The padding of this name: `pss` or `pkcs1v15`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pss" => Some(Self::Pss),
            "pkcs1v15" => Some(Self::Pkcs1v15),
            _ => None,
        }
    }
}

impl Form {
    /// The form of this name: `der` or `raw`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "der" => Some(Self::Der),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }
}

pub(super) fn mac(hash: Hash, key: &SecretBytes, message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash.hmac(), key.expose()), message).as_ref().to_vec()
}

/// Compares in constant time, and whole tags only.
pub(super) fn mac_is(hash: Hash, key: &SecretBytes, message: &[u8], tag: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hash.hmac(), key.expose()), message, tag).is_ok()
}
