//! Roots of trust: what wraps the barrier keys.

use claviger_domain::SecretBytes;
use claviger_ports::Sealed;
use futures::future::BoxFuture;
use std::path::PathBuf;
use thiserror::Error;

/// Something outside the store that wraps and unwraps barrier keys: a file, an HSM, a key service.
///
/// # Guarantees
/// `unwrap` returns what `wrap` was given for the same context, and an error for anything else: another context, altered
/// bytes, what another root has wrapped. Every implementation passes `suite::check` (feature `suite`).
pub trait RootOfTrust: Send + Sync {
    /// The root's name; the store keeps it beside what the root has wrapped. Stable for one root, different for another.
    fn name(&self) -> &str;

    /// One honest sentence: what protects the store, and against what that does not help.
    fn promise(&self) -> String;

    /// Wraps `key`, bound to `context`.
    fn wrap<'a>(&'a self, context: &'a [u8], key: &'a SecretBytes) -> BoxFuture<'a, Result<Sealed, RootError>>;

    /// Unwraps what [`RootOfTrust::wrap`] made for the same context.
    fn unwrap<'a>(&'a self, context: &'a [u8], wrapped: &'a Sealed) -> BoxFuture<'a, Result<SecretBytes, RootError>>;
}

/// Why a root of trust cannot be used, or did not wrap or unwrap.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootError {
    /// It cannot be reached now.
    #[error("the root of trust is unavailable: {0}")]
    Unavailable(String),
    /// It refused to serve this program.
    #[error("the root of trust refused: {0}")]
    Refused(String),
    /// It did not wrap these bytes for this context, or they were altered.
    #[error("this root did not wrap these bytes for this place, or they were altered")]
    NotAuthentic,
    /// A file or folder that others than its owner, or another owner, could read or replace.
    #[error("`{}` {found}; {remedy}", path.display())]
    Permissions {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A file that is there already; nothing overwrites a root key.
    #[error("`{}` exists already; a root key is never overwritten", .0.display())]
    Exists(PathBuf),
    /// A file that is no root key, or a damaged one.
    #[error("`{}` {why}; restore it from its backup", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        why: &'static str,
    },
    /// The operating system refused.
    #[error("`{}`: {why}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's message.
        why: String,
    },
}
