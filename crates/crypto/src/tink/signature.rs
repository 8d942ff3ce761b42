//! Signatures: ECDSA over P-256 with SHA-256 in DER, and Ed25519: `[prefix][signature]`.

use super::proto::{self, Writer};
use super::set::Set;
use super::{Key, Keyset, TinkError, ec};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

pub(super) const ECDSA_PRIVATE: &str = "type.googleapis.com/google.crypto.tink.EcdsaPrivateKey";
pub(super) const ED25519_PRIVATE: &str = "type.googleapis.com/google.crypto.tink.Ed25519PrivateKey";
const ECDSA_PUBLIC: &str = "type.googleapis.com/google.crypto.tink.EcdsaPublicKey";
const ED25519_PUBLIC: &str = "type.googleapis.com/google.crypto.tink.Ed25519PublicKey";

/// EcdsaSignatureEncoding DER of ecdsa.proto.
const DER: u32 = 2;
const ED25519_KEY: usize = 32;

/// Makes signatures.
pub struct Signer(Set<Private>);

/// Verifies signatures.
pub struct Verifier(Set<Public>);

enum Private {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

enum Public {
    Ecdsa([u8; ec::POINT]),
    Ed25519([u8; ED25519_KEY]),
}

impl Signer {
    /// Of a keyset of private keys.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] or [`TinkError::BadKey`], which name the key; [`TinkError::PrimaryNotEnabled`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, private).map(Self)
    }

    /// Signs with the primary key.
    ///
    /// # Errors
    /// [`TinkError::Crypto`] when AWS-LC fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TinkError> {
        let primary = self.0.primary();
        let message = primary.message(message);
        let signature = match &primary.primitive {
            Private::Ecdsa(key) => key.sign(&SystemRandom::new(), &message)?,
            Private::Ed25519(key) => key.try_sign(&message)?,
        };
        Ok(primary.prefixed(signature.as_ref()))
    }
}

impl Verifier {
    /// Of a keyset of private or public keys.
    ///
    /// # Errors
    /// As [`Signer::new`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, public).map(Self)
    }

    /// The id of the key that made `signature` over `message`.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`].
    pub fn verify(&self, signature: &[u8], message: &[u8]) -> Result<u32, TinkError> {
        let fits = |key: &Public, signature: &[u8], message: &[u8]| match key {
            Public::Ecdsa(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).ok(),
            Public::Ed25519(bytes) => UnparsedPublicKey::new(&ED25519, bytes).verify(message, signature).ok(),
        };
        self.0.find(signature, |entry, bytes| fits(&entry.primitive, bytes, &entry.message(message))).map(|(id, ())| id)
    }
}

fn private(key: &Key) -> Result<Private, TinkError> {
    match key.type_url.as_str() {
        ECDSA_PRIVATE => {
            let (public, private) = ecdsa_private(key)?;
            let point = ecdsa_point(key, public)?;
            let private = ec::fixed(private).ok_or_else(|| key.bad("its private key has more than 32 bytes"))?;
            let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_ASN1_SIGNING, &*private, &point);
            pair.map(Private::Ecdsa).map_err(|_| key.bad("its private and public key do not fit together"))
        }
        ED25519_PRIVATE => {
            let (public, seed) = ed25519_private(key)?;
            let pair = Ed25519KeyPair::from_seed_and_public_key(seed, &ed25519_public(key, public)?);
            pair.map(Private::Ed25519).map_err(|_| key.bad("its private and public key do not fit together"))
        }
        _ => Err(key.wrong_type("signing")),
    }
}

fn public(key: &Key) -> Result<Public, TinkError> {
    match key.type_url.as_str() {
        ECDSA_PRIVATE => ecdsa_point(key, ecdsa_private(key)?.0).map(Public::Ecdsa),
        ECDSA_PUBLIC => ecdsa_point(key, key.value.expose()).map(Public::Ecdsa),
        ED25519_PRIVATE => ed25519_public(key, ed25519_private(key)?.0).map(Public::Ed25519),
        ED25519_PUBLIC => ed25519_public(key, key.value.expose()).map(Public::Ed25519),
        _ => Err(key.wrong_type("verifying signatures")),
    }
}

/// The public half of a private key, as a key of its own.
pub(super) fn public_key(key: &Key) -> Result<Key, TinkError> {
    let (type_url, value) = match key.type_url.as_str() {
        ECDSA_PRIVATE => (ECDSA_PUBLIC, ecdsa_private(key)?.0),
        _ => (ED25519_PUBLIC, ed25519_private(key)?.0),
    };
    Ok(key.public_half(type_url, value))
}

/// Reads EcdsaPrivateKey { version = 1, public_key = 2, key_value = 3 }: the public message, the private number.
fn ecdsa_private(key: &Key) -> Result<(&[u8], &[u8]), TinkError> {
    key.two_fields()
}

/// Reads EcdsaPublicKey { version = 1, params = 2 { hash_type = 1, curve = 2, encoding = 3 }, x = 3, y = 4 }.
fn ecdsa_point(key: &Key, public: &[u8]) -> Result<[u8; ec::POINT], TinkError> {
    let [params, x, y] = key.p256_public(public)?;
    let (mut hash, mut curve, mut encoding) = (0, 0, 0);
    proto::read(params, None, |field, value| match field {
        1 => value.number().map(|it| hash = it),
        2 => value.number().map(|it| curve = it),
        3 => value.number().map(|it| encoding = it),
        _ => Err(proto::UNKNOWN),
    })?;
    if (hash, curve, encoding) != (ec::SHA256, ec::NIST_P256, DER) {
        return Err(key.unsupported("ECDSA other than over P-256 with SHA-256 and signatures in DER"));
    }
    ec::point(x, y).ok_or_else(|| key.bad("its point is none of P-256"))
}

/// Reads Ed25519PrivateKey { version = 1, key_value = 2, public_key = 3 }: the public message, the seed.
fn ed25519_private(key: &Key) -> Result<(&[u8], &[u8]), TinkError> {
    let (seed, public) = key.two_fields()?;
    Ok((public, seed))
}

/// Reads Ed25519PublicKey { version = 1, key_value = 2 }.
fn ed25519_public(key: &Key, public: &[u8]) -> Result<[u8; ED25519_KEY], TinkError> {
    let (mut version, mut bytes) = (0, &[][..]);
    proto::read(public, None, |field, value| match field {
        1 => value.number().map(|it| version = it),
        2 => value.bytes().map(|it| bytes = it),
        _ => Err(proto::UNKNOWN),
    })?;
    key.version(version)?;
    bytes.try_into().map_err(|_| key.bad("an Ed25519 public key has 32 bytes"))
}

pub(super) fn new_ecdsa_key() -> Result<Zeroizing<Vec<u8>>, TinkError> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let private: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes()?;
    let (x, y) = ec::coordinates(pair.public_key().as_ref()).ok_or(TinkError::Crypto)?;
    let params = Writer::with_capacity(8).number(1, ec::SHA256).number(2, ec::NIST_P256).number(3, DER).done();
    let public = Writer::with_capacity(96).message(2, &params).bytes(3, x).bytes(4, y).done();
    Ok(Writer::with_capacity(192).message(2, &public).bytes(3, private.as_ref()).done())
}

pub(super) fn new_ed25519_key() -> Result<Zeroizing<Vec<u8>>, TinkError> {
    let pair = Ed25519KeyPair::generate()?;
    let seed = pair.seed()?;
    let seed: Curve25519SeedBin<'_> = seed.as_be_bytes()?;
    let public = Writer::with_capacity(48).bytes(2, pair.public_key().as_ref()).done();
    Ok(Writer::with_capacity(128).bytes(2, seed.as_ref()).message(3, &public).done())
}
