//! What is served: all keys' records in memory, sealed, replaced one by one as changes commit. Plaintext is never here.

use crate::approvals::Held;
use crate::{Error, Refusal};
use ahash::AHashMap;
use claviger_crypto::{Tombstone, add};
use claviger_domain::{
    Acl, ApprovalId, Caller, Capabilities, Generation, Incarnation, KeyId, KeyMeta, Prefix, PrefixGrant, Revision, Rules, VersionId,
    VersionState, permits, permits_by,
};
use claviger_ports::{DigestDelta, Sealed, Target};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// A key as served: its record and its sealed versions.
#[derive(Debug)]
pub struct Entry {
    /// Everything about the key except its data.
    pub meta: KeyMeta,
    /// The revision of its last change.
    pub revision: Revision,
    /// The revision at which it was made; the lowest one when that was before this process began.
    pub(crate) born: Revision,
    /// What its row adds to the set digest.
    pub(crate) digest: DigestDelta,
    /// Its versions' sealed data, in the order of `meta.versions` with destroyed ones left out.
    pub(crate) sealed: Vec<Arc<SealedVersion>>,
}

/// One version's sealed data.
#[derive(Debug, Clone)]
pub(crate) struct SealedVersion {
    pub(crate) version: VersionId,
    pub(crate) wrapped_key: Sealed,
    /// Absent when it is large or inactive: then it stays in the store.
    pub(crate) data: Option<Sealed>,
    pub(crate) digest: DigestDelta,
}

/// A row that does not authenticate, one of which it is not known whether it still stands, or a good one.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    Good(Arc<Entry>),
    Damaged(Arc<Wreck>),
    /// With what stood before.
    Doubtful(Arc<Entry>),
}

/// What is known of a key, or of a prefix's grants, that are damaged: enough to delete or replace them.
#[derive(Debug, Clone)]
pub(crate) struct Wreck {
    pub(crate) why: Box<str>,
    /// Incarnation and generation as its row's columns say.
    pub(crate) standing: (Incarnation, Generation),
    /// What its rows add to the set digest as they stand.
    pub(crate) stands: DigestDelta,
    /// What the head counts for its record beyond that: its MAC was damaged.
    pub(crate) excess: DigestDelta,
    /// Its record, where only versions are damaged or lost.
    pub(crate) entry: Option<Arc<Entry>>,
    /// What a record that does not authenticate says of its grants. Whom it names is told of the damage, and nothing else.
    pub(crate) claimed: Acl,
    /// What such a record says of its rules: they are enforced, since a rule too many does less harm than one too few.
    pub(crate) claimed_rules: Rules,
}

/// Keys whose versions are damaged or lost.
#[derive(Default)]
pub(crate) struct Torn {
    pub(crate) keys: BTreeSet<KeyId>,
    /// What the head counts for all their versions together beyond what they add as they stand.
    pub(crate) excess: DigestDelta,
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) keys: AHashMap<KeyId, Slot>,
    pub(crate) order: BTreeSet<KeyId>,
    /// Those of `keys` that are damaged.
    pub(crate) damaged: BTreeSet<KeyId>,
    pub(crate) grants: BTreeMap<Prefix, Granted>,
    pub(crate) graves: BTreeMap<KeyId, Arc<Grave>>,
    pub(crate) revision: Revision,
    /// Prefixes of which it is not known whether the grants still stand; all keys below are doubtful, too.
    pub(crate) doubtful: Vec<Prefix>,
    /// Keys as they would be, of which it is not known whether they were made.
    pub(crate) unborn: BTreeMap<KeyId, Arc<Entry>>,
    pub(crate) torn: Torn,
    /// Grants that do not authenticate; they do not count.
    pub(crate) damaged_grants: BTreeMap<Prefix, Wreck>,
    /// Requests for approval.
    pub(crate) approvals: BTreeMap<ApprovalId, Arc<Held>>,
    /// Keys with rules of approval of their own.
    pub(crate) ruled: BTreeSet<KeyId>,
    /// The rules of prefixes, damaged ones' too.
    pub(crate) prefix_rules: BTreeMap<Prefix, Rules>,
}

impl Wreck {
    /// What the head counts for it.
    pub(crate) fn counted(&self) -> DigestDelta {
        add(self.stands, self.excess)
    }
}

/// The grants of a prefix as they are in force.
pub(crate) struct Granted {
    pub(crate) grant: Arc<PrefixGrant>,
    /// What its row adds to the set digest. Sealed anew it would count otherwise: a newer barrier key makes another MAC.
    pub(crate) digest: DigestDelta,
}

/// The last deleted key of an id.
#[derive(Debug)]
pub(crate) struct Grave {
    pub(crate) tombstone: Tombstone,
    pub(crate) revision: Revision,
    /// The revision at which the first key of this id was made, as far as this process knows.
    pub(crate) born: Revision,
}

/// The tables under one lock, held only for look-ups and for replacing rows, never across an await.
#[derive(Default)]
pub(crate) struct Memory(RwLock<Tables>);

impl Entry {
    pub(crate) fn sealed(&self, version: VersionId) -> Option<&SealedVersion> {
        self.sealed.iter().find(|s| s.version == version).map(|s| &**s)
    }

    /// What the head counts for it: its row and those of its versions.
    pub(crate) fn counted(&self) -> DigestDelta {
        self.sealed.iter().fold(self.digest, |sum, s| add(sum, s.digest))
    }

    /// The same entry once more; sealed data is shared.
    pub(crate) fn copy(&self) -> Self {
        let Self { meta, revision, born, digest, sealed } = self;
        Self { meta: meta.clone(), revision: *revision, born: *born, digest: *digest, sealed: sealed.clone() }
    }

    /// Drops what is not served from memory: inactive and large data.
    pub(crate) fn slim(&mut self, inline_limit: usize) {
        for sealed in &mut self.sealed {
            let state = self.meta.versions.find(sealed.version).map(|v| v.state);
            let served = matches!(state, Some(VersionState::Primary | VersionState::Active));
            let too_large = sealed.data.as_ref().is_some_and(|d| d.0.len() > inline_limit);
            if sealed.data.is_some() && (!served || too_large) {
                *sealed = Arc::new(SealedVersion { data: None, ..(**sealed).clone() });
            }
        }
    }
}

impl Tables {
    /// The prefix grants that cover `id`, shortest prefix first.
    pub(crate) fn covering<'a>(&'a self, id: &'a KeyId) -> impl Iterator<Item = &'a PrefixGrant> {
        id.prefixes().filter_map(|p| self.grants.get(p)).map(|g| &*g.grant)
    }

    /// As [`Tables::covering`], to be kept.
    pub(crate) fn covering_now(&self, id: &KeyId) -> Vec<Arc<PrefixGrant>> {
        id.prefixes().filter_map(|p| self.grants.get(p)).map(|g| g.grant.clone()).collect()
    }

    /// Everything `caller` may do on `entry`.
    pub(crate) fn permits(&self, caller: &Caller, entry: &Entry) -> Capabilities {
        permits(caller, &entry.meta, self.covering(&entry.meta.id))
    }

    pub(crate) fn wreck_mut(&mut self, target: &Target) -> Option<&mut Wreck> {
        match target {
            Target::Key(id) => match self.keys.get_mut(id)? {
                Slot::Damaged(wreck) => Some(Arc::make_mut(wreck)),
                Slot::Good(_) | Slot::Doubtful(_) => None,
            },
            Target::Prefix(prefix) => self.damaged_grants.get_mut(prefix),
            Target::Approval(_) => None,
        }
    }

    pub(crate) fn put(&mut self, id: KeyId, slot: Slot) {
        self.order.insert(id.clone());
        self.damaged.remove(&id);
        match &slot {
            Slot::Good(entry) if entry.meta.rules.is_empty() => drop(self.ruled.remove(&id)),
            Slot::Good(_) => drop(self.ruled.insert(id.clone())),
            Slot::Damaged(_) | Slot::Doubtful(_) => {}
        }
        self.keys.insert(id, slot);
    }

    /// From now on nothing is served that rests on `target`: it may have changed.
    pub(crate) fn doubt(&mut self, target: &Target) {
        match target {
            Target::Key(id) => self.doubt_key(id),
            Target::Prefix(prefix) => {
                let from = self.order.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
                let below: Vec<KeyId> = from.take_while(|id| prefix.covers(id)).cloned().collect();
                below.iter().for_each(|id| self.doubt_key(id));
                self.doubtful.push(prefix.clone());
            }
            // Nothing is committed while there is a doubt, so nothing rests on one until all is read anew.
            Target::Approval(_) => {}
        }
    }

    fn doubt_key(&mut self, id: &KeyId) {
        if let Some(Slot::Good(entry)) = self.keys.get(id) {
            self.keys.insert(id.clone(), Slot::Doubtful(entry.clone()));
        }
    }

    /// It is not known whether this became of a key; where there was none, whether there is one.
    pub(crate) fn doubt_making(&mut self, entry: Entry) {
        if !self.keys.contains_key(&entry.meta.id) {
            self.unborn.insert(entry.meta.id.clone(), Arc::new(entry));
        }
    }

    pub(crate) fn remove(&mut self, id: &KeyId) {
        self.order.remove(id);
        self.damaged.remove(id);
        self.ruled.remove(id);
        self.keys.remove(id);
        let was_torn = self.torn.keys.remove(id);
        if was_torn && self.torn.keys.is_empty() {
            self.torn.excess = DigestDelta::default();
        }
    }

    /// The key of this id, whoever asks.
    pub(crate) fn find(&self, id: &str) -> Result<&Arc<Entry>, Error> {
        match self.keys.get(id) {
            Some(Slot::Good(entry)) => Ok(entry),
            Some(Slot::Damaged(wreck)) => Err(Error::Damaged { id: id.to_owned(), why: wreck.why.to_string() }),
            Some(Slot::Doubtful(_)) => Err(in_doubt(id)),
            None if self.unborn.contains_key(id) => Err(in_doubt(id)),
            None => Err(not_found(id)),
        }
    }

    /// Whether there is a key of this id of which it is not known who may read it: its row or grants that cover it are damaged,
    /// or a commit that touches it is in doubt.
    pub(crate) fn is_in_question(&self, id: &KeyId) -> bool {
        self.keys.get(id).is_some_and(|slot| !matches!(slot, Slot::Good(_)) || self.is_below_damaged_grants(id))
    }

    /// Whether a prefix of `id` has grants that do not authenticate: whom they gave rights nobody knows.
    pub(crate) fn is_below_damaged_grants(&self, id: &KeyId) -> bool {
        !self.damaged_grants.is_empty() && id.prefixes().any(|prefix| self.damaged_grants.contains_key(prefix))
    }

    /// As [`Tables::find`]; a former reader of a deleted key is told that it was deleted, and who may not know of a damaged
    /// key is not told that it is damaged.
    pub(crate) fn find_for(&self, caller: &Caller, id: &str) -> Result<&Arc<Entry>, Error> {
        match self.keys.get(id) {
            Some(Slot::Good(entry)) => Ok(entry),
            // Who had no right before is told nothing else than before.
            Some(Slot::Doubtful(before)) if self.permits(caller, before).is_empty() => Err(Error::Denied(Refusal::Unseen)),
            Some(Slot::Damaged(_)) => {
                let hide = |error| if self.hides_damage(caller, id) { Error::Unseen(Box::new(error)) } else { error };
                self.find(id).map_err(hide)
            }
            Some(Slot::Doubtful(_)) => self.find(id),
            // To whom the new key would be shown "not found" and "deleted" may be untrue; to others they stay true.
            None if self.unborn.get(id).is_some_and(|unborn| !self.permits(caller, unborn).is_empty()) => Err(in_doubt(id)),
            None => match self.graves.get(id).filter(|grave| grave.tombstone.acl.reaching(caller).next().is_some()) {
                Some(grave) => Err(Error::Deleted { id: id.to_owned(), revision: grave.revision }),
                None => Err(not_found(id)),
            },
        }
    }

    /// Whether `id` is damaged and `caller` must not learn of it: neither the grants of its prefixes nor its own reach him.
    /// Its own may be forged where the record does not authenticate. That tells whom they name that there is a damaged key,
    /// which its forger could do as well; to say "not found" to its readers would be a lie that costs more.
    fn hides_damage(&self, caller: &Caller, id: &str) -> bool {
        let Some((id, Slot::Damaged(wreck))) = self.keys.get_key_value(id) else { return false };
        let rights = match &wreck.entry {
            Some(entry) => self.permits(caller, entry),
            None => permits_by(caller, &wreck.claimed, false, self.covering(id)),
        };
        rights.is_empty() && caller.system_reason().is_none()
    }
}

fn not_found(id: &str) -> Error {
    Error::NotFound(format!("key `{id}`"))
}

pub(crate) fn in_doubt(what: &str) -> Error {
    Error::Unavailable(format!("the store does not say what became of a change that touches `{what}`; try again later"))
}

impl Memory {
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.0.read())
    }

    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        change(&mut self.0.write())
    }

    pub(crate) fn revision(&self) -> Revision {
        self.0.read().revision
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_domain::{
        Acl, Capability, Created, Generation, Identity, Incarnation, KeyKind, KeyPolicy, Labels, Preset, Proven, RequestId, Timestamp,
        Version, Versions,
    };

    fn user(name: &str) -> Caller {
        let identity = Identity::User { name: name.into(), groups: Arc::from([]) };
        Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(1), None).unwrap()
    }

    fn acl(who: &str, capabilities: Capabilities) -> Acl {
        Acl::default().set(who.parse().unwrap(), capabilities)
    }

    fn entry(id: &KeyId) -> Arc<Entry> {
        let first = Version { id: VersionId::new(1).unwrap(), state: VersionState::Primary, created: Timestamp(0), expires: None };
        let meta = KeyMeta {
            id: id.clone(),
            incarnation: Incarnation(1),
            generation: Generation::FIRST,
            kind: KeyKind::Secret,
            policy: KeyPolicy::default(),
            acl: acl("user:reader", Preset::Read.capabilities()),
            versions: Versions::new(vec![first]).unwrap(),
            separate_duties: false,
            max_lifetime: None,
            description: "".into(),
            rules: claviger_domain::Rules::default(),
            labels: Labels::default(),
            created: Created { at: Timestamp(0), by: "x".into() },
        };
        Arc::new(Entry {
            meta,
            revision: Revision::default(),
            born: Revision::default(),
            digest: DigestDelta::default(),
            sealed: Vec::new(),
        })
    }

    #[test]
    fn who_has_no_right_on_a_damaged_key_is_not_told_of_it() {
        let id = KeyId::parse("team/db").unwrap();
        let mut tables = Tables::default();
        for (prefix, who, capabilities) in
            [("team/", "user:lead", Capabilities::of([Capability::List])), ("", "user:creator", Capabilities::of([Capability::Create]))]
        {
            let prefix = Prefix::parse(prefix).unwrap();
            let grant = PrefixGrant {
                prefix: prefix.clone(),
                acl: acl(who, capabilities),
                any_user_creates: true,
                rules: claviger_domain::Rules::default(),
                incarnation: Incarnation(1),
                generation: Generation::FIRST,
            };
            tables.grants.insert(prefix, Granted { grant: Arc::new(grant), digest: DigestDelta::default() });
        }
        let claimed = entry(&id).meta.acl.clone();
        for (known, claimed, readers_know) in
            [(None, Acl::default(), false), (None, claimed, true), (Some(entry(&id)), Acl::default(), true)]
        {
            let wreck = Wreck {
                why: "a bit".into(),
                standing: (Incarnation(1), Generation::FIRST),
                stands: DigestDelta::default(),
                excess: DigestDelta::default(),
                entry: known,
                claimed,
                claimed_rules: Rules::default(),
            };
            tables.put(id.clone(), Slot::Damaged(Arc::new(wreck)));
            for (who, knows) in [("lead", true), ("reader", readers_know), ("creator", false), ("stranger", false)] {
                match tables.find_for(&user(who), "team/db").unwrap_err() {
                    Error::Damaged { .. } => assert!(knows, "{who}"),
                    Error::Unseen(error) => assert!(!knows && matches!(*error, Error::Damaged { .. }), "{who}"),
                    other => panic!("{other}"),
                }
            }
            assert!(matches!(tables.find_for(&Caller::system("expiry", RequestId(1)), "team/db"), Err(Error::Damaged { .. })));
        }
    }
}
