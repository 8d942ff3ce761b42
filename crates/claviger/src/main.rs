//! The `claviger` command: one program for people, programs, and the server.
//!
//! It parses, connects, and leaves everything else to one file per command in `commands`. No thread, runtime or
//! connection exists before the arguments are understood.

mod ask;
mod cli;
mod commands;
mod deposit;
mod editor;
mod failure;
mod memory;
mod new_file;
mod output;
mod parse;
mod random;
mod sessions;
mod wipe;

use clap::Parser;
use failure::Failure;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// All commands hold secrets or may: the server those of others, `get` and `run` those they were given.
#[global_allocator]
static ALLOCATOR: wipe::WipeOnFree = wipe::WipeOnFree::system();

fn main() -> ExitCode {
    // No core dump and no ptrace by the same user: this process may hold secrets. It can fail only on kernels without
    // the call, where there is nothing better to do than to go on.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let cli = match cli::Cli::try_parse_from(arguments()) {
        Ok(cli) => cli,
        // Help and version come this way too, and are no errors.
        Err(error) if error.use_stderr() && wants_json() => return Failure::arguments(&error).report(true),
        Err(error) => error.exit(),
    };
    let json = cli.global.json;
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(json),
    }
}

/// The command line; a link named `knox`, which Knox's Go library looks for, stands for `claviger knox`.
fn arguments() -> impl Iterator<Item = OsString> {
    let mut given = std::env::args_os();
    let program = given.next().unwrap_or_default();
    let is_knox = Path::new(&program).file_name().is_some_and(|name| name == "knox");
    std::iter::once(program).chain(is_knox.then(|| OsString::from("knox"))).chain(given)
}

/// Whether `--json` was asked for by arguments that are not understood.
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}
