//! The agent's configuration: raw (what the file and flags say) → resolved (every value checked, names looked up).
//!
//! Nothing is opened for writing, bound or connected here; the account files are read, since users and groups are resolved once. An
//! error names the field and the remedy.

mod accounts;
mod raw;

pub use accounts::Accounts;
pub use raw::{Overrides, Raw};

use crate::knox_folder::{self, Modes};
use crate::policy::{Pattern, Policy, Rule};
use crate::root::{RootChoice, RootKind};
use claviger_client::{ConfigError as ClientError, Settings};
use claviger_domain::KeyId;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Where the agent listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/claviger-node/agent.sock";
const DEFAULT_CACHE: &str = "/var/lib/claviger-node";
const DEFAULT_MAX_OFFLINE: Duration = Duration::from_secs(24 * 3600);
/// The path of a Unix socket has at most so many bytes (unix(7)).
const MOST_SOCKET: usize = 107;
/// One stream follows at most so many keys.
pub const MOST_KEYS: usize = 10_000;

/// A configuration that cannot be used, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// The field, or file and line.
    pub place: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The socket that programs connect to.
    pub socket: PathBuf,
    /// The encrypted cache.
    pub cache: PathBuf,
    /// How long a copy is given out without the server.
    pub max_offline: Duration,
    /// Who read what, one line each.
    pub reads_log: PathBuf,
    /// Users who may register keys and see their names: root and the agent's own always.
    pub admins: Vec<u32>,
    /// Where the server is: the first that answers.
    pub endpoints: Vec<Endpoint>,
    /// What keeps the cache's key.
    pub root: RootChoice,
    /// Knox's folder, where it is on.
    pub knox: Option<KnoxConfig>,
    /// Who may read what.
    pub policy: Policy,
    /// Keys that the configuration registers.
    pub registered: Vec<KeyId>,
}

/// Knox's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnoxConfig {
    /// Where it is.
    pub folder: PathBuf,
    /// Who may use it.
    pub modes: Modes,
}

/// One server and how to prove who one is. The files are read at each new connection, since certificates are renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its URL.
    pub addr: String,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    machine: Option<String>,
}

impl Endpoint {
    /// What a client is made of.
    ///
    /// # Errors
    /// A file is missing or does not fit.
    pub fn client_config(&self) -> Result<claviger_client::Config, ConfigError> {
        let Self { addr, ca, certificate, private_key, machine } = self.clone();
        let settings = Settings { addr: Some(addr), ca, token: None, cert: certificate, key: private_key, machine };
        let mut config = settings.resolve().map_err(client_error)?;
        config.attempts = 1;
        Ok(config)
    }
}

/// The client speaks of its environment variables; here they are fields.
fn client_error(error: ClientError) -> ConfigError {
    let (place, problem) = match &error {
        ClientError::Missing { variable, what } => (*variable, format!("it is not set: {what}")),
        ClientError::Unreadable { variable, path, reason } => (*variable, format!("cannot read {}: {reason}", path.display())),
        ClientError::NotPem { variable, path, wanted } => (*variable, format!("{} has no {wanted} in PEM form", path.display())),
        ClientError::Address(found) => ("CLAVIGER_ADDR", format!("each must look like https://HOST or https://HOST:PORT, not `{found}`")),
        other => ("", other.to_string()),
    };
    let field = match place {
        "CLAVIGER_ADDR" => "server.endpoints",
        "CLAVIGER_CA" => "server.ca",
        "CLAVIGER_CERT" => "server.certificate",
        "CLAVIGER_KEY" => "server.private_key",
        _ => "server",
    };
    ConfigError { place: field.to_owned(), problem }
}

impl Config {
    /// Reads a file and lets flags and environment say otherwise.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path, overrides: Overrides) -> Result<Self, ConfigError> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError { place: place(), problem: format!("cannot be read: {e}") })?;
        let raw = Raw::parse(&text).map_err(|problem| ConfigError { place: place(), problem })?;
        Self::resolve(raw, overrides, &Accounts::of_machine())
    }

    /// Checks and defaults every value.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn resolve(raw: Raw, overrides: Overrides, accounts: &Accounts) -> Result<Self, ConfigError> {
        let Raw { node, server, root, knox, secret } = raw;
        let cache = overrides.cache.or(node.cache).unwrap_or_else(|| DEFAULT_CACHE.into());
        let socket = overrides.socket.or(node.socket).unwrap_or_else(|| DEFAULT_SOCKET.into());
        check_path("node.cache", &cache)?;
        check_path("node.socket", &socket)?;
        if socket.as_os_str().len() > MOST_SOCKET {
            return Err(wrong("node.socket", format!("a socket's path has at most {MOST_SOCKET} bytes: give a shorter one")));
        }
        let max_offline = node.max_offline.map_or(Ok(DEFAULT_MAX_OFFLINE), |text| duration("node.max_offline", &text))?;
        let reads_log = node.reads_log.unwrap_or_else(|| cache.join("reads.log"));
        let admins = node.admins.iter().map(|name| accounts.user(name, "node.admins")).collect::<Result<_, _>>()?;
        let rules = secret.into_iter().enumerate().map(|(i, rule)| rule_of(rule, &format!("secret {}", i + 1), accounts));
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        let registered: Vec<KeyId> = rules.iter().filter_map(|rule| rule.pattern.exact().cloned()).collect();
        if registered.len() > MOST_KEYS {
            return Err(wrong("secret", format!("one agent follows at most {MOST_KEYS} keys")));
        }
        Ok(Self {
            socket,
            max_offline,
            reads_log,
            admins,
            endpoints: endpoints(server, overrides.server)?,
            root: root_of(root)?,
            knox: knox_of(knox)?,
            policy: Policy::new(rules),
            registered,
            cache,
        })
    }
}

fn endpoints(raw: raw::Server, flags: Settings) -> Result<Vec<Endpoint>, ConfigError> {
    let addresses = flags.addr.map_or(raw.endpoints, |addr| vec![addr]);
    if addresses.is_empty() {
        return Err(wrong("server.endpoints", "give at least one server, such as [\"https://keys.example.org:9000\"]"));
    }
    let with_files = |addr| Endpoint {
        addr,
        ca: flags.ca.clone().or_else(|| raw.ca.clone()),
        certificate: flags.cert.clone().or_else(|| raw.certificate.clone()),
        private_key: flags.key.clone().or_else(|| raw.private_key.clone()),
        machine: flags.machine.clone().or_else(|| raw.machine.clone()),
    };
    let endpoints: Vec<_> = addresses.into_iter().map(with_files).collect();
    for endpoint in &endpoints {
        if endpoint.certificate.is_none() {
            return Err(wrong("server.certificate", "the agent proves itself by the machine's certificate: name its PEM file"));
        }
        endpoint.client_config()?;
    }
    Ok(endpoints)
}

fn rule_of(raw: raw::Secret, place: &str, accounts: &Accounts) -> Result<Rule, ConfigError> {
    let pattern = Pattern::parse(&raw.id).map_err(|problem| wrong(&format!("{place}: id"), problem))?;
    let users = raw.users.iter().map(|name| accounts.user(name, &format!("{place}: users"))).collect::<Result<_, _>>()?;
    let groups = raw.groups.iter().map(|name| accounts.group(name, &format!("{place}: groups"))).collect::<Result<_, _>>()?;
    Ok(Rule { pattern, users, groups })
}

fn root_of(raw: raw::Root) -> Result<RootChoice, ConfigError> {
    let kind = match raw.kind.as_deref() {
        None | Some("best") => None,
        Some(name) => {
            let names: Vec<_> = RootKind::ALL.iter().map(|kind| kind.name()).collect();
            Some(RootKind::of(name).ok_or_else(|| wrong("root.kind", format!("must be best, {}, not `{name}`", names.join(" or "))))?)
        }
    };
    if raw.file.is_some() && kind != Some(RootKind::File) {
        return Err(wrong("root.file", "counts only with root.kind = \"file\""));
    }
    for path in raw.file.iter().chain(&raw.tpm) {
        check_path("root", path)?;
    }
    Ok(RootChoice { kind, tpm: raw.tpm, file: raw.file })
}

fn knox_of(raw: raw::Knox) -> Result<Option<KnoxConfig>, ConfigError> {
    let modes = match raw.modes.as_deref() {
        None | Some("owner-only") => Modes::OwnerOnly,
        Some("knox") => Modes::Knox,
        Some(other) => {
            return Err(wrong(
                "knox.modes",
                format!("must be owner-only, or knox (everyone on the machine reads and writes), not `{other}`"),
            ));
        }
    };
    let folder = raw.folder.unwrap_or_else(|| knox_folder::DEFAULT_PATH.into());
    check_path("knox.folder", &folder)?;
    Ok(raw.enabled.then_some(KnoxConfig { folder, modes }))
}

fn check_path(place: &str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(wrong(place, format!("must be a whole path that begins with /, not `{}`", path.display())))
    }
}

fn wrong(place: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { place: place.to_owned(), problem: problem.into() }
}

/// A number and s, m, h or d.
fn duration(place: &str, text: &str) -> Result<Duration, ConfigError> {
    let bad = || wrong(place, format!("must be a number with s, m, h or d, such as 24h, not `{text}`"));
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(seconds).filter(|s| *s <= 3650 * 86_400).map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resolve(text: &str) -> Result<Config, ConfigError> {
        let accounts = Accounts::parse("root:x:0:0::/:/bin/sh\napp:x:1001:1001::/:/bin/sh\n", "web:x:33:\n");
        Config::resolve(Raw::parse(text).map_err(|problem| wrong("file", problem))?, Overrides::default(), &accounts)
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn with_server(dir: &Path, rest: &str) -> String {
        std::fs::write(dir.join("c.pem"), CERTIFICATE).unwrap();
        std::fs::write(dir.join("k.pem"), KEY).unwrap();
        let d = dir.display();
        format!(
            "[server]\nendpoints = [\"https://h:1\"]\nca = \"{d}/c.pem\"\ncertificate = \"{d}/c.pem\"\nprivate_key = \"{d}/k.pem\"\n{rest}"
        )
    }

    #[test]
    fn a_whole_file_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let text = with_server(
            dir.path(),
            "[node]\nmax_offline = \"90m\"\nadmins = [\"app\"]\n[knox]\nenabled = true\nmodes = \"knox\"\n[root]\nkind = \"file\"\n[[secret]]\nid = \"shop/pw\"\nusers = [\"app\", 7]\n[[secret]]\nid = \"shop/*\"\ngroups = [\"web\"]\n",
        );
        let config = resolve(&text).unwrap();
        assert_eq!((config.max_offline.as_secs(), &config.admins[..]), (5400, &[1001][..]));
        assert_eq!(config.registered, [KeyId::parse("shop/pw").unwrap()]);
        assert_eq!(config.knox, Some(KnoxConfig { folder: "/var/lib/knox".into(), modes: Modes::Knox }));
        let readers = config.policy.readers(&config.registered[0]);
        assert!(readers.admit(7, &[]) && readers.admit(1001, &[]) && readers.admit(5, &[33]) && !readers.admit(5, &[34]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let table = [
            ("[node]\nmax_offline = \"soon\"", "node.max_offline", "24h"),
            ("[node]\nsocket = \"agent.sock\"", "node.socket", "whole path"),
            ("[node]\ncolour = 1", "file", "colour"),
            ("[knox]\nmodes = \"0777\"", "knox.modes", "owner-only"),
            ("[root]\nkind = \"hsm\"", "root.kind", "keyring"),
            ("[root]\nfile = \"/x\"", "root.file", "kind"),
            ("[[secret]]\nid = \"a\"\nusers = [\"nobody-here\"]", "secret 1: users", "/etc/passwd"),
            ("[[secret]]\nid = \"sh*op\"", "secret 1: id", "end"),
        ];
        for (text, place, remedy) in table {
            let error = resolve(&with_server(dir.path(), text)).unwrap_err();
            assert!(error.place.contains(place) && error.problem.contains(remedy), "{text}: {error}");
        }
        let error = resolve("[node]\n").unwrap_err();
        assert_eq!(error.place, "server.endpoints");
        let error = resolve("[server]\nendpoints = [\"https://h:1\"]\ncertificate = \"/nowhere/c.pem\"\n").unwrap_err();
        assert_eq!(error.place, "server.ca");
    }

    #[test]
    fn any_text_is_a_configuration_or_refused() {
        proptest::proptest!(|(text in "\\PC{0,200}")| crate::fuzz::configuration(&text));
    }
}
