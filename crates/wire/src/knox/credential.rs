//! The `Authorization` header of Knox: one version byte, one type byte, a payload (§5). No scheme word.
//!
//! Only the split is done here; whether the payload proves anything is the business of authentication.

use std::fmt;

/// A split header. The payload may be a bearer token, so `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// First byte, `0` for every known provider.
    pub version: u8,
    /// Second byte, which selects the providers.
    pub kind: u8,
    /// Everything after, at least one byte.
    pub payload: &'a [u8],
}

/// The forms that the reference's providers accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `0u`: the payload is a user's bearer token.
    UserToken,
    /// `0t`: the payload is the host name the machine claims; also tried as a service certificate.
    Machine,
    /// `0s`: the payload is ignored, the certificate says which service calls.
    Service,
}

impl<'a> Credential<'a> {
    /// Splits a header value. `None` when it is shorter than three bytes: then no provider matches.
    #[must_use]
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        match header {
            [version, kind, payload @ ..] if !payload.is_empty() => Some(Self { version: *version, kind: *kind, payload }),
            _ => None,
        }
    }

    /// Which known form this is; `None` for bytes that no provider of the reference matches.
    #[must_use]
    pub const fn form(&self) -> Option<Form> {
        match (self.version, self.kind) {
            (b'0', b'u') => Some(Form::UserToken),
            (b'0', b't') => Some(Form::Machine),
            (b'0', b's') => Some(Form::Service),
            _ => None,
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("version", &char::from(self.version))
            .field("kind", &char::from(self.kind))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_header_is_split_into_two_bytes_and_a_payload() {
        let credential = Credential::parse(b"0thost.example").unwrap();
        assert_eq!(credential.payload, b"host.example");
        assert_eq!(credential.form(), Some(Form::Machine));
        assert_eq!(Credential::parse(b"0sx").unwrap().form(), Some(Form::Service));
        assert_eq!(Credential::parse(b"0u\xff").unwrap().form(), Some(Form::UserToken));
    }

    #[test]
    fn too_short_or_foreign_headers_match_nothing() {
        for short in [&b""[..], b"0", b"0u"] {
            assert_eq!(Credential::parse(short), None);
        }
        assert_eq!(Credential::parse(b"1uTOKEN").unwrap().form(), None);
        assert_eq!(Credential::parse(b"0mhost").unwrap().form(), None);
        assert_eq!(Credential::parse(b"Bearer x").unwrap().form(), None);
    }

    #[test]
    fn the_payload_never_shows_in_debug_output() {
        let shown = format!("{:?}", Credential::parse(b"0usecret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
