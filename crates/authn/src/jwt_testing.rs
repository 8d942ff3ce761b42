//! An issuer for tests: keys of every algorithm, and tokens signed as they are asked for.
#![allow(clippy::unwrap_used)]

use crate::jwks::KeySet;
use crate::jwt::Algorithm;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A signing key and its public form.
pub(crate) struct Signer {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: &'static str,
    key: Private,
}

enum Private {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
}

/// One key for each algorithm, made once.
pub(crate) static SIGNERS: LazyLock<[Signer; 5]> = LazyLock::new(|| {
    let kids = ["rs", "ps", "es256", "es384", "ed"];
    let mut kids = kids.into_iter();
    Algorithm::ALL.map(|algorithm| Signer::new(algorithm, kids.next().unwrap()))
});

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn new(algorithm: Algorithm, kid: &'static str) -> Self {
        let key = match algorithm {
            Algorithm::Rs256 | Algorithm::Ps256 => Private::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
            Algorithm::Es256 => Private::Ec(Box::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())),
            Algorithm::Es384 => Private::Ec(Box::new(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())),
            Algorithm::EdDsa => Private::Ed(Box::new(Ed25519KeyPair::generate().unwrap())),
        };
        Self { algorithm, kid, key }
    }

    pub(crate) fn of(algorithm: Algorithm) -> &'static Self {
        SIGNERS.iter().find(|s| s.algorithm == algorithm).unwrap()
    }

    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Private::Rsa(key) => {
                // RSAPublicKey of 2048 bits: the modulus stands at a fixed place, and the exponent is 65537.
                let der = key.public_key().as_ref();
                json!({ "kty": "RSA", "n": encode(&der[9..265]), "e": "AQAB" })
            }
            Private::Ec(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Private::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref()) }),
        };
        jwk["kid"] = self.kid.into();
        jwk["alg"] = self.algorithm.name().into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub(crate) fn signature(&self, algorithm: Algorithm, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Rsa(key) => {
                let padding = if algorithm == Algorithm::Ps256 {
                    &RSA_PSS_SHA256 as &dyn aws_lc_rs::signature::RsaEncoding
                } else {
                    &RSA_PKCS1_SHA256
                };
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, signed, &mut out).unwrap();
                out
            }
            Private::Ec(key) => key.sign(&random, signed).unwrap().as_ref().to_vec(),
            Private::Ed(key) => key.sign(signed).as_ref().to_vec(),
        }
    }

    /// A token with just this header.
    pub(crate) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.signature(self.algorithm, signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "alg": self.algorithm.name(), "kid": self.kid, "typ": "JWT" }), claims)
    }
}

/// The set of these keys.
pub(crate) fn set(jwks: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap()
}
