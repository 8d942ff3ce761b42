//! Where the server is, whom to trust, and how to prove who one is. Raw settings become a configuration before anything
//! is connected.

use claviger_domain::Approving;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

/// Raw settings, as the environment and flags have them.
#[derive(Default)]
pub struct Settings {
    /// `CLAVIGER_ADDR`: the server's URL, `https://HOST[:PORT]`.
    pub addr: Option<String>,
    /// `CLAVIGER_CA`: a PEM file with the certificates that may have signed the server's. Nothing else is trusted.
    pub ca: Option<PathBuf>,
    /// `CLAVIGER_TOKEN`: a bearer token.
    pub token: Option<Zeroizing<String>>,
    /// `CLAVIGER_CERT`: a PEM file with the caller's certificate chain.
    pub cert: Option<PathBuf>,
    /// `CLAVIGER_KEY`: a PEM file with the certificate's private key.
    pub key: Option<PathBuf>,
    /// `CLAVIGER_MACHINE_NAME`: which of the certificate's names to claim; needed only where it has several.
    pub machine: Option<String>,
}

/// A configuration that holds together: files are read, nothing is connected.
pub struct Config {
    /// The server.
    pub address: Address,
    /// Whom to trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// Who one is.
    pub credentials: Credentials,
    /// How long one request may take, connection and retries aside.
    pub timeout: Duration,
    /// How often a request that can be repeated is tried in all.
    pub attempts: u32,
    /// Whether requests ask for approval, or rest on one.
    pub approving: Approving,
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name or IP address to connect to.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name that its certificate must carry.
    pub name: ServerName<'static>,
}

/// A text that is no name of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is neither a DNS name nor an IP address")]
pub struct NotAName;

/// How to prove who one is.
pub enum Credentials {
    /// Not at all; the server answers little.
    Nothing,
    /// A bearer token.
    Token(Zeroizing<String>),
    /// The token of a session that can be renewed.
    Session(Arc<dyn Renew>),
    /// A client certificate.
    Certificate {
        /// The chain, leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// The leaf's key.
        key: PrivateKeyDer<'static>,
        /// Which of the names in the certificate to claim.
        machine: Option<String>,
    },
}

/// A session whose token ends while the client lives.
pub trait Renew: Send + Sync {
    /// The token of now.
    fn token(&self) -> Zeroizing<String>;

    /// Gets another token than `refused`, which the server does not take any more.
    ///
    /// # Errors
    /// Why there is none, for the person who waits.
    fn renew<'a>(&'a self, refused: &'a str) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Something that has no default is missing.
    #[error("{variable} is not set: {what}")]
    Missing {
        /// The environment variable.
        variable: &'static str,
        /// What it is for.
        what: &'static str,
    },
    /// The address is no URL of a server.
    #[error("CLAVIGER_ADDR must look like https://HOST or https://HOST:PORT, not `{0}`")]
    Address(String),
    /// A file cannot be read.
    #[error("{variable}: cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The environment variable.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file is not what it should be.
    #[error("{variable}: {} has no {wanted} in PEM form", path.display())]
    NotPem {
        /// The environment variable.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// Two ways to prove who one is; guessing could act in the wrong name.
    #[error("CLAVIGER_TOKEN and CLAVIGER_CERT are both set: unset the one that you do not mean")]
    TwoCredentials,
    /// The token cannot stand in a header.
    #[error("CLAVIGER_TOKEN has characters other than visible ASCII")]
    Token,
    /// The machine's name cannot stand in a header.
    #[error("CLAVIGER_MACHINE_NAME has characters other than visible ASCII")]
    Machine,
    /// Certificate, key and roots do not fit together.
    #[error("{0}")]
    Tls(String),
}

impl Settings {
    /// What the environment says; empty variables count as not set.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            addr: text("CLAVIGER_ADDR"),
            ca: path("CLAVIGER_CA"),
            token: text("CLAVIGER_TOKEN").map(Zeroizing::new),
            cert: path("CLAVIGER_CERT"),
            key: path("CLAVIGER_KEY"),
            machine: text("CLAVIGER_MACHINE_NAME"),
        }
    }

    /// Checks the settings and reads the files they name.
    ///
    /// # Errors
    /// [`ConfigError`] names the variable and the remedy.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let missing = |variable, what| ConfigError::Missing { variable, what };
        let addr = self.addr.as_deref().ok_or(missing("CLAVIGER_ADDR", "the server's URL, such as https://127.0.0.1:9443"))?;
        let address = addr.parse()?;
        let ca = self.ca.as_deref().ok_or(missing("CLAVIGER_CA", "a PEM file with the certificate of the server's CA"))?;
        let roots = certificates("CLAVIGER_CA", ca)?;
        let credentials = self.credentials()?;
        Ok(Config { address, roots, credentials, timeout: Duration::from_secs(30), attempts: 4, approving: Approving::Plain })
    }

    fn credentials(self) -> Result<Credentials, ConfigError> {
        let visible = |s: &str| s.bytes().all(|b| b.is_ascii_graphic());
        match (self.token, self.cert, self.key) {
            (Some(_), Some(_), _) => Err(ConfigError::TwoCredentials),
            (Some(token), None, _) if visible(&token) => Ok(Credentials::Token(token)),
            (Some(_), None, _) => Err(ConfigError::Token),
            (None, None, _) => Ok(Credentials::Nothing),
            (None, Some(_), None) => {
                Err(ConfigError::Missing { variable: "CLAVIGER_KEY", what: "a PEM file with the private key of CLAVIGER_CERT" })
            }
            (None, Some(_), Some(_)) if self.machine.as_deref().is_some_and(|m| !visible(m)) => Err(ConfigError::Machine),
            (None, Some(cert), Some(key)) => Ok(Credentials::Certificate {
                chain: certificates("CLAVIGER_CERT", &cert)?,
                key: private_key("CLAVIGER_KEY", key)?,
                machine: self.machine,
            }),
        }
    }
}

impl Config {
    /// The configuration that the environment describes: `CLAVIGER_ADDR`, `CLAVIGER_CA`, and `CLAVIGER_TOKEN` or
    /// `CLAVIGER_CERT` with `CLAVIGER_KEY`.
    ///
    /// # Errors
    /// [`ConfigError`] names the variable and the remedy.
    pub fn from_env() -> Result<Self, ConfigError> {
        Settings::from_env().resolve()
    }
}

fn read(variable: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let unreadable = |e: std::io::Error| ConfigError::Unreadable { variable, path: path.to_owned(), reason: e.to_string() };
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

fn certificates(variable: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = read(variable, path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    match found.is_empty() {
        true => Err(ConfigError::NotPem { variable, path: path.to_owned(), wanted: "certificate" }),
        false => Ok(found),
    }
}

fn private_key(variable: &'static str, path: PathBuf) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let pem = read(variable, &path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| ConfigError::NotPem { variable, path, wanted: "private key" })
}

impl std::str::FromStr for Address {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Address(url.chars().take(200).collect());
        let rest = url.strip_prefix("https://").ok_or_else(bad)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (authority, 443),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        let bracketed_as_needed = bare.is_some() == host.contains(':');
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        if port == 0 || !bracketed_as_needed { Err(bad()) } else { Ok(Self { host, port, name }) }
    }
}

impl Address {
    /// The same server, whose certificate carries another name.
    ///
    /// # Errors
    /// It is no name of a server.
    pub fn proven_as(self, name: &str) -> Result<Self, NotAName> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| NotAName)?;
        Ok(Self { name, ..self })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Token(_) => "Token(…)",
            Self::Session(_) => "Session(…)",
            Self::Certificate { .. } => "Certificate(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_https_urls_of_a_host_and_nothing_else() {
        let shown = |url: &str| url.parse::<Address>().map(|a| a.to_string());
        assert_eq!(shown("https://localhost:9443").unwrap(), "localhost:9443");
        assert_eq!(shown("https://keys.example.org/").unwrap(), "keys.example.org:443");
        assert_eq!(shown("https://[::1]:8443").unwrap(), "[::1]:8443");
        assert_eq!(shown("https://[::1]").unwrap(), "[::1]:443");
        for bad in [
            "",
            "http://h",
            "h:1",
            "https://",
            "https://h:0",
            "https://h:x",
            "https://h/p",
            "https://u@h",
            "https://::1",
            "https://h:70000",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let why = |s: Settings| s.resolve().err().map(|e| e.to_string()).unwrap();
        assert!(why(Settings::default()).starts_with("CLAVIGER_ADDR is not set"));
        let addr = || Some("https://h".to_owned());
        assert!(why(Settings { addr: addr(), ..Settings::default() }).starts_with("CLAVIGER_CA is not set"));
        let ca = Some(PathBuf::from("/nowhere/ca.pem"));
        assert!(why(Settings { addr: addr(), ca, ..Settings::default() }).contains("cannot read /nowhere/ca.pem"));
    }

    #[test]
    fn two_credentials_are_not_guessed_between() {
        let token = || Some(Zeroizing::new("t".to_owned()));
        let both = Settings { token: token(), cert: Some("c".into()), key: Some("k".into()), ..Settings::default() };
        assert_eq!(both.credentials().err(), Some(ConfigError::TwoCredentials));
        let spaced = Settings { token: Some(Zeroizing::new("a b".to_owned())), ..Settings::default() };
        assert_eq!(spaced.credentials().err(), Some(ConfigError::Token));
        let shown = format!("{:?}", Settings { token: token(), ..Settings::default() }.credentials().unwrap());
        assert_eq!(shown, "Token(…)");
    }
}
