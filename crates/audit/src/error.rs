//! What can go wrong in the audit log, and whose fault it is.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the audit log. It is `Clone` because one failed write fails every append of its group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The disk (or quota) is full and no reserve or standby folder is left. Clears by itself when there is space.
    #[error("no space left for the audit log at {}", path.display())]
    Full {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("{op} {}: {message}", path.display())]
    Io {
        /// What was attempted.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// The error's kind.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// More bytes wait to be written than the configured bound; the caller should answer "try again".
    #[error("the audit log's queue is full")]
    Overloaded,
    /// The entry is empty or longer than [`crate::MAX_ENTRY`].
    #[error("an audit entry has {len} bytes, allowed are 1 to 65536")]
    EntrySize {
        /// Its length in bytes.
        len: usize,
    },
    /// The log was closed.
    #[error("the audit log is closed")]
    Closed,
    /// Another process writes this log.
    #[error("the audit log at {} is in use by another process", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The log is shorter than, or differs from, what the caller remembers of it.
    #[error("the audit log was rolled back or replaced: expected tree of {expected} entries, {found}")]
    RolledBack {
        /// Size of the remembered tree.
        expected: u64,
        /// What is there instead.
        found: String,
    },
    /// Acknowledged data is damaged or missing.
    #[error("{} is damaged at byte {offset}: {why}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The folder belongs to another log or another key.
    #[error("{} belongs to another log: {why}", path.display())]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// A signed note, checkpoint or verifier key is malformed or its signature is wrong.
    #[error("bad signed note: {0}")]
    BadNote(&'static str),
    /// The entry was pruned.
    #[error("entry {index} was pruned")]
    Pruned {
        /// The index that was asked for.
        index: u64,
    },
    /// The index or size is past the end of the log.
    #[error("{index} is outside the log of {size} entries")]
    OutOfRange {
        /// The index that was asked for.
        index: u64,
        /// The log's size.
        size: u64,
    },
}

impl AuditError {
    /// An operating-system error at `path`, with a full disk told apart.
    pub(crate) fn io(op: &'static str, path: &Path, error: &io::Error) -> Self {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
        if full {
            return Self::Full { path: path.into() };
        }
        Self::Io { op, path: path.into(), kind: error.kind(), message: error.to_string() }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, why: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), offset, why: why.into() }
    }

    /// Whether the cause is a full disk (an answer of 507 rather than 503).
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { kind: io::ErrorKind::NotFound, .. })
    }
}
