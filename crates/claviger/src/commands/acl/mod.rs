//! `claviger acl`: rights on keys and on prefixes of keys.

mod change;
mod creation;
mod explain;
mod lint;
mod show;

use crate::cli::Session;
use crate::failure::Failure;
use crate::parse;
use clap::Subcommand;
use claviger_domain::{KeyId, Prefix, Preset};
use claviger_wire::native::{GrantEntry, capabilities_from_names};

/// The commands of `acl`.
#[derive(Subcommand)]
pub(crate) enum Acl {
    /// Show who may do what on a key, a prefix, or all prefixes.
    Show(show::Show),
    /// Give a principal rights; what it had there is replaced.
    Grant(change::Grant),
    /// Take all rights from a principal.
    Revoke(change::Revoke),
    /// Say whether a principal may use a key, and which grants say so.
    Explain(explain::Explain),
    /// Look for rights that are dangerous, too wide, or without effect; the exit code is 1 if there are any.
    Lint(lint::Lint),
    /// Say whether any authenticated user may create keys below a prefix.
    AnyUserCreates(creation::AnyUserCreates),
}

impl Acl {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match self {
            Self::Show(c) => c.run(session).await,
            Self::Grant(c) => c.run(session).await,
            Self::Revoke(c) => c.run(session).await,
            Self::Explain(c) => c.run(session).await,
            Self::Lint(c) => c.run(session).await,
            Self::AnyUserCreates(c) => c.run(session).await,
        }
    }
}

/// On what rights are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Key(KeyId),
    Prefix(Prefix),
}

impl Scope {
    /// The prefix if one was given, and else the first of `words` as a key; with the words that remain.
    fn split(prefix: Option<Prefix>, mut words: Vec<String>, names: &[&str]) -> Result<(Self, Vec<String>), Failure> {
        let key_first = prefix.is_none();
        let wanted = names.len() + usize::from(key_first);
        if words.len() != wanted {
            let given = if key_first { format!("KEY {}", names.join(" ")) } else { names.join(" ") };
            return Err(Failure::usage(format!("give {given}, or --prefix PREFIX and {}", names.join(" "))));
        }
        match prefix {
            Some(prefix) => Ok((Self::Prefix(prefix), words)),
            None => {
                let id = words.remove(0);
                let key = parse::key_id(&id).map_err(|e| Failure::usage(format!("`{id}`: {e}")))?;
                Ok((Self::Key(key), words))
            }
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::Prefix(prefix) => write!(f, "prefix `{prefix}`"),
        }
    }
}

/// A grant as one word.
pub(crate) fn describe(grant: &GrantEntry) -> String {
    format!("{}={}", grant.principal, rights(grant))
}

/// What a grant allows, in one word where a preset says the same.
fn rights(grant: &GrantEntry) -> String {
    match (&grant.preset, &grant.capabilities) {
        (Some(preset), _) => preset.clone(),
        (None, Some(names)) => preset_of(names).map_or_else(|| exact(names), str::to_owned),
        (None, None) => String::new(),
    }
}

/// A set as `acl grant` takes it: one capability alone could be taken for the preset of its name.
fn exact(names: &[String]) -> String {
    match names {
        [one] => format!("only:{one}"),
        several => several.join(","),
    }
}

fn preset_of(names: &[String]) -> Option<&'static str> {
    match capabilities_from_names(names, "grant").ok()?.as_preset()? {
        Preset::Read => Some("read"),
        Preset::Write => Some("write"),
        Preset::Admin => Some("admin"),
        Preset::None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn a_scope_is_a_key_or_a_prefix_and_never_both() {
        let prefix = Prefix::parse("team/").unwrap();
        let (scope, rest) = Scope::split(None, words(&["db/pw", "user:a"]), &["PRINCIPAL"]).unwrap();
        assert_eq!((scope.to_string(), rest), ("db/pw".to_owned(), words(&["user:a"])));
        let (scope, rest) = Scope::split(Some(prefix.clone()), words(&["user:a"]), &["PRINCIPAL"]).unwrap();
        assert_eq!((scope, rest), (Scope::Prefix(prefix.clone()), words(&["user:a"])));
        assert!(Scope::split(Some(prefix), words(&["db/pw", "user:a"]), &["PRINCIPAL"]).is_err());
        assert!(Scope::split(None, words(&["user:a"]), &["PRINCIPAL"]).is_err());
        assert!(Scope::split(None, words(&["a//b", "user:a"]), &["PRINCIPAL"]).is_err());
    }

    #[test]
    fn a_set_is_shown_as_the_preset_that_says_the_same() {
        let shown = |names: &[&str]| rights(&GrantEntry { principal: "user:a".into(), capabilities: Some(words(names)), preset: None });
        assert_eq!(shown(&["list", "read", "encrypt", "decrypt", "sign", "verify"]), "read");
        assert_eq!(shown(&["read"]), "only:read");
        assert_eq!(shown(&["list", "read"]), "list,read");
    }
}
