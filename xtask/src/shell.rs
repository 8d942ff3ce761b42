//! Starting other programs, and the folders that automation uses.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A binary from a shared target folder may have been built in another clone, so the clone that
    // runs it, which cargo names at run time, comes first.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or(manifest.to_owned(), PathBuf::from);
    manifest.parent().map_or(manifest.clone(), Path::to_owned)
}

/// A folder outside the clone that outlives it: tools and build results.
///
/// # Errors
/// Neither `XDG_CACHE_HOME` nor `HOME` is set.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
    let base = match base {
        Some(base) => PathBuf::from(base),
        None => {
            let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
            Path::new(&home).join(".cache")
        }
    };
    Ok(base.join("claviger"))
}

/// The cargo that started this, in the root of the workspace.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Whether the lock file must already be right: so it is in CI, where nobody would commit it.
pub(crate) fn locked() -> &'static [&'static str] {
    match env::var_os("CI") {
        Some(_) => &["--locked"],
        None => &[],
    }
}

/// Runs a command whose output the reader sees.
///
/// # Errors
/// It cannot be started, or it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("starting `{}`", show(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", show(command));
    Ok(())
}

/// Runs a command for what it writes on standard output; its errors the reader sees.
///
/// # Errors
/// It cannot be started, it fails, or it writes something that is not UTF-8.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output().with_context(|| format!("starting `{}`", show(command)))?;
    ensure!(output.status.success(), "`{}` failed ({})", show(command), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a program of this name is in `PATH`.
pub(crate) fn has_program(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// A command as one would type it, without its folder.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(OsStr::to_string_lossy);
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_root_is_where_the_workspace_is() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn a_failing_command_is_named_in_the_error() {
        let error = run(Command::new("/bin/sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed (exit status: 3)");
    }
}
