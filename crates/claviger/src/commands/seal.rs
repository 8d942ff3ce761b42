//! `claviger seal`: what protects the store, as the running server tells it.

use crate::cli::Session;
use crate::failure::Failure;
use crate::output::{self, Table};
use clap::Subcommand;
use claviger_wire::native::SealStatus;

/// The commands of `seal`.
#[derive(Subcommand)]
pub(crate) enum Seal {
    /// Show the barrier keys, the roots that wrap them, and what that promises.
    Status,
    /// Make a new barrier key for what is written from now on.
    Rotate,
}

impl Seal {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let seal = match self {
            Self::Status => session.client.status().await.map(|s| s.seal),
            Self::Rotate => session.client.rotate_seal().await,
        };
        let seal = seal.map_err(|e| Failure::client(e, None))?;
        match session.json {
            true => output::json(&seal)?,
            false => {
                let mut table = Table::plain();
                rows(&mut table, &seal);
                table.print()?;
            }
        }
        Ok(0)
    }
}

/// The seal's part of a table of names and values.
pub(crate) fn rows(table: &mut Table, seal: &SealStatus) {
    let versions = seal.barrier_versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    table.row(["barrier key", &format!("{} (can open {versions})", seal.barrier_version)]);
    for root in &seal.roots {
        table.row(["root", root]);
    }
    table.row(["promise", &seal.promise]);
}
