//! A source tree: where it lies, its version, and the time that everything made of it bears.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::shell;

/// A source tree.
pub(super) struct Source {
    /// Its root.
    pub(super) root: PathBuf,
    /// The workspace's version.
    pub(super) version: String,
    /// Seconds since 1970: of the newest commit, or what SOURCE_DATE_EPOCH says.
    pub(super) epoch: u64,
    /// Everything that is or could be committed, below the root. A copy of the tree has no repository that could say it.
    files: Vec<String>,
}

impl Source {
    /// The tree that this program belongs to.
    pub(super) fn here() -> anyhow::Result<Self> {
        let root = shell::root();
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_) => shell::read(Command::new("git").current_dir(&root).args(["log", "-1", "--format=%ct"]))?,
        };
        let epoch = epoch.trim().parse().context("SOURCE_DATE_EPOCH is not a number of seconds")?;
        let mut list = Command::new("git");
        list.current_dir(&root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let files = shell::read(&mut list)?.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Self { version: version(&root)?, root, epoch, files })
    }

    /// A copy of its files in an empty folder.
    pub(super) fn copy(&self, to: &Path) -> anyhow::Result<Self> {
        for name in &self.files {
            let (from, to) = (self.root.join(name), to.join(name));
            // In the index, but deleted in the work tree.
            if !from.exists() {
                continue;
            }
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(&from, &to).with_context(|| format!("copying {name}"))?;
        }
        Ok(Self { root: to.to_owned(), version: self.version.clone(), epoch: self.epoch, files: self.files.clone() })
    }

    /// A text file of the tree.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("reading {path}"))
    }
}

/// The version in the workspace's manifest.
fn version(root: &Path) -> anyhow::Result<String> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let section = manifest.split_once("[workspace.package]").context("the workspace has a [workspace.package]")?.1;
    let line = section.lines().find_map(|line| line.strip_prefix("version = ")).context("it has a version")?;
    let version = line.trim_matches('"').to_owned();
    ensure!(!version.is_empty(), "the version is empty");
    Ok(version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_copy_has_the_sources_and_no_build_results() {
        let folder = tempfile::tempdir().unwrap();
        let copy = Source::here().unwrap().copy(folder.path()).unwrap();
        assert!(copy.text("crates/claviger/src/main.rs").unwrap().contains("fn main"));
        assert!(!copy.root.join("target").exists() && !copy.root.join(".git").exists());
        assert_eq!(copy.version, env!("CARGO_PKG_VERSION"));
        // What is made of a copy is made of a copy of it, in turn.
        let again = tempfile::tempdir().unwrap();
        assert!(copy.copy(again.path()).unwrap().root.join("Cargo.lock").is_file());
    }
}
