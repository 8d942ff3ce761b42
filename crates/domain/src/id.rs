//! Names of keys, prefixes of names, and incarnations.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;

const MAX_ID: usize = 512;

/// The name of a key: 1 to 512 bytes of `[A-Za-z0-9_:.-]` in `/`-separated segments, none of which is empty, `-`, `.` or `..`.
///
/// Knox's ids are the subset `[A-Za-z0-9_:]+`; see [`KeyId::is_knox`]. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

/// Why a string is no key id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyIdError {
    /// No characters at all.
    #[error("a key id may not be empty")]
    Empty,
    /// More than 512 bytes.
    #[error("a key id may have at most 512 bytes, this one has {0}")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("a key id may contain letters, digits and `_ : . - /` only; byte {0} is something else")]
    BadCharacter(usize),
    /// A segment that is empty, `-`, `.` or `..`.
    #[error("a key id's segments may not be empty, `-`, `.` or `..`")]
    BadSegment,
}

impl KeyId {
    /// Checks `s` and makes it a key id.
    ///
    /// # Errors
    /// [`KeyIdError`] names the rule that `s` breaks.
    pub fn parse(s: &str) -> Result<Self, KeyIdError> {
        if s.is_empty() {
            return Err(KeyIdError::Empty);
        }
        check_alphabet(s)?;
        let bad_segment = s.split('/').any(|seg| matches!(seg, "" | "-" | "." | ".."));
        if bad_segment {
            return Err(KeyIdError::BadSegment);
        }
        Ok(Self(Arc::from(s)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Knox's surface may see this id: `^[A-Za-z0-9_:]+$` (contract knox §3).
    #[must_use]
    pub fn is_knox(&self) -> bool {
        self.0.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    }

    /// Every prefix of this id on which a grant can stand, shortest first: the empty one, then one per delimiter.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.bytes().enumerate().filter(|(_, b)| matches!(b, b'/' | b':')).map(|(i, _)| i + 1);
        std::iter::once(0).chain(ends).map(|end| &self.0[..end])
    }
}

fn check_alphabet(s: &str) -> Result<(), KeyIdError> {
    if s.len() > MAX_ID {
        return Err(KeyIdError::TooLong(s.len()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'.' | b'-' | b'/');
    match s.bytes().position(|b| !legal(b)) {
        Some(at) => Err(KeyIdError::BadCharacter(at)),
        None => Ok(()),
    }
}

impl std::borrow::Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", &self.0)
    }
}

/// A prefix of key ids on which rights can be granted: empty (all keys), or text that ends with `/` or `:`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix(Arc<str>);

/// Why a string is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// It does not end at a delimiter, so it would cover unrelated names.
    #[error("a prefix must be empty or end with `/` or `:`")]
    NoDelimiter,
    /// It contains what no key id contains, so it can never match.
    #[error("no key id can start with this prefix: {0}")]
    NeverMatches(KeyIdError),
}

impl Prefix {
    /// Checks `s` and makes it a prefix.
    ///
    /// # Errors
    /// [`PrefixError`] names the rule that `s` breaks.
    pub fn parse(s: &str) -> Result<Self, PrefixError> {
        if s.is_empty() {
            return Ok(Self(Arc::from("")));
        }
        if !s.ends_with(['/', ':']) {
            return Err(PrefixError::NoDelimiter);
        }
        // A prefix is good exactly when some id starts with it; `x` completes any of them.
        KeyId::parse(&format!("{s}x")).map_err(PrefixError::NeverMatches)?;
        Ok(Self(Arc::from(s)))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `id` starts with this prefix.
    #[must_use]
    pub fn covers(&self, id: &KeyId) -> bool {
        id.0.starts_with(&*self.0)
    }
}

impl std::borrow::Borrow<str> for Prefix {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells a key from an earlier, deleted one of the same id. Random and never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Incarnation(pub u64);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_follow_the_rules() {
        for good in ["a", "svc:db_pw", "team/app/db.pw", "A-b", "a/-b", &"x".repeat(512)] {
            assert!(KeyId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a//b", "/a", "a/", "a/../b", "a/.", "-", "a/-/b", "a b", "é", "a\n", &"x".repeat(513)] {
            assert!(KeyId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_end_at_delimiters() {
        let id = KeyId::parse("team/app:db").unwrap();
        assert_eq!(id.prefixes().collect::<Vec<_>>(), ["", "team/", "team/app:"]);
        assert!(Prefix::parse("team/").unwrap().covers(&id));
        assert_eq!(Prefix::parse("team"), Err(PrefixError::NoDelimiter));
        assert!(matches!(Prefix::parse("a//"), Err(PrefixError::NeverMatches(_))));
    }

    #[test]
    fn knox_ids_have_no_slash_dot_or_dash() {
        assert!(KeyId::parse("tink:aead:x_1").unwrap().is_knox());
        for other in ["a-b", "a.b", "a/b"] {
            assert!(!KeyId::parse(other).unwrap().is_knox());
        }
    }
}
