//! Configuration: raw (what the file and the environment say) → resolved (every value checked and defaulted).
//!
//! Nothing is opened, bound or created here. An error names the file, the line and the remedy.

pub(crate) mod people;
mod raw;
mod reference;

pub use people::{GithubConfig, IssuerConfig, PeopleConfig};
pub use raw::Raw;
pub use reference::{FieldReference, fields, reference};

use crate::http::Limits;
use crate::native::Sharing;
use claviger_audit::AlertLimits;
use claviger_authn::{DenialLimits, MachineNames, NameCase, WildcardNames};
use claviger_domain::{Grant, Preset, Principal, TrustDomain};
use claviger_wire::knox::site_rule::{Pattern, SiteRule};
use claviger_wire::knox::types::PrincipalType;
use claviger_wire::knox::validate::{PrincipalRules, Strictness, principal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Four times the largest request, a head of 1 MiB and a body of 10 MiB, whose buffer may have grown to 16.
const LEAST_BUFFERED: usize = 80 << 20;

/// A configuration that cannot be used, and what to do about it.
#[derive(Debug, Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// File and line, or the environment variable.
    pub place: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// Where health and metrics are served, in plain HTTP.
    pub metrics: Option<SocketAddr>,
    /// The name in Knox's answers and logs.
    pub name: String,
    /// Worker threads.
    pub threads: usize,
    /// Certificate chain and key for TLS.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub private_key: PathBuf,
    /// Transport limits.
    pub limits: Limits,
    /// Streams of changes that one identity may have open.
    pub watches_per_identity: usize,
    /// The SQLite file.
    pub store: PathBuf,
    /// The folder of the root key file.
    pub root: PathBuf,
    /// The audit log.
    pub audit: AuditConfig,
    /// Who may prove to be whom.
    pub auth: AuthConfig,
    /// Knox's surface, when it is on.
    pub knox: Option<KnoxConfig>,
    /// Whether the native surface is on.
    pub native: bool,
    /// Who may open shares.
    pub sharing: Sharing,
    /// Sizes and defaults of keys.
    pub keys: claviger_engine::Settings,
    /// Who is told of approvals.
    pub webhooks: WebhookConfig,
    /// Logging.
    pub log: LogConfig,
    /// Static development users; only with `--dev`.
    pub dev_users: Vec<DevUser>,
}

/// Where notices of approvals are posted.
#[derive(Debug, Clone, Default)]
pub struct WebhookConfig {
    /// URLs.
    pub urls: Vec<String>,
    /// File with the key that signs what is posted.
    pub key_file: Option<PathBuf>,
    /// PEM file with the roots of their TLS certificates.
    pub ca: PathBuf,
    /// Whether they may be plain HTTP on this machine.
    pub loopback_http: bool,
}

/// The audit log's place and sinks.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// Folder of the log.
    pub folder: PathBuf,
    /// Folder that stands in when the first cannot be written.
    pub standby: Option<PathBuf>,
    /// Bytes reserved for when the disk is full.
    pub reserve: u64,
    /// Days after which records are removed; `None`: never.
    pub retention_days: Option<u32>,
    /// `None`: an answer waits for fsync. Otherwise records may be lost for this long.
    pub interval: Option<Duration>,
    /// Test hook: added to each fsync.
    pub extra_sync_delay: Duration,
    /// Also write records to standard output.
    pub stdout: bool,
    /// Also write Elastic Common Schema lines to this file.
    pub ecs: Option<PathBuf>,
    /// When to alert.
    pub alerts: AlertLimits,
}

/// Authentication.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// PEM files with the roots of machine certificates.
    pub machine_roots: Vec<PathBuf>,
    /// How machine names are compared.
    pub machine_names: MachineNames,
    /// One PEM bundle per trust domain.
    pub trust_bundles: Vec<(TrustDomain, PathBuf)>,
    /// How many failures an address may have.
    pub denials: DenialLimits,
    /// How people log in.
    pub people: PeopleConfig,
}

/// Knox's surface.
#[derive(Debug, Clone)]
pub struct KnoxConfig {
    /// Whether lists and polls show only what the caller can read.
    pub list_readable_only: bool,
    /// Whether an ACL change that leaves no administrator is refused.
    pub keep_last_admin: bool,
    /// Path components that a service prefix needs at least.
    pub min_service_path: usize,
    /// How faithfully to imitate what the contract allows to be mended (§14, may fix 1). Principals of no known type are
    /// refused whatever this says: an entry that matches nobody and cannot be shown again helps no client.
    pub strictness: Strictness,
    /// The site's own rules for principals, in order.
    pub principal_rules: Vec<SiteRule>,
    /// Services that may create keys.
    pub creators: Vec<ServiceCreator>,
    /// Header fields of the site's own for every routed answer.
    pub response_headers: Vec<(&'static str, String)>,
    /// Knox's own log lines go to this file.
    pub log: Option<PathBuf>,
    /// The `service` member of those lines.
    pub log_service: String,
}

/// A service that may create keys, and who owns them with it (contract knox §6.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCreator {
    /// SPIFFE ID prefix of the services.
    pub service_prefix: String,
    /// Prefix of the key ids.
    pub key_prefix: String,
    /// Becomes administrator of each such key.
    pub owner: Principal,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// JSON lines instead of text.
    pub json: bool,
    /// A `tracing` filter.
    pub filter: String,
}

/// A static user of a development server.
#[derive(Clone, PartialEq, Eq)]
pub struct DevUser {
    /// Login name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
    /// The token; made at random when absent.
    pub token: Option<String>,
}

impl std::fmt::Debug for DevUser {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevUser").field("name", &self.name).field("groups", &self.groups).finish_non_exhaustive()
    }
}

/// Where a value stands, for messages.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    /// An error about `section.field`, with the line on which it stands.
    fn error(&self, field: &str, problem: impl ToString) -> ConfigError {
        let line = self.line_of(field).map_or(String::new(), |n| format!(":{n}"));
        ConfigError { place: format!("{}{line}", self.file.display()), problem: format!("`{field}`: {}", problem.to_string()) }
    }

    fn line_of(&self, field: &str) -> Option<usize> {
        let (section, name) = field.rsplit_once('.')?;
        let mut here = String::new();
        for (n, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[') {
                here = header.trim_matches(['[', ']']).trim().to_owned();
            }
            let is_field = line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='));
            if here == section && is_field {
                return Some(n + 1);
            }
        }
        None
    }
}

impl Config {
    /// Reads a file and the environment over it, and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`] names the place and the remedy.
    pub fn load(file: &Path, environment: impl Iterator<Item = (String, String)>, dev: bool) -> Result<Self, ConfigError> {
        let place = || file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError { place: place(), problem: format!("cannot be read: {e}") })?;
        Self::parse(file, &text, environment, dev)
    }

    pub(crate) fn parse(
        file: &Path,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
        dev: bool,
    ) -> Result<Self, ConfigError> {
        let raw = Raw::read(file, text, environment)?;
        Self::resolve(raw, &Source { file, text }, dev)
    }

    /// A development server's configuration: everything in `dir`, over an optional file.
    ///
    /// # Errors
    /// [`ConfigError`] names the place and the remedy.
    pub fn dev(dir: &Path, file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let text = match file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| ConfigError { place: file.display().to_string(), problem: format!("cannot be read: {e}") })?,
            None => String::new(),
        };
        let name = file.unwrap_or(Path::new("(no file)"));
        let mut raw = Raw::read(name, &text, environment)?;
        raw.fill_for_dev(dir);
        Self::resolve(raw, &Source { file: name, text: &text }, true)
    }

    fn resolve(raw: Raw, source: &Source<'_>, dev: bool) -> Result<Self, ConfigError> {
        let Raw { server, tls, limits, store, root, audit, auth, knox, native, share, keys, approvals, log, dev: dev_section } = raw;
        if !dev && !dev_section.user.is_empty() {
            return Err(source.error("dev.user", "static users are for `--dev` only; remove the section and use certificates"));
        }
        if dev_section.user.iter().any(|u| u.groups.iter().any(|g| g.starts_with("claviger:"))) {
            return Err(source.error("dev.user", "groups that start with `claviger:` are Claviger's own"));
        }
        let data = server.data.unwrap_or_else(|| PathBuf::from("/var/lib/claviger"));
        let listen = server.listen.unwrap_or_default();
        if listen.is_empty() {
            return Err(source.error("server.listen", "say where to listen, such as listen = [\"0.0.0.0:9000\"]"));
        }
        let address = |field: &str, text: &String| {
            text.parse::<SocketAddr>()
                .map_err(|_| source.error(field, format!("`{text}` is no address; write IP:PORT, such as \"127.0.0.1:9000\"")))
        };
        let required =
            |field: &str, value: Option<PathBuf>| value.ok_or_else(|| source.error(field, "is required: the path of a PEM file"));
        let surfaces = knox.enabled || native.enabled.unwrap_or(true);
        if !surfaces {
            return Err(source.error("native.enabled", "every surface is off; turn on `native.enabled` or `knox.enabled`"));
        }
        Ok(Self {
            listen: listen.iter().map(|a| address("server.listen", a)).collect::<Result<_, _>>()?,
            metrics: server.metrics.as_ref().map(|a| address("server.metrics", a)).transpose()?,
            name: server.name.unwrap_or_else(host_name),
            threads: match server.threads.unwrap_or(0) {
                0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                n if n <= 1024 => n,
                n => return Err(source.error("server.threads", format!("{n} threads are too many; 0 takes one per core"))),
            },
            certificate: required("tls.certificate", tls.certificate)?,
            private_key: required("tls.private_key", tls.private_key)?,
            watches_per_identity: size("limits.watches_per_identity", limits.watches_per_identity, 1000, source)?,
            limits: resolve_limits(&limits, source)?,
            store: store.path.clone().unwrap_or_else(|| data.join("claviger.db")),
            root: root.folder.unwrap_or_else(|| data.join("root")),
            audit: resolve_audit(audit, &data, source)?,
            auth: resolve_auth(auth, source)?,
            knox: knox.enabled.then(|| resolve_knox(&knox, source)).transpose()?,
            native: native.enabled.unwrap_or(true),
            sharing: resolve_sharing(&share, source)?,
            keys: resolve_keys(&keys, &knox, store.accept_tampering.unwrap_or(false), source)?,
            webhooks: resolve_webhooks(approvals, source)?,
            log: resolve_log(&log, source)?,
            dev_users: dev_section.user.into_iter().map(|u| DevUser { name: u.name, groups: u.groups, token: u.token }).collect(),
        })
    }
}

fn resolve_sharing(raw: &raw::Share, source: &Source<'_>) -> Result<Sharing, ConfigError> {
    match (raw.enabled, raw.anonymous) {
        (false, false) => Ok(Sharing::Off),
        (true, false) => Ok(Sharing::Proven),
        (true, true) => Ok(Sharing::Anybody),
        (false, true) => Err(source.error("share.anonymous", "shares are off; turn on `share.enabled` too, or leave this out")),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "claviger".to_owned(),
        name => name.to_owned(),
    }
}

fn positive(field: &str, value: u64, source: &Source<'_>) -> Result<u64, ConfigError> {
    if value == 0 { Err(source.error(field, "must be greater than zero")) } else { Ok(value) }
}

fn size(field: &str, value: Option<u64>, default: usize, source: &Source<'_>) -> Result<usize, ConfigError> {
    match value {
        Some(v) => Ok(usize::try_from(positive(field, v, source)?).unwrap_or(usize::MAX)),
        None => Ok(default),
    }
}

fn resolve_limits(raw: &raw::Limits, source: &Source<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let size = |field: &str, value, default| size(field, value, default, source);
    let seconds = |field: &str, value: Option<u64>, default: Duration| match value {
        Some(v) => Ok(Duration::from_secs(positive(field, v, source)?)),
        None => Ok(default),
    };
    limits.connections = size("limits.connections", raw.connections, limits.connections)?;
    limits.connections_per_address = size("limits.connections_per_address", raw.connections_per_address, limits.connections_per_address)?;
    limits.buffered_bytes = size("limits.buffered_bytes", raw.buffered_bytes, limits.buffered_bytes)?;
    if limits.buffered_bytes < LEAST_BUFFERED {
        let why = format!("must be at least {LEAST_BUFFERED}: an address gets a quarter, which must hold the largest request");
        return Err(source.error("limits.buffered_bytes", why));
    }
    limits.head_time = seconds("limits.head_seconds", raw.head_seconds, limits.head_time)?;
    limits.body_time = seconds("limits.body_seconds", raw.body_seconds, limits.body_time)?;
    limits.idle_time = seconds("limits.idle_seconds", raw.idle_seconds, limits.idle_time)?;
    limits.handshake_time = seconds("limits.handshake_seconds", raw.handshake_seconds, limits.handshake_time)?;
    limits.drain_time = seconds("limits.drain_seconds", raw.drain_seconds, limits.drain_time)?;
    Ok(limits)
}

fn resolve_audit(raw: raw::Audit, data: &Path, source: &Source<'_>) -> Result<AuditConfig, ConfigError> {
    let interval = match raw.durability.as_deref() {
        None | Some("fsync") => None,
        Some("interval") => Some(Duration::from_millis(raw.interval_ms.unwrap_or(1000))),
        Some(other) => return Err(source.error("audit.durability", format!("`{other}` is unknown; write \"fsync\" or \"interval\""))),
    };
    let alerts = AlertLimits::default();
    Ok(AuditConfig {
        folder: raw.folder.unwrap_or_else(|| data.join("audit")),
        standby: raw.standby,
        reserve: raw.reserve_mib.unwrap_or(64) << 20,
        retention_days: raw.retention_days.filter(|days| *days > 0),
        interval,
        extra_sync_delay: Duration::from_micros(raw.test_sync_delay_us.unwrap_or(0)),
        stdout: raw.stdout.unwrap_or(false),
        ecs: raw.ecs,
        alerts: AlertLimits {
            first_read: raw.alert_first_read.unwrap_or(alerts.first_read),
            denials: raw.alert_denials.unwrap_or(alerts.denials),
            mass_read: raw.alert_mass_read.unwrap_or(alerts.mass_read),
        },
    })
}

fn resolve_auth(raw: raw::Auth, source: &Source<'_>) -> Result<AuthConfig, ConfigError> {
    let case = match raw.machine_name_case.as_deref() {
        None | Some("as-sent") => NameCase::AsSent,
        Some("folded") => NameCase::Folded,
        Some(other) => return Err(source.error("auth.machine_name_case", format!("`{other}` is unknown; write \"as-sent\" or \"folded\""))),
    };
    let wildcard = if raw.machine_wildcards.unwrap_or(true) { WildcardNames::Allowed } else { WildcardNames::Refused };
    let domain = |(name, path): (String, PathBuf)| {
        let parsed = TrustDomain::parse(&name).map_err(|e| source.error("auth.trust_bundles", format!("`{name}`: {e}")))?;
        Ok((parsed, path))
    };
    let standard = DenialLimits::default();
    let people = people::resolve(&raw, source)?;
    Ok(AuthConfig {
        people,
        machine_roots: raw.machine_roots.unwrap_or_default(),
        machine_names: MachineNames { case, wildcard },
        trust_bundles: raw.trust_bundles.unwrap_or_default().into_iter().map(domain).collect::<Result<_, _>>()?,
        denials: DenialLimits {
            burst: raw.failures_burst.unwrap_or(standard.burst),
            forgive_one_after: raw.failures_per_second.map_or(standard.forgive_one_after, |n| Duration::from_secs(1) / n.get()),
            ..standard
        },
    })
}

fn resolve_knox(raw: &raw::Knox, source: &Source<'_>) -> Result<KnoxConfig, ConfigError> {
    let creator = |c: &raw::ServiceCreator| {
        let owner = c.owner.parse().map_err(|e| source.error("knox.service_creator", format!("owner `{}`: {e}", c.owner)))?;
        let is_prefix = principal(PrincipalType::ServicePrefix, &c.service_prefix, PrincipalRules::default());
        is_prefix.map_err(|_| {
            let rule = format!("service_prefix `{}`: write spiffe://DOMAIN/PATH/ with a slash at its end", c.service_prefix);
            source.error("knox.service_creator", rule)
        })?;
        Ok(ServiceCreator { service_prefix: c.service_prefix.clone(), key_prefix: c.key_prefix.clone(), owner })
    };
    let strictness = match raw.strictness.as_deref() {
        None | Some("fixed") => Strictness::Fixed,
        Some("reference") => Strictness::Reference,
        Some(other) => return Err(source.error("knox.strictness", format!("`{other}` is unknown; write \"fixed\" or \"reference\""))),
    };
    Ok(KnoxConfig {
        list_readable_only: raw.list_readable_only.unwrap_or(false),
        keep_last_admin: raw.keep_last_admin.unwrap_or(false),
        min_service_path: raw.min_service_path.unwrap_or(0),
        strictness,
        principal_rules: raw.principal_rule.iter().map(|r| resolve_principal_rule(r, source)).collect::<Result<_, _>>()?,
        creators: raw.service_creator.iter().map(creator).collect::<Result<_, _>>()?,
        response_headers: raw.response_headers.iter().map(|(n, v)| resolve_response_header(n, v, source)).collect::<Result<_, _>>()?,
        log: raw.log.clone(),
        log_service: raw.log_service.clone().unwrap_or_default(),
    })
}

fn resolve_principal_rule(raw: &raw::PrincipalRule, source: &Source<'_>) -> Result<SiteRule, ConfigError> {
    let wrong = |rule: String| Err(source.error("knox.principal_rule", rule));
    let kind = match raw.r#type.as_str() {
        "user" => PrincipalType::User,
        "user_group" => PrincipalType::UserGroup,
        "machine" => PrincipalType::Machine,
        "machine_prefix" => PrincipalType::MachinePrefix,
        "service" => PrincipalType::Service,
        "service_prefix" => PrincipalType::ServicePrefix,
        other => {
            return wrong(format!("type `{other}` is unknown; write user, user_group, machine, machine_prefix, service or service_prefix"));
        }
    };
    if raw.allow.is_empty() && raw.forbid.is_empty() {
        return wrong("a rule needs `allow` or `forbid`, a list of patterns such as \"*.example.com\"".to_owned());
    }
    if raw.error.trim().is_empty() {
        return wrong("`error` is what the person reads whose entry is refused; say there what is allowed".to_owned());
    }
    let patterns = |texts: &[String]| texts.iter().map(|t| Pattern::new(t)).collect();
    Ok(SiteRule { kind, allow: patterns(&raw.allow), forbid: patterns(&raw.forbid), error: raw.error.as_str().into() })
}

/// A header field that can be sent and is not the server's to write.
fn resolve_response_header(name: &str, value: &str, source: &Source<'_>) -> Result<(&'static str, String), ConfigError> {
    const OURS: [&str; 11] = [
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-content-type-options",
    ];
    let wrong = |rule: &str| Err(source.error("knox.response_headers", format!("`{name}`: {rule}")));
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return wrong("a field's name is made of letters, digits and `-`");
    }
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        return wrong("this field is the server's own to write");
    }
    if value.trim() != value || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return wrong("a field's value is printable ASCII without spaces around it");
    }
    // Names of response fields live as long as the program; the configuration is read once.
    Ok((name.to_owned().leak(), value.to_owned()))
}

fn resolve_keys(
    raw: &raw::Keys,
    knox: &raw::Knox,
    accept_tampering: bool,
    source: &Source<'_>,
) -> Result<claviger_engine::Settings, ConfigError> {
    const KNOX_MOST: usize = 10 << 20;
    let standard = claviger_engine::Settings::default();
    let max_value = raw.max_value.unwrap_or(standard.max_value);
    if !(1..=KNOX_MOST).contains(&max_value) {
        return Err(source.error("keys.max_value", "must lie between 1 and 10485760 bytes"));
    }
    let max_answer = raw.max_answer.unwrap_or(standard.max_answer);
    if max_answer < max_value {
        return Err(source.error("keys.max_answer", "must be at least keys.max_value, or the longest value could not be read"));
    }
    let grant = |text: &String| {
        let bad = |why: String| source.error("keys.default_grants", format!("`{text}`: {why}; write TYPE:ID=read|write|admin"));
        let (principal, preset) = text.rsplit_once('=').ok_or_else(|| bad("no `=`".to_owned()))?;
        let preset = match preset {
            "read" => Preset::Read,
            "write" => Preset::Write,
            "admin" => Preset::Admin,
            other => return Err(bad(format!("`{other}` is no preset"))),
        };
        let principal: Principal = principal.parse().map_err(|e| bad(format!("{e}")))?;
        Ok(Grant { principal, capabilities: preset.capabilities() })
    };
    Ok(claviger_engine::Settings {
        notices: None,
        max_value,
        max_versions: raw.max_versions.unwrap_or(standard.max_versions),
        max_answer,
        inline_limit: raw.inline_limit.unwrap_or(standard.inline_limit),
        default_grants: raw.default_grants.iter().map(grant).collect::<Result<_, _>>()?,
        policy: knox
            .access_callback_socket
            .clone()
            .map(|socket| crate::callback::policy(socket, Duration::from_millis(knox.access_callback_timeout_ms.unwrap_or(1000)))),
        accept_tampering,
        epoch_known: standard.epoch_known,
    })
}

fn resolve_webhooks(raw: raw::Approvals, source: &Source<'_>) -> Result<WebhookConfig, ConfigError> {
    let raw::Approvals { webhooks, webhook_key_file, webhook_ca, webhook_loopback_http } = raw;
    let loopback_http = webhook_loopback_http.unwrap_or(false);
    for url in &webhooks {
        crate::outbound::Url::parse(url, loopback_http).map_err(|e| source.error("approvals.webhooks", e))?;
    }
    let ca = webhook_ca.unwrap_or_else(|| PathBuf::from(people::SYSTEM_ROOTS));
    Ok(WebhookConfig { urls: webhooks, key_file: webhook_key_file, ca, loopback_http })
}

fn resolve_log(raw: &raw::Log, source: &Source<'_>) -> Result<LogConfig, ConfigError> {
    let json = match raw.format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(source.error("log.format", format!("`{other}` is unknown; write \"text\" or \"json\""))),
    };
    let filter = raw.filter.clone().unwrap_or_else(|| "info".to_owned());
    if let Err(why) = filter.parse::<tracing_subscriber::filter::Targets>() {
        return Err(source.error("log.filter", format!("{why}; write a level such as \"info\" or \"claviger_server=debug,info\"")));
    }
    Ok(LogConfig { json, filter })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\n";

    const ISSUER: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\n[auth.oidc.corp]\nissuer = \"https://i\"\nclient_id = \"c\"\nuser_claim = \"sub\"\n";

    fn resolve(text: &str, environment: &[(&str, &str)], dev: bool) -> Result<Config, ConfigError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::parse(Path::new("claviger.toml"), text, environment, dev)
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = resolve(GOOD, &[], false).unwrap();
        assert!(config.native && config.knox.is_none() && config.metrics.is_none());
        assert_eq!(config.store, Path::new("/var/lib/claviger/claviger.db"));
    }

    #[test]
    fn an_error_names_the_line_and_the_remedy() {
        for (text, line, word) in [
            (format!("{GOOD}[log]\nformat = \"xml\"\n"), "claviger.toml:7", "json"),
            (format!("{GOOD}[log]\ncolour = 1\n"), "claviger.toml:7", "colour"),
            (format!("{GOOD}[keys]\nmax_value = 99999999\n"), "claviger.toml:7", "10485760"),
            (format!("{GOOD}[keys]\nmax_answer = 99999\n"), "claviger.toml:7", "keys.max_value"),
            (format!("{GOOD}[limits]\nbuffered_bytes = 33554432\n"), "claviger.toml:7", "83886080"),
            (format!("{GOOD}[knox]\nenabled = \"yes\"\n"), "claviger.toml:7", "boolean"),
            (format!("{GOOD}[knox]\nenabled = true\nstrictness = \"lax\"\n"), "claviger.toml:8", "reference"),
            (
                format!(
                    "{GOOD}[[knox.service_creator]]\nservice_prefix = \"spiffe://d/ci\"\nkey_prefix = \"ci:\"\nowner = \"user:a\"\n[knox]\nenabled = true\n"
                ),
                "claviger.toml",
                "slash",
            ),
            (
                format!("{GOOD}[[knox.principal_rule]]\ntype = \"host\"\nallow = [\"*\"]\nerror = \"no\"\n[knox]\nenabled = true\n"),
                "claviger.toml",
                "machine_prefix",
            ),
            (
                format!("{GOOD}[[knox.principal_rule]]\ntype = \"user\"\nerror = \"no\"\n[knox]\nenabled = true\n"),
                "claviger.toml",
                "forbid",
            ),
            (format!("{GOOD}[knox]\nenabled = true\nresponse_headers = {{ Connection = \"close\" }}\n"), "claviger.toml:8", "server's own"),
            (format!("{GOOD}[knox]\nenabled = true\nresponse_headers = {{ X = \"a\\r\\nB: c\" }}\n"), "claviger.toml:8", "printable"),
            (format!("{GOOD}[auth]\nsession_minutes = 61\n"), "claviger.toml:7", "between 1 and 60"),
            (format!("{GOOD}[auth.oidc.corp]\nclient_id = \"c\"\n"), "claviger.toml", "auth.oidc.corp.issuer"),
            (format!("{GOOD}[auth.oidc.corp]\nissuer = \"http://idp.example\"\n"), "claviger.toml:7", "https://"),
            (format!("{GOOD}[auth.oidc.corp]\nissuer = \"http://127.0.0.1:1\"\n"), "claviger.toml:7", "loopback_http"),
            (format!("{GOOD}[auth.oidc.corp]\nissuer = \"https://i\"\nclient_id = \"c\"\n"), "claviger.toml", "user_claim"),
            (format!("{ISSUER}algorithms = [\"HS256\"]\n"), "claviger.toml:10", "not accepted"),
            (format!("{ISSUER}algorithms = [\"none\"]\n"), "claviger.toml:10", "not accepted"),
            (format!("{ISSUER}clock_skew_seconds = 301\n"), "claviger.toml:10", "300"),
            (format!("{ISSUER}scopes = [\"profile\"]\n"), "claviger.toml:10", "openid"),
            (format!("{ISSUER}user_prefix = \"claviger:\"\n"), "claviger.toml", "Claviger's own"),
            (format!("{ISSUER}[auth.github]\nbase_url = \"https://g\"\n"), "claviger.toml", "user_prefix"),
            (
                format!(
                    "{ISSUER}[auth.oidc.two]\nissuer = \"https://j\"\nclient_id = \"c\"\nuser_claim = \"sub\"\nuser_prefix = \"two:\"\n"
                ),
                "claviger.toml",
                "groups_prefix",
            ),
            (
                format!("{ISSUER}[auth.oidc.two]\nissuer = \"https://i\"\nclient_id = \"c\"\nuser_claim = \"sub\"\n"),
                "claviger.toml:11",
                "count twice",
            ),
            (format!("{GOOD}[auth.oidc.\"Corp!\"]\nissuer = \"https://i\"\n"), "claviger.toml", "small letters"),
            (format!("{GOOD}[auth.github]\ncache_seconds = 601\n"), "claviger.toml:7", "600"),
            (format!("{GOOD}[[dev.user]]\nname = \"x\"\n"), "claviger.toml", "--dev"),
            ("[server]\nlisten = [\"x\"]\n[tls]\ncertificate=\"c\"\nprivate_key=\"k\"\n".to_owned(), "claviger.toml:2", "IP:PORT"),
            ("[server\n".to_owned(), "claviger.toml:1", ""),
        ] {
            let error = resolve(&text, &[], false).unwrap_err();
            assert_eq!(error.place, line, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config =
            resolve(GOOD, &[("CLAVIGER__SERVER__LISTEN", "[\"127.0.0.1:7\"]"), ("CLAVIGER__LOG__FORMAT", "json"), ("PATH", "x")], false)
                .unwrap();
        assert_eq!(config.listen, ["127.0.0.1:7".parse().unwrap()]);
        assert!(config.log.json);
        let error = resolve(GOOD, &[("CLAVIGER__LOG__COLOUR", "1")], false).unwrap_err();
        assert!(error.to_string().contains("CLAVIGER__LOG__COLOUR"), "{error}");
    }

    #[test]
    fn static_users_are_for_development_only() {
        let text = format!("{GOOD}[[dev.user]]\nname = \"bob\"\ngroups = [\"ops\"]\n");
        assert_eq!(resolve(&text, &[], true).unwrap().dev_users[0].groups, ["ops"]);
        assert!(resolve(&text, &[], false).is_err());
    }
}
