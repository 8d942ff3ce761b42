//! SPIFFE IDs (SPIFFE-ID specification §2).

use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// A trust domain's name: 1 to 255 of `[a-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrustDomain(Arc<str>);

/// A whole SPIFFE ID, `spiffe://trust-domain/path`, as the specification allows it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpiffeId(Arc<str>);

/// Why a string is no SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    /// It does not start with `spiffe://`.
    #[error("a SPIFFE ID starts with `spiffe://`")]
    NotSpiffe,
    /// The trust domain is empty, too long, or has other characters than `[a-z0-9._-]`.
    #[error("a trust domain has 1 to 255 characters of a-z, 0-9, `.`, `-`, `_`")]
    BadTrustDomain,
    /// A path segment is empty, `.` or `..`, or has other characters than `[A-Za-z0-9._-]`.
    #[error("each path segment is made of letters, digits, `.`, `-`, `_`, and is not empty, `.` or `..`")]
    BadPath,
    /// More than 2048 bytes.
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
}

impl TrustDomain {
    /// Checks a trust domain's name.
    ///
    /// # Errors
    /// [`SpiffeIdError::BadTrustDomain`].
    pub fn parse(s: &str) -> Result<Self, SpiffeIdError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if s.is_empty() || s.len() > 255 || !s.bytes().all(legal) {
            return Err(SpiffeIdError::BadTrustDomain);
        }
        Ok(Self(Arc::from(s)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeId {
    /// Checks a SPIFFE ID. The path may be empty (the trust domain's own id).
    ///
    /// # Errors
    /// [`SpiffeIdError`] names the rule that `s` breaks.
    pub fn parse(s: &str) -> Result<Self, SpiffeIdError> {
        let rest = s.strip_prefix("spiffe://").ok_or(SpiffeIdError::NotSpiffe)?;
        if s.len() > 2048 {
            return Err(SpiffeIdError::TooLong);
        }
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        TrustDomain::parse(domain)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good = |seg: &str| !matches!(seg, "" | "." | "..") && seg.bytes().all(legal);
        if !path.is_empty() && !path[1..].split('/').all(good) {
            return Err(SpiffeIdError::BadPath);
        }
        Ok(Self(Arc::from(s)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = &self.0["spiffe://".len()..];
        rest.split('/').next().unwrap_or(rest)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_decides_what_is_an_id() {
        for good in ["spiffe://example.org", "spiffe://example.org/a", "spiffe://e-x_1.org/ns/Prod/sa/web.1"] {
            assert!(SpiffeId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "spiffe://",
            "http://x/a",
            "SPIFFE://x/a",
            "spiffe://Example.org/a",
            "spiffe://x/",
            "spiffe://x//a",
            "spiffe://x/a/",
            "spiffe://x/../a",
            "spiffe://x/a b",
            "spiffe://x:1/a",
            "spiffe://u@x/a",
            "spiffe://x/a?q",
            "spiffe://x/%61",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_trust_domain_is_the_authority() {
        let id = SpiffeId::parse("spiffe://example.org/a/b").ok();
        assert_eq!(id.as_ref().map(SpiffeId::trust_domain), Some("example.org"));
    }
}
