//! cargo-deny in a pinned version, built once and kept outside the clone.
//!
//! Advisories are not asked for: their database changes by the hour, so a test that passed
//! yesterday would fail today without a change here.

use std::path::PathBuf;
use std::process::Command;

use crate::shell;

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
    let folder = shell::cache()?.join("tools").join(format!("cargo-deny-{VERSION}"));
    let program = folder.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    println!("building cargo-deny {VERSION} (once)");
    // Unoptimized, since its own release profile takes minutes, and the check takes a second.
    // Without its default features it needs no TLS: it fetches nothing here.
    let mut command = shell::cargo(["install", "cargo-deny", "--locked", "--quiet", "--debug"]);
    command
        .args(["--no-default-features", "--version", VERSION, "--root"])
        .arg(&folder)
        // Its build results are of no further use: let cargo put them in a temporary folder.
        .env_remove("CARGO_TARGET_DIR");
    shell::run(&mut command)?;
    Ok(program)
}
