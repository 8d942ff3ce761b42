//! `claviger config`: a server's configuration, checked without a server.

use super::server::show;
use crate::failure::Failure;
use crate::output;
use clap::Subcommand;
use claviger_server::command::{self, GoodConfig};
use claviger_server::config::{fields, reference};
use std::path::PathBuf;

/// The commands of `config`.
#[derive(Subcommand)]
pub(crate) enum Config {
    /// Check a configuration file; errors name the line and the remedy.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print what every field does, as Markdown.
    Reference,
}

impl Config {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        match self {
            Self::Check { file } => {
                let good = command::check_config(&file).map_err(|e| Failure::usage(format!("{e:#}")))?;
                show(&good, json, |GoodConfig { file, listen, store }| {
                    format!("{} is good: {} addresses, store {}", file.display(), listen.len(), store.display())
                })?;
            }
            Self::Reference if json => output::json(&fields().collect::<Vec<_>>())?,
            Self::Reference => output::raw(reference().as_bytes())?,
        }
        Ok(0)
    }
}
