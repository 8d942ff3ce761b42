//! Workloads proven by an X.509-SVID (SPIFFE X509-SVID §5; contract knox §5, providers `spiffe` and `spiffe-fallback`).
//!
//! A certificate is verified against the bundle of its own trust domain, never a pooled store ▲: otherwise every
//! authority could vouch for every domain's workloads.

use crate::certificate::{Certificate, Names};
use crate::{Attempt, Authenticator, ChainError, Evidence, Rejection, Roots, Verdict, chain};
use claviger_domain::{Identity, SpiffeId, SpiffeIdError, Timestamp, TrustDomain};
use std::collections::BTreeMap;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// One bundle of roots per trust domain.
#[derive(Debug)]
pub struct TrustBundles {
    bundles: BTreeMap<TrustDomain, Roots>,
}

impl TrustBundles {
    /// Workloads of these domains are known.
    #[must_use]
    pub fn new(bundles: BTreeMap<TrustDomain, Roots>) -> Self {
        Self { bundles }
    }

    /// Verifies that the presented chain proves the one SPIFFE ID in its leaf, by the bundle of that ID's trust domain.
    ///
    /// # Errors
    /// [`Rejection`]: no certificate, no or several URIs, no SPIFFE ID as Knox takes it, an unknown domain, a bad chain.
    pub fn verify(&self, evidence: &Evidence<'_>) -> Result<VerifiedSvid, Rejection> {
        let (leaf, _) = chain::split(evidence)?;
        let unverified = Certificate::parse(leaf).map_err(|_| ChainError::Malformed)?;
        let uri = only_uri(&unverified.names)?;
        let domain = claimed_domain(uri)?;
        let valid_until = chain::verify(self.bundle(domain)?, evidence)?;
        let strict = strict(uri, unverified.claims_to_sign());
        Ok(VerifiedSvid { uri: uri.into(), strict, valid_until })
    }

    /// Whether any domain's bundle vouches for the chain. This tells two refusals apart and proves no identity.
    pub(crate) fn any_vouches(&self, evidence: &Evidence<'_>) -> bool {
        self.bundles.values().any(|roots| chain::verify(roots, evidence).is_ok())
    }

    fn bundle(&self, domain: &str) -> Result<&Roots, Rejection> {
        let known = TrustDomain::parse(domain).ok().and_then(|d| self.bundles.get(&d));
        let unknown = || ChainError::UnknownTrustDomain(domain.chars().take(255).collect::<String>().into());
        Ok(known.ok_or_else(unknown)?)
    }
}

fn only_uri<'a>(names: &Names<'a>) -> Result<&'a str, Rejection> {
    match names.uri[..] {
        [] => Err(Rejection::NoSpiffeId),
        [uri] => Ok(uri),
        _ => Err(Rejection::ManySpiffeIds),
    }
}

fn claimed_domain(uri: &str) -> Result<&str, Rejection> {
    let rest = uri.strip_prefix(SCHEME).ok_or(Rejection::NotSpiffe)?;
    rest.split_once('/').map(|(domain, _)| domain).ok_or(Rejection::NoPath)
}

fn strict(uri: &str, claims_to_sign: bool) -> Result<(), Rejection> {
    if claims_to_sign {
        return Err(Rejection::MaySign);
    }
    // `spiffe://domain/` has an empty segment, so a valid ID that got here has a path.
    SpiffeId::parse(uri).map(|_| ()).map_err(Rejection::InvalidSpiffeId)
}

/// A verified SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSvid {
    uri: Arc<str>,
    strict: Result<(), Rejection>,
    valid_until: Timestamp,
}

impl VerifiedSvid {
    /// The ID as the certificate has it, if `rules` allow it.
    ///
    /// # Errors
    /// [`Rejection::InvalidSpiffeId`] or [`Rejection::MaySign`], by the strict rules only.
    pub fn id(&self, rules: SpiffeRules) -> Result<Arc<str>, Rejection> {
        match rules {
            SpiffeRules::KnoxLenient => Ok(self.uri.clone()),
            SpiffeRules::Strict => self.strict.clone().map(|()| self.uri.clone()),
        }
    }

    /// The SPIFFE ID by the strict rules.
    ///
    /// # Errors
    /// As for [`VerifiedSvid::id`].
    pub fn spiffe_id(&self) -> Result<SpiffeId, Rejection> {
        let id = self.id(SpiffeRules::Strict)?;
        SpiffeId::parse(&id).map_err(|why: SpiffeIdError| Rejection::InvalidSpiffeId(why))
    }

    /// The last moment at which the chain is good.
    #[must_use]
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }
}

/// The methods `spiffe`: which verified SVIDs identify a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpiffeRules {
    /// The specification's: a valid ID with a path, on a leaf that may sign neither certificates nor revocation lists.
    #[default]
    Strict,
    /// Knox's: `spiffe://`, the domain, a slash, and anything. A CA certificate is refused all the same.
    KnoxLenient,
}

impl Authenticator for SpiffeRules {
    fn method(&self) -> &'static str {
        "spiffe"
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> Verdict {
        let id = match &attempt.certificate.service {
            Err(Rejection::NoCertificate | Rejection::NoProvider) => return Verdict::NotPresented,
            Err(why) => Err(why.clone()),
            Ok(svid) => svid.id(*self),
        };
        id.map_or_else(Verdict::Rejected, |id| Verdict::Verified(Identity::Service { id }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, Change, NOW, at, evidence, raw_names};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose};

    fn bundles(domains: &[(&str, &Authority)]) -> TrustBundles {
        TrustBundles::new(domains.iter().map(|(d, a)| (TrustDomain::parse(d).unwrap(), a.roots())).collect())
    }

    /// The ID by both rules, Knox's first.
    fn check(bundles: &TrustBundles, chain: &[rustls_pki_types::CertificateDer<'static>]) -> (Result<String, Rejection>, bool) {
        let svid = bundles.verify(&evidence(chain));
        let strict = svid.as_ref().is_ok_and(|s| s.id(SpiffeRules::Strict).is_ok() && s.spiffe_id().is_ok());
        (svid.and_then(|s| s.id(SpiffeRules::KnoxLenient)).map(|id| id.to_string()), strict)
    }

    #[test]
    fn one_uri_of_the_right_form_is_an_identity() {
        let ca = Authority::root("ca");
        let bundles = bundles(&[("dom", &ca)]);
        let unknown = |d: &str| Rejection::Chain(ChainError::UnknownTrustDomain(d.into()));
        for (names, expected, strict) in [
            (&["spiffe://dom/ns/a"][..], Ok("spiffe://dom/ns/a"), true),
            (&["spiffe://dom/a", "host.x.com", "10.0.0.1"], Ok("spiffe://dom/a"), true),
            (&["spiffe://dom/"], Ok("spiffe://dom/"), false),
            (&["spiffe://dom/a b?c"], Ok("spiffe://dom/a b?c"), false),
            (&["spiffe://dom/a/"], Ok("spiffe://dom/a/"), false),
            (&["spiffe://dom//"], Ok("spiffe://dom//"), false),
            (&["spiffe://dom/../a"], Ok("spiffe://dom/../a"), false),
            (&["spiffe://dom"], Err(Rejection::NoPath), false),
            (&["SPIFFE://dom/a"], Err(Rejection::NotSpiffe), false),
            (&["https://dom/a"], Err(Rejection::NotSpiffe), false),
            (&["host.x.com"], Err(Rejection::NoSpiffeId), false),
            (&["spiffe://dom/a", "spiffe://dom/b"], Err(Rejection::ManySpiffeIds), false),
            (&["spiffe://dom/a", "https://x/"], Err(Rejection::ManySpiffeIds), false),
            (&["spiffe://other/a"], Err(unknown("other")), false),
            (&["spiffe://Dom/a"], Err(unknown("Dom")), false),
            (&["spiffe:///a"], Err(unknown("")), false),
            (&["spiffe://dom:1/a"], Err(unknown("dom:1")), false),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(check(&bundles, &ca.leaf(names, &|_| {})), (expected, strict), "{names:?}");
        }
    }

    #[test]
    fn an_authority_vouches_for_its_own_trust_domain_only() {
        let [a, b] = ["ca a", "ca b"].map(Authority::root);
        let bundles = bundles(&[("a", &a), ("b", &b)]);
        assert_eq!(check(&bundles, &b.leaf(&["spiffe://b/x"], &|_| {})).0, Ok("spiffe://b/x".into()));
        let forged = b.leaf(&["spiffe://a/x"], &|_| {});
        assert_eq!(check(&bundles, &forged).0, Err(ChainError::UnknownAuthority.into()));
        let helped = [forged, vec![a.issuer.der().clone(), b.issuer.der().clone()]].concat();
        assert_eq!(check(&bundles, &helped).0, Err(ChainError::UnknownAuthority.into()));
    }

    #[test]
    fn a_leaf_that_may_sign_identifies_no_workload() {
        let ca = Authority::root("ca");
        let bundles = bundles(&[("dom", &ca)]);
        let id = || Ok("spiffe://dom/a".to_owned());
        let authority = Err(ChainError::AuthorityAsLeaf.into());
        let table: [(&str, Change<'_>, _, bool); 5] = [
            ("plain", &|_| {}, id(), true),
            ("no key usage", &|p| p.key_usages.clear(), id(), true),
            ("signs certificates", &|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign), id(), false),
            ("signs revocation lists", &|p| p.key_usages.push(KeyUsagePurpose::CrlSign), id(), false),
            ("authority", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), authority, false),
        ];
        for (what, change, lenient, strict) in table {
            assert_eq!(check(&bundles, &ca.leaf(&["spiffe://dom/a"], change)), (lenient, strict), "{what}");
        }
    }

    #[test]
    fn only_context_specific_elements_are_names() {
        let ca = Authority::root("ca");
        let bundles = bundles(&[("dom", &ca)]);
        let with = |body: &'static [u8]| ca.leaf(&[], &|p: &mut CertificateParams| p.custom_extensions.push(raw_names(body)));
        let id = || Ok("spiffe://dom/a".to_owned());
        assert_eq!(check(&bundles, &with(b"\x86\x0espiffe://dom/a")).0, id());
        assert_eq!(check(&bundles, &with(b"\x06\x0espiffe://dom/b\x86\x0espiffe://dom/a")).0, id());
        for other_class in [&b"\x06\x0espiffe://dom/a"[..], b"\x46\x0espiffe://dom/a", b"\xc6\x0espiffe://dom/a"] {
            assert_eq!(check(&bundles, &with(other_class)).0, Err(Rejection::NoSpiffeId));
        }
        for malformed in [&b"\xa6\x0espiffe://dom/a"[..], b"\x86\x0fspiffe://dom/a", b"\x86\x02\xc3\xa9\x86\x0espiffe://dom/a"] {
            assert_eq!(check(&bundles, &with(malformed)).0, Err(ChainError::Malformed.into()));
        }
    }

    #[test]
    fn an_svid_is_good_until_it_expires() {
        let ca = Authority::root("ca");
        let bundles = bundles(&[("dom", &ca)]);
        let svid = bundles.verify(&evidence(&ca.leaf(&["spiffe://dom/a"], &|p| p.not_after = at(60)))).unwrap();
        assert_eq!(svid.valid_until(), NOW.plus_seconds(60));
        let expired = ca.leaf(&["spiffe://dom/a"], &|p| p.not_after = at(-1));
        assert_eq!(check(&bundles, &expired).0, Err(ChainError::Expired.into()));
    }
}
