//! The configuration as written. Unknown members are refused; what each member does is told in `reference`.

use super::ConfigError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Overrides start with this; sections and fields are separated by two underscores.
const ENVIRONMENT: &str = "CLAVIGER__";

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub(super) server: Server,
    pub(super) tls: Tls,
    pub(super) limits: Limits,
    pub(super) store: Store,
    pub(super) root: Root,
    pub(super) audit: Audit,
    pub(super) auth: Auth,
    pub(super) knox: Knox,
    pub(super) native: Native,
    pub(super) share: Share,
    pub(super) keys: Keys,
    pub(super) approvals: Approvals,
    pub(super) log: Log,
    pub(super) dev: Dev,
}

macro_rules! section {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $(pub(super) $field: $type),* }
    };
}

section!(Server { listen: Option<Vec<String>>, metrics: Option<String>, name: Option<String>, threads: Option<usize>, data: Option<PathBuf> });
section!(Tls { certificate: Option<PathBuf>, private_key: Option<PathBuf> });
section!(Limits {
    connections: Option<u64>,
    connections_per_address: Option<u64>,
    watches_per_identity: Option<u64>,
    buffered_bytes: Option<u64>,
    handshake_seconds: Option<u64>,
    head_seconds: Option<u64>,
    body_seconds: Option<u64>,
    idle_seconds: Option<u64>,
    drain_seconds: Option<u64>,
});
section!(Approvals {
    webhooks: Vec<String>,
    webhook_key_file: Option<PathBuf>,
    webhook_ca: Option<PathBuf>,
    webhook_loopback_http: Option<bool>,
});
section!(Store { path: Option<PathBuf>, accept_tampering: Option<bool> });
section!(Root { folder: Option<PathBuf> });
section!(Audit {
    folder: Option<PathBuf>,
    standby: Option<PathBuf>,
    reserve_mib: Option<u64>,
    retention_days: Option<u32>,
    durability: Option<String>,
    interval_ms: Option<u64>,
    test_sync_delay_us: Option<u64>,
    stdout: Option<bool>,
    ecs: Option<PathBuf>,
    alert_first_read: Option<bool>,
    alert_denials: Option<u32>,
    alert_mass_read: Option<u32>,
});
section!(Auth {
    machine_roots: Option<Vec<PathBuf>>,
    machine_name_case: Option<String>,
    machine_wildcards: Option<bool>,
    trust_bundles: Option<BTreeMap<String, PathBuf>>,
    failures_burst: Option<std::num::NonZeroU32>,
    failures_per_second: Option<std::num::NonZeroU32>,
    session_minutes: Option<u64>,
    session_total_hours: Option<u64>,
    oidc: BTreeMap<String, Oidc>,
    github: Option<Github>,
});
section!(Oidc {
    issuer: Option<String>,
    client_id: Option<String>,
    scopes: Option<Vec<String>>,
    prompt: Option<String>,
    algorithms: Option<Vec<String>>,
    user_claim: Option<Claim>,
    user_prefix: Option<String>,
    groups_claim: Option<Claim>,
    groups_prefix: Option<String>,
    device_flow: Option<bool>,
    clock_skew_seconds: Option<u64>,
    ca: Option<PathBuf>,
    loopback_http: Option<bool>,
});
section!(Github {
    base_url: Option<String>,
    ca: Option<PathBuf>,
    loopback_http: Option<bool>,
    timeout_ms: Option<u64>,
    cache_seconds: Option<u64>,
    user_prefix: Option<String>,
    groups_prefix: Option<String>,
});
section!(Knox {
    enabled: bool,
    list_readable_only: Option<bool>,
    keep_last_admin: Option<bool>,
    min_service_path: Option<usize>,
    strictness: Option<String>,
    principal_rule: Vec<PrincipalRule>,
    service_creator: Vec<ServiceCreator>,
    access_callback_socket: Option<PathBuf>,
    access_callback_timeout_ms: Option<u64>,
    response_headers: BTreeMap<String, String>,
    log: Option<PathBuf>,
    log_service: Option<String>,
});
section!(Native { enabled: Option<bool> });
section!(Share { enabled: bool, anonymous: bool });
section!(Keys { max_value: Option<usize>, max_versions: Option<usize>, max_answer: Option<usize>, inline_limit: Option<usize>, default_grants: Vec<String> });
section!(Log { format: Option<String>, filter: Option<String> });
section!(Dev { user: Vec<DevUser> });

/// Where a claim lies: one member, or the members that lead to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Claim {
    Member(String),
    Path(Vec<String>),
}

impl Claim {
    pub(super) fn path(&self) -> Vec<String> {
        match self {
            Self::Member(name) => vec![name.clone()],
            Self::Path(names) => names.clone(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceCreator {
    pub(super) service_prefix: String,
    pub(super) key_prefix: String,
    pub(super) owner: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrincipalRule {
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) allow: Vec<String>,
    #[serde(default)]
    pub(super) forbid: Vec<String>,
    pub(super) error: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevUser {
    pub(super) name: String,
    #[serde(default)]
    pub(super) groups: Vec<String>,
    pub(super) token: Option<String>,
}

impl std::fmt::Debug for DevUser {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevUser").field("name", &self.name).field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Raw {
    /// Reads the file's text, then lays the environment's variables over it.
    pub(super) fn read(file: &Path, text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let at_file = |e: toml::de::Error| {
            let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError { place: format!("{}:{line}", file.display()), problem: e.message().to_owned() }
        };
        // The file alone first: its errors have lines, those of the merged table would not.
        toml::from_str::<Self>(text).map_err(at_file)?;
        let mut table: toml::Table = toml::from_str(text).map_err(at_file)?;
        for (name, value) in environment.filter(|(name, _)| name.starts_with(ENVIRONMENT)) {
            override_with(&mut table, &name, &value)?;
        }
        table.try_into().map_err(|e: toml::de::Error| ConfigError { place: "environment".to_owned(), problem: e.message().to_owned() })
    }

    /// What a development server needs and the file does not say.
    pub(super) fn fill_for_dev(&mut self, dir: &Path) {
        self.server.listen.get_or_insert_with(|| vec!["127.0.0.1:0".to_owned()]);
        self.server.metrics.get_or_insert_with(|| "127.0.0.1:0".to_owned());
        self.server.data.get_or_insert_with(|| dir.to_owned());
        self.tls.certificate.get_or_insert_with(|| dir.join("server.pem"));
        self.tls.private_key.get_or_insert_with(|| dir.join("server.key"));
        self.auth.machine_roots.get_or_insert_with(|| vec![dir.join("ca.pem")]);
        self.auth.trust_bundles.get_or_insert_with(|| BTreeMap::from([("dev.claviger".to_owned(), dir.join("ca.pem"))]));
        self.knox.enabled = true;
    }
}

/// Sets one field from `CLAVIGER__SECTION__FIELD=value`; the value is TOML, or else plain text.
fn override_with(table: &mut toml::Table, name: &str, value: &str) -> Result<(), ConfigError> {
    let error = |problem: String| ConfigError { place: format!("environment variable {name}"), problem };
    let path = name[ENVIRONMENT.len()..].to_lowercase();
    let Some((section, field)) = path.split_once("__") else {
        return Err(error("write CLAVIGER__SECTION__FIELD, such as CLAVIGER__SERVER__LISTEN".to_owned()));
    };
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let alone =
        toml::Table::from_iter([(section.to_owned(), toml::Value::Table(toml::Table::from_iter([(field.to_owned(), value.clone())])))]);
    alone.try_into::<Raw>().map_err(|e| error(e.message().to_owned()))?;
    let entry = table.entry(section.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let Some(section) = entry.as_table_mut() {
        section.insert(field.to_owned(), value);
    }
    Ok(())
}
