//! The words of the protocol: version status, access level, principal type, access entry (§3).
//!
//! These are wire types. They hold whatever a client may say, including what a store must never keep (an unknown
//! principal type, an entry with access `None`); [`super::validate`] says which of it is acceptable.

use super::json::write_string;

/// A JSON value that is not one of an enum's words; carries Knox's name of the Go type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("json: Invalid {0} to convert")]
pub struct InvalidType(pub &'static str);

/// State of one version. The order is the rank used by the version hash: primary first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionStatus {
    /// The one version that new data is protected with.
    Primary,
    /// Still in use.
    Active,
    /// No longer in use.
    Inactive,
}

impl VersionStatus {
    /// Reads a status as it stands in forms and queries: a JSON string *with its quotes*, exact case, nothing around
    /// it and no escapes (§4.3 step 1).
    ///
    /// # Errors
    /// [`InvalidType`] for everything else, the empty string included.
    pub fn from_json(raw: &[u8]) -> Result<Self, InvalidType> {
        match raw {
            b"\"Primary\"" => Ok(Self::Primary),
            b"\"Active\"" => Ok(Self::Active),
            b"\"Inactive\"" => Ok(Self::Inactive),
            _ => Err(InvalidType("VersionStatus")),
        }
    }

    /// The bare word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "Primary",
            Self::Active => "Active",
            Self::Inactive => "Inactive",
        }
    }

    /// Whether a read with `self` as its status filter shows a version in state `of` (§4.3 step 4).
    #[must_use]
    pub fn shows(self, of: Self) -> bool {
        of <= self
    }
}

/// How much an entry grants. A grant covers everything at or below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AccessLevel {
    /// Nothing; in a request, the wish to remove an entry. Also what a missing member means.
    #[default]
    None,
    /// Read the key's data.
    Read,
    /// Add versions and change their status.
    Write,
    /// Delete the key and change its ACL.
    Admin,
}

impl AccessLevel {
    /// Reads the raw JSON value of an `access` member.
    ///
    /// # Errors
    /// [`InvalidType`] for anything but the four words, `null` included.
    pub fn from_json(raw: &[u8]) -> Result<Self, InvalidType> {
        match raw {
            b"\"None\"" => Ok(Self::None),
            b"\"Read\"" => Ok(Self::Read),
            b"\"Write\"" => Ok(Self::Write),
            b"\"Admin\"" => Ok(Self::Admin),
            _ => Err(InvalidType("AccessType")),
        }
    }

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Admin => "Admin",
        }
    }
}

/// Kind of principal an access entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrincipalType {
    /// One person.
    User,
    /// A group of people.
    UserGroup,
    /// One machine, by its exact name.
    Machine,
    /// Every machine whose name starts with the id.
    MachinePrefix,
    /// One service, by its SPIFFE id.
    Service,
    /// Every service whose SPIFFE id starts with the entry's id.
    ServicePrefix,
    /// A value that is none of the six words. It decodes, as in Knox, but can never be encoded.
    Unknown,
    /// No `type` member at all. Kept apart from [`PrincipalType::Unknown`], as in Knox, where the two are not equal.
    #[default]
    Missing,
}

impl PrincipalType {
    /// Reads the raw JSON value of a `type` member. Never fails: any other value, `null` included, is
    /// [`PrincipalType::Unknown`].
    #[must_use]
    pub fn from_json(raw: &[u8]) -> Self {
        match raw {
            b"\"User\"" => Self::User,
            b"\"UserGroup\"" => Self::UserGroup,
            b"\"Machine\"" => Self::Machine,
            b"\"MachinePrefix\"" => Self::MachinePrefix,
            b"\"Service\"" => Self::Service,
            b"\"ServicePrefix\"" => Self::ServicePrefix,
            _ => Self::Unknown,
        }
    }

    /// The word on the wire; `None` for the two that have none.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::User => Some("User"),
            Self::UserGroup => Some("UserGroup"),
            Self::Machine => Some("Machine"),
            Self::MachinePrefix => Some("MachinePrefix"),
            Self::Service => Some("Service"),
            Self::ServicePrefix => Some("ServicePrefix"),
            Self::Unknown | Self::Missing => None,
        }
    }
}

/// One entry of an ACL, as decoded from a request. The default is what `{}` and `null` mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessEntry {
    /// Kind of principal.
    pub kind: PrincipalType,
    /// The principal's id, or the prefix.
    pub id: String,
    /// What is granted.
    pub access: AccessLevel,
}

impl AccessEntry {
    /// Borrows the entry for encoding.
    #[must_use]
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef { kind: self.kind, id: &self.id, access: self.access }
    }
}

/// A borrowed access entry, for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Kind of principal.
    pub kind: PrincipalType,
    /// The principal's id, or the prefix.
    pub id: &'a str,
    /// What is granted.
    pub access: AccessLevel,
}

/// Appends an ACL as a JSON array, members in Knox's order `type`, `id`, `access`.
///
/// # Errors
/// [`InvalidType`] when an entry has no encodable type; `out` is then as it was before.
pub fn write_acl<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = EntryRef<'a>>) -> Result<(), InvalidType> {
    let start = out.len();
    out.push(b'[');
    for (index, entry) in entries.into_iter().enumerate() {
        let Some(kind) = entry.kind.as_str() else {
            out.truncate(start);
            return Err(InvalidType("PrincipalType"));
        };
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"id\":");
        write_string(out, entry.id.as_bytes());
        out.extend_from_slice(b",\"access\":\"");
        out.extend_from_slice(entry.access.as_str().as_bytes());
        out.extend_from_slice(b"\"}");
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encoded(entries: &[AccessEntry]) -> Result<String, InvalidType> {
        let mut out = Vec::new();
        write_acl(&mut out, entries.iter().map(AccessEntry::as_ref))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_status_needs_its_quotes_and_exact_case() {
        assert_eq!(VersionStatus::from_json(b"\"Active\""), Ok(VersionStatus::Active));
        for bad in [&b""[..], b"Active", b"\"active\"", b" \"Active\"", b"\"Active\" ", b"\"\\u0041ctive\"", b"null"] {
            let error = VersionStatus::from_json(bad).unwrap_err();
            assert_eq!(error.to_string(), "json: Invalid VersionStatus to convert");
        }
    }

    #[test]
    fn a_status_filter_shows_its_state_and_the_stronger_ones() {
        use VersionStatus::{Active, Inactive, Primary};
        assert_eq!([Primary, Active, Inactive].map(|s| Primary.shows(s)), [true, false, false]);
        assert_eq!([Primary, Active, Inactive].map(|s| Active.shows(s)), [true, true, false]);
        assert_eq!([Primary, Active, Inactive].map(|s| Inactive.shows(s)), [true, true, true]);
    }

    #[test]
    fn an_acl_is_written_in_member_order_with_go_escapes() {
        let entry = |kind, id: &str, access| AccessEntry { kind, id: id.into(), access };
        let acl = [
            entry(PrincipalType::User, "al<i>ce", AccessLevel::Admin),
            entry(PrincipalType::ServicePrefix, "spiffe://d/", AccessLevel::Read),
        ];
        assert_eq!(
            encoded(&acl).unwrap(),
            concat!(
                r#"[{"type":"User","id":"al\u003ci\u003ece","access":"Admin"},"#,
                r#"{"type":"ServicePrefix","id":"spiffe://d/","access":"Read"}]"#
            )
        );
        assert_eq!(encoded(&[]).unwrap(), "[]");
    }

    #[test]
    fn an_unknown_type_can_not_be_encoded_and_leaves_the_output_alone() {
        let mut out = b"before".to_vec();
        for kind in [PrincipalType::Unknown, PrincipalType::Missing] {
            let acl = [AccessEntry { kind, ..AccessEntry::default() }];
            let error = write_acl(&mut out, acl.iter().map(AccessEntry::as_ref)).unwrap_err();
            assert_eq!(error.to_string(), "json: Invalid PrincipalType to convert");
            assert_eq!(out, b"before");
        }
    }
}
