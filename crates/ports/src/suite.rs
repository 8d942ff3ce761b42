//! The contract of [`Store`] as tests. Every store runs all of them: [`crate::store_suite!`].
//!
//! Each test gets a place of its own, opens it as often as it likes, and panics where the contract is broken.
//! What only some stores can suffer (full disks, foreign files, damage) is tested where those stores are.

use crate::{
    ApprovalRow, BarrierRow, Change, CommitOutcome, DigestDelta, Effect, Expected, GrantRow, HISTORY_LIMIT, HeadError, HeadRow, HeadSealer,
    KeyRow, Loaded, LoadedVersion, Sealed, Store, StoreError, Target, TombstoneRow, VersionRow, Write,
};
use claviger_domain::{ApprovalId, Generation, Incarnation, KeyId, KeyRef, Prefix, RequestId, Revision, Timestamp, VersionId};
use futures::future::{BoxFuture, join_all};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Opens one place; each call gives another handle on the same rows.
pub type Open = Arc<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>;

/// Defines every test of the suite in the calling module. `$place` is an async function that makes a new, empty place
/// and returns its [`Open`]; the caller needs `tokio` with macros and the multi-threaded runtime.
#[macro_export]
macro_rules! store_suite {
    ($place:path) => {
        $crate::store_suite!(@tests $place:
            initialising_twice_is_refused
            a_store_without_head_commits_and_loads_nothing
            writes_have_consecutive_revisions_in_batch_order
            a_batch_of_done_and_conflicting_writes_keeps_just_the_done_ones
            expectations_are_judged_by_incarnation_and_generation
            writes_of_a_batch_see_the_ones_before_them
            a_key_made_and_deleted_in_one_batch_leaves_its_tombstone_only
            a_conflict_writes_nothing_and_leaves_the_head
            an_empty_batch_leaves_the_head
            a_sealer_that_refuses_stops_the_whole_batch
            a_head_out_of_order_is_refused
            a_head_is_sealed_anew_without_a_write
            an_epoch_begins_with_a_commit_or_alone_and_never_goes_back
            changes_and_history_are_in_order_across_epochs
            concurrent_increments_all_land_exactly_once
            a_deleted_key_leaves_a_tombstone_and_frees_its_id
            a_destroyed_version_is_gone
            history_is_newest_first_and_bounded
            changes_come_in_order_and_limited
            a_load_delivers_everything_in_chunks_keys_first
            a_load_leaves_out_large_data
            a_load_ends_when_the_visitor_refuses
            a_load_while_writing_sees_one_state
            large_batches_and_huge_values_are_kept
            numbers_of_all_64_bits_come_back
            barrier_rows_are_added_and_never_replaced
            prefix_grants_are_kept_replaced_and_removed
            approvals_are_kept_replaced_and_removed
            an_approval_is_used_with_its_change_or_not_at_all
            reopening_keeps_everything
        );
    };
    (@tests $place:path: $($name:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::suite::$name($place().await).await;
            }
        )+
    };
}

/// A sealer without keys: its seal repeats the head's fields and the sum of all deltas, and it counts.
#[derive(Debug, Default)]
pub struct CountingSealer {
    /// How often it was asked.
    pub calls: AtomicU64,
    /// Whether it refuses.
    pub refuses: AtomicBool,
    /// Whether it makes heads that skip a revision.
    pub skips: AtomicBool,
    /// The epoch that it begins; none while it is 0.
    pub epoch: AtomicU64,
    /// Whether its heads are of another epoch than it says.
    pub lies: AtomicBool,
}

static COMMITS: AtomicU64 = AtomicU64::new(1);

/// The first head of a test's store.
#[must_use]
pub fn first_head() -> HeadRow {
    head_at(0)
}

/// A head as if so many writes had gained nothing.
#[must_use]
pub fn head_at(number: u64) -> HeadRow {
    sealed_head(at(number), [0; 32])
}

fn sealed_head(revision: Revision, sum: [u8; 32]) -> HeadRow {
    let mut commit_id = [0; 16];
    commit_id[..8].copy_from_slice(&COMMITS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    HeadRow { revision, commit_id, sealed: seal(revision, commit_id, sum) }
}

fn seal(revision: Revision, commit_id: [u8; 16], sum: [u8; 32]) -> Sealed {
    let mut text = revision.to_string().into_bytes();
    text.extend_from_slice(&commit_id);
    text.extend_from_slice(&sum);
    Sealed(text.into())
}

/// The sum of all deltas that a [`CountingSealer`]'s head covers.
///
/// # Panics
/// When the head is not one of a [`CountingSealer`], whole.
#[must_use]
pub fn sum_of(head: &HeadRow) -> [u8; 32] {
    checked_sum(head).expect("the head is as its sealer made it")
}

fn checked_sum(head: &HeadRow) -> Option<[u8; 32]> {
    let sum = *head.sealed.0.last_chunk::<32>()?;
    (head.sealed == seal(head.revision, head.commit_id, sum)).then_some(sum)
}

/// Bytewise, which is enough for a test: it commutes and tells deltas apart.
fn plus(sum: [u8; 32], delta: &DigestDelta) -> [u8; 32] {
    std::array::from_fn(|i| sum[i].wrapping_add(delta.0[i]))
}

impl HeadSealer for CountingSealer {
    fn epoch(&self, current: Revision) -> u64 {
        match self.epoch.load(Ordering::Relaxed) {
            0 => current.epoch,
            begun => begun,
        }
    }

    fn advance(&self, current: &HeadRow, gained: &[DigestDelta]) -> Result<HeadRow, HeadError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(HeadError("the sealer was told to refuse".to_owned()));
        }
        let old = checked_sum(current).ok_or_else(|| HeadError("the seal is another's".to_owned()))?;
        let skipped = u64::from(self.skips.load(Ordering::Relaxed));
        let number = current.revision.number + gained.len() as u64 + skipped;
        let epoch = self.epoch(current.revision) + u64::from(self.lies.load(Ordering::Relaxed));
        Ok(sealed_head(Revision { epoch, number }, gained.iter().fold(old, plus)))
    }
}

/// An initialised store with a sealer of its own, and short forms for what tests do all the time.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its sealer.
    pub sealer: CountingSealer,
}

impl Fixture {
    /// Opens a new place and initialises it.
    ///
    /// # Panics
    /// When the store cannot be initialised.
    pub async fn new(open: &Open) -> Self {
        let store = open().await;
        store.initialise(&first_head(), &[barrier(1, "file")]).await.expect("a new store can be initialised");
        Self { store, sealer: CountingSealer::default() }
    }

    /// Commits a batch that must not fail as a whole.
    ///
    /// # Panics
    /// When it does.
    pub async fn commit(&self, batch: &[Write]) -> Vec<CommitOutcome> {
        self.store.commit(batch, &self.sealer).await.expect("the store can commit")
    }

    /// Commits writes that must all take place.
    ///
    /// # Panics
    /// When one does not.
    pub async fn done(&self, batch: &[Write]) -> Vec<Revision> {
        let outcomes = self.commit(batch).await;
        assert_eq!(outcomes.len(), batch.len());
        outcomes.iter().map(|outcome| outcome.revision().expect("nothing is in this write's way")).collect()
    }

    /// The head, which must be there and whole.
    ///
    /// # Panics
    /// When it is not.
    pub async fn head(&self) -> HeadRow {
        let head = self.store.head().await.expect("the head can be read").expect("the store is initialised");
        let _ = sum_of(&head);
        head
    }

    async fn data(&self, id: &str, incarnation: u64, version: u64) -> Option<(Sealed, Sealed)> {
        self.store.version(&key_ref(id, incarnation), version_id(version)).await.expect("a version can be read")
    }
}

/// Everything that a load delivers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Keys in the order of delivery.
    pub keys: Vec<(KeyRow, Revision)>,
    /// Versions in the order of delivery.
    pub versions: Vec<LoadedVersion>,
    /// Prefix grants.
    pub grants: Vec<(GrantRow, Revision)>,
    /// Tombstones.
    pub tombstones: Vec<(TombstoneRow, Revision)>,
    /// Requests for approval.
    pub approvals: Vec<(ApprovalRow, Revision)>,
    /// The largest chunk.
    pub largest_chunk: usize,
}

impl Contents {
    /// The generation of a key, if it is there.
    #[must_use]
    pub fn generation(&self, id: &str) -> Option<u64> {
        self.keys.iter().find(|(row, _)| row.id.as_str() == id).map(|(row, _)| row.generation.0)
    }

    fn add(&mut self, rows: Vec<Loaded>) {
        self.largest_chunk = self.largest_chunk.max(rows.len());
        for row in rows {
            match row {
                Loaded::Key(row, at) => self.keys.push((row, at)),
                Loaded::Version(version) => {
                    let key_came = self.keys.iter().any(|(row, _)| row.id == version.key.id && row.incarnation == version.key.incarnation);
                    assert!(key_came, "version {} came before its key", version.version);
                    self.versions.push(version);
                }
                Loaded::Grant(row, at) => self.grants.push((row, at)),
                Loaded::Tombstone(row, at) => self.tombstones.push((row, at)),
                Loaded::Approval(row, at) => self.approvals.push((row, at)),
                Loaded::Damaged(row) => panic!("{row:?} is damaged"),
            }
        }
    }
}

/// Loads everything.
///
/// # Errors
/// What [`Store::load`] returns.
pub async fn load(store: &dyn Store, inline_limit: u64) -> Result<(HeadRow, Contents), StoreError> {
    let mut contents = Contents::default();
    let mut visit = |rows| {
        contents.add(rows);
        Ok(())
    };
    let head = store.load(inline_limit, &mut visit).await?;
    Ok((head, contents))
}

async fn loaded(fixture: &Fixture) -> Contents {
    load(&*fixture.store, 1 << 20).await.expect("the store can be loaded").1
}

/// A key id known to be good.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn key_id(id: &str) -> KeyId {
    KeyId::parse(id).expect("the test's key id is good")
}

/// The name of an incarnation.
#[must_use]
pub fn key_ref(id: &str, incarnation: u64) -> KeyRef {
    KeyRef { id: key_id(id), incarnation: Incarnation(incarnation) }
}

/// A version id known to be good.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn version_id(raw: u64) -> VersionId {
    VersionId::new(raw).expect("the test's version id is good")
}

/// A key's row at a generation.
#[must_use]
pub fn key_row(id: &str, incarnation: u64, generation: u64) -> KeyRow {
    KeyRow {
        id: key_id(id),
        incarnation: Incarnation(incarnation),
        generation: Generation(generation),
        kind: 1,
        meta: format!("meta of {id} at {generation}").into_bytes().into(),
        mac: vec![generation as u8; 32].into(),
    }
}

/// A version with data of a length.
#[must_use]
pub fn version_row(id: &str, incarnation: u64, version: u64, data_len: usize) -> VersionRow {
    let data = (0..data_len).map(|i| (i as u64).wrapping_mul(31).wrapping_add(version) as u8).collect();
    VersionRow {
        key: key_ref(id, incarnation),
        version: version_id(version),
        wrapped_key: Sealed(vec![version as u8; 60].into()),
        data: Sealed(data),
    }
}

/// A write of a key or prefix. Its delta depends on the target and the effect.
#[must_use]
pub fn write(target: Target, expected: Expected, effect: Effect) -> Write {
    let name = match &target {
        Target::Key(id) => id.as_str().len(),
        Target::Prefix(prefix) => prefix.as_str().len(),
        Target::Approval(_) => 16,
    };
    let what = match &effect {
        Effect::PutKey { .. } => "put",
        Effect::DeleteKey(_) => "delete",
        Effect::PutGrant(_) => "grant",
        Effect::DeleteGrant => "ungrant",
        Effect::PutApproval(_) => "ask",
        Effect::DropApproval => "forget",
    };
    let digest = DigestDelta(std::array::from_fn(|i| (name + what.len() * 7 + i) as u8));
    let change = Change { what, actor: "user alice".to_owned(), request_id: RequestId(u128::MAX - 5), at: Timestamp(1_700_000_000) };
    Write { target, expected, effect, uses: None, digest, change }
}

/// Makes a key with one version of 100 bytes.
#[must_use]
pub fn create(id: &str, incarnation: u64) -> Write {
    let effect =
        Effect::PutKey { row: key_row(id, incarnation, 1), added: vec![version_row(id, incarnation, 1, 100)], destroyed: Vec::new() };
    write(Target::Key(key_id(id)), Expected::Absent, effect)
}

/// Takes a key from a generation to the next one, adding a version of that number.
#[must_use]
pub fn add_version(id: &str, incarnation: u64, from: u64) -> Write {
    let row = key_row(id, incarnation, from + 1);
    let added = vec![version_row(id, incarnation, from + 1, 100)];
    let expected = Expected::At(Incarnation(incarnation), Generation(from));
    write(Target::Key(key_id(id)), expected, Effect::PutKey { row, added, destroyed: Vec::new() })
}

fn destroy(id: &str, incarnation: u64, from: u64, versions: &[u64]) -> Write {
    let destroyed = versions.iter().map(|version| version_id(*version)).collect();
    let effect = Effect::PutKey { row: key_row(id, incarnation, from + 1), added: Vec::new(), destroyed };
    write(Target::Key(key_id(id)), Expected::At(Incarnation(incarnation), Generation(from)), effect)
}

/// Deletes a key at a generation.
#[must_use]
pub fn delete(id: &str, incarnation: u64, at: u64) -> Write {
    let expected = Expected::At(Incarnation(incarnation), Generation(at));
    write(Target::Key(key_id(id)), expected, Effect::DeleteKey(tombstone(id, incarnation)))
}

fn tombstone(id: &str, incarnation: u64) -> TombstoneRow {
    TombstoneRow { key: key_ref(id, incarnation), body: b"who could read it".as_slice().into(), mac: [7; 32].as_slice().into() }
}

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).expect("the test's prefix is good")
}

/// The incarnation of the tests' grants; more than a signed number holds.
const GRANTED: Incarnation = Incarnation(u64::MAX - 5);

fn grant_row(text: &str, generation: u64) -> GrantRow {
    let body = format!("grant on {text} at {generation}").into_bytes().into();
    let (incarnation, generation) = (GRANTED, Generation(generation));
    GrantRow { prefix: prefix(text), incarnation, generation, body, mac: [9; 32].as_slice().into() }
}

fn grant(text: &str, expected: Expected, generation: u64) -> Write {
    write(Target::Prefix(prefix(text)), expected, Effect::PutGrant(grant_row(text, generation)))
}

fn approval_row(id: u64, generation: u64) -> ApprovalRow {
    let body = format!("approval {id} at {generation}").into_bytes().into();
    ApprovalRow { id: ApprovalId(id), generation: Generation(generation), body, mac: [5; 32].as_slice().into() }
}

fn approval(id: u64, generation: u64) -> Write {
    let row = approval_row(id, generation);
    write(Target::Approval(row.id), row.before(), Effect::PutApproval(row))
}

fn barrier(version: u32, root: &str) -> BarrierRow {
    BarrierRow { version, root: root.to_owned(), wrapped: Sealed([version as u8; 60].as_slice().into()), created: Timestamp(-3) }
}

fn at(number: u64) -> Revision {
    Revision { epoch: 1, number }
}

/// Test.
pub async fn initialising_twice_is_refused(open: Open) {
    let store = open().await;
    assert_eq!(store.head().await, Ok(None));
    let (head, barriers) = (first_head(), [barrier(1, "file"), barrier(1, "hsm")]);
    store.initialise(&head, &barriers).await.expect("a new store can be initialised");
    let again = store.initialise(&first_head(), &[barrier(2, "file")]).await;
    assert_eq!(again, Err(StoreError::already_initialised()));
    assert_eq!(store.head().await, Ok(Some(head)));
    assert_eq!(store.barriers().await, Ok(barriers.to_vec()));
}

/// Test.
pub async fn a_store_without_head_commits_and_loads_nothing(open: Open) {
    let (store, sealer) = (open().await, CountingSealer::default());
    let refused = Err(StoreError::not_initialised());
    assert_eq!(store.commit(&[create("a", 1)], &sealer).await, refused);
    assert_eq!(load(&*store, 0).await.map(|_| Vec::new()), refused);
    assert_eq!(sealer.calls.load(Ordering::Relaxed), 0);
    assert_eq!(store.changes(Revision::default(), 10).await, Ok(Vec::new()));
}

/// Test.
pub async fn writes_have_consecutive_revisions_in_batch_order(open: Open) {
    let f = Fixture::new(&open).await;
    assert_eq!(f.done(&[create("a", 1)]).await, [at(1)]);
    assert_eq!(f.done(&[create("z", 1), create("b", 2), grant("b/", Expected::Absent, 1)]).await, [at(2), at(3), at(4)]);
    let head = f.head().await;
    assert_eq!(head.revision, at(4));
    let batch = [create("a", 1), create("z", 1), create("b", 2), grant("b/", Expected::Absent, 1)];
    assert_eq!(sum_of(&head), batch.iter().fold([0; 32], |sum, write| plus(sum, &write.digest)));
    assert_eq!(f.sealer.calls.load(Ordering::Relaxed), 2);
}

/// Test.
pub async fn a_batch_of_done_and_conflicting_writes_keeps_just_the_done_ones(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    let batch = [create("b", 1), create("a", 9), add_version("a", 1, 1), add_version("c", 1, 1), create("d", 1)];
    let before = sum_of(&f.head().await);
    let outcomes = f.commit(&batch).await;
    let (done, conflict) = (CommitOutcome::Done, CommitOutcome::Conflict);
    assert_eq!(outcomes, [done(at(2)), conflict, done(at(3)), conflict, done(at(4))]);
    let head = f.head().await;
    assert_eq!(head.revision, at(4));
    assert_eq!(sum_of(&head), [0, 2, 4].iter().fold(before, |sum, i| plus(sum, &batch[*i].digest)));
    let contents = loaded(&f).await;
    assert_eq!(contents.generation("a"), Some(2));
    assert_eq!(contents.keys.len(), 3);
    assert_eq!(contents.versions.len(), 4);
    assert_eq!(f.data("a", 9, 1).await, None);
}

/// Test.
pub async fn expectations_are_judged_by_incarnation_and_generation(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1), grant("p/", Expected::Absent, 1)]).await;
    let wrong = [
        create("a", 2),
        add_version("a", 2, 1),
        add_version("a", 1, 2),
        add_version("b", 1, 1),
        delete("a", 1, 2),
        delete("a", 2, 1),
        delete("b", 1, 1),
        grant("p/", Expected::Absent, 1),
        grant("p/", Expected::At(GRANTED, Generation(2)), 3),
        grant("p/", Expected::At(Incarnation(1), Generation(1)), 2),
        grant("q/", Expected::At(GRANTED, Generation(1)), 2),
    ];
    for write in wrong {
        assert_eq!(f.commit(std::slice::from_ref(&write)).await, [CommitOutcome::Conflict], "{write:?}");
    }
    f.done(&[add_version("a", 1, 1), grant("p/", Expected::At(GRANTED, Generation(1)), 2)]).await;
}

/// Test.
pub async fn writes_of_a_batch_see_the_ones_before_them(open: Open) {
    let f = Fixture::new(&open).await;
    let steps = [create("a", 1), add_version("a", 1, 1), add_version("a", 1, 1), destroy("a", 1, 2, &[1]), add_version("a", 1, 3)];
    let done: Vec<bool> = f.commit(&steps).await.iter().map(|outcome| outcome.revision().is_some()).collect();
    assert_eq!(done, [true, true, false, true, true]);
    let contents = loaded(&f).await;
    assert_eq!(contents.keys, [(key_row("a", 1, 4), at(4))]);
    let versions: Vec<u64> = contents.versions.iter().map(|version| version.version.get()).collect();
    assert_eq!(versions, [2, 4]);
    let history = f.store.history(&key_ref("a", 1), 10).await.expect("history can be read");
    let expected = [(key_row("a", 1, 3), at(4)), (key_row("a", 1, 2), at(3)), (key_row("a", 1, 1), at(2))];
    assert_eq!(history, expected);
    f.done(&[add_version("a", 1, 4)]).await;
}

/// Test.
pub async fn a_key_made_and_deleted_in_one_batch_leaves_its_tombstone_only(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    let steps = [add_version("a", 1, 1), delete("a", 1, 2), create("a", 2), add_version("a", 2, 1), delete("a", 2, 2), create("a", 3)];
    f.done(&steps).await;
    let contents = loaded(&f).await;
    assert_eq!(contents.keys, [(key_row("a", 3, 1), at(7))]);
    assert_eq!(contents.tombstones, [(tombstone("a", 1), at(3)), (tombstone("a", 2), at(6))]);
    for gone in [1, 2] {
        assert_eq!(f.data("a", gone, 1).await, None);
        assert_eq!(f.store.history(&key_ref("a", gone), 10).await, Ok(Vec::new()));
    }
    assert!(f.data("a", 3, 1).await.is_some());
    let batch = [grant("p/", Expected::Absent, 1), write(Target::Prefix(prefix("p/")), first_grant(), Effect::DeleteGrant)];
    f.done(&batch).await;
    assert_eq!(loaded(&f).await.grants, []);
}

fn first_grant() -> Expected {
    Expected::At(GRANTED, Generation(1))
}

/// Test.
pub async fn a_conflict_writes_nothing_and_leaves_the_head(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    let (head, contents) = (f.head().await, loaded(&f).await);
    assert_eq!(f.commit(&[create("a", 2), add_version("x", 1, 1)]).await, [CommitOutcome::Conflict; 2]);
    assert_eq!(f.head().await, head);
    assert_eq!(loaded(&f).await, contents);
    assert_eq!(f.sealer.calls.load(Ordering::Relaxed), 1, "the sealer is not asked for nothing");
    assert_eq!(f.store.changes(at(1), 10).await, Ok(Vec::new()));
}

/// Test.
pub async fn an_empty_batch_leaves_the_head(open: Open) {
    let f = Fixture::new(&open).await;
    let head = f.head().await;
    assert_eq!(f.commit(&[]).await, []);
    assert_eq!(f.head().await, head);
}

/// Test.
pub async fn a_sealer_that_refuses_stops_the_whole_batch(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    let (head, contents) = (f.head().await, loaded(&f).await);
    f.sealer.refuses.store(true, Ordering::Relaxed);
    let refused = f.store.commit(&[create("b", 1), add_version("a", 1, 1), delete("a", 1, 2)], &f.sealer).await;
    assert!(matches!(refused, Err(StoreError::Head(_))), "{refused:?}");
    assert_eq!(f.head().await, head);
    assert_eq!(loaded(&f).await, contents);
    f.sealer.refuses.store(false, Ordering::Relaxed);
    assert_eq!(f.done(&[add_version("a", 1, 1)]).await, [at(2)]);
}

/// Test.
pub async fn a_head_out_of_order_is_refused(open: Open) {
    let f = Fixture::new(&open).await;
    let head = f.head().await;
    f.sealer.skips.store(true, Ordering::Relaxed);
    let refused = f.store.commit(&[create("a", 1)], &f.sealer).await;
    assert!(matches!(refused, Err(StoreError::Head(_))), "{refused:?}");
    assert_eq!(f.head().await, head);
    assert_eq!(loaded(&f).await.keys, []);
}

/// Test.
pub async fn a_head_is_sealed_anew_without_a_write(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    let (head, contents) = (f.head().await, loaded(&f).await);
    f.store.reseal(&f.sealer).await.expect("the head can be replaced");
    let resealed = f.head().await;
    assert_eq!((resealed.revision, sum_of(&resealed)), (head.revision, sum_of(&head)));
    assert_ne!(resealed.commit_id, head.commit_id);
    assert_eq!(loaded(&f).await, contents);
    f.sealer.refuses.store(true, Ordering::Relaxed);
    assert!(matches!(f.store.reseal(&f.sealer).await, Err(StoreError::Head(_))));
    assert_eq!(f.head().await, resealed);
    f.sealer.refuses.store(false, Ordering::Relaxed);
    assert_eq!(f.done(&[add_version("a", 1, 1)]).await, [at(2)]);
}

/// Test.
pub async fn an_epoch_begins_with_a_commit_or_alone_and_never_goes_back(open: Open) {
    let f = Fixture::new(&open).await;
    let begin = |epoch| f.sealer.epoch.store(epoch, Ordering::Relaxed);
    let of = |epoch, number| Revision { epoch, number };
    assert_eq!(f.done(&[create("a", 1), create("b", 1)]).await, [at(1), at(2)]);
    begin(7);
    assert_eq!(f.done(&[create("c", 1), create("d", 1)]).await, [of(7, 3), of(7, 4)]);
    assert_eq!(f.head().await.revision, of(7, 4));
    begin(9);
    f.store.reseal(&f.sealer).await.expect("the head can be replaced");
    assert_eq!(f.head().await.revision, of(9, 4));
    let head = f.head().await;
    for (epoch, lies) in [(8, false), (9, true)] {
        begin(epoch);
        f.sealer.lies.store(lies, Ordering::Relaxed);
        assert!(matches!(f.store.commit(&[create("e", 1)], &f.sealer).await, Err(StoreError::Head(_))), "{epoch}");
        assert!(matches!(f.store.reseal(&f.sealer).await, Err(StoreError::Head(_))), "{epoch}");
    }
    assert_eq!(f.head().await, head);
    f.sealer.lies.store(false, Ordering::Relaxed);
    begin(9);
    assert_eq!(f.done(&[create("e", 1)]).await, [of(9, 5)]);
}

/// Test.
pub async fn changes_and_history_are_in_order_across_epochs(open: Open) {
    let f = Fixture::new(&open).await;
    let mut made = f.done(&[create("a", 1)]).await;
    // The numbers of the epochs say nothing of how far apart they are.
    for (generation, epoch) in (1..).zip([2, 3, u64::from(u32::MAX), u64::MAX >> 1]) {
        f.sealer.epoch.store(epoch, Ordering::Relaxed);
        made.extend(f.done(&[add_version("a", 1, generation)]).await);
    }
    let changes = async |after, limit| {
        let rows = f.store.changes(after, limit).await.expect("changes can be read");
        rows.iter().map(|row| row.revision).collect::<Vec<_>>()
    };
    assert_eq!(changes(Revision::default(), 99).await, made);
    for (i, revision) in made.iter().enumerate() {
        assert_eq!(changes(*revision, 99).await, made[i + 1..], "{revision}");
    }
    // Of another history: after its epoch's, before the next one's.
    assert_eq!(changes(Revision { epoch: 3, number: 99 }, 1).await, made[3..4]);
    let history = f.store.history(&key_ref("a", 1), 99).await.expect("history can be read");
    let replaced: Vec<_> = history.iter().map(|(_, revision)| *revision).collect();
    assert!(replaced.is_sorted_by(|newer, older| newer > older), "{replaced:?}");
    assert_eq!(replaced[0], made[made.len() - 1]);
}

/// Adds `count` versions to the key `shared`, each by compare and replace, trying again after each conflict.
async fn increments(store: Arc<dyn Store>, count: u64) {
    let sealer = CountingSealer::default();
    let mut known = 1;
    for _ in 0..count {
        loop {
            let outcome = store.commit(&[add_version("shared", 1, known)], &sealer).await.expect("the store can commit");
            known += 1;
            if outcome[0].revision().is_some() {
                break;
            }
        }
    }
}

/// Test.
pub async fn concurrent_increments_all_land_exactly_once(open: Open) {
    const EACH: u64 = 15;
    let f = Fixture::new(&open).await;
    f.done(&[create("shared", 1)]).await;
    let handles = [Arc::clone(&f.store), open().await, Arc::clone(&f.store), open().await];
    join_all(handles.map(|store| increments(store, EACH))).await;
    let contents = loaded(&f).await;
    assert_eq!(contents.generation("shared"), Some(1 + 4 * EACH));
    let mut versions: Vec<u64> = contents.versions.iter().map(|version| version.version.get()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=1 + 4 * EACH).collect::<Vec<_>>());
    assert_eq!(f.head().await.revision, at(1 + 4 * EACH));
    let changes = f.store.changes(Revision::default(), 1000).await.expect("changes can be read");
    assert_eq!(changes.iter().map(|row| row.revision.number).collect::<Vec<_>>(), (1..=1 + 4 * EACH).collect::<Vec<_>>());
}

/// Test.
pub async fn a_deleted_key_leaves_a_tombstone_and_frees_its_id(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1), create("b", 1)]).await;
    f.done(&[add_version("a", 1, 1)]).await;
    f.done(&[delete("a", 1, 2)]).await;
    let contents = loaded(&f).await;
    assert_eq!(contents.generation("a"), None);
    assert_eq!(contents.tombstones, [(tombstone("a", 1), at(4))]);
    assert_eq!(contents.versions.len(), 1, "the other key's version stays");
    assert_eq!(f.data("a", 1, 2).await, None);
    assert_eq!(f.store.history(&key_ref("a", 1), 10).await, Ok(Vec::new()));
    assert_eq!(f.commit(&[add_version("a", 1, 2)]).await, [CommitOutcome::Conflict]);
    f.done(&[create("a", 2)]).await;
    assert!(f.data("a", 2, 1).await.is_some());
    assert_eq!(loaded(&f).await.tombstones.len(), 1);
}

/// Test.
pub async fn a_destroyed_version_is_gone(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    f.done(&[add_version("a", 1, 1)]).await;
    f.done(&[destroy("a", 1, 2, &[1])]).await;
    assert_eq!(f.data("a", 1, 1).await, None);
    let contents = loaded(&f).await;
    assert_eq!(contents.versions.iter().map(|version| version.version.get()).collect::<Vec<_>>(), [2]);
    let kept = version_row("a", 1, 2, 100);
    assert_eq!(f.data("a", 1, 2).await, Some((kept.wrapped_key, kept.data)));
    // Destroying what is not there is no error: the record decides, and it is the application's.
    f.done(&[destroy("a", 1, 3, &[1, 77])]).await;
}

/// Test.
pub async fn history_is_newest_first_and_bounded(open: Open) {
    let f = Fixture::new(&open).await;
    let last = u64::from(HISTORY_LIMIT) * 2 + 9;
    f.done(&[create("a", 1), create("b", 1)]).await;
    f.done(&[add_version("b", 1, 1)]).await;
    for from in 1..last / 2 {
        f.done(&[add_version("a", 1, from)]).await;
    }
    f.done(&(last / 2..last).map(|from| add_version("a", 1, from)).collect::<Vec<_>>()).await;
    let history = async |limit| f.store.history(&key_ref("a", 1), limit).await.expect("history can be read");
    let newest = history(3).await;
    assert_eq!(newest.iter().map(|(row, _)| row.generation.0).collect::<Vec<_>>(), [last - 1, last - 2, last - 3]);
    assert_eq!(newest[0], (key_row("a", 1, last - 1), f.head().await.revision));
    let all = history(u32::MAX).await;
    assert_eq!(all.len(), HISTORY_LIMIT as usize);
    assert!(all.windows(2).all(|pair| pair[0].0.generation.0 == pair[1].0.generation.0 + 1));
    assert_eq!(history(0).await, []);
    let other = f.store.history(&key_ref("b", 1), 10).await;
    assert_eq!(other, Ok(vec![(key_row("b", 1, 1), at(3))]));
}

/// Test.
pub async fn changes_come_in_order_and_limited(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("b", 1), create("a", 1), grant("p/", Expected::Absent, 1)]).await;
    f.done(&[delete("b", 1, 1)]).await;
    let changes = async |after, limit| f.store.changes(after, limit).await.expect("changes can be read");
    let all = changes(Revision::default(), 100).await;
    let told: Vec<_> = all.iter().map(|row| (row.revision, row.target.as_str(), row.what.as_str())).collect();
    assert_eq!(told, [(at(1), "b", "put"), (at(2), "a", "put"), (at(3), "p/*", "grant"), (at(4), "b", "delete")]);
    assert_eq!(all[0], create("b", 1).change_row(at(1)));
    assert_eq!(changes(at(1), 2).await, all[1..3]);
    assert_eq!(changes(at(4), 2).await, []);
    assert_eq!(changes(at(1), 0).await, []);
    assert_eq!(changes(Revision { epoch: 2, number: 0 }, 9).await, []);
    assert_eq!(changes(Revision { epoch: 0, number: 99 }, 9).await, all);
}

/// Test.
pub async fn a_load_delivers_everything_in_chunks_keys_first(open: Open) {
    const KEYS: u64 = 3000;
    let f = Fixture::new(&open).await;
    let name = |i: u64| format!("team/{}/key{i}", i % 7);
    let batch: Vec<Write> = (0..KEYS).map(|i| create(&name(i), i + 1)).collect();
    for part in batch.chunks(999) {
        f.done(part).await;
    }
    f.done(&[grant("team/", Expected::Absent, 1), add_version(&name(0), 1, 1), delete(&name(1), 2, 1)]).await;
    let (head, contents) = load(&*f.store, 1 << 20).await.expect("the store can be loaded");
    assert_eq!(head, f.head().await);
    let mut keys = contents.keys.clone();
    keys.sort_by_key(|(_, revision)| *revision);
    let mut expected: Vec<_> = (2..KEYS).map(|i| (key_row(&name(i), i + 1, 1), at(i + 1))).collect();
    expected.push((key_row(&name(0), 1, 2), at(KEYS + 2)));
    assert_eq!(keys, expected);
    assert_eq!(contents.versions.len() as u64, KEYS);
    assert_eq!(contents.grants, [(grant_row("team/", 1), at(KEYS + 1))]);
    assert_eq!(contents.tombstones, [(tombstone(&name(1), 2), at(KEYS + 3))]);
    assert!(contents.largest_chunk <= 2000, "a chunk had {} rows", contents.largest_chunk);
}

/// Test.
pub async fn a_load_leaves_out_large_data(open: Open) {
    let f = Fixture::new(&open).await;
    let lengths = [3, 16, 100, 101, 5000];
    let added: Vec<VersionRow> = (1..).zip(lengths).map(|(version, length)| version_row("a", 1, version, length)).collect();
    let effect = Effect::PutKey { row: key_row("a", 1, 1), added: added.clone(), destroyed: Vec::new() };
    f.done(&[write(Target::Key(key_id("a")), Expected::Absent, effect)]).await;
    let (_, mut contents) = load(&*f.store, 100).await.expect("the store can be loaded");
    contents.versions.sort_by_key(|version| version.version);
    assert_eq!(contents.versions.len(), added.len());
    for (row, seen) in added.iter().zip(&contents.versions) {
        let data = &row.data.0;
        assert_eq!((&seen.key, seen.version, &seen.wrapped_key), (&row.key, row.version, &row.wrapped_key));
        assert_eq!(seen.data_len, data.len() as u64);
        assert_eq!(seen.data_tag[..], data[data.len().saturating_sub(16)..]);
        assert_eq!(seen.data.as_ref(), (data.len() <= 100).then_some(&row.data));
    }
}

/// Test.
pub async fn a_load_ends_when_the_visitor_refuses(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1)]).await;
    let refusal = || StoreError::Damaged("the visitor does not like it".to_owned());
    let mut calls = 0;
    let mut visit = |_| {
        calls += 1;
        Err(refusal())
    };
    assert_eq!(f.store.load(0, &mut visit).await, Err(refusal()));
    assert_eq!(calls, 1);
    f.done(&[add_version("a", 1, 1)]).await;
    assert_eq!(loaded(&f).await.generation("a"), Some(2));
}

/// Test.
pub async fn a_load_while_writing_sees_one_state(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1), create("b", 1)]).await;
    let other = Fixture { store: open().await, sealer: CountingSealer::default() };
    let writing = async {
        for from in 1..60 {
            other.done(&[add_version("a", 1, from), add_version("b", 1, from)]).await;
        }
    };
    let reading = async {
        for _ in 0..30 {
            let (head, contents) = load(&*f.store, 0).await.expect("the store can be loaded");
            let generation = contents.generation("a").expect("the key is there");
            assert_eq!(contents.generation("b"), Some(generation));
            assert_eq!(head.revision, at(generation * 2));
            assert_eq!(contents.versions.len() as u64, generation * 2);
        }
    };
    futures::future::join(writing, reading).await;
}

/// Test.
pub async fn large_batches_and_huge_values_are_kept(open: Open) {
    const HUGE: usize = 10 << 20;
    let f = Fixture::new(&open).await;
    let mut batch: Vec<Write> = (0..700).map(|i| create(&format!("k{i}"), i + 1)).collect();
    let huge = version_row("huge", 5, 1, HUGE);
    let effect = Effect::PutKey {
        row: key_row("huge", 5, 1),
        added: vec![huge.clone(), version_row("huge", 5, 2, HUGE)],
        destroyed: vec![version_id(2)],
    };
    batch.insert(350, write(Target::Key(key_id("huge")), Expected::Absent, effect));
    f.done(&batch).await;
    assert!(f.data("huge", 5, 1).await == Some((huge.wrapped_key, huge.data)), "the huge value comes back as it was");
    assert_eq!(f.data("huge", 5, 2).await, None);
    let contents = loaded(&f).await;
    assert_eq!(contents.keys.len(), 701);
    assert_eq!(contents.versions.len(), 701);
}

/// Test.
pub async fn numbers_of_all_64_bits_come_back(open: Open) {
    let f = Fixture::new(&open).await;
    let name = "x".repeat(512);
    let (incarnation, version) = (u64::MAX - 1, i64::MAX as u64);
    let effect = Effect::PutKey {
        row: key_row(&name, incarnation, 1),
        added: vec![version_row(&name, incarnation, version, 0)],
        destroyed: Vec::new(),
    };
    f.done(&[write(Target::Key(key_id(&name)), Expected::Absent, effect)]).await;
    let contents = loaded(&f).await;
    assert_eq!(contents.keys, [(key_row(&name, incarnation, 1), at(1))]);
    assert_eq!(contents.versions[0].version.get(), version);
    assert_eq!(contents.versions[0].data, Some(Sealed(Box::default())));
    f.done(&[add_version(&name, incarnation, 1)]).await;
    assert_eq!(f.data(&name, incarnation, version).await.map(|(_, data)| data.0.len()), Some(0));
}

/// Test.
pub async fn barrier_rows_are_added_and_never_replaced(open: Open) {
    let f = Fixture::new(&open).await;
    let head = f.head().await;
    f.store.add_barriers(&[barrier(1, "hsm"), barrier(2, "file")]).await.expect("new rows can be added");
    let all = vec![barrier(1, "file"), barrier(1, "hsm"), barrier(2, "file")];
    assert_eq!(f.store.barriers().await, Ok(all.clone()));
    let mut other = barrier(1, "hsm");
    other.wrapped = Sealed(b"another".as_slice().into());
    assert_eq!(f.store.add_barriers(&[barrier(3, "file"), other.clone()]).await, Err(StoreError::barrier_exists(&other)));
    assert_eq!(f.store.barriers().await, Ok(all));
    assert_eq!(f.head().await, head);
}

/// Test.
pub async fn prefix_grants_are_kept_replaced_and_removed(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[grant("", Expected::Absent, 1), grant("a/", Expected::Absent, 1), grant("b:", Expected::Absent, 1)]).await;
    f.done(&[grant("a/", first_grant(), 2), write(Target::Prefix(prefix("b:")), first_grant(), Effect::DeleteGrant)]).await;
    let mut grants = loaded(&f).await.grants;
    grants.sort_by_key(|(_, revision)| *revision);
    assert_eq!(grants, [(grant_row("", 1), at(1)), (grant_row("a/", 2), at(4))]);
    f.done(&[grant("b:", Expected::Absent, 1)]).await;
}

/// Test.
pub async fn approvals_are_kept_replaced_and_removed(open: Open) {
    let f = Fixture::new(&open).await;
    let highest = u64::MAX - 5;
    f.done(&[approval(1, 1), approval(highest, 1), approval(highest, 2)]).await;
    assert_eq!(f.commit(&[approval(1, 3), approval(2, 2), approval(1, 1)]).await, [CommitOutcome::Conflict; 3]);
    assert_eq!(loaded(&f).await.approvals, [(approval_row(1, 1), at(1)), (approval_row(highest, 2), at(3))]);
    let expected = Expected::At(Incarnation(highest), Generation(2));
    f.done(&[write(Target::Approval(ApprovalId(highest)), expected, Effect::DropApproval)]).await;
    assert_eq!(loaded(&f).await.approvals, [(approval_row(1, 1), at(1))]);
}

/// Test.
pub async fn an_approval_is_used_with_its_change_or_not_at_all(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1), create("b", 1), approval(1, 1), approval(2, 1)]).await;
    let using = |write: Write, row: ApprovalRow| Write { uses: Some(Box::new(row)), ..write };
    let steps = [
        // The key has changed: the approval stays.
        using(add_version("a", 1, 9), approval_row(1, 2)),
        // It is done once, by whoever comes first.
        using(add_version("a", 1, 1), approval_row(1, 2)),
        using(add_version("b", 1, 1), approval_row(1, 2)),
        // It was taken back in between; it was never there.
        approval(2, 2),
        using(add_version("a", 1, 2), approval_row(2, 2)),
        using(add_version("a", 1, 2), approval_row(3, 2)),
    ];
    let done: Vec<bool> = f.commit(&steps).await.iter().map(|outcome| outcome.revision().is_some()).collect();
    assert_eq!(done, [false, true, false, true, false, false]);
    let contents = loaded(&f).await;
    assert_eq!((contents.generation("a"), contents.generation("b")), (Some(2), Some(1)));
    assert_eq!(contents.approvals, [(approval_row(1, 2), at(5)), (approval_row(2, 2), at(6))]);
    assert_eq!(f.commit(&[using(delete("a", 1, 2), approval_row(1, 2))]).await, [CommitOutcome::Conflict]);
    f.done(&[using(delete("a", 1, 2), approval_row(1, 3))]).await;
}

/// Test.
pub async fn reopening_keeps_everything(open: Open) {
    let f = Fixture::new(&open).await;
    f.done(&[create("a", 1), create("b", 1), create("c", 3), grant("p/", Expected::Absent, 1)]).await;
    f.done(&[add_version("a", 1, 1), delete("b", 1, 1)]).await;
    let (head, contents) = load(&*f.store, 50).await.expect("the store can be loaded");
    let changes = f.store.changes(Revision::default(), 100).await;
    let history = f.store.history(&key_ref("a", 1), 9).await;
    f.store.close().await;
    drop(f);
    let store = open().await;
    assert_eq!(load(&*store, 50).await, Ok((head.clone(), contents)));
    assert_eq!(store.head().await, Ok(Some(head)));
    assert_eq!(store.changes(Revision::default(), 100).await, changes);
    assert_eq!(store.history(&key_ref("a", 1), 9).await, history);
    assert_eq!(store.barriers().await, Ok(vec![barrier(1, "file")]));
    let reopened = Fixture { store, sealer: CountingSealer::default() };
    assert_eq!(reopened.done(&[add_version("a", 1, 2)]).await, [at(7)]);
}
