//! Bringing what changed in memory to disk, without holding anything up.
//!
//! What waits is merged: of one secret only the newest state is written, and removals go first. A step that fails, as on a full disk, is
//! tried again with what came since.

use crate::cache::{Batch, Cache, Index};
use crate::entry::Entry;
use crate::table::Table;
use claviger_domain::{KeyId, Revision};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often the last contact is written while nothing else is, so that a restart knows how old its copies are.
const CONTACT: Duration = Duration::from_secs(60);
/// After a failed step, unless something new comes.
const RETRY: Duration = Duration::from_secs(5);
/// After a failed step in any case.
const PAUSE: Duration = Duration::from_millis(200);

/// What waits to be written.
#[derive(Default)]
pub struct Pending {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Default)]
struct State {
    put: BTreeMap<KeyId, Arc<Entry>>,
    remove: BTreeSet<KeyId>,
    index: Option<Index>,
}

impl Pending {
    /// A secret is new or changed.
    pub fn put(&self, entry: Arc<Entry>) {
        let mut state = self.state.lock();
        state.remove.remove(&entry.id);
        state.put.insert(entry.id.clone(), entry);
    }

    /// A secret is gone.
    pub fn remove(&self, id: &KeyId) {
        let mut state = self.state.lock();
        state.put.remove(id);
        state.remove.insert(id.clone());
    }

    /// What was said before makes one step, after which the index is this.
    pub fn step(&self, table: &Table, since: Option<Revision>) {
        let mut state = self.state.lock();
        state.index = Some(Index { since, entries: table.indexed() });
        drop(state);
        self.came.notify_one();
    }

    /// Only the last contact or the own list is to be written.
    pub fn touch(&self) {
        self.came.notify_one();
    }

    /// Until something is to be written.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    fn take(&self) -> Batch {
        let mut state = self.state.lock();
        // Without an index the step is not complete.
        let Some(index) = state.index.take() else { return Batch::default() };
        let remove = std::mem::take(&mut state.remove).into_iter().collect();
        let put = std::mem::take(&mut state.put).into_values().collect();
        Batch { remove, put, index: Some(index), ..Batch::default() }
    }

    /// Puts a failed step back below what came since.
    fn put_back(&self, batch: Batch) {
        let mut state = self.state.lock();
        for id in batch.remove {
            if !state.put.contains_key(&id) {
                state.remove.insert(id);
            }
        }
        for entry in batch.put {
            if !state.remove.contains(&entry.id) {
                state.put.entry(entry.id.clone()).or_insert(entry);
            }
        }
        state.index = state.index.take().or(batch.index);
    }
}

/// Writes what comes, for ever.
pub async fn run(pending: Arc<Pending>, cache: Arc<Cache>, table: Arc<Table>) {
    loop {
        // At the end of the wait the contact is written, whatever else came or not.
        let _ = tokio::time::timeout(CONTACT, pending.came.notified()).await;
        while let Err(why) = write_once(&pending, &cache, &table).await {
            table.health(|health| health.disk = Some(why));
            // New work is a reason to try at once, but not without a pause.
            tokio::time::sleep(PAUSE).await;
            let _ = tokio::time::timeout(RETRY, pending.came.notified()).await;
        }
        table.health(|health| health.disk = None);
        // At the end of what follows a change, and at least once a minute.
        crate::program_pages::give_back();
    }
}

/// Tells those who wait for the own list that it cannot be written now; it is with the next step.
pub(crate) fn refuse(table: &Table, why: &str) {
    if let Some((_, waiting)) = table.take_own() {
        for waiting in waiting {
            // Who asked may be gone.
            let _ = waiting.send(Err(format!("the cache's key cannot be had now: {why}")));
        }
        table.own_is_unsaved();
    }
}

/// Writes what waits now.
///
/// # Errors
/// Why it could not be written, in a sentence; it waits again.
pub async fn write_once(pending: &Pending, cache: &Arc<Cache>, table: &Table) -> Result<(), String> {
    let mut batch = pending.take();
    batch.contact = table.contact().map(|contact| contact.brought_forward(&*table.times));
    let (own, waiting) = table.take_own().map_or((None, Vec::new()), |(own, waiting)| (Some(own), waiting));
    batch.registered = own;
    if batch.is_empty() {
        return Ok(());
    }
    let (cache, step) = (cache.clone(), batch.clone());
    let written = tokio::task::spawn_blocking(move || cache.write(&step)).await;
    let written = written.map_err(|e| e.to_string()).and_then(|written| written.map_err(|e| e.to_string()));
    for waiting in waiting {
        // Who asked may be gone.
        let _ = waiting.send(written.clone());
    }
    if written.is_err() {
        if batch.registered.is_some() {
            table.own_is_unsaved();
        }
        pending.put_back(batch);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::tests::entry;
    use crate::policy::Policy;
    use crate::times::tests::TestTimes;

    #[test]
    fn of_each_secret_the_newest_state_waits_and_a_failed_step_goes_below_it() {
        let pending = Pending::default();
        let table = Table::new(Policy::default(), Duration::ZERO, Arc::new(TestTimes::new()));
        let id = |text: &str| KeyId::parse(text).unwrap();
        pending.put(Arc::new(entry("a", 1, b"1")));
        pending.put(Arc::new(entry("b", 1, b"1")));
        pending.remove(&id("c"));
        assert!(pending.take().is_empty(), "a step without its index is none yet");
        pending.step(&table, None);
        let failed = pending.take();
        assert_eq!((failed.put.len(), &failed.remove[..]), (2, &[id("c")][..]));
        pending.remove(&id("a"));
        pending.put(Arc::new(entry("c", 2, b"2")));
        pending.put_back(failed);
        let batch = pending.take();
        let put: Vec<_> = batch.put.iter().map(|e| (e.id.to_string(), e.revision.number)).collect();
        assert_eq!((put, &batch.remove[..]), (vec![("b".to_owned(), 1), ("c".to_owned(), 2)], &[id("a")][..]));
    }
}
