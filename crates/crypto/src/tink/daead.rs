//! AES-SIV (RFC 5297) with one associated data: `[prefix][synthetic IV 16][ciphertext]`.

use super::proto::{self, Writer};
use super::set::{Opened, Set};
use super::template::random_bytes;
use super::{Key, Keyset, TinkError};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{cmac, constant_time};
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

pub(super) const TYPE_URL: &str = "type.googleapis.com/google.crypto.tink.AesSivKey";
const BLOCK: usize = 16;
const KEY: usize = 64;

/// Encryption of which equal input gives equal output: it shows which plaintexts are equal, and nothing else.
pub struct DeterministicAead(Set<AesSiv>);

impl DeterministicAead {
    /// Of a keyset of AES-SIV keys.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] or [`TinkError::BadKey`], which name the key; [`TinkError::PrimaryNotEnabled`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, parse).map(Self)
    }

    /// Encrypts with the primary key.
    ///
    /// # Errors
    /// [`TinkError::Crypto`] when AWS-LC fails.
    pub fn encrypt(&self, plain: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, TinkError> {
        let primary = self.0.primary();
        Ok(primary.prefixed(&primary.primitive.seal(plain, associated_data)?))
    }

    /// Decrypts with whichever enabled key it was encrypted with.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`].
    pub fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<Opened, TinkError> {
        let (key_id, plain) = self.0.find(ciphertext, |entry, bytes| entry.primitive.open(bytes, associated_data))?;
        Ok(Opened { key_id, plain })
    }
}

/// The two keys of AES-SIV, each of 32 bytes.
pub(super) struct AesSiv {
    mac: cmac::Key,
    counter: Zeroizing<[u8; KEY / 2]>,
}

type Block = [u8; BLOCK];

impl AesSiv {
    /// RFC 5297 §2.2: the first half authenticates, the second encrypts.
    pub(super) fn new(key: &[u8; KEY]) -> Result<Self, TinkError> {
        let mut counter = Zeroizing::new([0; KEY / 2]);
        counter.copy_from_slice(&key[KEY / 2..]);
        Ok(Self { mac: cmac::Key::new(cmac::AES_256, &key[..KEY / 2])?, counter })
    }

    pub(super) fn seal(&self, plain: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, TinkError> {
        let iv = self.s2v(associated_data, plain)?;
        let mut out = Zeroizing::new([&iv[..], plain].concat());
        self.count(&iv, &mut out[BLOCK..])?;
        Ok(std::mem::take(&mut *out))
    }

    pub(super) fn open(&self, sealed: &[u8], associated_data: &[u8]) -> Option<SecretBytes> {
        let (iv, ciphertext) = sealed.split_first_chunk::<BLOCK>()?;
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        self.count(iv, &mut plain).ok()?;
        let expected = self.s2v(associated_data, &plain).ok()?;
        constant_time::verify_slices_are_equal(&expected, iv).ok()?;
        Some(SecretBytes::new(std::mem::take(&mut *plain)))
    }

    /// RFC 5297 §2.4, for the associated data and the plaintext.
    fn s2v(&self, associated_data: &[u8], plain: &[u8]) -> Result<Block, TinkError> {
        let d = xor(double(self.cmac(&[&[0; BLOCK]])?), &self.cmac(&[associated_data])?);
        match plain.split_last_chunk::<BLOCK>() {
            Some((start, end)) => self.cmac(&[start, &xor(d, end)]),
            None => {
                let mut padded = [0; BLOCK];
                padded[..plain.len()].copy_from_slice(plain);
                padded[plain.len()] = 0x80;
                self.cmac(&[&xor(double(d), &padded)])
            }
        }
    }

    fn cmac(&self, parts: &[&[u8]]) -> Result<Block, TinkError> {
        let mut context = cmac::Context::with_key(&self.mac);
        parts.iter().try_for_each(|part| context.update(part))?;
        context.sign()?.as_ref().try_into().map_err(|_| TinkError::Crypto)
    }

    /// AES in counter mode from the synthetic IV without its 31st and 63rd bit (RFC 5297 §2.6).
    fn count(&self, iv: &Block, bytes: &mut [u8]) -> Result<(), TinkError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut counter = *iv;
        counter[8] &= 0x7f;
        counter[12] &= 0x7f;
        let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, &*self.counter)?)?;
        key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(counter)))?;
        Ok(())
    }
}

fn xor(mut a: Block, b: &Block) -> Block {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// Multiplication by x in GF(2^128) (RFC 5297 §2.3).
fn double(block: Block) -> Block {
    let number = u128::from_be_bytes(block);
    // Without a branch on a secret bit.
    let carry = 0x87 * (number >> 127);
    ((number << 1) ^ carry).to_be_bytes()
}

/// Reads AesSivKey { version = 1, key_value = 2 }.
fn parse(key: &Key) -> Result<AesSiv, TinkError> {
    if key.type_url != TYPE_URL {
        return Err(key.wrong_type("deterministic encryption"));
    }
    let (mut version, mut bytes) = (0, &[][..]);
    proto::read(key.value.expose(), None, |field, value| match field {
        1 => value.number().map(|it| version = it),
        2 => value.bytes().map(|it| bytes = it),
        _ => Err(proto::UNKNOWN),
    })?;
    key.version(version)?;
    // Tink takes only this size too: with shorter keys there are known attacks on many keys at once.
    AesSiv::new(bytes.try_into().map_err(|_| key.bad("an AES-SIV key has 64 bytes"))?)
}

pub(super) fn new_key() -> Zeroizing<Vec<u8>> {
    Writer::with_capacity(96).bytes(2, &random_bytes(KEY)).done()
}
