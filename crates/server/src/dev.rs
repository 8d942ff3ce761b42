//! What a development server makes for itself: an authority, certificates, a root key, tokens, and `dev.env`.
//!
//! Nothing of this is for production; the authority's key lies beside what it signs.

use crate::config::{Config, DevUser};
use crate::private_file;
use anyhow::{Context, Result};
use claviger_authn::StaticUser;
use claviger_domain::SecretBytes;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use std::fmt::Write as _;
use std::path::Path;

/// The name that the development machine certificate carries.
pub const MACHINE: &str = "dev-machine";
/// The SPIFFE ID that the development service certificate carries.
pub const SERVICE: &str = "spiffe://dev.claviger/service";
/// The administrator that the development token belongs to.
pub const ADMIN: &str = "admin";
/// Days that development certificates live.
const DAYS: i64 = 365;

/// Makes whatever is missing in `dir`: folder, authority, certificates. What is there stays.
///
/// # Errors
/// When the folder cannot be written, or others can write to it.
pub fn prepare(dir: &Path) -> Result<()> {
    private_file::folder(dir)?;
    if dir.join("ca.pem").exists() {
        return Ok(());
    }
    let ca = Authority::new("Claviger development CA")?;
    ca.leaf(dir, "server", vec!["localhost".into(), "knox".into()], &["127.0.0.1", "::1"], None, true)?;
    ca.leaf(dir, "machine", vec![MACHINE.into()], &[], None, false)?;
    ca.leaf(dir, "service", vec![], &[], Some(SERVICE), false)?;
    write(&dir.join("ca.key"), &ca.key.serialize_pem())?;
    // Last, since its presence means that the rest is there.
    write(&dir.join("ca.pem"), &ca.pem)
}

/// A certificate authority that lives as long as this value, or in files.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lifetime(&mut params, DAYS * 86_400);
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, KeyPair::from_pem(&key.serialize_pem())?);
        Ok(Self { issuer, key, pem })
    }

    fn leaf(&self, dir: &Path, name: &str, dns: Vec<String>, addresses: &[&str], uri: Option<&str>, server: bool) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(dns)?;
        params.distinguished_name.push(DnType::CommonName, if uri.is_some() { "service" } else { name });
        for address in addresses {
            params.subject_alt_names.push(SanType::IpAddress(address.parse()?));
        }
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![if server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth }];
        lifetime(&mut params, DAYS * 86_400);
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(&dir.join(format!("{name}.pem")), &certificate.pem())?;
        write(&dir.join(format!("{name}.key")), &key.serialize_pem())
    }
}

/// Valid from five minutes ago, for clocks that disagree a little.
pub(crate) fn lifetime(params: &mut CertificateParams, seconds: i64) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::minutes(5);
    params.not_after = now + time::Duration::seconds(seconds);
}

/// The static users: the administrator, whose token is kept in `admin.token`, and those of the file.
///
/// # Errors
/// When the token cannot be kept.
pub fn users(dir: &Path, configured: &[DevUser]) -> Result<Vec<StaticUser>> {
    let path = dir.join("admin.token");
    if !path.exists() {
        write(&path, &token())?;
    }
    let admin = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let user = |name: &str, groups: &[String], token: String| StaticUser {
        name: name.to_owned(),
        groups: groups.to_vec(),
        token: SecretBytes::new(token.into_bytes()),
    };
    let mut users = vec![user(ADMIN, &[], admin.trim().to_owned())];
    for DevUser { name, groups, token: given } in configured {
        let path = dir.join(format!("{name}.token"));
        let token = match given {
            Some(token) => token.clone(),
            None if path.exists() => std::fs::read_to_string(&path)?.trim().to_owned(),
            None => {
                let made = token();
                write(&path, &made)?;
                made
            }
        };
        users.push(user(name, groups, token));
    }
    Ok(users)
}

fn token() -> String {
    let bytes: [u8; 20] = claviger_crypto::random();
    bytes.iter().fold(String::from("dev_"), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Writes `dev.env`, `NAME=value` lines that a shell reads with `set -a; . DIR/dev.env; set +a`. Its presence means that the
/// server accepts connections.
///
/// # Errors
/// When it cannot be written.
pub fn write_env(dir: &Path, address: std::net::SocketAddr, metrics: Option<std::net::SocketAddr>) -> Result<()> {
    let token = std::fs::read_to_string(dir.join("admin.token"))?;
    let dir = dir.canonicalize()?;
    let path = |name: &str| dir.join(name).display().to_string();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-:[]=".contains(&b));
        let _ = if plain { writeln!(text, "{name}={value}") } else { writeln!(text, "{name}='{value}'") };
    };
    line("CLAVIGER_ADDR", &format!("https://{address}"));
    line("CLAVIGER_CA", &path("ca.pem"));
    line("CLAVIGER_TOKEN", token.trim());
    line("CLAVIGER_MACHINE_CERT", &path("machine.pem"));
    line("CLAVIGER_MACHINE_KEY", &path("machine.key"));
    line("CLAVIGER_SERVICE_CERT", &path("service.pem"));
    line("CLAVIGER_SERVICE_KEY", &path("service.key"));
    if let Some(metrics) = metrics {
        line("CLAVIGER_METRICS", &format!("http://{metrics}"));
    }
    write(&dir.join("dev.env"), &text)
}

/// Removes an earlier run's `dev.env`, so that its presence means what it says.
pub fn withdraw_env(dir: &Path) {
    // It may never have been there.
    let _ = std::fs::remove_file(dir.join("dev.env"));
}

fn write(path: &Path, text: &str) -> Result<()> {
    private_file::write(path, text.as_bytes())
}

impl Config {
    /// Whether `dir` has a store already.
    #[must_use]
    pub fn has_store(&self) -> bool {
        self.store.exists()
    }
}
