//! Public halves, in the forms in which others take them.

use super::UseError;
use super::pair::Curve;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Of a key that signs or decrypts.
    Single {
        /// A SubjectPublicKeyInfo (RFC 5280 §4.1) in DER.
        der: Vec<u8>,
        /// The same as a JSON Web Key.
        jwk: Jwk,
    },
    /// A Tink keyset of public keys, in its binary form.
    Keyset(Vec<u8>),
}

/// The members of a JSON Web Key (RFC 7517, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    /// `kty`.
    pub kind: &'static str,
    /// All other members that make the key.
    pub members: Vec<(&'static str, String)>,
}

impl PublicKey {
    pub(super) fn ecdsa(curve: Curve, key: &aws_lc_rs::signature::EcdsaPublicKey) -> Result<Self, UseError> {
        let point = key.as_ref().strip_prefix(&[4]).ok_or(UseError::Material)?;
        let (x, y) = point.split_at(point.len() / 2);
        let name = match curve {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        };
        let members = vec![("crv", name.to_owned()), ("x", text(x)), ("y", text(y))];
        Self::single(key, Jwk { kind: "EC", members })
    }

    pub(super) fn ed25519(key: &(impl AsRef<[u8]> + AsDer<PublicKeyX509Der<'static>>)) -> Result<Self, UseError> {
        let members = vec![("crv", "Ed25519".to_owned()), ("x", text(key.as_ref()))];
        Self::single(key, Jwk { kind: "OKP", members })
    }

    pub(super) fn rsa(key: &rsa::PublicKey) -> Result<Self, UseError> {
        let (n, e) = rsa_numbers(key.as_ref()).ok_or(UseError::Material)?;
        Self::single(key, Jwk { kind: "RSA", members: vec![("n", text(n)), ("e", text(e))] })
    }

    fn single(key: &impl AsDer<PublicKeyX509Der<'static>>, jwk: Jwk) -> Result<Self, UseError> {
        let der = key.as_der().map_err(|_| UseError::Material)?;
        Ok(Self::Single { der: der.as_ref().to_vec(), jwk })
    }

    /// The key as PEM (RFC 7468 §13); a keyset has no such form.
    #[must_use]
    pub fn pem(&self) -> Option<String> {
        match self {
            Self::Single { der, .. } => Some(pem(der)),
            Self::Keyset(_) => None,
        }
    }
}

fn text(number: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(number)
}

/// A SubjectPublicKeyInfo as PEM.
pub(crate) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem + "-----END PUBLIC KEY-----\n"
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 appendix A.1.1) that AWS-LC wrote.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = element(der, 0x30)?;
    let (n, rest) = element(sequence, 0x02)?;
    let (e, _) = element(rest, 0x02)?;
    let positive = |number: &'_ [u8]| number.iter().position(|b| *b != 0).unwrap_or(0);
    Some((&n[positive(n)..], &e[positive(e)..]))
}

/// Content of the DER element at the front, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0x82 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// An ECDSA signature in DER (RFC 3279 §2.2.3) of its raw form.
pub(super) fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let (r, s) = raw.split_at(raw.len() / 2);
    let content = [integer(r), integer(s)].concat();
    // Both numbers have at most 49 bytes, so one byte says each length.
    let len = u8::try_from(content.len()).expect("two numbers of at most 384 bits");
    [&[0x30, len][..], &content].concat()
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|b| **b == 0).count().min(number.len() - 1);
    let number = &number[zeros..];
    let sign: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
    let len = u8::try_from(sign.len() + number.len()).expect("at most 49 bytes");
    [&[0x02, len][..], sign, number].concat()
}
