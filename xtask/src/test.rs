//! Every test there is, in steps, each announced and timed, up to the first that fails.
//!
//! The last line of the output is always `N passed, N failed`: tests as their runners counted them,
//! and a step that failed without a count of its own as one.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{deny, dist, fuzz, guides, setup, shell, tidy};

/// Options of `test`.
#[derive(Args)]
pub(crate) struct Options {
    /// More rounds where tests have a longer form (sets CLAVIGER_TEST_LONG=1).
    #[arg(long)]
    long: bool,
    /// Run only this step; may be repeated.
    #[arg(long, value_parser = step_names())]
    only: Vec<String>,
}

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Options) -> anyhow::Result<Tally>,
}

/// Cheap steps first. Extend this table when there is something new to run.
const STEPS: &[Step] = &[
    Step { name: "setup", what: "Debian packages that tests need", run: |_| uncounted(setup::packages_to_test()) },
    Step { name: "lock", what: "Cargo.lock fits the manifests", run: |_| uncounted(lock()) },
    Step { name: "fmt", what: "all code is formatted by rustfmt", run: |_| uncounted(fmt()) },
    Step { name: "tidy", what: "arrows between crates, dependencies, rules for source files", run: |_| uncounted(tidy::run()) },
    Step { name: "deny", what: "bans, licences and sources of dependencies", run: |_| uncounted(deny::run()) },
    Step { name: "clippy", what: "no warning of compiler or clippy", run: |_| uncounted(clippy()) },
    Step { name: "doc", what: "documentation builds without a warning", run: |_| uncounted(doc()) },
    Step { name: "test", what: "unit, integration and documentation tests", run: cargo_test },
    Step { name: "guides", what: "the guides do what they say", run: |_| uncounted(guides::test()) },
    Step {
        name: "dist",
        what: "what is given out, built twice, is the same to the byte, and works (with --long, or by name)",
        run: |_| uncounted(dist::check()),
    },
    Step { name: "fuzz", what: "every parser, guided by coverage (with --long, or by name)", run: |_| uncounted(fuzz::run()) },
];

/// Steps that run with `--long` or by name: each takes longer than all others together.
const LONG_ONLY: &[&str] = &["dist", "fuzz"];

fn step_names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

/// Tests that passed and failed, as a runner counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds a closing line of libtest, such as `test result: ok. 3 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result:") else {
            return;
        };
        let count = |word: &str| {
            let before = result.split(word).next().unwrap_or_default();
            let number = before.rsplit([' ', ';']).find(|part| !part.is_empty());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
    }
}

/// What became of a step.
struct Outcome {
    step: &'static Step,
    took: Duration,
    result: anyhow::Result<Tally>,
}

/// Runs the steps; a failure if one failed.
///
/// Nothing is printed after the summary, since its last line is what CI reads.
pub(crate) fn run(options: &Options) -> ExitCode {
    let begun = Instant::now();
    let mut outcomes = Vec::new();
    for step in STEPS {
        let is_named = options.only.iter().any(|it| it == step.name);
        let is_wanted = is_named || options.only.is_empty() && (options.long || !LONG_ONLY.contains(&step.name));
        if !is_wanted {
            continue;
        }
        println!("\n==> {}: {}", step.name, step.what);
        let begun = Instant::now();
        let result = (step.run)(options);
        let has_failed = match &result {
            Ok(tally) => tally.failed > 0,
            Err(_) => true,
        };
        outcomes.push(Outcome { step, took: begun.elapsed(), result });
        if has_failed {
            break;
        }
    }
    match summarize(&outcomes, begun.elapsed()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints a line per step and the closing line; true when nothing failed.
fn summarize(outcomes: &[Outcome], took: Duration) -> bool {
    let mut total = Tally::default();
    let mut failure = None;
    println!("\n==> summary");
    for Outcome { step, took, result } in outcomes {
        let seconds = took.as_secs_f64();
        match result {
            Ok(tally) if tally.failed == 0 => {
                println!("{:<8} ok      {seconds:>7.1} s", step.name);
            }
            Ok(_) => failure = Some((step, "tests failed".to_owned())),
            Err(error) => failure = Some((step, format!("{error:#}"))),
        }
        let tally = result.as_ref().copied().unwrap_or(Tally { passed: 0, failed: 1 });
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    if let Some((step, why)) = &failure {
        println!("{:<8} FAILED: {why}", step.name);
        println!("again with: cargo xtask test --only {}", step.name);
    }
    println!("all steps took {:.1} s", took.as_secs_f64());
    let Tally { passed, failed } = total;
    println!("{passed} passed, {failed} failed");
    failure.is_none()
}

/// A step that passes or fails as a whole.
fn uncounted(result: anyhow::Result<()>) -> anyhow::Result<Tally> {
    result.map(|()| Tally::default())
}

/// Nothing else would notice before CI does: without `--locked` cargo mends the lock file in passing.
fn lock() -> anyhow::Result<()> {
    let mut command = shell::cargo(["metadata", "--locked", "--format-version", "1"]);
    shell::read(&mut command).context("Cargo.lock is out of date; run `cargo check` and commit it").map(drop)
}

fn fmt() -> anyhow::Result<()> {
    let color = match std::io::stdout().is_terminal() {
        true => "auto",
        false => "never",
    };
    shell::run(&mut shell::cargo(["fmt", "--all", "--check", "--", "--color", color]))
}

fn clippy() -> anyhow::Result<()> {
    let mut command = shell::cargo(["clippy", "--workspace", "--all-targets"]);
    command.args(shell::locked()).args(["--", "--deny", "warnings"]);
    shell::run(&mut command)
}

fn doc() -> anyhow::Result<()> {
    let mut command = shell::cargo(["doc", "--workspace", "--no-deps"]);
    command.args(shell::locked()).env("RUSTDOCFLAGS", "--deny warnings");
    shell::run(&mut command)
}

fn cargo_test(options: &Options) -> anyhow::Result<Tally> {
    let mut command = shell::cargo(["test", "--workspace", "--no-fail-fast"]);
    command.args(shell::locked());
    if options.long {
        command.env("CLAVIGER_TEST_LONG", "1");
    }
    let (tally, has_succeeded) = count(&mut command)?;
    ensure!(has_succeeded || tally.failed > 0, "cargo test failed, though no test did");
    Ok(tally)
}

/// Passes a test runner's output on and counts on the way; also whether it succeeded.
fn count(command: &mut Command) -> anyhow::Result<(Tally, bool)> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting `{}`", shell::show(command)))?;
    let output = child.stdout.take().context("its output is piped")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.add(&line);
    }
    Ok((tally, child.wait()?.success()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn closing_lines_of_test_runners_are_added_up() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; finished in 0.01s");
        tally.add("test tests::result_of_9_passed ... ok");
        assert_eq!(tally, Tally { passed: 15, failed: 2 });
    }

    #[test]
    fn output_is_passed_on_and_failure_is_seen() {
        let script = "echo 'test result: FAILED. 1 passed; 1 failed;'; exit 101";
        let (tally, has_succeeded) = count(Command::new("sh").args(["-c", script])).unwrap();
        assert!(!has_succeeded);
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }

    #[test]
    fn step_names_are_unique() {
        let mut names = step_names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }

    #[test]
    fn a_failed_step_makes_the_whole_a_failure() {
        let outcome = |result| Outcome { step: &STEPS[0], took: Duration::ZERO, result };
        let passed = || outcome(Ok(Tally::default()));
        assert!(summarize(&[passed()], Duration::ZERO));
        let failed = outcome(Err(anyhow::anyhow!("no")));
        assert!(!summarize(&[passed(), failed], Duration::ZERO));
        let tests_failed = outcome(Ok(Tally { passed: 5, failed: 1 }));
        assert!(!summarize(&[tests_failed], Duration::ZERO));
    }
}
