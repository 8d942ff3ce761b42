//! The command line as whole processes, from start to exit.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Bench;
use super::figure::{Figure, Goal};
use super::server::Claviger;

const KEY: &str = "bench:cli";
const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const RUNS: usize = 40;
/// The program that `run` starts: it does nothing.
const PROGRAM: &str = "/bin/true";
const MOST_GET_MS: f64 = 15.0;
const MOST_MORE_MS: f64 = 30.0;
const LEAST_SCAN_MB: f64 = 100.0;
/// Keys that `scan` looks for, each with so many members.
const SCANNED: (usize, usize) = (10, 100);
/// Files that `scan` searches, and bytes of each.
const FILES: (usize, usize) = (4, 256 << 20);
const SCANS: usize = 5;

/// The figures of `claviger get`.
pub(super) fn get(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start(bench)?;
    claviger.create_key(bench, KEY, DATA)?;
    let mut get = client(bench, &claviger, &["get", KEY])?;
    let times: Vec<f64> = (0..bench.repetitions(RUNS)).map(|_| timed(&mut get)).collect::<anyhow::Result<_>>()?;
    Ok(vec![Figure::new(name, "ms", &times)?.with_goal(Goal::AtMost(MOST_GET_MS))])
}

/// The figures of `claviger run`, in turn with the program alone.
pub(super) fn run(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start(bench)?;
    claviger.create_key(bench, KEY, DATA)?;
    let binding = format!("SECRET={KEY}");
    let mut run = client(bench, &claviger, &["run", "--env", &binding, "--", PROGRAM])?;
    let mut plain = Command::new(PROGRAM);
    quiet(&mut plain);
    let (mut more, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..bench.repetitions(RUNS) {
        let (with, without) = (timed(&mut run)?, timed(&mut plain)?);
        more.push(with - without);
        alone.push(without);
    }
    Ok(vec![
        Figure::new(name, "ms more", &more)?.with_goal(Goal::AtMost(MOST_MORE_MS)),
        Figure::new(format!("{name}/plain-exec"), "ms", &alone)?,
    ])
}

/// The figures of `claviger scan`.
pub(super) fn scan(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start(bench)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for key in 0..SCANNED.0 {
        let members: Vec<String> =
            (0..SCANNED.1).map(|n| format!("\"name{n}\":\"{:016x}{:016x}\"", random.next(), random.next())).collect();
        let value = format!("{{{}}}", members.join(","));
        let mut put = client(bench, &claviger, &["put", &format!("bench/scan{key}")])?;
        let mut child = put.stdin(Stdio::piped()).spawn().context("starting `claviger put`")?;
        child.stdin.take().context("its input is piped")?.write_all(value.as_bytes())?;
        ensure!(child.wait()?.success(), "`claviger put` failed");
    }
    let folder = tempfile::tempdir_in(&bench.folder)?;
    for file in 0..FILES.0 {
        std::fs::write(folder.path().join(file.to_string()), text(&mut random, FILES.1))?;
    }
    let mut scan = client(bench, &claviger, &["scan", &folder.path().to_string_lossy()])?;
    scan.stderr(Stdio::null());
    let megabytes = (FILES.0 * FILES.1) as f64 / 1e6;
    let rates = (0..bench.repetitions(SCANS)).map(|_| Ok(megabytes / timed(&mut scan)? * 1e3)).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(vec![Figure::new(name, "MB/s", &rates)?.with_goal(Goal::AtLeast(LEAST_SCAN_MB))])
}

/// Numbers of an xorshift generator: the same text in every session.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Text with the characters of programs.
fn text(random: &mut Random, length: usize) -> Vec<u8> {
    const CHARACTERS: &[u8; 64] = b"etaoinshrdlu etaoinshrdlu \ncmfwypvbgkjqxzETAOIN01234567{}();=._-";
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        let number = random.next();
        bytes.extend((0..8).map(|n| CHARACTERS[(number >> (n * 8) & 63) as usize]));
    }
    bytes
}

fn client(bench: &Bench, claviger: &Claviger, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(bench.programs.join("claviger"));
    command.args(arguments).envs(claviger.client_environment()?);
    quiet(&mut command);
    Ok(command)
}

fn quiet(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
}

/// Milliseconds of a process that must succeed.
fn timed(command: &mut Command) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("starting `{}`", crate::shell::show(command)))?;
    let took: Duration = begun.elapsed();
    ensure!(status.success(), "`{}` failed ({status})", crate::shell::show(command));
    Ok(took.as_secs_f64() * 1e3)
}
