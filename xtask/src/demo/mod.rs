//! The main job, shown: a secret is created, used, rotated under a running program, refused to a stranger, taken away
//! again, and all of it is in a log that proves itself.
//!
//! It does what a user would: it runs `claviger` and shows each command with what it says. The server is a development
//! server in a folder of its own, which is removed at the end. Each step fails when a command does not end as it should.

mod program;
mod stage;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use tempfile::TempDir;

use crate::dev::{Environment, Server};
use crate::{setup, shell};
use program::Program;
use stage::{Actor, Ends, Stage};

/// Options of `demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// Stop the server at the end.
    #[arg(long)]
    once: bool,
}

const KEY: &str = "demo/db-password";
/// Who runs the program: the development machine's certificate names it.
const MACHINE: &str = "machine:dev-machine";
const START_LIMIT: Duration = Duration::from_secs(60);
const SIGNED_AFTER: Duration = Duration::from_millis(1_500);
/// Refusals that the log must tell of: the stranger's, and the machine's after its right was taken.
const REFUSALS: usize = 2;

/// Builds, starts a server, shows the main job.
///
/// # Errors
/// Something does not build, or a step does not go as it should.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::packages_to_build()?;
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone())?;
    }
    let claviger = build()?;
    let folder = tempfile::Builder::new().prefix("claviger-demo-").tempdir()?;
    let begun = Instant::now();
    let (mut server, stage) = start(&claviger, &folder)?;
    show(&stage, &folder, &stopped)?;
    println!("\nAll of it took {:.1} s.", begun.elapsed().as_secs_f64());
    if !options.once {
        look_around(&claviger, &folder);
        while !stopped.load(Ordering::Relaxed) {
            server.check_alive().or_else(|error| if stopped.load(Ordering::Relaxed) { Ok(()) } else { Err(error) })?;
            thread::sleep(Duration::from_millis(100));
        }
        println!();
    }
    server.stop()?;
    println!("The server has stopped, and its folder is removed.");
    Ok(())
}

/// A debug build: it is there minutes earlier than an optimized one, and fast enough for this.
fn build() -> anyhow::Result<std::path::PathBuf> {
    println!("Building claviger (unoptimized; the first time takes some minutes, most of them for SQLite and cryptography) …");
    let mut command = shell::cargo(["build", "--package", "claviger", "--message-format", "json-render-diagnostics"]);
    let said = shell::read(command.args(shell::locked()))?;
    let artifacts = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = artifacts.filter(|it| it["target"]["name"] == "claviger").find_map(|it| it["executable"].as_str().map(str::to_owned));
    program.map(Into::into).context("cargo names no program `claviger`")
}

fn start(claviger: &Path, folder: &TempDir) -> anyhow::Result<(Server, Stage)> {
    let dir = folder.path().join("dev");
    println!("\nStarting a development server: its own authority, root key and token, and an embedded store, all in one folder.");
    println!("  $ claviger server --dev --dir {}", dir.display());
    let mut command = Command::new(claviger);
    command.args(["server", "--dev", "--dir"]).arg(&dir);
    let begun = Instant::now();
    let mut server = Server::start(&mut command, folder.path().join("server.log"))?;
    while !dir.join("dev.env").exists() {
        server.check_alive()?;
        ensure!(begun.elapsed() < START_LIMIT, "the server is not ready");
        thread::sleep(Duration::from_millis(5));
    }
    println!("  ready after {} ms", begun.elapsed().as_millis());
    let environment = Environment::parse(&std::fs::read_to_string(dir.join("dev.env"))?);
    Ok((server, Stage::new(claviger, environment)))
}

/// The steps. Each says first what is to be seen.
fn show(stage: &Stage, folder: &TempDir, stopped: &AtomicBool) -> anyhow::Result<()> {
    let go_on = || ensure_going(stopped);
    title(1, "A secret is created, and one machine may read it");
    let grant = format!("{MACHINE}=read");
    let create = ["create", KEY, "--acl", &grant, "--description", "password of the orders database", "--trim-newline"];
    stage.input("winter-2025").say(Actor::Administrator, &create, Ends::Well)?;
    go_on()?;

    title(2, "A program on that machine reads it: `claviger run` gives it as a file in memory, and a signal when it changes");
    let mut program = Program::start(stage, KEY)?;
    program.wait_for("winter-2025")?;
    go_on()?;

    title(3, "The secret is rotated while the program runs");
    rotate(stage, &mut program)?;
    go_on()?;

    title(4, "A stranger with a valid certificate, but no right, is denied: to him it looks as if there were no such key");
    stage.say(Actor::Service, &["get", KEY], Ends::Refused)?;
    go_on()?;

    title(5, "The machine's right is taken away, and its next read is refused");
    revoke(stage)?;
    program.stop()?;
    go_on()?;

    title(6, "The log has recorded all of this, and proves that nothing in it was changed or removed");
    stage.say(Actor::Administrator, &["audit", "query", "--key", KEY], Ends::Well)?;
    let denied = stage.quietly(Actor::Administrator, &["audit", "query", "--key", KEY, "--outcome", "denied", "--json"])?;
    let count = denied.lines().count();
    ensure!(count >= REFUSALS, "the log tells of {count} refusals instead of {REFUSALS}");
    // The log's head is signed once a second while records come; then the signature covers all that is shown here.
    thread::sleep(SIGNED_AFTER);
    let log = folder.path().join("dev/audit").display().to_string();
    stage.say(Actor::Administrator, &["audit", "verify", &log], Ends::Well)
}

/// Adds a version, promotes it, and waits until the running program says that it has it.
fn rotate(stage: &Stage, program: &mut Program) -> anyhow::Result<()> {
    let added = stage.input("spring-2026").hear(Actor::Administrator, &["add", KEY, "--trim-newline", "--json"])?;
    let version = added["version"].as_str().context("`add` names no version")?;
    let promoted = stage.timed(Actor::Administrator, &["promote", KEY, version])?;
    let arrived = program.wait_for("spring-2026")?;
    println!("  (from the moment at which `promote` said that it is done, until the program, without a restart, said the new value)");
    if arrived < promoted {
        println!("  (the program was first: it had the value before `promote` had printed that it is done, which counts as 0 ms)");
    }
    println!("rotation reached the program in {} ms", arrived.saturating_duration_since(promoted).as_millis());
    Ok(())
}

fn revoke(stage: &Stage) -> anyhow::Result<()> {
    stage.say(Actor::Machine, &["get", KEY], Ends::Well)?;
    let revoked = stage.timed(Actor::Administrator, &["acl", "revoke", KEY, MACHINE])?;
    stage.say(Actor::Machine, &["get", KEY], Ends::Refused)?;
    println!(
        "  read refused {} ms after the revocation was acknowledged (a whole new process and connection)",
        revoked.elapsed().as_millis()
    );
    Ok(())
}

fn look_around(claviger: &Path, folder: &TempDir) {
    let (program, dev) = (claviger.display(), folder.path().join("dev"));
    let dev = dev.display();
    println!("\nThe server is still running. To look around, in another terminal:");
    println!("  alias claviger={program}");
    println!("  set -a; . {dev}/dev.env; set +a          # you are its administrator now");
    println!("  claviger ls");
    println!("  claviger get {KEY}");
    println!("  claviger versions {KEY}");
    println!("  claviger acl show {KEY}");
    println!("  claviger acl grant {KEY} {MACHINE} read");
    println!("  claviger audit tail");
    println!("  claviger run --env PASSWORD={KEY} -- sh -c 'echo the password is $PASSWORD'");
    println!("  curl $CLAVIGER_METRICS/metrics           # if curl is there");
    println!("Ctrl-C here stops it and removes its folder.");
}

fn ensure_going(stopped: &AtomicBool) -> anyhow::Result<()> {
    ensure!(!stopped.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

fn title(number: usize, what: &str) {
    println!("\n{number}. {what}");
}
