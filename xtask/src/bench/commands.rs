//! The command line as whole processes, from start to exit.

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
