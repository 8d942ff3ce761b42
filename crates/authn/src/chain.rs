//! From a leaf to a root: RFC 5280 §6 through webpki, and what Go, hence Knox, also asks for.
//!
//! Accepted are RSA of 2048 bits and more (PKCS #1 and PSS), ECDSA on P-256, P-384 and P-521, Ed25519, with SHA-256 and
//! longer. Extended key usages must allow clients on every certificate that has them, the root included. Unlike in Go, an
//! authority's certificate is never a leaf, a leaf that itself stands among the roots is not trusted for that, URI and
//! directory-name constraints refuse what they constrain, and there is no RSA below 2048 bits and no version 1 leaf.
//! Revocation lists are not consulted.

use crate::certificate::{ANY_USAGE, CLIENT_AUTH, Certificate};
use crate::{ChainError, Evidence, Rejection, Roots};
use claviger_domain::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, VerifiedPath, aws_lc_rs as algs};

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algs::ECDSA_P256_SHA256,
    algs::ECDSA_P256_SHA384,
    algs::ECDSA_P256_SHA512,
    algs::ECDSA_P384_SHA256,
    algs::ECDSA_P384_SHA384,
    algs::ECDSA_P384_SHA512,
    algs::ECDSA_P521_SHA256,
    algs::ECDSA_P521_SHA384,
    algs::ECDSA_P521_SHA512,
    algs::ED25519,
    algs::RSA_PKCS1_2048_8192_SHA256,
    algs::RSA_PKCS1_2048_8192_SHA384,
    algs::RSA_PKCS1_2048_8192_SHA512,
    algs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The leaf and what was sent with it.
pub(crate) fn split<'a>(evidence: &Evidence<'a>) -> Result<(&'a CertificateDer<'static>, &'a [CertificateDer<'static>]), Rejection> {
    evidence.certificates.split_first().ok_or(Rejection::NoCertificate)
}

/// Verifies that the leaf leads to one of `roots`; gives the last moment at which this path is good.
pub(crate) fn verify(roots: &Roots, evidence: &Evidence<'_>) -> Result<Timestamp, Rejection> {
    let (leaf, rest) = split(evidence)?;
    Ok(verify_path(roots, leaf, rest, evidence.now)?)
}

fn verify_path(roots: &Roots, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: Timestamp) -> Result<Timestamp, ChainError> {
    let end_entity = EndEntityCert::try_from(leaf)?;
    let acceptable = |path: &VerifiedPath<'_>| path_ends(roots, path, now).map(|_| ());
    let path = end_entity.verify_for_usage(ALGORITHMS, roots.anchors(), rest, unix_time(now), ForClients, None, Some(&acceptable))?;
    let above = path_ends(roots, &path, now)?;
    let leaf = Certificate::parse(leaf).map_err(|_| ChainError::Malformed)?;
    Ok(above.min(leaf.not_after))
}

/// When the part of `path` above the leaf ends. Refuses what webpki leaves to us: a certificate in between whose key usage
/// lacks keyCertSign (RFC 5280 §6.1.4 n), and a root outside its own terms.
fn path_ends(roots: &Roots, path: &VerifiedPath<'_>, now: Timestamp) -> Result<Timestamp, Error> {
    let mut ends = roots.vouches_until(path.anchor(), now)?;
    for between in path.intermediate_certificates() {
        let der = between.der();
        let read = Certificate::parse(&der).map_err(|_| Error::BadDer)?;
        if !read.may_sign_certificates() {
            return Err(Error::EndEntityUsedAsCa);
        }
        ends = ends.min(read.not_after);
    }
    Ok(ends)
}

/// Whole seconds, as certificates count; before 1970 nothing is valid anyway.
fn unix_time(t: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_nanos(u64::try_from(t.0).unwrap_or(0)))
}

pub(crate) fn wrong_usage() -> Error {
    let required = webpki::KeyUsage::client_auth();
    Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext { required, present: Vec::new() })
}

/// Why `now` lies outside a validity of which it is known that it does.
pub(crate) fn out_of_time(now: Timestamp, not_before: Timestamp, not_after: Timestamp) -> Error {
    let time = unix_time(now);
    if now < not_before {
        return Error::CertNotValidYet { time, not_before: unix_time(not_before) };
    }
    Error::CertExpired { time, not_after: unix_time(not_after) }
}

/// Extended key usages as Go reads them: none given, client authentication, or any.
struct ForClients;

impl ExtendedKeyUsageValidator for ForClients {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut is_unrestricted = true;
        for purpose in purposes {
            let purpose = purpose?;
            if purpose == KeyPurposeId::new(CLIENT_AUTH) || purpose == KeyPurposeId::new(ANY_USAGE) {
                return Ok(());
            }
            is_unrestricted = false;
        }
        if is_unrestricted { Ok(()) } else { Err(wrong_usage()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, Change, NOW, at, evidence};
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, KeyUsagePurpose,
        NameConstraints,
    };

    fn check(roots: &Roots, chain: &[CertificateDer<'static>]) -> Result<(), ChainError> {
        match verify(roots, &evidence(chain)) {
            Ok(_) => Ok(()),
            Err(Rejection::Chain(why)) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn leaves_are_judged_by_time_usage_and_role() {
        let ca = Authority::root("ca");
        let roots = ca.roots();
        let critical = |p: &mut CertificateParams| {
            let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            unknown.set_criticality(true);
            p.custom_extensions.push(unknown);
        };
        let table: [(&str, Change<'_>, Result<(), ChainError>); 13] = [
            ("client", &|_| {}, Ok(())),
            ("no usage given", &|p| p.extended_key_usages.clear(), Ok(())),
            ("any usage", &|p| p.extended_key_usages = vec![Eku::Any], Ok(())),
            ("both", &|p| p.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth], Ok(())),
            ("server only", &|p| p.extended_key_usages = vec![Eku::ServerAuth], Err(ChainError::WrongUsage)),
            ("other only", &|p| p.extended_key_usages = vec![Eku::CodeSigning], Err(ChainError::WrongUsage)),
            ("expired", &|p| p.not_after = at(-1), Err(ChainError::Expired)),
            ("last second", &|p| p.not_after = at(0), Ok(())),
            ("future", &|p| p.not_before = at(1), Err(ChainError::NotYetValid)),
            ("authority", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), Err(ChainError::AuthorityAsLeaf)),
            ("explicitly none", &|p| p.is_ca = IsCa::ExplicitNoCa, Ok(())),
            ("no key usage", &|p| p.key_usages.clear(), Ok(())),
            ("critical unknown extension", &critical, Err(ChainError::CriticalExtension)),
        ];
        for (what, change, expected) in table {
            assert_eq!(check(&roots, &ca.leaf(&["a.x.com"], change)), expected, "{what}");
        }
    }

    #[test]
    fn only_the_configured_authority_counts_also_against_one_of_the_same_name() {
        let [ca, other, namesake] = ["ca", "other", "ca"].map(Authority::root);
        for foreign in [&other, &namesake] {
            assert_eq!(check(&ca.roots(), &foreign.leaf(&["a.x.com"], &|_| {})), Err(ChainError::UnknownAuthority));
        }
        let with_own_root = [other.leaf(&["a.x.com"], &|_| {}), vec![other.issuer.der().clone()]].concat();
        assert_eq!(check(&ca.roots(), &with_own_root), Err(ChainError::UnknownAuthority), "a presented root is no root");
    }

    #[test]
    fn certificates_in_between_must_be_there_and_may_restrict() {
        let ca = Authority::root("ca");
        let roots = ca.roots();
        let via = |change: Change<'_>| ca.intermediate("between", change).leaf(&["a.x.com"], &|_| {});
        let path_length = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let names = |p: &mut CertificateParams| {
            let other_domain = vec![GeneralSubtree::DnsName("y.com".into())];
            p.name_constraints = Some(NameConstraints { permitted_subtrees: other_domain, excluded_subtrees: vec![] });
        };
        let table: [(&str, Vec<CertificateDer<'static>>, Result<(), ChainError>); 10] = [
            ("present", via(&|_| {}), Ok(())),
            ("missing", via(&|_| {})[..1].to_vec(), Err(ChainError::UnknownAuthority)),
            ("for clients", via(&|p| p.extended_key_usages = vec![Eku::ClientAuth]), Ok(())),
            ("for servers", via(&|p| p.extended_key_usages = vec![Eku::ServerAuth]), Err(ChainError::WrongUsage)),
            ("expired", via(&|p| p.not_after = at(-1)), Err(ChainError::Expired)),
            ("no authority", via(&|p| p.is_ca = IsCa::NoCa), Err(ChainError::MayNotSign)),
            ("may not sign", via(&|p| p.key_usages = vec![KeyUsagePurpose::CrlSign]), Err(ChainError::MayNotSign)),
            ("other names", via(&names), Err(ChainError::NameConstraint)),
            ("two", ca.intermediate("one", &|_| {}).intermediate("two", &|_| {}).leaf(&["a"], &|_| {}), Ok(())),
            (
                "one too many",
                ca.intermediate("one", &path_length).intermediate("two", &|_| {}).leaf(&["a"], &|_| {}),
                Err(ChainError::TooManyIntermediates),
            ),
        ];
        for (what, chain, expected) in table {
            assert_eq!(check(&roots, &chain), expected, "{what}");
        }
    }

    #[test]
    fn the_order_of_the_rest_and_strangers_in_it_do_not_matter() {
        let ca = Authority::root("ca");
        let mut chain = ca.intermediate("one", &|_| {}).intermediate("two", &|_| {}).leaf(&["a"], &|_| {});
        chain.push(Authority::root("stranger").issuer.der().clone());
        chain[1..].reverse();
        assert_eq!(check(&ca.roots(), &chain), Ok(()));
    }

    #[test]
    fn a_root_vouches_only_within_its_own_terms() {
        let check_root = |change: Change<'_>| {
            let ca = Authority::root_with("ca", &rcgen::PKCS_ECDSA_P256_SHA256, change);
            check(&ca.roots(), &ca.leaf(&["a.x.com"], &|_| {}))
        };
        assert_eq!(check_root(&|p| p.not_after = at(-1)), Err(ChainError::Expired));
        assert_eq!(check_root(&|p| p.not_before = at(1)), Err(ChainError::NotYetValid));
        assert_eq!(check_root(&|p| p.extended_key_usages = vec![Eku::ServerAuth]), Err(ChainError::WrongUsage));
        assert_eq!(check_root(&|p| p.extended_key_usages = vec![Eku::ClientAuth]), Ok(()));
    }

    #[test]
    fn a_root_renewed_with_its_old_key_vouches_beside_the_expired_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = Authority::root_params("ca");
        params.not_after = at(-1);
        let old = params.self_signed(&key).unwrap().pem();
        params.not_after = at(300);
        let new = params.self_signed(&key).unwrap().pem();
        let ca = Authority::from_parts(params, key);
        let leaf = ca.leaf(&["a.x.com"], &|_| {});
        for both in [format!("{old}{new}"), format!("{new}{old}")] {
            let roots = Roots::from_pem("test", both.as_bytes()).unwrap();
            assert_eq!(verify(&roots, &evidence(&leaf)), Ok(NOW.plus_seconds(300)));
        }
        assert_eq!(check(&Roots::from_pem("test", old.as_bytes()).unwrap(), &leaf), Err(ChainError::Expired));
    }

    #[test]
    fn every_accepted_algorithm_verifies() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let ca = Authority::root_with("ca", algorithm, &|_| {});
            assert_eq!(check(&ca.roots(), &ca.leaf(&["a.x.com"], &|_| {})), Ok(()), "{algorithm:?}");
        }
    }

    #[test]
    fn a_path_is_good_until_its_first_certificate_expires() {
        let ca = Authority::root("ca");
        let between = ca.intermediate("between", &|p| p.not_after = at(100));
        let until = |chain: &[CertificateDer<'static>]| verify(&ca.roots(), &evidence(chain)).unwrap();
        assert_eq!(until(&between.leaf(&["a"], &|_| {})), NOW.plus_seconds(100));
        assert_eq!(until(&between.leaf(&["a"], &|p| p.not_after = at(50))), NOW.plus_seconds(50));
        let short_root = Authority::root_with("ca", &rcgen::PKCS_ED25519, &|p| p.not_after = at(20));
        assert_eq!(verify(&short_root.roots(), &evidence(&short_root.leaf(&["a"], &|_| {}))).unwrap(), NOW.plus_seconds(20));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let ca = Authority::root("ca");
        let leaf = ca.leaf(&["a.x.com"], &|_| {});
        let original = leaf[0].as_ref().to_vec();
        for at in 0..original.len() {
            let mut bytes = original.clone();
            bytes[at] ^= 1;
            assert!(verify(&ca.roots(), &evidence(&[CertificateDer::from(bytes)])).is_err(), "byte {at}");
        }
    }
}
