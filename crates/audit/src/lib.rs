//! The audit log: an append-only RFC 6962 Merkle log of opaque entries in the files of one folder.
//!
//! [`AuditLog`] appends: whatever waits is written as one frame with one `pwrite` and one
//! `fdatasync`, and only then do the appends of that frame complete. [`Reader`] reads the same files,
//! also while a server writes them, and makes proofs. [`verify`] recomputes everything from the
//! entries with nothing but the folder and the exported public key.
//!
//! What it deliberately does not do: it does not know what an entry means (each is a byte string,
//! in Claviger one JSON object), it holds no secret but the signing key it is given, and it never
//! repairs: damage in acknowledged data is reported, not skipped.
//!
//! # Files
//!
//! | file | what |
//! |---|---|
//! | `entries-NNNNNNNN.log` | a *part*: a header block and frames of entries. Normally one part is one segment of 65,536 entries, a perfect subtree; after a failed write the log goes on in a new part, so a segment may have several |
//! | `hashes-NNNNNNNN` | leaf hashes of a finished segment; derived, may be deleted |
//! | `roots` | one 32-byte root per finished segment; derived until its entries are pruned |
//! | `checkpoint` | the newest signed tree head, a C2SP signed note |
//! | `checkpoints.log` | earlier signed tree heads |
//! | `pruned` | a signed tree head at the first kept entry, once entries were pruned |
//! | `log.pub` | the public key in C2SP verifier-key form |
//! | `reserve`, `spare`, `lock` | disk space held back, the next part filled with zeros ahead, the writer's lock |

mod alerts;
mod direct;
mod disk;
mod ecs;
mod error;
mod frame;
pub mod fuzz;
mod housekeeper;
mod layout;
mod log;
pub mod merkle;
mod metrics;
pub mod note;
mod reader;
pub mod record;
mod recorder;
mod recover;
mod sink;
mod verify;
mod wake;
mod writer;

pub use alerts::{AlertLimits, Alerts};
pub use disk::Faults;
pub use ecs::encode_ecs;
pub use error::AuditError;
pub use frame::{MAX_ENTRY, SEGMENT};
pub use log::{AuditLog, Durability, Health, LogConfig, State};
pub use merkle::Hash;
pub use metrics::{Metrics, MetricsSnapshot};
pub use note::{Checkpoint, LogKey, SignedCheckpoint, VerifierKey};
pub use reader::{Backwards, Entries, Reader};
pub use recorder::Recorder;
pub use sink::{LineSink, SinkTarget};
pub use verify::{Problem, Report, verify};
pub use wake::{AppendFuture, WakeRelay};
