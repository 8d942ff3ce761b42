//! The forms of what `aes256-gcm` and `rsa` keys encrypt. Both begin with a format and an origin, which names key and version,
//! so that whoever finds a ciphertext knows which to ask for.
//!
//! | bytes | what `aes256-gcm` makes |
//! |---|---|
//! | 1 | format: 1 |
//! | 1 | mode: 1 random, 2 convergent |
//! | 32 | origin |
//! | 32 | salt |
//! | n | ciphertext, as long as the plaintext |
//! | 16 | tag |
//!
//! | bytes | what `rsa` makes |
//! |---|---|
//! | 1 | format: 2 |
//! | 32 | origin |
//! | n | RSAES-OAEP (RFC 8017 §7.1) with SHA-256 and MGF1 with SHA-256, as long as the modulus |
//!
//! | bytes | origin |
//! |---|---|
//! | 16 | the key's name: the first bytes of SHA-256 over the length-prefixed fields `claviger/key-name` and the id |
//! | 8 | the key's incarnation, big endian |
//! | 8 | the version's id, big endian |
//!
//! An `rsa` key decrypts bare OAEP too, which others make with its public half: it is as long as the modulus, and what is made
//! here is 33 bytes longer, so the length tells them apart. OAEP's label is then what the caller gave; in the form above
//! it is the associated data below, with 3 for the mode.
//!
//! Each message has an AES-256-GCM key of its own: HMAC-SHA-256 of the salt under a subkey of the version's material, as in
//! decision 1, with the nonce zero. The associated data are the length-prefixed fields `claviger/encrypt`, mode, incarnation,
//! version, id, and what the caller gave ▲. The salt is random; of a convergent key it is HMAC-SHA-256, under a second subkey,
//! of the length-prefixed fields `claviger/convergent`, the associated data and the plaintext, so that equal messages, and only
//! those, have one key. As text this is base64.

use super::UseError;
use crate::fields;
use crate::once::{SALT, TAG};
use aws_lc_rs::digest;
use claviger_domain::{Incarnation, KeyId, KeyKind, KeyPolicy, KeyRef, VersionId};

const AES: u8 = 1;
const RSA: u8 = 2;
const NAME: usize = 16;
const ORIGIN: usize = NAME + 8 + 8;
/// What stands before the ciphertext itself.
pub(super) const HEAD: usize = 1 + 1 + ORIGIN + SALT;
/// What stands before OAEP.
pub(super) const RSA_HEAD: usize = 1 + ORIGIN;
/// Says in the associated data that it is OAEP's label.
pub(super) const LABEL: u8 = 3;

/// How the salt came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Random,
    Convergent,
}

impl Mode {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Random => 1,
            Self::Convergent => 2,
        }
    }
}

/// Which key and version a ciphertext says it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    name: [u8; NAME],
    incarnation: Incarnation,
    version: VersionId,
}

/// The clear part of what an `aes256-gcm` key made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) origin: Origin,
    pub(super) mode: Mode,
    pub(super) salt: [u8; SALT],
}

/// What an `rsa` key is given to decrypt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RsaForm<'c> {
    /// As it is made here.
    Named(Origin, &'c [u8]),
    /// As others make it with the public half.
    Bare(&'c [u8]),
}

/// The version that a ciphertext says it was made with, if that was with `key`; none where its form does not say.
///
/// # Errors
/// [`UseError`] says that the form is none of this kind's, or that it names another key.
pub fn version_named(key: &KeyRef, kind: KeyKind, policy: &KeyPolicy, sealed: &[u8]) -> Result<Option<VersionId>, UseError> {
    match kind {
        KeyKind::Aes256Gcm => Head::split(key, sealed)?.0.origin.version_of(key).map(Some),
        KeyKind::Rsa => match RsaForm::of(key, usize::from(policy.rsa_bits.unwrap_or(0)) / 8, sealed)? {
            RsaForm::Named(origin, _) => origin.version_of(key).map(Some),
            RsaForm::Bare(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The incarnation that a ciphertext of a key of this name says it was made with.
#[must_use]
pub fn incarnation_named(id: &KeyId, sealed: &[u8]) -> Option<Incarnation> {
    let (format, rest) = sealed.split_first()?;
    let origin = match *format {
        AES => rest.get(1..),
        RSA => Some(rest),
        _ => None,
    };
    let (origin, _) = Origin::split(origin?).ok()?;
    (origin.name == name(id)).then_some(origin.incarnation)
}

impl Origin {
    pub(super) fn new(key: &KeyRef, version: VersionId) -> Self {
        Self { name: name(&key.id), incarnation: key.incarnation, version }
    }

    fn split(bytes: &[u8]) -> Result<(Self, &[u8]), UseError> {
        let (name, rest) = bytes.split_first_chunk().ok_or(UseError::Truncated)?;
        let (incarnation, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let (version, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let version = VersionId::new(u64::from_be_bytes(*version)).ok_or(UseError::NotAuthentic)?;
        let incarnation = Incarnation(u64::from_be_bytes(*incarnation));
        Ok((Self { name: *name, incarnation, version }, rest))
    }

    fn bytes(&self) -> [u8; ORIGIN] {
        let Self { name, incarnation, version } = self;
        let mut bytes = [0; ORIGIN];
        bytes[..NAME].copy_from_slice(name);
        bytes[NAME..NAME + 8].copy_from_slice(&incarnation.0.to_be_bytes());
        bytes[NAME + 8..].copy_from_slice(&version.get().to_be_bytes());
        bytes
    }

    /// The version, if it is one of this key.
    pub(super) fn version_of(&self, key: &KeyRef) -> Result<VersionId, UseError> {
        if self.name != name(&key.id) {
            return Err(UseError::OtherKey);
        }
        if self.incarnation == key.incarnation { Ok(self.version) } else { Err(UseError::OtherIncarnation) }
    }

    /// Why something of another kind's form is not what `key` made.
    fn foreign(bytes: &[u8], key: &KeyRef) -> UseError {
        let named = Self::split(bytes).and_then(|(origin, _)| origin.version_of(key));
        named.err().filter(|why| matches!(why, UseError::OtherKey | UseError::OtherIncarnation)).unwrap_or(UseError::Format)
    }
}

impl Head {
    pub(super) fn new(key: &KeyRef, version: VersionId, mode: Mode, salt: [u8; SALT]) -> Self {
        Self { origin: Origin::new(key, version), mode, salt }
    }

    /// Splits the clear part off what `key` may have made.
    pub(super) fn split<'c>(key: &KeyRef, sealed: &'c [u8]) -> Result<(Self, &'c [u8]), UseError> {
        match sealed {
            [AES, rest @ ..] if rest.len() >= HEAD - 1 + TAG => Self::rest(rest),
            [] | [AES, ..] => Err(UseError::Truncated),
            [RSA, rest @ ..] => Err(Origin::foreign(rest, key)),
            [..] => Err(UseError::Format),
        }
    }

    fn rest(rest: &[u8]) -> Result<(Self, &[u8]), UseError> {
        let (mode, rest) = rest.split_first().ok_or(UseError::Truncated)?;
        let (origin, rest) = Origin::split(rest)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let mode = match mode {
            1 => Mode::Random,
            2 => Mode::Convergent,
            _ => return Err(UseError::NotAuthentic),
        };
        Ok((Self { origin, mode, salt: *salt }, rest))
    }

    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let Self { origin, mode, salt } = self;
        let mut bytes = [AES; HEAD];
        bytes[1] = mode.code();
        bytes[2..2 + ORIGIN].copy_from_slice(&origin.bytes());
        bytes[2 + ORIGIN..].copy_from_slice(salt);
        bytes
    }
}

impl<'c> RsaForm<'c> {
    /// Of what a key with a modulus of `modulus` bytes may have made.
    pub(super) fn of(key: &KeyRef, modulus: usize, sealed: &'c [u8]) -> Result<Self, UseError> {
        match sealed {
            bare if bare.len() == modulus => Ok(Self::Bare(bare)),
            [RSA, rest @ ..] if sealed.len() == RSA_HEAD + modulus => Origin::split(rest).map(|(origin, oaep)| Self::Named(origin, oaep)),
            // Of another key with a longer modulus, perhaps.
            [RSA, rest @ ..] | [AES, _, rest @ ..] if Origin::foreign(rest, key) != UseError::Format => Err(Origin::foreign(rest, key)),
            _ => Err(UseError::RsaLength { bytes: sealed.len(), named: RSA_HEAD + modulus, bare: modulus }),
        }
    }

    /// What stands before OAEP in the named form.
    pub(super) fn head(origin: &Origin) -> [u8; RSA_HEAD] {
        let mut bytes = [RSA; RSA_HEAD];
        bytes[1..].copy_from_slice(&origin.bytes());
        bytes
    }
}

/// What the cipher is told beside the plaintext.
pub(super) fn associated(key: &KeyRef, version: VersionId, mode: u8, aad: &[u8]) -> Vec<u8> {
    let (incarnation, version) = (key.incarnation.0.to_be_bytes(), version.get().to_be_bytes());
    fields::long(&[b"claviger/encrypt", &[mode], &incarnation, &version, key.id.as_str().as_bytes(), aad])
}

fn name(id: &KeyId) -> [u8; NAME] {
    let hash = digest::digest(&digest::SHA256, &fields::long(&[b"claviger/key-name", id.as_str().as_bytes()]));
    *hash.as_ref().first_chunk().expect("SHA-256 gives 32 bytes")
}
