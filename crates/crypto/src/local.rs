//! Sealing the files of one machine's own cache: what a node agent keeps through a restart.
//!
//! It has nothing of the store's key hierarchy: the key is the machine's own, and what it seals is good on that machine alone.
//! Where the key itself is kept is the agent's business.
//!
//! A sealed file is `[format 1][salt 32][ciphertext][tag 16]`.

use crate::once::{OnceKey, SALT, random_key};
use crate::ring::expand;
use crate::{fields, random};
use aws_lc_rs::hmac;
use claviger_domain::SecretBytes;
use thiserror::Error;

const FORMAT: u8 = 1;

/// The bytes are not what this key sealed for this place: damaged, another file's, or another cache's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it was not sealed by this cache's key for this place, or is damaged")]
pub struct NotSealedHere;

/// A cache's key.
pub struct LocalKey {
    seal: hmac::Key,
    names: hmac::Key,
}

impl LocalKey {
    /// Fresh key bytes.
    #[must_use]
    pub fn generate() -> SecretBytes {
        SecretBytes::new(random_key().to_vec())
    }

    /// The key of these bytes; nothing unless they are 32.
    #[must_use]
    pub fn new(bytes: &SecretBytes) -> Option<Self> {
        let key: &[u8; 32] = bytes.expose().try_into().ok()?;
        let subkey = |usage: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &*expand(key, &fields::long(&[b"claviger/local", usage])));
        Some(Self { seal: subkey(b"seal"), names: subkey(b"names") })
    }

    /// Seals `plain` for one place, which is a list of fields of any length.
    #[must_use]
    pub fn seal(&self, place: &[&[u8]], plain: &[u8]) -> Box<[u8]> {
        let salt: [u8; SALT] = random();
        let mut header = [FORMAT; 1 + SALT];
        header[1..].copy_from_slice(&salt);
        OnceKey::derive(&self.seal, &salt).seal(&header, &aad(place), plain).expect("a cache's entry is far below AES-GCM's 64 GiB")
    }

    /// Opens what was sealed for the same place.
    ///
    /// # Errors
    /// [`NotSealedHere`].
    pub fn open(&self, place: &[&[u8]], sealed: &[u8]) -> Result<SecretBytes, NotSealedHere> {
        let [FORMAT, rest @ ..] = sealed else { return Err(NotSealedHere) };
        let (salt, sealed) = rest.split_first_chunk().ok_or(NotSealedHere)?;
        let mut plain = OnceKey::derive(&self.seal, salt).open(&aad(place), sealed).map_err(|_| NotSealedHere)?;
        Ok(SecretBytes::new(std::mem::take(&mut *plain)))
    }

    /// A name for something that the name does not tell: the same for the same bytes under this key.
    #[must_use]
    pub fn name(&self, of: &[u8]) -> [u8; 16] {
        let mac = fields::mac(&self.names, &[b"claviger/local/name", of]);
        *mac.first_chunk().expect("a MAC has 32 bytes")
    }
}

fn aad(place: &[&[u8]]) -> Vec<u8> {
    let mut all = vec![&b"claviger/local/file"[..]];
    all.extend_from_slice(place);
    fields::long(&all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let bytes = LocalKey::generate();
        let key = LocalKey::new(&bytes).unwrap();
        let sealed = key.seal(&[b"entry", b"a"], b"hunter2");
        assert_eq!(key.open(&[b"entry", b"a"], &sealed).unwrap().expose(), b"hunter2");
        for place in [&[&b"entry"[..], b"b"][..], &[b"entrya"], &[b"entry"], &[b"entry", b"a", b""]] {
            assert!(key.open(place, &sealed).is_err(), "{place:?}");
        }
        let other = LocalKey::new(&LocalKey::generate()).unwrap();
        assert!(other.open(&[b"entry", b"a"], &sealed).is_err());
        assert_ne!(key.name(b"a"), other.name(b"a"));
        assert_eq!(key.name(b"a"), LocalKey::new(&bytes).unwrap().name(b"a"));
    }

    #[test]
    fn no_byte_can_be_changed_or_left_out() {
        let key = LocalKey::new(&LocalKey::generate()).unwrap();
        let sealed = key.seal(&[b"x"], b"hunter2").to_vec();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&[b"x"], &changed).is_err() && key.open(&[b"x"], &sealed[..at]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn keys_of_other_lengths_are_none() {
        assert!(LocalKey::new(&SecretBytes::new(vec![0; 31])).is_none());
    }
}
