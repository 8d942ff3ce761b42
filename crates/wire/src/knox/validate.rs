//! What an ACL and a key id may be (§3, §4.2 steps 6 and 7, §4.6 steps 4 and 5, §6.3), as pure functions.
//!
//! Where the reference does harm, [`Strictness`] chooses between imitating and mending it (§14). Who may do any of
//! this is not decided here.

use std::collections::HashMap;

use super::envelope::Code;
use super::site_rule::SiteRule;
use super::text;
use super::types::{AccessEntry, AccessLevel, PrincipalType};
use super::url::{Origin, Url};

/// How faithfully to imitate what §14 allows to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// As the reference: creation checks no principal, refuses `None` and duplicates with 500/1 (so that clients
    /// retry). Unknown principal types are refused all the same: an entry of such a type can be neither matched nor
    /// shown again, so the reference then answers the ACL with an empty body.
    Reference,
    /// Creation checks principals like put access does (400/13); `None` and duplicates are 400/11.
    #[default]
    Fixed,
}

/// Rules for the principals that ACL entries name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrincipalRules<'a> {
    /// Whether creation checks principals, and with which code it refuses `None` and duplicates.
    pub strictness: Strictness,
    /// Fewest path segments a service prefix must have; zero lets a prefix cover a whole trust domain.
    pub min_prefix_components: usize,
    /// The site's own rules, in order.
    pub site: &'a [SiteRule],
}

/// Why a principal may not stand in an ACL: 400/13. The texts of the first four are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPrincipal {
    /// The id is empty, whatever the type. An empty machine prefix would match every machine.
    #[error("Principals of type user, user group, machine, or machine prefix may not be empty.")]
    Empty,
    /// A service or service prefix is no `spiffe` URL with a host.
    #[error("Service prefix is invalid URL, must conform to 'spiffe://<domain>/<path>/' format.")]
    NotSpiffe,
    /// A service prefix could match within a path segment.
    #[error("Service prefix had no trailing slash, must conform to 'spiffe://<domain>/<path>/' format.")]
    NoTrailingSlash,
    /// A service prefix has fewer path segments than the site asks for.
    #[error("Service prefix too short, path of namespace for prefix needs to be longer.")]
    TooShort,
    /// The type is none of the six. The reference accepts it, so the text is our own.
    #[error("Principal type is missing or unknown.")]
    UnknownType,
    /// A rule of the site's own, with its text.
    #[error("{0}")]
    Site(Box<str>),
}

/// A refusal ready for the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Code, and with it the HTTP status.
    pub code: Code,
    /// Text of `message`.
    pub message: Vec<u8>,
}

impl Refusal {
    fn new(code: Code, message: impl Into<Vec<u8>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<BadPrincipal> for Refusal {
    fn from(error: BadPrincipal) -> Self {
        Self::new(Code::BadPrincipal, error.to_string())
    }
}

/// Checks the principal of one entry (§6.3), first by the fixed rules, then by the site's.
///
/// # Errors
/// [`BadPrincipal`], the first rule that is broken.
pub fn principal(kind: PrincipalType, id: &str, rules: PrincipalRules<'_>) -> Result<(), BadPrincipal> {
    fixed_rules(kind, id, rules.min_prefix_components)?;
    match rules.site.iter().find(|rule| !rule.permits(kind, id)) {
        Some(rule) => Err(BadPrincipal::Site(rule.error.clone())),
        None => Ok(()),
    }
}

fn fixed_rules(kind: PrincipalType, id: &str, min_prefix_components: usize) -> Result<(), BadPrincipal> {
    if kind.as_str().is_none() {
        return Err(BadPrincipal::UnknownType);
    }
    if id.is_empty() {
        return Err(BadPrincipal::Empty);
    }
    if !matches!(kind, PrincipalType::Service | PrincipalType::ServicePrefix) {
        return Ok(());
    }
    let url = Url::parse(id.as_bytes(), Origin::Reference).ok_or(BadPrincipal::NotSpiffe)?;
    if url.scheme != "spiffe" || url.host.is_empty() {
        return Err(BadPrincipal::NotSpiffe);
    }
    if kind == PrincipalType::Service {
        return Ok(());
    }
    // On the id, not on the parsed path: a query or fragment that ends in a slash passes, as in the reference.
    if !id.ends_with('/') {
        return Err(BadPrincipal::NoTrailingSlash);
    }
    if components(&url.path) < min_prefix_components {
        return Err(BadPrincipal::TooShort);
    }
    Ok(())
}

/// Number of path segments, without regard to slashes at either end.
fn components(path: &[u8]) -> usize {
    let start = path.iter().position(|byte| *byte != b'/');
    let end = path.iter().rposition(|byte| *byte != b'/');
    match (start, end) {
        (Some(start), Some(end)) => path[start..end].iter().filter(|byte| **byte == b'/').count() + 1,
        _ => 0,
    }
}

/// Checks the entries of a put access: each that is not a removal must name a valid principal (§4.6 step 4).
///
/// # Errors
/// [`Refusal`] 400/13 for the first bad entry.
pub fn put_access(entries: &[AccessEntry], rules: PrincipalRules<'_>) -> Result<(), Refusal> {
    let granting = entries.iter().filter(|entry| entry.access != AccessLevel::None);
    for entry in granting {
        principal(entry.kind, &entry.id, rules)?;
    }
    Ok(())
}

/// Applies entries to an ACL in order (§4.6 step 5): an entry with the same type and id is replaced in place, `None`
/// removes it if it is there, anything else is appended. Takes time in proportion to both lengths.
#[must_use]
pub fn apply(acl: Vec<AccessEntry>, changes: impl IntoIterator<Item = AccessEntry>) -> Vec<AccessEntry> {
    let mut slots: Vec<Option<AccessEntry>> = acl.into_iter().map(Some).collect();
    let mut places: HashMap<(PrincipalType, String), usize> = HashMap::new();
    for (place, entry) in slots.iter().enumerate() {
        if let Some(entry) = entry {
            places.entry((entry.kind, entry.id.clone())).or_insert(place);
        }
    }
    for change in changes {
        let name = (change.kind, change.id.clone());
        let removes = change.access == AccessLevel::None;
        match places.get(&name).copied() {
            Some(place) if removes => {
                slots[place] = None;
                places.remove(&name);
            }
            Some(place) => slots[place] = Some(change),
            None if removes => {}
            None => {
                places.insert(name, slots.len());
                slots.push(Some(change));
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// Makes and checks the ACL of a new key (§4.2 steps 6 and 7): the given entries, then the creator, then the site's
/// default grants, each by the rule of [`apply`].
///
/// # Errors
/// [`Refusal`], in this order: the key id (400/12); the first given entry of an unknown type and, under
/// [`Strictness::Fixed`], the first that names a bad principal (400/13); the first entry that is `None` or has a duplicate (500/1, or 400/11 when fixed).
pub fn new_key(
    key: &[u8],
    given: Vec<AccessEntry>,
    creator: AccessEntry,
    defaults: impl IntoIterator<Item = AccessEntry>,
    rules: PrincipalRules<'_>,
) -> Result<Vec<AccessEntry>, Refusal> {
    let principals = match rules.strictness {
        Strictness::Fixed => put_access(&given, rules),
        Strictness::Reference => known_types(&given),
    };
    let acl = apply(given, std::iter::once(creator).chain(defaults));
    if !is_key_id(key) {
        return Err(Refusal::new(Code::BadKeyFormat, text::bad_key_id(key)));
    }
    principals?;
    check_entries(&acl, rules.strictness)?;
    Ok(acl)
}

/// The only check of principals that [`Strictness::Reference`] makes on creation. Entries that grant nothing are left to
/// the check for `None`, as in [`put_access`].
fn known_types(entries: &[AccessEntry]) -> Result<(), Refusal> {
    let is_unknown = |entry: &AccessEntry| entry.access != AccessLevel::None && entry.kind.as_str().is_none();
    if entries.iter().any(is_unknown) { Err(BadPrincipal::UnknownType.into()) } else { Ok(()) }
}

/// `None` and duplicates, whichever an earlier entry has.
fn check_entries(acl: &[AccessEntry], strictness: Strictness) -> Result<(), Refusal> {
    let code = match strictness {
        Strictness::Reference => Code::Internal,
        Strictness::Fixed => Code::BadRequestData,
    };
    let mut counts: HashMap<(PrincipalType, &str), usize> = HashMap::new();
    for entry in acl {
        *counts.entry((entry.kind, &entry.id)).or_default() += 1;
    }
    for entry in acl {
        if entry.access == AccessLevel::None {
            return Err(Refusal::new(code, "ACL contains None access"));
        }
        if counts.get(&(entry.kind, entry.id.as_str())).is_some_and(|count| *count > 1) {
            return Err(Refusal::new(code, "Duplicate entries in ACL"));
        }
    }
    Ok(())
}

/// Whether Knox would make a key of this id: `^[a-zA-Z0-9_:]+$`, of any length.
#[must_use]
pub fn is_key_id(raw: &[u8]) -> bool {
    !raw.is_empty() && raw.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REFERENCE: PrincipalRules<'_> = PrincipalRules { strictness: Strictness::Reference, min_prefix_components: 0, site: &[] };
    const FIXED: PrincipalRules<'_> = PrincipalRules { strictness: Strictness::Fixed, ..REFERENCE };

    fn entry(kind: PrincipalType, id: &str, access: AccessLevel) -> AccessEntry {
        AccessEntry { kind, id: id.to_owned(), access }
    }

    fn user(id: &str, access: AccessLevel) -> AccessEntry {
        entry(PrincipalType::User, id, access)
    }

    fn created(key: &str, given: Vec<AccessEntry>, rules: PrincipalRules<'_>) -> Result<Vec<AccessEntry>, (u16, u8, String)> {
        let defaults = [entry(PrincipalType::UserGroup, "security-team", AccessLevel::Admin)];
        new_key(key.as_bytes(), given, user("me", AccessLevel::Admin), defaults, rules)
            .map_err(|r| (r.code.http_status(), r.code.number(), String::from_utf8(r.message).unwrap()))
    }

    #[test]
    fn empty_principals_are_refused_whatever_their_type() {
        for kind in [PrincipalType::User, PrincipalType::MachinePrefix, PrincipalType::Service] {
            assert_eq!(principal(kind, "", FIXED), Err(BadPrincipal::Empty));
        }
        for rules in [REFERENCE, FIXED] {
            assert_eq!(principal(PrincipalType::Unknown, "a", rules), Err(BadPrincipal::UnknownType));
        }
        assert_eq!(principal(PrincipalType::Missing, "a", FIXED), Err(BadPrincipal::UnknownType));
    }

    #[test]
    fn services_must_be_spiffe_urls_and_prefixes_end_in_a_slash() {
        use PrincipalType::{Service, ServicePrefix};
        for id in ["spiffe://dom", "SPIFFE://dom/a", "spiffe://dom/a b", "spiffe://:80/"] {
            assert_eq!(principal(Service, id, FIXED), Ok(()), "{id}");
        }
        for id in ["dom/a", "https://dom/", "spiffe:///a/", "spiffe:dom/", "spiffe://dom/%zz/", "spiffe://d\n/", "x"] {
            assert_eq!(principal(Service, id, FIXED), Err(BadPrincipal::NotSpiffe), "{id}");
            assert_eq!(principal(ServicePrefix, id, FIXED), Err(BadPrincipal::NotSpiffe), "{id}");
        }
        assert_eq!(principal(ServicePrefix, "spiffe://dom/a", FIXED), Err(BadPrincipal::NoTrailingSlash));
        assert_eq!(principal(ServicePrefix, "spiffe://dom/", FIXED), Ok(()));
    }

    #[test]
    fn a_site_can_ask_for_longer_service_prefixes() {
        let rules = PrincipalRules { min_prefix_components: 2, ..FIXED };
        let check = |id| principal(PrincipalType::ServicePrefix, id, rules);
        assert_eq!(check("spiffe://dom/a/"), Err(BadPrincipal::TooShort));
        assert_eq!(check("spiffe://dom//a//"), Err(BadPrincipal::TooShort));
        assert_eq!(check("spiffe://dom/a/b/"), Ok(()));
        assert_eq!(check("spiffe://dom/a%2fb/"), Ok(()));
    }

    #[test]
    fn removals_need_no_valid_principal() {
        let empty = |access| entry(PrincipalType::MachinePrefix, "", access);
        assert_eq!(put_access(&[empty(AccessLevel::None)], FIXED), Ok(()));
        let refusal = put_access(&[empty(AccessLevel::None), empty(AccessLevel::Read)], FIXED).unwrap_err();
        assert_eq!((refusal.code.http_status(), refusal.code.number()), (400, 13));
    }

    #[test]
    fn entries_are_replaced_in_place_removed_or_appended_in_order() {
        use AccessLevel::{Admin, None, Read, Write};
        let acl = vec![user("a", Read), user("b", Read), user("c", Read)];
        let changes = [user("b", None), user("a", Admin), user("d", None), user("b", Write), user("e", Read), user("e", Admin)];
        let expected = vec![user("a", Admin), user("c", Read), user("b", Write), user("e", Admin)];
        assert_eq!(apply(acl, changes), expected);
    }

    #[test]
    fn a_new_key_belongs_to_its_creator_and_the_default_grants() {
        let acl = created("k:1", vec![user("me", AccessLevel::Read), user("x", AccessLevel::Read)], REFERENCE).unwrap();
        let ids: Vec<_> = acl.iter().map(|entry| (entry.id.as_str(), entry.access)).collect();
        assert_eq!(ids, [("me", AccessLevel::Admin), ("x", AccessLevel::Read), ("security-team", AccessLevel::Admin)]);
    }

    #[test]
    fn creation_refuses_in_the_contracts_order() {
        let none = || vec![user("x", AccessLevel::None)];
        let twice = || vec![user("x", AccessLevel::Read), user("x", AccessLevel::Write)];
        let refused = |code: (u16, u8), text: &str| Err((code.0, code.1, text.to_owned()));
        assert_eq!(created("a-b", none(), REFERENCE), refused((400, 12), "KeyID includes unsupported characters a-b"));
        assert_eq!(created("", none(), FIXED), refused((400, 12), "KeyID includes unsupported characters "));
        assert_eq!(created("k", none(), REFERENCE), refused((500, 1), "ACL contains None access"));
        assert_eq!(created("k", none(), FIXED), refused((400, 11), "ACL contains None access"));
        assert_eq!(created("k", twice(), REFERENCE), refused((500, 1), "Duplicate entries in ACL"));
        assert_eq!(created("k", twice(), FIXED), refused((400, 11), "Duplicate entries in ACL"));
    }

    #[test]
    fn only_the_fixed_rules_check_principals_on_creation() {
        let given = || vec![entry(PrincipalType::MachinePrefix, "", AccessLevel::Read)];
        assert!(created("k", given(), REFERENCE).is_ok());
        let refused = created("k", given(), FIXED).unwrap_err();
        assert_eq!((refused.0, refused.1), (400, 13));
    }

    #[test]
    fn creation_refuses_unknown_types_however_strict_it_is() {
        for rules in [REFERENCE, FIXED] {
            let given = vec![entry(PrincipalType::Unknown, "x", AccessLevel::Read)];
            assert_eq!(created("k", given, rules).unwrap_err(), (400, 13, "Principal type is missing or unknown.".to_owned()));
        }
    }

    #[test]
    fn key_ids_are_letters_digits_underscores_and_colons() {
        for id in ["a", "tink:aead:x_1", "::"] {
            assert!(is_key_id(id.as_bytes()), "{id}");
        }
        for id in ["", "a-b", "a\n", "a b", "ä", "a/b"] {
            assert!(!is_key_id(id.as_bytes()), "{id:?}");
        }
    }
}
