//! Material that stays open: parsing a private key costs more than signing with it.
//!
//! # Guarantees
//! - Bounded: a fixed number of places, each with the version that was used last of those that fall on it.
//! - Nothing is allowed by being here: each use has its own permit, and the version's state is looked up each time.
//! - Material of a version that is destroyed, or of a key that is deleted, leaves with that change; all of it is wiped when
//!   it leaves.

use claviger_crypto::UseKey;
use claviger_domain::{KeyRef, VersionId};
use parking_lot::Mutex;
use std::sync::Arc;

/// Versions that stay open at most. An RSA key takes some 10 KiB.
const PLACES: usize = 256;

pub(crate) struct OpenKeys(Box<[Mutex<Option<Arc<UseKey>>>]>);

impl Default for OpenKeys {
    fn default() -> Self {
        Self((0..PLACES).map(|_| Mutex::default()).collect())
    }
}

impl OpenKeys {
    fn place(&self, key: &KeyRef, version: VersionId) -> &Mutex<Option<Arc<UseKey>>> {
        // Both numbers are random.
        let at = (key.incarnation.0 ^ version.get()) % PLACES as u64;
        &self.0[usize::try_from(at).unwrap_or(0)]
    }

    pub(crate) fn find(&self, key: &KeyRef, version: VersionId) -> Option<Arc<UseKey>> {
        let place = self.place(key, version).lock();
        place.as_ref().filter(|open| open.version() == version && open.key() == key).cloned()
    }

    pub(crate) fn keep(&self, open: &Arc<UseKey>) {
        *self.place(open.key(), open.version()).lock() = Some(open.clone());
    }

    /// Lets go of what `goes` says.
    pub(crate) fn forget(&self, goes: impl Fn(&UseKey) -> bool) {
        for place in &self.0 {
            let mut place = place.lock();
            if place.as_deref().is_some_and(&goes) {
                *place = None;
            }
        }
    }
}
