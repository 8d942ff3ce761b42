//! A store in memory, for tests of what stands above stores.
//!
//! It passes the same contract suite as the durable ones. It keeps nothing when it is dropped and copies what it hands
//! out, so it is no cache. The small rules that every store applies alike stand here too, after the tables.

use crate::rows::{
    ApprovalRow, BarrierRow, ChangeRow, DigestDelta, GrantRow, HeadRow, KeyRow, Loaded, LoadedVersion, Sealed, TombstoneRow,
};
use crate::store::{CommitOutcome, Effect, Expected, HeadError, HeadSealer, Store, StoreError, Target, Write};
use claviger_domain::{ApprovalId, Generation, Incarnation, KeyId, KeyRef, Prefix, Revision, VersionId};
use futures::future::{BoxFuture, FutureExt, ready};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many earlier rows of an incarnation [`Store::history`] answers at most; older ones are given up.
pub const HISTORY_LIMIT: u32 = 64;

/// How many of the newest changes a store keeps at least; it gives older ones up by and by. A start asks about no more: it
/// looks for their records among as many at the log's end.
pub const CHANGES_KEPT: u64 = 1 << 20;

/// Rows per chunk of a load: small, so that tests meet several chunks.
const CHUNK: usize = 100;
const TAG: usize = 16;

/// A [`Store`] in memory.
///
/// # Guarantees
/// Those of [`Store`], but durable only as long as the value lives.
#[derive(Debug, Default)]
pub struct MemStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    head: Option<HeadRow>,
    barriers: BTreeMap<(u32, String), BarrierRow>,
    keys: BTreeMap<KeyId, (KeyRow, Revision)>,
    versions: BTreeMap<(KeyId, Incarnation, VersionId), (Sealed, Sealed)>,
    history: BTreeMap<(KeyId, Incarnation), VecDeque<(KeyRow, Revision)>>,
    grants: BTreeMap<Prefix, (GrantRow, Revision)>,
    tombstones: BTreeMap<(KeyId, Incarnation), (TombstoneRow, Revision)>,
    approvals: BTreeMap<ApprovalId, (ApprovalRow, Revision)>,
    changes: BTreeMap<Revision, ChangeRow>,
}

impl MemStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change is decided before the first table is touched, so a panic elsewhere leaves whole tables.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemStore {
    fn head(&self) -> BoxFuture<'_, Result<Option<HeadRow>, StoreError>> {
        ready(Ok(self.tables().head.clone())).boxed()
    }

    fn initialise<'a>(&'a self, head: &'a HeadRow, barrier: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(self.tables().initialise(head, barrier)).boxed()
    }

    fn load<'a>(
        &'a self,
        inline_limit: u64,
        visit: &'a mut (dyn FnMut(Vec<Loaded>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<HeadRow, StoreError>> {
        // The visitor may use the store, so the lock is not held while it runs.
        let loaded = {
            let tables = self.tables();
            tables.head().map(|head| (head.clone(), tables.loaded(inline_limit)))
        };
        let visited = loaded.and_then(|(head, mut rows)| {
            while !rows.is_empty() {
                let rest = rows.split_off(rows.len().min(CHUNK));
                visit(std::mem::replace(&mut rows, rest))?;
            }
            Ok(head)
        });
        ready(visited).boxed()
    }

    fn commit<'a>(&'a self, batch: &'a [Write], sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<Vec<CommitOutcome>, StoreError>> {
        ready(self.tables().commit(batch, sealer)).boxed()
    }

    fn reseal<'a>(&'a self, sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(self.tables().reseal(sealer)).boxed()
    }

    fn version<'a>(&'a self, key: &'a KeyRef, version: VersionId) -> BoxFuture<'a, Result<Option<(Sealed, Sealed)>, StoreError>> {
        let found = self.tables().versions.get(&(key.id.clone(), key.incarnation, version)).cloned();
        ready(Ok(found)).boxed()
    }

    fn history<'a>(&'a self, key: &'a KeyRef, limit: u32) -> BoxFuture<'a, Result<Vec<(KeyRow, Revision)>, StoreError>> {
        let tables = self.tables();
        let rows = tables.history.get(&(key.id.clone(), key.incarnation));
        let newest = rows.into_iter().flat_map(|rows| rows.iter().rev()).take(limit as usize).cloned().collect();
        ready(Ok(newest)).boxed()
    }

    fn changes(&self, after: Revision, limit: u32) -> BoxFuture<'_, Result<Vec<ChangeRow>, StoreError>> {
        let tables = self.tables();
        let later = tables.changes.range((Bound::Excluded(after), Bound::Unbounded));
        ready(Ok(later.take(limit as usize).map(|(_, row)| row.clone()).collect())).boxed()
    }

    fn barriers(&self) -> BoxFuture<'_, Result<Vec<BarrierRow>, StoreError>> {
        ready(Ok(self.tables().barriers.values().cloned().collect())).boxed()
    }

    fn add_barriers<'a>(&'a self, rows: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>> {
        ready(self.tables().add_barriers(rows)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

impl Tables {
    fn head(&self) -> Result<&HeadRow, StoreError> {
        self.head.as_ref().ok_or_else(StoreError::not_initialised)
    }

    fn initialise(&mut self, head: &HeadRow, barrier: &[BarrierRow]) -> Result<(), StoreError> {
        if self.head.is_some() {
            return Err(StoreError::already_initialised());
        }
        self.add_barriers(barrier)?;
        self.head = Some(head.clone());
        Ok(())
    }

    fn add_barriers(&mut self, rows: &[BarrierRow]) -> Result<(), StoreError> {
        let mut all = self.barriers.clone();
        for row in rows {
            if all.insert((row.version, row.root.clone()), row.clone()).is_some() {
                return Err(StoreError::barrier_exists(row));
            }
        }
        self.barriers = all;
        Ok(())
    }

    fn commit(&mut self, batch: &[Write], sealer: &dyn HeadSealer) -> Result<Vec<CommitOutcome>, StoreError> {
        let current = self.head()?.clone();
        let epoch = sealer.epoch(current.revision);
        let outcomes = self.decide(batch, current.revision.in_epoch(epoch));
        let done = || batch.iter().zip(&outcomes).filter_map(|(write, outcome)| outcome.revision().map(|at| (write, at)));
        let gained: Vec<DigestDelta> = done().map(|(write, _)| write.digest).collect();
        if gained.is_empty() {
            return Ok(outcomes);
        }
        let next = sealer.advance(&current, &gained)?;
        current.check_next(&next, gained.len(), epoch)?;
        for (write, at) in done() {
            self.apply(write, at);
        }
        self.head = Some(next);
        Ok(outcomes)
    }

    fn reseal(&mut self, sealer: &dyn HeadSealer) -> Result<(), StoreError> {
        let current = self.head()?;
        let next = sealer.advance(current, &[])?;
        current.check_next(&next, 0, sealer.epoch(current.revision))?;
        self.head = Some(next);
        Ok(())
    }

    /// Judges each write by what stands after the ones before it, and changes nothing.
    fn decide(&self, batch: &[Write], mut last: Revision) -> Vec<CommitOutcome> {
        let mut standing: HashMap<Target, Option<(Incarnation, Generation)>> = HashMap::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for write in batch {
            let there = standing.get(&write.target).copied().unwrap_or_else(|| self.standing(&write.target));
            let used = write.uses.as_ref().map(|row| (Target::Approval(row.id), row));
            let is_unused = used.as_ref().is_none_or(|(target, row)| {
                let there = standing.get(target).copied().unwrap_or_else(|| self.standing(target));
                row.before().holds(there)
            });
            if !write.expected.holds(there) || !is_unused {
                outcomes.push(CommitOutcome::Conflict);
                continue;
            }
            if let Some((target, row)) = used {
                standing.insert(target, Some(row.standing()));
            }
            let after = match &write.effect {
                Effect::PutKey { row, .. } => Some((row.incarnation, row.generation)),
                Effect::PutGrant(row) => Some((row.incarnation, row.generation)),
                Effect::PutApproval(row) => Some(row.standing()),
                Effect::DeleteKey(_) | Effect::DeleteGrant | Effect::DropApproval => None,
            };
            standing.insert(write.target.clone(), after);
            last = last.next();
            outcomes.push(CommitOutcome::Done(last));
        }
        outcomes
    }

    fn standing(&self, target: &Target) -> Option<(Incarnation, Generation)> {
        match target {
            Target::Key(id) => self.keys.get(id).map(|(row, _)| (row.incarnation, row.generation)),
            Target::Prefix(prefix) => self.grants.get(prefix).map(|(row, _)| (row.incarnation, row.generation)),
            Target::Approval(id) => self.approvals.get(id).map(|(row, _)| row.standing()),
        }
    }

    fn apply(&mut self, write: &Write, at: Revision) {
        match (&write.target, &write.effect) {
            (Target::Key(id), Effect::PutKey { row, added, destroyed }) => {
                self.replace_key(id, row, at);
                for version in added {
                    let name = (version.key.id.clone(), version.key.incarnation, version.version);
                    self.versions.insert(name, (version.wrapped_key.clone(), version.data.clone()));
                }
                for version in destroyed {
                    self.versions.remove(&(id.clone(), row.incarnation, *version));
                }
            }
            (Target::Key(id), Effect::DeleteKey(tombstone)) => self.delete_key(id, tombstone, at),
            (Target::Prefix(prefix), Effect::PutGrant(row)) => {
                self.grants.insert(prefix.clone(), (row.clone(), at));
            }
            (Target::Prefix(prefix), Effect::DeleteGrant) => {
                self.grants.remove(prefix);
            }
            (Target::Approval(id), Effect::PutApproval(row)) => {
                self.approvals.insert(*id, (row.clone(), at));
            }
            (Target::Approval(id), Effect::DropApproval) => {
                self.approvals.remove(id);
            }
            // The application never pairs these; a durable store writes just the change, too.
            (Target::Key(_) | Target::Prefix(_) | Target::Approval(_), _) => {}
        }
        if let Some(row) = &write.uses {
            self.approvals.insert(row.id, (ApprovalRow::clone(row), at));
        }
        self.changes.insert(at, write.change_row(at));
        if self.changes.len() as u64 > CHANGES_KEPT {
            self.changes.pop_first();
        }
    }

    fn replace_key(&mut self, id: &KeyId, row: &KeyRow, at: Revision) {
        let Some((old, _)) = self.keys.insert(id.clone(), (row.clone(), at)) else { return };
        let rows = self.history.entry((id.clone(), old.incarnation)).or_default();
        rows.push_back((old, at));
        if rows.len() > HISTORY_LIMIT as usize {
            rows.pop_front();
        }
    }

    fn delete_key(&mut self, id: &KeyId, tombstone: &TombstoneRow, at: Revision) {
        if let Some((row, _)) = self.keys.remove(id) {
            self.versions.retain(|(key, incarnation, _), _| key != id || *incarnation != row.incarnation);
            self.history.remove(&(id.clone(), row.incarnation));
        }
        let name = (tombstone.key.id.clone(), tombstone.key.incarnation);
        self.tombstones.insert(name, (tombstone.clone(), at));
    }

    fn loaded(&self, inline_limit: u64) -> Vec<Loaded> {
        let keys = self.keys.values().map(|(row, at)| Loaded::Key(row.clone(), *at));
        let versions = self.versions.iter().map(|((id, incarnation, version), (wrapped_key, data))| {
            let key = KeyRef { id: id.clone(), incarnation: *incarnation };
            Loaded::Version(loaded_version(key, *version, wrapped_key, data, inline_limit))
        });
        let grants = self.grants.values().map(|(row, at)| Loaded::Grant(row.clone(), *at));
        let tombstones = self.tombstones.values().map(|(row, at)| Loaded::Tombstone(row.clone(), *at));
        let approvals = self.approvals.values().map(|(row, at)| Loaded::Approval(row.clone(), *at));
        keys.chain(versions).chain(grants).chain(tombstones).chain(approvals).collect()
    }
}

fn loaded_version(key: KeyRef, version: VersionId, wrapped_key: &Sealed, data: &Sealed, inline_limit: u64) -> LoadedVersion {
    let data_len = data.0.len() as u64;
    LoadedVersion {
        key,
        version,
        wrapped_key: wrapped_key.clone(),
        data_len,
        data_tag: data.0[data.0.len().saturating_sub(TAG)..].into(),
        data: (data_len <= inline_limit).then(|| data.clone()),
    }
}

impl Expected {
    /// Whether a write that expects this may take place where `standing` stands.
    #[must_use]
    pub fn holds(self, standing: Option<(Incarnation, Generation)>) -> bool {
        match (self, standing) {
            (Self::Absent, None) => true,
            (Self::At(incarnation, generation), Some(there)) => (incarnation, generation) == there,
            (Self::Absent, Some(_)) | (Self::At(..), None) => false,
        }
    }
}

impl ApprovalRow {
    /// What a write compares.
    #[must_use]
    pub fn standing(&self) -> (Incarnation, Generation) {
        (Incarnation(self.id.0), self.generation)
    }

    /// What must stand for this row to follow it.
    #[must_use]
    pub fn before(&self) -> Expected {
        match self.generation {
            Generation(0) | Generation::FIRST => Expected::Absent,
            Generation(n) => Expected::At(Incarnation(self.id.0), Generation(n - 1)),
        }
    }
}

impl CommitOutcome {
    /// Where the write took place, if it did.
    #[must_use]
    pub fn revision(self) -> Option<Revision> {
        match self {
            Self::Done(at) => Some(at),
            Self::Conflict => None,
        }
    }
}

impl Write {
    /// What the change table says of this write when it took place at `revision`.
    #[must_use]
    pub fn change_row(&self, revision: Revision) -> ChangeRow {
        let target = match &self.target {
            Target::Key(id) => id.as_str().to_owned(),
            Target::Prefix(prefix) => format!("{prefix}*"),
            Target::Approval(id) => format!("approval {id}"),
        };
        ChangeRow {
            revision,
            target,
            what: self.change.what.to_owned(),
            actor: self.change.actor.clone(),
            request_id: self.change.request_id,
            at: self.change.at,
        }
    }
}

impl HeadRow {
    /// Checks that `next` follows this head after `writes` writes in `epoch`, so that no sealer's slip can break the order.
    ///
    /// # Errors
    /// [`HeadError`] with both revisions.
    pub fn check_next(&self, next: &Self, writes: usize, epoch: u64) -> Result<(), HeadError> {
        let expected = Revision { epoch, number: self.revision.number + writes as u64 };
        if next.revision == expected && expected >= self.revision {
            return Ok(());
        }
        Err(HeadError(format!("the new head is at {}, not {expected}", next.revision)))
    }
}

impl StoreError {
    /// Something needs the head of a store that has none.
    #[must_use]
    pub fn not_initialised() -> Self {
        Self::Damaged("it has no head; either it was never initialised or its head was removed".to_owned())
    }

    /// A second [`Store::initialise`].
    #[must_use]
    pub fn already_initialised() -> Self {
        Self::Unavailable("it is initialised already".to_owned())
    }

    /// A second barrier row of the same name.
    #[must_use]
    pub fn barrier_exists(row: &BarrierRow) -> Self {
        Self::Unavailable(format!("barrier key {} under `{}` is there already", row.version, row.root))
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests {
    use super::MemStore;
    use crate::store::Store;
    use futures::future::{FutureExt, ready};
    use std::sync::Arc;

    async fn place() -> crate::suite::Open {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        Arc::new(move || ready(Arc::clone(&store)).boxed())
    }

    crate::store_suite!(place);
}
