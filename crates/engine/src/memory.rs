//! What is served: all keys' records in memory, sealed, replaced one by one as changes commit. Plaintext is never here.

use crate::{Error, Refusal};
use ahash::AHashMap;
use claviger_crypto::Tombstone;
use claviger_domain::{Caller, Capabilities, KeyId, KeyMeta, Prefix, PrefixGrant, Revision, VersionId, VersionState, permits};
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
    Damaged(Arc<str>),
    /// With what stood before.
    Doubtful(Arc<Entry>),
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) keys: AHashMap<KeyId, Slot>,
    pub(crate) order: BTreeSet<KeyId>,
    pub(crate) grants: BTreeMap<Prefix, Granted>,
    pub(crate) graves: BTreeMap<KeyId, Arc<Grave>>,
    pub(crate) revision: Revision,
    /// Prefixes of which it is not known whether the grants still stand; all keys below are doubtful, too.
    pub(crate) doubtful: Vec<Prefix>,
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

    pub(crate) fn put(&mut self, id: KeyId, slot: Slot) {
        self.order.insert(id.clone());
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
        }
    }

    fn doubt_key(&mut self, id: &KeyId) {
        // Of a key that may have been made nothing was served and nothing is.
        if let Some(Slot::Good(entry)) = self.keys.get(id) {
            self.keys.insert(id.clone(), Slot::Doubtful(entry.clone()));
        }
    }

    pub(crate) fn remove(&mut self, id: &KeyId) {
        self.order.remove(id);
        self.keys.remove(id);
    }

    /// The key of this id, whoever asks.
    pub(crate) fn find(&self, id: &str) -> Result<&Arc<Entry>, Error> {
        match self.keys.get(id) {
            Some(Slot::Good(entry)) => Ok(entry),
            Some(Slot::Damaged(why)) => Err(Error::Damaged { id: id.to_owned(), why: why.to_string() }),
            Some(Slot::Doubtful(_)) => Err(in_doubt(id)),
            None => Err(Error::NotFound(format!("key `{id}`"))),
        }
    }

    /// Whether there is a key of this id that cannot be believed: its row is damaged, or a commit that touches it is in doubt.
    pub(crate) fn is_in_question(&self, id: &KeyId) -> bool {
        self.keys.get(id).is_some_and(|slot| !matches!(slot, Slot::Good(_)))
    }

    /// As [`Tables::find`]; a former reader of a deleted key is told that it was deleted.
    pub(crate) fn find_for(&self, caller: &Caller, id: &str) -> Result<&Arc<Entry>, Error> {
        if let Some(Slot::Doubtful(before)) = self.keys.get(id) {
            // Who had no right before is told nothing else than before.
            let is_unseen = self.permits(caller, before).is_empty();
            return Err(if is_unseen { Error::Denied(Refusal::Unseen) } else { in_doubt(id) });
        }
        let Some(grave) = self.graves.get(id).filter(|_| !self.keys.contains_key(id)) else {
            return self.find(id);
        };
        match grave.tombstone.acl.reaching(caller).next() {
            Some(_) => Err(Error::Deleted { id: id.to_owned(), revision: grave.revision }),
            None => self.find(id),
        }
    }
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
