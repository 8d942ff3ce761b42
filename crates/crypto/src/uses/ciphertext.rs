//! The form of what an `aes256-gcm` key encrypts. It names its key and version, so that whoever finds it knows which to ask for.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 1 | mode: 1 random, 2 convergent |
//! | 16 | the key's name: the first bytes of SHA-256 over the length-prefixed fields `claviger/key-name` and the id |
//! | 8 | the key's incarnation, big endian |
//! | 8 | the version's id, big endian |
//! | 32 | salt |
//! | n | ciphertext, as long as the plaintext |
//! | 16 | tag |
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
use claviger_domain::{Incarnation, KeyId, KeyRef, VersionId};

const FORMAT: u8 = 1;
const NAME: usize = 16;
/// What stands before the ciphertext itself.
pub(super) const HEAD: usize = 1 + 1 + NAME + 8 + 8 + SALT;

/// How the salt came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Random,
    Convergent,
}

impl Mode {
    fn code(self) -> u8 {
        match self {
            Self::Random => 1,
            Self::Convergent => 2,
        }
    }
}

/// The clear part of a ciphertext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CiphertextHead {
    name: [u8; NAME],
    incarnation: Incarnation,
    version: VersionId,
    pub(super) mode: Mode,
    pub(super) salt: [u8; SALT],
}

impl CiphertextHead {
    pub(super) fn new(key: &KeyRef, version: VersionId, mode: Mode, salt: [u8; SALT]) -> Self {
        Self { name: name(&key.id), incarnation: key.incarnation, version, mode, salt }
    }

    /// Splits the clear part off a ciphertext.
    ///
    /// # Errors
    /// [`UseError::Truncated`] or [`UseError::Format`].
    pub fn split(sealed: &[u8]) -> Result<(Self, &[u8]), UseError> {
        match sealed {
            [FORMAT, rest @ ..] if rest.len() >= HEAD - 1 + TAG => Self::rest(rest),
            [] | [FORMAT, ..] => Err(UseError::Truncated),
            [format, ..] => Err(UseError::Format(*format)),
        }
    }

    fn rest(rest: &[u8]) -> Result<(Self, &[u8]), UseError> {
        let (mode, rest) = rest.split_first().ok_or(UseError::Truncated)?;
        let (name, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let (incarnation, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let (version, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(UseError::Truncated)?;
        let mode = match mode {
            1 => Mode::Random,
            2 => Mode::Convergent,
            _ => return Err(UseError::NotAuthentic),
        };
        let version = VersionId::new(u64::from_be_bytes(*version)).ok_or(UseError::NotAuthentic)?;
        let incarnation = Incarnation(u64::from_be_bytes(*incarnation));
        Ok((Self { name: *name, incarnation, version, mode, salt: *salt }, rest))
    }

    /// The version that it says it was made with, if it was made with this key.
    ///
    /// # Errors
    /// [`UseError::OtherKey`] or [`UseError::OtherIncarnation`].
    pub fn version_of(&self, key: &KeyRef) -> Result<VersionId, UseError> {
        if self.name != name(&key.id) {
            return Err(UseError::OtherKey);
        }
        if self.incarnation == key.incarnation { Ok(self.version) } else { Err(UseError::OtherIncarnation) }
    }

    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let Self { name, incarnation, version, mode, salt } = self;
        let mut bytes = [FORMAT; HEAD];
        bytes[1] = mode.code();
        bytes[2..18].copy_from_slice(name);
        bytes[18..26].copy_from_slice(&incarnation.0.to_be_bytes());
        bytes[26..34].copy_from_slice(&version.get().to_be_bytes());
        bytes[34..].copy_from_slice(salt);
        bytes
    }
}

/// What the cipher is told beside the plaintext.
pub(super) fn associated(key: &KeyRef, version: VersionId, mode: Mode, aad: &[u8]) -> Vec<u8> {
    let (incarnation, version) = (key.incarnation.0.to_be_bytes(), version.get().to_be_bytes());
    fields::long(&[b"claviger/encrypt", &[mode.code()], &incarnation, &version, key.id.as_str().as_bytes(), aad])
}

fn name(id: &KeyId) -> [u8; NAME] {
    let hash = digest::digest(&digest::SHA256, &fields::long(&[b"claviger/key-name", id.as_str().as_bytes()]));
    *hash.as_ref().first_chunk().expect("SHA-256 gives 32 bytes")
}
