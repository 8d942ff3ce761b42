//! Use cases on prefixes: rights on all keys below one, and who may create there.

use crate::approvals::Cleared;
use crate::commit::Apply;
use crate::keys::{Precondition, new_incarnation};
use crate::memory::{Granted, Tables, Wreck, in_doubt};
use crate::start::Engine;
use crate::{Conflict, Error, Note, Refusal, Surface};
use claviger_crypto::{add, negate};
use claviger_domain::audit::{Action, RightsChange, Subject};
use claviger_domain::{
    Acl, Caller, Capabilities, Capability, Deed, Generation, Identity, Incarnation, KeyId, Prefix, PrefixGrant, Revision, RightsError,
    Rules, rules_difference,
};
use claviger_ports::{DigestDelta, Effect, Expected, Target, Write};
use std::sync::Arc;

/// What stands where there is no grant.
pub(crate) const NOTHING: (Incarnation, Generation) = (Incarnation(0), Generation(0));

/// A change of what stands on a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrefixEdit {
    /// The grants are replaced, and whether any user may create keys; with `None` they are removed, and the rules with them.
    Grants(Option<(Acl, bool)>),
    /// The rules of approval are replaced.
    Rules(Rules),
}

impl From<Option<(Acl, bool)>> for PrefixEdit {
    fn from(grants: Option<(Acl, bool)>) -> Self {
        Self::Grants(grants)
    }
}

/// What a change of a prefix comes to.
struct Done {
    revision: Revision,
    standing: Option<(Incarnation, Generation)>,
    acl: (Acl, Acl),
    rules: (Rules, Rules),
    deed: Deed,
    cleared: Cleared,
}

/// What stands at a prefix before a change.
struct Standing {
    /// The grants in force. Damaged ones are none, and can be replaced or removed like others.
    grant: Option<Arc<PrefixGrant>>,
    /// The rules in force. Those of a damaged row go on being enforced, so they stay when its grants are replaced ▲.
    rules: Rules,
    /// What the stored row says of itself, if there is one.
    row: Option<(Incarnation, Generation)>,
    /// What the head counts for it.
    counted: DigestDelta,
}

impl Standing {
    fn of(tables: &Tables, prefix: &Prefix) -> Self {
        let rules = tables.prefix_rules.get(prefix).cloned().unwrap_or_default();
        if let Some(Granted { grant, digest }) = tables.grants.get(prefix) {
            return Self { grant: Some(grant.clone()), rules, row: Some((grant.incarnation, grant.generation)), counted: *digest };
        }
        let wreck = tables.damaged_grants.get(prefix);
        Self { grant: None, rules, row: wreck.map(|w| w.standing), counted: wreck.map(Wreck::counted).unwrap_or_default() }
    }
}

impl Tables {
    /// What `caller` may do on everything below `prefix`, from grants on it and on shorter ones.
    pub(crate) fn prefix_rights(&self, caller: &Caller, prefix: &Prefix) -> Capabilities {
        if caller.system_reason().is_some() {
            return Capabilities::of([Capability::List, Capability::Admin]);
        }
        let covers = |g: &&PrefixGrant| prefix.as_str().starts_with(g.prefix.as_str());
        let grants = self.grants.values().map(|g| &*g.grant).filter(covers);
        grants.flat_map(|g| g.acl.reaching(caller)).fold(Capabilities::NONE, |sum, g| sum.union(g.capabilities))
    }
}

impl Engine {
    /// Whether `caller` administers everything below `prefix`.
    ///
    /// # Errors
    /// [`Error::Denied`] when not; [`Error::Unavailable`] while it is not known whether he still does.
    pub fn require_prefix_admin(&self, caller: &Caller, prefix: &Prefix) -> Result<(), Error> {
        let (rights, is_doubtful) = self.memory.read(|t| {
            let reaches = |doubtful: &Prefix| prefix.as_str().starts_with(doubtful.as_str());
            (t.prefix_rights(caller, prefix), t.doubtful.iter().any(reaches))
        });
        match rights.contains(Capability::Admin) {
            true if is_doubtful => Err(in_doubt(prefix.as_str())),
            true => Ok(()),
            false => Err(Error::Denied(Refusal::Lacks(Capability::Admin))),
        }
    }

    /// The prefix grants that `caller` administers.
    ///
    /// # Errors
    /// The audit log's failure.
    pub async fn prefixes(&self, caller: &Caller, surface: Surface) -> Result<Vec<Arc<PrefixGrant>>, Error> {
        let note = Note { caller, surface, action: Action::ShowPrefix, subjects: &[] };
        let visible = self.memory.read(|t| {
            let may = |g: &&Arc<PrefixGrant>| t.prefix_rights(caller, &g.prefix).contains(Capability::Admin);
            t.grants.values().map(|g| &g.grant).filter(may).cloned().collect()
        });
        self.done(&note, Some(self.revision()), None).await?;
        Ok(visible)
    }

    /// The grants on one prefix.
    ///
    /// # Errors
    /// [`Error::Denied`] or [`Error::NotFound`]; the refusal is recorded as well.
    pub async fn prefix(&self, caller: &Caller, surface: Surface, prefix: &Prefix) -> Result<Arc<PrefixGrant>, Error> {
        let name = format!("{prefix}*");
        let subjects = [Subject { key: &name, versions: &[] }];
        let note = Note { caller, surface, action: Action::ShowPrefix, subjects: &subjects };
        let missing = || Error::NotFound(format!("a grant on prefix `{prefix}`"));
        let found = self
            .require_prefix_admin(caller, prefix)
            .and_then(|()| self.memory.read(|t| t.grants.get(prefix).map(|g| g.grant.clone())).ok_or_else(missing));
        match found {
            Ok(grant) => self.done(&note, Some(self.revision()), None).await.map(|()| grant),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// Changes or removes the grants on a prefix, or its rules, and says what stands after it. Takes the right to administer it
    /// or a shorter one; nobody raises his own rights ▲.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn change_prefix(
        &self,
        caller: &Caller,
        surface: Surface,
        prefix: &Prefix,
        edit: impl Into<PrefixEdit>,
        precondition: Precondition,
    ) -> Result<(Revision, Option<(Incarnation, Generation)>), Error> {
        let name = format!("{prefix}*");
        let subjects = [Subject { key: &name, versions: &[] }];
        let note = Note { caller, surface, action: Action::ChangePrefix, subjects: &subjects };
        match self.change_prefix_unrecorded(caller, surface, prefix, edit.into(), precondition).await {
            Ok(Done { revision, standing, acl: (old, new), rules: (old_rules, new_rules), deed, cleared }) => {
                let rights = RightsChange { old: &old, new: &new };
                let ruled = rules_difference(&old_rules, &new_rules).join("; ");
                self.done_cleared(&note, revision, Some(rights), None, &ruled, (Some(&deed), &cleared)).await?;
                Ok((revision, standing))
            }
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    async fn change_prefix_unrecorded(
        &self,
        caller: &Caller,
        surface: Surface,
        prefix: &Prefix,
        edit: PrefixEdit,
        precondition: Precondition,
    ) -> Result<Done, Error> {
        // Before the wait, so that strangers cannot queue up; and after it, since the right may have been revoked meanwhile.
        self.require_prefix_admin(caller, prefix)?;
        let _turn = self.turn(prefix.as_str()).await;
        self.require_prefix_admin(caller, prefix)?;
        let Standing { grant: old, rules: old_rules, row, counted } = self.memory.read(|t| Standing::of(t, prefix));
        let (incarnation, generation) = old.as_ref().map_or(NOTHING, |g| (g.incarnation, g.generation));
        if !precondition.holds(incarnation, generation) {
            return Err(Error::Conflict(Conflict::Changed));
        }
        let deed = deed_of(prefix, &edit);
        let new = after(old.as_deref(), &old_rules, edit);
        let old_acl = old.as_ref().map(|g| g.acl.clone()).unwrap_or_default();
        let new_acl = new.as_ref().map(|(acl, ..)| acl.clone()).unwrap_or_default();
        let rules = (old_rules, new.as_ref().map(|(.., rules)| rules.clone()).unwrap_or_default());
        PrefixGrant::check_change(&old_acl, &new_acl, caller)?;
        let opens = new.as_ref().is_some_and(|(_, any, _)| *any) && !old.as_ref().is_some_and(|g| g.any_user_creates);
        if opens {
            self.check_opening(caller, prefix)?;
        }
        let cleared = self.clear(caller, surface, deed.clone(), (incarnation, generation), &Rules::default()).await?;
        let ring = self.ring();
        let gone = negate(counted);
        let mut standing = None;
        let (effect, apply, gained) = match new {
            Some((acl, any_user_creates, rules)) => {
                let incarnation = if old.is_some() { incarnation } else { new_incarnation() };
                let generation = generation.next();
                standing = Some((incarnation, generation));
                let grant = PrefixGrant { prefix: prefix.clone(), acl, any_user_creates, rules, incarnation, generation };
                let row = ring.seal_grant(&grant);
                let gained = ring.digest_grant(&row);
                (Effect::PutGrant(row), Apply::PutGrant(Box::new(grant), gained), gained)
            }
            None if row.is_none() => return Err(Error::NotFound(format!("a grant on prefix `{prefix}`"))),
            None => (Effect::DeleteGrant, Apply::DeleteGrant(prefix.clone()), DigestDelta::default()),
        };
        let expected = row.map_or(Expected::Absent, |(incarnation, generation)| Expected::At(incarnation, generation));
        let write = Write {
            target: Target::Prefix(prefix.clone()),
            expected,
            effect,
            uses: None,
            digest: add(gained, gone),
            change: self.change(caller, Action::ChangePrefix),
        };
        let revision = self.submit_cleared(write, apply, &cleared).await?;
        Ok(Done { revision, standing, acl: (old_acl, new_acl), rules, deed, cleared })
    }

    /// The rule that any user may create gives that right to the user who makes the rule, too: he must have it already.
    fn check_opening(&self, caller: &Caller, prefix: &Prefix) -> Result<(), Error> {
        let has_it = self.memory.read(|t| t.prefix_rights(caller, prefix)).contains(Capability::Create);
        let user = caller.identities().find(|i| matches!(i, Identity::User { .. }));
        match user.filter(|_| !has_it) {
            Some(user) => Err(RightsError::SelfGrant(user.principal()).into()),
            None => Ok(()),
        }
    }

    /// The right that covers `id` from prefixes, for lint and explanation.
    #[must_use]
    pub fn covering(&self, id: &KeyId) -> Vec<PrefixGrant> {
        self.memory.read(|t| t.covering(id).cloned().collect())
    }
}

fn deed_of(prefix: &Prefix, edit: &PrefixEdit) -> Deed {
    let prefix = prefix.clone();
    match edit {
        PrefixEdit::Grants(grants) => Deed::ChangePrefix { prefix, grants: grants.clone() },
        PrefixEdit::Rules(rules) => Deed::ChangePrefixRules { prefix, rules: rules.clone() },
    }
}

/// What stands on a prefix after a change: grants and rules stay when the other is changed. Nothing where both are gone.
fn after(old: Option<&PrefixGrant>, rules: &Rules, edit: PrefixEdit) -> Option<(Acl, bool, Rules)> {
    let (acl, any) = old.map(|g| (g.acl.clone(), g.any_user_creates)).unwrap_or_default();
    match edit {
        PrefixEdit::Grants(None) => None,
        PrefixEdit::Grants(Some((acl, any))) => Some((acl, any, rules.clone())),
        PrefixEdit::Rules(rules) => (!acl.grants().is_empty() || any || !rules.is_empty()).then_some((acl, any, rules)),
    }
}
