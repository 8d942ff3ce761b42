//! The engine over a store that loses rows, fails to commit, or does not say whether it did.

use super::*;
use claviger_ports::{BarrierRow, ChangeRow, CommitOutcome, HeadRow, HeadSealer, KeyRow, Loaded, MemStore, Sealed, StoreError, Write};

/// What becomes of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes place, and the answer is lost.
    Stands,
    /// It does not, and the answer is lost.
    Falls,
}

type Filter = Box<dyn Fn(&Loaded) -> bool + Send>;

/// A store in memory with faults.
#[derive(Default)]
pub(super) struct Faulty {
    inner: MemStore,
    /// Rows that are gone.
    lost: Mutex<Option<Filter>>,
    /// What becomes of the next commit.
    fate: Mutex<Option<Fate>>,
    /// Whether it cannot be read.
    unreadable: AtomicBool,
    /// How often it was loaded.
    loads: std::sync::atomic::AtomicUsize,
}

impl Faulty {
    /// From now on rows that `is_lost` says are gone.
    pub(super) fn lose(&self, is_lost: impl Fn(&Loaded) -> bool + Send + 'static) {
        *self.lost.lock() = Some(Box::new(is_lost));
    }

    fn is_lost(&self, row: &Loaded) -> bool {
        self.lost.lock().as_ref().is_some_and(|is_lost| is_lost(row))
    }
}

impl Store for Faulty {
    fn head(&self) -> BoxFuture<'_, Result<Option<HeadRow>, StoreError>> {
        self.inner.head()
    }

    fn initialise<'a>(&'a self, head: &'a HeadRow, barrier: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.initialise(head, barrier)
    }

    fn load<'a>(
        &'a self,
        inline_limit: u64,
        visit: &'a mut (dyn FnMut(Vec<Loaded>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<HeadRow, StoreError>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.unreadable.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Unavailable("it cannot be read".into())) });
        }
        Box::pin(async move {
            let mut left = |rows: Vec<Loaded>| visit(rows.into_iter().filter(|row| !self.is_lost(row)).collect());
            self.inner.load(inline_limit, &mut left).await
        })
    }

    fn commit<'a>(&'a self, batch: &'a [Write], sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<Vec<CommitOutcome>, StoreError>> {
        let unknown = || Err(StoreError::Unknown("the answer is lost".into()));
        match self.fate.lock().take() {
            None => self.inner.commit(batch, sealer),
            Some(Fate::Falls) => Box::pin(async move { unknown() }),
            Some(Fate::Stands) => Box::pin(async move {
                self.inner.commit(batch, sealer).await?;
                unknown()
            }),
        }
    }

    fn reseal<'a>(&'a self, sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.reseal(sealer)
    }

    fn version<'a>(&'a self, key: &'a KeyRef, version: VersionId) -> BoxFuture<'a, Result<Option<(Sealed, Sealed)>, StoreError>> {
        Box::pin(async move {
            let mut is_lost = false;
            let mut look = |rows: Vec<Loaded>| {
                let is_it = |row: &&Loaded| matches!(row, Loaded::Version(v) if v.key == *key && v.version == version);
                is_lost |= rows.iter().find(is_it).is_some_and(|row| self.is_lost(row));
                Ok(())
            };
            self.inner.load(0, &mut look).await?;
            if is_lost { Ok(None) } else { self.inner.version(key, version).await }
        })
    }

    fn history<'a>(&'a self, key: &'a KeyRef, limit: u32) -> BoxFuture<'a, Result<Vec<(KeyRow, Revision)>, StoreError>> {
        self.inner.history(key, limit)
    }

    fn changes(&self, after: Revision, limit: u32) -> BoxFuture<'_, Result<Vec<ChangeRow>, StoreError>> {
        self.inner.changes(after, limit)
    }

    fn barriers(&self) -> BoxFuture<'_, Result<Vec<BarrierRow>, StoreError>> {
        self.inner.barriers()
    }

    fn add_barriers<'a>(&'a self, rows: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.add_barriers(rows)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn accepting() -> Settings {
    Settings { accept_tampering: true, ..Settings::default() }
}

/// Whether a row belongs to this key.
fn is_of(row: &Loaded, id: &str) -> bool {
    match row {
        Loaded::Key(row, _) => row.id.as_str() == id,
        Loaded::Version(version) => version.key.id.as_str() == id,
        Loaded::Grant(..) | Loaded::Tombstone(..) => false,
    }
}

#[tokio::test]
async fn what_is_left_of_a_store_is_accepted_once_and_recorded() {
    let site = Site::new().await;
    let alice = user("alice");
    for id in ["kept", "lost", "torn"] {
        site.create(&alice, id, id, &[]).await.unwrap();
    }
    site.add(&alice, "torn", "second").await;
    site.store.lose(|row| is_of(row, "lost") || matches!(row, Loaded::Version(v) if v.key.id.as_str() == "torn"));
    assert!(matches!(site.restart().await.err(), Some(Error::Internal(_))));
    let report = site.restart_with(accepting()).await.unwrap().report;
    assert!(report.tampered && report.keys == 1, "{report:?}");
    assert_eq!(site.log.lines.lock().last().unwrap(), "- accept_tampering  ok");
    let next = site.restart().await.unwrap();
    assert!(next.report.digest_matches && !next.report.tampered && next.report.keys == 2, "{:?}", next.report);
    assert!(next.engine.read(&alice, "test", "kept", Select::Active).await.is_ok());
    assert!(matches!(next.engine.read(&alice, "test", "torn", Select::Active).await, Err(Error::Damaged { .. })));
    site.restart_with(accepting()).await.unwrap();
    assert_eq!(site.log.lines.lock().iter().filter(|l| l.contains("accept_tampering")).count(), 1);
}
