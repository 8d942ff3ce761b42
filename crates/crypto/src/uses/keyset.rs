//! Keys of the kind `tink`: one version is a keyset of one key, and is used in Tink's own formats, which name the key.

use super::UseError;
use super::public::PublicKey;
use super::scheme::{Hash, Message, Scheme};
use crate::tink::{
    Aead, DeterministicAead, Family, HybridDecrypt, HybridEncrypt, Keyset, Mac, Signer, StreamingAead, TinkError, Verifier, key_id_of,
};
use claviger_domain::{KeyKind, SecretBytes};

/// One version's keyset.
pub(super) struct TinkKey {
    keyset: Keyset,
    family: Family,
}

fn cannot<T>(what: &'static str) -> Result<T, UseError> {
    Err(UseError::Kind { kind: KeyKind::Tink, what })
}

fn refused(error: TinkError) -> UseError {
    match error {
        TinkError::NotAuthentic => UseError::NotAuthentic,
        other => UseError::Tink(other),
    }
}

impl TinkKey {
    pub(super) fn new(material: &SecretBytes) -> Result<Self, UseError> {
        let keyset = Keyset::parse(material.expose()).map_err(UseError::Tink)?;
        let family = keyset.family().ok_or(UseError::Material)?;
        Ok(Self { keyset, family })
    }

    pub(super) fn could_have_made(&self, made: &[u8]) -> bool {
        key_id_of(made).is_some_and(|id| self.keyset.keys().iter().any(|key| key.id() == id))
    }

    pub(super) fn encrypt(&self, plain: &SecretBytes, aad: &[u8]) -> Result<Vec<u8>, UseError> {
        let plain = plain.expose();
        match self.family {
            Family::Aead => Aead::new(&self.keyset).and_then(|it| it.encrypt(plain, aad)),
            Family::DeterministicAead => DeterministicAead::new(&self.keyset).and_then(|it| it.encrypt(plain, aad)),
            Family::StreamingAead => StreamingAead::new(&self.keyset).and_then(|it| it.encrypt(plain, aad)),
            Family::Hybrid => {
                let public = self.keyset.public().map_err(refused)?;
                HybridEncrypt::new(&public).and_then(|it| it.encrypt(plain, aad))
            }
            Family::Mac | Family::Signature => return cannot("encrypt with this template"),
        }
        .map_err(refused)
    }

    pub(super) fn decrypt(&self, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, UseError> {
        match self.family {
            Family::Aead => Aead::new(&self.keyset).and_then(|it| it.decrypt(sealed, aad)),
            Family::DeterministicAead => DeterministicAead::new(&self.keyset).and_then(|it| it.decrypt(sealed, aad)),
            Family::StreamingAead => StreamingAead::new(&self.keyset).and_then(|it| it.decrypt(sealed, aad)),
            Family::Hybrid => HybridDecrypt::new(&self.keyset).and_then(|it| it.decrypt(sealed, aad)),
            Family::Mac | Family::Signature => return cannot("decrypt with this template"),
        }
        .map(|opened| opened.plain)
        .map_err(refused)
    }

    pub(super) fn sign(&self, scheme: &Scheme, message: Message<'_>) -> Result<Vec<u8>, UseError> {
        let message = whole(scheme, message)?;
        match self.family {
            Family::Signature => Signer::new(&self.keyset).and_then(|it| it.sign(message)).map_err(refused),
            Family::Mac => cannot("sign with this template; ask for its hmac"),
            _ => cannot("sign with this template"),
        }
    }

    pub(super) fn mac(&self, hash: Option<Hash>, message: &[u8]) -> Result<Vec<u8>, UseError> {
        let message = whole(&Scheme { hash, ..Scheme::default() }, Message::Whole(message))?;
        match self.family {
            Family::Mac => Ok(Mac::new(&self.keyset).map_err(refused)?.compute(message)),
            _ => cannot("make message authentication codes with this template"),
        }
    }

    pub(super) fn verify(&self, scheme: &Scheme, message: Message<'_>, proof: &[u8]) -> Result<bool, UseError> {
        let message = whole(scheme, message)?;
        let checked = match self.family {
            Family::Signature => {
                let public = self.keyset.public().map_err(refused)?;
                Verifier::new(&public).and_then(|it| it.verify(proof, message))
            }
            Family::Mac => Mac::new(&self.keyset).and_then(|it| it.verify(proof, message)),
            _ => return cannot("verify with this template"),
        };
        match checked {
            Ok(_) => Ok(true),
            Err(TinkError::NotAuthentic) => Ok(false),
            Err(other) => Err(UseError::Tink(other)),
        }
    }

    pub(super) fn public_key(&self) -> Result<PublicKey, UseError> {
        match self.family {
            Family::Signature | Family::Hybrid => {
                let public = self.keyset.public().map_err(refused)?;
                Ok(PublicKey::Keyset(public.encode().expose().to_vec()))
            }
            _ => cannot("have a public half with this template"),
        }
    }
}

/// Tink fixes everything in its template.
fn whole<'m>(scheme: &Scheme, message: Message<'m>) -> Result<&'m [u8], UseError> {
    match message {
        Message::Whole(message) if *scheme == Scheme::default() => Ok(message),
        Message::Whole(_) => Err(UseError::Scheme("a key of the kind tink has no hash, padding or form to choose: its template says them")),
        Message::Digest(_) => Err(UseError::Scheme("a key of the kind tink takes messages, not digests")),
    }
}
