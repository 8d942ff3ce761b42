//! Changes of keys that are on their way to the store: the next change of the same key is built on them, so that both share a
//! commit.
//!
//! # Guarantees
//! Nothing here is ever served, and nobody is refused because of it. A change that is built on one that fails is a conflict in
//! the store, since that compares what stands; so it takes place never, or after the one it is built on.

use crate::memory::Entry;
use claviger_domain::KeyId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Each key's last change that is on its way.
#[derive(Default)]
pub(crate) struct Overlay(Mutex<Chains>);

#[derive(Default)]
struct Chains {
    ahead: HashMap<KeyId, Ahead>,
    begun: u64,
}

/// What a key will be.
#[derive(Clone)]
pub(crate) struct Ahead {
    pub(crate) entry: Arc<Entry>,
    /// Changes that are built one on the other: when one fails, none of them can take place.
    chain: u64,
    settled: watch::Receiver<()>,
}

/// A change on its way, held by who waits for it. Unless it is [`OnItsWay::arrived`], nothing more is built on its chain.
pub(crate) struct OnItsWay<'a> {
    overlay: &'a Overlay,
    entry: Arc<Entry>,
    chain: u64,
    arrived: bool,
    _unsettled: watch::Sender<()>,
}

impl Overlay {
    /// What is on its way to `id`.
    pub(crate) fn ahead(&self, id: &str) -> Option<Ahead> {
        self.0.lock().ahead.get(id).cloned()
    }

    /// Waits until nothing is on its way to `id` that is now.
    pub(crate) async fn settle(&self, id: &str) {
        if let Some(ahead) = self.ahead(id) {
            ahead.settled().await;
        }
    }

    /// Says that a key will be `entry`, built on what is on its way or on what stands.
    pub(crate) fn begin(&self, entry: Entry, built_on: Option<&Ahead>) -> OnItsWay<'_> {
        let (unsettled, settled) = watch::channel(());
        let entry = Arc::new(entry);
        let mut chains = self.0.lock();
        chains.begun += 1;
        let chain = built_on.map_or(chains.begun, |ahead| ahead.chain);
        chains.ahead.insert(entry.meta.id.clone(), Ahead { entry: entry.clone(), chain, settled });
        OnItsWay { overlay: self, entry, chain, arrived: false, _unsettled: unsettled }
    }
}

impl Ahead {
    /// Waits until it is known what became of it.
    pub(crate) async fn settled(mut self) {
        // The sender never sends; it goes when its change is answered.
        let _ = self.settled.changed().await;
    }
}

impl OnItsWay<'_> {
    /// The change took place.
    pub(crate) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        let mut chains = self.overlay.0.lock();
        let ends = |ahead: &Ahead| ahead.chain == self.chain && (!self.arrived || Arc::ptr_eq(&ahead.entry, &self.entry));
        if chains.ahead.get(&self.entry.meta.id).is_some_and(ends) {
            chains.ahead.remove(&self.entry.meta.id);
        }
    }
}
