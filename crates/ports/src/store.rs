//! The store: rows in, rows out, and one order of commits.

use crate::rows::{ApprovalRow, BarrierRow, ChangeRow, DigestDelta, GrantRow, HeadRow, KeyRow, Loaded, Sealed, TombstoneRow, VersionRow};
use claviger_domain::{ApprovalId, Generation, Incarnation, KeyId, KeyRef, Prefix, RequestId, Revision, Timestamp, VersionId};
use futures::future::BoxFuture;
use thiserror::Error;

/// What a write changes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A key.
    Key(KeyId),
    /// A prefix's grants.
    Prefix(Prefix),
    /// A request for approval. Its incarnation is its id.
    Approval(ApprovalId),
}

/// What must stand in the store for a write to take place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// No row of this name.
    Absent,
    /// This generation of this incarnation.
    At(Incarnation, Generation),
}

/// What a write does.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Inserts or replaces the key's row (the old one goes to `history`), adds `added` versions, and erases the wrapped
    /// key and the data of the `destroyed` ones.
    PutKey {
        /// The new row.
        row: KeyRow,
        /// New versions.
        added: Vec<VersionRow>,
        /// Versions whose data is erased.
        destroyed: Vec<VersionId>,
    },
    /// Removes the key's row, versions and history, and leaves a tombstone.
    DeleteKey(TombstoneRow),
    /// Inserts or replaces a prefix's row.
    PutGrant(GrantRow),
    /// Removes a prefix's row.
    DeleteGrant,
    /// Inserts or replaces the row of a request for approval.
    PutApproval(ApprovalRow),
    /// Removes the row of a request for approval.
    DropApproval,
}

/// What the change table says of a write.
#[derive(Clone, Debug)]
pub struct Change {
    /// The action's name.
    pub what: &'static str,
    /// The caller's name.
    pub actor: String,
    /// The request.
    pub request_id: RequestId,
    /// When.
    pub at: Timestamp,
}

/// One atomic change of one key, prefix or request for approval, together with the approval that it rests on. It is the only way to write: compare and replace ▲.
#[derive(Clone, Debug)]
pub struct Write {
    /// What it changes.
    pub target: Target,
    /// What must be there.
    pub expected: Expected,
    /// What it does.
    pub effect: Effect,
    /// The row, from now on, of the approval that it rests on: what stands must be one generation behind, or nothing is
    /// written at all. So an approval is used once ▲.
    pub uses: Option<Box<ApprovalRow>>,
    /// What the set digest gains when it takes place.
    pub digest: DigestDelta,
    /// What the change table says.
    pub change: Change,
}

/// How one write of a batch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// It took place, at this revision.
    Done(Revision),
    /// Something else stands there; nothing was written for it.
    Conflict,
}

/// Makes the next head. The application hands it to the store, which owns no key.
pub trait HeadSealer: Send + Sync {
    /// The epoch of what follows `current`: its own or a later one.
    fn epoch(&self, current: Revision) -> u64 {
        current.epoch
    }

    /// The head after `gained.len()` writes have taken place on `current`, whose seal is checked first.
    /// Its revision is `current`'s plus that number, in the epoch that [`HeadSealer::epoch`] says.
    ///
    /// # Errors
    /// [`HeadError`] when `current` was not made by this store's owner.
    fn advance(&self, current: &HeadRow, gained: &[DigestDelta]) -> Result<HeadRow, HeadError>;
}

/// The head in the store is not one that Claviger sealed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the store's head does not authenticate: {0}")]
pub struct HeadError(pub String);

/// Why a store could not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// It cannot be reached or did not answer in time; nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// No space is left; nothing was written.
    #[error("the store is full: {0}")]
    Full(String),
    /// The commit's answer was lost: compare the head's commit id.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// What is stored cannot be what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Another, newer program has changed the schema.
    #[error("the store's schema {found} is newer than this program's {known}; use the newer program")]
    TooNew {
        /// The store's schema version.
        found: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The head failed its check.
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// A place for rows.
///
/// # Guarantees
/// - `commit` is atomic and durable when it returns: each write of the batch took place or was a conflict; the done ones
///   have consecutive revisions in batch order; the new head covers just them. When none is done the head stays.
/// - Two commits never interleave: they run under the head row's lock.
/// - `load` sees one consistent state and returns its head.
///
/// # Errors
/// After [`StoreError::Unknown`] the batch took place as a whole or not at all.
pub trait Store: Send + Sync {
    /// The head, or `None` in a store that was never initialised.
    fn head(&self) -> BoxFuture<'_, Result<Option<HeadRow>, StoreError>>;

    /// Writes the first head and the first barrier row into an empty store.
    fn initialise<'a>(&'a self, head: &'a HeadRow, barrier: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Delivers every key, version, grant, tombstone and request for approval in chunks, keys before their versions; data longer than
    /// `inline_limit` bytes is left out. Returns the head that belongs to them.
    fn load<'a>(
        &'a self,
        inline_limit: u64,
        visit: &'a mut (dyn FnMut(Vec<Loaded>) -> Result<(), StoreError> + Send),
    ) -> BoxFuture<'a, Result<HeadRow, StoreError>>;

    /// Commits a batch in order; see the trait's guarantees.
    fn commit<'a>(&'a self, batch: &'a [Write], sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<Vec<CommitOutcome>, StoreError>>;

    /// Replaces the head, and nothing else, by what `sealer` makes of it with nothing gained.
    fn reseal<'a>(&'a self, sealer: &'a dyn HeadSealer) -> BoxFuture<'a, Result<(), StoreError>>;

    /// One version's wrapped key and data; `None` when it is not there or destroyed.
    fn version<'a>(&'a self, key: &'a KeyRef, version: VersionId) -> BoxFuture<'a, Result<Option<(Sealed, Sealed)>, StoreError>>;

    /// Earlier rows of an incarnation with the revision that replaced each, newest first.
    fn history<'a>(&'a self, key: &'a KeyRef, limit: u32) -> BoxFuture<'a, Result<Vec<(KeyRow, Revision)>, StoreError>>;

    /// Changes after a revision in order, at most `limit`; the newest [`crate::CHANGES_KEPT`] are there.
    fn changes(&self, after: Revision, limit: u32) -> BoxFuture<'_, Result<Vec<ChangeRow>, StoreError>>;

    /// All barrier rows.
    fn barriers(&self) -> BoxFuture<'_, Result<Vec<BarrierRow>, StoreError>>;

    /// Adds barrier rows; one that is there already is an error.
    fn add_barriers<'a>(&'a self, rows: &'a [BarrierRow]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Finishes what is under way and closes files and connections.
    fn close(&self) -> BoxFuture<'_, ()>;
}
