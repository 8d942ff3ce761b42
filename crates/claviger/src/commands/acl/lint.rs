//! `claviger acl lint`: rights that deserve a second look. What it finds is decided by pure functions on what was fetched.

use super::rights;
use crate::cli::Session;
use crate::commands::ls::all_keys;
use crate::failure::{Code, Failure};
use crate::output::{self, Table};
use crate::parse;
use clap::Args;
use claviger_domain::{Prefix, Principal};
use claviger_wire::native::{GrantEntry, names, principal_entry};
use serde::Serialize;

/// A machine prefix shorter than this matches by accident.
const SHORT_PREFIX: usize = 3;

/// Options of `acl lint`.
#[derive(Args)]
pub(crate) struct Lint {
    /// Only keys and prefixes below this prefix.
    #[arg(long, value_parser = parse::prefix)]
    prefix: Option<Prefix>,
    /// Report grants on prefixes of at most this many segments; 0 reports only those on all keys.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_depth: usize,
}

/// One list of rights, as fetched.
struct Listed {
    /// A key's id, or a prefix.
    name: String,
    is_prefix: bool,
    grants: Vec<GrantEntry>,
}

/// One thing found.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Finding {
    rule: &'static str,
    on: String,
    principal: String,
    may: String,
    why: String,
}

impl Lint {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let below = self.prefix.as_ref().map_or("", Prefix::as_str);
        let (listed, hidden) = fetch(session, below).await?;
        let findings: Vec<Finding> = listed.iter().flat_map(|l| check(l, self.max_depth)).collect();
        if hidden > 0 {
            eprintln!("note: the rights of {hidden} keys are not visible to you and were not looked at");
        }
        let shown = match session.json {
            true => output::json(&serde_json::json!({ "findings": findings, "looked_at": listed.len(), "not_visible": hidden })),
            false if findings.is_empty() => output::line(&format!("nothing found in {} lists of rights", listed.len())),
            false => table(&findings).print(),
        };
        Failure::verdict(u8::from(!findings.is_empty()), shown)
    }
}

/// All lists of rights below a prefix that the caller may see, and how many he may not.
async fn fetch(session: &Session, below: &str) -> Result<(Vec<Listed>, usize), Failure> {
    let prefixes = session.client.prefixes().await.map_err(|e| Failure::client(e, None))?;
    let inside = prefixes.prefixes.into_iter().filter(|p| p.prefix.starts_with(below));
    let mut listed: Vec<_> = inside.map(|p| Listed { name: p.prefix, is_prefix: true, grants: p.grants }).collect();
    let mut hidden = 0;
    for key in all_keys(session, Some(below.to_owned()).filter(|b| !b.is_empty()), Vec::new()).await? {
        let Ok(id) = parse::key_id(&key.id) else { continue };
        match session.client.acl(&id).await.map_err(|e| Failure::client(e, Some(&key.id))) {
            Ok(acl) => listed.push(Listed { name: key.id, is_prefix: false, grants: acl.grants }),
            Err(failure) if matches!(failure.code, Code::Denied | Code::NotFound) => hidden += 1,
            Err(failure) => return Err(failure),
        }
    }
    Ok((listed, hidden))
}

fn check(listed: &Listed, max_depth: usize) -> Vec<Finding> {
    let mut found = Vec::new();
    for grant in &listed.grants {
        let mut add = |rule, why: String| {
            found.push(Finding { rule, on: shown(listed), principal: grant.principal.clone(), may: rights(grant), why })
        };
        let (principal, may) = match principal_entry(grant, "grant") {
            Ok((principal, capabilities)) => (principal, names(capabilities)),
            Err(error) => {
                add("never-matches", error.rule);
                continue;
            }
        };
        let holds = |name: &str| may.iter().any(|n| n == name);
        if holds("admin") && holds("read") {
            add("admin-and-read", "who manages it can also read it; grant list,write,admin and let others read".to_owned());
        }
        if listed.is_prefix && depth(&listed.name) <= max_depth {
            add(
                "wide-prefix",
                format!("the prefix has {} segments; fewer than {} count as too wide here", depth(&listed.name), max_depth + 1),
            );
        }
        if let Some(why) = matches_too_much(&principal) {
            add("wide-principal", why);
        }
    }
    found
}

fn shown(listed: &Listed) -> String {
    match (listed.is_prefix, listed.name.as_str()) {
        (false, key) => key.to_owned(),
        (true, "") => "prefix (all keys)".to_owned(),
        (true, prefix) => format!("prefix {prefix}"),
    }
}

/// How many segments a prefix has; both delimiters end one.
fn depth(prefix: &str) -> usize {
    prefix.bytes().filter(|b| matches!(b, b'/' | b':')).count()
}

fn matches_too_much(principal: &Principal) -> Option<String> {
    match principal {
        Principal::MachinePrefix(prefix) if prefix.len() < SHORT_PREFIX => {
            Some(format!("matches every machine whose name starts with `{prefix}`"))
        }
        Principal::ServicePrefix(prefix) if prefix.matches('/').count() == 3 => {
            Some("matches every workload of the trust domain".to_owned())
        }
        _ => None,
    }
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&["RULE", "ON", "PRINCIPAL", "MAY", "WHY"]);
    for f in findings {
        table.row([f.rule, &f.on, &f.principal, &f.may, &f.why]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, is_prefix: bool, principal: &str, rights: &[&str], max_depth: usize) -> Vec<&'static str> {
        let capabilities = Some(rights.iter().map(|r| (*r).to_owned()).collect());
        let grants = vec![GrantEntry { principal: principal.to_owned(), capabilities, preset: None }];
        check(&Listed { name: name.to_owned(), is_prefix, grants }, max_depth).into_iter().map(|f| f.rule).collect()
    }

    #[test]
    fn each_rule_finds_its_case_and_nothing_else() {
        let clean: [&str; 0] = [];
        assert_eq!(rules("db/pw", false, "user:a", &["list", "read"], 0), clean);
        assert_eq!(rules("db/pw", false, "user:a", &["list", "write", "admin"], 0), clean);
        assert_eq!(rules("db/pw", false, "user:a", &["read", "admin"], 0), ["admin-and-read"]);
        assert_eq!(rules("db/pw", false, "service:web", &["read"], 0), ["never-matches"]);
        assert_eq!(rules("", true, "user:a", &["read"], 0), ["wide-prefix"]);
        assert_eq!(rules("team/", true, "user:a", &["read"], 0), clean);
        assert_eq!(rules("team/", true, "user:a", &["read"], 1), ["wide-prefix"]);
        assert_eq!(rules("team/app:", true, "user:a", &["read"], 1), clean);
        assert_eq!(rules("db/pw", false, "machine_prefix:w", &["read"], 0), ["wide-principal"]);
        assert_eq!(rules("db/pw", false, "machine_prefix:web-", &["read"], 0), clean);
        assert_eq!(rules("db/pw", false, "service_prefix:spiffe://d/", &["read"], 0), ["wide-principal"]);
        assert_eq!(rules("db/pw", false, "service_prefix:spiffe://d/ns/", &["read"], 0), clean);
    }
}
