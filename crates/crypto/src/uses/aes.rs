//! Encryption with an `aes256-gcm` key.

use super::UseError;
use super::ciphertext::{Head, Mode, associated};
use crate::fields;
use crate::once::OnceKey;
use crate::random;
use crate::ring::expand;
use aws_lc_rs::hmac;
use claviger_domain::{KeyRef, SecretBytes, VersionId};

/// The subkeys of one version's material. The material itself encrypts nothing.
pub(super) struct AesKey {
    /// Derives the keys of messages from their salts.
    derive: hmac::Key,
    /// Makes the salts of a convergent key.
    salt: Option<hmac::Key>,
}

impl AesKey {
    pub(super) fn new(material: &SecretBytes, convergent: bool) -> Result<Self, UseError> {
        if material.len() != 32 {
            return Err(UseError::Material);
        }
        let subkey = |usage: &[u8]| {
            let label = fields::long(&[b"claviger/use", usage]);
            hmac::Key::new(hmac::HMAC_SHA256, &*expand(material.expose(), &label))
        };
        Ok(Self { derive: subkey(b"encrypt"), salt: convergent.then(|| subkey(b"convergent")) })
    }

    pub(super) fn encrypt(&self, key: &KeyRef, version: VersionId, plain: &SecretBytes, aad: &[u8]) -> Result<Vec<u8>, UseError> {
        let mode = if self.salt.is_some() { Mode::Convergent } else { Mode::Random };
        let associated = associated(key, version, mode.code(), aad);
        let salt = match &self.salt {
            None => random(),
            Some(_) if aad.is_empty() => return Err(UseError::NoContext),
            // Of everything that the cipher is told: one key must never seal two messages, also where the same material was
            // imported twice.
            Some(salt) => fields::mac(salt, &[b"claviger/convergent", &associated, plain.expose()]),
        };
        let head = Head::new(key, version, mode, salt).bytes();
        let sealed = OnceKey::derive(&self.derive, &salt).seal(&head, &associated, plain.expose());
        sealed.map(Vec::from).map_err(|_| UseError::TooLong)
    }

    pub(super) fn decrypt(&self, key: &KeyRef, version: VersionId, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, UseError> {
        let (head, rest) = Head::split(key, sealed)?;
        if head.origin.version_of(key)? != version {
            return Err(UseError::OtherVersion);
        }
        let opened = OnceKey::derive(&self.derive, &head.salt).open(&associated(key, version, head.mode.code(), aad), rest);
        let mut plain = opened.map_err(|_| UseError::NotAuthentic)?;
        Ok(SecretBytes::new(std::mem::take(&mut *plain)))
    }
}
