//! Where the server is, who one is, and where the cache is: from `KNOX_*` variables, and from `CLAVIGER_*` where those say nothing.

use crate::sessions::{KeptSession, Place};
use claviger_client::knox::{Knox, KnoxError, LoginAddress, Proof};
use claviger_client::{Client, Config, ConfigError, Credentials, Renew, Settings};
use claviger_node::knox_folder::{DEFAULT_PATH, Modes};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::path::PathBuf;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

/// The version that `knox version` and the `User-Agent` have.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+claviger");

/// Variables of ours, and those of Knox's that stand for them.
const NAMES: [(&str, &str); 4] =
    [("CLAVIGER_ADDR", "KNOX_HOST"), ("CLAVIGER_CA", "KNOX_CA"), ("CLAVIGER_CERT", "KNOX_CERT"), ("CLAVIGER_KEY", "KNOX_KEY")];

/// The environment. Nothing is read or connected before a command needs it.
pub(super) struct Site {
    variable: fn(&str) -> Option<String>,
}

/// A client and the thread's runtime that drives it.
pub(super) struct Online {
    client: Knox,
    runtime: tokio::runtime::Runtime,
}

/// What `knox login` saved.
#[derive(Deserialize)]
struct Saved {
    #[serde(default)]
    access_token: String,
}

/// The names in a certificate that a client may claim.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    common: Option<String>,
    dns: Vec<String>,
    is_service: bool,
}

impl Site {
    pub(super) fn from_env() -> Self {
        Self { variable: |name| std::env::var(name).ok().filter(|value| !value.is_empty()) }
    }

    fn var(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    /// The cache folder; nothing where there is none.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let is_without = self.var("KNOX_NO_CACHE").is_some_and(|value| value != "0");
        (!is_without).then(|| self.var("KNOX_FOLDER").map_or_else(|| DEFAULT_PATH.into(), PathBuf::from))
    }

    /// Who may use the folder that `knox daemon` keeps.
    pub(super) fn modes(&self) -> Result<Modes, String> {
        match self.var("KNOX_FOLDER_MODES").as_deref() {
            None | Some("owner-only") => Ok(Modes::OwnerOnly),
            Some("knox") => Ok(Modes::Knox),
            Some(_) => Err("KNOX_FOLDER_MODES must be `owner-only` or `knox`".to_owned()),
        }
    }

    /// Where `knox login` saves its answer.
    pub(super) fn token_file(&self) -> Option<PathBuf> {
        self.var("HOME").map(|home| PathBuf::from(home).join(".knox_user_auth"))
    }

    /// The user of this session.
    pub(super) fn user(&self) -> Option<String> {
        self.var("USER").or_else(|| self.var("LOGNAME"))
    }

    /// Where `knox login` asks, with whom to trust there, and the client id.
    pub(super) fn login(&self) -> Result<(LoginAddress, Config, String), String> {
        let url = self.var("KNOX_LOGIN_URL").ok_or(
            "KNOX_LOGIN_URL is not set: it is the URL that gives tokens for passwords. Where people log in with a browser, use `claviger login`",
        )?;
        let login: LoginAddress = url.parse().map_err(|e: ConfigError| e.to_string().replace("CLAVIGER_ADDR", "KNOX_LOGIN_URL"))?;
        let ca = self.var("KNOX_LOGIN_CA").or_else(|| self.either("CLAVIGER_CA"));
        let settings = Settings { addr: Some(format!("https://{}", login.address)), ca: ca.map(PathBuf::from), ..Settings::default() };
        let config = settings.resolve().map_err(|e| e.to_string().replace("CLAVIGER_CA", "KNOX_LOGIN_CA"))?;
        Ok((login, config, self.var("KNOX_LOGIN_CLIENT_ID").unwrap_or_default()))
    }

    /// A client of the server, in one name; `machine` is the name of this machine where nothing else says who asks.
    pub(super) fn online(&self, machine: Option<&str>) -> Result<Online, KnoxError> {
        let malformed = KnoxError::Malformed;
        let config = self.config().map_err(KnoxError::Settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| malformed(format!("starting: {e}")))?;
        let proof = match self.proof(machine).map_err(KnoxError::Settings)? {
            None => runtime.block_on(session(&config)).map_err(KnoxError::Settings)?,
            found => found,
        };
        let client = Knox::new(config, proof.into_iter().collect(), VERSION)?;
        Ok(Online { client, runtime })
    }

    /// A client of the server's native API, in the name of the machine's certificate; nothing where there is none.
    pub(super) fn native(&self) -> Option<Client> {
        let config = self.config().ok().filter(|config| matches!(config.credentials, Credentials::Certificate { .. }))?;
        Client::new(config).ok()
    }

    fn config(&self) -> Result<Config, String> {
        let settings = Settings {
            addr: self
                .var("KNOX_HOST")
                .map(|host| if host.contains("://") { host } else { format!("https://{host}") })
                .or_else(|| self.var("CLAVIGER_ADDR")),
            ca: self.either("CLAVIGER_CA").map(PathBuf::from),
            cert: self.either("CLAVIGER_CERT").map(PathBuf::from),
            key: self.either("CLAVIGER_KEY").map(PathBuf::from),
            ..Settings::default()
        };
        let mut config = settings.resolve().map_err(|e| self.in_knox_words(&e.to_string()))?;
        if let Some(name) = self.var("KNOX_SERVER_NAME") {
            config.address = config.address.proven_as(&name).map_err(|_| format!("KNOX_SERVER_NAME is no name of a server: `{name}`"))?;
        }
        Ok(config)
    }

    /// Knox's variable, else ours.
    fn either(&self, ours: &str) -> Option<String> {
        let theirs = NAMES.iter().find(|(name, _)| *name == ours)?.1;
        self.var(theirs).or_else(|| self.var(ours))
    }

    /// A message about our variables names those of Knox's, unless ours are what is set.
    fn in_knox_words(&self, message: &str) -> String {
        let names = NAMES.iter().filter(|(ours, theirs)| self.var(theirs).is_some() || self.var(ours).is_none());
        names.fold(message.to_owned(), |text, (ours, theirs)| text.replace(ours, theirs))
    }

    /// Who asks (§5, client side).
    fn proof(&self, machine: Option<&str>) -> Result<Option<Proof>, String> {
        let (kind, marker, payload) = if let Some(token) = self.var("KNOX_USER_AUTH") {
            ("user", "0u", token)
        } else if let Some(name) = self.var("KNOX_MACHINE_AUTH") {
            ("machine", "0t", self.names().claim(Some(&name)).unwrap_or(name))
        } else if let Some(text) = self.var("KNOX_SERVICE_AUTH") {
            ("service", "0s", text)
        } else if let Some(name) = machine {
            ("machine", "0t", self.names().claim(Some(name)).unwrap_or_else(|| name.to_owned()))
        } else if let Some(token) = self.saved_token() {
            ("user", "0u", token)
        } else if let Some(token) = self.var("CLAVIGER_TOKEN") {
            ("user", "0u", token)
        } else if let Some(name) = self.names().claim(self.var("CLAVIGER_MACHINE_NAME").as_deref()) {
            ("machine", "0t", name)
        } else if self.names().is_service {
            ("service", "0s", "certificate".to_owned())
        } else {
            return Ok(None);
        };
        let payload = Zeroizing::new(payload);
        let is_header = payload.bytes().all(|byte| (b' '..0x7f).contains(&byte));
        if !is_header {
            return Err(format!("the proof of the {kind} has characters other than visible ASCII"));
        }
        Ok(Some(Proof { kind, header: Zeroizing::new(format!("{marker}{}", *payload)) }))
    }

    fn saved_token(&self) -> Option<String> {
        let text = Zeroizing::new(std::fs::read(self.token_file()?).ok()?);
        let mut saved: Saved = serde_json::from_slice(&text).ok()?;
        let token = std::mem::take(&mut saved.access_token);
        (!token.is_empty()).then_some(token)
    }

    /// The names in this caller's certificate; none where there is none, which `config` reports.
    fn names(&self) -> Names {
        let read = || Names::of(&CertificateDer::from_pem_file(self.either("CLAVIGER_CERT")?).ok()?);
        read().unwrap_or_default()
    }
}

/// The session of `claviger login` at this very server, which takes it as a user's token; none where there is none, as at a server
/// of Knox's own.
async fn session(config: &Config) -> Result<Option<Proof>, String> {
    let found = KeptSession::find(Place::of(config)).await.map_err(|failure| failure.what().to_owned())?;
    Ok(found.map(|kept| Proof { kind: "user", header: Zeroizing::new(format!("0u{}", *kept.token())) }))
}

impl Drop for Saved {
    fn drop(&mut self) {
        self.access_token.zeroize();
    }
}

impl Names {
    fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
        let mut names = Self { common, ..Self::default() };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::URI(uri) => names.is_service |= uri.starts_with("spiffe://"),
                _ => {}
            }
        }
        Some(names)
    }

    /// The name to claim: the wished one if the certificate has it, else the common name if it is good for a host, else the first
    /// that is. Servers compare with the alternative names only.
    fn claim(&self, wished: Option<&str>) -> Option<String> {
        let has = |name: &&str| self.dns.iter().any(|dns| dns.eq_ignore_ascii_case(name));
        let name = wished.filter(has).or_else(|| self.common.as_deref().filter(has)).or(self.dns.first().map(String::as_str));
        name.map(str::to_owned)
    }
}

impl Online {
    /// Waits for what the client does.
    pub(super) fn wait<T>(&self, work: impl AsyncFnOnce(&Knox) -> T) -> T {
        self.runtime.block_on(work(&self.client))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn proof(variable: fn(&str) -> Option<String>, machine: Option<&str>) -> Option<(String, &'static str)> {
        Site { variable }.proof(machine).unwrap().map(|proof| (proof.header.to_string(), proof.kind))
    }

    fn shown(header: &str, kind: &'static str) -> Option<(String, &'static str)> {
        Some((header.to_owned(), kind))
    }

    #[test]
    fn the_first_proof_there_is_counts() {
        assert_eq!(proof(|_| None, None), None);
        assert_eq!(proof(|name| (name == "CLAVIGER_TOKEN").then(|| "t".to_owned()), None), shown("0ut", "user"));
        assert_eq!(
            proof(|name| matches!(name, "KNOX_MACHINE_AUTH" | "CLAVIGER_TOKEN").then(|| "h".to_owned()), None),
            shown("0th", "machine")
        );
        let all = |name: &str| name.starts_with("KNOX_").then(|| name.to_owned());
        assert_eq!(proof(all, Some("host")), shown("0uKNOX_USER_AUTH", "user"));
        assert_eq!(proof(|name| (name == "KNOX_SERVICE_AUTH").then(|| "1".to_owned()), Some("host")), shown("0s1", "service"));
        assert_eq!(proof(|name| (name == "CLAVIGER_TOKEN").then(|| "t".to_owned()), Some("host")), shown("0thost", "machine"));
    }

    #[test]
    fn a_proof_cannot_end_its_header() {
        let site = Site { variable: |name| (name == "KNOX_USER_AUTH").then(|| "t\r\nX: y".to_owned()) };
        assert!(!site.proof(None).err().unwrap().contains("X: y"));
    }

    #[test]
    fn the_wished_name_is_claimed_if_the_certificate_has_it() {
        let names = Names { common: Some("a".into()), dns: vec!["b".into(), "a".into()], is_service: false };
        assert_eq!(names.claim(Some("B")).as_deref(), Some("B"));
        assert_eq!(names.claim(Some("other")).as_deref(), Some("a"));
        let old = Names { common: Some("cn-only".into()), dns: vec!["b".into()], is_service: false };
        assert_eq!(old.claim(None).as_deref(), Some("b"));
        assert_eq!(Names::default().claim(Some("h")), None);
    }

    #[test]
    fn messages_name_the_variable_that_is_set() {
        let knox = Site { variable: |name| (name == "KNOX_HOST").then(|| "h".to_owned()) };
        assert!(knox.config().err().unwrap().starts_with("KNOX_CA is not set"));
        let ours = Site { variable: |name| (name == "CLAVIGER_ADDR").then(|| "h".to_owned()) };
        assert!(ours.config().err().unwrap().starts_with("CLAVIGER_ADDR must look like"));
        assert!(Site { variable: |_| None }.config().err().unwrap().starts_with("KNOX_HOST is not set"));
    }
}
