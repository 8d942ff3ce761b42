//! Why a call failed, in the words of Knox's own client where programs look for them.

use crate::Error;
use thiserror::Error;

/// A failed call.
#[derive(Debug, Error)]
pub enum KnoxError {
    /// The settings do not say where the server is, or whom to trust.
    #[error("{0}")]
    Settings(String),
    /// There is nothing to say who one is.
    #[error("No authentication data given. Use 'knox login' or set KNOX_USER_AUTH or KNOX_MACHINE_AUTH")]
    NoProof,
    /// No proof was enough.
    #[error(
        "Unsuccessful authorization. No attempted principals were able to perform the requested operation: attempted auth types: [{}]",
        kinds.join(" ")
    )]
    NotAllowed {
        /// What was tried.
        kinds: Vec<&'static str>,
        /// What the server said to the last one.
        said: String,
    },
    /// The server refused, and says why.
    #[error("{message}")]
    Refused {
        /// Its code (§2).
        code: i64,
        /// Its words.
        message: String,
    },
    /// What answered does not speak Knox's protocol.
    #[error("the answer (HTTP status {status}) is none of a Knox server")]
    NoKnox {
        /// Its HTTP status.
        status: u16,
    },
    /// An answer of success does not hold what it should.
    #[error("the server's answer is malformed: {0}")]
    Malformed(String),
    /// An access entry that cannot be sent.
    #[error("{0}")]
    Entry(String),
    /// No answer came.
    #[error(transparent)]
    Transport(#[from] Error),
}
