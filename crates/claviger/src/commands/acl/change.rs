//! `claviger acl grant` and `claviger acl revoke`: one entry is set or removed.

use super::{Scope, describe};
use crate::cli::Session;
use crate::commands::states::show_change;
use crate::failure::{Code, Failure};
use crate::parse;
use clap::Args;
use claviger_domain::Prefix;
use claviger_wire::native::{AclBody, Changed, GrantEntry, PrefixInfo};

/// How often a change that somebody else overtook is made again.
const ROUNDS: usize = 5;

/// Options of `acl grant`.
#[derive(Args)]
#[command(override_usage = "claviger acl grant KEY PRINCIPAL RIGHTS\n       claviger acl grant --prefix PREFIX PRINCIPAL RIGHTS")]
pub(crate) struct Grant {
    /// On all keys below this prefix instead of one key; '' is the prefix of all keys.
    #[arg(long, value_parser = parse::prefix)]
    prefix: Option<Prefix>,
    /// The key (without --prefix), who (TYPE:ID), and what: read, write, admin, or an exact set such as list,read or
    /// only:read.
    #[arg(num_args = 2..=3, required = true, value_name = "ARGUMENT")]
    words: Vec<String>,
}

/// Options of `acl revoke`.
#[derive(Args)]
#[command(override_usage = "claviger acl revoke KEY PRINCIPAL\n       claviger acl revoke --prefix PREFIX PRINCIPAL")]
pub(crate) struct Revoke {
    /// On this prefix instead of one key.
    #[arg(long, value_parser = parse::prefix)]
    prefix: Option<Prefix>,
    /// The key (without --prefix) and whom to take all rights from, TYPE:ID.
    #[arg(num_args = 1..=2, required = true, value_name = "ARGUMENT")]
    words: Vec<String>,
}

impl Grant {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let (scope, rest) = Scope::split(self.prefix, self.words, &["PRINCIPAL", "RIGHTS"])?;
        let principal = parse::principal(&rest[0]).map_err(|e| Failure::usage(format!("`{}`: {e}", rest[0])))?;
        let entry = parse::grant_of(&principal, &rest[1]).map_err(Failure::usage)?;
        let sentence = format!("{scope}: granted {}", describe(&entry));
        show_change(session, &set(session, &scope, entry).await?, &sentence)
    }
}

impl Revoke {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let (scope, mut rest) = Scope::split(self.prefix, self.words, &["PRINCIPAL"])?;
        // Not parsed: what can never match must be removable too.
        let entry = GrantEntry { principal: rest.remove(0), capabilities: None, preset: Some("none".to_owned()) };
        let sentence = format!("{scope}: revoked all rights of {}", entry.principal);
        show_change(session, &set(session, &scope, entry).await?, &sentence)
    }
}

async fn set(session: &Session, scope: &Scope, entry: GrantEntry) -> Result<Changed, Failure> {
    match scope {
        Scope::Key(id) => {
            let patched = session.client.patch_acl(id, &AclBody { grants: vec![entry] }, None).await;
            patched.map_err(|e| Failure::client(e, Some(id.as_str())))
        }
        Scope::Prefix(prefix) => edit_prefix(session, prefix, |info| edit(&mut info.grants, &entry)).await,
    }
}

/// A prefix is replaced as a whole: the new state is made from the present one, and made again if that changed meanwhile.
/// A prefix on which nothing is left is removed.
pub(super) async fn edit_prefix(session: &Session, prefix: &Prefix, change: impl Fn(&mut PrefixInfo)) -> Result<Changed, Failure> {
    let mut round = 1;
    loop {
        let mut info = present(session, prefix).await?;
        let etag = info.etag.take();
        change(&mut info);
        let is_empty = info.grants.is_empty() && !info.any_user_creates && info.rules.is_empty();
        let done = match is_empty {
            true => session.client.delete_prefix(prefix, etag.as_deref()).await,
            false => session.client.replace_prefix(prefix, &info, etag.as_deref()).await,
        };
        match done.map_err(|e| Failure::client(e, None)) {
            Err(failure) if failure.code == Code::Conflict && round < ROUNDS => round += 1,
            done => return done,
        }
    }
}

async fn present(session: &Session, prefix: &Prefix) -> Result<PrefixInfo, Failure> {
    match session.client.prefix(prefix).await.map_err(|e| Failure::client(e, None)) {
        Err(failure) if failure.code == Code::NotFound => {
            Ok(PrefixInfo { prefix: prefix.to_string(), grants: Vec::new(), any_user_creates: false, rules: Vec::new(), etag: None })
        }
        found => found,
    }
}

/// Replaces the principal's entry in place, appends it, or removes it.
fn edit(grants: &mut Vec<GrantEntry>, entry: &GrantEntry) {
    let at = grants.iter().position(|g| g.principal == entry.principal);
    let removes = entry.preset.as_deref() == Some("none");
    match at {
        Some(i) if removes => drop(grants.remove(i)),
        Some(i) => grants[i] = entry.clone(),
        None if removes => {}
        None => grants.push(entry.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_replaced_in_place_appended_or_removed() {
        let entry = |who: &str, preset: &str| GrantEntry { principal: who.to_owned(), capabilities: None, preset: Some(preset.to_owned()) };
        let mut grants = vec![entry("user:a", "read"), entry("user:b", "read")];
        for change in [entry("user:a", "admin"), entry("user:c", "write"), entry("user:b", "none"), entry("user:x", "none")] {
            edit(&mut grants, &change);
        }
        assert_eq!(grants, [entry("user:a", "admin"), entry("user:c", "write")]);
    }
}
