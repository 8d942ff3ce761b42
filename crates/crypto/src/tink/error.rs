//! What can be wrong with keysets and what is done with them. No message has a byte of a key or of data.

use thiserror::Error;

/// Why a keyset cannot be read or used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TinkError {
    /// The bytes are no keyset in Tink's binary form.
    #[error("this is no Tink keyset: {0}")]
    Malformed(&'static str),
    /// The key that the keyset calls primary is not in it.
    #[error("the keyset has no key with the id {0} that it calls primary")]
    NoPrimary(u32),
    /// Several keys have the primary's id: Tink would refuse the keyset too.
    #[error("the keyset has several keys with the id {0} of its primary key: the same key was added twice")]
    TwoPrimaries(u32),
    /// The primary key is disabled or destroyed.
    #[error("the keyset's primary key {0} is not enabled")]
    PrimaryNotEnabled(u32),
    /// No version was called primary, or several were.
    #[error("exactly one of the keysets to merge must be the primary one")]
    NotOnePrimaryVersion,
    /// A kind of key, or parameters of one, that no template makes.
    #[error("key {id} of the keyset is not supported here: {what}")]
    Unsupported {
        /// The key's id.
        id: u32,
        /// What it is, in words.
        what: String,
    },
    /// A key that is not what it claims to be, such as one of the wrong length.
    #[error("key {id} of the keyset is malformed: {what}")]
    BadKey {
        /// The key's id.
        id: u32,
        /// How.
        what: &'static str,
    },
    /// No enabled key of the keyset opens or verifies it.
    #[error("no enabled key of the keyset fits: the bytes were altered, or made with another key or other associated data")]
    NotAuthentic,
    /// More than the cipher takes.
    #[error("too long for this cipher")]
    TooLong,
    /// AWS-LC failed where it should not.
    #[error("the crypto library failed")]
    Crypto,
}

impl From<aws_lc_rs::error::Unspecified> for TinkError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Crypto
    }
}
