//! AES-GCM: `[prefix][nonce 12][ciphertext][tag 16]`.

use super::proto::{self, Writer};
use super::set::{Opened, Set};
use super::template::random_bytes;
use super::{Key, Keyset, TinkError};
use crate::random;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

pub(super) const TYPE_URL: &str = "type.googleapis.com/google.crypto.tink.AesGcmKey";
const TAG: usize = 16;

/// Encryption with associated data.
///
/// Nonces are random, as Tink's format has it: one key must not encrypt more than 2^32 messages (NIST SP 800-38D §8.3).
pub struct Aead(Set<LessSafeKey>);

impl Aead {
    /// Of a keyset of AES-GCM keys.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] or [`TinkError::BadKey`], which name the key; [`TinkError::PrimaryNotEnabled`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, parse).map(Self)
    }

    /// Encrypts with the primary key.
    ///
    /// # Errors
    /// [`TinkError::TooLong`] beyond 64 GiB.
    pub fn encrypt(&self, plain: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, TinkError> {
        let primary = self.0.primary();
        seal(&primary.primitive, &primary.prefix, plain, associated_data)
    }

    /// Decrypts with whichever enabled key it was encrypted with.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`].
    pub fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<Opened, TinkError> {
        let (key_id, plain) = self.0.find(ciphertext, |entry, bytes| open(&entry.primitive, bytes, associated_data))?;
        Ok(Opened { key_id, plain })
    }
}

/// `[prefix][nonce][ciphertext][tag]`.
pub(super) fn seal(key: &LessSafeKey, prefix: &[u8], plain: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, TinkError> {
    let nonce: [u8; NONCE_LEN] = random();
    let start = prefix.len() + NONCE_LEN;
    let mut out = Zeroizing::new(Vec::with_capacity(start + plain.len() + TAG));
    out.extend_from_slice(prefix);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(associated_data), &mut out[start..]).map_err(|_| TinkError::TooLong)?;
    out.extend_from_slice(tag.as_ref());
    // It holds ciphertext by now; before, it would have been wiped.
    Ok(std::mem::take(&mut *out))
}

/// Opens `[nonce][ciphertext][tag]`.
pub(super) fn open(key: &LessSafeKey, bytes: &[u8], associated_data: &[u8]) -> Option<SecretBytes> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG>()?;
    let mut plain = Zeroizing::new(vec![0; ciphertext.len()]);
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.open_separate_gather(nonce, Aad::from(associated_data), ciphertext, tag, &mut plain).ok()?;
    Some(SecretBytes::new(std::mem::take(&mut *plain)))
}

/// An AES-GCM key of 16 or 32 bytes.
pub(super) fn aes_gcm(bytes: &[u8]) -> Option<LessSafeKey> {
    let algorithm = match bytes.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        _ => return None,
    };
    UnboundKey::new(algorithm, bytes).ok().map(LessSafeKey::new)
}

fn parse(key: &Key) -> Result<LessSafeKey, TinkError> {
    if key.type_url != TYPE_URL {
        return Err(key.wrong_type("encryption with associated data"));
    }
    aes_gcm(versioned_key(key)?).ok_or_else(|| key.bad("an AES-GCM key has 16 or 32 bytes"))
}

/// Reads AesGcmKey { version = 1, key_value = 3 }.
fn versioned_key(key: &Key) -> Result<&[u8], TinkError> {
    let (mut version, mut bytes) = (0, &[][..]);
    proto::read(key.value.expose(), None, |field, value| match field {
        1 => value.number().map(|it| version = it),
        3 => value.bytes().map(|it| bytes = it),
        _ => Err(proto::UNKNOWN),
    })?;
    key.version(version)?;
    Ok(bytes)
}

pub(super) fn new_key(length: usize) -> Zeroizing<Vec<u8>> {
    Writer::with_capacity(64).bytes(3, &random_bytes(length)).done()
}
