//! `claviger server`: runs or prepares a server.

use crate::failure::Failure;
use crate::parse;
use clap::{Args, Subcommand};
use claviger_domain::Principal;
use claviger_server::command;
use std::path::PathBuf;

/// Options of `server`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Server {
    #[command(subcommand)]
    task: Option<Task>,
    /// Run a development server that needs nothing: its own CA, root and tokens, all in --dir.
    #[arg(long, requires = "dir", required_unless_present = "config")]
    dev: bool,
    /// The development server's folder; `dev.env` in it has the clients' settings.
    #[arg(long, value_name = "DIR", requires = "dev")]
    dir: Option<PathBuf>,
    /// Run a server by this configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What can be done instead of running.
#[derive(Subcommand)]
enum Task {
    /// Prepare a store: its root of trust, and its first administrators.
    Init {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Who gets all rights on all keys, TYPE:ID; may be repeated.
        #[arg(long = "admin", value_name = "PRINCIPAL", value_parser = parse::principal, required = true, num_args = 1..)]
        admins: Vec<Principal>,
        /// Let any authenticated user create keys, as Knox does.
        #[arg(long)]
        knox: bool,
    },
    /// Make a short-lived administrator's certificate on the machine that holds the root; it is loudly audited.
    BreakGlass {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Why; stands in the audit log.
        #[arg(long)]
        reason: String,
        /// Where the certificate and its key are written.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

impl Server {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let failed = |e: anyhow::Error| Failure::other(format!("{e:#}"));
        match self.task {
            Some(Task::Init { config, admins, knox }) => println!("{}", command::init(&config, &admins, knox).map_err(failed)?),
            Some(Task::BreakGlass { config, reason, out }) => println!("{}", command::break_glass(&config, &reason, &out).map_err(failed)?),
            None if self.dev => {
                let dir = self.dir.ok_or_else(|| Failure::other("--dev needs --dir DIR"))?;
                command::serve_dev(&dir, self.config.as_deref()).map_err(failed)?;
            }
            None => {
                let file = self.config.ok_or_else(|| Failure::other("give --config FILE, or --dev --dir DIR"))?;
                command::serve(&file).map_err(failed)?;
            }
        }
        Ok(0)
    }
}
