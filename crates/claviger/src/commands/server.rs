//! `claviger server`: runs or prepares a server.

use crate::failure::Failure;
use crate::{output, parse};
use clap::{Args, Subcommand};
use claviger_domain::Principal;
use claviger_server::command::{self, Emergency, Prepared};
use claviger_server::config::ConfigError;
use serde::Serialize;
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
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        match self.task {
            Some(Task::Init { config, admins, knox }) => show(&command::init(&config, &admins, knox).map_err(failed)?, json, prepared)?,
            Some(Task::BreakGlass { config, reason, out }) => {
                show(&command::break_glass(&config, &reason, &out).map_err(failed)?, json, emergency)?;
            }
            None if self.dev => {
                let dir = self.dir.ok_or_else(|| Failure::usage("--dev needs --dir DIR"))?;
                command::serve_dev(&dir, self.config.as_deref()).map_err(failed)?;
            }
            None => {
                let file = self.config.ok_or_else(|| Failure::usage("give --config FILE, or --dev --dir DIR"))?;
                command::serve(&file).map_err(failed)?;
            }
        }
        Ok(0)
    }
}

/// A command of the server's own that failed: by the settings, or otherwise.
pub(crate) fn failed(error: anyhow::Error) -> Failure {
    match error.is::<ConfigError>() {
        true => Failure::usage(format!("{error:#}")),
        false => Failure::other(format!("{error:#}")),
    }
}

/// Prints what was done, for programs or in sentences.
pub(crate) fn show<T: Serialize>(done: &T, json: bool, sentences: impl Fn(&T) -> String) -> Result<(), Failure> {
    match json {
        true => output::json(done),
        false => output::raw(format!("{}\n", output::clean_lines(&sentences(done))).as_bytes()),
    }
}

fn prepared(done: &Prepared) -> String {
    let Prepared { store, administrators, root_key } = done;
    format!(
        "prepared {}\nadministrators of everything: {}\nback up {} apart from the database: both together are every secret, and without it none can be read",
        store.display(),
        administrators.join(", "),
        root_key.display()
    )
}

fn emergency(done: &Emergency) -> String {
    let Emergency { name, certificate, key, valid_seconds } = done;
    format!(
        "{name}: valid for {} minutes, in {} and {}\nIt may list and administer everything the empty prefix grants to `user_group:claviger:break-glass`, and is recorded in the audit log.\nUse it with CLAVIGER_CERT and CLAVIGER_KEY, then delete both files.",
        valid_seconds / 60,
        certificate.display(),
        key.display()
    )
}
