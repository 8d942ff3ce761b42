//! The sentences that Knox puts into `message`, and the guard against those it must never send (§2, §4).
//!
//! Ids come from outside and may be any bytes, so the texts are bytes; the envelope escapes them.

use super::types::AccessLevel;

/// Sentences that make a daemon of 2025 or 2026 **delete the key from its host's register list** when it sees them in
/// `message` (§2, trap). The reference keeps them beside its codes but never sends them.
pub const FORBIDDEN: [&str; 3] = ["User or machine not authorized", "Key identifer does not exist", "Key identifier does not exist"];

/// 404/8 has no text.
pub const ROUTE_NOT_FOUND: &str = "";
/// 401/5 when no provider takes the header.
pub const NO_PROVIDER: &str = "No matching authentication providers found";
/// 400/10 on creation, 400/11 when a version is added.
pub const EMPTY_DATA: &str = "Parameter 'data' is empty";
/// 400/11 when access is put with neither field.
pub const NO_ACL_NOR_ACCESS: &str = "Missing acl and access parameters";
/// 404/3.
pub const NO_SUCH_VERSION: &str = "Key version not found";
/// 400/11, promotion of a version that is not active.
pub const PROMOTE_NEEDS_ACTIVE: &str = "Version must be Active to promote to Primary";
/// 400/11, a version that is primary or active already asked to become active.
pub const PRIMARY_NOT_DEMOTED: &str = "Primary Key can not be demoted. Specify Active key to promote.";
/// 400/11, deactivation of a version that is not active.
pub const DEMOTE_NEEDS_ACTIVE: &str = "Version must be Active to demote to Inactive";
/// 500/1, a lost update race.
pub const LOST_RACE: &str = "DB version does not match";

/// 500/1, the site's access callback fails. The reference's own text, whether the callback fails or panics.
#[must_use]
pub fn callback_failed(why: &str) -> String {
    format!("Recovered from panic in access callback: {why}")
}

/// A declared field that the request does not have: code 9, 10 or 11 by route and field.
#[must_use]
pub fn missing_parameter(name: &str) -> String {
    format!("Missing parameter '{name}'")
}

/// 404/4.
#[must_use]
pub fn no_such_key(key: &[u8]) -> Vec<u8> {
    [b"No such key ", key].concat()
}

/// 400/2.
#[must_use]
pub fn key_exists(key: &[u8]) -> Vec<u8> {
    [b"Key ", key, b" already exists"].concat()
}

/// 400/12.
#[must_use]
pub fn bad_key_id(key: &[u8]) -> Vec<u8> {
    [b"KeyID includes unsupported characters ", key].concat()
}

/// 403/6 on creation: `principal` is the id of the caller's default principal.
#[must_use]
pub fn must_be_user(principal: &[u8]) -> Vec<u8> {
    [b"Must be a user to create keys, principal is ", principal].concat()
}

/// What a caller was refused, for [`not_authorized`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Read the key.
    Read,
    /// Add a version or change one's status.
    Write,
    /// Change the ACL.
    UpdateAccess,
    /// Delete the key.
    Delete,
}

impl Act {
    /// The grant that the act needs.
    #[must_use]
    pub const fn needs(self) -> AccessLevel {
        match self {
            Self::Read => AccessLevel::Read,
            Self::Write => AccessLevel::Write,
            Self::UpdateAccess | Self::Delete => AccessLevel::Admin,
        }
    }
}

/// 403/6 on an existing key.
#[must_use]
pub fn not_authorized(principal: &[u8], act: Act, key: &[u8]) -> Vec<u8> {
    let act: &[u8] = match act {
        Act::Read => b"read ",
        Act::Write => b"write ",
        Act::UpdateAccess => b"update access for ",
        Act::Delete => b"delete ",
    };
    [b"Principal ", principal, b" not authorized to ", act, key].concat()
}

/// Breaks every forbidden sentence in a message, if there is one: the id of a key or principal is chosen by a caller,
/// who could otherwise plant it. `None` when the message may be sent as it is.
#[must_use]
pub fn defused(message: &[u8]) -> Option<Vec<u8>> {
    let mut safe: Option<Vec<u8>> = None;
    for phrase in FORBIDDEN {
        let phrase = phrase.as_bytes();
        while let Some(at) = find(safe.as_deref().unwrap_or(message), phrase) {
            // The first space of the sentence becomes an underscore.
            let space = phrase.iter().position(|byte| *byte == b' ').unwrap_or(0);
            safe.get_or_insert_with(|| message.to_vec())[at + space] = b'_';
        }
    }
    safe
}

fn find(text: &[u8], phrase: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, phrase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_the_contracts() {
        assert_eq!(no_such_key(b"a b"), b"No such key a b");
        assert_eq!(key_exists(b"k"), b"Key k already exists");
        assert_eq!(bad_key_id(b"\xff"), b"KeyID includes unsupported characters \xff");
        assert_eq!(must_be_user(b"m"), b"Must be a user to create keys, principal is m");
        assert_eq!(not_authorized(b"p", Act::Read, b"k"), b"Principal p not authorized to read k");
        assert_eq!(not_authorized(b"p", Act::Write, b"k"), b"Principal p not authorized to write k");
        assert_eq!(not_authorized(b"p", Act::Delete, b"k"), b"Principal p not authorized to delete k");
        assert_eq!(not_authorized(b"p", Act::UpdateAccess, b"k"), b"Principal p not authorized to update access for k");
        assert_eq!(missing_parameter("id"), "Missing parameter 'id'");
    }

    #[test]
    fn a_planted_forbidden_sentence_is_broken_and_the_rest_kept() {
        assert_eq!(defused(b"No such key k"), None);
        for phrase in FORBIDDEN {
            let safe = defused(&no_such_key(format!("{phrase} {phrase}").as_bytes()));
            assert!(safe.is_some_and(|safe| FORBIDDEN.iter().all(|bad| find(&safe, bad.as_bytes()).is_none())));
        }
        assert_eq!(defused(b"x User or machine not authorized").as_deref(), Some(&b"x User_or machine not authorized"[..]));
    }
}
