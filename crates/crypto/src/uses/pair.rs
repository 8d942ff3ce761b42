//! Signatures, and encryption with RSA.

use super::ciphertext::{LABEL, Origin, RsaForm, associated};
use super::public::PublicKey;
use super::scheme::{Form, Hash, Message, Padding, Scheme};
use super::{UseError, public};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use claviger_domain::{KeyKind, KeyRef, SecretBytes, VersionId};
use zeroize::Zeroizing;

/// A key with a public half.
pub(super) enum Pair {
    /// On either curve. It signs in the raw form; DER is made of that.
    Ecdsa(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Rsa),
}

/// An RSA key as each of its uses wants it.
pub(super) struct Rsa {
    signing: RsaKeyPair,
    encrypting: OaepPublicEncryptingKey,
    decrypting: OaepPrivateDecryptingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Pair {
    pub(super) fn new(kind: KeyKind, pkcs8: &SecretBytes) -> Result<Self, UseError> {
        let der = pkcs8.expose();
        match kind {
            KeyKind::EcdsaP256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(|p| Self::Ecdsa(Curve::P256, p)),
            KeyKind::EcdsaP384 => EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).map(|p| Self::Ecdsa(Curve::P384, p)),
            KeyKind::Ed25519 => Ed25519KeyPair::from_pkcs8(der).map(Self::Ed25519),
            _ => return Self::rsa(der),
        }
        .map_err(|_| UseError::Material)
    }

    fn rsa(der: &[u8]) -> Result<Self, UseError> {
        let private = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| UseError::Material)?;
        let encrypting = OaepPublicEncryptingKey::new(private.public_key()).map_err(|_| UseError::Material)?;
        let decrypting = OaepPrivateDecryptingKey::new(private).map_err(|_| UseError::Material)?;
        Ok(Self::Rsa(Rsa { signing: RsaKeyPair::from_pkcs8(der).map_err(|_| UseError::Material)?, encrypting, decrypting }))
    }

    pub(super) fn sign(&self, scheme: &Scheme, message: Message<'_>) -> Result<Vec<u8>, UseError> {
        let failed = |_| UseError::Material;
        match self {
            Self::Ecdsa(curve, pair) => {
                let form = curve.form(scheme)?;
                let signed = match message {
                    Message::Whole(message) => pair.sign(&SystemRandom::new(), message),
                    Message::Digest(digest) => pair.sign_digest(&curve.hash().import(digest)?),
                };
                let raw = signed.map_err(failed)?;
                Ok(if form == Form::Raw { raw.as_ref().to_vec() } else { public::ecdsa_der(raw.as_ref()) })
            }
            Self::Ed25519(pair) => Ok(pair.try_sign(ed25519(scheme, message)?).map_err(failed)?.as_ref().to_vec()),
            Self::Rsa(Rsa { signing: pair, .. }) => {
                let (hash, encoding) = rsa_encoding(scheme)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                match message {
                    Message::Whole(message) => pair.sign(encoding, &SystemRandom::new(), message, &mut signature),
                    Message::Digest(digest) => pair.sign_digest(encoding, &hash.import(digest)?, &mut signature),
                }
                .map_err(failed)?;
                Ok(signature)
            }
        }
    }

    pub(super) fn verify(&self, scheme: &Scheme, message: Message<'_>, signature: &[u8]) -> Result<bool, UseError> {
        match self {
            Self::Ecdsa(curve, pair) => verify_ecdsa(*curve, pair.public_key().as_ref(), scheme, message, signature),
            Self::Ed25519(pair) => verify_ed25519(pair.public_key().as_ref(), scheme, message, signature),
            Self::Rsa(rsa) => verify_rsa(rsa.signing.public_key().as_ref(), scheme, message, signature),
        }
    }

    fn rsa_to(&self, what: &'static str) -> Result<&Rsa, UseError> {
        let kind = match self {
            Self::Rsa(rsa) => return Ok(rsa),
            Self::Ecdsa(Curve::P256, _) => KeyKind::EcdsaP256,
            Self::Ecdsa(Curve::P384, _) => KeyKind::EcdsaP384,
            Self::Ed25519(_) => KeyKind::Ed25519,
        };
        Err(UseError::Kind { kind, what })
    }

    /// RSAES-OAEP in the form that names key and version.
    pub(super) fn encrypt(&self, key: &KeyRef, version: VersionId, plain: &SecretBytes, aad: &[u8]) -> Result<Vec<u8>, UseError> {
        let Rsa { encrypting, .. } = self.rsa_to("encrypt")?;
        let most = encrypting.max_plaintext_size(&OAEP_SHA256_MGF1SHA256);
        if plain.len() > most {
            return Err(UseError::RsaTooLong(most));
        }
        let head = RsaForm::head(&Origin::new(key, version));
        let label = associated(key, version, LABEL, aad);
        let mut sealed = [&head[..], &vec![0; encrypting.ciphertext_size()]].concat();
        let made = encrypting.encrypt(&OAEP_SHA256_MGF1SHA256, plain.expose(), &mut sealed[head.len()..], Some(&label));
        made.map(drop).map_err(|_| UseError::Material)?;
        Ok(sealed)
    }

    /// RSAES-OAEP in the form that names key and version, or bare. Of the bare one `aad` is the label; none that is given is the empty
    /// one (RFC 8017 §7.1).
    pub(super) fn decrypt(&self, key: &KeyRef, version: VersionId, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, UseError> {
        let Rsa { decrypting, .. } = self.rsa_to("decrypt")?;
        match RsaForm::of(key, decrypting.key_size_bytes(), sealed)? {
            RsaForm::Bare(oaep) => open_oaep(decrypting, oaep, aad),
            RsaForm::Named(origin, oaep) if origin.version_of(key)? == version => {
                open_oaep(decrypting, oaep, &associated(key, version, LABEL, aad))
            }
            RsaForm::Named(..) => Err(UseError::OtherVersion),
        }
    }

    pub(super) fn public_key(&self) -> Result<PublicKey, UseError> {
        match self {
            Self::Ecdsa(curve, pair) => PublicKey::ecdsa(*curve, pair.public_key()),
            Self::Ed25519(pair) => PublicKey::ed25519(pair.public_key()),
            Self::Rsa(rsa) => PublicKey::rsa(rsa.signing.public_key()),
        }
    }
}

fn open_oaep(key: &OaepPrivateDecryptingKey, sealed: &[u8], label: &[u8]) -> Result<SecretBytes, UseError> {
    let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
    let label = (!label.is_empty()).then_some(label);
    let opened = key.decrypt(&OAEP_SHA256_MGF1SHA256, sealed, &mut plain, label).map_err(|_| UseError::NotForThisKey)?;
    let len = opened.len();
    plain.truncate(len);
    Ok(SecretBytes::new(std::mem::take(&mut *plain)))
}

impl Curve {
    fn hash(self) -> Hash {
        match self {
            Self::P256 => Hash::Sha256,
            Self::P384 => Hash::Sha384,
        }
    }

    fn form(self, scheme: &Scheme) -> Result<Form, UseError> {
        if scheme.padding.is_some() {
            return Err(UseError::Scheme("padding: only keys of the kind rsa have one"));
        }
        if scheme.hash.is_some_and(|hash| hash != self.hash()) {
            return Err(UseError::Scheme("hash: a key of the kind ecdsa-p256 signs with sha-256, one of the kind ecdsa-p384 with sha-384"));
        }
        Ok(scheme.form.unwrap_or(Form::Der))
    }
}

fn ed25519<'m>(scheme: &Scheme, message: Message<'m>) -> Result<&'m [u8], UseError> {
    match message {
        Message::Whole(message) if *scheme == Scheme::default() => Ok(message),
        Message::Whole(_) => Err(UseError::Scheme("a key of the kind ed25519 has no hash, padding or form to choose")),
        Message::Digest(_) => Err(UseError::Scheme("a key of the kind ed25519 signs messages, not digests")),
    }
}

fn rsa_choice(scheme: &Scheme) -> Result<(Hash, Padding), UseError> {
    match scheme.form {
        Some(_) => Err(UseError::Scheme("form: only ECDSA signatures have one")),
        None => Ok((scheme.hash.unwrap_or(Hash::Sha256), scheme.padding.unwrap_or(Padding::Pss))),
    }
}

fn rsa_encoding(scheme: &Scheme) -> Result<(Hash, &'static dyn RsaEncoding), UseError> {
    let (hash, padding) = rsa_choice(scheme)?;
    let encoding: &dyn RsaEncoding = match (padding, hash) {
        (Padding::Pss, Hash::Sha256) => &signature::RSA_PSS_SHA256,
        (Padding::Pss, Hash::Sha384) => &signature::RSA_PSS_SHA384,
        (Padding::Pss, Hash::Sha512) => &signature::RSA_PSS_SHA512,
        (Padding::Pkcs1v15, Hash::Sha256) => &signature::RSA_PKCS1_SHA256,
        (Padding::Pkcs1v15, Hash::Sha384) => &signature::RSA_PKCS1_SHA384,
        (Padding::Pkcs1v15, Hash::Sha512) => &signature::RSA_PKCS1_SHA512,
    };
    Ok((hash, encoding))
}

pub(super) fn verify_ecdsa(curve: Curve, public: &[u8], scheme: &Scheme, message: Message<'_>, signature: &[u8]) -> Result<bool, UseError> {
    let algorithm: &'static dyn VerificationAlgorithm = match (curve, curve.form(scheme)?) {
        (Curve::P256, Form::Der) => &ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Form::Raw) => &ECDSA_P256_SHA256_FIXED,
        (Curve::P384, Form::Der) => &ECDSA_P384_SHA384_ASN1,
        (Curve::P384, Form::Raw) => &ECDSA_P384_SHA384_FIXED,
    };
    holds(algorithm, public, curve.hash(), message, signature)
}

pub(super) fn verify_ed25519(public: &[u8], scheme: &Scheme, message: Message<'_>, signature: &[u8]) -> Result<bool, UseError> {
    let message = ed25519(scheme, message)?;
    Ok(UnparsedPublicKey::new(&signature::ED25519, public).verify(message, signature).is_ok())
}

pub(super) fn verify_rsa(public: &[u8], scheme: &Scheme, message: Message<'_>, signature: &[u8]) -> Result<bool, UseError> {
    let (hash, padding) = rsa_choice(scheme)?;
    let algorithm: &'static dyn VerificationAlgorithm = match (padding, hash) {
        (Padding::Pss, Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
        (Padding::Pss, Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
        (Padding::Pss, Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        (Padding::Pkcs1v15, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Padding::Pkcs1v15, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Padding::Pkcs1v15, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
    };
    holds(algorithm, public, hash, message, signature)
}

fn holds(
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
    hash: Hash,
    message: Message<'_>,
    signature: &[u8],
) -> Result<bool, UseError> {
    let key = UnparsedPublicKey::new(algorithm, public);
    let checked = match message {
        Message::Whole(message) => key.verify(message, signature),
        Message::Digest(digest) => key.verify_digest(&hash.import(digest)?, signature),
    };
    Ok(checked.is_ok())
}
