//! Cargo tools in pinned versions, each built once and kept outside the clone.

use std::path::PathBuf;

use crate::shell;

/// The path of a tool's program, which is built if it is not there.
///
/// # Errors
/// No cache folder, or the build fails.
pub(crate) fn install(name: &str, version: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = shell::cache()?.join("tools").join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    println!("building {name} {version} (once)");
    // Unoptimized, since a release profile takes minutes, and what it does takes a second.
    let mut command = shell::cargo(["install", name, "--locked", "--quiet", "--debug"]);
    command
        .args(options)
        .args(["--version", version, "--root"])
        .arg(&folder)
        // Its build results are of no further use: let cargo put them in a temporary folder.
        .env_remove("CARGO_TARGET_DIR");
    shell::run(&mut command)?;
    Ok(program)
}
