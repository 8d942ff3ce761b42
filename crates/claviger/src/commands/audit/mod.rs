//! `claviger audit`: the audit log, through a server or straight from its files.

mod export;
mod prove;
mod query;
mod reach;
mod record;
mod tail;
mod verify;

use crate::cli::Session;
use crate::failure::Failure;
use clap::Subcommand;

/// The commands of `audit`: those that ask a server and those that need only files.
#[derive(Subcommand)]
pub(crate) enum Audit {
    #[command(flatten)]
    Online(Online),
    #[command(flatten)]
    Offline(Offline),
}

/// Commands that ask a server.
#[derive(Subcommand)]
pub(crate) enum Online {
    /// Show the newest records.
    Tail(tail::Tail),
    /// Search the records.
    Query(query::Query),
    /// List which keys a principal did read. What it could read is in `claviger reach`.
    Reach(reach::Reach),
}

/// Commands that read the log's folder and need no server.
#[derive(Subcommand)]
pub(crate) enum Offline {
    /// Recompute the whole log and check all signatures, or check the proof of one record; the exit code is 1 if anything is
    /// wrong.
    Verify(verify::Verify),
    /// Prove that one record is in the log: `audit verify --proof` checks what this writes.
    Prove(prove::Prove),
    /// Write records as JSON lines.
    Export(export::Export),
}

impl Online {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match self {
            Self::Tail(c) => c.run(session).await,
            Self::Query(c) => c.run(session).await,
            Self::Reach(c) => c.run(session).await,
        }
    }
}

impl Offline {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        match self {
            Self::Verify(c) => c.run(json),
            Self::Prove(c) => c.run(json),
            Self::Export(c) => c.run(),
        }
    }
}
