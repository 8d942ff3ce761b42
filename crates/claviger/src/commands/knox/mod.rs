//! `claviger knox`: Knox's own command line, for `alias knox='claviger knox'` or a link named `knox`.
//!
//! Commands, flags, texts, streams and exit codes are those of Knox's command of 2025 (contract knox §11), as far as programs can depend
//! on them; `docs/compatibility.md` lists what differs. It speaks Knox's API, so it works against a Knox server too. It has flags as Go
//! reads them, exit codes 0, 1 and 2, and settings of its own (`settings`), so nothing of the other commands' options applies to it.

mod access;
mod daemon;
mod flags;
mod help;
mod login;
mod read;
mod register;
mod settings;
mod tink;
mod write;

use crate::failure::Failure;
use crate::output;
use clap::Args;
use flags::{Flag, Given, Kind, Misuse};
use settings::Site;
use std::ffi::OsString;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of a command line that is not understood, and of help that was not asked for by `help`.
const USAGE: u8 = 2;

/// What follows `knox`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Knox {
    /// Knox's command and its arguments; `claviger knox help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// One of Knox's commands, or a topic of its help.
struct Command {
    /// Its name and what follows, as the usage shows it.
    usage: &'static str,
    short: &'static str,
    long: &'static str,
    flags: &'static [Flag],
    /// Nothing for a topic.
    run: Option<Run>,
}

/// What a command does.
type Run = fn(&Site, &Given) -> Result<(), Trouble>;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// In words for standard error, without a line break at the end.
    Said(String),
    /// Standard output could not be written.
    Output(Failure),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Said(text)
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::Said(text.to_owned())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Output(failure)
    }
}

impl Command {
    fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

/// In the order of the help.
const COMMANDS: &[Command] = &[
    daemon::COMMAND,
    register::REGISTER,
    register::UNREGISTER,
    read::KEYS,
    read::GET,
    read::VERSIONS,
    access::ACL,
    write::PROMOTE,
    write::CREATE,
    write::ADD,
    write::DEACTIVATE,
    write::REACTIVATE,
    access::ACCESS,
    write::DELETE,
    tink::KEY_TEMPLATES,
    help::VERSION,
    help::AUTH,
    login::COMMAND,
];

impl Knox {
    /// Runs the command; the value is the exit code.
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let arguments: Vec<String> = self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let Some((name, rest)) = arguments.split_first() else { return Ok(help::usage()) };
        // Knox's command itself has no flags.
        match name.as_str() {
            "help" => return help::run(rest),
            "-h" | "-help" | "--h" | "--help" => return Ok(help::usage()),
            flag if flag.starts_with('-') && flag.len() > 1 => {
                eprintln!("flag provided but not defined: -{}", output::clean(flag.trim_start_matches('-')));
                return Ok(help::usage());
            }
            _ => {}
        }
        let found = COMMANDS.iter().find_map(|command| Some((command, command.run?)).filter(|_| command.name() == name));
        let Some((command, run)) = found else {
            eprintln!("knox: unknown subcommand {:?}\nRun 'knox help' for usage.", output::clean(name));
            return Ok(USAGE);
        };
        let given = match flags::parse(command.flags, rest) {
            Ok(given) => given,
            Err(Misuse::HelpWanted) => return Ok(help::usage_of(command)),
            Err(Misuse::Wrong(why)) => {
                eprintln!("{}", output::clean(&why));
                return Ok(help::usage_of(command));
            }
        };
        match run(&Site::from_env(), &given) {
            Ok(()) => Ok(0),
            Err(Trouble::Said(why)) => {
                eprintln!("{}", output::clean_lines(&why));
                Ok(FAILED)
            }
            Err(Trouble::Output(failure)) => Err(failure),
        }
    }
}

/// The arguments behind the flags, if there are as many as the command takes.
fn exactly<'a, const N: usize>(command: &str, given: &'a Given) -> Result<&'a [String; N], Trouble> {
    let count = if N == 1 { "one argument" } else { "two arguments" };
    given.arguments.as_slice().try_into().map_err(|_| format!("{command} takes exactly {count}. See 'knox help {command}'").into())
}

/// A line that is no result, such as what the daemon does.
fn log(text: &str) {
    eprintln!("{}", output::clean(text));
}

const fn switch(name: &'static str) -> Flag {
    Flag { name, kind: Kind::Switch }
}

const fn text(name: &'static str) -> Flag {
    Flag { name, kind: Kind::Text }
}
