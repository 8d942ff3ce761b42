//! Static tokens of users, for development only (DESIGN §5).
//!
//! Only SHA-256 digests are kept. A token is compared with every digest in constant time, and no token is ever shown.

use crate::{Attempt, Authenticator, Rejection, Verdict};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use claviger_domain::{Identity, SecretBytes};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A user as the configuration has him.
pub struct StaticUser {
    /// Login name.
    pub name: String,
    /// Names of his groups.
    pub groups: Vec<String>,
    /// What he shows. Not empty, and no other user's.
    pub token: SecretBytes,
}

/// Why a list of users is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// A user without a name.
    #[error("static user {0} has an empty name")]
    NoName(usize),
    /// A user without a token would be everybody.
    #[error("the static user `{0}` has an empty token")]
    NoToken(String),
    /// Two users of one token.
    #[error("the static users `{0}` and `{1}` have the same token")]
    SameToken(String, String),
}

/// The method `token`: users by their digests.
pub struct TokenTable {
    entries: Box<[Entry]>,
}

struct Entry {
    digest: digest::Digest,
    identity: Identity,
}

impl TokenTable {
    /// A table of these users. Their tokens are digested and dropped.
    ///
    /// # Errors
    /// [`TokenError`] names the user.
    pub fn new(users: Vec<StaticUser>) -> Result<Self, TokenError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(users.len());
        for (i, user) in users.into_iter().enumerate() {
            if user.name.is_empty() {
                return Err(TokenError::NoName(i + 1));
            }
            if user.token.is_empty() {
                return Err(TokenError::NoToken(user.name));
            }
            let digest = digest::digest(&digest::SHA256, user.token.expose());
            if let Some(other) = entries.iter().find(|e| e.digest.as_ref() == digest.as_ref()) {
                return Err(TokenError::SameToken(other.identity.id().to_owned(), user.name));
            }
            let groups = user.groups.into_iter().map(Arc::from).collect();
            entries.push(Entry { digest, identity: Identity::User { name: user.name.into(), groups } });
        }
        Ok(Self { entries: entries.into() })
    }

    /// Whose token this is. The time taken depends on the token's length and the number of users only.
    #[must_use]
    pub fn find(&self, token: &[u8]) -> Option<Identity> {
        let digest = digest::digest(&digest::SHA256, token);
        let equal = |e: &Entry| verify_slices_are_equal(e.digest.as_ref(), digest.as_ref()).is_ok();
        let found = self.entries.iter().fold(None, |found, e| if equal(e) { Some(e) } else { found });
        found.map(|e| e.identity.clone())
    }
}

impl fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenTable({} users)", self.entries.len())
    }
}

impl Authenticator for TokenTable {
    fn method(&self) -> &'static str {
        "token"
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> Verdict {
        let Some(token) = attempt.token else { return Verdict::NotPresented };
        self.find(token).map_or(Verdict::Rejected(Rejection::UnknownToken), Verdict::Verified)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str, token: &str) -> StaticUser {
        StaticUser { name: name.into(), groups: vec!["ops".into()], token: token.as_bytes().to_vec().into() }
    }

    #[test]
    fn a_token_names_its_user_and_nothing_near_it_does() {
        let table = TokenTable::new(vec![user("alice", "tok-a"), user("bob", "tok-b")]).unwrap();
        assert_eq!(table.find(b"tok-b").unwrap().id(), "bob");
        assert_eq!(table.find(b"tok-a"), Some(Identity::User { name: "alice".into(), groups: Arc::from([Arc::from("ops")]) }));
        for wrong in [&b""[..], b"tok-", b"tok-c", b"tok-a\0", b"TOK-A"] {
            assert_eq!(table.find(wrong), None);
        }
    }

    #[test]
    fn users_without_name_or_token_or_with_anothers_token_are_refused() {
        assert_eq!(TokenTable::new(vec![user("", "t")]).unwrap_err(), TokenError::NoName(1));
        assert_eq!(TokenTable::new(vec![user("a", "")]).unwrap_err(), TokenError::NoToken("a".into()));
        assert_eq!(TokenTable::new(vec![user("a", "t"), user("b", "t")]).unwrap_err(), TokenError::SameToken("a".into(), "b".into()));
    }

    #[test]
    fn nothing_shows_a_token() {
        let table = TokenTable::new(vec![user("alice", "hunter2")]).unwrap();
        assert_eq!(format!("{table:?}"), "TokenTable(1 users)");
        assert!(!TokenTable::new(vec![user("a", "hunter2"), user("b", "hunter2")]).unwrap_err().to_string().contains("hunter2"));
    }
}
