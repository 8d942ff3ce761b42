//! The audit log as the application sees it.

use claviger_domain::audit::Record;
use futures::future::BoxFuture;
use thiserror::Error;

/// A state of a log: how many entries, and the Merkle root over them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogCheckpoint {
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 tree head.
    pub root: [u8; 32],
}

/// Why a record could not be kept. An answer that needs it must then not leave ▲.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuditError {
    /// No space is left for the log.
    #[error("the audit log has no space left; free some in its folder or configure a second one")]
    Full,
    /// The log cannot be written.
    #[error("the audit log cannot be written: {0}")]
    Io(String),
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
}

/// Keeps records.
///
/// # Guarantees
/// A future that returns `Ok` means that the record is on stable storage (or as safe as the log's configured, weaker
/// setting makes it). Records are kept in the order in which `append` was called.
pub trait AuditSink: Send + Sync {
    /// Queues a record at once; the future completes when it is durable.
    fn append(&self, record: &Record<'_>) -> BoxFuture<'static, Result<(), AuditError>>;

    /// The last signed state, if there is one.
    fn checkpoint(&self) -> Option<LogCheckpoint>;

    /// Whether records are kept in the last space that is left. It is for the records of reads: changes are refused then, so
    /// that the store does not take it.
    fn is_short_of_space(&self) -> bool {
        false
    }
}
