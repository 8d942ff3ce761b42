//! A bill of materials in CycloneDX, by OWASP's own cargo-cyclonedx in a pinned version, built once like cargo-deny.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::build::Flavour;
use super::source::Source;
use crate::shell;

const VERSION: &str = "0.5.9";

/// Writes `claviger-VERSION.cdx.json`: what the full program is made of.
pub(super) fn write(source: &Source, out: &Path) -> anyhow::Result<()> {
    let tool = install()?;
    // The tool writes beside the manifests, so it gets a copy.
    let folder = tempfile::tempdir()?;
    let copy = source.copy(folder.path())?;
    let manifest = copy.root.join("crates/claviger/Cargo.toml");
    let mut command = Command::new(tool);
    command.current_dir(&copy.root).args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--no-build-deps"]);
    command.args(["--target", Flavour::ALL[0].target, "--override-filename", "sbom", "--manifest-path"]).arg(&manifest);
    command.env("SOURCE_DATE_EPOCH", source.epoch.to_string());
    shell::run(&mut command)?;
    let text = fs::read_to_string(copy.root.join("crates/claviger/sbom.json")).context("the tool wrote nothing")?;
    // It names the folder in which it ran.
    let text = text.replace(&format!("{}", copy.root.display()), "/claviger");
    let value: Value = serde_json::from_str(&text)?;
    fs::write(out.join(format!("claviger-{}.cdx.json", source.version)), serde_json::to_vec_pretty(&value)?)?;
    Ok(())
}

/// The path of the pinned cargo-cyclonedx, which is built if it is not there.
///
/// # Errors
/// No cache folder, or the build fails.
fn install() -> anyhow::Result<PathBuf> {
    crate::tool::install("cargo-cyclonedx", VERSION, &[])
}
