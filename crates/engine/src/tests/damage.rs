//! The engine over a store that loses rows, fails to commit, or does not say whether it did.

use super::*;
use claviger_ports::{
    BarrierRow, ChangeRow, CommitOutcome, DamagedRow, HeadRow, HeadSealer, KeyRow, Loaded, MemStore, Sealed, StoreError, Write,
};

/// What becomes of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It takes place, and the answer is lost.
    Stands,
    /// It does not, and the answer is lost.
    Falls,
}

type Filter = Box<dyn Fn(&Loaded) -> bool + Send>;
type Alteration = Box<dyn Fn(Loaded) -> Loaded + Send>;

/// A store in memory with faults.
#[derive(Default)]
pub(super) struct Faulty {
    inner: MemStore,
    /// Rows that are gone.
    lost: Mutex<Option<Filter>>,
    /// How rows are altered that are loaded.
    altered: Mutex<Option<Alteration>>,
    /// What becomes of the next commit.
    fate: Mutex<Option<Fate>>,
    /// Whether it cannot be read.
    unreadable: AtomicBool,
    /// Whether versions that are asked for one by one are gone: as if they were destroyed since the load.
    changed_since: AtomicBool,
    /// Whether nothing is taken.
    full: AtomicBool,
    /// Whether commits take their time.
    slow: AtomicBool,
    /// How often it was loaded.
    loads: std::sync::atomic::AtomicUsize,
    /// How many versions' data were read one by one.
    pub(super) versions_read: std::sync::atomic::AtomicUsize,
}

impl Faulty {
    /// From now on rows that `is_lost` says are gone.
    pub(super) fn lose(&self, is_lost: impl Fn(&Loaded) -> bool + Send + 'static) {
        *self.lost.lock() = Some(Box::new(is_lost));
    }

    /// What becomes of the next commit, and whether the store can be read after it.
    pub(super) fn doom(&self, fate: Fate, is_readable: bool) {
        *self.fate.lock() = Some(fate);
        self.unreadable.store(!is_readable, Ordering::SeqCst);
    }

    /// From now on rows are loaded as `alter` makes them.
    pub(super) fn alter(&self, alter: impl Fn(Loaded) -> Loaded + Send + 'static) {
        *self.altered.lock() = Some(Box::new(alter));
    }

    fn loaded(&self, row: Loaded) -> Option<Loaded> {
        let is_left = !self.is_lost(&row);
        is_left.then(|| match &*self.altered.lock() {
            Some(alter) => alter(row),
            None => row,
        })
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
            let mut left = |rows: Vec<Loaded>| visit(rows.into_iter().filter_map(|row| self.loaded(row)).collect());
            self.inner.load(inline_limit, &mut left).await
        })
    }

    fn commit<'a>(&'a self, batch: &'a [Write], sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<Vec<CommitOutcome>, StoreError>> {
        let unknown = || Err(StoreError::Unknown("the answer is lost".into()));
        if self.slow.load(Ordering::SeqCst) {
            return Box::pin(async move {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                if self.fate.lock().take().is_some() {
                    Err(StoreError::Full("no space".into()))
                } else {
                    self.inner.commit(batch, sealer).await
                }
            });
        }
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Full("no space".into())) });
        }
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
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Full("no space".into())) });
        }
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
            is_lost |= self.changed_since.load(Ordering::SeqCst);
            if is_lost {
                Ok(None)
            } else {
                self.versions_read.fetch_add(1, Ordering::SeqCst);
                self.inner.version(key, version).await
            }
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
        Box::pin(async move {
            tokio::task::yield_now().await;
            let fate = self.fate.lock().take();
            if fate != Some(Fate::Falls) {
                self.inner.add_barriers(rows).await?;
            }
            tokio::task::yield_now().await;
            if fate.is_none() { Ok(()) } else { Err(StoreError::Unknown("the answer is lost".into())) }
        })
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
        Loaded::Grant(..) | Loaded::Tombstone(..) | Loaded::Approval(..) | Loaded::Damaged(_) => false,
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

/// Waits until the engine knows again what the store has.
async fn settled(engine: &Engine) {
    while engine.is_in_doubt() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_waits_for_a_commit_of_unknown_outcome_hears_what_became_of_it() {
    let site = Site::new().await;
    let alice = user("alice");
    let before = site.create(&alice, "db", "old", &[]).await.unwrap().revision;
    site.store.doom(Fate::Stands, true);
    let added = site.engine.add_version(&alice, "test", "db", &version("new"), true, Precondition::Any).await.unwrap();
    assert_eq!(added.revision, before.next());
    assert_eq!(site.read_as(&alice, "db", Select::Primary).await.unwrap(), ["new"]);
    assert_eq!(site.log.lines.lock().iter().filter(|l| *l == "alice add_version db ok").count(), 1);
    site.store.doom(Fate::Falls, true);
    let Err(Error::Unavailable(why)) = site.engine.add_version(&alice, "test", "db", &version("x"), true, Precondition::Any).await else {
        panic!("it did not fail")
    };
    assert!(why.contains("nothing was changed"), "{why}");
    assert_eq!(site.read_as(&alice, "db", Select::Primary).await.unwrap(), ["new"]);
    assert!(!site.engine.is_in_doubt());
    site.add(&alice, "db", "newest").await;
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn of_a_batch_that_stands_each_writer_hears_his_own_outcome() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let meta = site.create(&alice, "db", "x", &[]).await.unwrap().meta;
    // Another server has changed the key meanwhile, which this one does not know: its own change conflicts.
    let other = site.restart().await.unwrap().engine;
    other.add_version(&alice, "test", "db", &version("y"), false, Precondition::Any).await.unwrap();
    site.store.doom(Fate::Stands, true);
    let is = Precondition::Is(meta.incarnation, meta.generation);
    let changed = version("z");
    let (lost, made) =
        tokio::join!(site.engine.add_version(&alice, "test", "db", &changed, false, is), site.create(&bob, "other", "x", &[]),);
    // Both were queued before the committer ran, so they went into one commit.
    assert_eq!(lost.unwrap_err(), Error::Conflict(Conflict::Changed));
    assert_eq!(made.unwrap().revision, site.engine.revision());
    assert_eq!(site.read(&bob, "other").await.unwrap(), ["x"]);
}

#[tokio::test]
async fn what_an_unknown_commit_touches_is_not_served_until_it_is_known() {
    let site = Site::new().await;
    let (alice, bob, eve) = (user("alice"), user("bob"), user("eve"));
    for id in ["db", "other", "team/a", "team/b"] {
        site.create(&alice, id, "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    }
    site.store.doom(Fate::Stands, false);
    assert!(matches!(site.set(&alice, "db", "user:bob", Capabilities::NONE).await, Err(Error::Unavailable(_))));
    assert!(site.engine.is_in_doubt());
    assert!(matches!(site.read(&bob, "db").await, Err(Error::Unavailable(_))));
    assert_eq!(site.read(&eve, "db").await.unwrap_err(), Error::Denied(Refusal::Unseen));
    assert_eq!(site.read(&bob, "other").await.unwrap(), ["x"]);
    assert!(matches!(site.create(&alice, "db", "x", &[]).await, Err(Error::Unavailable(_))));
    assert!(matches!(site.create(&alice, "new", "x", &[]).await, Err(Error::Unavailable(_))));
    site.store.unreadable.store(false, Ordering::SeqCst);
    settled(&site.engine).await;
    assert_eq!(site.read(&bob, "db").await.unwrap_err(), Error::Denied(Refusal::Unseen));
    // His own record says that it failed; that it stands is recorded, too.
    assert_eq!(site.log.lines.lock().iter().filter(|l| *l == "- reconcile db ok").count(), 1);

    site.store.doom(Fate::Falls, false);
    assert!(site.grant("team/", &[("user:carol", Preset::Admin.capabilities())], false).await.is_err());
    for id in ["team/a", "team/b"] {
        assert!(matches!(site.read(&bob, id).await, Err(Error::Unavailable(_))));
    }
    assert_eq!(site.read(&bob, "other").await.unwrap(), ["x"]);
    let team = Prefix::parse("team/").unwrap();
    assert!(matches!(site.engine.prefix(&user("root"), "test", &team).await, Err(Error::Unavailable(_))));
    site.store.unreadable.store(false, Ordering::SeqCst);
    settled(&site.engine).await;
    assert_eq!(site.read(&bob, "team/a").await.unwrap(), ["x"]);
    assert_eq!(site.log.lines.lock().iter().filter(|l| l.contains("reconcile")).count(), 1);
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn a_key_that_may_have_been_made_is_not_said_to_be_missing() {
    let site = Site::new().await;
    let (alice, bob, eve) = (user("alice"), user("bob"), user("eve"));
    site.create(&alice, "back", "x", &[("user:eve", read_only().capabilities())]).await.unwrap();
    site.engine.delete(&alice, "test", "back", Precondition::Any).await.unwrap();
    for id in ["new", "back"] {
        site.store.doom(Fate::Stands, false);
        let bob_reads = [("user:bob", read_only().capabilities())];
        assert!(matches!(site.create(&alice, id, "y", &bob_reads).await, Err(Error::Unavailable(_))));
        for reader in [&alice, &bob] {
            let said = site.read(reader, id).await;
            assert!(matches!(said, Err(Error::Unavailable(_))), "{said:?}");
        }
        // To who could not see it nothing has changed.
        let said = site.read(&eve, id).await.unwrap_err();
        assert!(if id == "new" { matches!(said, Error::NotFound(_)) } else { matches!(said, Error::Deleted { .. }) }, "{said:?}");
        site.store.unreadable.store(false, Ordering::SeqCst);
        settled(&site.engine).await;
        assert_eq!(site.read(&bob, id).await.unwrap(), ["y"]);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_asked_less_and_less_often() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "x", &[]).await.unwrap();
    let loads = site.store.loads.load(Ordering::SeqCst);
    site.store.doom(Fate::Stands, false);
    for _ in 0..40 {
        assert!(site.engine.add_version(&alice, "test", "db", &version("y"), false, Precondition::Any).await.is_err());
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    let asked = site.store.loads.load(Ordering::SeqCst) - loads;
    assert!((2..=4).contains(&asked), "{asked} loads");
}

#[tokio::test]
async fn a_follower_from_before_a_doubtful_commit_is_told_to_read_anew() {
    let site = Site::new().await;
    let alice = user("alice");
    let before = site.create(&alice, "db", "x", &[]).await.unwrap().revision;
    site.store.doom(Fate::Stands, true);
    site.add(&alice, "db", "y").await;
    let scope = WatchScope { ids: vec![KeyId::parse("db").unwrap()], prefixes: vec![] };
    let mut back = site.engine.watch(&alice, "test", scope, Some(before)).await.unwrap();
    assert!(back.next().await.is_none());
}

#[tokio::test]
async fn a_reload_names_the_version_that_was_lost_and_serves_the_other_keys() {
    let site = Site::new().await;
    let alice = user("alice");
    for id in ["kept", "torn"] {
        site.create(&alice, id, "x", &[]).await.unwrap();
    }
    let lost = site.add(&alice, "torn", "lost").await;
    site.store.lose(move |row| matches!(row, Loaded::Version(v) if v.version == lost));
    site.store.doom(Fate::Stands, true);
    site.add(&alice, "kept", "y").await;
    let Err(Error::Damaged { id, why }) = site.read(&alice, "torn").await else { panic!("it is served") };
    assert_eq!((id.as_str(), why), ("torn", format!("version {lost}: its data is missing")));
    assert_eq!(site.read(&alice, "kept").await.unwrap(), ["x", "y"]);
}

#[tokio::test]
async fn a_rotation_whose_caller_goes_away_is_done_and_recorded() {
    let site = Site::new().await;
    assert!(futures::FutureExt::now_or_never(site.engine.rotate_barrier(&[&site.root])).is_none());
    site.engine.rotate_barrier(&[&site.root]).await.unwrap();
    assert_eq!(site.engine.barrier_versions(), (3, vec![1, 2, 3]));
    assert_eq!(site.log.lines.lock().iter().filter(|l| *l == "- rotate_barrier  ok").count(), 1);
}

#[tokio::test]
async fn a_rotation_of_unknown_outcome_is_found_out_and_blocks_no_later_one() {
    let site = Site::new().await;
    site.store.doom(Fate::Stands, true);
    site.engine.rotate_barrier(&[&site.root]).await.unwrap();
    site.store.doom(Fate::Falls, true);
    assert!(site.engine.rotate_barrier(&[&site.root]).await.is_err());
    assert_eq!(site.engine.barrier_versions(), (2, vec![1, 2]));
    // As another process's, or one that was cut off by a crash of the task.
    let (_, rows) = ring(&*site.store, &site.root).await.rotate(&[&site.root], Timestamp(5)).await.unwrap();
    site.store.inner.add_barriers(&rows).await.unwrap();
    site.engine.rotate_barrier(&[&site.root]).await.unwrap();
    assert_eq!(site.engine.barrier_versions(), (4, vec![1, 2, 3, 4]));
    site.create(&user("alice"), "db", "x", &[]).await.unwrap();
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn a_check_looks_at_one_state_of_the_store() {
    let site = Site::new().await;
    let alice = user("alice");
    for id in ["a", "b"] {
        site.create(&alice, id, "x", &[]).await.unwrap();
    }
    let lost = site.add(&alice, "b", "y").await;
    site.store.changed_since.store(true, Ordering::SeqCst);
    let ring = ring(&*site.store, &site.root).await;
    let report = check(&*site.store, &ring).await.unwrap();
    assert_eq!((report.versions, &report.bad_versions, report.start.digest_matches), (3, &vec![], true));
    site.store.lose(move |row| matches!(row, Loaded::Version(v) if v.version == lost));
    let report = check(&*site.store, &ring).await.unwrap();
    assert_eq!(report.bad_versions, [(format!("b version {lost}"), "its data is missing".to_owned())]);
    assert_eq!((report.versions, report.start.digest_matches), (2, false));
}

/// A site with a good key and keys and grants that are damaged in every way that leaves the others served.
async fn damaged_site() -> Site {
    let site = Site::new().await;
    let alice = user("alice");
    for id in ["good", "meta", "mac", "kind", "torn/1", "torn/2", "unreadable"] {
        site.create(&alice, id, "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    }
    site.grant("meta/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    site.grant("mac/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    site.store.lose(|row| matches!(row, Loaded::Version(v) if v.key.id.as_str().starts_with("torn/")));
    site.store.alter(|row| match row {
        Loaded::Key(mut row, at) => {
            match row.id.as_str() {
                "meta" => *row.meta.last_mut().unwrap() ^= 1,
                "mac" => row.mac[9] ^= 1,
                "kind" => return Loaded::Damaged(DamagedRow::Key(KeyRow { kind: 255, ..row }, "no such kind".into())),
                _ => {}
            }
            Loaded::Key(row, at)
        }
        Loaded::Grant(mut row, at) => {
            match row.prefix.as_str() {
                "meta/" => row.body[5] ^= 1,
                "mac/" => row.mac[9] ^= 1,
                _ => {}
            }
            Loaded::Grant(row, at)
        }
        Loaded::Version(v) if v.key.id.as_str() == "unreadable" => Loaded::Damaged(DamagedRow::Version(v.key, "no such version".into())),
        other => other,
    });
    site
}

const DAMAGED: [&str; 6] = ["meta", "mac", "kind", "torn/1", "torn/2", "unreadable"];

#[tokio::test]
async fn a_row_that_cannot_be_read_takes_out_its_own_key_only() {
    let site = damaged_site().await;
    let started = site.restart().await.unwrap();
    let mut ids: Vec<_> = started.report.damaged.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    let mut wanted = DAMAGED;
    wanted.sort_unstable();
    assert_eq!((ids, started.report.damaged_others.len(), started.report.tampered), (wanted.to_vec(), 2, false));
    let alice = user("alice");
    assert!(started.engine.read(&alice, "test", "good", Select::Active).await.is_ok());
    for id in DAMAGED {
        let refused = started.engine.read(&alice, "test", id, Select::Active).await.err();
        assert!(matches!(refused, Some(Error::Damaged { .. })), "{id}: {refused:?}");
    }
    let ring = ring(&*site.store, &site.root).await;
    let report = check(&*site.store, &ring).await.unwrap();
    assert_eq!((report.start.damaged.len(), report.bad_versions.len()), (3, 4), "{report:?}");
}

#[tokio::test]
async fn nobody_is_told_that_a_right_was_taken_while_grants_that_may_give_it_are_damaged() {
    let mut site = Site::new().await;
    let (alice, bob, read) = (user("alice"), user("bob"), read_only().capabilities());
    site.create(&alice, "app/x", "x", &[("user:bob", read)]).await.unwrap();
    site.create(&alice, "app/y", "x", &[("user:bob", read)]).await.unwrap();
    site.create(&alice, "other", "x", &[("user:bob", read)]).await.unwrap();
    site.grant("app/", &[("user:bob", read)], false).await.unwrap();
    let since = site.engine.revision();
    site.set(&alice, "app/x", "user:bob", Capabilities::NONE).await.unwrap();
    site.set(&alice, "other", "user:bob", Capabilities::NONE).await.unwrap();
    site.store.alter(|row| match row {
        Loaded::Grant(mut row, at) if row.prefix.as_str() == "app/" => {
            row.mac[9] ^= 1;
            Loaded::Grant(row, at)
        }
        other => other,
    });
    site.engine = site.restart().await.unwrap().engine;
    let mut follower = site.watch(&bob, &["app/x", "app/y", "other"], &[], None).await;
    let mut gap = site.engine.telling_of_gap(follower.scope(), Some(since));
    assert_eq!(site.tell(&bob, &follower, &mut gap).await, ["revoked other", "compacted"]);
    site.set(&alice, "app/y", "user:bob", Capabilities::NONE).await.unwrap();
    assert!(site.told(&bob, &mut follower).await.is_empty());
}

#[tokio::test]
async fn who_read_a_damaged_key_by_a_prefix_is_told_of_its_deletion() {
    let mut site = Site::new().await;
    let (alice, bob, root) = (user("alice"), user("bob"), user("root"));
    site.create(&alice, "app/x", "x", &[]).await.unwrap();
    site.grant("app/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    site.store.alter(|row| match row {
        Loaded::Key(mut row, at) => {
            row.mac[9] ^= 1;
            Loaded::Key(row, at)
        }
        other => other,
    });
    site.engine = site.restart().await.unwrap().engine;
    let mut follower = site.watch(&bob, &["app/x"], &[], None).await;
    let since = site.engine.revision();
    site.engine.delete(&root, "test", "app/x", Precondition::Any).await.unwrap();
    assert_eq!(site.told(&bob, &mut follower).await, ["deleted app/x"]);
    let mut gap = site.engine.telling_of_gap(follower.scope(), Some(since));
    assert_eq!(site.tell(&bob, &follower, &mut gap).await, ["deleted app/x", "compacted"]);
    assert!(matches!(site.engine.read(&bob, "test", "app/x", Select::Active).await, Err(Error::Deleted { .. })));
}

#[tokio::test]
async fn a_damaged_key_is_deleted_by_who_administers_everything_and_the_sums_are_right_again() {
    let site = damaged_site().await;
    let engine = site.restart().await.unwrap().engine;
    let (alice, root) = (user("alice"), user("root"));
    for id in DAMAGED {
        let refused = engine.delete(&alice, "test", id, Precondition::Any).await.unwrap_err();
        assert!(matches!(refused, Error::Damaged { .. }), "{id}: {refused}");
        engine.delete(&root, "test", id, Precondition::Any).await.unwrap();
        let report = site.restart().await.unwrap().report;
        assert!(!report.tampered, "after {id}: {report:?}");
    }
    let system = Caller::system("test", RequestId(9));
    let bob = || (acl(&[("user:bob", read_only().capabilities())]), false);
    let (meta, mac) = (Prefix::parse("meta/").unwrap(), Prefix::parse("mac/").unwrap());
    engine.change_prefix(&system, "test", &mac, None, Precondition::Any).await.unwrap();
    engine.change_prefix(&system, "test", &meta, Some(bob()), Precondition::Any).await.unwrap();
    *site.store.altered.lock() = None;
    let restarted = site.restart().await.unwrap();
    assert!(restarted.report.digest_matches && restarted.report.damaged.is_empty(), "{:?}", restarted.report);
    assert!(restarted.report.damaged_others.is_empty());
    assert!(matches!(restarted.engine.read(&user("bob"), "test", "torn/1", Select::Active).await, Err(Error::Deleted { .. })));
    for id in DAMAGED {
        restarted.engine.create(&alice, "test", new_key(id, "new", &[])).await.unwrap();
    }
    assert_eq!(site.log.lines.lock().iter().filter(|l| l.starts_with("root delete ") && l.ends_with(" ok")).count(), DAMAGED.len());
}

/// Twenty writers add a version to one key at once; gives how each ended.
async fn twenty_writers(site: &Site, precondition: Precondition) -> Vec<Result<Added, Error>> {
    let (alice, data) = (user("alice"), version("y"));
    let add = |_| site.engine.add_version(&alice, "test", "db", &data, false, precondition);
    futures::future::join_all((0..20).map(add)).await
}

#[tokio::test]
async fn writers_of_one_key_share_commits() {
    let site = Site::new().await;
    site.create(&user("alice"), "db", "x", &[]).await.unwrap();
    site.store.slow.store(true, Ordering::SeqCst);
    let before = site.engine.commit_counts();
    let mut revisions: Vec<_> = twenty_writers(&site, Precondition::Any).await.into_iter().map(|a| a.unwrap().revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    let after = site.engine.commit_counts();
    assert_eq!((revisions.len(), after.writes - before.writes), (20, 20));
    assert!(after.commits - before.commits <= 4, "{} commits", after.commits - before.commits);
    assert_eq!(site.read(&user("alice"), "db").await.unwrap().len(), 21);
    assert!(site.engine.overlay.ahead("db").is_none());
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn what_is_built_on_a_change_that_fails_starts_again() {
    let site = Site::new().await;
    site.create(&user("alice"), "db", "x", &[]).await.unwrap();
    site.store.slow.store(true, Ordering::SeqCst);
    site.store.doom(Fate::Falls, true);
    let answers = twenty_writers(&site, Precondition::Any).await;
    let failed = answers.iter().filter(|a| matches!(a, Err(Error::Full(_)))).count();
    let done = answers.iter().filter(|a| a.is_ok()).count();
    assert!(failed >= 1 && failed + done == 20, "{failed} failed, {done} done");
    assert_eq!(site.read(&user("alice"), "db").await.unwrap().len(), 1 + done);
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn a_change_on_its_way_refuses_and_allows_nothing() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let meta = site.create(&alice, "db", "x", &[]).await.unwrap().meta;
    site.store.slow.store(true, Ordering::SeqCst);
    // Only one of twenty with the same ETag; who comes second hears it when the first one's change stands.
    let answers = twenty_writers(&site, Precondition::Is(meta.incarnation, meta.generation)).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 1);
    // A grant that is on its way, and then is not kept.
    site.store.doom(Fate::Falls, true);
    let data = version("z");
    let add = site.engine.add_version(&bob, "test", "db", &data, false, Precondition::Any);
    let (granted, added) = tokio::join!(site.set(&alice, "db", "user:bob", Preset::Admin.capabilities()), add);
    assert!(granted.is_err());
    assert_eq!(added.unwrap_err(), Error::Denied(Refusal::Unseen));
    // A revocation that is on its way, and then is not kept.
    site.set(&alice, "db", "user:bob", Preset::Admin.capabilities()).await.unwrap();
    site.store.doom(Fate::Falls, true);
    let add = site.engine.add_version(&bob, "test", "db", &data, false, Precondition::Any);
    let (revoked, added) = tokio::join!(site.set(&alice, "db", "user:bob", Capabilities::NONE), add);
    assert!(revoked.is_err() && added.is_ok(), "{added:?}");
}

#[tokio::test]
async fn grants_and_tombstones_of_which_a_column_is_damaged_refuse_no_start_and_grants_can_be_replaced() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "gone", "x", &[]).await.unwrap();
    site.engine.delete(&alice, "test", "gone", Precondition::Any).await.unwrap();
    site.grant("app/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    site.store.alter(|row| match row {
        Loaded::Grant(row, _) if row.prefix.as_str() == "app/" => Loaded::Damaged(DamagedRow::Grant(row, "an epoch".into())),
        Loaded::Tombstone(row, _) => Loaded::Damaged(DamagedRow::Tombstone(row, "an epoch".into())),
        other => other,
    });
    let started = site.restart().await.unwrap();
    assert_eq!((started.report.tampered, started.report.damaged_others.len()), (false, 2), "{:?}", started.report);
    let system = Caller::system("test", RequestId(9));
    let bob = (acl(&[("user:bob", read_only().capabilities())]), false);
    let app = Prefix::parse("app/").unwrap();
    started.engine.change_prefix(&system, "test", &app, Some(bob), Precondition::Any).await.unwrap();
    *site.store.altered.lock() = None;
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn a_key_whose_record_and_version_are_both_damaged_refuses_no_start() {
    let site = Site::new().await;
    for id in ["good", "both"] {
        site.create(&user("alice"), id, "x", &[]).await.unwrap();
    }
    site.store.alter(|row| match row {
        Loaded::Key(row, _) if row.id.as_str() == "both" => Loaded::Damaged(DamagedRow::Key(row, "an epoch".into())),
        Loaded::Version(v) if v.key.id.as_str() == "both" => Loaded::Damaged(DamagedRow::Version(v.key, "no such version".into())),
        other => other,
    });
    let started = site.restart().await.unwrap();
    assert_eq!((started.report.tampered, started.report.damaged.len(), started.report.keys), (false, 1, 1), "{:?}", started.report);
    started.engine.delete(&user("root"), "test", "both", Precondition::Any).await.unwrap();
    *site.store.altered.lock() = None;
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn each_start_has_an_epoch_of_its_own_and_who_was_told_of_another_one_reads_anew() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "x", &[]).await.unwrap();
    let told = site.engine.revision();
    let next = site.restart().await.unwrap();
    let shown = next.engine.revision();
    assert!(shown.number == told.number && shown.epoch > told.epoch, "{told} {shown}");
    assert_eq!(
        (next.report.revision, site.store.head().await.unwrap().unwrap().revision),
        (shown, shown),
        "it is durable before it is told"
    );
    let site = Site { engine: next.engine, ..site };
    // Who was told of all that the store had goes on; who was told of more was told it by a start of another copy.
    let follow = async |since| site.watch(&alice, &["db"], &[], Some(since)).await;
    for (since, goes_on) in [(told, true), (shown, true), (told.next(), false), (shown.in_epoch(told.epoch + 1).next(), false)] {
        let mut follower = follow(since).await;
        let first = site.told(&alice, &mut follower).await;
        assert_eq!(first.is_empty(), goes_on, "{since}: {first:?}");
    }
    site.add(&alice, "db", "y").await;
    assert_eq!(site.engine.revision(), shown.next());
    for (since, expected) in
        [(told, "changed"), (shown, "changed"), (told.next(), "cut off"), (shown.next().in_epoch(shown.epoch - 1), "cut off")]
    {
        let mut follower = follow(since).await;
        let first = site.told(&alice, &mut follower).await;
        assert!(first[0].starts_with(expected), "{since}: {first:?}");
    }
}

#[tokio::test]
async fn a_store_that_takes_nothing_at_a_start_is_served_and_begins_its_epoch_with_its_next_change() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "x", &[]).await.unwrap();
    let told = site.engine.revision();
    site.store.full.store(true, Ordering::SeqCst);
    let engine = site.restart().await.unwrap().engine;
    let site = Site { engine, ..site };
    assert_eq!((site.engine.revision(), site.read(&alice, "db").await.unwrap()), (told, vec!["x".to_owned()]));
    let mut follower = site.watch(&alice, &["db"], &[], Some(told)).await;
    assert!(site.create(&alice, "other", "x", &[]).await.is_err());
    site.store.full.store(false, Ordering::SeqCst);
    site.add(&alice, "db", "y").await;
    let begun = site.engine.revision();
    assert!(begun.number == told.number + 1 && begun.epoch > told.epoch, "{told} {begun}");
    assert!(site.told(&alice, &mut follower).await[0].starts_with("changed"));
    let mut stranger = site.watch(&alice, &["db"], &[], Some(told.next())).await;
    assert_eq!(site.told(&alice, &mut stranger).await, ["cut off"]);
}

#[tokio::test]
async fn after_rows_were_lost_and_that_was_accepted_everyone_reads_anew() {
    let site = Site::new().await;
    let alice = user("alice");
    for id in ["kept", "lost"] {
        site.create(&alice, id, id, &[]).await.unwrap();
    }
    let told = site.engine.revision();
    site.store.lose(|row| is_of(row, "lost"));
    let engine = site.restart_with(accepting()).await.unwrap().engine;
    let site = Site { engine, ..site };
    assert!(site.engine.revision().epoch > told.epoch);
    let mut follower = site.watch(&alice, &["kept"], &[], Some(told)).await;
    assert_eq!(site.told(&alice, &mut follower).await, ["cut off"]);
}
