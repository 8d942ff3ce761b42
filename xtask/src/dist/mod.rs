//! What is given out: programs, a Debian package, an image for containers, a bill of materials, checksums, a signature.
//!
//! The same sources give the same bytes, in whatever folder and whenever: paths are mapped away, times are those of the
//! newest commit, lists are sorted. `--check` builds everything a second time in another folder and compares, and tries
//! what was made with programs that others wrote.

mod archive;
mod build;
mod check;
mod deb;
mod image;
mod sbom;
mod sign;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::{guides, setup, shell};
use build::{Flavour, build};
use source::Source;

/// Options of `dist`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where the results go; `target/artifacts` unless given.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Sign the checksums with this OpenSSH private key.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Build twice in different folders, compare, and try the results with other programs.
    #[arg(long)]
    check: bool,
}

/// Makes everything.
///
/// # Errors
/// Something cannot be built, is too large, or (with `--check`) differs or does not work.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let out = options.out.clone().unwrap_or_else(folder);
    match options.check {
        true => check::run(&out, options.sign_key.as_deref()),
        false => make(&Source::here()?, &out, options.sign_key.as_deref()),
    }
}

/// As a test: makes everything twice, compares, tries; then the guides that begin with an installed package.
///
/// # Errors
/// As [`run`], and as [`guides::run`] for those guides.
pub(crate) fn check() -> anyhow::Result<()> {
    check::run(&folder(), None)?;
    guides::follow_installed(&folder())
}

/// Where results go unless somebody says otherwise. Not `target/dist`: that is where cargo works for the profile of this name.
pub(crate) fn folder() -> PathBuf {
    shell::root().join("target/artifacts")
}

/// Builds all results of a source tree into an empty folder.
fn make(source: &Source, out: &Path, sign_key: Option<&Path>) -> anyhow::Result<()> {
    setup::packages_for_dist()?;
    let _ = fs::remove_dir_all(out);
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let programs = Flavour::ALL.iter().map(|flavour| build(source, *flavour)).collect::<anyhow::Result<Vec<_>>>()?;
    let [full, cli, glibc] = programs.as_slice() else { unreachable!("one program per flavour") };
    for program in &programs {
        program.judge_size()?;
    }
    let papers = archive::Papers::of(source, &full.path)?;
    for program in &programs {
        archive::tarball(source, program, &papers, out)?;
    }
    deb::package(source, &glibc.path, &papers, out)?;
    image::write(source, &full.path, out)?;
    sbom::write(source, out)?;
    sign::checksums(out)?;
    match sign_key {
        Some(key) => sign::sign(out, key)?,
        None => println!("not signed: give --sign-key FILE, an OpenSSH private key"),
    }
    println!("\nin {}:", out.display());
    for path in archive::files_of(out)? {
        println!("  {:>9.2} MB  {}", fs::metadata(&path)?.len() as f64 / 1e6, archive::name_of(&path));
    }
    println!("  the command line alone has {:.1} MB, everything {:.1} MB", cli.size as f64 / 1e6, full.size as f64 / 1e6);
    Ok(())
}

/// A folder with the package alone, for guides that begin with it.
pub(crate) fn package_for_guides() -> anyhow::Result<PathBuf> {
    setup::packages_for_dist()?;
    let source = Source::here()?;
    let out = shell::root().join("target/dist-package");
    fs::create_dir_all(&out)?;
    let program = build(&source, Flavour::GLIBC)?;
    let papers = archive::Papers::of(&source, &program.path)?;
    deb::package(&source, &program.path, &papers, &out)?;
    Ok(out)
}
