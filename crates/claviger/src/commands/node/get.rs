//! `claviger node get`: a secret's value from the agent, without the server.

use super::{Which, failed};
use crate::failure::Failure;
use crate::{output, parse};
use clap::Args;
use claviger_domain::KeyId;
use rustix::termios::isatty;

/// Options of `node get`. Who may read what stands in the agent's configuration.
#[derive(Args)]
pub(crate) struct Get {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    which: Which,
}

impl Get {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let query = if json { "?all" } else { "" };
        let answer = self.which.agent().ask("GET", &format!("/v1/secrets/{}{query}", self.id)).map_err(failed)?;
        if let Some(seconds) = answer.header("claviger-offline") {
            eprintln!("note: the server is out of reach since {seconds} s; this is the last value that was known");
        }
        output::raw(&answer.body)?;
        if json || isatty(std::io::stdout()) {
            output::raw(b"\n")?;
        }
        Ok(0)
    }
}
