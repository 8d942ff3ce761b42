//! Client certificates, good and bad, from the development server's own authority and from a foreign one.

use anyhow::{Context, Result};
use claviger_testkit::{Client, Credential, TestServer};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use std::path::{Path, PathBuf};

/// Makes certificates that the server of one folder accepts or refuses.
pub(crate) struct Certificates {
    folder: PathBuf,
}

/// What a leaf has.
struct Leaf {
    common_name: &'static str,
    dns: &'static [&'static str],
    addresses: &'static [&'static str],
    uris: &'static [&'static str],
    usage: &'static [Usage],
    expired: bool,
    foreign: bool,
}

const PLAIN: Leaf =
    Leaf { common_name: "leaf", dns: &[], addresses: &[], uris: &[], usage: &[Usage::ClientAuth], expired: false, foreign: false };

/// The certificates by their names in scenarios.
fn leaf(name: &str) -> Option<Leaf> {
    Some(match name {
        "host1" => Leaf { dns: &["host1.x.com"], ..PLAIN },
        "wildcard" => Leaf { dns: &["*.x.com"], ..PLAIN },
        "common-name-only" => Leaf { common_name: "host1.x.com", ..PLAIN },
        "address" => Leaf { addresses: &["10.1.2.3"], ..PLAIN },
        "both" => Leaf { dns: &["host1.x.com"], uris: &["spiffe://dev.claviger/both"], ..PLAIN },
        "no-usage" => Leaf { dns: &["host1.x.com"], usage: &[], ..PLAIN },
        "server-usage" => Leaf { dns: &["host1.x.com"], usage: &[Usage::ServerAuth], ..PLAIN },
        "expired" => Leaf { dns: &["host1.x.com"], expired: true, ..PLAIN },
        "foreign" => Leaf { dns: &["host1.x.com"], foreign: true, ..PLAIN },
        "foreign-service" => Leaf { uris: &["spiffe://dev.claviger/service"], foreign: true, ..PLAIN },
        "other-domain" => Leaf { uris: &["spiffe://elsewhere/service"], ..PLAIN },
        "two-uris" => Leaf { uris: &["spiffe://dev.claviger/a", "spiffe://dev.claviger/b"], ..PLAIN },
        "other-uri" => Leaf { uris: &["https://dev.claviger/a"], ..PLAIN },
        "no-path" => Leaf { uris: &["spiffe://dev.claviger"], ..PLAIN },
        "empty-path" => Leaf { uris: &["spiffe://dev.claviger/"], ..PLAIN },
        "ci-machine" => Leaf { dns: &["host1.x.com"], uris: &["spiffe://dev.claviger/ci/build"], ..PLAIN },
        "ci" => Leaf { uris: &["spiffe://dev.claviger/ci/build"], ..PLAIN },
        _ => return None,
    })
}

impl Certificates {
    /// Certificates for `server`.
    pub(crate) fn new(server: &TestServer) -> Self {
        Self { folder: server.dir() }
    }

    /// A connection with the named certificate: `none`, `machine` and `service` of the development folder, or one of
    /// those above.
    pub(crate) fn connect(&self, server: &TestServer, name: &str) -> Result<Client> {
        match name {
            "none" => server.client(),
            "machine" => server.machine(),
            "service" => server.service(),
            _ => {
                let (chain, key) = self.make(&leaf(name).with_context(|| format!("there is no certificate `{name}`"))?)?;
                Client::connect(
                    server.address(),
                    Path::new(server.env("CLAVIGER_CA")),
                    Some(Credential::from_pem(chain.as_bytes(), key.as_bytes())?),
                )
            }
        }
    }

    fn make(&self, leaf: &Leaf) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(leaf.dns.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        for address in leaf.addresses {
            params.subject_alt_names.push(SanType::IpAddress(address.parse()?));
        }
        for uri in leaf.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.usage.to_vec();
        let (from, to) = if leaf.expired { (2001, 2002) } else { (2020, 2049) };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer(leaf.foreign)?)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The development authority under its own name, or a foreign one under the same name.
    fn issuer(&self, foreign: bool) -> Result<Issuer<'static, KeyPair>> {
        let key = match foreign {
            true => KeyPair::generate()?,
            false => KeyPair::from_pem(&std::fs::read_to_string(self.folder.join("ca.key"))?)?,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Claviger development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Issuer::new(params, key))
    }
}
