//! Authorization: the one function that makes permits.
//!
//! A permit names its key, and that name becomes the cipher's associated data: used on another key it opens nothing.

use crate::{Acl, Caller, Capabilities, Capability, Grant, KeyId, KeyMeta, KeyRef, Prefix, PrefixGrant, cap};
use std::marker::PhantomData;
use std::sync::Arc;
use thiserror::Error;

/// Proof that a caller was allowed `C` on one key. Only [`authorize`] makes one.
///
/// ```compile_fail,E0451
/// use claviger_domain::{Permit, cap::Read};
/// let forged: Permit<Read> = Permit { key: todo!(), by: None, kind: std::marker::PhantomData };
/// ```
#[derive(Debug, Clone)]
pub struct Permit<C: cap::Kind> {
    key: KeyRef,
    by: Option<Arc<str>>,
    kind: PhantomData<C>,
}

impl<C: cap::Kind> Permit<C> {
    /// The key that this permit is for.
    #[must_use]
    pub fn key(&self) -> &KeyRef {
        &self.key
    }

    /// Whose word allowed it, where the grants did not.
    #[must_use]
    pub fn allowed_by(&self) -> Option<&Arc<str>> {
        self.by.as_ref()
    }
}

/// Why a caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Denied {
    /// He has no right at all on the key and must not learn that it exists ▲.
    #[error("not found")]
    Unseen,
    /// He may know of the key and lacks this right on it.
    #[error("lacks the right to {}", .0.name())]
    Lacks(Capability),
}

/// An external policy's word that a request which the ACL refused is allowed (contract knox §7, access callback).
#[derive(Debug, Clone)]
pub struct ExternalAllow {
    /// Who said so, for the audit log.
    pub by: Arc<str>,
}

/// Where a right comes from, and what it is worth on the key in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixRights<'a> {
    /// The prefix, or `None` for the key's own ACL.
    pub prefix: Option<&'a Prefix>,
    /// The entry.
    pub grant: &'a Grant,
    /// What of it counts on this key.
    pub counts: Capabilities,
}

/// Decides whether `caller` may do `C` on `key`.
///
/// `prefixes` are the prefix grants that cover the key; they are looked at only when the key's own ACL does not decide.
///
/// # Errors
/// [`Denied`]: unseen when the caller has no right whatever.
pub fn authorize<'a, C: cap::Kind>(
    caller: &Caller,
    key: &KeyMeta,
    prefixes: impl IntoIterator<Item = &'a PrefixGrant>,
    external: Option<&ExternalAllow>,
) -> Result<Permit<C>, Denied> {
    let permit = || Permit { key: key.key_ref(), by: None, kind: PhantomData };
    let wanted = C::CAPABILITY;
    let of_key = rights(&key.acl, caller);
    // Where duties are separate, what a prefix gives can take away what the key gives.
    let decided = of_key.contains(wanted) && !(key.separate_duties && Capabilities::USE.contains(wanted));
    if decided {
        return Ok(permit());
    }
    if let Some(ExternalAllow { by }) = external {
        return Ok(Permit { by: Some(by.clone()), ..permit() });
    }
    if caller.system_reason().is_some() {
        let using = Capabilities::USE.contains(wanted);
        return if using { Err(Denied::Lacks(wanted)) } else { Ok(permit()) };
    }
    match permits_by(caller, &key.acl, key.separate_duties, prefixes) {
        all if all.contains(wanted) => Ok(permit()),
        all if all.is_empty() => Err(Denied::Unseen),
        _ => Err(Denied::Lacks(wanted)),
    }
}

/// Everything `caller` may do on `key`.
pub fn permits<'a>(caller: &Caller, key: &KeyMeta, prefixes: impl IntoIterator<Item = &'a PrefixGrant>) -> Capabilities {
    permits_by(caller, &key.acl, key.separate_duties, prefixes)
}

/// As [`permits`], for a key of which only this is known: its own list, and whether its duties are separate. Where they are,
/// who administers, by whatever list and under whatever name of his, uses nothing ▲.
pub fn permits_by<'a>(
    caller: &Caller,
    acl: &Acl,
    separate_duties: bool,
    prefixes: impl IntoIterator<Item = &'a PrefixGrant>,
) -> Capabilities {
    let mut administers = separate_duties && acl.could_be_administered_by(caller);
    let mut all = rights(acl, caller);
    for prefix in prefixes {
        all = all.union(rights(&prefix.acl, caller));
        administers = administers || (separate_duties && prefix.acl.could_be_administered_by(caller));
    }
    on_key(if administers { all.minus(Capabilities::USE) } else { all })
}

/// Each grant that reaches `caller` on `key` and what it is worth there. The sum of what counts is what [`authorize`] goes by.
pub fn explain<'a>(caller: &'a Caller, key: &'a KeyMeta, prefixes: impl IntoIterator<Item = &'a PrefixGrant>) -> Vec<PrefixRights<'a>> {
    let prefixes: Vec<_> = prefixes.into_iter().collect();
    // By all that he is given: rights split over several lists are worth no more than in one.
    let counting = permits(caller, key, prefixes.iter().copied());
    let part = |prefix, grant: &'a Grant| PrefixRights { prefix, grant, counts: grant.capabilities.intersection(counting) };
    let own = key.acl.reaching(caller).map(|grant| part(None, grant));
    let from_prefixes = prefixes.iter().flat_map(|p| p.acl.reaching(caller).map(move |grant| part(Some(&p.prefix), grant)));
    own.chain(from_prefixes).collect()
}

/// Whether `caller` may create `id`: the one creation rule on every surface.
pub fn may_create<'a>(caller: &Caller, id: &KeyId, prefixes: impl IntoIterator<Item = &'a PrefixGrant>) -> bool {
    let is_user = caller.identities().any(|i| matches!(i, crate::Identity::User { .. }));
    prefixes.into_iter().any(|p| {
        debug_assert!(p.prefix.covers(id));
        (p.any_user_creates && is_user) || rights(&p.acl, caller).contains(Capability::Create)
    })
}

fn rights(acl: &Acl, caller: &Caller) -> Capabilities {
    let reach = |g: &&Grant| caller.identities().any(|i| g.principal.matches(i));
    acl.grants().iter().filter(reach).fold(Capabilities::NONE, |sum, g| sum.union(g.capabilities))
}

/// What of a set says something about a key that is there: who may create others may not know of it for that.
fn on_key(granted: Capabilities) -> Capabilities {
    granted.minus(Capabilities::of([Capability::Create]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        Created, Generation, Identity, Incarnation, KeyKind, KeyPolicy, Labels, Preset, Proven, RequestId, Timestamp, Version, VersionId,
        VersionState, Versions,
    };
    use std::sync::Arc;

    fn caller(name: &str, groups: &[&str]) -> Caller {
        let identity = Identity::User { name: name.into(), groups: groups.iter().map(|g| Arc::from(*g)).collect() };
        Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(1), None).unwrap()
    }

    fn acl(entries: &[(&str, Capabilities)]) -> Acl {
        let grant = |(p, c): &(&str, Capabilities)| Grant { principal: p.parse().unwrap(), capabilities: *c };
        Acl::new(entries.iter().map(grant).collect()).unwrap()
    }

    fn key(acl: Acl, separate_duties: bool) -> KeyMeta {
        let v = Version { id: VersionId::new(1).unwrap(), state: VersionState::Primary, created: Timestamp(0), expires: None };
        KeyMeta {
            id: KeyId::parse("team/db").unwrap(),
            incarnation: Incarnation(1),
            generation: Generation::FIRST,
            kind: KeyKind::Secret,
            policy: KeyPolicy::default(),
            acl,
            versions: Versions::new(vec![v]).unwrap(),
            separate_duties,
            max_lifetime: None,
            description: "".into(),
            rules: crate::Rules::default(),
            labels: Labels::default(),
            created: Created { at: Timestamp(0), by: "x".into() },
        }
    }

    fn prefix(p: &str, acl: Acl) -> PrefixGrant {
        PrefixGrant {
            prefix: Prefix::parse(p).unwrap(),
            acl,
            any_user_creates: false,
            rules: crate::Rules::default(),
            incarnation: crate::Incarnation(1),
            generation: Generation::FIRST,
        }
    }

    #[test]
    fn a_caller_without_any_right_does_not_learn_that_the_key_exists() {
        let k = key(acl(&[("user:alice", Preset::Read.capabilities())]), false);
        assert_eq!(authorize::<cap::Read>(&caller("bob", &[]), &k, [], None).unwrap_err(), Denied::Unseen);
        assert_eq!(authorize::<cap::Write>(&caller("alice", &[]), &k, [], None).unwrap_err(), Denied::Lacks(Capability::Write));
        assert_eq!(authorize::<cap::Read>(&caller("alice", &[]), &k, [], None).unwrap().key(), &k.key_ref());
    }

    #[test]
    fn who_administers_from_above_does_not_read_where_duties_are_separate() {
        let above =
            prefix("team/", acl(&[("user:root", Preset::Admin.capabilities()), ("user:auditor", Capabilities::of([Capability::Read]))]));
        for (separate, who, may) in [(false, "root", true), (true, "root", false), (true, "auditor", true)] {
            let k = key(Acl::default(), separate);
            assert_eq!(authorize::<cap::Read>(&caller(who, &[]), &k, [&above], None).is_ok(), may, "{separate} {who}");
            assert_eq!(authorize::<cap::Admin>(&caller(who, &[]), &k, [&above], None).is_ok(), who == "root");
        }
    }

    #[test]
    fn the_system_changes_keys_and_never_reads_them() {
        let system = Caller::system("expiry", RequestId(2));
        let k = key(Acl::default(), false);
        assert!(authorize::<cap::Write>(&system, &k, [], None).is_ok());
        assert!(authorize::<cap::Read>(&system, &k, [], None).is_err());
    }

    #[test]
    fn what_is_explained_adds_up_to_what_is_decided() {
        let read = Capabilities::of([Capability::Read]);
        let split = prefix("team/", acl(&[("user:alice", Capabilities::of([Capability::Admin])), ("user_group:ops", read)]));
        let creator = prefix("team/", acl(&[("user:alice", Capabilities::of([Capability::Create]))]));
        let alice = caller("alice", &["ops"]);
        let k = key(Acl::default(), true);
        assert!(authorize::<cap::Read>(&alice, &k, [&split], None).is_err());
        assert_eq!(permits(&alice, &k, [&split]), Capabilities::of([Capability::Admin]));
        assert_eq!(authorize::<cap::List>(&alice, &k, [&creator], None).unwrap_err(), Denied::Unseen);
        assert!(permits(&alice, &k, [&creator]).is_empty());
        let read_above = prefix("team/", acl(&[("user_group:ops", read)]));
        let admin_above = prefix("", acl(&[("user:alice", Capabilities::of([Capability::Admin]))]));
        let counts: Vec<_> = explain(&alice, &k, [&admin_above, &read_above]).iter().map(|r| r.counts.to_string()).collect();
        assert_eq!(counts, ["admin", ""]);
    }

    #[test]
    fn who_administers_a_key_of_separate_duties_uses_nothing_wherever_either_right_comes_from() {
        let admin = ("user:alice", Capabilities::of([Capability::List, Capability::Admin]));
        let read = ("user_group:ops", Capabilities::of([Capability::List, Capability::Read]));
        let alice = caller("alice", &["ops"]);
        for (on_key, on_team, on_all) in [
            (vec![admin], vec![read], vec![]),
            (vec![read], vec![admin], vec![]),
            (vec![admin, read], vec![], vec![]),
            (vec![], vec![admin], vec![read]),
            (vec![], vec![read], vec![admin]),
        ] {
            let (team, all) = (prefix("team/", acl(&on_team)), prefix("", acl(&on_all)));
            for separate in [false, true] {
                let k = key(acl(&on_key), separate);
                assert_eq!(authorize::<cap::Read>(&alice, &k, [&all, &team], None).is_ok(), !separate, "{on_key:?} {on_team:?} {on_all:?}");
                assert!(authorize::<cap::Admin>(&alice, &k, [&all, &team], None).is_ok());
            }
            let member = caller("carol", &["ops"]);
            assert!(authorize::<cap::Read>(&member, &key(acl(&on_key), true), [&all, &team], None).is_ok());
        }
    }

    #[test]
    fn who_administers_under_another_of_his_names_uses_nothing_under_this_one() {
        let manage = ("machine:host1", Capabilities::of([Capability::Admin]));
        let read = ("service:spiffe://d/s", Capabilities::of([Capability::Read]));
        let k = key(acl(&[manage, read]), true);
        let service = Identity::Service { id: "spiffe://d/s".into() };
        let caller = Caller::new(Arc::from([Proven { identity: service, method: "spiffe" }]), RequestId(1), None).unwrap();
        assert!(authorize::<cap::Read>(&caller, &k, [], None).is_ok());
        for name in ["host1", "HOST1.", "*.x.com"] {
            let caller = caller.clone().with_other_names(Arc::from([Identity::Machine { name: name.into() }]));
            assert_eq!(authorize::<cap::Read>(&caller, &k, [], None).is_ok(), name == "*.x.com", "{name}");
        }
    }

    #[test]
    fn creation_takes_a_create_right_or_the_any_user_rule() {
        let id = KeyId::parse("team/new").unwrap();
        let mut rule = prefix("team/", acl(&[("user:alice", Capabilities::of([Capability::Create]))]));
        assert!(may_create(&caller("alice", &[]), &id, [&rule]));
        assert!(!may_create(&caller("bob", &[]), &id, [&rule]));
        rule.any_user_creates = true;
        assert!(may_create(&caller("bob", &[]), &id, [&rule]));
        let machine = Proven { identity: Identity::Machine { name: "m".into() }, method: "mtls" };
        let machine = Caller::new(Arc::from([machine]), RequestId(1), None).unwrap();
        assert!(!may_create(&machine, &id, [&rule]));
    }
}
