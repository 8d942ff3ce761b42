//! Coverage-guided fuzzing of every target below `fuzz/`, a minute each. Needs a nightly toolchain; cargo-fuzz is built once,
//! in a pinned version, and kept outside the clone.
//!
//! The same entry points run on random input as unit tests in their crates, which is what CI has time for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::shell;

const VERSION: &str = "0.13.2";
const SECONDS: u32 = 60;

/// Fuzzes every target in turn; the first crash ends it, and its input stays in `fuzz/artifacts`.
pub(crate) fn run() -> anyhow::Result<()> {
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    ensure!(nightly.is_ok_and(|o| o.status.success()), "fuzzing needs a nightly toolchain: rustup toolchain install nightly");
    let program = install()?;
    let build = shell::cache()?.join("fuzz");
    for target in targets()? {
        println!("fuzzing {target} for {SECONDS} s");
        let mut command = Command::new(&program);
        command.current_dir(shell::root()).env("RUSTUP_TOOLCHAIN", "nightly").args(["fuzz", "run", &target, "--target-dir"]).arg(&build);
        command.args(["--", "-rss_limit_mb=4096"]).arg(format!("-max_total_time={SECONDS}"));
        shell::run(&mut command).with_context(|| format!("fuzz target {target}"))?;
    }
    Ok(())
}

fn targets() -> anyhow::Result<Vec<String>> {
    let folder = shell::root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for file in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        names.extend(file?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn install() -> anyhow::Result<PathBuf> {
    let folder = shell::cache()?.join("tools").join(format!("cargo-fuzz-{VERSION}"));
    let program = folder.join("bin/cargo-fuzz");
    if !program.is_file() {
        println!("building cargo-fuzz {VERSION} (once)");
        let mut command = shell::cargo(["install", "cargo-fuzz", "--locked", "--quiet", "--debug", "--version", VERSION, "--root"]);
        command.arg(&folder).env_remove("CARGO_TARGET_DIR");
        shell::run(&mut command)?;
    }
    Ok(program)
}
