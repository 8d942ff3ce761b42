//! Using a key without seeing it: a version's material, opened, and what can be done with it.
//!
//! Opening takes no permit and gives nothing that can be looked at; each use takes the permit of its capability, and the
//! permit must be for this key ▲. Which version a key uses, and whether it still may, is the engine's to decide.
//!
//! | kind | uses |
//! |---|---|
//! | `aes256-gcm` | encrypt, decrypt, rewrap; the forms are `ciphertext.rs`'s |
//! | `hmac` | HMAC-SHA-256, -384 or -512 of a message, and its verification |
//! | `ecdsa-p256`, `ecdsa-p384` | ECDSA with SHA-256 and SHA-384; signatures in DER or raw (IEEE P1363) |
//! | `ed25519` | EdDSA (RFC 8032), never over a digest |
//! | `rsa` | RSASSA-PSS or -PKCS1-v1_5 with SHA-256, -384 or -512; RSAES-OAEP with SHA-256, also of what others encrypted |
//! | `tink` | what its template's keys are for, in Tink's formats |

mod aes;
mod ciphertext;
mod import;
mod keyset;
mod pair;
mod public;
mod scheme;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;

pub use ciphertext::{incarnation_named, version_named};
pub use import::{ImportError, ImportKey, ImportTarget, version_of_import, wrap_for_import};
pub use public::{Jwk, PublicKey};
pub use scheme::{Form, Hash, Message, Padding, Scheme};

use crate::version::Place;
use crate::{CryptoError, KeyRing};
use aes::AesKey;
use claviger_domain::{KeyKind, KeyPolicy, KeyRef, Permit, SecretBytes, VersionId, cap};
use claviger_ports::Sealed;
use keyset::TinkKey;
use pair::Pair;
use std::fmt;
use thiserror::Error;

/// Why a key was not used. No message has a byte of a key or of data.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UseError {
    /// The kind has no such use.
    #[error("a key of the kind {} does not {what}", kind.name())]
    Kind {
        /// The kind.
        kind: KeyKind,
        /// What was to be done.
        what: &'static str,
    },
    /// The bytes are too short for what a key of this kind makes.
    #[error("this is no ciphertext of a key of this kind: it is too short, so it was cut off or is something else")]
    Truncated,
    /// A format that this program does not know. What it is is not told: by mistake it may be a plaintext.
    #[error("this is no ciphertext of a key of this kind, or a newer program made it")]
    Format,
    /// Neither as long as what an RSA key of this length makes here, nor as what others make for it.
    #[error("a ciphertext for this key has {named} bytes as `claviger encrypt` makes it, or {bare} as bare RSAES-OAEP; this has {bytes}")]
    RsaLength {
        /// What it has.
        bytes: usize,
        /// What it would have as it is made here.
        named: usize,
        /// What OAEP alone has.
        bare: usize,
    },
    /// It names another key.
    #[error("this was encrypted with a key of another name: ask for it with that key")]
    OtherKey,
    /// It names a key of this name, but not this one.
    #[error(
        "this was encrypted with another key of this name: one of another Claviger, one that was lost when a backup was restored, or one that was here before the key that was deleted last"
    )]
    OtherIncarnation,
    /// It names another version than the one that was opened.
    #[error("this was made with another version of the key")]
    OtherVersion,
    /// It does not authenticate.
    #[error("this does not authenticate: it was altered or cut off, or the associated data is not that of its encryption")]
    NotAuthentic,
    /// An RSA ciphertext does not decrypt; more must not be said (Manger's attack).
    #[error(
        "this does not decrypt with this key: it was altered, its associated data (OAEP's label) is another, or it is not RSAES-OAEP with SHA-256 and MGF1 with SHA-256"
    )]
    NotForThisKey,
    /// A convergent key was asked to encrypt without a context.
    #[error("a convergent key encrypts in a context only: give associated data, such as the column's name")]
    NoContext,
    /// More than AES-GCM can take.
    #[error("this is too long for one message")]
    TooLong,
    /// More than OAEP can take.
    #[error("an rsa key of this length encrypts at most {0} bytes; for more, wrap a data key with it, as `claviger encrypt --out` does")]
    RsaTooLong(usize),
    /// An option that the kind does not have.
    #[error("{0}")]
    Scheme(&'static str),
    /// A digest of another length than the hash gives.
    #[error("a digest of {hash} has {bytes} bytes: give the digest itself, not its hexadecimal form")]
    Digest {
        /// The hash's name.
        hash: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A keyset that cannot be used so.
    #[error("{0}")]
    Tink(crate::tink::TinkError),
    /// A permit for another key: a mistake of ours.
    #[error("the permit is for another key")]
    WrongPermit,
    /// The cryptographic library failed, or the stored material is no key.
    #[error("the key's material cannot be used")]
    Material,
}

/// A version's material, opened for use. It is wiped when it is dropped, and nothing shows it but an export.
pub struct UseKey {
    key: KeyRef,
    kind: KeyKind,
    version: VersionId,
    inner: Inner,
}

enum Inner {
    Aes(Box<AesKey>),
    Hmac(SecretBytes),
    Pair(Box<Pair>),
    Tink(Box<TinkKey>),
}

impl fmt::Debug for UseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UseKey(version {} of {})", self.version, self.key.id)
    }
}

/// A ciphertext's clear part is read in one form, or refused.
pub(crate) fn fuzz_ciphertext(key: &KeyRef, bytes: &[u8]) {
    if let Ok((head, rest)) = ciphertext::Head::split(key, bytes) {
        assert_eq!([&head.bytes()[..], rest].concat(), bytes, "a clear part has one form");
    }
    if let Ok(ciphertext::RsaForm::Named(origin, rest)) = ciphertext::RsaForm::of(key, 256, bytes) {
        assert_eq!([&ciphertext::RsaForm::head(&origin)[..], rest].concat(), bytes, "a clear part has one form");
    }
    let _ = incarnation_named(&key.id, bytes);
}

pub(crate) use import::fuzz as fuzz_import;
pub(crate) use keyset::is_usable as is_usable_keyset;

impl KeyRing {
    /// Opens a version's material for use.
    ///
    /// # Errors
    /// As [`KeyRing::open_version`]; [`UseError::Material`] as malformed material.
    pub fn open_for_use(
        &self,
        key: &KeyRef,
        kind: KeyKind,
        policy: &KeyPolicy,
        version: VersionId,
        sealed: (&Sealed, &Sealed),
    ) -> Result<UseKey, CryptoError> {
        let place = Place { key, kind, version };
        let material = self.open_at(&place, sealed.0, sealed.1)?;
        let what = || format!("the material of version {version} of key `{}`", key.id);
        UseKey::new(key, kind, policy, version, material).map_err(|_| CryptoError::Unusable { what: what() })
    }

    /// A version's material, out of a key that may be exported.
    ///
    /// # Errors
    /// As [`KeyRing::open_version`]; [`CryptoError::NotExportable`] ▲.
    pub fn export(
        &self,
        permit: &Permit<cap::Read>,
        kind: KeyKind,
        policy: &KeyPolicy,
        version: VersionId,
        sealed: (&Sealed, &Sealed),
    ) -> Result<SecretBytes, CryptoError> {
        if !policy.exportable {
            return Err(CryptoError::NotExportable);
        }
        self.open_version(permit, kind, version, sealed.0, sealed.1)
    }
}

impl UseKey {
    fn new(key: &KeyRef, kind: KeyKind, policy: &KeyPolicy, version: VersionId, material: SecretBytes) -> Result<Self, UseError> {
        let inner = match kind {
            KeyKind::Aes256Gcm => Inner::Aes(Box::new(AesKey::new(&material, policy.convergent)?)),
            KeyKind::Hmac => Inner::Hmac(material),
            KeyKind::Tink => Inner::Tink(Box::new(TinkKey::new(&material)?)),
            kind if kind.is_asymmetric() => Inner::Pair(Box::new(Pair::new(kind, &material)?)),
            kind => return Err(UseError::Kind { kind, what: "have uses" }),
        };
        Ok(Self { key: key.clone(), kind, version, inner })
    }

    /// Which version this is.
    #[must_use]
    pub fn version(&self) -> VersionId {
        self.version
    }

    /// Which key this is of.
    #[must_use]
    pub fn key(&self) -> &KeyRef {
        &self.key
    }

    fn allowed<C: cap::Kind>(&self, permit: &Permit<C>) -> Result<(), UseError> {
        // The material may have been opened for an earlier request; the cipher cannot compare the names then.
        if permit.key() == &self.key { Ok(()) } else { Err(UseError::WrongPermit) }
    }

    fn cannot<T>(&self, what: &'static str) -> Result<T, UseError> {
        Err(UseError::Kind { kind: self.kind, what })
    }

    /// Encrypts `plain`, bound to `aad`.
    ///
    /// # Errors
    /// [`UseError::Kind`], [`UseError::NoContext`], [`UseError::TooLong`], [`UseError::RsaTooLong`].
    pub fn encrypt(&self, permit: &Permit<cap::Encrypt>, plain: &SecretBytes, aad: &[u8]) -> Result<Vec<u8>, UseError> {
        self.allowed(permit)?;
        self.sealed(plain, aad)
    }

    /// A new data key of `len` bytes, and the same encrypted. It takes the permit to encrypt: who has that could make up a
    /// key himself and encrypt it.
    ///
    /// # Errors
    /// As [`UseKey::encrypt`].
    pub fn data_key(&self, permit: &Permit<cap::Encrypt>, len: usize, aad: &[u8]) -> Result<(SecretBytes, Vec<u8>), UseError> {
        let plain = crate::once::random_secret(len);
        let sealed = self.encrypt(permit, &plain, aad)?;
        Ok((plain, sealed))
    }

    fn sealed(&self, plain: &SecretBytes, aad: &[u8]) -> Result<Vec<u8>, UseError> {
        match &self.inner {
            Inner::Aes(aes) => aes.encrypt(&self.key, self.version, plain, aad),
            Inner::Tink(tink) => tink.encrypt(plain, aad),
            Inner::Pair(pair) => pair.encrypt(&self.key, self.version, plain, aad),
            Inner::Hmac(_) => self.cannot("encrypt"),
        }
    }

    /// Decrypts what this version encrypted, bound to the same `aad`.
    ///
    /// # Errors
    /// [`UseError`] says what is wrong with the ciphertext.
    pub fn decrypt(&self, permit: &Permit<cap::Decrypt>, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, UseError> {
        self.allowed(permit)?;
        self.opened(sealed, aad)
    }

    fn opened(&self, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, UseError> {
        match &self.inner {
            Inner::Aes(aes) => aes.decrypt(&self.key, self.version, sealed, aad),
            Inner::Tink(tink) => tink.decrypt(sealed, aad),
            Inner::Pair(pair) => pair.decrypt(&self.key, self.version, sealed, aad),
            Inner::Hmac(_) => self.cannot("decrypt"),
        }
    }

    /// What `old` encrypted, encrypted anew with this version; nobody sees the plaintext. It takes the permit to encrypt:
    /// whoever rewraps learns nothing, and gets what he could have been given by another who encrypts.
    ///
    /// # Errors
    /// As [`UseKey::decrypt`] and [`UseKey::encrypt`].
    pub fn rewrap(&self, permit: &Permit<cap::Encrypt>, old: &Self, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, UseError> {
        self.allowed(permit)?;
        old.allowed(permit)?;
        self.sealed(&old.opened(sealed, aad)?, aad)
    }

    /// Signs a message or its digest.
    ///
    /// # Errors
    /// [`UseError::Kind`], [`UseError::Scheme`], [`UseError::Digest`].
    pub fn sign(&self, permit: &Permit<cap::Sign>, scheme: &Scheme, message: Message<'_>) -> Result<Vec<u8>, UseError> {
        self.allowed(permit)?;
        match &self.inner {
            Inner::Pair(pair) => pair.sign(scheme, message),
            Inner::Tink(tink) => tink.sign(scheme, message),
            Inner::Hmac(_) => self.cannot("sign; ask for its hmac"),
            Inner::Aes(_) => self.cannot("sign"),
        }
    }

    /// A message authentication code.
    ///
    /// # Errors
    /// [`UseError::Kind`].
    pub fn mac(&self, permit: &Permit<cap::Sign>, hash: Option<Hash>, message: &[u8]) -> Result<Vec<u8>, UseError> {
        self.allowed(permit)?;
        match &self.inner {
            Inner::Hmac(key) => Ok(scheme::mac(hash.unwrap_or(Hash::Sha256), key, message)),
            Inner::Tink(tink) => tink.mac(hash, message),
            Inner::Aes(_) | Inner::Pair(_) => self.cannot("make message authentication codes"),
        }
    }

    /// Whether `proof` is this version's signature of the message, or its message authentication code.
    ///
    /// # Errors
    /// [`UseError::Kind`], [`UseError::Scheme`], [`UseError::Digest`]; a proof that is none is no error.
    pub fn verify<C: cap::Verifies>(
        &self,
        permit: &Permit<C>,
        scheme: &Scheme,
        message: Message<'_>,
        proof: &[u8],
    ) -> Result<bool, UseError> {
        self.allowed(permit)?;
        match &self.inner {
            Inner::Pair(pair) => pair.verify(scheme, message, proof),
            Inner::Tink(tink) => tink.verify(scheme, message, proof),
            Inner::Hmac(key) => match message {
                Message::Whole(message) if scheme.form.is_none() && scheme.padding.is_none() => {
                    Ok(scheme::mac_is(scheme.hash.unwrap_or(Hash::Sha256), key, message, proof))
                }
                Message::Whole(_) => Err(UseError::Scheme("a key of the kind hmac has a hash only, no form and no padding")),
                Message::Digest(_) => Err(UseError::Scheme("a key of the kind hmac takes messages, not digests")),
            },
            Inner::Aes(_) => self.cannot("verify"),
        }
    }

    /// Whether a `tink` version's keyset has the key that `made` says it was made with.
    #[must_use]
    pub fn could_have_made(&self, made: &[u8]) -> bool {
        match &self.inner {
            Inner::Tink(tink) => tink.could_have_made(made),
            _ => false,
        }
    }

    /// The public half. It is no secret, so no permit is asked for; who learns of the key is the engine's to decide.
    ///
    /// # Errors
    /// [`UseError::Kind`] where there is none.
    pub fn public_key(&self) -> Result<PublicKey, UseError> {
        match &self.inner {
            Inner::Pair(pair) => pair.public_key(),
            Inner::Tink(tink) => tink.public_key(),
            Inner::Aes(_) | Inner::Hmac(_) => self.cannot("have a public half"),
        }
    }
}
