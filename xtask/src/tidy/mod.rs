//! Rules that the compiler cannot keep: which crate may use which, what never enters a crate or the
//! shipped program, and how source files look.
//!
//! All rules are tables in `rules.rs`; this module only finds what breaks them. Findings say what
//! is wrong and why it matters, all of them in one run.

mod graph;
mod rules;
mod scrub;
mod sources;

use anyhow::bail;

use crate::shell;
use graph::Metadata;

/// Checks everything and prints the findings.
///
/// # Errors
/// There are findings, or cargo cannot describe the workspace.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = shell::root();
    let metadata = Metadata::read()?;
    let files = sources::read_all(&root)?;
    let shipped = graph::shipped_tree()?;

    let mut findings = graph::check_arrows(&metadata);
    findings.extend(graph::check_outside(&metadata));
    findings.extend(graph::check_shipped(&shipped));
    findings.extend(sources::check_all(&files));
    findings.extend(sources::check_empty(&metadata.member_folders(&root), &files));
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!(
        "tidy: {} files in {} crates and {} shipped packages are in order",
        files.len(),
        metadata.workspace_members.len(),
        shipped.len()
    );
    Ok(())
}
