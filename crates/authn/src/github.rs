//! What a GitHub-compatible service says of a token: who it is, and in which organisations (contract knox §5, `0u`).
//!
//! Pure: asking is the server's.

use crate::names::{NameError, Names};
use claviger_domain::Identity;
use serde::Deserialize;
use std::sync::Arc;

/// Bytes that a token has at most.
const MAX_TOKEN: usize = 512;

#[derive(Deserialize)]
struct Login {
    login: String,
}

/// Whether this may be sent as a token: visible ASCII, so that it stays inside its header, and nothing of ours.
#[must_use]
pub fn may_be_token(token: &[u8]) -> bool {
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN && token.iter().all(u8::is_ascii_graphic);
    fits && !token.starts_with(b"cvs_")
}

/// The login name in an answer to `GET /user`.
#[must_use]
pub fn login(json: &[u8]) -> Option<String> {
    serde_json::from_slice::<Login>(json).ok().map(|user| user.login)
}

/// The organisations' names in one page of an answer to `GET /user/orgs`.
#[must_use]
pub fn organisations(json: &[u8]) -> Option<Vec<String>> {
    let page: Vec<Login> = serde_json::from_slice(json).ok()?;
    Some(page.into_iter().map(|organisation| organisation.login).collect())
}

/// The person of this login name in these organisations; those whose names belong to another source are left out.
///
/// # Errors
/// [`NameError`]: the login name is nobody's here.
pub fn identity(names: &Names, source: &str, login: &str, organisations: &[String]) -> Result<Identity, NameError> {
    let groups: Arc<[_]> = organisations.iter().filter_map(|name| names.group(source, name).ok()).collect();
    Ok(Identity::User { name: names.user(source, login)?, groups })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::names::Prefixes;

    #[test]
    fn answers_are_read_and_what_is_none_is_not() {
        assert_eq!(login(br#"{"login":"alice","id":7}"#).as_deref(), Some("alice"));
        assert_eq!(organisations(br#"[{"login":"ops","id":1},{"login":"dev"}]"#).unwrap(), ["ops", "dev"]);
        assert!(login(b"[]").is_none() && login(br#"{"login":7}"#).is_none() && login(b"").is_none());
        assert!(organisations(b"{}").is_none() && organisations(br#"[{"name":"x"}]"#).is_none());
    }

    #[test]
    fn no_token_leaves_its_header_and_no_session_leaves_the_house() {
        assert!(may_be_token(b"ghp_abc") && may_be_token(b"a.b-c_d/e+f="));
        for bad in [&b""[..], b"a b", b"a\r\nX: y", b"\xff", b"cvs_AAAA", &[b'a'; 513]] {
            assert!(!may_be_token(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_person_is_named_by_the_sources_prefixes() {
        let prefixes = |source: &str, prefix: &str| Prefixes { source: source.into(), users: prefix.into(), groups: prefix.into() };
        let names = Names::new(vec![prefixes("github", ""), prefixes("corp", "corp:")]).unwrap();
        let found = identity(&names, "github", "alice", &["ops".into(), "corp:admins".into(), "claviger:x".into()]).unwrap();
        assert_eq!(found, Identity::User { name: "alice".into(), groups: Arc::from([Arc::from("ops")]) });
        assert!(identity(&names, "github", "corp:alice", &[]).is_err());
    }
}
