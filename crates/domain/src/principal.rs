//! Who can be named in a grant, and who a caller can turn out to be.

use crate::SpiffeId;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Bytes that the id of a principal in a grant has at most.
pub const MAX_PRINCIPAL: usize = 2048;

/// A party named in a grant. Comparison is byte-exact, and a type never matches another kind of identity (contract knox §6.2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Principal {
    /// One person, by login name.
    User(Arc<str>),
    /// Everyone in a group.
    UserGroup(Arc<str>),
    /// One machine, by name.
    Machine(Arc<str>),
    /// Machines whose name starts with this string, wherever it ends.
    MachinePrefix(Arc<str>),
    /// One workload, by its whole SPIFFE ID.
    Service(Arc<str>),
    /// Workloads whose SPIFFE ID starts with this string, which ends at `/`.
    ServicePrefix(Arc<str>),
}

/// Why a principal is refused when it is written: it could never match, or would match everyone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrincipalError {
    /// An empty name.
    #[error("a principal's id may not be empty")]
    Empty,
    /// More than 2048 bytes or a control character.
    #[error("a principal's id has at most 2048 bytes and no control characters")]
    Malformed,
    /// A service that is no SPIFFE ID, so no certificate can ever carry it.
    #[error("no certificate can carry the service id `{0}`: {1}")]
    NeverMatches(String, crate::SpiffeIdError),
    /// A service prefix that does not end with a slash.
    #[error("a service prefix must look like `spiffe://domain/path/` and end with `/`")]
    NoTrailingSlash,
    /// No such type of principal.
    #[error("unknown type of principal; the types are user, user_group, machine, machine_prefix, service, service_prefix")]
    UnknownType,
}

impl Principal {
    /// The type's name in the native API and in `TYPE:ID` on the command line.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::UserGroup(_) => "user_group",
            Self::Machine(_) => "machine",
            Self::MachinePrefix(_) => "machine_prefix",
            Self::Service(_) => "service",
            Self::ServicePrefix(_) => "service_prefix",
        }
    }

    /// The name, prefix or SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::User(id) | Self::UserGroup(id) | Self::Machine(id) => id,
            Self::MachinePrefix(id) | Self::Service(id) | Self::ServicePrefix(id) => id,
        }
    }

    /// The principal of this type and id, checked by [`Principal::check`].
    ///
    /// # Errors
    /// [`PrincipalError`] says which rule is broken.
    pub fn parse(type_name: &str, id: &str) -> Result<Self, PrincipalError> {
        let principal = Self::unchecked(type_name, id).ok_or(PrincipalError::UnknownType)?;
        principal.check()?;
        Ok(principal)
    }

    /// The principal of this type and id without the checks: for surfaces whose protocol has rules of its own, and for
    /// what was stored before.
    #[must_use]
    pub fn unchecked(type_name: &str, id: &str) -> Option<Self> {
        let id = Arc::from(id);
        Some(match type_name {
            "user" => Self::User(id),
            "user_group" => Self::UserGroup(id),
            "machine" => Self::Machine(id),
            "machine_prefix" => Self::MachinePrefix(id),
            "service" => Self::Service(id),
            "service_prefix" => Self::ServicePrefix(id),
            _ => return None,
        })
    }

    /// Whether this principal can match what it seems to name and does not match everyone.
    ///
    /// # Errors
    /// [`PrincipalError`] says which rule is broken.
    pub fn check(&self) -> Result<(), PrincipalError> {
        let id = self.id();
        if id.is_empty() {
            return Err(PrincipalError::Empty);
        }
        if id.len() > MAX_PRINCIPAL || id.bytes().any(|b| b.is_ascii_control()) {
            return Err(PrincipalError::Malformed);
        }
        let spiffe = match self {
            Self::Service(id) => id,
            Self::ServicePrefix(id) => id.strip_suffix('/').ok_or(PrincipalError::NoTrailingSlash)?,
            _ => return Ok(()),
        };
        match SpiffeId::parse(spiffe) {
            Ok(_) => Ok(()),
            Err(why) => Err(PrincipalError::NeverMatches(id.to_owned(), why)),
        }
    }

    /// Whether a grant to this principal reaches `identity`.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::User(id), Identity::User { name, .. }) => id == name,
            (Self::UserGroup(id), Identity::User { groups, .. }) => groups.iter().any(|g| g == id),
            (Self::Machine(id), Identity::Machine { name }) => id == name,
            (Self::MachinePrefix(id), Identity::Machine { name }) => name.starts_with(&**id),
            (Self::Service(id), Identity::Service { id: mine }) => id == mine,
            (Self::ServicePrefix(id), Identity::Service { id: mine }) => mine.starts_with(&**id),
            _ => false,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.type_name(), self.id())
    }
}

impl std::str::FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (type_name, id) = s.split_once(':').ok_or(PrincipalError::UnknownType)?;
        Self::parse(type_name, id)
    }
}

/// Who a caller has proven to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// A person and the groups he is in.
    User {
        /// Login name.
        name: Arc<str>,
        /// Names of his groups.
        groups: Arc<[Arc<str>]>,
    },
    /// A machine.
    Machine {
        /// Its name as claimed and proven.
        name: Arc<str>,
    },
    /// A workload.
    Service {
        /// Its SPIFFE ID as its certificate has it.
        id: Arc<str>,
    },
}

impl Identity {
    /// The name by which messages and the audit log call this identity.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::User { name, .. } | Self::Machine { name } => name,
            Self::Service { id } => id,
        }
    }

    /// `user`, `machine` or `service`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Machine { .. } => "machine",
            Self::Service { .. } => "service",
        }
    }

    /// The principal that names just this identity.
    #[must_use]
    pub fn principal(&self) -> Principal {
        match self {
            Self::User { name, .. } => Principal::User(name.clone()),
            Self::Machine { name } => Principal::Machine(name.clone()),
            Self::Service { id } => Principal::Service(id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str, groups: &[&str]) -> Identity {
        Identity::User { name: name.into(), groups: groups.iter().map(|g| Arc::from(*g)).collect() }
    }

    #[test]
    fn a_type_never_matches_another_kind_of_identity() {
        let same = |t: &str, id: &str| Principal::unchecked(t, id).unwrap();
        let machine = Identity::Machine { name: "x".into() };
        let service = Identity::Service { id: "spiffe://d/x".into() };
        assert!(same("user", "x").matches(&user("x", &[])));
        assert!(same("user_group", "g").matches(&user("x", &["g"])));
        assert!(!same("user", "x").matches(&machine));
        assert!(!same("machine", "x").matches(&user("x", &["x"])));
        assert!(same("machine_prefix", "").matches(&machine));
        assert!(!same("machine_prefix", "").matches(&service));
        assert!(same("service_prefix", "spiffe://d/").matches(&service));
        assert!(!same("service", "spiffe://d/X").matches(&service));
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for bad in [
            "machine_prefix:",
            "service:spiffe://d/",
            "service:web",
            "service_prefix:spiffe://d",
            "service:SPIFFE://d/a",
            "ghost:x",
            "user",
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
        for good in ["user:alice", "service:spiffe://d/a", "service_prefix:spiffe://d/", "service_prefix:spiffe://d/a/"] {
            assert_eq!(good.parse::<Principal>().unwrap().to_string(), good);
        }
    }
}
