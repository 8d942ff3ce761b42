//! `claviger generate keypair`: a private key for use elsewhere, and its public key for everybody.

use super::{Into, Made};
use crate::failure::Failure;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

/// A private key in PEM (PKCS#8), and its public key.
///
/// The private key is printed as PEM (PKCS#8), or put into a key with --into; then the public key as PEM (SubjectPublicKeyInfo) and
/// in OpenSSH's form, which are no secrets.
#[derive(Args)]
pub(crate) struct Options {
    /// The algorithm.
    algorithm: Algorithm,
    /// Bits of an RSA key.
    #[arg(long, value_name = "N", default_value = "3072", value_parser = ["2048", "3072", "4096"])]
    bits: String,
    /// The comment in OpenSSH's form.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = comment)]
    comment: String,
    #[command(flatten)]
    pub(super) to: Into,
}

#[derive(Clone, Copy, ValueEnum)]
enum Algorithm {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    Rsa,
}

/// A key pair in bytes.
struct Pair {
    /// PKCS#8.
    private: SecretBytes,
    /// SubjectPublicKeyInfo.
    public: Vec<u8>,
    /// The public key as OpenSSH's wire form has it, with its algorithm's name.
    openssh: (&'static str, Vec<u8>),
}

impl Options {
    pub(super) fn make(&self) -> Result<Made, Failure> {
        let pair = match self.algorithm {
            Algorithm::Ed25519 => ed25519(),
            Algorithm::EcdsaP256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, "ecdsa-sha2-nistp256", "nistp256"),
            Algorithm::EcdsaP384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING, "ecdsa-sha2-nistp384", "nistp384"),
            Algorithm::Rsa => rsa(match self.bits.as_str() {
                "2048" => KeySize::Rsa2048,
                "4096" => KeySize::Rsa4096,
                _ => KeySize::Rsa3072,
            }),
        };
        let Pair { private, public, openssh: (name, wire) } =
            pair.map_err(|_| Failure::other("the cipher library could not make a key"))?;
        let line = format!("{name} {} {}", STANDARD.encode(wire), self.comment);
        let public_pem = pem("PUBLIC KEY", &public).to_string();
        Ok(Made {
            secret: SecretBytes::new(pem("PRIVATE KEY", private.expose()).as_bytes().to_vec()),
            entropy: None,
            public: vec![("public", public_pem), ("openssh", format!("{}\n", line.trim_end()))],
        })
    }
}

fn ed25519() -> Result<Pair, Unspecified> {
    let pair = Ed25519KeyPair::generate()?;
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?.as_ref().to_vec();
    // Version 1 of PKCS#8, without the public key: OpenSSL before 3.2 reads no other.
    let private = SecretBytes::new(pair.to_pkcs8v1()?.as_ref().to_vec());
    Ok(Pair { private, public, openssh: ("ssh-ed25519", fields(&[b"ssh-ed25519", pair.public_key().as_ref()])) })
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, name: &'static str, curve: &str) -> Result<Pair, Unspecified> {
    let pair = EcdsaKeyPair::generate(algorithm)?;
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?.as_ref().to_vec();
    let private = SecretBytes::new(pair.to_pkcs8v1()?.as_ref().to_vec());
    Ok(Pair { private, public, openssh: (name, fields(&[name.as_bytes(), curve.as_bytes(), pair.public_key().as_ref()])) })
}

fn rsa(size: KeySize) -> Result<Pair, Unspecified> {
    let pair = RsaKeyPair::generate(size)?;
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?.as_ref().to_vec();
    let private = SecretBytes::new(AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?.as_ref().to_vec());
    // What DER writes of a number, two's complement with its sign, is what SSH writes of it (RFC 4251 §5, mpint).
    let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref()).ok_or(Unspecified)?;
    Ok(Pair { private, public, openssh: ("ssh-rsa", fields(&[b"ssh-rsa", exponent, modulus])) })
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017 §A.1.1) that the cipher library wrote.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, rest) = element(0x30, der)?;
    let (modulus, sequence) = element(0x02, sequence)?;
    let (exponent, end) = element(0x02, sequence)?;
    (rest.is_empty() && end.is_empty()).then_some((modulus, exponent))
}

/// The contents of the element that `der` begins with, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    let bytes = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let (long, rest) = rest.split_at_checked(bytes).filter(|_| found == tag && bytes <= 2)?;
    let length = if bytes == 0 { usize::from(first) } else { long.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)) };
    rest.split_at_checked(length)
}

/// Strings as SSH writes them, each behind its length (RFC 4251 §5).
fn fields(all: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for field in all {
        // No public key here passes a kilobyte.
        wire.extend((field.len() as u32).to_be_bytes());
        wire.extend(*field);
    }
    wire
}

/// PEM as RFC 7468 has it: 64 characters on a line.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / 64 + 80));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn comment(text: &str) -> Result<String, String> {
    match text.chars().any(char::is_control) {
        true => Err("a comment is one line".to_owned()),
        false => Ok(text.to_owned()),
    }
}
