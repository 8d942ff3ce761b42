//! `claviger check`: verifies a whole store and its audit log from their files.

use crate::failure::Failure;
use clap::Args;
use claviger_server::command::{Place, check};
use std::path::PathBuf;

/// Options of `check`.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Check {
    /// The server's configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A development server's folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Check {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let place = match (&self.config, &self.dir) {
            (Some(file), _) => Place::Config(file),
            (None, Some(dir)) => Place::Dev(dir),
            (None, None) => return Err(Failure::usage("give --config FILE or --dir DIR")),
        };
        let (good, text) = check(&place).map_err(|e| Failure::other(format!("{e:#}")))?;
        match json {
            true => crate::output::json(&serde_json::json!({ "good": good, "findings": text.lines().collect::<Vec<_>>() }))?,
            false => println!("{text}"),
        }
        Ok(u8::from(!good))
    }
}
