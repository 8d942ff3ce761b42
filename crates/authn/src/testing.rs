//! Certificates for tests, made as they are needed.
#![allow(clippy::unwrap_used)]

use crate::{Evidence, Roots};
use claviger_domain::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// The moment at which tests happen.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

pub(crate) fn at(seconds_from_now: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::seconds(seconds_from_now)
}

pub(crate) type Change<'a> = &'a dyn Fn(&mut CertificateParams);

/// An authority, and the certificates from it up to, but without, the root.
pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
    above: Vec<CertificateDer<'static>>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(-3_600), at(3_600));
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (at(-36_000), at(36_000));
    params
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, &rcgen::PKCS_ECDSA_P256_SHA256, &|_| {})
    }

    pub(crate) fn root_with(name: &str, algorithm: &'static SignatureAlgorithm, change: Change<'_>) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        Self::from_parts(params, KeyPair::generate_for(algorithm).unwrap())
    }

    pub(crate) fn root_params(name: &str) -> CertificateParams {
        ca_params(name)
    }

    pub(crate) fn from_parts(params: CertificateParams, key: KeyPair) -> Self {
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap(), above: Vec::new() }
    }

    pub(crate) fn intermediate(&self, name: &str, change: Change<'_>) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let above = [vec![issuer.der().clone()], self.above.clone()].concat();
        Self { issuer, above }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem("test", self.issuer.pem().as_bytes()).unwrap()
    }

    /// A client's certificate with these names, changed by `change`, and the chain that belongs to it.
    pub(crate) fn leaf(&self, names: &[&str], change: Change<'_>) -> Vec<CertificateDer<'static>> {
        let mut params = leaf_params(names);
        change(&mut params);
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap();
        [vec![leaf.der().clone()], self.above.clone()].concat()
    }
}

/// Names with `://` become URIs, addresses become addresses, all others DNS names.
pub(crate) fn leaf_params(names: &[&str]) -> CertificateParams {
    let san = |n: &&str| match n.parse() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) if n.contains("://") => SanType::URI((*n).try_into().unwrap()),
        Err(_) => SanType::DnsName((*n).try_into().unwrap()),
    };
    let mut params = params("common-name.x.com");
    params.subject_alt_names = names.iter().map(san).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// A subject alternative name extension with these very bytes inside its sequence.
pub(crate) fn raw_names(body: &[u8]) -> CustomExtension {
    let bytes = [&[0x30, u8::try_from(body.len()).unwrap()], body].concat();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], bytes)
}

pub(crate) fn evidence<'a>(certificates: &'a [CertificateDer<'static>]) -> Evidence<'a> {
    Evidence { certificates, now: NOW }
}
