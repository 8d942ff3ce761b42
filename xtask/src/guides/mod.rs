//! Follows the guides word by word: runs every command of a guide in one shell, as a reader would, and compares what it
//! says with what the guide says it does.
//!
//! A block of ```` ```sh ```` is run as it stands and must succeed. In a block of ```` ```console ```` the lines after
//! `$ ` are run, and every other line must appear in the output, numbers, times and hexadecimal ids aside; a line of `…`
//! stands for anything. Other blocks are for reading. What a reader must put in of his own stands in the guide as
//! `${NAME:-an example}`.

mod machine;
mod text;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::shell;
use machine::Machine;
use text::{Block, Kind};

/// Options of `guides`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this guide, by its file's name without `.md`; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Folder with the results of `cargo xtask dist`, for guides that begin with an installed package; built unless given.
    #[arg(long, value_name = "DIR")]
    dist: Option<PathBuf>,
}

/// Where a guide is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Beside a development server on this machine.
    Here,
    /// On a clean Debian machine, as root.
    Clean,
}

/// The guides that are followed. Extend this table with each guide.
const GUIDES: &[(&str, Place)] = &[("first-hour", Place::Here), ("production-one-machine", Place::Clean), ("from-knox", Place::Here)];

/// How long one block may take.
const BLOCK_LIMIT: Duration = Duration::from_secs(600);
/// How long lines of programs in the background may take to appear.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Follows the guides.
///
/// # Errors
/// A guide's commands fail, or say something else than it does.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |name: &&(&str, Place)| options.only.is_empty() || options.only.iter().any(|only| only == name.0);
    let chosen: Vec<_> = GUIDES.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "there is no such guide; there are {}", names().join(", "));
    for (name, place) in chosen {
        let begun = Instant::now();
        match place {
            Place::Here => follow(name, Reader::here(None)?)?,
            Place::Clean => {
                let machine = Machine::boot(options.dist.as_deref())?;
                follow(name, Reader::at(machine.shell())?)?;
            }
        }
        println!("{name}: followed in {:.0} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}

/// As a test: the guides beside a development server, with the program that tests use.
///
/// # Errors
/// As [`run`].
pub(crate) fn test() -> anyhow::Result<()> {
    let mut build = shell::cargo(["build", "--package", "claviger"]);
    shell::run(build.args(shell::locked()))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from);
    for (name, _) in GUIDES.iter().filter(|(_, place)| *place == Place::Here) {
        follow(name, Reader::here(Some(&target.join("debug")))?)?;
    }
    Ok(())
}

/// The guides that begin with an installed package, on a clean machine.
///
/// # Errors
/// As [`run`].
pub(crate) fn follow_installed(dist: &Path) -> anyhow::Result<()> {
    for (name, _) in GUIDES.iter().filter(|(_, place)| *place == Place::Clean) {
        let machine = Machine::boot(Some(dist))?;
        follow(name, Reader::at(machine.shell())?)?;
    }
    Ok(())
}

fn names() -> Vec<&'static str> {
    GUIDES.iter().map(|(name, _)| *name).collect()
}

/// Runs a guide's blocks in the order in which they stand.
fn follow(name: &str, mut reader: Reader) -> anyhow::Result<()> {
    let path = shell::root().join("docs/guides").join(format!("{name}.md"));
    let guide = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    for block in text::blocks(&guide).into_iter().flat_map(Block::steps) {
        println!("{name}.md:{}: {}", block.line, block.commands().next().unwrap_or_default());
        reader.run(&block).with_context(|| format!("{name}.md, the block at line {}", block.line))?;
    }
    Ok(())
}

/// Somebody at a shell.
struct Reader {
    shell: Child,
    said: PathBuf,
    /// How much of what was said belongs to blocks before.
    seen: usize,
    /// Numbers of the guide, and those that stand for them in this run.
    numbers: BTreeMap<String, String>,
    _folder: tempfile::TempDir,
}

impl Reader {
    /// On this machine, in the workspace's root; with the program in this folder, or as the guide says.
    fn here(programs: Option<&Path>) -> anyhow::Result<Self> {
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc"]).current_dir(shell::root());
        if let Some(programs) = programs {
            bash.env("CLAVIGER_BIN", programs);
        }
        Self::at(bash)
    }

    /// In a shell that this command starts.
    fn at(mut command: Command) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let said = folder.path().join("said");
        let output = File::create(&said)?;
        command.process_group(0).stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let shell = command.spawn().with_context(|| format!("starting `{}`", shell::show(&command)))?;
        Ok(Self { shell, said, seen: 0, numbers: BTreeMap::new(), _folder: folder })
    }

    /// Types a block, waits for its end, and compares.
    fn run(&mut self, block: &Block) -> anyhow::Result<()> {
        // At a terminal the prompt stands between values without a line break and what comes next.
        let prompt = if block.kind == Kind::Console { "\necho\n" } else { "\n" };
        let typed: String = block.commands().flat_map(|command| [command, prompt]).collect();
        let typed = self.numbers.iter().fold(typed, |typed, (guide, run)| typed.replace(guide, run));
        let mark = format!("::end of line {}::", block.line);
        let script = match block.kind {
            Kind::Sh => format!("set -e\n{typed}set +e\necho '{mark}'\n"),
            Kind::Console => format!("{typed}echo '{mark}'\n"),
        };
        let input = self.shell.stdin.as_mut().context("its input is piped")?;
        input.write_all(script.as_bytes()).and_then(|()| input.flush()).context("the shell has ended")?;
        let said = self.until(&mark)?;
        self.compare(block, said)
    }

    /// What was said up to the mark.
    fn until(&mut self, mark: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < BLOCK_LIMIT {
            let said = self.since()?;
            if let Some((before, _)) = said.split_once(mark) {
                return Ok(before.to_owned());
            }
            if let Some(status) = self.shell.try_wait()? {
                bail!("a command failed ({status}). It said:\n{}", self.since()?);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("it took longer than {BLOCK_LIMIT:?}. It said:\n{}", self.since()?)
    }

    fn since(&self) -> anyhow::Result<String> {
        let all = fs::read(&self.said)?;
        Ok(String::from_utf8_lossy(&all[self.seen.min(all.len())..]).into_owned())
    }

    /// Waits until every line of the guide has appeared: programs in the background speak when they can.
    fn compare(&mut self, block: &Block, mut said: String) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match block.compare(&said) {
                Ok(numbers) => {
                    self.numbers.extend(numbers);
                    self.seen = fs::metadata(&self.said)?.len() as usize;
                    return Ok(());
                }
                Err(line) => ensure!(begun.elapsed() < SETTLE_LIMIT, "the guide says `{line}`, but what was said is:\n{said}"),
            }
            thread::sleep(Duration::from_millis(50));
            said = self.since()?;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // A guide that ends early has programs in the background; they are of the shell's group.
        if let Some(group) = Pid::from_raw(self.shell.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::TERM);
        }
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The file of a folder whose name is as wanted.
fn found(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}; make it with `cargo xtask dist`", folder.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let path = paths.find(|path| path.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy())));
    path.with_context(|| format!("{} lacks what a guide begins with; make it with `cargo xtask dist`", folder.display()))
}
