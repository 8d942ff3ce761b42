//! What can go wrong with keys and sealed rows. Messages name the place and the barrier key, never contents.

use crate::RootError;
use claviger_domain::{AclError, KeyIdError, MetaError, PrefixError, RuleError, VersionError};
use std::fmt;
use thiserror::Error;

/// Why something could not be sealed, opened or verified.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The bytes are not what Claviger wrote for this place: altered, moved from elsewhere, or asked for with a permit for
    /// another key. A cipher cannot tell which.
    #[error("{what} does not authenticate under barrier key {barrier}: it was altered, or it belongs elsewhere")]
    Tampered {
        /// The place.
        what: String,
        /// The barrier key that it says it was made with.
        barrier: u32,
    },
    /// A row is genuine, but a column beside its authenticated bytes says something else.
    #[error("{what}: the column `{column}` contradicts the row's authenticated bytes")]
    Mismatch {
        /// The place.
        what: String,
        /// The column's name.
        column: &'static str,
    },
    /// Made with a barrier key that this key ring does not have: its row was removed, or another server has rotated.
    #[error("{what} was made with barrier key {version}, which is not in the key ring")]
    UnknownBarrier {
        /// The place.
        what: String,
        /// The missing barrier key.
        version: u32,
    },
    /// It has no form that this program knows.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The place.
        what: String,
        /// How.
        why: Malformation,
    },
    /// It authenticates, and is no material that can be used: a mistake of ours.
    #[error("{what} cannot be used")]
    Unusable {
        /// The place.
        what: String,
    },
    /// The key was made so that its material never leaves ▲.
    #[error("this key is not exportable; that was decided when it was made")]
    NotExportable,
    /// More data than one AES-GCM message can hold (NIST SP 800-38D §5.2.1.1).
    #[error("{what} is too long for one AES-GCM message")]
    TooLong {
        /// The place.
        what: String,
    },
    /// No configured root of trust unwraps a barrier key.
    #[error("no configured root of trust opens barrier key {version}, which is wrapped by {}; {}", names(wrapped_by), attempts(tried))]
    NoRootOpens {
        /// The barrier key.
        version: u32,
        /// The roots that the store says wrap it.
        wrapped_by: Vec<String>,
        /// The configured roots among them, and why each failed.
        tried: Vec<Tried>,
    },
    /// There is no row for a barrier key that must be there.
    #[error("the store has no row of barrier key {version}; restore it from a backup")]
    MissingBarrier {
        /// The barrier key.
        version: u32,
    },
    /// A key ring needs at least one root of trust.
    #[error("no root of trust is configured")]
    NoRoots,
    /// A root of trust did not wrap a new barrier key.
    #[error("the root of trust `{root}` could not wrap barrier key {version}: {why}")]
    NotWrapped {
        /// The root's name.
        root: String,
        /// The barrier key.
        version: u32,
        /// Why.
        why: RootError,
    },
}

/// A root of trust that was asked and did not open a barrier key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Its name.
    pub root: String,
    /// Its answer.
    pub why: RootError,
}

/// How bytes break their format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformation {
    /// They end early.
    #[error("it ends too early")]
    Truncated,
    /// There are more than belong to it.
    #[error("bytes are left over at its end")]
    Trailing,
    /// A format that this program does not know.
    #[error("unknown format {0}; a newer program may have written it")]
    Format(u8),
    /// A code or flag without a meaning.
    #[error("the code {code} means nothing as {field}")]
    Code {
        /// What it stands for.
        field: &'static str,
        /// The code.
        code: u64,
    },
    /// A number in a longer form than it needs.
    #[error("a number is not in its shortest form")]
    NotShortest,
    /// Text that is no UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Labels out of order or twice.
    #[error("labels are not in order")]
    LabelOrder,
    /// A key id that breaks the rules.
    #[error(transparent)]
    KeyId(#[from] KeyIdError),
    /// A prefix that breaks the rules.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// An ACL that breaks the rules.
    #[error(transparent)]
    Acl(#[from] AclError),
    /// Versions that break the rules.
    #[error(transparent)]
    Versions(#[from] VersionError),
    /// Labels that break the rules.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// Rules of approval that break the rules.
    #[error(transparent)]
    Rules(#[from] RuleError),
    /// A barrier key of another length than 32 bytes.
    #[error("a barrier key has 32 bytes, not {0}")]
    BarrierLength(usize),
}

fn names(roots: &[String]) -> String {
    let quoted: Vec<_> = roots.iter().map(|r| format!("`{r}`")).collect();
    quoted.join(", ")
}

fn attempts(tried: &[Tried]) -> String {
    if tried.is_empty() {
        return "none of these is configured".to_owned();
    }
    let each: Vec<_> = tried.iter().map(Tried::to_string).collect();
    each.join("; ")
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.root, self.why)
    }
}
