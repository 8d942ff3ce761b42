//! What the application asks of the outside world, and nothing about how it is done: no SQL, no keys, no plaintext.

mod audit;
mod mem;
mod rows;
mod store;
#[cfg(feature = "suite")]
pub mod suite;

pub use audit::{AuditError, AuditSink, LogCheckpoint};
pub use mem::{CHANGES_KEPT, HISTORY_LIMIT, MemStore};
pub use rows::{
    ApprovalRow, BarrierRow, ChangeRow, DamagedRow, DigestDelta, GrantRow, HeadRow, KeyRow, Loaded, LoadedVersion, Sealed, TombstoneRow,
    VersionRow,
};
pub use store::{Change, CommitOutcome, Effect, Expected, HeadError, HeadSealer, Store, StoreError, Target, Write};
