//! What can be wrong with the folder, and what to do.

use super::BadKey;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Nothing was changed, unless it is said.
#[derive(Debug, Error)]
pub enum FolderError {
    /// There is no such folder.
    #[error("there is no folder {}: is the node agent or Knox's daemon running?", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// Someone who is not trusted here owns it.
    #[error("{} belongs to user {owner}, who could replace what is in it; remove it or give it to the agent's user", path.display())]
    Untrusted {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A link, FIFO or folder stands in the place of a file.
    #[error("{} {what}; it is not touched: remove it", path.display())]
    NotPlain {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Another process held the lock for ten seconds.
    #[error("{} is locked by another process since 10 s{}", path.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The registration file.
        path: PathBuf,
        /// Who holds it, as far as the kernel says.
        holder: Option<u32>,
    },
    /// A file is far too large.
    #[error("{} has more than {} MiB", path.display(), most >> 20)]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit in bytes.
        most: usize,
    },
    /// The id cannot be a file's name.
    #[error("`{id}` cannot be cached as a file: {why}")]
    Unnameable {
        /// The key.
        id: String,
        /// The reason.
        why: &'static str,
    },
    /// A cached key's file does not hold one.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// In what way.
        problem: BadKey,
    },
    /// The system refused.
    #[error("{step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl FolderError {
    pub(super) fn io(step: &'static str, path: &Path, error: Errno) -> Self {
        Self::Io { step, path: path.to_owned(), source: error.into() }
    }
}
