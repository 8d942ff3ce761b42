//! Building the program in its flavours, so that neither folder nor time leaves a trace.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use super::source::Source;
use crate::shell;

/// A way in which the program is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flavour {
    /// What its files are called after.
    pub(super) name: &'static str,
    /// Rust's target.
    pub(super) target: &'static str,
    /// Cargo's profile.
    profile: &'static str,
    /// Whether it has the roles beside the command line.
    roles: bool,
    /// The largest it may be, in bytes.
    most: u64,
}

impl Flavour {
    /// Everything, static: runs on any Linux.
    const FULL: Self =
        Self { name: "x86_64-linux-static", target: "x86_64-unknown-linux-musl", profile: "dist", roles: true, most: 30_000_000 };
    /// The command line alone, static.
    const CLI: Self = Self { name: "cli-x86_64-linux-static", profile: "dist-cli", roles: false, most: 12_000_000, ..Self::FULL };
    /// Everything, with the system's C library: its allocator, and its ways to look up names, users and groups.
    pub(super) const GLIBC: Self = Self { name: "x86_64-linux-glibc", target: "x86_64-unknown-linux-gnu", ..Self::FULL };
    /// In the order in which they are built.
    pub(super) const ALL: &[Self] = &[Self::FULL, Self::CLI, Self::GLIBC];
}

/// A built program.
pub(super) struct Program {
    pub(super) flavour: Flavour,
    pub(super) path: PathBuf,
    /// In bytes.
    pub(super) size: u64,
}

impl Program {
    /// # Errors
    /// It is larger than it may be.
    pub(super) fn judge_size(&self) -> anyhow::Result<()> {
        let Self { flavour, size, .. } = self;
        ensure!(*size <= flavour.most, "{} has {size} bytes, more than {}", flavour.name, flavour.most);
        Ok(())
    }
}

/// Builds one flavour in the tree's own `target` folder, or where cargo is told to.
pub(super) fn build(source: &Source, flavour: Flavour) -> anyhow::Result<Program> {
    println!("building {}", flavour.name);
    let target_folder = match env::var_os("CARGO_TARGET_DIR") {
        // Two trees never share a folder: the second would take the first one's results for its own.
        Some(folder) if source.root == shell::root() => PathBuf::from(folder),
        _ => source.root.join("target"),
    };
    let mut command = shell::cargo(["build", "--quiet", "--locked", "--profile", flavour.profile, "--package", "claviger"]);
    command.current_dir(&source.root).args(["--target", flavour.target, "--target-dir"]).arg(&target_folder);
    if !flavour.roles {
        command.arg("--no-default-features");
    }
    let cargo_home = cargo_home()?;
    let places = [(source.root.clone(), "/claviger"), (cargo_home, "/cargo"), (target_folder.clone(), "/target")];
    let rust = places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let c = places.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
    // With a linker that somebody has set up for himself the bytes would be others.
    command.env("CARGO_ENCODED_RUSTFLAGS", rust.collect::<Vec<_>>().join("\x1f"));
    command.env("CFLAGS", c.collect::<Vec<_>>().join(" "));
    command.env("SOURCE_DATE_EPOCH", source.epoch.to_string());
    for overriding in ["RUSTFLAGS", "CARGO_BUILD_BUILD_DIR", "CARGO_INCREMENTAL"] {
        command.env_remove(overriding);
    }
    shell::run(&mut command).with_context(|| format!("building {}", flavour.name))?;
    let path = target_folder.join(flavour.target).join(flavour.profile).join("claviger");
    // The next flavour of the same target takes its place.
    let kept = path.with_file_name(format!("claviger-{}", flavour.name));
    fs::copy(&path, &kept).with_context(|| format!("copying {}", path.display()))?;
    Ok(Program { flavour, size: fs::metadata(&kept)?.len(), path: kept })
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> anyhow::Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(PathBuf::from(home)),
        None => Ok(PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo")),
    }
}
