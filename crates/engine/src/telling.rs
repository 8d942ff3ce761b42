//! What a follower is told: of one change, or of a time that the feed no longer remembers.
//!
//! # Guarantees
//! - A key's change is judged by the rights just before and just after it, which the event carries: who was away, or is one
//!   commit behind, is told what he would have been told at once.
//! - What a change of a prefix's rights took from him is told, also of keys that are gone by now. Of keys that were made
//!   after it nothing is told, and to those whose rights it leaves as they were, nothing at all.
//! - Who could read a key, or use one of a kind that is used, is told when that is taken from him: [`relies`].
//! - Where many keys are concerned, memory is held for [`STEP`] of them at a time.

use crate::feed::{Event, KeyState, Subject, Told, WatchScope};
use crate::memory::{Entry, Tables};
use crate::start::Engine;
use crate::{Error, query::STEP};
use claviger_domain::{Caller, Capabilities, Capability, KeyId, KeyRef, Prefix, PrefixGrant, Revision, permits_by};
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

/// Keys whose past is looked up in the store for one gap at most: those that are followed by name, were changed in it and
/// cannot be read now. Each costs a query.
const PASTS: usize = 1000;

/// Something that a follower is being told, step by step.
pub struct Telling {
    about: About,
    place: Place,
    pasts_left: usize,
    /// Changes of rights in a gap that are remembered: told of first.
    missed: VecDeque<Telling>,
}

enum About {
    Change(Arc<Event>),
    /// What happened after `since` is not known one by one. Without it nothing at all is known of what he has seen.
    Gap {
        since: Option<Revision>,
        until: Revision,
    },
}

/// Where a walk over a scope goes on. It comes to every id once: first to those followed by name, then to what is below
/// prefixes, first keys and then graves.
struct Place {
    part: Part,
    index: usize,
    after: Option<KeyId>,
    /// Whether it comes to keys below prefixes, or only to graves.
    visits_keys: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Named,
    Keys,
    Graves,
    Done,
}

/// A key that he can neither read nor use, looked at after a gap.
enum Lost {
    /// It was deleted in it.
    Deleted(Told),
    /// It was changed in it: its past knows more.
    Perhaps(KeyRef),
}

impl Telling {
    /// Tells of a change.
    #[must_use]
    pub fn of(event: Arc<Event>) -> Self {
        Self { about: About::Change(event), place: Place::new(true), pasts_left: 0, missed: VecDeque::new() }
    }

    /// Whether everything was told.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.place.part == Part::Done
    }

    /// The revision that is reached when everything was told.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match &self.about {
            About::Change(event) => event.revision,
            About::Gap { until, .. } => *until,
        }
    }

    /// Whether the follower must read everything again afterwards.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        matches!(self.about, About::Gap { .. })
    }
}

impl Engine {
    /// Tells a follower of `scope` who has seen everything up to `since` that the rest is no longer known: first which of his keys
    /// are deleted or no longer his, then [`Told::Compacted`].
    #[must_use]
    pub fn telling_of_gap(&self, scope: &WatchScope, since: Option<Revision>) -> Telling {
        let until = self.revision();
        // A revision of another store, of a copy's history, or of a future that a restored backup does not have, says nothing here.
        let since = since.filter(|s| *s <= until && self.feed.is_of_this_history(*s));
        let (missed, is_all) = since.map(|since| self.feed.rights_since(scope, since)).unwrap_or_default();
        let missed = missed.into_iter().map(Telling::of).collect();
        let pasts_left = if is_all { 0 } else { PASTS };
        Telling { about: About::Gap { since, until }, place: Place::new(false), pasts_left, missed }
    }

    /// The next part of what `caller`, who follows `scope`, is told. May be empty although there is more.
    ///
    /// # Errors
    /// When the store does not answer. Then nothing may be passed over: the follower must begin again.
    pub async fn tell(&self, caller: &Caller, scope: &WatchScope, telling: &mut Telling) -> Result<Vec<Told>, Error> {
        let Telling { about, place, pasts_left, missed } = telling;
        if let Some(first) = missed.front_mut() {
            let told = self.revoked_by(caller, scope, first);
            missed.pop_front_if(|first| first.is_done());
            return Ok(self.but_what_is_in_question(told));
        }
        let told = match about {
            About::Change(event) => self.tell_change(caller, scope, event, place),
            About::Gap { since, until } => Box::pin(self.tell_gap(caller, scope, (*since, *until), place, pasts_left)).await?,
        };
        Ok(self.but_what_is_in_question(told))
    }

    /// Nobody is told that a key was taken from him while it is not known who may read it: he would drop what may be his ▲.
    fn but_what_is_in_question(&self, mut told: Vec<Told>) -> Vec<Told> {
        if told.iter().any(|told| matches!(told, Told::Revoked { .. })) {
            self.memory.read(|t| {
                let is_in_question = |id: &KeyId| t.is_in_question(id) || t.is_below_damaged_grants(id);
                told.retain(|told| !matches!(told, Told::Revoked { id, .. } if is_in_question(id)));
            });
        }
        told
    }

    /// What a remembered change of rights took from a follower for good. That he is to read everything anew he is told anyway.
    fn revoked_by(&self, caller: &Caller, scope: &WatchScope, change: &mut Telling) -> Vec<Told> {
        let About::Change(event) = &change.about else { return Vec::new() };
        let mut told = self.tell_change(caller, scope, event, &mut change.place);
        let can = |id: &KeyId, t: &Tables| t.find(id.as_str()).is_ok_and(|e| relies(e.meta.kind.is_read(), t.permits(caller, e)));
        told.retain(|told| matches!(told, Told::Revoked { id, .. } if !self.memory.read(|t| can(id, t))));
        told
    }

    fn tell_change(&self, caller: &Caller, scope: &WatchScope, event: &Event, place: &mut Place) -> Vec<Told> {
        match &event.subject {
            Subject::Key { id, before, after, grants } => {
                place.part = Part::Done;
                of_key(event, id, before.as_ref(), after.as_ref(), grants, caller).into_iter().collect()
            }
            Subject::Approval(_) => {
                place.part = Part::Done;
                Vec::new()
            }
            Subject::Prefix { prefix, before, after } => {
                let change = PrefixChange { event, prefix, before: before.as_deref(), caller };
                if given(before.as_deref(), caller) == given(after.as_deref(), caller) {
                    place.part = Part::Done;
                    return Vec::new();
                }
                let mut told = Vec::new();
                self.memory.read(|t| place.step(scope, prefix.as_str(), t, |id, _| told.extend(change.told(id, t))));
                told
            }
        }
    }

    async fn tell_gap(
        &self,
        caller: &Caller,
        scope: &WatchScope,
        (since, until): (Option<Revision>, Revision),
        place: &mut Place,
        pasts_left: &mut usize,
    ) -> Result<Vec<Told>, Error> {
        let is_new = |revision: Revision| since.is_none_or(|since| revision > since);
        let (mut told, mut suspects) = (Vec::new(), Vec::new());
        self.memory.read(|t| {
            place.step(scope, "", t, |id, part| match lost_in_gap(id, t, caller, is_new) {
                Some(Lost::Deleted(gone)) => told.push(gone),
                Some(Lost::Perhaps(key)) if part == Part::Named => suspects.push(key),
                _ => {}
            });
        });
        suspects.truncate(*pasts_left);
        *pasts_left -= suspects.len();
        for key in suspects {
            told.extend(self.revoked_in_gap(caller, &key, is_new).await?);
        }
        if place.part == Part::Done {
            told.push(Told::Compacted { revision: until });
        }
        Ok(told)
    }

    /// Whether one of a key's earlier lists, in force during the gap, let him read or use it. Grants on prefixes have no past.
    async fn revoked_in_gap(&self, caller: &Caller, key: &KeyRef, is_new: impl Fn(Revision) -> bool) -> Result<Option<Told>, Error> {
        let rows = self.store.history(key, claviger_ports::HISTORY_LIMIT).await?;
        let ring = self.ring();
        let could = |row| {
            let meta = ring.open_key(row).ok()?;
            Some(relies(meta.kind.is_read(), permits_by(caller, &meta.acl, meta.separate_duties, [])))
        };
        let replaced = rows.iter().filter(|(_, replaced)| is_new(*replaced)).find(|(row, _)| could(row) == Some(true));
        Ok(replaced.map(|(_, revision)| Told::Revoked { id: key.id.clone(), revision: *revision }))
    }
}

/// Whether someone with these rights has something of a key that can be taken from him: its data where that is read, or the use of
/// it. What of a deleted key is known does not say which; there, either counts.
fn relies(is_read: bool, rights: Capabilities) -> bool {
    if is_read { rights.contains(Capability::Read) } else { !rights.intersection(Capabilities::USE).is_empty() }
}

/// What a key's change is to `caller`.
fn of_key(
    event: &Event,
    id: &KeyId,
    before: Option<&KeyState>,
    after: Option<&KeyState>,
    grants: &[Arc<PrefixGrant>],
    caller: &Caller,
) -> Option<Told> {
    let rights = |state: &KeyState| permits_by(caller, &state.acl, state.separate_duties, grants.iter().map(|g| &**g));
    let (id, revision) = (id.clone(), event.revision);
    let could = before.is_some_and(|state| relies(state.is_read, rights(state)));
    match after.map(|state| (state, rights(state))) {
        None => could.then_some(Told::Deleted { id, revision }),
        Some((state, rights)) if could && !relies(state.is_read, rights) => Some(Told::Revoked { id, revision }),
        Some((_, rights)) if rights.is_empty() => None,
        Some((state, _)) => Some(Told::Changed { id, revision, etag: state.etag, what: event.what }),
    }
}

/// What a prefix's grants give to `caller`.
fn given(grant: Option<&PrefixGrant>, caller: &Caller) -> Capabilities {
    grant.into_iter().flat_map(|g| g.acl.reaching(caller)).fold(Capabilities::NONE, |sum, g| sum.union(g.capabilities))
}

/// A change of a prefix's rights, as one follower is told of it.
struct PrefixChange<'a> {
    event: &'a Event,
    prefix: &'a Prefix,
    before: Option<&'a PrefixGrant>,
    caller: &'a Caller,
}

impl PrefixChange<'_> {
    /// What it is to him on one key. What he can do is judged by the present, so that what he was given back is not taken
    /// from him; what he could do, by the key's present list and the grants as they were.
    fn told(&self, id: &KeyId, tables: &Tables) -> Option<Told> {
        let revision = self.event.revision;
        if tables.is_in_question(id) {
            return None;
        }
        let entry = tables.find(id.as_str()).ok();
        let can = entry.map_or(Capabilities::NONE, |e| tables.permits(self.caller, e));
        let key = entry.filter(|e| e.born <= revision);
        let could = key.map_or(Capabilities::NONE, |e| self.could(e, tables));
        let is_read = key.is_some_and(|e| e.meta.kind.is_read());
        let relied = relies(is_read, could) || self.relied_on_the_deleted(id, tables);
        if relied && !relies(entry.is_some_and(|e| e.meta.kind.is_read()), can) {
            return Some(Told::Revoked { id: id.clone(), revision });
        }
        let gained = !can.minus(could).is_empty();
        key.filter(|_| gained).map(|e| Told::Changed { id: id.clone(), revision, etag: KeyState::of(&e.meta).etag, what: self.event.what })
    }

    fn could(&self, entry: &Entry, tables: &Tables) -> Capabilities {
        // A key that was changed since may have become one of separate duties: then more was possible than it says now.
        let separate_duties = entry.meta.separate_duties && entry.revision < self.event.revision;
        permits_by(self.caller, &entry.meta.acl, separate_duties, self.grants_before(&entry.meta.id, tables))
    }

    /// Of a key that was there at the time and has been deleted since, its tombstone knows the list.
    fn relied_on_the_deleted(&self, id: &KeyId, tables: &Tables) -> bool {
        let was_there = |born: Revision, deleted: Revision| born <= self.event.revision && self.event.revision < deleted;
        let grave = tables.graves.get(id).filter(|g| was_there(g.born, g.revision));
        grave.is_some_and(|g| relies(false, permits_by(self.caller, &g.tombstone.acl, false, self.grants_before(id, tables))))
    }

    fn grants_before<'t>(&'t self, id: &'t KeyId, tables: &'t Tables) -> impl Iterator<Item = &'t PrefixGrant> {
        tables.covering(id).filter(|g| g.prefix != *self.prefix).chain(self.before)
    }
}

/// A key that is gone to `caller`, or one that perhaps is.
fn lost_in_gap(id: &KeyId, tables: &Tables, caller: &Caller, is_new: impl Fn(Revision) -> bool) -> Option<Lost> {
    // Of a key that is there and cannot be read, nothing is said that would make anyone drop it.
    if tables.is_in_question(id) {
        return None;
    }
    let entry = tables.find(id.as_str()).ok();
    if entry.is_some_and(|e| relies(e.meta.kind.is_read(), tables.permits(caller, e))) {
        return None;
    }
    let grave = tables.graves.get(id).filter(|g| is_new(g.revision) && g.tombstone.acl.reaching(caller).next().is_some());
    match (grave, entry) {
        (Some(grave), _) => Some(Lost::Deleted(Told::Deleted { id: id.clone(), revision: grave.revision })),
        (None, Some(entry)) if is_new(entry.revision) => Some(Lost::Perhaps(entry.meta.key_ref())),
        _ => None,
    }
}

/// What is below both of two prefixes: the longer one, if it is below the shorter.
fn narrower<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    match one.len() >= other.len() {
        true => one.starts_with(other).then_some(one),
        false => other.starts_with(one).then_some(other),
    }
}

impl Place {
    fn new(visits_keys: bool) -> Self {
        Self { part: Part::Named, index: 0, after: None, visits_keys }
    }

    /// Visits the next ids of `scope` below `within`, looking at [`STEP`] at most.
    fn step(&mut self, scope: &WatchScope, within: &str, tables: &Tables, mut visit: impl FnMut(&KeyId, Part)) {
        let mut left = STEP;
        while left > 0 && self.part != Part::Done {
            left -= 1;
            if self.part == Part::Named {
                match scope.ids.get(self.index) {
                    Some(id) if id.as_str().starts_with(within) => visit(id, Part::Named),
                    Some(_) => {}
                    None => {
                        self.enter(if self.visits_keys { Part::Keys } else { Part::Graves });
                        continue;
                    }
                }
                self.index += 1;
            } else {
                match scope.prefixes.get(self.index) {
                    Some(prefix) => left = self.step_below(prefix, scope, within, tables, left, &mut visit),
                    None => self.enter(if self.part == Part::Keys { Part::Graves } else { Part::Done }),
                }
            }
        }
    }

    fn enter(&mut self, part: Part) {
        (self.part, self.index, self.after) = (part, 0, None);
    }

    /// Visits what is below one prefix, and returns how many more may be looked at.
    fn step_below(
        &mut self,
        prefix: &Prefix,
        scope: &WatchScope,
        within: &str,
        tables: &Tables,
        mut left: usize,
        visit: &mut impl FnMut(&KeyId, Part),
    ) -> usize {
        let Some(narrower) = narrower(prefix.as_str(), within) else {
            self.index += 1;
            return left;
        };
        let after = self.after.clone();
        let from = after.as_ref().map_or(Bound::Included(narrower), |id| Bound::Excluded(id.as_str()));
        for id in self.ids_from(tables, from).take_while(|id| id.as_str().starts_with(narrower)) {
            if left == 0 {
                return 0;
            }
            left -= 1;
            self.after = Some(id.clone());
            let was_visited = self.part == Part::Graves && self.visits_keys && tables.keys.contains_key(id);
            if !was_visited && scope.ids.binary_search(id).is_err() {
                visit(id, self.part);
            }
        }
        self.after = None;
        self.index += 1;
        left
    }

    fn ids_from<'t>(&self, tables: &'t Tables, from: Bound<&str>) -> Box<dyn Iterator<Item = &'t KeyId> + 't> {
        let range = (from, Bound::Unbounded);
        match self.part {
            Part::Graves => Box::new(tables.graves.range::<str, _>(range).map(|(id, _)| id)),
            _ => Box::new(tables.order.range::<str, _>(range)),
        }
    }
}
