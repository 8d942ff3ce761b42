//! What each field of the configuration does at run time. `docs/configuration.md` is written from this table, and a test
//! compares the table with what the parser takes.

/// One field: section, name, example as TOML, default in words, what it does.
type Field = (&'static str, &'static str, &'static str, &'static str, &'static str);

const FIELDS: &[Field] = &[
    (
        "server",
        "listen",
        "[\"0.0.0.0:9000\"]",
        "required",
        "Addresses for clients, TLS only. Port 0 takes a free one. A change needs a restart.",
    ),
    (
        "server",
        "metrics",
        "\"127.0.0.1:9100\"",
        "off",
        "Address for `/healthz`, `/readyz` and `/metrics` in plain HTTP. It needs no credential and shows no key names; keep it off public networks.",
    ),
    ("server", "name", "\"keys-1\"", "the host name", "The server's name in Knox's answers and log lines."),
    ("server", "threads", "0", "0", "Worker threads, each with its own event loop and socket. 0 takes one per core."),
    (
        "server",
        "data",
        "\"/var/lib/claviger\"",
        "/var/lib/claviger",
        "The folder under which store, root key and audit log lie unless they are placed elsewhere.",
    ),
    (
        "tls",
        "certificate",
        "\"/etc/claviger/tls.pem\"",
        "required",
        "The server's certificate chain, leaf first. Read again on SIGHUP and when the file changes; open connections keep the old one.",
    ),
    ("tls", "private_key", "\"/etc/claviger/tls.key\"", "required", "Its private key (PEM, PKCS#8, SEC 1 or PKCS#1)."),
    ("limits", "connections", "65536", "65536", "Open connections in all. Further ones are closed at once and counted."),
    ("limits", "connections_per_address", "16384", "16384", "Open connections per client address (IPv6: per /64)."),
    (
        "limits",
        "watches_per_identity",
        "1000",
        "1000",
        "Streams of changes that one identity may have open. Further ones get 429; raise it where many machines share one identity.",
    ),
    (
        "limits",
        "buffered_bytes",
        "268435456",
        "256 MiB",
        "Memory that large request heads and bodies may hold together, and a quarter of it those of one address (IPv6: a /64). A request beyond it gets 503. At least 80 MiB.",
    ),
    ("limits", "handshake_seconds", "10", "10", "A TLS handshake that takes longer is dropped."),
    ("limits", "head_seconds", "10", "10", "A request head that takes longer gets 408."),
    (
        "limits",
        "body_seconds",
        "300",
        "300",
        "A request body that takes longer gets 408; so does one that in 30 s neither ends nor brings 64 KiB.",
    ),
    (
        "limits",
        "idle_seconds",
        "120",
        "120",
        "A keep-alive HTTP/1 connection without a request is closed after this; an HTTP/2 one after 3 to 6 s, since its buffers cannot be wiped while it is open.",
    ),
    ("limits", "drain_seconds", "10", "10", "At shutdown requests under way have this long to end."),
    (
        "store",
        "path",
        "\"/var/lib/claviger/claviger.db\"",
        "DATA/claviger.db",
        "The SQLite database. Made by `claviger server init`, mode 0600.",
    ),
    (
        "store",
        "accept_tampering",
        "false",
        "false",
        "For saving what is left of a store whose rows were removed, added, rolled back or destroyed beyond recognition: the start goes on, and what is left counts from then on as what was written. That is recorded as `accept_tampering` and said at level ERROR. Take it out again after that start, so that the next tampering is noticed.",
    ),
    (
        "root",
        "folder",
        "\"/var/lib/claviger/root\"",
        "DATA/root",
        "The folder of the root key file `root.key`. Folder 0700, file 0600, or the server refuses to start. Whoever has this file and the database has every secret: back it up apart from the database.",
    ),
    ("audit", "folder", "\"/var/lib/claviger/audit\"", "DATA/audit", "The folder of this server's Merkle audit log."),
    (
        "audit",
        "standby",
        "\"/mnt/other/audit\"",
        "off",
        "A folder on another disk that takes over when the first cannot be written. Both must be there at a start.",
    ),
    (
        "audit",
        "reserve_mib",
        "64",
        "64",
        "Space held back for the log, so that reads go on for a while when the disk is full and only writes fail.",
    ),
    (
        "audit",
        "retention_days",
        "400",
        "0",
        "Removes records older than this many days, 65,536 at a time, once an hour, and records that before; nothing while the clock may be wrong; what is kept is still proven by a signed stub. 0: kept for ever.",
    ),
    (
        "audit",
        "durability",
        "\"fsync\"",
        "\"fsync\"",
        "`fsync`: no answer with a secret leaves before its record is on stable storage. `interval`: records are synced every `interval_ms`; a power cut can lose the records of that time, though not of a crash of the program alone.",
    ),
    ("audit", "interval_ms", "1000", "1000", "Only with `durability = \"interval\"`."),
    ("audit", "test_sync_delay_us", "0", "0", "For measurements: waits this long after each sync, as a slower disk would."),
    ("audit", "stdout", "false", "false", "Writes every record to standard output too."),
    (
        "audit",
        "ecs",
        "\"/var/log/claviger/ecs.json\"",
        "off",
        "Writes every record to this file too, as Elastic Common Schema JSON lines. Reopened on SIGHUP.",
    ),
    (
        "audit",
        "alert_first_read",
        "true",
        "true",
        "Records an event when a caller reads a key that it was never seen reading. The newest 100,000 records are learned from at start.",
    ),
    (
        "audit",
        "alert_denials",
        "20",
        "20",
        "Records an event and logs a warning at this many refusals of one caller within a minute; 0 never.",
    ),
    (
        "audit",
        "alert_mass_read",
        "500",
        "500",
        "The same when one caller reads more than this many different keys within a minute; 0 never.",
    ),
    (
        "auth",
        "machine_roots",
        "[\"/etc/claviger/machines-ca.pem\"]",
        "none",
        "Roots of machine certificates. Read again on SIGHUP and on change; connections are verified anew then.",
    ),
    (
        "auth",
        "machine_name_case",
        "\"as-sent\"",
        "\"as-sent\"",
        "`as-sent` compares machine names as Knox does; `folded` lower-cases them first.",
    ),
    ("auth", "machine_wildcards", "true", "true", "Whether a certificate for `*.example.com` may call itself `a.example.com`, as in Knox."),
    (
        "auth",
        "trust_bundles",
        "{ \"example.org\" = \"/etc/claviger/example.org.pem\" }",
        "none",
        "One bundle of roots per SPIFFE trust domain. An SVID is verified against the bundle of its own domain only.",
    ),
    (
        "auth",
        "failures_burst",
        "20",
        "20",
        "Wrong tokens that an address may show at once before its tokens are answered 429 unseen (on Knox's surface 401, code 5, as its clients know no other). Requests without a proof are counted apart, and beyond as many answered so and not written down; they keep nobody out.",
    ),
    ("auth", "failures_per_second", "1", "1", "How many of these come back each second."),
    (
        "auth",
        "session_minutes",
        "15",
        "15",
        "Minutes that a person's session counts, 1 to 60. The command line renews it by itself, with groups read anew: so long lives a group that the issuer took.",
    ),
    (
        "auth",
        "session_total_hours",
        "12",
        "12",
        "Hours after a login in which its sessions are renewed, 1 to 168. Then the person logs in again.",
    ),
    (
        "auth",
        "oidc",
        "{ corp = { issuer = \"https://login.example.com\", client_id = \"claviger\", user_claim = \"preferred_username\" } }",
        "none",
        "OpenID issuers by the names that `claviger login --issuer` takes; each is a section `[auth.oidc.NAME]`. A change needs a restart.",
    ),
    (
        "auth",
        "github",
        "{ base_url = \"https://github.example.com/api/v3\" }",
        "off",
        "The service that is asked whose a token of Knox's `0u` is; a section `[auth.github]`. A change needs a restart.",
    ),
    (
        "auth.oidc.NAME",
        "issuer",
        "\"https://login.example.com\"",
        "required",
        "The provider's issuer identifier: what `iss` must be, byte for byte, and below which its metadata lie. Keys are fetched when they are needed, so a provider that is down keeps no server from starting.",
    ),
    (
        "auth.oidc.NAME",
        "client_id",
        "\"claviger\"",
        "required",
        "What the provider calls this client: a public one, with PKCE and redirects to `http://127.0.0.1` at any port. Tokens that are meant for others too are refused.",
    ),
    (
        "auth.oidc.NAME",
        "user_claim",
        "\"preferred_username\"",
        "required",
        "The claim with the user's name in grants, or the list of members that lead to it. Choose one that nobody can give himself; `email` counts only where `email_verified` is true; `sub` is safe everywhere.",
    ),
    (
        "auth.oidc.NAME",
        "user_prefix",
        "\"corp:\"",
        "none",
        "Stands before each user's name. Two sources of people need two prefixes, one of which may be empty; a name that begins with another source's prefix is refused.",
    ),
    (
        "auth.oidc.NAME",
        "groups_claim",
        "[\"realm_access\", \"roles\"]",
        "none",
        "The claim with the user's groups, a text or a list of texts, or the list of members that lead to it. Without it nobody is in a group.",
    ),
    (
        "auth.oidc.NAME",
        "groups_prefix",
        "\"corp:\"",
        "none",
        "As `user_prefix`, for groups. Groups that begin with another source's prefix, or with `claviger:`, do not count.",
    ),
    (
        "auth.oidc.NAME",
        "algorithms",
        "[\"ES256\", \"RS256\"]",
        "all",
        "The signature algorithms taken of this issuer, of RS256, PS256, ES256, ES384 and EdDSA. Others exist nowhere here.",
    ),
    (
        "auth.oidc.NAME",
        "scopes",
        "[\"openid\", \"profile\", \"offline_access\"]",
        "openid, profile, offline_access",
        "What a login asks the provider for. Without a refresh token, which `offline_access` stands for at most providers, people log in again after `session_minutes`.",
    ),
    (
        "auth.oidc.NAME",
        "prompt",
        "\"consent\"",
        "`consent` with the scope `offline_access`, else none",
        "What a login asks the provider to ask the person: many providers give a refresh token only with `consent`. `\"\"` leaves it to the provider.",
    ),
    (
        "auth.oidc.NAME",
        "device_flow",
        "false",
        "false",
        "Lets people log in by a code that they type in a browser elsewhere. With most providers such tokens carry no nonce, so one that is stolen within five minutes of its issue, before its owner's program shows it, is taken here; and a person can be talked into typing somebody else's code.",
    ),
    ("auth.oidc.NAME", "clock_skew_seconds", "30", "30", "How far the provider's clock and this server's may disagree, up to 300."),
    (
        "auth.oidc.NAME",
        "ca",
        "\"/etc/claviger/idp-ca.pem\"",
        "/etc/ssl/certs/ca-certificates.crt",
        "PEM file with the roots of the provider's TLS certificates; read at start. When it is given, it is published to the command line, which then trusts these roots for this provider too.",
    ),
    (
        "auth.oidc.NAME",
        "loopback_http",
        "false",
        "false",
        "Allows `http://127.0.0.1`, `http://[::1]` and `http://localhost` as issuer, for tests. Anything else is always HTTPS.",
    ),
    (
        "auth.github",
        "base_url",
        "\"https://github.example.com/api/v3\"",
        "https://api.github.com",
        "Where `/user` and `/user/orgs` are asked with the caller's token; the login name becomes the user, the organisations' names his groups.",
    ),
    (
        "auth.github",
        "ca",
        "\"/etc/claviger/github-ca.pem\"",
        "/etc/ssl/certs/ca-certificates.crt",
        "PEM file with the roots of its TLS certificates; read at start.",
    ),
    ("auth.github", "loopback_http", "false", "false", "As for an issuer."),
    (
        "auth.github",
        "timeout_ms",
        "5000",
        "5000",
        "How long all requests of one look-up may take together. Then the caller is told that nobody could say who he is; that is not counted as a wrong token.",
    ),
    (
        "auth.github",
        "cache_seconds",
        "60",
        "60",
        "How long an answer is believed, up to 600; refusals for at most 10. So long lives a token or a membership that was taken there.",
    ),
    ("auth.github", "user_prefix", "\"github:\"", "none", "As for an issuer."),
    ("auth.github", "groups_prefix", "\"github:\"", "none", "As for an issuer."),
    ("knox", "enabled", "true", "false", "Serves Knox's API under `/v0`."),
    ("knox", "list_readable_only", "false", "false", "Lists and polls show only keys that the caller can read. Knox shows all."),
    ("knox", "keep_last_admin", "false", "false", "Refuses an ACL change that leaves a key without administrator. Knox allows it."),
    ("knox", "min_service_path", "0", "0", "Path components that a service prefix needs at least (Knox's optional validator)."),
    (
        "knox",
        "strictness",
        "\"fixed\"",
        "\"fixed\"",
        "`fixed`: creating a key checks principals as changing its ACL does (code 13), and answers `None` access and duplicate entries with 400, code 11. `reference`: as Knox, creation checks no principal, so that an empty machine prefix opens the key to every machine, and `None` and duplicates are 500, code 1, which clients try three times. Principals of no known type are refused with code 13 by both: Knox stores them and can then not show the ACL.",
    ),
    (
        "knox",
        "principal_rule",
        "[{ type = \"machine\", allow = [\"*.example.com\"], forbid = [\"test*\"], error = \"Machines are named below example.com.\" }]",
        "none",
        "The site's own rules for the principals of ACL entries, as Knox's principal validators are: in order, after the fixed ones. An id of that type must fit one pattern of `allow` (any, where it is left out) and none of `forbid`; `*` stands for any run of characters. What breaks a rule is answered with 400, code 13, and its `error`. They hold where Knox's API changes an ACL and, unless `strictness` is `reference`, creates a key; not for default grants, owners, removals, and the native API.",
    ),
    (
        "knox",
        "service_creator",
        "[{ service_prefix = \"spiffe://example.org/ci/\", key_prefix = \"ci:\", owner = \"user_group:platform\" }]",
        "none",
        "Services that may create keys, which ids, and who becomes administrator beside them.",
    ),
    (
        "knox",
        "access_callback_socket",
        "\"/run/claviger/access.sock\"",
        "off",
        "A Unix socket that is asked when an ACL says no, with one JSON line as Knox's callback is: `{\"key\":{…},\"principals\":[{\"id\":…,\"type\":…}],\"access_type\":\"Read\"}`, where the versions' `data` is always null. It answers with a line `{\"allow\":true}` or `{\"allow\":false}`.",
    ),
    ("knox", "access_callback_timeout_ms", "1000", "1000", "How long to wait for that answer; then the request fails with code 1."),
    (
        "knox",
        "response_headers",
        "{ Strict-Transport-Security = \"max-age=31536000\" }",
        "none",
        "Header fields that every routed answer of Knox's API has besides its own, as Knox's response decorators add them.",
    ),
    ("knox", "log", "\"/var/log/claviger/knox.log\"", "off", "Knox's own access log lines. Reopened on SIGHUP."),
    ("knox", "log_service", "\"knox\"", "omitted", "The `service` member of those lines."),
    ("native", "enabled", "true", "true", "Serves Claviger's own API under `/api/v1`."),
    (
        "share",
        "enabled",
        "true",
        "false",
        "One-time share links can be opened by proven callers. A share is a key below `shares/`: who may make some is a matter of rights there. Expired ones are deleted within a minute.",
    ),
    (
        "share",
        "anonymous",
        "true",
        "false",
        "Anybody who has a link opens it without a credential, and `/api/v1/share` serves the page that does so in a browser.",
    ),
    ("keys", "max_value", "1048576", "1 MiB", "Bytes that one version may have, up to 10 MiB."),
    (
        "keys",
        "max_versions",
        "1000",
        "1000",
        "Versions that one key may have, destroyed ones not counted; of these the records of the last 64 are kept.",
    ),
    (
        "keys",
        "max_answer",
        "67108864",
        "64 MiB",
        "Bytes of data in one answer. A read of more versions than that is refused: ask for the primary one alone. A bulk read gives the keys that fit and marks the others `ask_again`. Each answer under way takes up to some three times as much memory.",
    ),
    (
        "keys",
        "inline_limit",
        "65536",
        "64 KiB",
        "Sealed values up to this size are kept in memory; longer ones are read from the database on each use.",
    ),
    (
        "keys",
        "default_grants",
        "[\"user_group:security-team=admin\"]",
        "none",
        "Grants that every new key gets, as TYPE:ID=read|write|admin.",
    ),
    (
        "approvals",
        "webhooks",
        "[\"https://hooks.example.com/services/T0/B0/x\"]",
        "none",
        "URLs to which what becomes of requests for approval is posted, as JSON with a `text` for chat. Nothing waits for them: a notice is tried eight times over some minutes, and 256 may wait. The path of such a URL may be all that protects it, so log lines name the host only.",
    ),
    (
        "approvals",
        "webhook_key_file",
        "\"/etc/claviger/webhook.key\"",
        "none",
        "A file with a key of at least 16 bytes. With it each post carries `Claviger-Signature: t=SECONDS,v1=HEX`, the HMAC-SHA-256 of `SECONDS.BODY`.",
    ),
    (
        "approvals",
        "webhook_ca",
        "\"/etc/ssl/certs/ca-certificates.crt\"",
        "/etc/ssl/certs/ca-certificates.crt",
        "PEM file with the roots of the webhooks' TLS certificates. Read at the start.",
    ),
    ("approvals", "webhook_loopback_http", "false", "false", "Allows plain HTTP to this machine."),
    ("log", "format", "\"text\"", "\"text\"", "`text` or `json` lines on standard error."),
    ("log", "filter", "\"info\"", "\"info\"", "A level, or TARGET=LEVEL pairs. No level ever logs a secret."),
    ("dev", "user", "[{ name = \"alice\", groups = [\"ops\"] }]", "none", "Static users with tokens, for `--dev` only; refused otherwise."),
];

/// One field, for programs.
#[derive(Debug, serde::Serialize)]
pub struct FieldReference {
    /// The section it stands in.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// A value, as TOML.
    pub example: &'static str,
    /// What holds when it is absent, in words.
    pub default: &'static str,
    /// What it does at run time.
    pub does: &'static str,
}

/// All fields in the order of the reference.
pub fn fields() -> impl Iterator<Item = FieldReference> {
    FIELDS.iter().map(|&(section, name, example, default, does)| FieldReference { section, name, example, default, does })
}

/// The reference as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\nWritten from the program by `claviger config reference`; a test keeps both equal.\n\n\
         One TOML file. Each field can be overridden by an environment variable `CLAVIGER__SECTION__FIELD` whose value is TOML or plain text.\n\
         `claviger config check FILE` names file, line and remedy of what is wrong.\n",
    );
    let mut section = "";
    for (of, name, example, default, what) in FIELDS {
        if *of != section {
            section = of;
            text.push_str(&format!("\n## `[{section}]`\n\n| field | default | what it does |\n|---|---|---|\n"));
        }
        text.push_str(&format!("| `{name}`<br>`{name} = {}` | {default} | {what} |\n", example.replace('|', "\\|")));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Raw;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_field_that_the_parser_takes_is_documented() {
        let mut documented: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (section, name, ..) in FIELDS {
            documented.entry(section).or_default().insert(name);
        }
        let named = |text: &str| {
            let error = toml::from_str::<Raw>(text).unwrap_err().message().to_owned();
            error.split('`').skip(3).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let outermost = documented.keys().filter(|s| !s.contains('.'));
        assert_eq!(named("zzz = 1"), outermost.map(|s| (*s).to_owned()).collect());
        for (section, documented) in documented {
            let fields = named(&format!("[{section}]\nzzz = 1"));
            assert_eq!(fields, documented.iter().map(|f| (*f).to_owned()).collect(), "[{section}]");
        }
    }

    #[test]
    fn every_example_parses() {
        for (section, name, example, ..) in FIELDS {
            toml::from_str::<Raw>(&format!("[{section}]\n{name} = {example}\n")).unwrap();
        }
    }

    #[test]
    fn the_committed_reference_is_the_programs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("CLAVIGER_UPDATE").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), reference(), "run the tests with CLAVIGER_UPDATE=1");
    }
}
