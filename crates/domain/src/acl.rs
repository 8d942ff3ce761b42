//! Access control lists and the rule of separate duties.

use crate::{Caller, Capabilities, Capability, Identity, MAX_PRINCIPAL, Principal};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use thiserror::Error;

/// What one principal may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Who.
    pub principal: Principal,
    /// What. Never empty inside an [`Acl`].
    pub capabilities: Capabilities,
}

/// Grants that one list has at most: far more than a row of Knox's own database holds.
pub const MAX_GRANTS: usize = 4096;
/// Bytes that the ids of one list's principals have at most, all together.
pub const MAX_GRANTED_BYTES: usize = 1 << 20;

/// Grants in the order they were made; each principal stands once and with at least one capability. Clones share them: the
/// feed keeps the lists of many changes, most of which did not touch them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Acl(Arc<[Grant]>);

/// Why a list is no ACL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AclError {
    /// An entry that allows nothing.
    #[error("the entry for `{0}` allows nothing")]
    AllowsNothing(Principal),
    /// A principal twice.
    #[error("`{0}` stands twice")]
    Duplicate(Principal),
}

/// Why a list is longer than is written. Lists that were stored before are read whatever their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AclTooLong {
    /// Too many grants.
    #[error("a list has at most {MAX_GRANTS} grants, this one would have {0}; grant to a group or a prefix instead")]
    Grants(usize),
    /// A principal whose id is too long.
    #[error("a principal's id has at most {MAX_PRINCIPAL} bytes, this one has {0}")]
    Principal(usize),
    /// Too long ids in all.
    #[error(
        "the ids of a list's principals have at most {MAX_GRANTED_BYTES} bytes together, these have {0}; grant to a group or a prefix instead"
    )]
    Bytes(usize),
}

/// Why a change of rights is refused although the caller is an administrator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RightsError {
    /// Under separate duties nobody may raise his own rights or his groups' ▲.
    #[error(
        "`{0}` reaches yourself: where duties are separate nobody can grant rights to himself or his groups; ask another administrator"
    )]
    SelfGrant(Principal),
    /// Under separate duties who manages a key cannot also use it.
    #[error("`{0}` would hold admin and {1}: where duties are separate these are different people's")]
    AdminAndUse(Principal, Capabilities),
}

impl Acl {
    /// Checks `grants` and makes them a list.
    ///
    /// # Errors
    /// [`AclError`] names the entry.
    pub fn new(grants: Vec<Grant>) -> Result<Self, AclError> {
        let mut seen = HashSet::with_capacity(grants.len());
        for grant in &grants {
            if grant.capabilities.is_empty() {
                return Err(AclError::AllowsNothing(grant.principal.clone()));
            }
            if !seen.insert(&grant.principal) {
                return Err(AclError::Duplicate(grant.principal.clone()));
            }
        }
        drop(seen);
        Ok(Self(grants.into()))
    }

    /// This list and more grants: each principal has what either gives him.
    #[must_use]
    pub fn united(&self, more: impl IntoIterator<Item = Grant>) -> Self {
        let mut grants = self.0.to_vec();
        let mut places: HashMap<_, _> = grants.iter().enumerate().map(|(place, grant)| (grant.principal.clone(), place)).collect();
        for Grant { principal, capabilities } in more.into_iter().filter(|grant| !grant.capabilities.is_empty()) {
            match places.get(&principal) {
                Some(place) => grants[*place].capabilities = grants[*place].capabilities.union(capabilities),
                None => {
                    places.insert(principal.clone(), grants.len());
                    grants.push(Grant { principal, capabilities });
                }
            }
        }
        Self(grants.into())
    }

    /// Whether the list is short enough to be written: each change of it is recorded whole, before and after.
    ///
    /// # Errors
    /// [`AclTooLong`] says what is too long.
    pub fn check_length(&self) -> Result<(), AclTooLong> {
        if self.0.len() > MAX_GRANTS {
            return Err(AclTooLong::Grants(self.0.len()));
        }
        let lengths = || self.0.iter().map(|g| g.principal.id().len());
        match (lengths().max(), lengths().sum()) {
            (Some(longest), _) if longest > MAX_PRINCIPAL => Err(AclTooLong::Principal(longest)),
            (_, all) if all > MAX_GRANTED_BYTES => Err(AclTooLong::Bytes(all)),
            _ => Ok(()),
        }
    }

    /// The grants in order.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.0
    }

    /// This list after one entry is set: replaced in place, appended, or removed when `capabilities` is empty.
    #[must_use]
    pub fn set(self, principal: Principal, capabilities: Capabilities) -> Self {
        let at = self.0.iter().position(|g| g.principal == principal);
        let mut grants = self.0.to_vec();
        match at {
            Some(i) if capabilities.is_empty() => drop(grants.remove(i)),
            Some(i) => grants[i].capabilities = capabilities,
            None if capabilities.is_empty() => return self,
            None => grants.push(Grant { principal, capabilities }),
        }
        Self(grants.into())
    }

    /// What stands in the entry of just this principal.
    #[must_use]
    pub fn entry(&self, principal: &Principal) -> Capabilities {
        self.0.iter().find(|g| g.principal == *principal).map_or(Capabilities::NONE, |g| g.capabilities)
    }

    /// The grants that reach `caller` through any of his identities.
    pub fn reaching<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Grant> {
        self.0.iter().filter(|g| caller.identities().any(|i| g.principal.matches(i)))
    }

    /// Whether an entry makes `caller` an administrator, or would in a request under another of his names.
    pub(crate) fn could_be_administered_by(&self, caller: &Caller) -> bool {
        let administers = |g: &&Grant| g.capabilities.contains(Capability::Admin);
        self.0.iter().filter(administers).any(|g| caller.all_his_names().any(|i| could_reach(&g.principal, i)))
    }
}

/// Checks a change of an ACL where duties are separate.
///
/// # Errors
/// [`RightsError`] names the entry that breaks the rule.
pub fn check_rights_change(caller: &Caller, old: &Acl, new: &Acl) -> Result<(), RightsError> {
    for grant in new.grants() {
        let using = grant.capabilities.intersection(Capabilities::USE);
        if grant.capabilities.contains(Capability::Admin) && !using.is_empty() {
            return Err(RightsError::AdminAndUse(grant.principal.clone(), using));
        }
    }
    check_no_self_grant(caller, old, new)
}

/// Checks that no entry that reaches `caller`, under whatever spelling of his name, gains anything.
pub(crate) fn check_no_self_grant(caller: &Caller, old: &Acl, new: &Acl) -> Result<(), RightsError> {
    let himself = |g: &&Grant| caller.all_his_names().any(|i| could_reach(&g.principal, i));
    let gains = |g: &&Grant| !g.capabilities.minus(old.entry(&g.principal)).is_empty();
    match new.grants().iter().filter(himself).find(gains) {
        Some(grant) => Err(RightsError::SelfGrant(grant.principal.clone())),
        None => Ok(()),
    }
}

/// Whether a grant reaches `identity`, or would reach it under another spelling. A machine goes by the name that it claims,
/// and its certificate allows any case, a trailing dot, and all ways to write an address (contract knox §5): who could grant
/// to one of those could grant to himself.
pub(crate) fn could_reach(principal: &Principal, identity: &Identity) -> bool {
    let Identity::Machine { name } = identity else { return principal.matches(identity) };
    let written = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name.strip_prefix("*.").is_some_and(|domain| could_be_below(principal, &written(domain))) {
        return true;
    }
    match (principal, address(name)) {
        (Principal::Machine(id), Some(mine)) => address(id) == Some(mine),
        (Principal::Machine(id), None) => written(id) == written(name),
        // An address has too many spellings to compare them all: whatever can begin or be one is refused.
        (Principal::MachinePrefix(id), Some(_)) => id.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.' | b'[' | b']')),
        (Principal::MachinePrefix(id), None) => written(name).starts_with(&written(id)),
        _ => false,
    }
}

/// Whether a grant could reach a machine of a name one label below `domain`.
fn could_be_below(principal: &Principal, domain: &str) -> bool {
    let (Principal::Machine(id) | Principal::MachinePrefix(id)) = principal else { return false };
    let id = id.strip_suffix('.').unwrap_or(id).to_ascii_lowercase();
    match (principal, id.split_once('.')) {
        (Principal::Machine(_), Some((_, rest))) => rest == domain,
        (Principal::MachinePrefix(_), Some((_, rest))) => domain.starts_with(rest),
        (Principal::MachinePrefix(_), None) => true,
        _ => false,
    }
}

/// The address that a machine's name is, if it is one.
fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().ok().map(|a| a.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Preset, Proven, RequestId};
    use proptest::prelude::*;

    fn grant(principal: &str, capabilities: Capabilities) -> Grant {
        Grant { principal: principal.parse().unwrap(), capabilities }
    }

    fn alice() -> Caller {
        let identity = Identity::User { name: "alice".into(), groups: Arc::from([Arc::from("ops")]) };
        Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(1), None).unwrap()
    }

    #[test]
    fn an_entry_is_replaced_in_place_appended_or_removed() {
        let read = Preset::Read.capabilities();
        let acl = Acl::new(vec![grant("user:a", read), grant("user:b", read)]).unwrap();
        let acl = acl.set("user:a".parse().unwrap(), Preset::Admin.capabilities());
        let acl = acl.set("user:c".parse().unwrap(), read).set("user:b".parse().unwrap(), Capabilities::NONE);
        let acl = acl.set("user:zz".parse().unwrap(), Capabilities::NONE);
        let names: Vec<_> = acl.grants().iter().map(|g| g.principal.to_string()).collect();
        assert_eq!(names, ["user:a", "user:c"]);
        assert_eq!(acl.entry(&"user:a".parse().unwrap()), Preset::Admin.capabilities());
    }

    #[test]
    fn a_list_that_is_too_long_says_in_what() {
        let list = |count: usize, length: usize| {
            let id = |n: usize| format!("{n:length$}");
            Acl((0..count).map(|n| grant(&format!("user:{}", id(n)), Preset::Read.capabilities())).collect())
        };
        assert_eq!(list(MAX_GRANTS, 256).check_length(), Ok(()));
        assert_eq!(list(MAX_GRANTS + 1, 8).check_length(), Err(AclTooLong::Grants(MAX_GRANTS + 1)));
        assert_eq!(list(512, MAX_PRINCIPAL).check_length(), Ok(()));
        assert_eq!(list(513, MAX_PRINCIPAL).check_length(), Err(AclTooLong::Bytes(513 * MAX_PRINCIPAL)));
        let long = Principal::unchecked("machine", &"m".repeat(MAX_PRINCIPAL + 1)).unwrap();
        let acl = Acl::default().set(long, Preset::Read.capabilities());
        assert_eq!(acl.check_length(), Err(AclTooLong::Principal(MAX_PRINCIPAL + 1)));
    }

    #[test]
    fn nobody_grants_to_himself_or_his_groups_where_duties_are_separate() {
        let admin = Capabilities::of([Capability::List, Capability::Admin]);
        let read = Capabilities::of([Capability::Read]);
        let old = Acl::new(vec![grant("user:alice", admin)]).unwrap();
        for (who, refused) in [("user:alice", true), ("user_group:ops", true), ("user:bob", false), ("user_group:dev", false)] {
            let new = old.clone().set(who.parse().unwrap(), read);
            assert_eq!(check_rights_change(&alice(), &old, &new).is_err(), refused, "{who}");
        }
        let fewer = old.clone().set("user:alice".parse().unwrap(), Capabilities::of([Capability::Admin]));
        assert_eq!(check_rights_change(&alice(), &old, &fewer), Ok(()));
    }

    #[test]
    fn another_spelling_of_a_machines_name_is_still_the_machine() {
        let is_himself = |name: &str, to: &str| could_reach(&to.parse().unwrap(), &Identity::Machine { name: name.into() });
        for to in
            ["machine:host1.x.com", "machine:HOST1.x.com", "machine:host1.x.com.", "machine_prefix:HOST1", "machine_prefix:host1.x.com."]
        {
            assert!(is_himself("host1.x.com", to) && is_himself("Host1.X.com.", to), "{to}");
        }
        for to in
            ["machine:::1", "machine:[::1]", "machine:0:0:0:0:0:0:0:1", "machine_prefix:0:", "machine_prefix:[::", "machine_prefix:[::1]"]
        {
            assert!(is_himself("::1", to), "{to}");
        }
        for (name, to) in [
            ("host1", "machine:host"),
            ("host1", "machine_prefix:host12"),
            ("host1", "user:host1"),
            ("::1", "machine:::2"),
            ("::1", "machine_prefix:web"),
        ] {
            assert!(!is_himself(name, to), "{name} {to}");
        }
    }

    #[test]
    fn other_names_of_the_callers_certificate_are_himself_too() {
        let machine = |name: &str| Identity::Machine { name: name.into() };
        let caller = Caller::new(Arc::from([Proven { identity: machine("a"), method: "mtls" }]), RequestId(1), None).unwrap();
        let caller =
            caller.with_other_names(Arc::from([machine("b"), machine("*.x.com"), Identity::Service { id: "spiffe://d/s".into() }]));
        let read = Capabilities::of([Capability::Read]);
        for (who, refused) in [
            ("machine:a", true),
            ("machine:B.", true),
            ("machine:c", false),
            ("machine:host.x.com", true),
            ("machine:x.com", false),
            ("machine:a.b.x.com", false),
            ("machine_prefix:ho", true),
            ("machine_prefix:host.x.c", true),
            ("machine_prefix:host.y", false),
            ("service:spiffe://d/s", true),
            ("service:spiffe://d/t", false),
        ] {
            let new = Acl::default().set(who.parse().unwrap(), read);
            assert_eq!(check_rights_change(&caller, &Acl::default(), &new).is_err(), refused, "{who}");
        }
    }

    #[test]
    fn admin_and_use_are_different_peoples_where_duties_are_separate() {
        let new = Acl::new(vec![grant("user:bob", Preset::Admin.capabilities())]).unwrap();
        assert!(matches!(check_rights_change(&alice(), &Acl::default(), &new), Err(RightsError::AdminAndUse(..))));
    }

    proptest! {
        #[test]
        fn set_keeps_every_principal_once_and_never_empty(steps in prop::collection::vec((0u8..6, 0u16..0x200), 0..40)) {
            let mut acl = Acl::default();
            for (who, bits) in steps {
                let principal: Principal = format!("user:u{who}").parse().unwrap();
                let capabilities = Capabilities::from_bits(bits).unwrap();
                acl = acl.set(principal.clone(), capabilities);
                prop_assert_eq!(acl.entry(&principal), capabilities);
                prop_assert!(Acl::new(acl.grants().to_vec()).is_ok());
            }
        }
    }
}
