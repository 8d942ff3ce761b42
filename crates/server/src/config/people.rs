//! How people prove who they are: OpenID issuers and a GitHub-compatible service, from the configuration's words to rules.

use super::{ConfigError, Source, raw};
use claviger_authn::{Algorithm, ClaimPath, MAX_SKEW, Names, OidcRules, Prefixes};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where Debian and most others keep the roots of the public web.
pub(super) const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The source of names that a GitHub-compatible service is.
pub(crate) const GITHUB: &str = "github";

/// People's logins.
#[derive(Debug, Clone, Default)]
pub struct PeopleConfig {
    /// OpenID issuers, by name.
    pub issuers: Vec<IssuerConfig>,
    /// The service that knows the tokens of Knox's `0u`.
    pub github: Option<GithubConfig>,
    /// Which source gives which names.
    pub names: Names,
    /// How long one session counts.
    pub session: Duration,
}

/// One OpenID issuer.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// What its tokens must say.
    pub rules: OidcRules,
    /// What a login asks for.
    pub scopes: Vec<String>,
    /// `prompt` of a login; none when empty.
    pub prompt: Option<String>,
    /// PEM file with the roots of its TLS certificates.
    pub ca: PathBuf,
    /// Whether that file was named, so that the command line trusts it for this issuer too.
    pub has_own_ca: bool,
    /// Whether it may be plain HTTP on this machine.
    pub loopback_http: bool,
}

/// A GitHub-compatible service.
#[derive(Debug, Clone)]
pub struct GithubConfig {
    /// Before `/user` and `/user/orgs`.
    pub base_url: String,
    /// PEM file with the roots of its TLS certificates.
    pub ca: PathBuf,
    /// Whether it may be plain HTTP on this machine.
    pub loopback_http: bool,
    /// How long one look-up may take, all its requests together.
    pub timeout: Duration,
    /// How long what it said is taken for true.
    pub cache: Duration,
}

/// Checks the members of `[auth]` that are about people.
pub(super) fn resolve(raw: &raw::Auth, source: &Source<'_>) -> Result<PeopleConfig, ConfigError> {
    let within = |field: &str, value: Option<u64>, default: u64, most: u64| match value.unwrap_or(default) {
        n if (1..=most).contains(&n) => Ok(n),
        _ => Err(source.error(field, format!("must lie between 1 and {most}"))),
    };
    let session = Duration::from_secs(60 * within("auth.session_minutes", raw.session_minutes, 15, 60)?);
    let total = Duration::from_secs(3600 * within("auth.session_total_hours", raw.session_total_hours, 12, 168)?);
    let issuers = raw.oidc.iter().map(|(name, raw)| issuer(name, raw, total, source)).collect::<Result<Vec<_>, _>>()?;
    let github = raw.github.as_ref().map(|raw| github(raw, source)).transpose()?;
    for (i, one) in issuers.iter().enumerate() {
        if issuers[..i].iter().any(|other| other.rules.issuer == one.rules.issuer && other.rules.client_id == one.rules.client_id) {
            let field = format!("auth.oidc.{}.issuer", one.rules.name);
            return Err(source.error(&field, "another section has the same issuer and client_id: its tokens would count twice"));
        }
    }
    let names = Names::new(prefixes(&raw.oidc, raw.github.as_ref())).map_err(|e| source.error("auth.oidc", e))?;
    Ok(PeopleConfig { issuers, github, names, session })
}

fn prefixes(oidc: &BTreeMap<String, raw::Oidc>, github: Option<&raw::Github>) -> Vec<Prefixes> {
    let of = |source: &str, users: &Option<String>, groups: &Option<String>| Prefixes {
        source: source.into(),
        users: users.as_deref().unwrap_or_default().into(),
        groups: groups.as_deref().unwrap_or_default().into(),
    };
    let issuers = oidc.iter().map(|(name, raw)| of(name, &raw.user_prefix, &raw.groups_prefix));
    issuers.chain(github.map(|raw| of(GITHUB, &raw.user_prefix, &raw.groups_prefix))).collect()
}

fn issuer(name: &str, raw: &raw::Oidc, session_total: Duration, source: &Source<'_>) -> Result<IssuerConfig, ConfigError> {
    let wrong = |field: &str, rule: &str| source.error(&format!("auth.oidc.{name}.{field}"), rule);
    let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if name.is_empty() || name.len() > 40 || !is_plain || name == GITHUB {
        let rule = "an issuer's name is made of up to 40 small letters, digits and `-`, and is not `github`: [auth.oidc.NAME]";
        return Err(source.error("auth.oidc", format!("`{name}`: {rule}")));
    }
    let required = |field: &str, value: &Option<String>, what: &str| match value {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(wrong(field, what)),
    };
    let loopback_http = raw.loopback_http.unwrap_or(false);
    let issuer = required("issuer", &raw.issuer, "is required: the provider's issuer identifier, such as \"https://login.example.com\"")?;
    check_url(&issuer, loopback_http).map_err(|rule| wrong("issuer", &rule))?;
    let skew = Duration::from_secs(raw.clock_skew_seconds.unwrap_or(30));
    if skew > MAX_SKEW {
        return Err(wrong("clock_skew_seconds", "may be 300 at most: mend the clocks"));
    }
    let scopes = raw.scopes.clone().unwrap_or_else(|| ["openid", "profile", "offline_access"].map(str::to_owned).to_vec());
    let is_scope = |s: &String| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if !scopes.iter().any(|s| s == "openid") || !scopes.iter().all(is_scope) {
        return Err(wrong("scopes", "must have \"openid\", and no spaces within a scope"));
    }
    // Core §11: without it a provider passes `offline_access` over.
    let consent = || scopes.iter().any(|s| s == "offline_access").then(|| "consent".to_owned());
    let prompt = raw.prompt.clone().or_else(consent).filter(|prompt| !prompt.is_empty());
    if prompt.as_ref().is_some_and(|prompt| !["consent", "login", "select_account", "login consent"].contains(&prompt.as_str())) {
        return Err(wrong("prompt", "must be \"consent\", \"login\", \"login consent\", \"select_account\", or empty"));
    }
    let path = |field: &str, path: &Option<raw::Claim>| match path {
        Some(path) if path.path().iter().any(String::is_empty) => Err(wrong(field, "a claim's name may not be empty")),
        path => Ok(path.as_ref().map(raw::Claim::path).filter(|path: &ClaimPath| !path.is_empty())),
    };
    let user_claim = path("user_claim", &raw.user_claim)?.ok_or_else(|| {
        wrong("user_claim", "is required: the claim that has the user's name, such as \"preferred_username\", \"email\" or \"sub\"")
    })?;
    Ok(IssuerConfig {
        rules: OidcRules {
            name: name.into(),
            // The configuration is read once, and its names live as long as the program.
            method: format!("oidc:{name}").leak(),
            issuer,
            client_id: required("client_id", &raw.client_id, "is required: what the provider calls this client")?,
            algorithms: algorithms(raw.algorithms.as_deref()).map_err(|rule| wrong("algorithms", &rule))?,
            skew,
            user_claim,
            groups_claim: path("groups_claim", &raw.groups_claim)?,
            device_flow: raw.device_flow.unwrap_or(false),
            session_total,
        },
        scopes,
        prompt,
        has_own_ca: raw.ca.is_some(),
        ca: raw.ca.clone().unwrap_or_else(|| PathBuf::from(SYSTEM_ROOTS)),
        loopback_http,
    })
}

fn algorithms(names: Option<&[String]>) -> Result<Vec<Algorithm>, String> {
    let Some(names) = names else { return Ok(Algorithm::ALL.to_vec()) };
    let all = Algorithm::ALL.map(Algorithm::name).join(", ");
    if names.is_empty() {
        return Err(format!("needs at least one of {all}"));
    }
    let known = |name: &String| Algorithm::from_name(name).ok_or_else(|| format!("`{name}` is not accepted; there are {all}"));
    names.iter().map(known).collect()
}

fn github(raw: &raw::Github, source: &Source<'_>) -> Result<GithubConfig, ConfigError> {
    let loopback_http = raw.loopback_http.unwrap_or(false);
    let base_url = raw.base_url.clone().unwrap_or_else(|| "https://api.github.com".to_owned());
    check_url(&base_url, loopback_http).map_err(|rule| source.error("auth.github.base_url", rule))?;
    let (timeout, cache) = (raw.timeout_ms.unwrap_or(5000), raw.cache_seconds.unwrap_or(60));
    if !(1..=60_000).contains(&timeout) {
        return Err(source.error("auth.github.timeout_ms", "must lie between 1 and 60000"));
    }
    if cache > 600 {
        return Err(source.error("auth.github.cache_seconds", "may be 600 at most: a right that GitHub took lives that long"));
    }
    Ok(GithubConfig {
        base_url: base_url.trim_end_matches('/').to_owned(),
        ca: raw.ca.clone().unwrap_or_else(|| PathBuf::from(SYSTEM_ROOTS)),
        loopback_http,
        timeout: Duration::from_millis(timeout),
        cache: Duration::from_secs(cache),
    })
}

fn check_url(url: &str, loopback_http: bool) -> Result<(), String> {
    crate::outbound::Url::parse(url, loopback_http).map(drop).map_err(|e| e.to_string())
}
