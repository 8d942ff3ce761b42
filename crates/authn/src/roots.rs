//! The authorities that one method trusts.

use crate::certificate::Certificate;
use claviger_domain::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, pem::PemObject};
use thiserror::Error;

/// The certificates of authorities that may vouch for callers. Never empty.
///
/// A root's own terms count, as in Go: outside its validity, or when its extended key usages leave clients out, it vouches
/// for nobody. Only authorities are accepted: a caller's own certificate would, as a root, be able to vouch for others.
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    terms: Vec<Terms>,
}

#[derive(Clone, Copy)]
struct Terms {
    not_before: Timestamp,
    not_after: Timestamp,
    for_clients: bool,
}

/// Why roots could not be loaded. `from` is what the caller named them, a path as a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// The PEM text is broken.
    #[error("{from} is not well-formed PEM; it must hold CA certificates between BEGIN CERTIFICATE and END CERTIFICATE lines")]
    Pem {
        /// Where it came from.
        from: String,
    },
    /// No certificate in it.
    #[error("{from} has no certificate in PEM form; an empty list of roots would refuse everybody")]
    Empty {
        /// Where it came from.
        from: String,
    },
    /// One certificate cannot be read.
    #[error("certificate {number} in {from} cannot be read")]
    BadCertificate {
        /// Where it came from.
        from: String,
        /// Which one, from 1.
        number: usize,
    },
    /// One certificate is no authority's.
    #[error("certificate {number} in {from} is not a CA certificate (it lacks CA:TRUE or the right to sign certificates)")]
    NotAuthority {
        /// Where it came from.
        from: String,
        /// Which one, from 1.
        number: usize,
    },
}

impl Roots {
    /// Reads every certificate in `pem`. Other PEM sections are passed over.
    ///
    /// # Errors
    /// [`RootsError`], which names `from`. One bad certificate refuses all: half a list would lock callers out silently.
    pub fn from_pem(from: &str, pem: &[u8]) -> Result<Self, RootsError> {
        let mut roots = Self { anchors: Vec::new(), terms: Vec::new() };
        for (i, section) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let certificate = section.map_err(|_| RootsError::Pem { from: from.to_owned() })?;
            roots.add(from, i + 1, &certificate)?;
        }
        if roots.anchors.is_empty() {
            return Err(RootsError::Empty { from: from.to_owned() });
        }
        Ok(roots)
    }

    fn add(&mut self, from: &str, number: usize, der: &CertificateDer<'_>) -> Result<(), RootsError> {
        let bad = || RootsError::BadCertificate { from: from.to_owned(), number };
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| bad())?;
        let read = Certificate::parse(der).map_err(|_| bad())?;
        if !read.may_sign_certificates() {
            return Err(RootsError::NotAuthority { from: from.to_owned(), number });
        }
        self.anchors.push(anchor.to_owned());
        self.terms.push(Terms { not_before: read.not_before, not_after: read.not_after, for_clients: read.for_clients });
        Ok(())
    }

    /// How many there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Until when `anchor` may vouch for clients, as of `now`. A root renewed with its old key stands here twice; the
    /// longest of its terms counts.
    pub(crate) fn vouches_until(&self, anchor: &TrustAnchor<'_>, now: Timestamp) -> Result<Timestamp, webpki::Error> {
        let same = self.anchors.iter().zip(&self.terms).filter(|(a, _)| *a == anchor).map(|(_, terms)| terms);
        let good = |t: &&Terms| t.for_clients && t.not_before <= now && now <= t.not_after;
        if let Some(until) = same.clone().filter(good).map(|t| t.not_after).max() {
            return Ok(until);
        }
        match same.filter(|t| t.for_clients).max_by_key(|t| t.not_after) {
            Some(latest) => Err(crate::chain::out_of_time(now, latest.not_before, latest.not_after)),
            None => Err(crate::chain::wrong_usage()),
        }
    }
}

impl std::fmt::Debug for Roots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Roots({})", self.anchors.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::Authority;
    use rcgen::{IsCa, KeyUsagePurpose};

    fn load(pem: &str) -> Result<usize, RootsError> {
        Roots::from_pem("ca.pem", pem.as_bytes()).map(|r| r.len())
    }

    #[test]
    fn several_certificates_among_other_text_are_all_loaded() {
        let [a, b] = ["a", "b"].map(|n| Authority::root(n).issuer.pem());
        assert_eq!(load(&format!("# ours\n{a}\n# theirs\n{b}\n")), Ok(2));
    }

    #[test]
    fn what_would_trust_nobody_or_the_wrong_one_is_refused_by_name() {
        let from = || "ca.pem".to_owned();
        let good = Authority::root("a").issuer.pem();
        let leaf = Authority::root_with("leaf", &rcgen::PKCS_ED25519, &|p| p.is_ca = IsCa::ExplicitNoCa).issuer.pem();
        let no_sign = |p: &mut rcgen::CertificateParams| p.key_usages = vec![KeyUsagePurpose::CrlSign];
        let no_sign = Authority::root_with("x", &rcgen::PKCS_ED25519, &no_sign).issuer.pem();
        for (pem, error) in [
            ("", RootsError::Empty { from: from() }),
            ("garbage", RootsError::Empty { from: from() }),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", RootsError::Empty { from: from() }),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", RootsError::Pem { from: from() }),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", RootsError::Pem { from: from() }),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", RootsError::BadCertificate { from: from(), number: 1 }),
            (&leaf, RootsError::NotAuthority { from: from(), number: 1 }),
            (&no_sign, RootsError::NotAuthority { from: from(), number: 1 }),
            (&format!("{good}{leaf}"), RootsError::NotAuthority { from: from(), number: 2 }),
        ] {
            assert!(error.to_string().contains("ca.pem"));
            assert_eq!(load(pem), Err(error), "{pem}");
        }
    }
}
