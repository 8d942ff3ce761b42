//! What a batch comes to, given what stands: decided in memory, under the write lock, before anything is written.
//!
//! No SQL here, and no order of statements: only the rows that must be gone and the rows that must be there.

use claviger_domain::{ApprovalId, Generation, Incarnation, KeyId, KeyRef, Prefix, Revision, VersionId};
use claviger_ports::{
    ApprovalRow, CommitOutcome, DigestDelta, Effect, GrantRow, HISTORY_LIMIT, KeyRow, Target, TombstoneRow, VersionRow, Write,
};
use std::borrow::Cow;
use std::collections::HashMap;

/// Older history is deleted at every generation that this divides: rarely, so that it costs little.
const TRIM_EVERY: u64 = 16;

/// The rows that a batch's targets have at present.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Keys.
    pub(crate) keys: HashMap<KeyId, KeyRow>,
    /// Prefixes with grants.
    pub(crate) grants: HashMap<Prefix, (Incarnation, Generation)>,
    /// Requests for approval.
    pub(crate) approvals: HashMap<ApprovalId, (Incarnation, Generation)>,
}

/// A batch, decided.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// How each write ends.
    pub(crate) outcomes: Vec<CommitOutcome>,
    /// What the digest gains, one per write that takes place.
    pub(crate) gained: Vec<DigestDelta>,
    /// Incarnations whose versions and history go.
    pub(crate) purged: Vec<KeyRef>,
    /// Keys whose row goes.
    pub(crate) dropped_keys: Vec<&'a KeyId>,
    /// Versions that go.
    pub(crate) destroyed: Vec<(KeyRef, VersionId)>,
    /// Incarnations whose history before a generation goes.
    pub(crate) trimmed: Vec<(KeyRef, Generation)>,
    /// Keys' last rows.
    pub(crate) keys: Vec<(&'a KeyRow, Revision)>,
    /// New versions.
    pub(crate) added: Vec<&'a VersionRow>,
    /// Replaced rows with the revision that replaced them.
    pub(crate) history: Vec<(Cow<'a, KeyRow>, Revision)>,
    /// Prefixes whose row goes.
    pub(crate) dropped_grants: Vec<&'a Prefix>,
    /// Prefixes' last rows.
    pub(crate) grants: Vec<(&'a GrantRow, Revision)>,
    /// Requests for approval whose row goes.
    pub(crate) dropped_approvals: Vec<ApprovalId>,
    /// Requests' last rows.
    pub(crate) approvals: Vec<(&'a ApprovalRow, Revision)>,
    /// New tombstones.
    pub(crate) tombstones: Vec<(&'a TombstoneRow, Revision)>,
    /// The change table's new rows.
    pub(crate) changes: Vec<(&'a Write, Revision)>,
}

/// What stands at a name while the batch is gone through.
#[derive(Debug)]
enum Slot<'a, Stored, New> {
    /// Nothing, and nothing before the batch.
    Empty,
    /// What stood before the batch.
    Stored(Stored),
    /// What a write of the batch put there.
    New(&'a New, Revision),
    /// Nothing any more.
    Gone,
}

struct Planner<'a> {
    plan: Plan<'a>,
    keys: HashMap<&'a KeyId, Slot<'a, KeyRow, KeyRow>>,
    grants: HashMap<&'a Prefix, Slot<'a, (Incarnation, Generation), GrantRow>>,
    approvals: HashMap<ApprovalId, Slot<'a, (Incarnation, Generation), ApprovalRow>>,
}

impl<'a> Plan<'a> {
    /// Goes through a batch in order, each write seeing the ones before it; `last` is the head's revision.
    pub(crate) fn new(mut standing: Standing, batch: &'a [Write], mut last: Revision) -> Self {
        let mut planner = Planner { plan: Self::default(), keys: HashMap::new(), grants: HashMap::new(), approvals: HashMap::new() };
        for write in batch {
            let there = planner.standing(&write.target, &mut standing);
            let is_unused = match write.uses.as_deref() {
                Some(row) => row.before().holds(planner.approval(row.id, &mut standing)),
                None => true,
            };
            if !write.expected.holds(there) || !is_unused {
                planner.plan.outcomes.push(CommitOutcome::Conflict);
                continue;
            }
            last = last.next();
            planner.apply(write, last);
        }
        planner.finish()
    }
}

impl<'a> Planner<'a> {
    fn standing(&mut self, target: &'a Target, standing: &mut Standing) -> Option<(Incarnation, Generation)> {
        match target {
            Target::Key(id) => {
                let stored = || standing.keys.remove(id).map_or(Slot::Empty, Slot::Stored);
                match self.keys.entry(id).or_insert_with(stored) {
                    Slot::Empty | Slot::Gone => None,
                    Slot::Stored(row) => Some((row.incarnation, row.generation)),
                    Slot::New(row, _) => Some((row.incarnation, row.generation)),
                }
            }
            Target::Prefix(prefix) => {
                let stored = || standing.grants.remove(prefix).map_or(Slot::Empty, Slot::Stored);
                match self.grants.entry(prefix).or_insert_with(stored) {
                    Slot::Empty | Slot::Gone => None,
                    Slot::Stored(stored) => Some(*stored),
                    Slot::New(row, _) => Some((row.incarnation, row.generation)),
                }
            }
            Target::Approval(id) => self.approval(*id, standing),
        }
    }

    fn approval(&mut self, id: ApprovalId, standing: &mut Standing) -> Option<(Incarnation, Generation)> {
        let stored = || standing.approvals.remove(&id).map_or(Slot::Empty, Slot::Stored);
        match self.approvals.entry(id).or_insert_with(stored) {
            Slot::Empty | Slot::Gone => None,
            Slot::Stored(stored) => Some(*stored),
            Slot::New(row, _) => Some(row.standing()),
        }
    }

    fn apply(&mut self, write: &'a Write, at: Revision) {
        match (&write.target, &write.effect) {
            (Target::Key(id), Effect::PutKey { row, added, destroyed }) => {
                self.put_key(id, row, at);
                self.plan.added.extend(added);
                destroyed.iter().for_each(|version| self.destroy(row, *version));
            }
            (Target::Key(id), Effect::DeleteKey(tombstone)) => {
                self.delete_key(id);
                self.plan.tombstones.push((tombstone, at));
            }
            (Target::Prefix(prefix), Effect::PutGrant(row)) => {
                self.grants.insert(prefix, Slot::New(row, at));
            }
            (Target::Prefix(prefix), Effect::DeleteGrant) => {
                self.grants.insert(prefix, Slot::Gone);
            }
            (Target::Approval(id), Effect::PutApproval(row)) => {
                self.approvals.insert(*id, Slot::New(row, at));
            }
            (Target::Approval(id), Effect::DropApproval) => {
                self.approvals.insert(*id, Slot::Gone);
            }
            // The application never pairs these; there is nothing to write but the change.
            (Target::Key(_) | Target::Prefix(_) | Target::Approval(_), _) => {}
        }
        if let Some(row) = &write.uses {
            self.approvals.insert(row.id, Slot::New(row, at));
        }
        self.plan.outcomes.push(CommitOutcome::Done(at));
        self.plan.gained.push(write.digest);
        self.plan.changes.push((write, at));
    }

    fn put_key(&mut self, id: &'a KeyId, row: &'a KeyRow, at: Revision) {
        match self.keys.insert(id, Slot::New(row, at)) {
            Some(Slot::Stored(old)) => self.plan.history.push((Cow::Owned(old), at)),
            Some(Slot::New(old, _)) => self.plan.history.push((Cow::Borrowed(old), at)),
            Some(Slot::Empty | Slot::Gone) | None => {}
        }
        let oldest_kept = row.generation.0.saturating_sub(u64::from(HISTORY_LIMIT));
        if row.generation.0.is_multiple_of(TRIM_EVERY) && oldest_kept > 1 {
            self.plan.trimmed.push((key_ref(row), Generation(oldest_kept)));
        }
    }

    fn destroy(&mut self, row: &KeyRow, version: VersionId) {
        let key = key_ref(row);
        let before = self.plan.added.len();
        self.plan.added.retain(|added| added.key != key || added.version != version);
        let was_stored = self.plan.added.len() == before;
        if was_stored {
            self.plan.destroyed.push((key, version));
        }
    }

    fn delete_key(&mut self, id: &'a KeyId) {
        let key = match self.keys.insert(id, Slot::Gone) {
            Some(Slot::Stored(row)) => key_ref(&row),
            Some(Slot::New(row, _)) => key_ref(row),
            Some(Slot::Empty | Slot::Gone) | None => return,
        };
        self.plan.added.retain(|added| added.key != key);
        self.plan.history.retain(|(row, _)| row.incarnation != key.incarnation || row.id != key.id);
        self.plan.destroyed.retain(|(of, _)| *of != key);
        self.plan.trimmed.retain(|(of, _)| *of != key);
        self.plan.purged.push(key);
    }

    fn finish(self) -> Plan<'a> {
        let mut plan = self.plan;
        for (id, slot) in self.keys {
            match slot {
                Slot::New(row, at) => plan.keys.push((row, at)),
                Slot::Gone => plan.dropped_keys.push(id),
                Slot::Empty | Slot::Stored(_) => {}
            }
        }
        for (prefix, slot) in self.grants {
            match slot {
                Slot::New(row, at) => plan.grants.push((row, at)),
                Slot::Gone => plan.dropped_grants.push(prefix),
                Slot::Empty | Slot::Stored(_) => {}
            }
        }
        for (id, slot) in self.approvals {
            match slot {
                Slot::New(row, at) => plan.approvals.push((row, at)),
                Slot::Gone => plan.dropped_approvals.push(id),
                Slot::Empty | Slot::Stored(_) => {}
            }
        }
        plan
    }
}

fn key_ref(row: &KeyRow) -> KeyRef {
    KeyRef { id: row.id.clone(), incarnation: row.incarnation }
}
