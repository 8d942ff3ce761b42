//! The bench: speed and memory against the floor and against goals. Never a test.
//!
//! What is compared runs in the same session, in turn (A B A B A B), each figure with its median and
//! its extremes. Servers and the load generator are release builds in processes of their own. A
//! line that fails says why, and the others go on.

mod commands;
mod disk;
mod figure;
mod floor;
mod lines;
mod load;
mod login;
mod metrics;
mod node;
mod poll;
mod process;
mod read;
mod revoke;
mod server;
mod start;
mod stores;
mod streams;
mod table;
mod uses;
mod writers;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::shell;
use disk::Disk;
use figure::Figure;
use lines::{LINES, Line};

/// Options of `bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only this line; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = lines::names())]
    only: Vec<String>,
    /// Write all figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round of each: to see that it works, not to quote from.
    #[arg(long)]
    quick: bool,
    /// Measure the programs in this folder (claviger, xtask-floor, xtask-load) instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// What a line has to work with.
pub(super) struct Bench {
    /// Folder of the release programs.
    programs: PathBuf,
    /// An empty folder on the disk that is measured; removed at the end.
    folder: PathBuf,
    /// How often each pair runs.
    rounds: usize,
    warmup: Duration,
    /// How long each run is measured.
    window: Duration,
    disk: Disk,
    /// How many files a process may open.
    open_files: u64,
    quick: bool,
}

impl Bench {
    /// `full` repetitions, or a tenth of them where it is only to be seen that it works.
    fn repetitions(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// A fresh folder for one server or one purpose.
    fn subfolder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("creating `{}`", folder.display()))?;
        Ok(folder)
    }

    /// Runs `a` and `b` in turn, as often as the bench has rounds.
    fn in_turn<A, B>(
        &self,
        mut a: impl FnMut() -> anyhow::Result<A>,
        mut b: impl FnMut() -> anyhow::Result<B>,
    ) -> anyhow::Result<Vec<(A, B)>> {
        (0..self.rounds).map(|_| Ok((a()?, b()?))).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What is left behind costs only space, and the next run removes it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Builds, measures, prints the table and writes the JSON.
///
/// # Errors
/// Something does not build, or a line could not be measured. A goal that is not reached is no
/// error: it is what the table is for.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    let wanted: Vec<&Line> = LINES.iter().filter(|line| options.only.is_empty() || options.only.iter().any(|it| it == line.name)).collect();
    let target = target_folder()?;
    let programs = match &options.programs {
        Some(folder) => folder.canonicalize().with_context(|| format!("finding `{}`", folder.display()))?,
        None => {
            build("xtask-floor")?;
            build("xtask-load")?;
            target.join("release")
        }
    };
    let bench = prepare(options, programs, &target.join("bench"))?;
    let claviger = match options.programs.is_none() && wanted.iter().any(|line| line.needs_claviger) {
        true => build("claviger"),
        false => Ok(()),
    };
    println!("\nmachine: {}", process::machine());
    println!("disk:    {}", bench.disk);

    let mut figures = Vec::new();
    let mut failures = Vec::new();
    for line in wanted {
        println!("\n{}: {}", line.name, line.measures);
        let found = match &claviger {
            Err(error) if line.needs_claviger => Err(anyhow!("{error:#}")),
            _ => (line.run)(&bench),
        };
        match found {
            Ok(found) => {
                print!("{}", table::render(&found));
                figures.extend(found);
            }
            Err(error) => {
                println!("  could not be measured: {error:#}");
                failures.push(line.name);
            }
        }
    }
    println!("\nall figures\n{}", table::render(&figures));
    println!("took {:.0} s", begun.elapsed().as_secs_f64());
    if let Some(path) = &options.json {
        write_json(path, &figures)?;
    }
    if !failures.is_empty() {
        bail!("not measured: {}", failures.join(", "));
    }
    Ok(())
}

fn write_json(path: &PathBuf, figures: &[Figure]) -> anyhow::Result<()> {
    let list: Vec<_> = figures.iter().map(Figure::to_json).collect();
    let text = serde_json::to_string_pretty(&list)?;
    fs::write(path, text + "\n").with_context(|| format!("writing `{}`", path.display()))
}

/// Builds one package for release.
///
/// The floor and Claviger are built by separate commands, so that neither turns on features in
/// what the other is built from.
fn build(package: &str) -> anyhow::Result<()> {
    println!("building {package}");
    let mut command = shell::cargo(["build", "--release", "--quiet", "--package", package]);
    shell::run(command.args(shell::locked()))
}

/// Where cargo puts build results.
fn target_folder() -> anyhow::Result<PathBuf> {
    let mut command = shell::cargo(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&shell::read(&mut command)?)?;
    let target = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(PathBuf::from(target))
}

/// `folder` is beside the build results: a temporary folder may be in memory, where fsync costs nothing.
fn prepare(options: &Options, programs: PathBuf, folder: &Path) -> anyhow::Result<Bench> {
    let folder = folder.to_owned();
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let disk = Disk::measure(&folder)?;
    let (rounds, warmup, window) = match options.quick {
        false => (3, 1.0, 5.0),
        true => (1, 0.3, 1.0),
    };
    Ok(Bench {
        programs,
        folder,
        rounds,
        warmup: Duration::from_secs_f64(warmup),
        window: Duration::from_secs_f64(window),
        disk,
        open_files: process::raise_open_files(),
        quick: options.quick,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pairs_run_in_turn() {
        let bench = Bench {
            programs: PathBuf::new(),
            folder: PathBuf::new(),
            rounds: 3,
            warmup: Duration::ZERO,
            window: Duration::ZERO,
            disk: Disk::default(),
            open_files: 0,
            quick: false,
        };
        let order = std::cell::RefCell::new(String::new());
        let pairs = bench.in_turn(
            || {
                order.borrow_mut().push('A');
                Ok(1)
            },
            || {
                order.borrow_mut().push('B');
                Ok(2)
            },
        );
        assert_eq!(pairs.unwrap(), [(1, 2); 3]);
        assert_eq!(order.into_inner(), "ABABAB");
    }
}
