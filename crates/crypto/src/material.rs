//! The material of keys that are used: making it, and checking what was made elsewhere.
//!
//! What a version holds: 32 random bytes for `aes256-gcm` and `hmac`, PKCS#8 (RFC 5958) in DER for kinds with a
//! public half, a Tink keyset of one key for `tink`.

use crate::once::random_key;
use crate::tink::{Keyset, Template};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use claviger_domain::{KeyKind, KeyPolicy, SecretBytes};
use std::ops::RangeInclusive;
use thiserror::Error;

/// Bytes of an HMAC key that was made elsewhere: below, it is guessable or nearly so; above, nothing is gained.
const HMAC_KEY: RangeInclusive<usize> = 16..=512;

/// Why there is no material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MaterialError {
    /// This program does not make keys of this kind.
    #[error("this program makes no keys of the kind {}", .0.name())]
    NotOffered(KeyKind),
    /// No template of this name.
    #[error("there is no such template; there are {}", Template::ALL.map(Template::name).join(", "))]
    NoTemplate,
    /// The cryptographic library failed, which it does not in health.
    #[error("the cryptographic library made no key")]
    Library,
    /// The bytes are no key of this kind.
    #[error("that is no key of the kind {}: {why}", kind.name())]
    NotOfKind {
        /// The kind.
        kind: KeyKind,
        /// What is expected.
        why: &'static str,
    },
}

/// Makes the material of a new version. An RSA key of 4,096 bits takes about a second of a core.
///
/// # Errors
/// [`MaterialError::NotOffered`]: a secret is given, not made. [`MaterialError::Library`].
pub fn generate(kind: KeyKind, policy: &KeyPolicy) -> Result<SecretBytes, MaterialError> {
    let library = |_| MaterialError::Library;
    let pkcs8 = |document: aws_lc_rs::pkcs8::Document| SecretBytes::new(document.as_ref().to_vec());
    let random = SystemRandom::new();
    match kind {
        KeyKind::Aes256Gcm | KeyKind::Hmac => Ok(SecretBytes::new(random_key().to_vec())),
        KeyKind::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map(pkcs8).map_err(library),
        KeyKind::EcdsaP384 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).map(pkcs8).map_err(library),
        KeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&random).map(pkcs8).map_err(library),
        KeyKind::Rsa => generate_rsa(policy),
        KeyKind::Tink => generate_keyset(policy),
        other => Err(MaterialError::NotOffered(other)),
    }
}

fn generate_keyset(policy: &KeyPolicy) -> Result<SecretBytes, MaterialError> {
    let template = policy.template.as_deref().and_then(Template::by_name).ok_or(MaterialError::NoTemplate)?;
    // A key's versions name each other apart by 32 random bits; should two ever agree, both are tried.
    let keyset = template.generate(&[]).map_err(|_| MaterialError::Library)?;
    Ok(keyset.encode())
}

fn generate_rsa(policy: &KeyPolicy) -> Result<SecretBytes, MaterialError> {
    let library = |_| MaterialError::Library;
    let size = match policy.rsa_bits {
        Some(2048) => KeySize::Rsa2048,
        Some(4096) => KeySize::Rsa4096,
        _ => KeySize::Rsa3072,
    };
    let pair = rsa::KeyPair::generate(size).map_err(library)?;
    let der: Pkcs8V1Der<'static> = pair.as_der().map_err(library)?;
    Ok(SecretBytes::new(der.as_ref().to_vec()))
}

/// Checks that `material`, made elsewhere, is a key of `kind` as `policy` wants it.
///
/// # Errors
/// [`MaterialError::NotOfKind`] says what is expected; [`MaterialError::NotOffered`].
pub fn check_imported(kind: KeyKind, policy: &KeyPolicy, material: &SecretBytes) -> Result<(), MaterialError> {
    let refused = |why| MaterialError::NotOfKind { kind, why };
    let bytes = material.expose();
    let pkcs8 = |good: Result<(), KeyRejected>, why| good.map_err(|_| refused(why));
    match kind {
        KeyKind::Aes256Gcm if bytes.len() == 32 => Ok(()),
        KeyKind::Aes256Gcm => Err(refused("it has 32 bytes")),
        KeyKind::Hmac if HMAC_KEY.contains(&bytes.len()) => Ok(()),
        KeyKind::Hmac => Err(refused("it has 16 to 512 bytes")),
        KeyKind::EcdsaP256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes);
            pkcs8(pair.map(drop), "expected a private key of the curve P-256 as PKCS#8 in DER")
        }
        KeyKind::EcdsaP384 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, bytes);
            pkcs8(pair.map(drop), "expected a private key of the curve P-384 as PKCS#8 in DER")
        }
        KeyKind::Ed25519 => pkcs8(Ed25519KeyPair::from_pkcs8(bytes).map(drop), "expected an Ed25519 private key as PKCS#8 in DER"),
        KeyKind::Rsa => {
            let why = "expected an RSA private key of the key's length in bits as PKCS#8 in DER";
            let pair = rsa::KeyPair::from_pkcs8(bytes).map_err(|_| refused(why))?;
            let bits = pair.public_modulus_len() * 8;
            if policy.rsa_bits.map(usize::from) == Some(bits) { Ok(()) } else { Err(refused(why)) }
        }
        KeyKind::Tink => {
            let why = "expected a keyset of one enabled key as the template makes it, with its parameters, in Tink's binary form";
            let keyset = Keyset::parse(bytes).map_err(|_| refused(why))?;
            let template = policy.template.as_deref().and_then(Template::by_name).ok_or(MaterialError::NoTemplate)?;
            if template.could_have_made(&keyset) && crate::uses::is_usable_keyset(material) { Ok(()) } else { Err(refused(why)) }
        }
        other => Err(MaterialError::NotOffered(other)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_made_is_of_its_kind_and_of_no_other() {
        let policy = KeyPolicy { rsa_bits: Some(2048), ..KeyPolicy::default() };
        let kinds = [KeyKind::Aes256Gcm, KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519, KeyKind::Rsa];
        for made in kinds {
            let material = generate(made, &policy).unwrap();
            for kind in kinds {
                assert_eq!(check_imported(kind, &policy, &material).is_ok(), kind == made, "{made:?} as {kind:?}");
            }
        }
        let rsa = generate(KeyKind::Rsa, &policy).unwrap();
        let longer = KeyPolicy { rsa_bits: Some(3072), ..KeyPolicy::default() };
        assert!(check_imported(KeyKind::Rsa, &longer, &rsa).is_err());
        assert_eq!(generate(KeyKind::Secret, &policy).unwrap_err(), MaterialError::NotOffered(KeyKind::Secret));
        assert_ne!(generate(KeyKind::Hmac, &policy).unwrap().expose(), generate(KeyKind::Hmac, &policy).unwrap().expose());
    }

    #[test]
    fn a_keyset_from_elsewhere_is_what_its_template_says() {
        let policy = |template: Template| KeyPolicy { template: Some(template.name().into()), ..KeyPolicy::default() };
        for made in Template::ALL {
            let material = generate(KeyKind::Tink, &policy(made)).unwrap();
            for template in Template::ALL {
                let taken = check_imported(KeyKind::Tink, &policy(template), &material).is_ok();
                assert_eq!(taken, template == made, "{made:?} as {template:?}");
            }
        }
        // A key whose template would have a longer tag, a public key alone, and one that is disabled.
        let mac = generate(KeyKind::Tink, &policy(Template::MacHmacSha512)).unwrap();
        let at = mac.expose().windows(4).position(|part| part == [8, 4, 16, 32]).unwrap();
        let mut short_tag = mac.expose().to_vec();
        short_tag[at + 3] = 10;
        let signing = generate(KeyKind::Tink, &policy(Template::DsigEd25519)).unwrap();
        let public = Keyset::parse(signing.expose()).unwrap().public().unwrap().encode();
        let mut disabled = signing.expose().to_vec();
        let status = disabled.windows(3).position(|part| part == [16, 1, 24]).unwrap();
        disabled[status + 1] = 2;
        for (template, material) in
            [(Template::MacHmacSha512, &short_tag[..]), (Template::DsigEd25519, public.expose()), (Template::DsigEd25519, &disabled)]
        {
            assert!(Keyset::parse(material).is_ok());
            let refused = check_imported(KeyKind::Tink, &policy(template), &SecretBytes::new(material.to_vec()));
            assert!(matches!(refused, Err(MaterialError::NotOfKind { .. })), "{template:?}");
        }
    }

    #[test]
    fn an_hmac_key_from_elsewhere_is_neither_short_nor_endless() {
        for (len, good) in [(0, false), (15, false), (16, true), (65, true), (512, true), (513, false)] {
            let material = SecretBytes::new(vec![7; len]);
            assert_eq!(check_imported(KeyKind::Hmac, &KeyPolicy::default(), &material).is_ok(), good, "{len}");
        }
    }
}
