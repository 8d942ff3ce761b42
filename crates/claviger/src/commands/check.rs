//! `claviger check`: verifies a whole store and its audit log from their files.

use super::server::{failed, show};
use crate::failure::Failure;
use clap::Args;
use claviger_server::command::{Checked, Place, check};
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
        let checked = check(&place).map_err(failed)?;
        Failure::verdict(u8::from(!checked.good), show(&checked, json, sentences))
    }
}

fn sentences(checked: &Checked) -> String {
    let Checked { findings, keys, versions, revision, audit_entries, audit_checkpoints, .. } = checked;
    let bad = findings.iter().map(|finding| format!("BAD  {finding}\n")).collect::<String>();
    format!(
        "{bad}{keys} keys, {versions} versions opened, revision {revision}; audit log of {audit_entries} entries, {audit_checkpoints} checkpoints"
    )
}
