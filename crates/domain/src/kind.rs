//! What a key holds, and how one that is used may be used.

use crate::{Capability, VersionId};
use thiserror::Error;

/// What a key holds. Kinds other than `secret` are generated inside and used, not read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum KeyKind {
    /// Bytes that programs read.
    Secret,
    /// A keyset of Google's Tink.
    Tink,
    /// Encrypts and decrypts.
    Aes256Gcm,
    /// Makes and verifies message authentication codes.
    Hmac,
    /// Signs on the curve P-256 with SHA-256.
    EcdsaP256,
    /// Signs on the curve P-384 with SHA-384.
    EcdsaP384,
    /// Signs with Ed25519 (RFC 8032).
    Ed25519,
    /// Signs with RSA; encrypts little, and decrypts also what others encrypted to its public key.
    Rsa,
}

impl KeyKind {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 8] =
        [Self::Secret, Self::Tink, Self::Aes256Gcm, Self::Hmac, Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::Rsa];

    /// The name in the native API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Tink => "tink",
            Self::Aes256Gcm => "aes256-gcm",
            Self::Hmac => "hmac",
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The number that stands for the kind in stored rows and associated data. Numbers never change.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Secret => 1,
            Self::Tink => 2,
            Self::Aes256Gcm => 3,
            Self::Hmac => 4,
            Self::EcdsaP256 => 5,
            Self::EcdsaP384 => 6,
            Self::Ed25519 => 7,
            Self::Rsa => 8,
        }
    }

    /// The kind of a stored number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether its data is read; that of all other kinds is used inside.
    #[must_use]
    pub fn is_read(self) -> bool {
        self == Self::Secret
    }

    /// Whether it has a public half.
    #[must_use]
    pub fn is_asymmetric(self) -> bool {
        matches!(self, Self::EcdsaP256 | Self::EcdsaP384 | Self::Ed25519 | Self::Rsa)
    }

    /// Whether the use that `capability` allows is one that this kind knows.
    #[must_use]
    pub fn knows(self, capability: Capability) -> bool {
        use Capability::{Admin, Create, Decrypt, Encrypt, List, Read, Sign, Verify, Write};
        match (capability, self) {
            (List | Write | Admin | Create, _) | (_, Self::Tink) => true,
            (Read, kind) => kind.is_read(),
            (Encrypt | Decrypt, kind) => matches!(kind, Self::Aes256Gcm | Self::Rsa),
            (Sign | Verify, kind) => kind == Self::Hmac || kind.is_asymmetric(),
        }
    }
}

/// How a key may be used. All but the minimum version is fixed when it is made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyPolicy {
    /// Whether its material may leave, by an explicit export.
    pub exportable: bool,
    /// Whether the same plaintext in the same context always gives the same ciphertext.
    pub convergent: bool,
    /// The oldest version that is still used; those added before it are refused, whatever their state.
    pub min_version: Option<VersionId>,
    /// The length of an RSA modulus in bits.
    pub rsa_bits: Option<u16>,
    /// The name of the template that a `tink` key's versions are made from.
    pub template: Option<Box<str>>,
}

/// Why a policy does not fit a kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A secret has no policy: it is read.
    #[error("a secret is read, not used; this says how a key is used, and takes another kind")]
    OfSecret,
    /// Only AES keys encrypt convergently.
    #[error("only keys of the kind aes256-gcm can be convergent")]
    Convergent,
    /// An RSA key of a length that is not offered, or a length for another kind.
    #[error("an rsa key has 2048, 3072 or 4096 bits, and no other kind has a number of them")]
    RsaBits,
    /// A template for another kind than `tink`, or none for it.
    #[error("a key of the kind tink is made from a template, and no other kind is")]
    Template,
    /// There is no such version, or the primary one is older.
    #[error("the minimum version must be a version of the key, and not newer than its primary one: promote a newer one first")]
    MinVersion,
}

/// Why a version is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unusable {
    /// There is no such version of the key.
    #[error("this key has no version {0}: it was destroyed long ago, or never was")]
    Unknown(VersionId),
    /// It is inactive.
    #[error(
        "version {0} of this key is inactive, so it neither decrypts nor verifies; who may write the key can make it active again with `claviger reactivate`"
    )]
    Inactive(VersionId),
    /// It is destroyed.
    #[error("version {0} of this key was destroyed: what was made with it is lost on purpose")]
    Destroyed(VersionId),
    /// It is older than the minimum version.
    #[error(
        "version {version} of this key is older than its minimum version {minimum}, so it is not used any more; an administrator can lower that with `claviger set --min-version`"
    )]
    BelowMinimum {
        /// The version.
        version: VersionId,
        /// The minimum.
        minimum: VersionId,
    },
    /// Its lifetime has ended.
    #[error("version {0} of this key has reached the end of its lifetime; add and promote a new one")]
    Expired(VersionId),
}

impl KeyPolicy {
    /// Checks what is fixed when a key of `kind` is made.
    ///
    /// # Errors
    /// [`PolicyError`] names the rule.
    pub fn check(&self, kind: KeyKind) -> Result<(), PolicyError> {
        let Self { convergent, rsa_bits, template, exportable: _, min_version: _ } = self;
        if kind.is_read() && *self != Self::default() {
            return Err(PolicyError::OfSecret);
        }
        if *convergent && kind != KeyKind::Aes256Gcm {
            return Err(PolicyError::Convergent);
        }
        let good_bits = match rsa_bits {
            Some(bits) => kind == KeyKind::Rsa && matches!(bits, 2048 | 3072 | 4096),
            None => kind != KeyKind::Rsa,
        };
        if !good_bits {
            return Err(PolicyError::RsaBits);
        }
        if template.is_some() == (kind == KeyKind::Tink) { Ok(()) } else { Err(PolicyError::Template) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_distinct_and_read_back() {
        for (i, kind) in KeyKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), i + 1);
            assert_eq!((KeyKind::from_name(kind.name()), KeyKind::from_code(kind.code())), (Some(kind), Some(kind)));
        }
        assert_eq!((KeyKind::from_code(0), KeyKind::from_code(9), KeyKind::from_name("aes")), (None, None, None));
    }

    #[test]
    fn a_policy_fits_its_kind_only() {
        let plain = KeyPolicy::default();
        let rsa = |bits| KeyPolicy { rsa_bits: Some(bits), ..KeyPolicy::default() };
        let convergent = KeyPolicy { convergent: true, ..KeyPolicy::default() };
        let exportable = KeyPolicy { exportable: true, ..KeyPolicy::default() };
        let template = KeyPolicy { template: Some("AES256_GCM".into()), ..KeyPolicy::default() };
        let table = [
            (KeyKind::Secret, &plain, Ok(())),
            (KeyKind::Secret, &exportable, Err(PolicyError::OfSecret)),
            (KeyKind::Hmac, &exportable, Ok(())),
            (KeyKind::Aes256Gcm, &convergent, Ok(())),
            (KeyKind::Hmac, &convergent, Err(PolicyError::Convergent)),
            (KeyKind::Rsa, &plain, Err(PolicyError::RsaBits)),
            (KeyKind::Rsa, &rsa(3072), Ok(())),
            (KeyKind::Rsa, &rsa(1024), Err(PolicyError::RsaBits)),
            (KeyKind::Hmac, &rsa(3072), Err(PolicyError::RsaBits)),
            (KeyKind::Tink, &plain, Err(PolicyError::Template)),
            (KeyKind::Tink, &template, Ok(())),
            (KeyKind::Ed25519, &template, Err(PolicyError::Template)),
        ];
        for (kind, policy, answer) in table {
            assert_eq!(policy.check(kind), answer, "{kind:?} {policy:?}");
        }
    }
}
