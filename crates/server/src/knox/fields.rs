//! Requests' fields as domain values, with Knox's texts for what is wrong.

use super::answers::Reply;
use super::{Ask, Knox};
use claviger_domain::{Acl, Caller, Capabilities, Grant, Identity, Preset, Principal, SecretBytes, Transition};
use claviger_wire::knox::envelope::Code;
use claviger_wire::knox::types::{AccessEntry, AccessLevel, EntryRef, PrincipalType, VersionStatus};
use claviger_wire::knox::{base64, form, json, text};
use std::borrow::Cow;

/// The value of a field that a route declares.
pub(crate) type Field<'a> = Option<Cow<'a, [u8]>>;

impl Ask<'_> {
    /// The declared fields of the form in the body, in their declared order.
    pub(crate) fn fields<const N: usize>(&self, names: [&str; N]) -> [Field<'_>; N] {
        form::fields(self.head.headers.get("content-type"), self.head.query.as_deref(), self.body, names)
    }

    /// The status filter of a read: `"Active"` unless given; checked before the key is looked up.
    pub(crate) fn status_filter(&self) -> Result<VersionStatus, Reply> {
        match form::query_value(self.head.query.as_deref(), "status") {
            None => Ok(VersionStatus::Active),
            Some(raw) => VersionStatus::from_json(&raw).map_err(Reply::bad_data),
        }
    }

    /// The name by which messages call the caller.
    pub(crate) fn principal(&self) -> &str {
        super::answers::principal_name(self.caller.default_identity())
    }
}

/// Secret data: present, not empty, and base64. Creation and addition differ in the code of the first two.
pub(crate) fn data(field: Field<'_>, missing: Code) -> Result<SecretBytes, Reply> {
    let raw = field.ok_or_else(|| Reply::new(missing, text::missing_parameter("data")))?;
    if raw.is_empty() {
        return Err(Reply::new(missing, text::EMPTY_DATA));
    }
    base64::decode_standard(&raw).map(SecretBytes::new).map_err(Reply::bad_data)
}

/// The transition that a status update asks for.
pub(crate) fn transition(field: Field<'_>) -> Result<Transition, Reply> {
    let raw = field.ok_or_else(|| Reply::bad_data(text::missing_parameter("status")))?;
    Ok(match VersionStatus::from_json(&raw).map_err(Reply::bad_data)? {
        VersionStatus::Primary => Transition::Promote,
        VersionStatus::Active => Transition::Reactivate,
        VersionStatus::Inactive => Transition::Deactivate,
    })
}

/// The entries of a put access (§4.6 step 1): `access` wins over `acl`.
pub(crate) fn access_changes(access: Field<'_>, acl: Field<'_>) -> Result<Vec<AccessEntry>, Reply> {
    match (access, acl) {
        (Some(one), _) => Ok(vec![json::decode_access_field(&one).map_err(Reply::bad_data)?]),
        (None, Some(list)) => json::decode_acl(&list, json::AclField::PutAccess).map_err(Reply::bad_data),
        (None, None) => Err(Reply::bad_data(text::NO_ACL_NOR_ACCESS)),
    }
}

/// The given entries of a creation.
pub(crate) fn given_acl(field: Field<'_>) -> Result<Vec<AccessEntry>, Reply> {
    field.map_or(Ok(Vec::new()), |raw| json::decode_acl(&raw, json::AclField::Create).map_err(Reply::bad_data))
}

/// Knox's access types as sets; each covers those below it.
pub(crate) fn capabilities(access: AccessLevel) -> Capabilities {
    match access {
        AccessLevel::None => Preset::None,
        AccessLevel::Read => Preset::Read,
        AccessLevel::Write => Preset::Write,
        AccessLevel::Admin => Preset::Admin,
    }
    .capabilities()
}

/// The principal of an entry; none where its type is unknown.
pub(crate) fn principal(entry: &AccessEntry) -> Option<Principal> {
    let type_name = match entry.kind {
        PrincipalType::User => "user",
        PrincipalType::UserGroup => "user_group",
        PrincipalType::Machine => "machine",
        PrincipalType::MachinePrefix => "machine_prefix",
        PrincipalType::Service => "service",
        PrincipalType::ServicePrefix => "service_prefix",
        PrincipalType::Unknown | PrincipalType::Missing => return None,
    };
    Principal::unchecked(type_name, &entry.id)
}

fn kind(principal: &Principal) -> PrincipalType {
    match principal {
        Principal::User(_) => PrincipalType::User,
        Principal::UserGroup(_) => PrincipalType::UserGroup,
        Principal::Machine(_) => PrincipalType::Machine,
        Principal::MachinePrefix(_) => PrincipalType::MachinePrefix,
        Principal::Service(_) => PrincipalType::Service,
        Principal::ServicePrefix(_) => PrincipalType::ServicePrefix,
    }
}

fn level(capabilities: Capabilities) -> AccessLevel {
    match capabilities.highest_preset() {
        Preset::None => AccessLevel::None,
        Preset::Read => AccessLevel::Read,
        Preset::Write => AccessLevel::Write,
        Preset::Admin => AccessLevel::Admin,
    }
}

/// A grant as Knox shows it: the highest preset it contains, or nothing where it contains none.
pub(crate) fn shown(grant: &Grant) -> Option<EntryRef<'_>> {
    let access = level(grant.capabilities);
    (access != AccessLevel::None).then(|| EntryRef { kind: kind(&grant.principal), id: grant.principal.id(), access })
}

/// A grant as an entry of its own.
pub(crate) fn entry(grant: &Grant) -> AccessEntry {
    AccessEntry { kind: kind(&grant.principal), id: grant.principal.id().to_owned(), access: level(grant.capabilities) }
}

/// Checked entries as an ACL.
pub(crate) fn acl(entries: &[AccessEntry]) -> Acl {
    let set = |acl: Acl, e: &AccessEntry| match principal(e) {
        Some(p) => acl.set(p, capabilities(e.access)),
        None => acl,
    };
    entries.iter().fold(Acl::default(), set)
}

impl Knox {
    /// Whether a person is among the caller's identities.
    pub(crate) fn is_user(caller: &Caller) -> bool {
        caller.identities().any(|i| matches!(i, Identity::User { .. }))
    }
}
