//! Claviger's automation: what CI runs, you can run.
//!
//! It starts cargo and other programs and judges what they say. It deliberately links nothing of
//! Claviger, so that it builds in seconds and cannot be broken by what it checks.

mod bench;
mod demo;
mod deny;
mod dev;
mod dist;
mod fuzz;
mod guides;
mod provider;
mod setup;
mod shell;
mod test;
mod tidy;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line of `cargo xtask`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Claviger's automation")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every test there is, in steps, up to the first that fails.
    Test(test::Options),
    /// The same as `test`: what CI runs.
    Ci(test::Options),
    /// Checks the arrows between crates, their dependencies and the rules for source files.
    Tidy,
    /// Checks dependencies for bans, licences and sources (cargo-deny).
    Deny,
    /// Measures speed and memory and prints a table with the goals.
    Bench(bench::Options),
    /// Makes what is given out: programs, Debian package, container image, bill of materials, checksums.
    Dist(dist::Options),
    /// Follows the guides word by word; one of them on a clean machine in a container.
    Guides(guides::Options),
    /// Builds, starts a development server and shows the main job.
    Demo(demo::Options),
    /// Installs the Debian packages and tools that the other commands need.
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Test(options) | Command::Ci(options) => return test::run(&options),
        Command::Tidy => tidy::run(),
        Command::Deny => deny::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Guides(options) => guides::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Setup => setup::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
