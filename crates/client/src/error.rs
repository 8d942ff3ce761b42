//! What can go wrong between a caller and the server, and whose fault it is.

use crate::ConfigError;
use claviger_domain::Revision;
use claviger_wire::native::{ApprovalInfo, Problem};
use std::time::Duration;
use thiserror::Error;

/// An error of the client. No variant ever holds part of an answer that may carry a secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's configuration is wrong; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No connection came about.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// The two sides do not trust each other.
    #[error("no trusted connection to {address}: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What the handshake failed on.
        reason: String,
    },
    /// The connection broke after the request, or part of it, was sent. Whether a change was made is not known.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// Host and port.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// No whole answer within the time limit. Whether a change was made is not known.
    #[error("{address} did not answer within {} s", limit.as_secs_f32())]
    Timeout {
        /// Host and port.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The server shows less than was told before: it is an older copy, or was restored while its clock was wrong. Nothing is taken from it.
    #[error(
        "{address} is behind: it shows revision {shows}, and {told} was told before; nothing is taken from it. If it was restored from a backup, set its clock and start it again"
    )]
    Behind {
        /// Host and port.
        address: String,
        /// What it shows.
        shows: Revision,
        /// What was told before.
        told: Revision,
    },
    /// What answered does not speak the native API.
    #[error("the server's answer is malformed: {0}")]
    Malformed(String),
    /// The session is over, and could not be renewed.
    #[error("the session is over: {0}")]
    SessionOver(String),
    /// Approval was asked for, as the configuration says, and nothing else was done.
    #[error("approval {} was asked for; nothing is changed until it is given", .0.id)]
    Asked(Box<ApprovalInfo>),
    /// The server refused, and says why.
    #[error("{}", problem.detail)]
    Refused {
        /// Its words.
        problem: Box<Problem>,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
}

impl Error {
    /// The problem's stable code when the server refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(&problem.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } | Self::Behind { .. } => true,
            Self::Refused { problem, .. } => matches!(problem.status, 429 | 502..=504),
            Self::Config(_) | Self::Tls { .. } | Self::Malformed(_) | Self::SessionOver(_) | Self::Asked(_) => false,
        }
    }

    /// How long the server asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
