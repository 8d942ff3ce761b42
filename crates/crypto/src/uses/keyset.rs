//! Keys of the kind `tink`: one version is a keyset of one key, and is used in Tink's own formats, which name the key.

use super::UseError;
use super::public::PublicKey;
use super::scheme::{Hash, Message, Scheme};
use crate::tink::{
    Aead, DeterministicAead, Family, HybridDecrypt, HybridEncrypt, Keyset, Mac, Signer, StreamingAead, TinkError, Verifier, key_id_of,
};
use claviger_domain::{KeyKind, SecretBytes};

/// One version's keyset, ready for its uses.
pub(super) struct TinkKey {
    ids: Vec<u32>,
    uses: Uses,
    /// The public half as a keyset.
    public: Option<Vec<u8>>,
}

/// What the keyset's template is for. The keys in it are expanded once.
enum Uses {
    Aead(Aead),
    Deterministic(DeterministicAead),
    Streaming(StreamingAead),
    Hybrid(HybridEncrypt, HybridDecrypt),
    Mac(Mac),
    Signature(Signer, Verifier),
}

fn cannot<T>(what: &'static str) -> Result<T, UseError> {
    Err(UseError::Kind { kind: KeyKind::Tink, what })
}

fn refused(error: TinkError) -> UseError {
    match error {
        TinkError::NotAuthentic => UseError::NotAuthentic,
        TinkError::TooLong => UseError::TooLong,
        other => UseError::Tink(other),
    }
}

impl TinkKey {
    pub(super) fn new(material: &SecretBytes) -> Result<Self, UseError> {
        let keyset = Keyset::parse(material.expose()).map_err(UseError::Tink)?;
        let family = keyset.family().ok_or(UseError::Material)?;
        let public = match family {
            Family::Hybrid | Family::Signature => Some(keyset.public().map_err(UseError::Tink)?),
            _ => None,
        };
        let uses = Uses::new(family, &keyset, public.as_ref().unwrap_or(&keyset)).map_err(UseError::Tink)?;
        let public = public.map(|public| public.encode().expose().to_vec());
        Ok(Self { ids: keyset.keys().iter().map(|key| key.id()).collect(), uses, public })
    }

    pub(super) fn could_have_made(&self, made: &[u8]) -> bool {
        key_id_of(made).is_some_and(|id| self.ids.contains(&id))
    }

    pub(super) fn encrypt(&self, plain: &SecretBytes, aad: &[u8]) -> Result<Vec<u8>, UseError> {
        let plain = plain.expose();
        match &self.uses {
            Uses::Aead(it) => it.encrypt(plain, aad),
            Uses::Deterministic(it) => it.encrypt(plain, aad),
            Uses::Streaming(it) => it.encrypt(plain, aad),
            Uses::Hybrid(it, _) => it.encrypt(plain, aad),
            Uses::Mac(_) | Uses::Signature(..) => return cannot("encrypt with this template"),
        }
        .map_err(refused)
    }

    pub(super) fn decrypt(&self, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, UseError> {
        match &self.uses {
            Uses::Aead(it) => it.decrypt(sealed, aad),
            Uses::Deterministic(it) => it.decrypt(sealed, aad),
            Uses::Streaming(it) => it.decrypt(sealed, aad),
            Uses::Hybrid(_, it) => it.decrypt(sealed, aad),
            Uses::Mac(_) | Uses::Signature(..) => return cannot("decrypt with this template"),
        }
        .map(|opened| opened.plain)
        .map_err(refused)
    }

    pub(super) fn sign(&self, scheme: &Scheme, message: Message<'_>) -> Result<Vec<u8>, UseError> {
        let message = whole(scheme, message)?;
        match &self.uses {
            Uses::Signature(signer, _) => signer.sign(message).map_err(refused),
            Uses::Mac(_) => cannot("sign with this template; ask for its hmac"),
            _ => cannot("sign with this template"),
        }
    }

    pub(super) fn mac(&self, hash: Option<Hash>, message: &[u8]) -> Result<Vec<u8>, UseError> {
        let message = whole(&Scheme { hash, ..Scheme::default() }, Message::Whole(message))?;
        match &self.uses {
            Uses::Mac(mac) => Ok(mac.compute(message)),
            _ => cannot("make message authentication codes with this template"),
        }
    }

    pub(super) fn verify(&self, scheme: &Scheme, message: Message<'_>, proof: &[u8]) -> Result<bool, UseError> {
        let message = whole(scheme, message)?;
        let checked = match &self.uses {
            Uses::Signature(_, verifier) => verifier.verify(proof, message),
            Uses::Mac(mac) => mac.verify(proof, message),
            _ => return cannot("verify with this template"),
        };
        match checked {
            Ok(_) => Ok(true),
            Err(TinkError::NotAuthentic) => Ok(false),
            Err(other) => Err(UseError::Tink(other)),
        }
    }

    pub(super) fn public_key(&self) -> Result<PublicKey, UseError> {
        match &self.public {
            Some(public) => Ok(PublicKey::Keyset(public.clone())),
            None => cannot("have a public half with this template"),
        }
    }
}

impl Uses {
    fn new(family: Family, keyset: &Keyset, public: &Keyset) -> Result<Self, TinkError> {
        Ok(match family {
            Family::Aead => Self::Aead(Aead::new(keyset)?),
            Family::DeterministicAead => Self::Deterministic(DeterministicAead::new(keyset)?),
            Family::StreamingAead => Self::Streaming(StreamingAead::new(keyset)?),
            Family::Hybrid => Self::Hybrid(HybridEncrypt::new(public)?, HybridDecrypt::new(keyset)?),
            Family::Mac => Self::Mac(Mac::new(keyset)?),
            Family::Signature => Self::Signature(Signer::new(keyset)?, Verifier::new(public)?),
        })
    }
}

/// Whether a keyset is ready for its uses.
pub(crate) fn is_usable(material: &SecretBytes) -> bool {
    TinkKey::new(material).is_ok()
}

/// Tink fixes everything in its template.
fn whole<'m>(scheme: &Scheme, message: Message<'m>) -> Result<&'m [u8], UseError> {
    match message {
        Message::Whole(message) if *scheme == Scheme::default() => Ok(message),
        Message::Whole(_) => Err(UseError::Scheme("a key of the kind tink has no hash, padding or form to choose: its template says them")),
        Message::Digest(_) => Err(UseError::Scheme("a key of the kind tink takes messages, not digests")),
    }
}
