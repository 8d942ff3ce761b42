//! `claviger config`: a server's configuration, checked without a server.

use crate::failure::Failure;
use clap::Subcommand;
use claviger_server::command;
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
    pub(crate) fn run(self, _json: bool) -> Result<u8, Failure> {
        match self {
            Self::Check { file } => {
                let said = command::check_config(&file).map_err(|e| Failure::invalid(format!("{e:#}")))?;
                println!("{said}");
            }
            Self::Reference => print!("{}", claviger_server::config::reference()),
        }
        Ok(0)
    }
}
