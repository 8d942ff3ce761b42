//! Entry points for fuzzers: each takes bytes from outside and must return, whatever they are.

use crate::certificate::Certificate;
use crate::{Algorithm, Credential, Evidence, KeySet, Logins, Roots, Sessions, Unverified, github, hostname};
use claviger_domain::{SecretBytes, Timestamp};
use rustls_pki_types::CertificateDer;

/// Reads `der` as a certificate and, as `roots` may be, tries to verify it.
pub fn certificate(roots: &Roots, der: &[u8]) {
    if let Ok(read) = Certificate::parse(der) {
        let _ = (read.may_sign_certificates(), read.claims_to_sign());
    }
    let certificates = [CertificateDer::from(der.to_vec()), CertificateDer::from(der.to_vec())];
    let _ = crate::chain::verify(roots, &Evidence { certificates: &certificates, now: Timestamp(1_800_000_000_000_000_000) });
}

/// Reads `pem` as a file of roots.
pub fn roots(pem: &[u8]) {
    let _ = Roots::from_pem("fuzz", pem);
}

/// Reads `header` as an `Authorization` header of Knox, and compares its payload with itself as a host name.
pub fn credential(header: &[u8]) {
    if let Some(credential) = Credential::parse(header) {
        let name = String::from_utf8_lossy(credential.payload);
        let _ = (hostname::address(&name), hostname::allows(&name, &name), format!("{credential:?}"));
    }
}

/// Reads bytes as everything that people's logins bring: a token, a key set, a ticket, a session, answers about a user.
pub fn token(bytes: &[u8]) {
    let now = Timestamp(1_800_000_000_000_000_000);
    if let (Ok(token), Ok(keys)) = (Unverified::parse(bytes), KeySet::parse(br#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#)) {
        assert!(token.verify(&keys, &Algorithm::ALL).is_err(), "nobody has that key");
    }
    let _ = KeySet::parse(bytes);
    let _ = (github::login(bytes), github::organisations(bytes), github::may_be_token(bytes));
    let logins = Logins::new(&SecretBytes::new(vec![7; 32]), now);
    let text = String::from_utf8_lossy(bytes);
    assert!(logins.open(&text).is_err() && logins.spend(bytes, Some(&text), now, now).is_err());
    assert!(Sessions::default().find(bytes, now).is_none());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::Authority;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static ROOTS: LazyLock<Roots> = LazyLock::new(|| Authority::root("ca").roots());
    static LEAF: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let names = ["a.x.com", "10.0.0.1", "spiffe://dom/a"];
        Authority::root("ca").leaf(&names, &|_| {})[0].as_ref().to_vec()
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            certificate(&ROOTS, &bytes);
            credential(&bytes);
            roots(&bytes);
        }

        #[test]
        fn a_certificate_with_changed_bytes_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in 0usize..3) {
            let mut bytes = LEAF.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut);
            certificate(&ROOTS, &bytes);
        }

        #[test]
        fn pem_like_text_never_panics(text in "(-----(BEGIN|END) (CERTIFICATE|X)-----\n|[A-Za-z0-9+/=]{0,40}\n){0,6}") {
            roots(text.as_bytes());
        }
    }
}
