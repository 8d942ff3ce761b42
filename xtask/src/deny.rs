//! cargo-deny in a pinned version, built once and kept outside the clone.
//!
//! Advisories are not asked for: their database changes by the hour, so a test that passed
//! yesterday would fail today without a change here.

use std::path::PathBuf;
use std::process::Command;

use crate::{shell, tool};

const VERSION: &str = "0.20.2";

/// Checks the resolved graph of dependencies against `deny.toml`.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut command = Command::new(install()?);
    command.current_dir(shell::root()).args(shell::locked()).args(["--workspace", "check", "bans", "licenses", "sources"]);
    shell::run(&mut command)
}

/// The path of the pinned cargo-deny, which is built if it is not there.
///
/// # Errors
/// No cache folder, or the build fails.
pub(crate) fn install() -> anyhow::Result<PathBuf> {
    // Without its default features it needs no TLS: it fetches nothing here.
    tool::install("cargo-deny", VERSION, &["--no-default-features"])
}
